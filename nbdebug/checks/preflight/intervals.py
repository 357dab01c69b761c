"""Which numbers a tensor can hold at all, by interval arithmetic over the calls that made it. Pure.

What is not known is unbounded, so that a finite bound is a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nbdebug.checks.preflight.trace import MOVES, Call, StepTrace

Interval = tuple[float, float]
ALL: Interval = (-math.inf, math.inf)
DEEPEST = 24

# What a function's output lies in, whatever it is given.
FIXED: dict[str, Interval] = {
    **dict.fromkeys(("sigmoid", "softmax", "special_expit", "expit", "gumbel_softmax", "hardsigmoid"), (0.0, 1.0)),
    **dict.fromkeys(("ne", "eq", "gt", "lt", "ge", "le", "__eq__", "__ne__", "logical_not", "logical_and"), (0.0, 1.0)),
    **dict.fromkeys(("__and__", "__or__", "__invert__", "isnan", "isfinite", "one_hot", "ones_like"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "sin", "cos", "softsign", "sign", "cosine_similarity", "erf", "normalize"), (-1.0, 1.0)),
    **dict.fromkeys(("square", "norm", "linalg_norm", "vector_norm", "linalg_vector_norm"), (0.0, math.inf)),
    **dict.fromkeys(("count_nonzero", "numel"), (0.0, math.inf)),
    **dict.fromkeys(("log_softmax", "logsigmoid", "log_sigmoid"), (-math.inf, 0.0)),
    "relu6": (0.0, 6.0),
    "hardswish": (-0.375, math.inf),
    "silu": (-0.2785, math.inf),
    "mish": (-0.3089, math.inf),
    "gelu": (-0.17, math.inf),
    "erfc": (0.0, 2.0),
}
# Growing functions: what the ends become.
GROWING: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(0.0, x),
    "exp": lambda x: math.exp(min(x, 700.0)) if x < 700 else math.inf,
    "log": lambda x: math.log(x) if x > 0 else -math.inf,
    "log1p": lambda x: math.log1p(x) if x > -1 else -math.inf,
    "sqrt": lambda x: math.sqrt(max(x, 0.0)),
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
}
# Means, choices and other places: nothing outside of what was there.
WITHIN = frozenset(
    {
        *("mean", "max", "min", "amax", "amin", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d"),
        *("max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "median", "sort", "topk"),
        *("adaptive_max_pool1d", "adaptive_max_pool2d", "flip", "roll", "repeat", "repeat_interleave", "upsample"),
        *("interpolate", "cat", "stack", "concat", "where", "maximum", "minimum", "nan_to_num", "quantile", "hstack"),
        *("vstack", "boolean_dispatch"),
    }
)  # fmt: skip


SUMS = frozenset({"add", "__add__", "__radd__", "iadd", "__iadd__"})
DIFFERENCES = frozenset({"sub", "subtract", "isub", "__isub__", "rsub", "__rsub__"})
PRODUCTS = frozenset({"mul", "multiply", "imul", "__imul__", "__rmul__"})
QUOTIENTS = frozenset({"div", "divide", "true_divide", "idiv", "__itruediv__", "__rdiv__", "__rtruediv__"})
SHAPED = frozenset(
    {
        *(
            "clamp",
            "clip",
            "hardtanh",
            "clamp_min",
            "clamp_max",
            "elu",
            "celu",
            "selu",
            "abs",
            "__abs__",
            "pow",
            "__pow__",
        ),
        *("sum", "dropout", "neg", "negative", "__neg__"),
    }
)
KNOWN = frozenset({*MOVES, *WITHIN, *GROWING, *SHAPED, *SUMS, *DIFFERENCES, *PRODUCTS, *QUOTIENTS})


def bounds(trace: StepTrace, number: int, before: int | None = None) -> Interval:
    """The least and the greatest value that a tensor can hold."""
    return _bounds(trace, number, before, {}, DEEPEST)


def _bounds(trace: StepTrace, number: int, before: int | None, known: dict[int, Interval], depth: int) -> Interval:
    call = trace.producer(number, before)
    if call is None or depth <= 0:
        return ALL
    if call.index not in known:
        known[call.index] = _of_call(trace, call, known, depth)
    return known[call.index]


def _of_call(trace: StepTrace, call: Call, known: dict[int, Interval], depth: int) -> Interval:
    name = call.name.rstrip("_") if not call.name.startswith("__") else call.name
    if name in FIXED:
        return FIXED[name]
    if not call.inputs or (name not in KNOWN and call.name not in KNOWN):
        return ALL
    given = [_bounds(trace, each, call.index, known, depth - 1) for each in call.inputs]
    if name in MOVES or call.name in MOVES:
        return given[0]
    if name in WITHIN:
        return min(low for low, _ in given), max(high for _, high in given)
    if name in GROWING:
        low, high = (GROWING[name](end) for end in given[0])
        return low, high
    return _shaped(call, name, given[0]) or _combined(call, name, given) or ALL


def _shaped(call: Call, name: str, given: Interval) -> Interval | None:
    """Activations with settings of their own."""
    low, high = given
    if name in ("clamp", "clip", "hardtanh"):
        least, most = ("min", "max") if name != "hardtanh" else ("min_val", "max_val")
        standard = (-1.0, 1.0) if name == "hardtanh" else (None, None)
        floor, roof = call.option(least, 0, standard[0]), call.option(most, 1, standard[1])
        floor = float(floor) if isinstance(floor, (int, float)) else -math.inf
        roof = float(roof) if isinstance(roof, (int, float)) else math.inf
        return max(low, floor), max(min(high, roof), floor)
    if name in ("clamp_min", "clamp_max"):
        at = call.option(name[-3:], 0)
        if not isinstance(at, (int, float)):
            return None
        return (max(low, float(at)), high) if name == "clamp_min" else (low, min(high, float(at)))
    if name in ("elu", "celu", "selu"):
        alpha = call.option("alpha", 0, 1.0) if name != "selu" else 1.7581
        return (-abs(float(alpha)), high) if isinstance(alpha, (int, float)) else None
    if name in ("abs", "__abs__"):
        return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
    if name in ("pow", "__pow__") and call.option("exponent", 0) in (2, 2.0, 4, 4.0):
        return 0.0, math.inf
    if name == "sum" and (low >= 0 or high <= 0):
        return (0.0, math.inf) if low >= 0 else (-math.inf, 0.0)
    if name == "dropout":
        return (min(low, 0.0) * math.inf if low < 0 else 0.0), (max(high, 0.0) * math.inf if high > 0 else 0.0)
    return None


def _combined(call: Call, name: str, given: list[Interval]) -> Interval | None:
    """Sums and products with plain numbers, or of two tensors of which something is known."""
    if name in ("neg", "negative", "__neg__"):
        return -given[0][1], -given[0][0]
    first, second = given[0], _second(call, given)
    if second is None:
        return None
    if name.startswith("__r") or name == "rsub":
        first, second = second, first
    if name in SUMS:
        return first[0] + second[0], first[1] + second[1]
    if name in DIFFERENCES:
        return first[0] - second[1], first[1] - second[0]
    if name in PRODUCTS:
        return _product(first, second)
    if name in QUOTIENTS and (second[0] > 0 or second[1] < 0):
        ends = sorted((_inverse(second[0]), _inverse(second[1])))
        return _product(first, (ends[0], ends[1]))
    return None


def _second(call: Call, given: list[Interval]) -> Interval | None:
    """The other operand: a tensor, or a plain number."""
    if len(given) > 1:
        return given[1]
    other = call.option("other", 0)
    if isinstance(other, bool) or not isinstance(other, (int, float)):
        return None
    return float(other), float(other)


def _inverse(value: float) -> float:
    return 1 / value if value else math.inf


def _product(first: Interval, second: Interval) -> Interval:
    ends = [0.0 if 0.0 in (a, b) else a * b for a in first for b in second]
    return min(ends), max(ends)
