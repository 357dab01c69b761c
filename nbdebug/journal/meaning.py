"""What each signal means, in which unit, and how exact it is. Data only."""

from __future__ import annotations

from nbdebug.records.signals import Signal

SAMPLE = "of up to n = 4,096 elements a layer"
MEAN_ERROR = f"{SAMPLE}, standard error std / sqrt(n)"
SHARE_ERROR = f"{SAMPLE}, standard error sqrt(p (1 - p) / n)"
COUNT_ERROR = f"counts {SAMPLE}, a share p of them with a standard error of sqrt(p (1 - p) / n)"

MEANING: dict[Signal, str] = {
    Signal.LOSS: "loss, on each training batch and over the validation data",
    Signal.METRIC: "the trainer's metrics, likewise",
    Signal.LEARNING_RATE: "learning rate in force, schedule and slider included; by group where there are several",
    Signal.CLIP_NORM: "clipping threshold on the norm of all gradients; inf when off",
    Signal.CLIP_VALUE: "clipping threshold on each gradient element; inf when off",
    Signal.DROPOUT: "dropout probability, the mean over layers where they differ",
    Signal.UPDATES: "optimizer steps within the step (batch)",
    Signal.SKIPPED_UPDATES: "optimizer steps that a gradient scaler left out, for it found NaN or inf",
    Signal.LOSS_SCALE: "what a gradient scaler multiplies the loss with",
    Signal.EVALUATION_MODE: "1 at each step that was trained with the whole model in evaluation mode, absent at others",
    Signal.CLIP_RATE: "share of the last 100 steps in which gradients were clipped",
    Signal.GRADIENT_NORM: "2-norm of gradients before clipping, of all, and per layer on sampled steps; exact",
    Signal.EFFECTIVE_RATE: "norm of the update over that of the gradient, by parameter group; plain SGD's is its "
    "learning rate; exact, on sampled steps",
    Signal.DECAY_SHARE: "share of weight decay in the update, by parameter group, on sampled steps",
    Signal.TIME_DATA: "seconds spent waiting for the batch, on sampled steps",
    Signal.TIME_FORWARD: "seconds of the networks' calls, on sampled steps",
    Signal.TIME_BACKWARD: "seconds of the backward pass and the loss, on sampled steps",
    Signal.TIME_OPTIMIZER: "seconds of the optimizer's step, on sampled steps",
    Signal.TIME_WATCHING: "seconds that watching took, on sampled steps",
    Signal.MEMORY_PEAK: "most bytes held so far, by the device or else the process, on sampled steps",
    Signal.GRADIENT_STATE: "whether a layer had a gradient: present, missing or frozen",
    Signal.GRADIENT_MEAN: "mean of |g| per layer before clipping; exact, on sampled steps",
    Signal.GRADIENT_MAX: "largest |g| per layer before clipping; exact, on sampled steps",
    Signal.GRADIENT_NORM_CLIPPED: "2-norm of the gradient per layer after clipping; exact, on sampled steps",
    Signal.GRADIENT_MEAN_CLIPPED: "mean of |g| per layer after clipping; exact, on sampled steps",
    Signal.GRADIENT_MAX_CLIPPED: "largest |g| per layer after clipping; exact, on sampled steps",
    Signal.GRADIENT_ZERO: f"share p of gradient elements that are 0; {SHARE_ERROR}",
    Signal.GRADIENT_NON_FINITE: f"share p of gradient elements that are NaN or inf; {SHARE_ERROR}",
    Signal.GRADIENT_RATIO: "norm of the gradient over that of all parameters, per layer; exact, on sampled steps",
    Signal.ACTIVATION_MEAN: f"mean of a layer's output; {MEAN_ERROR}",
    Signal.ACTIVATION_STD: f"standard deviation of a layer's output; {SAMPLE}",
    Signal.ACTIVATION_ZERO: f"share p of a layer's outputs that are 0; {SHARE_ERROR}",
    Signal.ACTIVATION_NON_FINITE: f"share p of a layer's outputs that are NaN or inf; {SHARE_ERROR}",
    Signal.UNITS_SILENT: "share of a layer's units that are 0 for the whole batch; exact on that batch",
    Signal.UNITS_DEAD: "share of a layer's units that were silent in all of its latest samples; exact on these batches",
    Signal.INPUT_UNITS_DEAD: "the same of the units that go into a layer; exact on these batches",
    Signal.SATURATED: f"share p of an activation function's inputs that lie where it is flat; {SHARE_ERROR}",
    Signal.WEIGHT_NORM: "2-norm of a layer's weights; exact, on sampled steps",
    Signal.WEIGHT_GROWTH: "norm of a layer's weights over that at the first look; exact, on sampled steps",
    Signal.WEIGHT_NON_GAUSSIAN: "distance of a layer's weights from a Gaussian (Kolmogorov-Smirnov, 0 to 1); "
    f"{SAMPLE}, noise about 0.9 / sqrt(n)",
    Signal.BIAS_NORM: "2-norm of a layer's biases; exact, on sampled steps",
    Signal.BIAS_MAX: "largest |b| of a layer's biases; exact, on sampled steps",
    Signal.UPDATE_NORM: "2-norm of what the optimizer changed in a layer; exact, on sampled steps",
    Signal.UPDATE_RATIO: "norm of what the optimizer changed over that of all parameters, per layer; exact, on sampled "
    "steps",
    Signal.UPDATE_NON_GAUSSIAN: "distance of a layer's changes from a Gaussian (Kolmogorov-Smirnov, 0 to 1); "
    f"{SAMPLE}, noise about 0.9 / sqrt(n)",
    Signal.MEMORY_PARAMETERS: "bytes of a layer's parameters, on sampled steps",
    Signal.MEMORY_GRADIENTS: "bytes of a layer's gradients, on sampled steps",
    Signal.MEMORY_OPTIMIZER: "bytes of the optimizer's state of a layer, on sampled steps",
    Signal.MEMORY_ACTIVATIONS: "bytes of a layer's outputs, on sampled steps",
    Signal.DATA_MEAN: f"mean of what goes into the model and comes out, by name; {MEAN_ERROR}",
    Signal.DATA_STD: f"standard deviation of what goes in and comes out; {SAMPLE}",
    Signal.DATA_MIN: "smallest value of what goes in and comes out; exact, on sampled steps",
    Signal.DATA_MAX: "largest value of what goes in and comes out; exact, on sampled steps",
    Signal.DATA_NON_FINITE: f"share p of NaN and inf in what goes in and comes out; {SHARE_ERROR}",
    Signal.ACTIVATIONS: f"histogram of a layer's output; {COUNT_ERROR}",
    Signal.GRADIENTS: f"histogram of a layer's gradient; {COUNT_ERROR}",
    Signal.WEIGHTS: f"histogram of a layer's weights; {COUNT_ERROR}",
    Signal.BIASES: f"histogram of a layer's biases; {COUNT_ERROR}",
    Signal.CHANGES: f"histogram of what the optimizer changed in a layer; {COUNT_ERROR}",
    Signal.DATA: f"histogram of what goes into the model and comes out, by name; {COUNT_ERROR}",
}
