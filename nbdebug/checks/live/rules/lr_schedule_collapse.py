"""The schedule takes the learning rate away with most of the run to go: stepped per batch, meant per epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import SetSchedule
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity
from nbdebug.records.frames import Floats

SHARE, TO_GO = "schedule_share_of_peak", "schedule_run_to_go"
FEWEST = 10  # steps at the low rate, and
LEAST = 0.05  # this share of the run so far: a trough between restarts is shorter
HELD = 5  # steps that a rate must have been in force for to be the highest
CONVERGED = 0.05  # of where the loss began
WAITS = "ReduceLROnPlateau"


def judge(window: Window, say: Say) -> None:
    """The rate beside its peak, for how long it has been low, and how much of the run is to come."""
    facts = window.facts
    rates = window.curve("lr").since(window.since_change)
    if WAITS in facts.schedule:
        raise Skip("the schedule follows the loss")
    if facts.goal <= window.step:
        raise Skip("when the run ends is not known, or it is over")
    if len(rates) < FEWEST or not (peak := float(np.sort(rates.values)[-HELD])) > 0:
        raise Skip("too few rates were recorded")
    share = rates.values / peak
    low = _since_low(share, say.limit(SHARE))
    is_low = say.measure("learning rate, of its highest", float(share[-1]), SHARE, above=False)
    to_go = say.measure("share of the run that is to come", 1 - _step_of(rates.steps, low) / facts.goal, TO_GO)
    steps_low = window.step - _step_of(rates.steps, low)
    if not (is_low and to_go) or steps_low < max(FEWEST, LEAST * window.step):
        return
    seen = course(window)
    converged = seen.fallen > 1 - CONVERGED
    index = np.unique(np.linspace(0, len(share) - 1, 60).astype(int))
    say.find(
        Cause.LR_SCHEDULE_COLLAPSE,
        Severity.INFO if converged else Severity.WARNING,
        "The schedule has taken the learning rate away",
        f"Since step {_step_of(rates.steps, low):,} of {facts.goal:,} the rate is below {say.limit(SHARE):.0%} of its "
        f"highest, now {rates.values[-1]:.2g}: what is to come of the run can change almost nothing.{_guess(window)}",
        confidence=0.92,
        pictures=(
            Picture(
                PictureKind.LINES, "learning rate", rates.values[index][None], ("lr",),
                tuple(str(each) for each in rates.steps[index]),
            ),
        ),
        remedies=(
            Remedy("Go on without the schedule.", command=SetSchedule(None)),
            Remedy(
                "Step the scheduler once an epoch, or make the schedule as long as the run, in batches.",
                code='Trainer(..., scheduler=scheduler, scheduler_interval="epoch")',
            ),
        ),
    )  # fmt: skip


def _since_low(share: Floats, limit: float) -> int:
    """The place of the first value after the last one that was not low."""
    high = np.flatnonzero(~(share < limit))
    return int(min(high[-1] + 1, len(share) - 1)) if len(high) else 0


def _step_of(steps: NDArray[np.int64], place: int) -> int:
    return int(steps[place])


def _guess(window: Window) -> str:
    """What it most likely is, by the number of epochs that it took."""
    length = window.facts.epoch_length
    if not length or window.facts.goal < 2 * length:
        return ""
    rates = window.curve("lr").since(window.since_change)
    first = rates.values[: max(length - 1, 2)]
    often = len(np.unique(first)) > max(3, len(first) // 20)
    return " It changes within epochs, as a schedule meant for epochs does when it is stepped per batch." * often


CHECK = LiveCheck(
    "lr_schedule_collapse",
    "the schedule leaves a learning rate to learn with",
    judge,
    (Cause.LR_SCHEDULE_COLLAPSE,),
    curves=("loss/train", "lr"),
    parameters=(
        Parameter(SHARE, 0.01, "learning rate, of its highest, that is as good as none", 0.0, 1.0),
        Parameter(TO_GO, 0.4, "share of the run that must be to come for a vanished rate to be a fault", 0.0, 1.0),
    ),
    source="PyTorch, torch.optim: step a per-epoch scheduler once an epoch, OneCycleLR after every batch",
    steps=15,
)
