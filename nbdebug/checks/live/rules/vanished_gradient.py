"""The loss stands still where nothing was learnt, and the gradient is gone: no minimum, and no reason to stop early.

Near a minimum the gradient goes, too; but there the loss is lower than a constant prediction's.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, EditNorms, InitScheme, Reinitialize, Rerun, StartPoint
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

LEFT, LEVEL, FALLEN = "gradient_left", "gradient_gone_level", "gradient_gone_fallen"
FEWEST = 15
PARTS = 4


def judge(window: Window, say: Say) -> None:
    """The norm now, of what it was at first, where the loss no longer falls and is as high as without learning."""
    if len(window.facts.optimizers) > 1:
        raise Skip("several optimizers work against each other")
    norms = window.curve("grad_norm").since(window.since_change).values
    norms = norms[np.isfinite(norms)]
    if len(norms) < 2 * FEWEST:
        raise Skip("too few norms were measured")
    seen = course(window, 40)
    first, now = float(np.median(norms[:FEWEST])), float(np.median(norms[-FEWEST:]))
    if not first > 0:
        raise Skip("there was no gradient from the beginning")
    known = np.isfinite(seen.baseline) and seen.baseline > 0
    gone = say.measure("gradient's norm, of where it began", now / first, LEFT, above=False)
    if known:
        high = say.measure("loss, of a constant prediction's", seen.now / seen.baseline, LEVEL)
    else:
        high = say.measure("share of the loss that is gone", seen.fallen, FALLEN, above=False)
    levels = seen.levels(PARTS)
    still = abs(levels[-1] - levels[-2]) < 0.01 * abs(levels[-2]) + seen.noise
    if gone and high and still:
        _tell(window, norms, first, now, seen.now, say)


def _tell(window: Window, norms: np.ndarray, first: float, now: float, loss: float, say: Say) -> None:
    index = np.unique(np.linspace(0, len(norms) - 1, 60).astype(int))
    say.find(
        Cause.VANISHING_GRADIENT,
        Severity.WARNING,
        "The gradient is gone, with nothing learnt",
        f"Its norm was about {first:.2g} at first and is {now:.2g} now, while the loss stands at {loss:.3g}, no lower "
        "than without learning. To stop early here would be to take that for convergence: units are dead or saturated, "
        "so that no change of a weight is felt any more.",
        confidence=0.75,
        pictures=(Picture(PictureKind.LINES, "norm of the gradient", norms[index][None], ("norm",)),),
        remedies=(
            Remedy("Draw weights anew, as He et al.", command=Reinitialize(InitScheme.KAIMING_NORMAL, 0)),
            Remedy("Put batch norms between the layers.", command=EditNorms(True)),
            *_again(window),
        ),
    )


def _again(window: Window) -> tuple[Remedy, ...]:
    rates = window.curve("lr").since(window.since_change).values
    rate = float(np.nanmax(rates)) if len(rates) else 0.0
    if not rate > 0:
        return ()
    lower = float(f"{rate / 10:.2g}")
    again = Rerun(StartPoint.START, changes=Changes(lr=lower))
    return (Remedy(f"Train again from the start at a tenth of the rate, {lower:g}.", command=again),)


CHECK = LiveCheck(
    "vanished_gradient",
    "a loss that stands still stands at a minimum",
    judge,
    (Cause.VANISHING_GRADIENT,),
    curves=("loss/train", "grad_norm", "lr"),
    parameters=(
        Parameter(LEFT, 1e-4, "gradient's norm, of where it began, that is as good as gone", 0.0, 1.0),
        Parameter(LEVEL, 0.97, "loss, of a constant prediction's, at which nothing was learnt"),
        Parameter(FALLEN, 0.05, "share of the loss that must be gone where the gradient is", -1.0, 1.0),
    ),
    source="Checklists on vanishing gradients: an early stop may be one",
    steps=60,
)
