"""Between the network's last weights and the loss: what is compared with what, and how the loss weighs it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from nbdebug.checks.preflight.intervals import bounds
from nbdebug.checks.preflight.trace import MOVES, Call, LossCall, StepTrace

BATCH = "batch"
SOFTMAXES = frozenset({"softmax", "gumbel_softmax", "softmin"})
LOG_SOFTMAXES = frozenset({"log_softmax"})
# Calls that mix features or samples: behind them is the network, not the loss.
MIXES = frozenset(
    {
        *("linear", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "matmul", "bmm"),
        *("conv_transpose3d", "mm", "mv", "addmm", "addmv", "baddbmm", "einsum", "tensordot", "__matmul__", "lstm"),
        *("__rmatmul__", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
        *("embedding", "embedding_bag", "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"),
        *("multi_head_attention_forward", "scaled_dot_product_attention", "local_response_norm"),
    }
)  # fmt: skip
GATHERS = frozenset({"gather", "take_along_dim", "__getitem__"})
# What leaves rows as they are, up to a logarithm and a safeguard for it.
THROUGH = MOVES | {"log", "clamp", "clip", "clamp_min", "add", "__add__", "neg"}
PICKS = frozenset(
    {"__getitem__", "select", "narrow", "gather", "masked_select", "index_select", "chunk", "split", "unbind"}
)
DIFFERENCES = frozenset({"sub", "subtract", "rsub", "__rsub__", "dist", "pairwise_distance"})
PRODUCTS = frozenset({"mul", "multiply", "__rmul__", "xlogy", "dot"})
SCALES = frozenset({"mul", "multiply", "div", "divide", "true_divide"})
KEEPS = frozenset(
    {"mean", "sum", "cat", "stack", "add", "__radd__", "__add__", "__iadd__", "nanmean", "nansum", "hstack"}
)
GROWS = frozenset({"sqrt", "exp", "log", "log1p", "expm1", "pow", "square", "relu", "softplus"})


@dataclass(frozen=True, slots=True)
class Meeting:
    """A prediction and a target that the loss depends on; ``loss`` has copies of both.

    ``coefficient`` is the sign and, where it is known, the size with which it enters the loss; ``nan`` if unknown.
    """

    loss: LossCall
    coefficient: float
    by_hand: bool


def weighed(trace: StepTrace, *, through: bool = False) -> dict[int, float]:
    """Each call between losses and ``backward``, by index, and the factor with which it enters what is minimised.

    With ``through`` also those between the network's last weights and torch's losses; their factors are unknown.
    """
    found: dict[int, float] = {}
    torchs = {loss.call.index for loss in trace.losses}
    for backward in trace.backwards:
        queue = [(backward.number, backward.index, 1.0)]
        while queue:
            number, before, factor = queue.pop()
            call = trace.producer(number, before)
            if call is None or not trace.values[number].learns or call.name == "detach":
                continue
            if call.index in found:
                if not _same_sign(found[call.index], factor):
                    found[call.index] = math.nan
                continue
            found[call.index] = factor
            if call.name in MIXES or _has_weights(trace, call) or (call.index in torchs and not through):
                continue
            queue += [(each, call.index, factor * share) for each, share in shares(trace, call)]
    return found


def _same_sign(one: float, other: float) -> bool:
    return not math.isnan(one) and one * other > 0


def _has_weights(trace: StepTrace, call: Call) -> bool:
    return any(trace.values[each].source.startswith("weight ") for each in call.inputs if each in trace.values)


def shares(trace: StepTrace, call: Call) -> Iterator[tuple[int, float]]:
    """The inputs of a call, and by which factor each enters its output."""
    name = call.name if call.name.startswith("__") else call.name.rstrip("_")
    number = call.option("other", 0)
    scale = float(number) if isinstance(number, (int, float)) and not isinstance(number, bool) else None
    single = len(call.inputs) == 1
    for place, each in enumerate(call.inputs):
        if not trace.values[each].learns:
            continue
        if name in MOVES or name in KEEPS or (name in ("add",) and single):
            yield each, 1.0
        elif name in ("neg", "negative", "__neg__", "__rsub__", "rsub") and single:
            yield each, -1.0
        elif name in ("sub", "subtract"):
            yield each, -1.0 if place == 1 else 1.0
        elif name in ("mul", "multiply", "__rmul__", "div", "divide", "true_divide") and single and scale:
            yield each, scale if "mul" in name else 1 / scale
        elif name in ("__rdiv__", "__rtruediv__", "reciprocal") and single:
            yield each, 1.0 if scale is not None and scale < 0 else -1.0
        elif (name in GROWS and trace.values[each].shape == ()) or _others_are_positive(trace, call, each):
            yield each, 1.0
        else:
            yield each, math.nan


def _others_are_positive(trace: StepTrace, call: Call, number: int) -> bool:
    """Whether all that a tensor is multiplied with, or divided by, does not learn and has no negative number."""
    others = [each for each in call.inputs if each != number]
    if call.name.rstrip("_") not in SCALES or (call.inputs[0] != number and "div" in call.name):
        return False
    copies = [met.target for met in trace.meetings if met.call.index == call.index and met.target is not None]
    positive = bool(copies) and all(bool((copy >= 0).all()) for copy in copies)
    return bool(others) and all(
        not trace.values[each].learns and (positive or bounds(trace, each, call.index)[0] >= 0) for each in others
    )


def meetings(trace: StepTrace) -> list[Meeting]:
    """What learns and is compared with what, on the way to ``backward``: torch's losses first, then by hand.

    What a loss's values or a prediction are weighed or masked with is left out: see :func:`weights`.
    """
    factors = weighed(trace)
    torchs = [loss for loss in trace.losses if loss.call.index in factors or not trace.backwards]
    compared, _ = _by_hand(trace, factors)
    return [
        *(Meeting(loss, factors.get(loss.call.index, math.nan), False) for loss in torchs),
        *(Meeting(loss, factors[loss.call.index], True) for loss in compared),
    ]


def weights(trace: StepTrace) -> list[LossCall]:
    """Where, on the way to ``backward``, what a loss gives for each place is weighed with, or picked by, the batch."""
    return _by_hand(trace, weighed(trace))[1]


def _by_hand(trace: StepTrace, factors: dict[int, float]) -> tuple[list[LossCall], list[LossCall]]:
    """Calls that compare, and calls that weigh what others compare."""
    met = [loss for loss in trace.meetings if loss.call.index in factors and compares_with_data(trace, loss)]
    torchs = {loss.call.index for loss in trace.losses if loss.call.index in factors}
    made = {loss.call.index: {call.index for call in behind(trace, loss.input_number, loss.call.index)} for loss in met}
    sure = [loss for loss in met if loss.name in DIFFERENCES | GATHERS and not made[loss.call.index] & torchs]
    anchors = torchs | {loss.call.index for loss in sure}
    before = {index for loss in sure for index in made[loss.call.index]}
    compared: list[LossCall] = []
    weighing: list[LossCall] = []
    for loss in met:
        beside = loss.call.index in before or made[loss.call.index] & anchors
        (weighing if loss not in sure and beside else compared).append(loss)
    return compared, weighing


def batch_sources(trace: StepTrace, number: int, before: int | None = None) -> set[str]:
    """The batch's tensors whose numbers, and not only their shape, a tensor comes from."""
    queue, seen, found = [(number, before)], set[int](), set[str]()
    while queue:
        number, before = queue.pop()
        source = trace.values[number].source if number in trace.values else ""
        found |= {source} if source.startswith(BATCH) else set()
        call = trace.producer(number, before)
        if call is not None and call.index not in seen and not call.name.startswith("new_"):
            seen.add(call.index)
            if not call.name.endswith("_like"):
                queue += [(each, call.index) for each in call.inputs]
    return found


def compares_with_data(trace: StepTrace, loss: LossCall) -> bool:
    """Whether its target comes from the batch, rather than being a constant, as in a GAN."""
    number = loss.target_number
    return number is not None and bool(batch_sources(trace, number, loss.call.index))


def chain(trace: StepTrace, number: int, before: int | None = None, most: int = 12) -> Iterator[Call]:
    """The calls that made a tensor, along the first input that learns, as far as the network's last weights."""
    for _ in range(most):
        call = trace.producer(number, before)
        if call is None or call.name in MIXES or _has_weights(trace, call):
            return
        yield call
        following = [each for each in call.inputs if trace.values[each].learns]
        if not following:
            return
        number, before = following[0], call.index


def behind(trace: StepTrace, number: int, before: int | None = None, most: int = 60) -> list[Call]:
    """All calls that made a tensor, nearest first, as far as the network's last weights."""
    queue, seen = [(number, before)], dict[int, Call]()
    while queue and len(seen) < most:
        number, before = queue.pop(0)
        call = trace.producer(number, before)
        if call is not None and call.index not in seen and call.name not in MIXES and not _has_weights(trace, call):
            seen[call.index] = call
            queue += [(each, call.index) for each in call.inputs if trace.values[each].learns]
    return list(seen.values())


def last_shaping(trace: StepTrace, number: int, before: int | None = None) -> Call | None:
    """The call that last changed a tensor's numbers, through what only hands them on."""
    return trace.origin(number, before)[1]


def axis_of(call: Call, shape: tuple[int, ...]) -> int | None:
    """The axis that a softmax runs along, counted from the front; that which torch guesses where none is given."""
    place = 1 if call.name == "gumbel_softmax" else 0
    axis = call.option("dim", place)
    if call.name == "gumbel_softmax" and axis is None:
        axis = -1
    if axis is None:
        axis = 0 if len(shape) in (0, 1, 3) else 1
    return int(axis) % len(shape) if isinstance(axis, int) and shape else None


def class_axis(loss: LossCall) -> int | None:
    """The axis along which a loss's input has its classes, where the loss itself or the targets tell."""
    given, target = loss.input, loss.target
    if loss.name in ("cross_entropy", "nll_loss", "multi_margin_loss"):
        return 1 if given.dim() > 1 else 0
    if loss.name in ("gather", "take_along_dim"):
        axis = loss.call.option("dim", 0)
        return int(axis) % given.dim() if isinstance(axis, int) and given.dim() else None
    if loss.name == "__getitem__":
        return _indexed_axis(loss)
    if target is None or target.shape != given.shape or given.dim() < 2:
        return None
    return _one_hot_axis(target)


def _indexed_axis(loss: LossCall) -> int | None:
    """The place of the last index that is a tensor: ``p[range(n), y]``, ``p[:, t, y]``."""
    index = loss.call.rest[0] if loss.call.rest else None
    if not isinstance(index, tuple) or "ellipsis" in index or None in index:
        return None
    places = [place for place, each in enumerate(index) if each in ("Tensor", "Parameter")]
    return places[-1] if len(index) == loss.input.dim() and places else None


def _one_hot_axis(target: torch.Tensor) -> int | None:
    values = target.float()
    if float(values.min()) < 0 or float(values.max()) > 1:
        return None
    axes = range(1, target.dim())
    fitting = [axis for axis in axes if target.shape[axis] > 1 and bool(((values.sum(axis) - 1).abs() < 1e-3).all())]
    return fitting[-1] if fitting else None


def softmax_behind(trace: StepTrace, loss: LossCall) -> tuple[Call | None, bool]:
    """The softmax that a loss's input is, and whether part of it was picked out."""
    number, before, picked = loss.input_number, loss.call.index, False
    while (call := trace.producer(number, before)) is not None:
        if call.name in SOFTMAXES | LOG_SOFTMAXES:
            return call, picked
        learning = [each for each in call.inputs if trace.values[each].learns]
        if call.name.rstrip("_") not in THROUGH or len(learning) != 1:
            return None, picked
        picked |= call.name in PICKS
        number, before = learning[0], call.index
    return None, picked
