"""The learning rate is too high: the loss jumped up or stays above where it began, and updates are large.

Neither is enough by itself: the first updates of Adam are often a tenth of the weights, and many things raise a loss.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import Course, course
from nbdebug.checks.live.layers import medians
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, FindLr, Rerun, SetKnobs, StartPoint
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.signals import Signal

RATIO, VIOLENT, RISE, JUMP = "lr_high_update_ratio", "lr_violent_update_ratio", "lr_high_rise", "lr_high_jump"
BLOWN_UP = 30.0  # times where it began: updates need not have been measured
EARLY = 30
MARGIN = 0.5  # of where it began: the most that scatter is allowed for, which is without bound where a loss blows up
LARGE_RATE = 1e-5  # below this a rate is not what makes a loss blow up


def judge(window: Window, say: Say) -> None:
    """The level of the loss beside where it began, its worst early jump, and the largest updates measured."""
    if len(window.facts.optimizers) > 1:
        raise Skip("several optimizers work against each other: no loss has to fall")
    if "LBFGS" in window.facts.optimizers:
        raise Skip("LBFGS searches for its step itself")
    seen = course(window, 5)
    if seen.start <= 0 or seen.best <= 0:
        raise Skip("the loss has no fixed zero")
    rates = window.curve("lr").values
    if len(rates) and not np.nanmax(rates) > LARGE_RATE:
        raise Skip("the learning rate is tiny")
    ratio = _largest_update(window)
    rise = (seen.now - min(seen.noise, MARGIN * seen.reference)) / seen.reference
    large = say.measure("largest update, of the weights (median over layers)", ratio, RATIO)
    rose = say.measure("loss, of where it began or of a constant prediction's", rise, RISE)
    jumped = say.measure("highest level of the first losses, of where it began", _jump(seen), JUMP)
    jumped |= _jumped_as_far_as_thrown(seen, ratio, say)
    violent = say.measure("largest update, for a jump to count by itself", ratio, VIOLENT)
    blown = rise > BLOWN_UP
    if blown or (large and rose and _jump(seen) > say.limit(RISE)) or (violent and jumped and not seen.has_learnt):
        _tell(window, seen, ratio, say)


def _largest_update(window: Window) -> float:
    """NaN where none was measured since the last change."""
    track = window.track(Signal.UPDATE_RATIO)
    if track is None:
        return float("nan")
    recent = medians(track.high[track.steps > window.since_change])
    return float(np.nanmax(recent)) if np.isfinite(recent).any() else float("nan")


def _jump(seen: Course) -> float:
    """The highest median of three losses in a row, of where it began."""
    values = seen.values[:EARLY] if seen.now < seen.reference else seen.values
    threes = np.median(np.lib.stride_tricks.sliding_window_view(values, 3), axis=1)
    return float(threes.max() / seen.reference)


def _jumped_as_far_as_thrown(seen: Course, ratio: float, say: Say) -> bool:
    """Whether it jumped less, but beyond scatter, where an update was many times as large as is violent already."""
    times = max(ratio / say.limit(VIOLENT), 1.0) if np.isfinite(ratio) else 1.0
    wanted = max(1 + (say.limit(JUMP) - 1) / times, say.limit(RISE))
    scattered = min(2 * seen.noise / seen.reference, MARGIN)
    return times > 1 and _jump(seen) - scattered > wanted


def _tell(window: Window, seen: Course, ratio: float, say: Say) -> None:
    rates = window.curve("lr").values
    rate = float(rates[-1]) if len(rates) else float("nan")
    size = f"; updates were up to {ratio:.2g} of the weights, a thousandth being usual" if np.isfinite(ratio) else ""
    say.find(
        Cause.LR_TOO_HIGH,
        Severity.CRITICAL if seen.now > BLOWN_UP * seen.reference else Severity.WARNING,
        "The learning rate is too high",
        f"The loss began at {seen.start:.3g} and is at {seen.now:.3g} after {len(seen.values)} steps{size}. Steps this "
        "long overshoot: each lands further from the minimum than it began, or throws away what was learnt.",
        confidence=0.9 if ratio > say.limit(RATIO) else 0.75,
        remedies=_ladder(rate),
    )


def _ladder(rate: float) -> tuple[Remedy, ...]:
    """A lower rate from here on, a still lower one, the whole way again, and what only the user can do."""
    if not np.isfinite(rate) or rate <= 0:
        return (Remedy("Divide the learning rate by 10, then by 100."),)
    tenth, hundredth = (float(f"{rate / divisor:.2g}") for divisor in (10, 100))
    return (
        Remedy(f"Set it to a tenth, {tenth:g}.", command=SetKnobs(Changes(lr=tenth))),
        Remedy(f"Set it to a hundredth, {hundredth:g}.", command=SetKnobs(Changes(lr=hundredth))),
        Remedy(
            "Train again from the start at a tenth: weights that were thrown far off may not come back.",
            command=Rerun(StartPoint.START, changes=Changes(lr=tenth)),
        ),
        Remedy("Test which rates are good, from tiny to large.", command=FindLr()),
        Remedy("Let the rate rise over the first hundreds of steps (warm-up)."),
    )


CHECK = LiveCheck(
    "lr_too_high",
    "updates are small enough for the loss to fall",
    judge,
    (Cause.LR_TOO_HIGH,),
    curves=("loss/train", "lr"),
    signals=(Signal.UPDATE_RATIO,),
    parameters=(
        Parameter(RATIO, 10**-1.5, "largest update, of the weights, where the loss rises"),
        Parameter(VIOLENT, 0.5, "largest update, of the weights, where the loss jumps at first"),
        Parameter(RISE, 1.3, "how high the loss may lie, of where it began"),
        Parameter(JUMP, 2.0, "how high the first losses may jump, of where it began"),
    ),
    source="Karpathy, CS231n: the ratio of updates to weights should be about 1e-3",
    persistence=2,
    steps=5,
)
