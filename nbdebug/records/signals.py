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

    # of the whole model, each step
    LOSS = "loss"
    METRIC = "metric"
    LEARNING_RATE = "lr"
    CLIP_NORM = "clip_norm"
    CLIP_VALUE = "clip_value"
    DROPOUT = "dropout"
    UPDATES = "updates"
    SKIPPED_UPDATES = "skipped_updates"
    LOSS_SCALE = "loss_scale"
    EVALUATION_MODE = "eval_mode"
    CLIP_RATE = "clip_rate"
    GRADIENT_NORM = "grad_norm"  # of a layer too, on sampled steps

    # of the whole model or a parameter group, on sampled steps
    EFFECTIVE_RATE = "effective_lr"
    DECAY_SHARE = "decay_share"
    TIME_DATA = "time_data"
    TIME_FORWARD = "time_forward"
    TIME_BACKWARD = "time_backward"
    TIME_OPTIMIZER = "time_optimizer"
    TIME_WATCHING = "time_watching"
    MEMORY_PEAK = "memory_peak"

    # of a layer, on sampled steps
    GRADIENT_STATE = "grad_state"
    GRADIENT_MEAN = "grad_mean"
    GRADIENT_MAX = "grad_max"
    GRADIENT_NORM_CLIPPED = "grad_norm_clipped"
    GRADIENT_MEAN_CLIPPED = "grad_mean_clipped"
    GRADIENT_MAX_CLIPPED = "grad_max_clipped"
    GRADIENT_ZERO = "grad_zero"
    GRADIENT_NON_FINITE = "grad_non_finite"
    GRADIENT_RATIO = "grad_ratio"
    ACTIVATION_MEAN = "act_mean"
    ACTIVATION_STD = "act_std"
    ACTIVATION_ZERO = "act_zero"
    ACTIVATION_NON_FINITE = "act_non_finite"
    UNITS_SILENT = "units_silent"
    UNITS_DEAD = "units_dead"
    INPUT_UNITS_DEAD = "input_units_dead"
    SATURATED = "saturated"
    WEIGHT_NORM = "weight_norm"
    WEIGHT_GROWTH = "weight_growth"
    WEIGHT_NON_GAUSSIAN = "weight_non_gaussian"
    BIAS_NORM = "bias_norm"
    BIAS_MAX = "bias_max"
    UPDATE_NORM = "update_norm"
    UPDATE_RATIO = "update_ratio"
    UPDATE_NON_GAUSSIAN = "update_non_gaussian"
    MEMORY_PARAMETERS = "memory_parameters"
    MEMORY_GRADIENTS = "memory_gradients"
    MEMORY_OPTIMIZER = "memory_optimizer"
    MEMORY_ACTIVATIONS = "memory_activations"

    # of what goes into the model and comes out, by name, on sampled steps
    DATA_MEAN = "data_mean"
    DATA_STD = "data_std"
    DATA_MIN = "data_min"
    DATA_MAX = "data_max"
    DATA_NON_FINITE = "data_non_finite"

    # histograms, on sampled steps
    ACTIVATIONS = "activations"
    GRADIENTS = "gradients"
    WEIGHTS = "weights"
    BIASES = "biases"
    CHANGES = "changes"
    DATA = "data"


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
