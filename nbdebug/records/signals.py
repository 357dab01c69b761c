"""What is measured. A signal is an enum member; the layer, metric or group it belongs to is a field beside it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Split(StrEnum):
    """Which data a number was measured on."""

    TRAIN = "train"
    VAL = "val"


class Signal(StrEnum):
    """Everything that nbdebug measures. The value is the word used on screen and in ``debugger.history``."""

    LOSS = "loss"
    METRIC = "metric"
    LEARNING_RATE = "lr"
    CLIP_NORM = "clip_norm"
    CLIP_VALUE = "clip_value"
    DROPOUT = "dropout"
    UPDATES = "updates"
    GRADIENT_NORM = "grad_norm"
    GRADIENT_MEAN = "grad_mean"
    GRADIENT_MAX = "grad_max"
    GRADIENT_MEAN_CLIPPED = "grad_mean_clipped"
    GRADIENT_MAX_CLIPPED = "grad_max_clipped"
    ACTIVATIONS = "activations"


@dataclass(frozen=True, slots=True)
class Series:
    """One line of numbers over steps: a signal, on a split where that matters, of one layer, group or metric."""

    signal: Signal
    name: str = ""
    split: Split | None = None

    @property
    def text(self) -> str:
        """The key of this series in ``debugger.history``, such as ``loss/train`` or ``grad_mean/conv1``."""
        head = self.name if self.signal is Signal.METRIC else str(self.signal)
        tail = "" if self.signal is Signal.METRIC else self.name
        return "/".join(part for part in (head, tail, str(self.split or "")) if part)
