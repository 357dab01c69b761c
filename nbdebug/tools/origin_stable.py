"""Operation by operation, the form that stays finite. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nbdebug.records.stops import Phase
from nbdebug.tools.origin_marks import Cause


@dataclass(frozen=True, slots=True)
class Case:
    """A cause with the user's line; ``in_gradient`` says that the loss was finite and a gradient was not."""

    cause: Cause
    code: str
    in_gradient: bool = False

    @property
    def zero(self) -> bool:
        """Whether some input has zeros."""
        return any(given.zeros for given in self.cause.inputs)

    @property
    def low(self) -> float:
        """The lowest value of the first input."""
        return self.cause.inputs[0].low if self.cause.inputs else math.nan

    def made_by(self, *operations: str) -> bool:
        """Whether one of the inputs came out of one of the operations."""
        return any(operation in self.cause.makers.values() for operation in operations)

    def beside(self, *operations: str) -> bool:
        """The same, or the line calls one of them."""
        return self.made_by(*operations) or any(f"{operation}(" in self.code for operation in operations)


def grew(case: Case) -> str:
    """For values that are too large and nothing else."""
    return (
        "The values grew beyond the largest number: scale or normalise what goes in (nn.LayerNorm), lower the "
        "learning rate, and clip gradients with torch.nn.utils.clip_grad_norm_()."
    )


def _log(case: Case) -> str:
    if case.beside("softmax"):
        return "Use F.log_softmax(x, dim), which takes the logarithm before the softmax can round to 0."
    if case.beside("sigmoid"):
        return "Use F.logsigmoid(x), or F.binary_cross_entropy_with_logits() on the values before the sigmoid."
    if case.made_by("sum"):
        return "If this is the log of a sum of exponentials, use torch.logsumexp(x, dim); else add eps before the log."
    if case.low < 0:
        return "The logarithm of a negative number is NaN: use clamp(min=eps) before it, or torch.log1p(x) if x > -1."
    return "The logarithm of 0 is −inf: use clamp(min=eps) before it, or torch.log1p(x) where 0 is a fair value."


def _sqrt(case: Case) -> str:
    if case.cause.phase is Phase.BACKWARD:
        return "The slope of a root at 0 is infinite: write torch.sqrt(x + eps), or clamp(min=eps) before it."
    return "The root of a negative number is NaN: rounding may have made it so; use clamp(min=0), or sqrt(x + eps)."


def _div(case: Case) -> str:
    if case.beside("norm"):
        return "Use F.normalize(x, dim=..., eps=1e-12), or norm.clamp(min=eps): a vector of zeros has norm 0."
    if case.beside("exp") and case.beside("sum"):
        return "Use torch.softmax(x, dim), which subtracts the maximum first."
    if case.beside("std", "var"):
        return "Add eps to the denominator, as nn.LayerNorm does: a constant input has no spread to divide by."
    guard = " torch.where() after it is no help: the gradient is NaN all the same." if case.in_gradient else ""
    return f"Add eps to the denominator, or use clamp(min=eps) on it.{guard}"


def _exp(case: Case) -> str:
    guard = (
        " torch.where() after it does not stop the NaN of the branch not taken: clamp() its input instead."
        if case.in_gradient
        else ""
    )
    return (
        "Subtract the maximum before exponentiating, or use torch.softmax(), torch.logsumexp() or torch.expm1(), "
        f"which stay in range; else clamp(max=...).{guard}"
    )


def _softmax(case: Case) -> str:
    if any(given.infs for given in case.cause.inputs):
        return (
            "A row that is −inf throughout has no softmax: mask with torch.finfo(x.dtype).min instead of −inf, "
            "or leave out rows that are masked completely."
        )
    return "Keep the logits finite: scale or normalise them before."


def _pow(case: Case) -> str:
    if case.cause.phase is Phase.BACKWARD:
        return "The slope of x ** p is infinite at 0 for p < 1: use clamp(min=eps) before pow()."
    if case.low < 0:
        return "A negative number to a broken power is NaN: use x.abs() or clamp(min=eps) before pow()."
    return "Use clamp() before pow(), or work with logarithms: the power left the range of its type."


def _inverse_trigonometric(case: Case) -> str:
    return (
        f"{case.cause.operation}() has an infinite slope at ±1 and no value beyond: use clamp(-1 + eps, 1 - eps) "
        "before it, or torch.atan2() for angles."
    )


def _atan2(case: Case) -> str:
    return "atan2(0, 0) has no slope: add eps to the second argument where both are zero."


def _norm(case: Case) -> str:
    if case.cause.kind == "inf" and case.cause.phase is not Phase.BACKWARD:
        return "The squares left the range of the type: scale the input down first, or take the norm in float32 or 64."
    return "A norm has no slope at 0: use torch.sqrt(x.square().sum() + eps), or F.normalize(x, eps=...)."


def _spread(case: Case) -> str:
    if case.cause.phase is Phase.BACKWARD:
        return f"{case.cause.operation}() has no slope where all values are the same: use torch.sqrt(x.var() + eps)."
    return f"{case.cause.operation}() of one value divides by 0: use correction=0, or batches of two or more."


def _mean(case: Case) -> str:
    if case.cause.kind == "nan":
        return "The mean of nothing is NaN: leave it out where no element is chosen, or divide by count.clamp(min=1)."
    return "The sum left the range of the type: take the mean in float32 or 64, or scale the values down first."


def _batch_norm(case: Case) -> str:
    if any("running_var" in given.name and given.low < 0 for given in case.cause.inputs):
        return (
            "running_var is negative, which no data can make it: call reset_running_stats() of that layer, "
            "and look for who writes its buffers."
        )
    return "The variance was 0 and eps too small, or the input too large: keep eps at 1e-5, and normalise what goes in."


def _cross_entropy(case: Case) -> str:
    if any(given.infs for given in case.cause.inputs):
        return (
            "−inf among the logits costs an infinite loss as soon as it gets any weight, be it the target or through "
            "label_smoothing: mask with torch.finfo(x.dtype).min, or leave label_smoothing at 0."
        )
    if case.cause.kind == "nan":
        return "The mean over no target is NaN: some target must differ from ignore_index and have a weight above 0."
    return "Keep the logits finite, and class weights too."


def _embedding(case: Case) -> str:
    return "Use bounded embeddings (max_norm=...), or initialise the row again."


def _empty(case: Case) -> str:
    return "torch.empty() leaves whatever was in memory: use torch.zeros(), or write every element before reading it."


def _matrix(case: Case) -> str:
    return (
        "The matrix is singular or nearly so: add eps times torch.eye() to it, or use torch.linalg.pinv() or lstsq(). "
        "Its derivative is also not finite where singular or eigenvalues are equal."
    )


def _difference(case: Case) -> str:
    return "inf minus inf is NaN: keep what is subtracted finite, for example with torch.finfo(x.dtype).min as a mask."


def _product(case: Case) -> str:
    if case.cause.kind == "nan":
        return "0 times inf is NaN: replace infinities before, with torch.where() or masked_fill(), not by multiplying."
    return grew(case)


def _rsqrt(case: Case) -> str:
    return "Add eps before it: torch.rsqrt(x + eps); 1 / sqrt(0) is infinite."


def _entropy(case: Case) -> str:
    return "Use the form that takes logits, F.binary_cross_entropy_with_logits(), and keep targets in [0, 1]."


def _to(case: Case) -> str:
    return f"{case.cause.dtype} can't hold these values: scale them down before, or use a type of wider range."


def _ctc(case: Case) -> str:
    return "A target longer than its input has no alignment: give F.ctc_loss zero_infinity=True, or shorten the target."


def _weight_norm(case: Case) -> str:
    return "The norm of a weight of zeros is 0: initialise it with random numbers before it is normalised."


def _tensor(case: Case) -> str:
    return "Look at the numbers that this tensor is made of: math.isfinite() or numpy.isfinite() tells which are bad."


def _limits(case: Case) -> str:
    return f"Use clamp(eps, 1 - eps) before {case.cause.operation}(), which is infinite at the ends of its range."


STABLE: dict[str, Callable[[Case], str]] = {
    "log": _log, "log2": _log, "log10": _log, "xlogy": _log, "log1p": _log, "sqrt": _sqrt, "div": _div,
    "reciprocal": _div, "exp": _exp, "expm1": _exp, "exp2": _exp, "sinh": _exp, "cosh": _exp, "softmax": _softmax,
    "log_softmax": _softmax, "logsumexp": _softmax, "scaled_dot_product_attention": _softmax, "pow": _pow,
    "acos": _inverse_trigonometric, "asin": _inverse_trigonometric, "atanh": _limits, "acosh": _inverse_trigonometric,
    "atan2": _atan2, "norm": _norm, "cdist": _norm, "std": _spread,
    "var": _spread, "std_mean": _spread, "var_mean": _spread, "mean": _mean,
    "batch_norm": _batch_norm, "instance_norm": _batch_norm, "layer_norm": _batch_norm, "group_norm": _batch_norm,
    "cross_entropy": _cross_entropy, "nll_loss": _cross_entropy, "embedding": _embedding, "empty": _empty,
    "empty_like": _empty, "new_empty": _empty, "empty_strided": _empty, "inv": _matrix, "svd": _matrix, "eigh": _matrix,
    "cholesky": _matrix, "slogdet": _matrix, "logdet": _matrix, "det": _matrix, "solve": _matrix, "qr": _matrix,
    "mul": _product, "matmul": _product, "linear": _product, "rsqrt": _rsqrt, "binary_cross_entropy": _entropy,
    "to": _to, "tensor": _tensor, "ctc_loss": _ctc, "weight_norm": _weight_norm,
    "logit": _limits, "erfinv": _limits, "sub": _difference,
}  # fmt: skip
