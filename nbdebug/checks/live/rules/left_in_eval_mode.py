"""The model was put into evaluation mode in the midst of training and has been trained in it since.

What counts is the mode at each update: an evaluation between two steps that is put back before the next is none of it.
The first steps are looked into by themselves; here the model trained in training mode before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.layers import listed
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.findings import Cause, Remedy, Severity

LONG = "steps_in_eval_mode"
WHOLE = 250  # points of a curve from which on some may be left out


def judge(window: Window, say: Say) -> None:
    """How long the latest steps in a row were trained in evaluation mode, and which layers sleep because of it."""
    asleep, taken = window.curve("eval_mode").steps, window.loss.steps
    if not len(taken):
        raise Skip("no step was taken")
    last = int(taken[-1])
    still = bool(len(asleep)) and int(asleep[-1]) >= last - max(_gap(asleep), _gap(taken)) + 1
    since = _since(asleep) if still else last + 1
    long = say.measure(
        "latest steps in a row trained in evaluation mode", last + 1 - max(since, window.since_change + 1), LONG
    )
    layers = window.facts.asleep
    if long and since > taken[0] and layers:
        _tell(since, last, layers, say)


def _gap(steps: NDArray[np.int64]) -> int:
    """Steps from one point to the next: 1, unless the curve is so long that some are left out."""
    return 1 if len(steps) < WHOLE else 2 * int(np.median(np.diff(steps)))


def _since(steps: NDArray[np.int64]) -> int:
    """The first of the latest ones in a row."""
    breaks = np.flatnonzero(np.diff(steps) > _gap(steps))
    return int(steps[breaks[-1] + 1] if len(breaks) else steps[0])


def _tell(since: int, last: int, layers: tuple[str, ...], say: Say) -> None:
    say.find(
        Cause.EVAL_MODE_IN_TRAINING,
        Severity.WARNING,
        "The model was left in evaluation mode",
        f"All steps from {since} to {last} were trained in evaluation mode, those before in training mode: "
        f"{listed(layers)} drop nothing and gather no statistics. Usually a model.eval(), for a look at the accuracy, "
        f"say, was not followed by model.train(). Look for it in what runs about step {since - 1}.",
        confidence=0.9,
        layers=layers,
        remedies=(Remedy("Switch back after each evaluation.", code="model.train()"),),
    )


CHECK = LiveCheck(
    "left_in_eval_mode",
    "the model stays in training mode",
    judge,
    (Cause.EVAL_MODE_IN_TRAINING,),
    curves=("loss/train", "eval_mode"),
    parameters=(Parameter(LONG, 4.0, "steps in a row that may be trained in evaluation mode"),),
    source="37 reasons why your neural network is not working: check the mode of batch norm and dropout",
    persistence=1,
)
