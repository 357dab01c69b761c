"""The outputs stay the same, number by number, when samples are exchanged: nothing of the input comes through."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.confirming import Confirm, looks, over
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import InitScheme, Reinitialize
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.looks import Question

CHANGE = "live_output_change"
FLAT = 0.02  # of the loss, that the latest quarter may still take away


def suspects(window: Window, say: Say) -> bool:
    """The loss stays, no lower than where a network ends that can say one thing only."""
    if len(window.facts.optimizers) > 1:
        raise Skip("several optimizers work against each other")
    rates = window.curve("lr").since(window.since_change).values
    if len(rates) and not np.nanmax(rates) > 0:
        raise Skip("the learning rate is zero")
    seen = course(window, 40)
    if np.isfinite(seen.baseline) and seen.baseline > 0:
        return bool(seen.now > 0.95 * seen.baseline)
    levels = seen.levels(4)
    return bool(abs(levels[-1] - levels[-2]) < FLAT * abs(levels[-2]) + seen.noise)


def judge(window: Window, say: Say) -> None:
    """The largest change of an output at any of the latest looks."""
    if not suspects(window, say):
        return
    found = looks(window, CONFIRM)
    change = float(np.max(over(found, "output_change")))
    evaluating, zeroed = (float(np.median(over(found, name))) for name in ("evaluating", "zeroed"))
    say.measure("loss on the batch at hand", evaluating)
    say.measure("the same, with zeros as input", zeroed)
    if say.measure("change of the output when samples are exchanged, of its size", change, CHANGE, above=False):
        say.find(
            Cause.MODEL_IGNORES_INPUT,
            Severity.WARNING,
            "The output does not depend on the input",
            f"At {len(found)} looks the samples of the batch were exchanged, and the outputs stayed as they were; with "
            f"zeros as input the loss is {zeroed:.4g}, with the batch itself {evaluating:.4g}. Such a network can "
            "learn the targets' mean or the most frequent class, and no more.",
            confidence=0.8,
            remedies=(
                Remedy("Follow the input through forward: is it overwritten, multiplied by zero, or never used?"),
                Remedy("Draw weights anew, as He et al.", command=Reinitialize(InitScheme.KAIMING_NORMAL, 0)),
                Remedy("Look whether all units of some layer are dead, or a norm takes all differences away."),
            ),
        )


CONFIRM = Confirm((Question.INPUTS,), suspects)
CHECK = LiveCheck(
    "model_ignores_input_live",
    "the output goes on depending on the input",
    judge,
    (Cause.MODEL_IGNORES_INPUT,),
    curves=("loss/train", "lr"),
    parameters=(Parameter(CHANGE, 1e-5, "change of the output that other inputs must bring, of its size"),),
    source="Karpathy, A recipe for training neural networks: an input-independent baseline",
    steps=60,
    confirm=CONFIRM,
)
