"""Training and validation loss stay together, high and flat, though rate and gradient are in order.

Noise in the targets looks the same. So it is a warning only where the network is as narrow as to explain it.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.findings import Cause, Remedy, Severity

LEVEL, STEPS, GAP, NARROW = "underfit_level", "underfit_steps", "underfit_gap", "underfit_width"
FLAT = 0.04  # of the loss, that the second half of the run may still take away
PARTS = 4


def judge(window: Window, say: Say) -> None:
    """The level of the loss beside a constant prediction's, its fall over the second half, the validation loss."""
    facts = window.facts
    if len(facts.optimizers) > 1 or not facts.baseline > 0:
        raise Skip("what a constant prediction costs is not known")
    seen = course(window, 50)
    held = window.validation.since(window.since_change).values
    held = held[np.isfinite(held)]
    if not len(held):
        raise Skip("there is no validation loss")
    levels = seen.levels(PARTS)
    now, val = float(levels[-1]), float(np.median(held[-3:]))
    steps = window.step - window.since_change
    high = say.measure("loss, of a constant prediction's", now / facts.baseline, LEVEL)
    long = say.measure("steps so far", steps, STEPS)
    together = say.measure("validation loss, of the training loss", val / now, GAP, above=False)
    flat = levels[-2] - now < FLAT * facts.baseline + seen.noise / np.sqrt(len(seen.values) / PARTS)
    rises = now > 1.2 * seen.reference
    if high and long and together and flat and not rises:
        _tell(window, now, val, say)


def _tell(window: Window, now: float, val: float, say: Say) -> None:
    hidden = list(window.facts.widths.items())[:-1]
    narrowest = min(hidden, key=lambda each: each[1], default=("", np.inf))
    narrow = say.measure("units of the narrowest hidden layer", narrowest[1], NARROW, above=False)
    few = f" {narrowest[0] or 'A layer'} has {narrowest[1]:.0f} unit{'s' * (narrowest[1] > 1)}: little can pass it."
    say.find(
        Cause.UNDERFITTING,
        Severity.WARNING if narrow else Severity.INFO,
        "The network is too small for its task" if narrow else "The loss stays high on training and validation data",
        f"The training loss is flat at {now:.3g}, the validation loss at {val:.3g}; a constant prediction would have "
        f"{window.facts.baseline:.3g}. They lie together, so it is not learning by heart." + few * narrow,
        confidence=0.75 if narrow else 0.4,
        layers=(narrowest[0],) if narrow else (),
        remedies=(
            Remedy("Make it wider or deeper, and see whether the training loss falls."),
            Remedy("Take away dropout and weight decay until it learns the training data."),
            Remedy(
                "Train longer, at other rates; if nothing helps, the targets may be noise.", code="debugger.find_lr()"
            ),
        ),
    )


CHECK = LiveCheck(
    "underfitting",
    "the network has room for what it is to learn",
    judge,
    (Cause.UNDERFITTING,),
    curves=("loss/train", "loss/val"),
    parameters=(
        Parameter(LEVEL, 0.6, "training loss, of a constant prediction's, that is high", 0.0),
        Parameter(STEPS, 150.0, "steps that a network may take to learn something"),
        Parameter(GAP, 1.15, "validation loss, of the training loss, that is as good"),
        Parameter(NARROW, 2.0, "units that a hidden layer needs", 0.0),
    ),
    source="Karpathy, A recipe for training neural networks: overfit first, then regularise",
    steps=100,
)
