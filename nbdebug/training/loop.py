"""The loop: one batch after another, exactly as the plain PyTorch loop of docs/reference-loop.md would do it.

Knows nothing of threads, commands or screens. Each batch runs within a turn (see :mod:`nbdebug.training.turn`), given
as a context manager; the session calls :meth:`Loop.advance` from its thread, between safe points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nbdebug.records.errors import ConfigurationError
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.training import batches, steps
from nbdebug.training.accumulation import Accumulation
from nbdebug.training.batch_size import Batching
from nbdebug.training.data import END, DataCursor, checksum, doubt_about
from nbdebug.training.modules import Model, device_of, evaluating, named_modules
from nbdebug.training.steps import StepResult
from nbdebug.training.trainer import Trainer

Turns = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Means over the validation data, weighted by batch size."""

    loss: float
    metrics: dict[str, float]

    @property
    def series(self) -> dict[Series, float]:
        """The same by series."""
        named = {Series(Signal.METRIC, name, Split.VAL): value for name, value in self.metrics.items()}
        return {Series(Signal.LOSS, split=Split.VAL): self.loss, **named}


class Loop:
    """Training as the trainer says, at a place in the data that can be left and come back to.

    ``doubt`` says why that place can perhaps not be come back to exactly, if so; then ``batch_sum`` is the checksum of
    the present batch, to know it again. ``seen``, if any, is shown each batch (``"train"`` or ``"val"``, the batch, its
    place in the epoch) as it came, before it goes to the device.
    """

    def __init__(
        self,
        model: Model,
        trainer: Trainer,
        turns: Turns,
        batching: Batching | None = None,
        accumulation: Accumulation | None = None,
    ) -> None:
        self.accumulation = accumulation or Accumulation()
        self.seen: Callable[[str, Any, int], None] | None = None
        self.model = model
        self.trainer = trainer
        modules = list(named_modules(model).values())
        self.cursor = DataCursor(trainer.train_loader, trainer.val_loader, modules, batching)
        self.epoch = 0
        self.step = 0
        self.batch: Any = None
        self.doubt = doubt_about(trainer.train_loader)
        self.batch_sum = 0
        self.doing = "before the first step"
        self.epoch_losses: list[tuple[float, int]] = []
        self.late_losses = 0
        self._turns = turns
        self.device = trainer.device or device_of(model)

    def take_batch(self) -> bool:
        """Fetch the next batch into ``self.batch``; false at the end of an epoch."""
        self.doing = f"while fetching the batch of step {self.step + 1}"
        fetched = self.cursor.take()
        if fetched is END:
            return False
        if self.seen is not None:
            self.seen("train", fetched, self.cursor.batch - 1)
        self.batch_sum = checksum(fetched) if self.doubt else 0
        self.batch = batches.move(fetched, self.device)
        return True

    def show(self, batch: Any) -> None:
        """This batch is at hand, as it will be when it is taken."""
        self.batch = batches.move(batch, self.device)

    def train_batch(self) -> StepResult:
        """One step on the present batch, the user's own if they gave one, and the scheduler's if it goes by batches."""
        trainer = self.trainer
        self.doing = f"in step {self.step + 1}"
        result = self.step_on(self.batch)
        if trainer.scheduler_interval == "batch":
            for scheduler in trainer.schedulers.values():
                if isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step(float(_detached(result.loss)))
                else:
                    scheduler.step()
        self.step += 1
        return result

    def step_on(self, batch: Any) -> StepResult:
        """The step itself, the user's own or the plain one."""
        trainer = self.trainer
        self._forget_parts()
        if trainer.step is not None:
            returned = trainer.step(self.model, batch, trainer.loss, trainer.optimizer)
        else:
            optimizer: Any = trainer.optimizer  # without a step of the user's there is one only
            returned = steps.train_step(self.model, batch, trainer.loss, optimizer, self.accumulation)
        return steps.interpret(returned, "step")

    def keep_loss(self, loss: float | torch.Tensor, result: StepResult) -> None:
        """Remember a step's loss for the epoch's mean; one that is still on a device is put right on its arrival."""
        if isinstance(loss, torch.Tensor):
            self.late_losses += 1
            loss = math.nan
        self.epoch_losses.append((loss, batches.samples(self.batch, result.target)))

    def loss_arrived(self, loss: float) -> None:
        """The oldest loss that was still on a device."""
        index = len(self.epoch_losses) - self.late_losses
        self.late_losses -= 1
        if index >= 0:
            self.epoch_losses[index] = (loss, self.epoch_losses[index][1])

    def batch_metrics(self, result: StepResult) -> dict[str, Any]:
        """The loss's parts and the metrics on a batch; no metrics where the step gave no output and target."""
        parts = self.trainer.loss_parts
        latest = dict(parts.latest) if parts is not None else {}
        if not (result.has_output and self.trainer.metrics):
            return latest
        self.doing = f"in the metrics after step {self.step}"
        output, target = _detached(result.output), _detached(result.target)
        with torch.no_grad():
            found = {name: _one_number(name, metric(output, target)) for name, metric in self.trainer.metrics.items()}
        return {**latest, **found}

    def _forget_parts(self) -> None:
        if self.trainer.loss_parts is not None:
            self.trainer.loss_parts.latest.clear()

    def finish_epoch(self, *, aborted: Callable[[], bool] = lambda: False) -> Evaluation | None:
        """Validate, step the schedulers that go by epochs, go to the next epoch. Takes its own turns, batch by batch.

        ``aborted`` is asked between batches; when it says so, the epoch is left unfinished.
        """
        last = self.batch
        evaluation = self.validate(aborted) if self.trainer.val_loader is not None else None
        if aborted():
            return None
        self.batch = last
        self.doing = f"in the scheduler after step {self.step}"
        with self._turns():
            if self.trainer.scheduler_interval == "epoch":
                self._step_schedulers(evaluation)
            self.epoch += 1
            self.epoch_losses.clear()
            self.cursor.rewind_epoch()
        return evaluation

    def validate(self, aborted: Callable[[], bool] = lambda: False) -> Evaluation:
        """The model as it is now on the validation data; in evaluation mode, each module's own mode restored."""
        function = self.trainer.eval_step or steps.eval_step
        losses: list[tuple[Any, int]] = []
        metrics: dict[str, list[tuple[Any, int]]] = {}
        self.doing = f"in the validation after step {self.step}"
        with evaluating(self.model):
            with self._turns():
                iterator = iter(self.trainer.val_loader or ())
            while not aborted():
                with self._turns():
                    fetched = next(iterator, END)
                    if fetched is END:
                        break
                    if self.seen is not None:
                        self.seen("val", fetched, len(losses))
                    self.batch = batches.move(fetched, self.device)
                    self._forget_parts()
                    result = steps.interpret(function(self.model, self.batch, self.trainer.loss), "eval_step")
                    count = batches.samples(self.batch, result.target)
                    losses.append((result.loss, count))
                    for name, value in self.batch_metrics(result).items():
                        metrics.setdefault(name, []).append((value, count))
        if not losses and not aborted():
            raise ConfigurationError("val_loader is empty: it yielded no batch, so there is nothing to validate on")
        return Evaluation(weighted_mean(losses), {name: weighted_mean(values) for name, values in metrics.items()})

    def _step_schedulers(self, evaluation: Evaluation | None) -> None:
        measure = evaluation.loss if evaluation is not None else weighted_mean(self.epoch_losses)
        for scheduler in self.trainer.schedulers.values():
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(measure)
            else:
                scheduler.step()


def weighted_mean(values: list[tuple[Any, int]]) -> float:
    """sum(value · weight) / sum(weight) in double precision; NaN for none."""
    weight = sum(count for _, count in values)
    return sum(float(value) * count for value, count in values) / weight if weight else math.nan


def _one_number(name: str, value: Any) -> Any:
    """A metric's value, if it is one number."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value
    if not isinstance(value, torch.Tensor) and hasattr(value, "__float__"):
        return float(value)
    shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r:.60}"
    raise ConfigurationError(f"metric {name!r} must return one number, but returned {shape}")


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value
