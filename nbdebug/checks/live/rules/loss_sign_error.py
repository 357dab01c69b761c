"""The loss falls below zero ever faster: nothing bounds it, as where an error is maximised or a minus is missing.

A likelihood's loss may well go below zero: it does so ever slower.
"""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.findings import Cause, Remedy, Severity

DEPTH = "boundless_depth"
PARTS = 4


def judge(window: Window, say: Say) -> None:
    """How far below zero it is, of where it began, and whether each stretch lost at least as much as the one before."""
    if len(window.facts.optimizers) > 1:
        raise Skip("several optimizers work against each other")
    seen = course(window, 20)
    scale = max(abs(seen.start), abs(float(np.nan_to_num(seen.baseline))))
    if seen.now >= 0 or scale <= 0:
        raise Skip("the loss is above zero")
    lost = -np.diff(seen.levels(PARTS))
    faster = bool((lost > 0).all() and (lost[1:] >= 0.9 * lost[:-1]).all())
    deep = say.measure("how far below zero the loss is, of its size at first", -seen.now / scale, DEPTH)
    if deep and faster:
        say.find(
            Cause.LOSS_SIGN_ERROR,
            Severity.CRITICAL if seen.now < -10 * say.limit(DEPTH) * scale else Severity.WARNING,
            "The loss falls without bound",
            f"It began at {seen.start:.3g}, is at {seen.now:.3g}, and falls ever faster: there is no best value that "
            "training could come to. An error is made large instead of small, or a likelihood lacks its minus.",
            confidence=0.9,
            remedies=(Remedy("Turn the loss's sign round.", code="loss = -loss"),),
        )


CHECK = LiveCheck(
    "loss_sign_error_live",
    "the loss has a lowest value",
    judge,
    (Cause.LOSS_SIGN_ERROR,),
    parameters=(Parameter(DEPTH, 8.0, "how far below zero the loss may be, of its size at first"),),
    source="37 reasons why your neural network is not working: verify the loss function",
    steps=20,
)
