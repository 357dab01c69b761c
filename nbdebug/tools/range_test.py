"""The learning-rate range test: steps of the user's own at growing rates, after which everything is as it was.

Training thread, at a safe point. Each is the user's whole step on a batch of their loader, from the state that the
model is in; clipping is as in force, schedules stand still. What the step does outside of torch, such as printing, it
does here, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from nbdebug.records.errors import CommandError
from nbdebug.records.finder import LrCurve
from nbdebug.tools import lr_finder
from nbdebug.training import batches
from nbdebug.training.aside import copied, take_step
from nbdebug.training.borrowed import Take
from nbdebug.training.session import Session
from nbdebug.training.sidetrack import sidetrack
from nbdebug.training.thread_context import ThreadContext


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a test goes on: ``context`` is torch's of the thread that asked for it.

    ``called_off()`` is asked before each step; ``tell(done, rate)`` hears how far it is.
    """

    context: ThreadContext
    called_off: Callable[[], bool]
    tell: Callable[[int, float], None]


def run(session: Session, low: float, high: float, steps: int, conduct: Conduct) -> LrCurve:
    """Test so many rates from ``low`` to ``high``, or fewer where the loss runs away before or it is called off.

    Raises:
        CommandError: it was called off too soon to tell anything, there is no rate, or the model can't be put back.
    """
    session.knobs.refresh()
    if not session.knobs.groups:
        raise CommandError("the optimizer has no learning rate to test")
    present = session.knobs.groups[0].in_force
    planned = lr_finder.rates(low, high, steps)
    with sidetrack(session, conduct.context) as side, _Rates(session) as rates:
        losses, diverged = _losses(session, planned, rates, side.take, conduct)
    found, tested = np.array(losses), planned[: len(losses)]
    if len(losses) < min(steps, lr_finder.FEWEST) and not diverged:
        raise CommandError(
            f"called off after {len(losses)} of {steps} rates, too few to tell anything; everything is as it was"
        )
    diverged_at = float(tested[-1]) if diverged else None
    suggestions = lr_finder.suggestions(tested, found, steps, diverged_at)
    return LrCurve(
        rates=tested,
        losses=found,
        smooth=lr_finder.smoothed(found, lr_finder.beta(steps)),
        suggestions=suggestions,
        diverged_at=diverged_at,
        run=session.timeline.current,
        step=session.loop.step,
        planned=steps,
        present=present,
        note=lr_finder.note(tested, found, steps, diverged=diverged, found=suggestions),
    )


def _losses(session: Session, planned: Any, rates: _Rates, take: Take, conduct: Conduct) -> tuple[list[float], bool]:
    """The loss at each rate, and whether it ran away at the last."""
    watch = lr_finder.Watch(len(planned))
    losses: list[float] = []
    for rate in planned.tolist():
        if conduct.called_off():
            break
        conduct.tell(len(losses), rate)
        session.turns.hold()
        batch = copied(batches.move(take(), session.loop.device))
        rates.set(rate)
        loss = take_step(session, batch).loss
        losses.append(float(loss.detach() if isinstance(loss, torch.Tensor) else loss))
        if watch.has_diverged(losses[-1]):
            return losses, True
        session.turns.let_go_if_due(time.perf_counter())
    return losses, False


class _Rates:
    """Puts rates on all parameter groups, in the ratio that they have now, whatever schedules write meanwhile."""

    def __init__(self, session: Session) -> None:
        groups = session.knobs.groups
        now = [group.in_force for group in groups]
        if not now[0]:
            now = [group.asked for group in groups]
        self._shares = [rate / now[0] if now[0] else 1.0 for rate in now]
        self._groups = groups
        self._optimizers = list(session.trainer.optimizers.values())
        self._schedulers = list(session.trainer.schedulers.values())
        self._undo: list[Callable[[], None]] = []
        self._rate = 0.0

    def __enter__(self) -> _Rates:
        for optimizer in self._optimizers:
            self._undo.append(optimizer.register_step_pre_hook(self._before).remove)
        for scheduler in self._schedulers:
            self._stop_clock(scheduler)
        return self

    def __exit__(self, *_: object) -> None:
        for undo in reversed(self._undo):
            undo()

    def set(self, rate: float) -> None:
        """The rate of the first group from now on."""
        self._rate = rate
        self._write()

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._write()

    def _write(self) -> None:
        for group, share in zip(self._groups, self._shares, strict=True):
            options = group.options
            if isinstance(options["lr"], torch.Tensor):
                options["lr"].fill_(self._rate * share)
            else:
                options["lr"] = self._rate * share

    def _stop_clock(self, scheduler: Any) -> None:
        """A step of the user's that steps its schedule does not, which may end sooner than the test."""
        own = vars(scheduler).get("step")

        def start_again() -> None:
            if own is None:
                del scheduler.step
            else:
                scheduler.step = own

        scheduler.step = lambda *args, **kwargs: None
        self._undo.append(start_again)
