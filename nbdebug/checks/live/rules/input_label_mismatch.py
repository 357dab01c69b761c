"""After long training outputs go with the inputs, but targets might as well belong to other samples.

Told by the loss with targets dealt anew among the samples of a batch that was just trained on: where anything was
learnt of how the two belong together, that is worse.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.confirming import Confirm, looks, over
from nbdebug.checks.live.course import course
from nbdebug.checks.live.layers import medians
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.looks import Question
from nbdebug.records.signals import Signal

RELATION, LEVEL, STEPS, LONG = "dealt_surprise", "dealt_level", "dealt_steps", "dealt_steps_long"
OUTPUT = 1e-3  # change of the output, of its size, by which inputs count as used
UPDATES = (1e-5, 10**-1.5)  # of the weights, in which a network would learn what there is
FEWEST_EPOCHS = 3
NO_LOWER = 0.995  # of a constant prediction's loss: below, there is a relation, however weak


def suspects(window: Window, say: Say) -> bool:
    """The loss is a constant prediction's after long training, or unknown how far from it and as high as at first."""
    if len(window.facts.optimizers) > 1:
        raise Skip("several optimizers work against each other")
    if window.step - window.since_change < say.limit(STEPS):
        raise Skip(f"judged from {say.limit(STEPS):.0f} steps on")
    seen = course(window, 50)
    known = np.isfinite(seen.baseline) and seen.baseline > 0
    if not known and not seen.start > 0:
        raise Skip("what a constant prediction costs is not known")
    level = seen.now / seen.baseline if known else seen.now / seen.start
    return say.measure("loss, of a constant prediction's, or of where it began", level, LEVEL)


def judge(window: Window, say: Say) -> None:
    """By how many deviations the loss is below that with targets dealt anew, all looks together."""
    if not suspects(window, say):
        return
    found = looks(window, CONFIRM)
    dealt = np.stack([each.dealt for each in found])
    spreads = np.std(dealt, axis=1)
    if not (spreads > 0).all() or not (over(found, "output_change") > OUTPUT).all():
        raise Skip("the loss does not go by pairs, or outputs don't go by inputs")
    each = (np.mean(dealt, axis=1) - over(found, "training")) / spreads
    together = float(np.sum(each) / np.sqrt(len(each)))
    unrelated = say.measure(
        "deviations by which targets dealt anew make the loss worse", together, RELATION, above=False
    )
    if unrelated:
        _tell(window, together, say)


def _is_no_lower(window: Window) -> bool:
    """Whether the second half of the losses lies at a constant prediction's or above: a weak relation shows there."""
    seen = course(window, 50)
    return bool(np.mean(seen.values[len(seen.values) // 2 :]) > NO_LOWER * seen.baseline)


def _tell(window: Window, together: float, say: Say) -> None:
    steps, length = window.step - window.since_change, window.facts.epoch_length
    long = say.measure("steps so far", steps, LONG) and length > 0 and steps >= FEWEST_EPOCHS * length
    sound = _updates_are_sound(window) and _is_no_lower(window)
    say.find(
        Cause.INPUT_LABEL_MISMATCH,
        Severity.WARNING if long and sound else Severity.INFO,
        "Inputs and targets seem unrelated",
        f"After {steps:,} steps the loss on a batch just trained on is the same when its targets are dealt out to "
        f"other samples ({together:.1f} deviations apart), while outputs do go with the inputs"
        + (", and updates are of a healthy size" if sound else "")
        + ". Either the two do not belong together, or what relates them is too hard to find like this.",
        confidence=0.6 if long and sound else 0.4,
        remedies=(
            Remedy("Look at pairs.", code="for i in range(5): show(x[i], y[i])"),
            Remedy("Where inputs and targets are shuffled, sorted or read, do both at once."),
            Remedy("Hold the data against simple learners.", code="debugger.preflight()"),
        ),
    )


def _updates_are_sound(window: Window) -> bool:
    track = window.track(Signal.UPDATE_RATIO)
    if track is None:
        return False
    usual = medians(track.high[track.steps > window.since_change][-5:])
    usual = usual[np.isfinite(usual)]
    return bool(len(usual)) and bool(UPDATES[0] < np.median(usual) < UPDATES[1])


CONFIRM = Confirm((Question.TARGETS, Question.INPUTS), suspects, fewest=3)
CHECK = LiveCheck(
    "input_label_mismatch_live",
    "targets belong to their inputs",
    judge,
    (Cause.INPUT_LABEL_MISMATCH,),
    signals=(Signal.UPDATE_RATIO,),
    parameters=(
        Parameter(RELATION, 4.5, "deviations by which targets dealt anew must make the loss worse"),
        Parameter(LEVEL, 0.97, "loss, of a constant prediction's, from which pairs are looked at"),
        Parameter(STEPS, 200.0, "steps from which pairs are looked at"),
        Parameter(LONG, 500.0, "steps after which unrelated pairs are worth a warning"),
    ),
    source="37 reasons why your neural network is not working: the relation of input and output is too random",
    persistence=3,
    steps=200,
    confirm=CONFIRM,
)
