"""One and the same batch comes at different places of the epochs: the network sees nothing else any more."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.confirming import Confirm, looks
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.looks import Question

PLACES = "same_batch_places"
SAMPLED = 4
FEWEST = 3  # batches an epoch


def suspects(window: Window, say: Say) -> bool:
    """The least and the greatest input were the same at the latest sampled steps, at different places of epochs."""
    if window.facts.epoch_length < FEWEST:
        raise Skip("an epoch has too few batches for them to differ")
    keys = [key for key in window.curves if key.startswith(("data_min/", "data_max/")) and _is_input(key)]
    if not keys:
        raise Skip("inputs were not measured")
    curves = [window.curve(key).since(window.since_change) for key in keys]
    if min(len(each) for each in curves) < SAMPLED:
        raise Skip("inputs were measured too seldom")
    places = np.unique((curves[0].steps[-SAMPLED:] - 1) % window.facts.epoch_length)
    values = np.stack([each.last(SAMPLED) for each in curves])
    return bool(len(places) > SAMPLED // 2 and (values == values[:, :1]).all())


def judge(window: Window, say: Say) -> None:
    """Whether the batches looked at are one, and from how many places of the epoch they are."""
    if not suspects(window, say):
        return
    found = looks(window, CONFIRM)[-SAMPLED:]
    places = len({(each.step - 1) % window.facts.epoch_length for each in found})
    same = len({each.batch for each in found}) == 1
    if say.measure("places of the epoch at which the same batch came", places if same else 0, PLACES):
        say.find(
            Cause.REPEATED_BATCH,
            Severity.WARNING,
            "The same batch comes again and again",
            f"At steps {', '.join(f'{each.step:,}' for each in found)}, {places} different places of epochs of "
            f"{window.facts.epoch_length} batches, it was one and the same batch, number by number. The training loss "
            "will fall, on that one.",
            confidence=0.95,
            remedies=(Remedy("Go through the whole data once an epoch.", code="for batch in loader: ..."),),
        )


def _is_input(key: str) -> bool:
    """Whether a curve is of what goes into a network, by the last part of its name."""
    return key.rpartition("/")[2].startswith("input") or "input" in key.rpartition("/")[2].split(".")


CONFIRM = Confirm((Question.BATCH,), suspects, fewest=3)
CHECK = LiveCheck(
    "repeated_batch_live",
    "batches go on differing",
    judge,
    (Cause.REPEATED_BATCH,),
    curves=("loss/train", "data_min/*", "data_max/*"),
    parameters=(Parameter(PLACES, 1.5, "places of the epoch at which the same batch may come"),),
    source="Slavv, 37 reasons why your neural network is not working: the same batch fed over and over",
    steps=50,
    confirm=CONFIRM,
)
