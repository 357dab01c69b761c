"""The stable form of what went wrong, in a sentence, where there is one. Pure."""

from __future__ import annotations

import math

from nbdebug.records.stops import Phase, Range
from nbdebug.tools.origin_marks import Cause
from nbdebug.tools.origin_stable import STABLE, Case, grew

MANY = 4  # the same line that many times over is a recurrence
HUGE = 1e6
PRODUCTS = frozenset({"linear", "matmul", "einsum", "addmm", "baddbmm", "bilinear", "tensordot", "conv", "mul", "add"})
RECURRENT = ("RNN", "LSTM", "GRU")


def advise(cause: Cause, code: str, *, in_gradient: bool) -> str:
    """One sentence, or two; empty where nothing is known to help."""
    case = Case(cause, code, in_gradient)
    if cause.phase is Phase.BEFORE:
        return _before(case)
    for look in (_constant, _half, _recurrence):
        found = look(case)
        if found:
            return found
    if cause.phase in (Phase.OPTIMIZER, Phase.CLIPPING):
        return _updating(case)
    return _stable(case)


def _before(case: Case) -> str:
    source = case.cause.source
    if source.startswith("batch"):
        late = " Do so before the computation: leaving the bad values out of the loss still sends NaN backward."
        return (
            "Filter or impute such values where the data is made, or replace them with torch.nan_to_num()."
            f"{late if case.in_gradient else ''}"
        )
    if "running_" in source:
        return "Call reset_running_stats() of that layer; an earlier bad batch has got into its running statistics."
    if source.endswith(".grad"):
        return "The gradient was left from an earlier step: call optimizer.zero_grad() before the backward."
    if " of " in source and not source.startswith("a tensor"):
        return "Start the optimizer afresh, or go back to a snapshot from before its state went bad."
    if source.startswith("a tensor"):
        return "Look at where that tensor is made; torch.isfinite(x).all() tells whether it is usable."
    return "Go back to a snapshot from before it went bad, or initialise it again; look for the step that spoiled it."


def _constant(case: Case) -> str:
    if not case.cause.bad_constant:
        return ""
    if case.cause.phase is Phase.OPTIMIZER:
        return "The optimizer was given a number that is not finite: look at lr, weight_decay and eps in param_groups."
    if case.cause.kind == "inf":
        return "An infinite constant reached the result: use torch.finfo(x.dtype).min or .max in that line instead."
    return "A Python number in that line is NaN: check it with math.isfinite() before it goes into a tensor."


def _half(case: Case) -> str:
    cause = case.cause
    if cause.dtype != "float16" or cause.kind != "inf" or cause.operation in ("div", "log", "reciprocal", "rsqrt"):
        return ""
    if cause.phase is Phase.BACKWARD:
        return (
            "float16 ends at 65504: let torch.amp.GradScaler lower its scale and skip such steps, "
            "or use bfloat16, which has the range of float32."
        )
    return (
        "float16 ends at 65504: use torch.autocast(..., dtype=torch.bfloat16), make these values smaller (normalise, "
        "lower the scale of the weights), or run this part in float32; torch.amp.GradScaler only helps gradients."
    )


def _recurrence(case: Case) -> str:
    cause = case.cause
    repeated = cause.repeats >= MANY and cause.operation in PRODUCTS and _largest(cause.inputs) > HUGE
    if cause.kind != "inf" or not (repeated or cause.module_type in RECURRENT):
        return ""
    return (
        "The values grow at every pass: use a gated cell (nn.GRU, nn.LSTM), tanh, or nn.LayerNorm between the passes, "
        "start the weights with nn.init.orthogonal_(), and clip gradients with torch.nn.utils.clip_grad_norm_()."
    )


def _largest(ranges: tuple[Range, ...]) -> float:
    ends = [abs(end) for given in ranges for end in (given.low, given.high) if math.isfinite(end)]
    return max(ends, default=0.0)


def _updating(case: Case) -> str:
    operation = case.cause.operation
    if case.cause.phase is Phase.CLIPPING:
        return (
            "Add a small number to the norm before dividing by it, as torch.nn.utils.clip_grad_norm_() does (1e-6); "
            "error_if_nonfinite=True stops at a norm that is not finite."
        )
    by_zero = case.zero or case.cause.kind == "nan"
    if operation in ("addcdiv", "div", "reciprocal", "rsqrt", "adam", "adamw", "adagrad") and by_zero:
        return "The optimizer divided by zero where a gradient was always zero: give it eps=1e-8 or more, not 0."
    if operation == "sqrt":
        return "A running mean of squares went below zero: keep 0 <= beta2 < 1 and the optimizer's state as it is."
    return (
        "The update overflowed: lower the learning rate, and clip gradients with torch.nn.utils.clip_grad_norm_() "
        "before optimizer.step()."
    )


def _stable(case: Case) -> str:
    operation = case.cause.operation
    advice = STABLE.get(operation)
    if advice is not None:
        return advice(case)
    if case.cause.kind == "inf" and operation in PRODUCTS | {"sum", "mean", "square", "norm", "mse_loss"}:
        return grew(case)
    if case.cause.phase is Phase.BACKWARD and case.cause.inner is not None:
        return "Look at the backward that you wrote: keep the divisor away from zero with clamp(min=eps)."
    return ""
