"""Experiments with the user's own model, loader, loss and step, after each of which all can be put back.

Training thread, within :func:`nbdebug.training.sidetrack.sidetrack`. What steps do outside of torch they do here too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nbdebug.checks.check import Skip
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.tracer import traced
from nbdebug.tools.origin_frames import fenced
from nbdebug.training import batches
from nbdebug.training.aside import copied, take_step
from nbdebug.training.modules import Model
from nbdebug.training.session import Session
from nbdebug.training.sidetrack import Sidetrack
from nbdebug.training.steps import StepResult
from nbdebug.training.trainer import Trainer


class CalledOff(Exception):
    """Somebody asked to end it."""


class Bench:
    """Runs the user's step on the side. ``seconds`` is what the whole battery may take.

    ``steps`` counts the calls of the user's step.
    """

    def __init__(
        self, session: Session, side: Sidetrack, seconds: float, called_off: Callable[[], bool] = lambda: False
    ) -> None:
        self.steps = 0
        self._session = session
        self._side = side
        self._called_off = called_off
        self._end = time.perf_counter() + seconds

    @property
    def model(self) -> Model:
        """The user's model."""
        return self._session.model

    @property
    def trainer(self) -> Trainer:
        """How it is trained."""
        return self._session.trainer

    @property
    def seconds_left(self) -> float:
        """What is left of the time for the battery."""
        return self._end - time.perf_counter()

    def mind_calls(self) -> None:
        """To be called every now and then.

        Raises:
            CalledOff: somebody asked to end the battery.
        """
        if self._called_off():
            raise CalledOff

    def fetch(self) -> Any:
        """The next batch of the training loader, epoch after epoch, on the model's device."""
        self.mind_calls()
        return batches.move(self._side.take(), self._session.loop.device)

    @property
    def has_next_epoch_begun(self) -> bool:
        """Whether the batch that was fetched last is not of the epoch of the first any more."""
        return self._side.take.epochs > 0

    @property
    def is_from_start(self) -> bool:
        """Whether the first batch that was fetched was an epoch's first."""
        return self._side.take.is_from_start

    def restart(self) -> None:
        """Model, optimizers, ``state`` and random numbers are as they were before the battery."""
        self._side.restart()

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """An experiment: begins as before the battery, and is undone afterwards."""
        self.restart()
        try:
            yield
        finally:
            self.restart()

    def step(self, batch: Any) -> StepResult:
        """The user's whole step on a copy of this batch, update included. Only within :meth:`fresh`.

        Raises:
            Skip: it raised an error.
        """
        self.mind_calls()
        self.steps += 1
        with torch.compiler.set_stance("force_eager"):
            try:
                return take_step(self._session, copied(batch))
            except Exception as error:  # the user's code may raise anything
                raise Skip(f"your step raised {type(error).__name__}: {error}") from error

    def loss(self, batch: Any) -> float:
        """The same; its loss."""
        loss = self.step(batch).loss
        value = float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
        return value if math.isfinite(value) else math.inf

    def trace(self, batch: Any) -> StepTrace:
        """The user's step on this batch, looked into. Only within :meth:`fresh`; what it raises is in ``error``."""
        self.mind_calls()
        self.steps += 1
        given, result = copied(batch), None
        with traced(self.model, self.trainer.optimizers, given) as trace, torch.compiler.set_stance("force_eager"):
            try:
                result = fenced(lambda: take_step(self._session, given))
            except Exception as error:  # what the user's code raises is what one wants to see
                trace.error = error
        if result is not None:
            keep_result(trace, result)
        return trace

    @contextmanager
    def scaled_rates(self, factor: float) -> Iterator[None]:
        """All learning rates times this. Within :meth:`fresh`."""
        changed = []
        for optimizer in self.trainer.optimizers.values():
            for group in optimizer.param_groups:
                before = group["lr"]
                changed.append((group, before))
                group["lr"] = before * factor
        try:
            yield
        finally:
            for group, before in changed:
                group["lr"] = before


def keep_result(trace: StepTrace, result: StepResult) -> None:
    """What the step returned."""
    loss = result.loss
    trace.loss = float(loss.detach() if isinstance(loss, torch.Tensor) else loss)
    if result.has_output:
        trace.output, trace.target = copied(result.output), copied(result.target)
