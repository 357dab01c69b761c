"""One pass over samples: what the model, as it is now, makes of each. Training thread; leaves everything as it was.

In evaluation mode and without gradients, by the function that validation uses. Whatever the model, the loss or that
function change by being called is put back, bit for bit, random states included.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nbdebug.records.errors import ConfigurationError
from nbdebug.records.samples import Task
from nbdebug.tools.sample_losses import NotThisWay, Way, each
from nbdebug.tools.sample_reading import NotThisTask, Reading, read
from nbdebug.training import batches, steps
from nbdebug.training.aside import copied
from nbdebug.training.modules import named_parameters, roots
from nbdebug.training.session import Session
from nbdebug.training.snapshots import has_lazy_parts
from nbdebug.training.untouched import Refused, refuse_if_short_of_memory, untouched

TASKS = (Task.CLASSES, Task.PLACES, Task.VALUES, Task.OTHER)
WAYS = (Way.UNREDUCED, Way.SINGLY, Way.USUAL)
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """What a pass gave, by sample; ``task`` and ``way`` are kept for the passes to come."""

    task: Task
    way: Way
    classes: int
    targets: Singles
    losses: Singles
    predicted: Singles
    confidence: Singles
    margins: Singles
    right: Singles


def why_not(session: Session) -> str:
    """Why no pass can be made of this model and trainer, empty if it can."""
    trainer = session.trainer
    if trainer.eval_step is not None:
        return ""
    if trainer.step is not None and trainer.val_loader is None:
        return (
            "Trainer has a step of yours but no eval_step, so that it isn't known what the model makes of a sample: "
            "give eval_step=..., which returns {'loss', 'output', 'target'}"
        )
    several = not isinstance(session.model, torch.nn.Module)
    return (
        "several networks are trained: give Trainer eval_step=..., which says what goes into which" if several else ""
    )


def make(
    session: Session,
    read_batches: Callable[[], Iterable[Any]],
    *,
    task: Task | None = None,
    way: Way | None = None,
    called_off: Callable[[], bool] = lambda: False,
) -> Made:
    """A pass over the batches; they are gone through again where one is not like those before.

    Raises:
        Refused: that is not possible here, and why.
        Exception: what the user's code raised; everything is as it was.
    """
    if why := why_not(session):
        raise Refused(why)
    if has_lazy_parts(session.model):
        raise Refused("some layers have no shape yet: take a step first")
    refuse_if_short_of_memory(named_parameters(session.model).values())
    tasks, ways = list(TASKS[TASKS.index(task or TASKS[0]) :]), list(WAYS[WAYS.index(way or WAYS[0]) :])
    with session.turns, _generators_kept(session), _all_put_back(session), _alone():
        for root in roots(session.model).values():
            root.eval()
        while True:
            try:
                return _Pass(session, tasks[0], ways[0], called_off).over(read_batches())
            except NotThisTask:
                tasks.pop(0)
            except NotThisWay:
                ways.pop(0)


@contextmanager
def _generators_kept(session: Session) -> Iterator[None]:
    """Those of loaders and samplers, should the data or the model draw from one."""
    states = session.loop.cursor.generator_states()
    try:
        yield
    finally:
        session.loop.cursor.set_generators(states)


@contextmanager
def _all_put_back(session: Session) -> Iterator[None]:
    trainer, parts = session.trainer, session.trainer.loss_parts
    things = [*roots(session.model).values(), trainer.loss, trainer.loss_fn, *([vars(parts)] if parts else [])]
    with ExitStack() as stack:
        try:
            stack.enter_context(untouched([*things, trainer.eval_step]))
        except Refused:
            if trainer.eval_step is None:
                raise
            # what it can reach besides may be the whole data set: validation calls it without more ado
            stack.enter_context(untouched(things))
        yield


@contextmanager
def _alone() -> Iterator[None]:
    """Without gradients, compiled code, or what autocast remembers of weights: that would outlive the pass."""
    remembers = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    compiles = "torch._dynamo" in sys.modules
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if compiles else nullcontext():
            yield
    finally:
        torch.set_autocast_cache_enabled(remembers)


class _Pass:
    """The batches one after the other; only what is told of each sample is kept."""

    def __init__(self, session: Session, task: Task, way: Way, called_off: Callable[[], bool]) -> None:
        self._session, self._task, self._way, self._called_off = session, task, way, called_off
        self._losses: list[torch.Tensor] = []
        self._readings: list[Reading] = []

    def over(self, all_batches: Iterable[Any]) -> Made:
        """All of them."""
        for batch in all_batches:
            if self._called_off():
                raise Refused("it was called off")
            self._take(batch)
        if not self._losses:
            raise Refused("there are no samples")
        return self._made()

    def _take(self, batch: Any) -> None:
        session, trainer = self._session, self._session.trainer
        count = batches.samples(batch, None)
        function = trainer.eval_step or steps.eval_step
        mine = batches.move(copied(batch), session.loop.device)
        result = steps.interpret(function(session.model, mine, trainer.loss), "eval_step")
        if not result.has_output:
            raise Refused(
                "eval_step returns a loss only: let it return {'loss', 'output', 'target'} to tell samples apart"
            )
        reading = read(self._task, trainer.loss_fn, result.output, result.target, count)
        self._readings.append(reading)
        self._losses.append(self._loss_of_each(result, reading, count))

    def _loss_of_each(self, result: steps.StepResult, reading: Reading, count: int) -> torch.Tensor:
        if self._way is Way.USUAL:
            if self._task is Task.OTHER:
                raise Refused(
                    "the loss can't be taken of one sample, and what the model foretells is neither a class nor a few "
                    "numbers"
                )
            return reading.usual
        whole = float(result.loss)
        found: torch.Tensor = each(
            self._way, self._session.trainer.loss, result.output, result.target, count, whole
        ).cpu()
        return found

    def _made(self) -> Made:
        classes = {reading.classes for reading in self._readings}
        shapes = {reading.predicted.shape[1:] for reading in self._readings}
        if len(classes) > 1 or len(shapes) > 1:
            raise NotThisTask
        joined = {
            name: _joined([getattr(reading, name) for reading in self._readings])
            for name in ("targets", "predicted", "confidence", "margins", "right")
        }
        return Made(self._task, self._way, classes.pop(), losses=_joined(self._losses), **joined)


def _joined(parts: Sequence[torch.Tensor]) -> Singles:
    return np.asarray(torch.cat([part.detach().to("cpu", torch.float32) for part in parts]).numpy())


def mistakes_of(count: Any, every: Any) -> list[str]:
    """Why so many samples, so often, can't be watched."""
    found = []
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        found.append(f"count={count!r}: give a whole number of samples, 0 to watch none")
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        found.append(f"every={every!r}: give a whole number of steps from 1, or nothing for the ends of epochs")
    return found


def refused(why: str) -> ConfigurationError:
    """The same for who asked for it."""
    return ConfigurationError(f"the samples can't be watched: {why}")
