"""The network knows what it should, and dropout hides it: on the same batch the loss is far lower without."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.confirming import Confirm, looks, over
from nbdebug.checks.live.course import course
from nbdebug.checks.live.layers import listed
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import Changes, SetKnobs
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.looks import Question

SHARE, FLAT, STRONG = "eval_share_of_training", "dropout_still_falling", "dropout_strong"
PARTS = 4


def suspects(window: Window, say: Say) -> bool:
    """There is dropout, and the training loss stays high."""
    if not any(p > 0 for p in window.facts.dropout.values()):
        raise Skip("there is no dropout layer")
    seen = course(window, 60)
    if seen.start <= 0 or seen.best <= 0:
        raise Skip("the loss has no fixed zero")
    levels = seen.levels(PARTS)
    still = say.measure(
        "share of the loss that the latest quarter took away", 1 - levels[-1] / levels[-2], FLAT, above=False
    )
    return still and not seen.has_learnt


def judge(window: Window, say: Say) -> None:
    """The median loss in evaluation mode, beside that in training mode."""
    if not suspects(window, say):
        return
    found = looks(window, CONFIRM)
    training, evaluating = (float(np.median(over(found, name))) for name in ("training", "evaluating"))
    if training <= 0:
        raise Skip("the loss is zero")
    hidden = say.measure("loss in evaluation mode, of that in training mode", evaluating / training, SHARE, above=False)
    if not hidden:
        return
    most = max(window.facts.dropout.values())
    layers = tuple(name for name, p in window.facts.dropout.items() if p == most)
    strong = say.measure("highest probability of dropout", most, STRONG)
    say.find(
        Cause.DROPOUT_TOO_HIGH,
        Severity.WARNING if strong else Severity.INFO,
        "Dropout hides what the network knows",
        f"On the batches just trained on, the loss is {evaluating:.3g} in evaluation mode and {training:.3g} in "
        f"training mode, where it no longer falls. {listed(layers)} leaves out {most:.0%} of the values.",
        confidence=0.8 if strong else 0.5,
        layers=layers,
        remedies=(
            Remedy("Set it to half of that.", command=SetKnobs(Changes(dropout=dict.fromkeys(layers, most / 2)))),
            Remedy("Make the layers before it wider, or leave it out before the last layers."),
        ),
    )


CONFIRM = Confirm((Question.MODES,), suspects)
CHECK = LiveCheck(
    "dropout_too_high_live",
    "dropout leaves enough of the signal as training goes",
    judge,
    (Cause.DROPOUT_TOO_HIGH,),
    parameters=(
        Parameter(SHARE, 0.6, "loss in evaluation mode, of that in training mode on the same batch", 0.0),
        Parameter(FLAT, 0.05, "share of the loss that a quarter of the run takes away, if it still falls"),
        Parameter(STRONG, 0.65, "probability of dropout that is strong", 0.0, 1.0),
    ),
    source="Srivastava et al. 2014: p of 0.5 for hidden units, less for inputs",
    steps=100,
    confirm=CONFIRM,
)
