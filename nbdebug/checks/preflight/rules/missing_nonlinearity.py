"""Two linear maps in a row are one: told by the calls between them on real data, not by the names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import MOVES, Call, StepTrace
from nbdebug.checks.preflight.wiring import consumers, listed, weights_of
from nbdebug.records.findings import Cause, Remedy, Severity

PAIRS = "linear_pairs"
CONVS = frozenset({"conv1d", "conv2d", "conv3d"})
UPS = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "mm", "addmm"})
MAPS = frozenset({"linear"}) | CONVS | UPS | PRODUCTS
AVERAGES = frozenset(
    {"avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean", "sum"}
)
DROPS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"})
PADS = frozenset({"pad", "interpolate", "upsample", "identity"})
SCALES = frozenset({"mul", "__mul__", "__rmul__", "div", "__truediv__", "add", "__add__", "__radd__", "sub", "__sub__"})
TURNS = frozenset(
    {
        "permute",
        "transpose",
        "transpose_",
        "t",
        "T.__get__",
        "mT.__get__",
        "swapaxes",
        "swapdims",
        "movedim",
        "moveaxis",
    }
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A linear map and the one whose input its output is, with these calls between."""

    first: Call
    second: Call
    between: tuple[Call, ...]


def judge(look: Look, say: Say) -> None:
    """Each pair of maps with weights of their own, unless what is between or their sizes make sense of it."""
    trace = look.called
    users = consumers(trace)
    maps = [call for call in trace.calls if _is_map(trace, call)]
    pairs = [pair for call in maps if (pair := _pair(trace, call)) is not None]
    if not maps:
        say.skip("there is no linear or convolutional layer")
    whole = bool(pairs) and _is_all_linear(trace, maps, pairs)
    told = [pair for pair in pairs if _is_single(look, trace, users, pair) and _is_a_fault(look, trace, pair, whole)]
    if say.measure("pairs of linear layers with nothing between", len(told), PAIRS):
        _tell(look, say, told, whole=whole)


def _is_map(trace: StepTrace, call: Call) -> bool:
    return call.name in MAPS and any(len(_shape(look_at, trace)) > 1 for look_at in _weights(trace, call))


def _weights(trace: StepTrace, call: Call) -> list[int]:
    return [number for number in call.inputs if trace.values[number].source.startswith("weight ")]


def _shape(number: int, trace: StepTrace) -> tuple[int, ...]:
    return trace.values[number].shape


def _data(trace: StepTrace, call: Call) -> int | None:
    """The one input that is no weight."""
    given = [number for number in call.inputs if not _is_fixed(trace, number)]
    return given[0] if len(given) == 1 else None


def _is_fixed(trace: StepTrace, number: int) -> bool:
    return trace.values[number].source.startswith(("weight ", "buffer "))


def _pair(trace: StepTrace, second: Call) -> Pair | None:
    number = _data(trace, second)
    between: list[Call] = []
    before = second.index
    while number is not None:
        call = trace.producer(number, before)
        if call is None:
            return None
        if _is_map(trace, call):
            return Pair(call, second, tuple(between))
        if not _is_linear(trace, call):
            return None
        between.append(call)
        number, before = _data(trace, call), call.index
    return None


def _is_linear(trace: StepTrace, call: Call) -> bool:
    """Whether a call is a linear (or affine) function of its one input that is no weight."""
    if _data(trace, call) is None:
        return False
    if call.name == "__getitem__":
        return True
    return call.name in MOVES | AVERAGES | DROPS | PADS | SCALES or call.name == "batch_norm"


def _is_single(look: Look, trace: StepTrace, users: dict[int, list[Call]], pair: Pair) -> bool:
    """Whether nothing else makes use of what is between: no skip, no other head, not the network's own output."""
    numbers = [*pair.first.outputs, *(number for call in pair.between for number in call.outputs)]
    way = {call.index for call in (*pair.between, pair.second)}
    given_out = {number for model in trace.models for number in model.outputs}
    others = [call for number in numbers for call in users.get(number, []) if call.index not in way]
    return not given_out.intersection(numbers) and not any(call.index > pair.first.index for call in others)


def _is_a_fault(look: Look, trace: StepTrace, pair: Pair, whole: bool) -> bool:
    """Factorisations are none: through a narrow middle, by axes, by depth, or with weights that serve elsewhere."""
    inside, middle, outside = _widths(trace, pair)
    if middle < min(inside, outside) or (middle <= min(inside, outside) and _parts(pair)):
        return False
    if _is_separable(look, trace, pair) or _is_tied(trace, pair) or _is_lookup(look, trace, pair):
        return False
    if whole:
        return True
    names = {call.name for call in pair.between}
    turned = bool(names & TURNS) and pair.first.name not in CONVS
    pooled = bool(names & AVERAGES) and pair.second.name not in CONVS | UPS
    raised = pair.first.name in UPS and pair.second.name not in UPS
    return not (turned or pooled or raised)


def _widths(trace: StepTrace, pair: Pair) -> tuple[int, int, int]:
    """Features into the first map, between, and out of the second."""
    entry, leave = _data(trace, pair.first), pair.second.outputs[0]
    inside = _width(trace, pair.first, _shape(entry, trace)) if entry is not None else 0
    middle = _width(trace, pair.first, _shape(pair.first.outputs[0], trace))
    return inside, middle, _width(trace, pair.second, _shape(leave, trace))


def _width(trace: StepTrace, call: Call, shape: tuple[int, ...]) -> int:
    if call.name in CONVS | UPS:
        places = {"conv1d": 1, "conv2d": 2, "conv3d": 3}.get(call.name.replace("_transpose", ""), 2)
        return shape[-places - 1] if len(shape) > places else 0
    return shape[-1] if shape else 0


def _parts(pair: Pair) -> bool:
    """Whether both belong to different parts of the model, as an encoder's end and a decoder's beginning do."""
    first, second = (call.layer or "" for call in (pair.first, pair.second))
    return "." in first and "." in second and first.partition(".")[0] != second.partition(".")[0]


def _is_separable(look: Look, trace: StepTrace, pair: Pair) -> bool:
    """Depthwise, by rows and columns, or a cut into patches without overlap."""
    for call in (pair.first, pair.second):
        if call.name not in CONVS | UPS:
            continue
        kernels = [_shape(number, trace) for number in _weights(trace, call) if len(_shape(number, trace)) > 2]
        module = look.modules.get(call.layer or "")
        groups = call.option("groups", 99, getattr(module, "groups", 1))
        kernel = kernels[0][2:] if kernels else ()
        stride = getattr(module, "stride", None)
        if groups != 1 or len(set(kernel)) > 1:
            return True
        if call.name in CONVS and stride is not None and tuple(stride) == tuple(kernel) and kernel[0] > 1:
            return True
    return False


def _is_lookup(look: Look, trace: StepTrace, pair: Pair) -> bool:
    """Whether the first is a table of embeddings, mixed rather than looked up."""
    layers = [look.modules.get(look.layer_of(name)) for name in weights_of(trace, pair.first)]
    return any(isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) for layer in layers)


def _is_tied(trace: StepTrace, pair: Pair) -> bool:
    """Whether one of the weights serves elsewhere too, such as an embedding's."""
    mine = {number for call in (pair.first, pair.second) for number in _weights(trace, call)}
    uses = [call.index for call in trace.calls if mine.intersection(call.inputs)]
    return any(index not in (pair.first.index, pair.second.index) for index in uses) and not _is_repeated(trace, pair)


def _is_repeated(trace: StepTrace, pair: Pair) -> bool:
    """Whether both are called more than once in the same way, as on two pictures or twice in a step."""
    names = [call.name for call in trace.calls for number in _weights(trace, pair.first) if number in call.inputs]
    others = [call.name for call in trace.calls for number in _weights(trace, pair.second) if number in call.inputs]
    return set(names) == {pair.first.name} and set(others) == {pair.second.name} and len(names) == len(others)


def _is_all_linear(trace: StepTrace, maps: Sequence[Call], pairs: Sequence[Pair]) -> bool:
    """Whether the output is a linear function of the input: the last map's line goes back to the batch unbroken."""
    by_second = {pair.second.index: pair for pair in pairs}
    last = pairs[-1]
    if any(call.index > last.second.index for call in maps):
        return False
    pair = last
    while pair.first.index in by_second:
        pair = by_second[pair.first.index]
    number: int | None = _data(trace, pair.first)
    before = pair.first.index
    while number is not None and (call := trace.producer(number, before)) is not None:
        if not _is_linear(trace, call):
            return False
        number, before = _data(trace, call), call.index
    behind = [call for call in trace.calls if call.index > last.second.index and last.second.outputs[0] in call.inputs]
    return number is not None and all(call.name in MOVES or "loss" in call.name or not call.layer for call in behind)


def _tell(look: Look, say: Say, told: Sequence[Pair], *, whole: bool) -> None:
    names = [f"{_name(look, pair.first)} → {_name(look, pair.second)}" for pair in told]
    between = sorted({call.layer or call.name for pair in told for call in pair.between if call.name not in MOVES})
    only = f"only {listed(between)}, which bend nothing," if between else "nothing"
    effect = (
        "The whole network is then one linear function of its input, however many layers it has."
        if whole
        else "Each such pair can do no more than a single layer."
    )
    say.find(
        Cause.MISSING_NONLINEARITY,
        Severity.CRITICAL if whole else Severity.WARNING,
        "The network is linear throughout" if whole else "Nothing nonlinear between two layers",
        f"Between {listed(names, 3)} there is {only} on the way of the data. {effect}",
        confidence=0.95 if whole else 0.8,
        layers=tuple(dict.fromkeys(call.layer or "" for pair in told for call in (pair.first, pair.second))),
        remedies=(
            Remedy("Put an activation between them.", code=f"x = torch.relu({_name(look, told[0].first)}(x))"),
            Remedy("Or make one layer of the two."),
        ),
        line=told[0].second.line,
    )


def _name(look: Look, call: Call) -> str:
    return look.code_name(call.layer) if call.layer else listed(weights_of(look.trace, call), 1) or call.name


CHECK = Check(
    "missing_nonlinearity",
    "layers have something nonlinear between them",
    judge,
    (Cause.MISSING_NONLINEARITY,),
    parameters=(Parameter(PAIRS, 0, "pairs of linear layers that may have nothing between them"),),
    source="Goodfellow et al., Deep Learning, 6.1: a composition of linear functions is linear",
)
