"""What comes out for one sample depends on another sample of the batch: time or channels were taken for the batch."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.rerun import Outcome, Rerun, rerunning, samples_come_first
from nbdebug.checks.preflight.trace import Call, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

MIXING = "sample_mixing"
PRODUCTS = frozenset({"mm", "matmul", "spmm", "smm", "sparse_mm", "addmm"})
STATISTICS = frozenset({"var", "std", "var_mean", "std_mean"})
GRAPHS = frozenset({"scatter_add", "scatter", "index_add", "scatter_reduce", "spmm", "sparse_mm", "index_put", "cdist"})


def judge(look: Look, say: Say) -> None:
    """Swap one sample for another in what the network was given, in evaluation mode, and look at all the others."""
    _gates(look, say)
    with rerunning(look) as reruns:
        if not reruns:
            say.skip("the same call does not give the same twice")
        for rerun in reruns:
            _judge(look, rerun, say)
            look.experiments.mind_calls()


def _gates(look: Look, say: Say) -> None:
    """Where samples are meant to know of each other."""
    trace, _ = look.called, look.experiments
    if not samples_come_first(look):
        say.skip("which dimension the samples lie along is not certain")
    if any(isinstance(each, _BatchNorm) and each.running_mean is None for each in look.modules.values()):
        say.skip("a batch norm without running statistics works over the batch")
    names = {call.name.rstrip("_") for call in trace.calls if call.layer is not None}
    over_batch = [call for call in trace.calls if call.name in STATISTICS and 0 in _dims(call.option("dim", 0))]
    if names & GRAPHS or over_batch:
        say.skip("the network works over the batch on purpose, as graph networks and statistics over a batch do")
    for call in trace.models:
        for number in (*call.inputs, *call.outputs):
            shape, count = trace.values[number].shape, look.data.sizes[0] if look.data.sizes else 0
            is_index = not trace.values[number].dtype.is_floating_point and len(shape) == 2 and shape[0] == 2 != count
            is_pairs = shape.count(count) > 1 and shape[:2] == (count, count) and not _has_features(trace, number)
            if is_pairs or is_index:
                say.skip("the network takes or gives something for each pair of samples")
    if any(_is_graph(look, call) for call in trace.calls):
        say.skip("the network has something for each pair of samples, as a graph has")


def _has_features(trace: StepTrace, number: int) -> bool:
    """Whether its second dimension is that of a linear layer, which merely happens to be as wide as the batch."""
    return any(call.name == "linear" and number in (call.inputs[:1] + call.outputs) for call in trace.calls)


def _is_graph(look: Look, call: Call) -> bool:
    """Whether a call works with a square of all samples, or a sparse matrix, that was there before the step."""
    values, count = look.trace.values, look.data.sizes[0] if look.data.sizes else 0
    given = [values[number] for number in call.inputs]
    if call.name.strip("_") in PRODUCTS and any(not value.shape for value in given):
        return True  # the shape of what is sparse is not kept
    fixed = [value for value in given if not value.calls and not value.source.startswith(("weight", "batch"))]
    return any(value.shape[:2] == (count, count) for value in fixed)


def _dims(dim: object) -> tuple[object, ...]:
    return dim if isinstance(dim, tuple) else (dim,)


def _judge(look: Look, rerun: Rerun, say: Say) -> None:
    base = rerun.run(layers=True)
    worst, where, pairs = 0.0, "", (0, rerun.samples - 1)
    for place in pairs:
        other = (place + 1) % rerun.samples
        outcome = rerun.run(_swapped(rerun, place, other), layers=True)
        mixing = max(_mixing(a, b, rerun.samples, place) for a, b in zip(base.outputs, outcome.outputs, strict=True))
        if mixing > worst:
            worst, where = mixing, _first_mixed(base, outcome, rerun.samples, place, say.limit(MIXING))
    name = f" of {rerun.call.root}" if rerun.call.root else ""
    if say.measure(f"change of other samples' outputs{name} when one input is swapped", worst, MIXING):
        _tell(look, rerun, say, where, worst)


def _swapped(rerun: Rerun, place: int, other: int) -> dict[str, torch.Tensor]:
    """The arguments with one sample replaced by another."""
    changed = {}
    for name, tensor in rerun.arguments().items():
        axis = rerun.axes[name]
        made = tensor.clone()
        made.select(axis, place).copy_(tensor.select(axis, other))
        changed[name] = made
    return changed


def _mixing(before: torch.Tensor, after: torch.Tensor, samples: int, place: int) -> float:
    """By how much other samples changed, relative to the outputs' size; the least over ways to read the shape."""
    size = float(before.std(correction=0)) + 1e-3 * float(before.abs().max()) if before.numel() else 0.0
    ways = _ways(before, after, samples)
    if not ways or size <= 0:
        return 0.0
    return min(float(_others(one - two, place).abs().max()) for one, two in ways) / size


def _ways(before: torch.Tensor, after: torch.Tensor, samples: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Both with the samples in front, for each dimension that may be theirs."""
    if before.shape != after.shape or not before.dim():
        return []
    axes = [axis for axis, size in enumerate(before.shape) if size == samples]
    if axes:
        return [(before.movedim(axis, 0), after.movedim(axis, 0)) for axis in axes]
    if before.shape[0] % samples:
        return []
    inner = [each.reshape(samples, -1) for each in (before, after)]
    outer = [each.reshape(-1, samples, each[0].numel()).movedim(1, 0) for each in (before, after)]
    return [(inner[0], inner[1]), (outer[0], outer[1])]


def _others(difference: torch.Tensor, place: int) -> torch.Tensor:
    return torch.cat([difference[:place], difference[place + 1 :]])


def _first_mixed(base: Outcome, outcome: Outcome, samples: int, place: int, limit: float) -> str:
    """The first layer whose output for other samples changed."""
    if [name for name, _ in base.layers] != [name for name, _ in outcome.layers]:
        return ""
    for (name, before), (_, after) in zip(base.layers, outcome.layers, strict=True):
        if _mixing(before, after, samples, place) > limit:
            return name
    return ""


def _tell(look: Look, rerun: Rerun, say: Say, where: str, worst: float) -> None:
    module = look.modules.get(where)
    first = getattr(module, "batch_first", None) is False
    line = next((call.line for call in look.trace.calls if call.layer == where and call.line), None) if where else None
    at = f" It first shows in the output of {look.code_name(where)}." if where else ""
    remedies = [Remedy("Turn dimensions with permute or transpose; view and reshape only cut the same order anew.")]
    if first:
        remedies.insert(
            0, Remedy("Say that the samples come first.", code=f"{type(module).__name__}(…, batch_first=True)")
        )
    remedies.append(Remedy("Look for sums, means and softmaxes over dimension 0, and for flatten(0) of the batch."))
    say.find(
        Cause.TENSOR_LAYOUT_ERROR,
        Severity.CRITICAL,
        "Samples of a batch are mixed",
        "With one sample of the batch swapped for another, what the network says of the other samples changes by "
        f"{worst:.2g} of its deviation, in evaluation mode, where nothing should work over the batch.{at} A "
        "dimension that is not the samples' (time, channels) is treated as such, or the other way round"
        + (": this layer was made with batch_first=False and expects time in front." if first else "."),
        confidence=0.92,
        layers=(where,) if where else (),
        remedies=tuple(remedies),
        line=line,
    )


CHECK = Check(
    "samples_mixed",
    "samples of a batch do not see each other",
    judge,
    (Cause.TENSOR_LAYOUT_ERROR,),
    parameters=(Parameter(MIXING, 1e-3, "change of a sample's output that another's input may bring, in deviations"),),
    source="Karpathy, A recipe for training neural networks: use backprop to chart dependencies",
    passive=False,
)
