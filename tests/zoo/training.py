"""Trains a program with the live checks on: so many steps, or until its loss has settled."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from nbdebug import debugger_live
from nbdebug.records.findings import Cause

STRETCH = 75  # steps: the loss over the latest so many is held against that over those before
LEAST_FALL = 0.01  # of all that the loss has fallen, for a stretch to count as one in which it falls
SLOW_S = 4.0
NOT_FINITE = frozenset(
    {Cause.NAN_LOSS, Cause.NUMERICAL_INSTABILITY, Cause.HALF_PRECISION_OVERFLOW, Cause.EXPLODING_GRADIENT}
)


@dataclass
class End:
    """Where a run's natural end is: its loss has settled. Bounded by time on the processor as well, from its start."""

    losses: list[float] = field(default_factory=list)
    began: float = math.nan
    has_settled: bool = False

    def __call__(self, values: Mapping[str, float]) -> bool:
        """A breakpoint's condition: takes down the step's loss."""
        if not self.losses:
            self.began = time.process_time()
        self.losses.append(float(values.get("loss", math.nan)))
        self.has_settled = settled(self.losses)
        return self.has_settled or time.process_time() - self.began > SLOW_S


def settled(losses: list[float]) -> bool:
    """Whether a loss has fallen, and falls no more.

    Its mean over the latest stretch lies at most 1 % of its whole fall below that over the stretch before. One that
    never fell is not settled: it may be warming up.
    """
    if len(losses) < 3 * STRETCH:
        return False
    first = sum(losses[:5]) / 5
    before = sum(losses[-2 * STRETCH : -STRETCH]) / STRETCH
    latest = sum(losses[-STRETCH:]) / STRETCH
    return latest < first and before - latest <= LEAST_FALL * (first - latest)


@contextmanager
def judged_by_steps() -> Iterator[None]:
    """Live checks are made whenever due, however long they take, so that what is found depends on steps alone."""
    with mock.patch.object(debugger_live, "SHARE", math.inf):
        yield


def train(debugger: Any, steps: int, end: End | None = None) -> str:
    """At most so many steps. What a program raises is a finding's matter; the error of one without any is returned."""
    if end is not None:
        debugger.break_when(end)
    try:
        with judged_by_steps():
            debugger.run(steps=steps)
    except Exception as error:
        return "" if debugger.findings else f"{type(error).__name__}: {error}"
    return ""


def first_broken(debugger: Any) -> int:
    """The first step with a value that is not finite, in the loss or before it could be recorded; 0 without one."""
    events = [each.step for each in debugger.findings if each.cause in NOT_FINITE and not each.source]
    if "loss/train" not in debugger.history:
        return min(events, default=0)
    seen = debugger.history["loss/train"]
    broken = [int(step) for step, value in zip(seen.steps, seen.values, strict=True) if not math.isfinite(value)]
    return min([*broken, *events], default=0)
