"""Knobs of what a step gets and what it minimises: batch size, label smoothing, weights of a loss's parts.

:class:`~nbdebug.training.knobs.Knobs` holds them. Training thread; any thread may ask for mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbdebug.records.commands import Changes
from nbdebug.training.batch_size import Batching
from nbdebug.training.loss_parts import weight_mistakes
from nbdebug.training.trainer import Trainer

NAMES = ("batch_size", "label_smoothing", "loss_weights")


@dataclass(frozen=True)
class DataSettings:
    """What a snapshot keeps of these; ``None`` and nothing for what can't be set."""

    batch_size: int | None = None
    label_smoothing: float | None = None
    loss_weights: tuple[tuple[str, float], ...] = ()


class DataKnobs:
    """These knobs of one trainer. Loss and smoothing are the trainer's, the batch size this object's own."""

    def __init__(self, trainer: Trainer) -> None:
        self.batching = Batching(trainer.train_loader)
        self._trainer = trainer

    def mistakes(self, changes: Changes) -> list[str]:
        """Why these changes can't be made, a line for each reason."""
        found = []
        if changes.batch_size is not None:
            found += self.batching.mistakes(changes.batch_size)
        if changes.label_smoothing is not None:
            found += self._trainer.smoothing.mistakes(changes.label_smoothing)
        if changes.loss_weights is not None:
            found += weight_mistakes(changes.loss_weights, self.weights)
        return found

    def apply(self, changes: Changes) -> None:
        """Make changes that have no :meth:`mistakes`."""
        self.restore(
            DataSettings(changes.batch_size, changes.label_smoothing, tuple((changes.loss_weights or {}).items()))
        )

    def settings(self) -> DataSettings:
        """For a snapshot."""
        return DataSettings(self.batching.size, self._trainer.smoothing.value, tuple(self.weights.items()))

    def restore(self, settings: DataSettings) -> None:
        """From a snapshot."""
        self.batching.ask(settings.batch_size)
        self._trainer.smoothing.set(settings.label_smoothing)
        for name, weight in settings.loss_weights:
            if name in self.weights:
                self.weights[name] = float(weight)

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the loss's parts in force, to be written to; empty for a loss without parts."""
        parts = self._trainer.loss_parts
        return parts.weights if parts is not None else {}

    def asked(self) -> dict[str, Any]:
        """The present values, by field of :class:`Changes`."""
        settings = self.settings()
        return {
            "batch_size": settings.batch_size,
            "label_smoothing": settings.label_smoothing,
            "loss_weights": dict(settings.loss_weights),
        }

    def states(self) -> dict[str, Any]:
        """The present values, and why one can't be set, by field of :class:`KnobStates`."""
        smoothing = self._trainer.smoothing
        return {
            "batch_size": self.batching.size,
            "why_not_batch_size": self.batching.fixed,
            "batch_size_acts": self.batching.when,
            "label_smoothing": smoothing.value,
            "why_not_label_smoothing": smoothing.fixed,
            "loss_weights": tuple(self.weights.items()),
        }

    def note(self, changes: Changes) -> str:
        """What has to be said of changes besides their values."""
        return f" {self.batching.when}" if changes.batch_size is not None and self.batching.when else ""


def between(before: Changes, after: Changes) -> dict[str, Any]:
    """The changes that lead from one full set of knobs to another, by field."""
    known: Mapping[str, float] = before.loss_weights or {}
    weights = {name: value for name, value in (after.loss_weights or {}).items() if known.get(name, value) != value}
    return {
        "batch_size": after.batch_size if after.batch_size != before.batch_size else None,
        "label_smoothing": after.label_smoothing if after.label_smoothing != before.label_smoothing else None,
        "loss_weights": weights or None,
    }


def parse(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of what ``debugger.set`` was given, the values of these knobs, by field of :class:`Changes`."""
    return {name: options[name] for name in NAMES if options.get(name) is not None}
