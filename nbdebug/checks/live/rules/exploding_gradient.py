"""The gradient's norm leaps far above its own running median again and again, or has grown far above where it began."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.remedies import slower
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, Clip, ClipMode, SetKnobs
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity
from nbdebug.records.frames import Floats

LEAP, TIMES, GROWN = "gradient_leap", "gradient_leaps", "gradient_grown"
BEHIND = 20  # norms before one, whose median it is held against
RECENT = 100


def judge(window: Window, say: Say) -> None:
    """Norms before clipping since the last change, where the network has learnt nothing yet."""
    norms = window.curve("grad_norm").since(window.since_change).values
    norms = norms[np.isfinite(norms)]
    if len(norms) < BEHIND + 5:
        raise Skip("too few norms were measured")
    seen = course(window, BEHIND)
    start = float(np.median(norms[:BEHIND]))
    usual = np.median(np.lib.stride_tricks.sliding_window_view(norms, BEHIND), axis=1)[:-1]
    later = norms[BEHIND:]
    leaps = (later > say.limit(LEAP) * usual) & (later > say.limit(LEAP) * start) & (usual > 0)
    now = float(np.median(norms[-BEHIND:]))
    often = say.measure("leaps of the gradient's norm in the latest steps", float(leaps[-RECENT:].sum()), TIMES)
    grown = say.measure("gradient's norm, of where it began", now / start if start > 0 else 0.0, GROWN)
    if seen.has_learnt or not (often or grown):
        return
    worse = not seen.now < seen.reference
    _tell(window, norms, Severity.WARNING if grown and worse and seen.start > 0 else Severity.INFO, start, now, say)


def _tell(window: Window, norms: Floats, severity: Severity, start: float, now: float, say: Say) -> None:
    better = float(f"{np.quantile(norms, 0.5):.2g}")
    say.find(
        Cause.EXPLODING_GRADIENT,
        severity,
        "The gradient explodes",
        f"Its norm was about {start:.3g} at first, is about {now:.3g} now, and was {norms[-RECENT:].max():.3g} at its "
        "highest in the latest steps. Single steps of that length undo what many have learnt.",
        confidence=0.75,
        pictures=(Picture(PictureKind.LINES, "norm of the gradient", norms[-RECENT:][None], ("norm",)),),
        remedies=(
            Remedy(f"Clip at the usual norm, {better:g}.", command=SetKnobs(Changes(clip=Clip(ClipMode.NORM, better)))),
            *slower(window),
            Remedy("In recurrent networks, truncate backpropagation through time; elsewhere, add norm layers."),
        ),
    )


CHECK = LiveCheck(
    "exploding_gradient",
    "the gradient keeps its scale",
    judge,
    (Cause.EXPLODING_GRADIENT,),
    curves=("loss/train", "grad_norm", "lr"),
    parameters=(
        Parameter(LEAP, 10.0, "gradient's norm, of its running median and of where it began, that is a leap", 1.0),
        Parameter(TIMES, 1.5, "leaps in the latest hundred steps"),
        Parameter(GROWN, 30.0, "gradient's norm, of where it began", 1.0),
    ),
    source="Pascanu, Mikolov, Bengio 2013, On the difficulty of training recurrent neural networks",
    steps=25,
)
