"""A view that is meant to turn dimensions round: it keeps the order of numbers, and scrambles what they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Call, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

VIEWS = "scrambling_views"
NAMES = frozenset({"view", "reshape", "view_as", "reshape_as"})
KEEP_CHANNELS = frozenset(
    {
        *(
            "relu",
            "leaky_relu",
            "gelu",
            "silu",
            "elu",
            "selu",
            "tanh",
            "sigmoid",
            "hardswish",
            "mish",
            "dropout",
            "prelu",
        ),
        *("dropout2d", "batch_norm", "instance_norm", "group_norm", "add", "mul", "interpolate", "contiguous", "clone"),
    }
)
CHANNELS_FIRST = ("conv1d", "conv2d", "conv3d", "conv_transpose", "max_pool", "avg_pool", "adaptive_", "pixel_shuffle")


def judge(look: Look, say: Say) -> None:
    """Each view and reshape of data: the sizes of its dimensions in another order, or channels put last."""
    trace = look.called
    found = [call for call in _reshapes(trace) if _is_turned(trace, call) or _puts_channels_last(trace, call)]
    if say.measure("views whose dimensions come in another order", len(found), VIEWS):
        _tell(look, say, found[0])


def _reshapes(trace: StepTrace) -> Iterator[Call]:
    for call in trace.named(*NAMES):
        if call.inputs and (trace.values[call.inputs[0]].learns or trace.sources(call.inputs[0], call.index)):
            yield call


def _is_turned(trace: StepTrace, call: Call) -> bool:
    before, after = ([size for size in shape if size != 1] for shape in _shapes(trace, call))
    return len(before) > 1 and before != after and sorted(before) == sorted(after)


def _puts_channels_last(trace: StepTrace, call: Call) -> bool:
    """(N, C, H, W) cut into (N, H*W, C), which is right for flatten(2).transpose(1, 2) only."""
    before, after = _shapes(trace, call)
    if len(before) < 4 or len(after) < 3 or before[0] != after[0] or after[-1] != before[1]:
        return False
    places = math.prod(before[2:])
    return before[1] not in (1, places, before[-1]) and math.prod(after[1:-1]) == places and _has_channels(trace, call)


def _has_channels(trace: StepTrace, call: Call) -> bool:
    """Whether what it is given comes from a convolution or pooling, so that dimension 1 are its channels."""
    number, before = call.inputs[0], call.index
    for _ in range(12):
        made = trace.producer(number, before)
        if made is None:
            return False
        if made.name.startswith(CHANNELS_FIRST):
            return True
        if made.name.rstrip("_") not in KEEP_CHANNELS or not made.inputs:
            return False
        number, before = made.inputs[0], made.index
    return False


def _shapes(trace: StepTrace, call: Call) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return trace.values[call.inputs[0]].shape, trace.values[call.outputs[0]].shape


def _tell(look: Look, say: Say, call: Call) -> None:
    before, after = _shapes(look.trace, call)
    mixes = before[0] != after[0]
    say.find(
        Cause.TENSOR_LAYOUT_ERROR,
        Severity.CRITICAL if mixes else Severity.WARNING,
        f"A {call.name} where dimensions should be turned",
        f"{call.name} makes {after} of {before}: the same dimensions in another order. It keeps the numbers in their "
        "order in memory and only cuts them anew, so that each row of the result holds pieces of several "
        f"{'samples' if mixes else 'channels or places'}.",
        confidence=0.95,
        layers=(call.layer,) if call.layer else (),
        remedies=(Remedy("Turn the dimensions.", code=_code(before, after)),),
        line=call.line,
    )


def _code(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    if sorted(before) != sorted(after):
        return "x.flatten(2).transpose(1, 2)"
    left = list(enumerate(before))
    order = []
    for size in after:
        place = next(each for each in left if each[1] == size)
        left.remove(place)
        order.append(place[0])
    return f"x.permute({', '.join(map(str, order))})"


CHECK = Check(
    "view_instead_of_permute",
    "views do not stand in for permutations",
    judge,
    (Cause.TENSOR_LAYOUT_ERROR,),
    parameters=(Parameter(VIEWS, 0, "views that may have their dimensions in another order"),),
    source="Karpathy: the most common neural net mistakes (view and permute are not the same thing)",
)
