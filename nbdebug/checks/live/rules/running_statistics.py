"""In evaluation mode the loss is bad on the very batches just trained on: a norm's running statistics are others.

So it is no overfitting: that shows on other data alone.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.confirming import Confirm, looks, over
from nbdebug.checks.live.course import course
from nbdebug.checks.live.layers import listed, named
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.looks import Question

VALIDATION, TIMES, GAP = "statistics_validation", "statistics_times", "statistics_gap"
KINDS = ("BatchNorm", "InstanceNorm")


def norms(window: Window) -> tuple[str, ...]:
    """The layers that keep running statistics."""
    kinds = np.array([*window.facts.kinds.values()], dtype=np.str_)
    chosen = np.any([np.char.find(kinds, each) >= 0 for each in KINDS], axis=0)
    return named(tuple(window.facts.kinds), chosen)


def suspects(window: Window, say: Say) -> bool:
    """There are such norms, and the latest validation loss is far above the training loss."""
    if not norms(window):
        raise Skip("no layer keeps running statistics")
    seen = course(window, 40)
    held = window.validation.since(window.since_change).values
    held = held[np.isfinite(held)]
    if not len(held):
        raise Skip("there is no validation loss")
    if seen.now <= 0 or seen.start <= 0:
        raise Skip("the loss has no fixed zero")
    return say.measure("validation loss, of the training loss", float(np.median(held[-3:])) / seen.now, VALIDATION)


def judge(window: Window, say: Say) -> None:
    """The least loss in evaluation mode at any of the latest looks, beside the median in training mode."""
    if not suspects(window, say):
        return
    found, seen = looks(window, CONFIRM), course(window, 40)
    training = float(np.median(over(found, "training")))
    evaluating = float(np.min(over(found, "evaluating")))
    scale = seen.baseline if np.isfinite(seen.baseline) and seen.baseline > 0 else seen.start
    times = say.measure("loss in evaluation mode, of that in training mode", evaluating / max(training, 1e-12), TIMES)
    gap = say.measure(
        "the difference, of a constant prediction's loss or of the first", (evaluating - training) / scale, GAP
    )
    if times and gap:
        layers = norms(window)
        say.find(
            Cause.DEGENERATE_NORMALIZATION,
            Severity.WARNING,
            "Norms do something else in evaluation mode",
            f"On the batches just trained on, the loss is {training:.3g} in training mode and {evaluating:.3g} or more "
            f"in evaluation mode, where {listed(layers)} go by running statistics instead of the batch's. These are "
            "far from what batches have: they follow too slowly, or batches are too small, or differ too much.",
            confidence=0.9,
            layers=layers,
            remedies=(
                Remedy("Let the statistics follow faster.", code="norm.momentum = 0.1"),
                Remedy("Take larger, well-mixed batches, or GroupNorm or LayerNorm in their place."),
                Remedy("Take averages over the data before evaluating.", code="torch.optim.swa_utils.update_bn(...)"),
            ),
        )


CONFIRM = Confirm((Question.MODES,), suspects)
CHECK = LiveCheck(
    "running_statistics",
    "norms do the same in training and evaluation mode",
    judge,
    (Cause.DEGENERATE_NORMALIZATION,),
    curves=("loss/train", "loss/val"),
    parameters=(
        Parameter(VALIDATION, 1.5, "validation loss, of the training loss, from which running statistics are doubted"),
        Parameter(TIMES, 3.0, "loss in evaluation mode, of that in training mode on the same batch"),
        Parameter(GAP, 0.3, "the difference of the two, of a constant prediction's loss"),
    ),
    source="Ioffe, Szegedy 2015, Batch normalization: inference with population statistics",
    persistence=3,
    steps=100,
    confirm=CONFIRM,
)
