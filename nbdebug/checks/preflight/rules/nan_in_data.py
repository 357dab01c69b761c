"""Inputs or targets that are not finite: one such value makes the loss, and with it every weight, NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

WITH_ITSELF = frozenset({"__ne__", "ne", "__eq__", "eq"})
COUNT = "values_not_finite"
CURES = frozenset(
    {
        *("isnan", "isfinite", "isinf", "isneginf", "isposinf", "nan_to_num", "nanmean", "nansum", "nanmedian"),
        *("nanquantile",),
    }
)


@dataclass(frozen=True, slots=True)
class Hole:
    """Values that are not finite in one tensor of a batch."""

    name: str
    batch: int
    sample: int
    feature: tuple[int, ...]
    value: float
    count: int
    samples: int


def judge(look: Look, say: Say) -> None:
    """Every batch of both loaders."""
    names = {**look.data.inputs, **look.data.targets}
    training = _holes(look.batches, list(names))
    validation = _holes(look.validation, list(names))
    say.measure("values that are not finite in training batches", sum(hole.count for hole in training), COUNT)
    if training and not _is_taken_care_of(look, training):
        _tell(look, say, training, "training")
        return
    say.measure("values that are not finite in validation batches", sum(hole.count for hole in validation), COUNT)
    if validation and not training and not _is_cured(look.trace, validation):
        _tell(look, say, validation, "validation")


def _holes(batches: Any, names: list[str]) -> list[Hole]:
    return [
        hole
        for place, batch in enumerate(batches)
        for name, tensor in leaves(batch)
        if name in names and tensor.is_floating_point() and tensor.layout is torch.strided
        for hole in _holes_in(name, place, tensor)
    ]


def _holes_in(name: str, place: int, tensor: torch.Tensor) -> list[Hole]:
    if bool(torch.isfinite(tensor.detach().sum(dtype=torch.float64))):
        return []
    bad = ~torch.isfinite(tensor)
    if not bool(bad.any()) or _is_mask(tensor, bad):
        return []
    where = bad.nonzero()[0].tolist() if tensor.dim() else [0]
    samples = int(bad.reshape(len(bad), -1).any(1).sum()) if tensor.dim() else 1
    value = float(tensor[tuple(where)]) if tensor.dim() else float(tensor)
    return [Hole(name, place, where[0], tuple(where[1:]), value, int(bad.sum()), samples)]


def _is_mask(tensor: torch.Tensor, bad: torch.Tensor) -> bool:
    """Whether it holds nothing but 0 and minus infinity, as masks do that are added to attention."""
    return bool((torch.isneginf(tensor) | (tensor == 0)).all())


def _is_taken_care_of(look: Look, holes: list[Hole]) -> bool:
    """Whether the step copes with them: its loss and gradients stay finite on such a batch, or it asks for them."""
    seen = [look.traces[hole.batch] for hole in holes if hole.batch < len(look.traces)]
    if look.bench is not None and not seen:
        with look.bench.fresh():
            seen = [look.bench.trace(look.batches[holes[0].batch])]
    if seen:
        return all(_stays_finite(trace) for trace in seen)
    return _is_cured(look.trace, holes)


def _stays_finite(trace: StepTrace) -> bool:
    values = [backward.value for backward in trace.backwards] or [math.nan if trace.loss is None else trace.loss]
    norms = [norm for update in trace.updates for norm in update.norms.values()]
    return trace.error is None and all(math.isfinite(value) for value in (*values, *norms))


def _is_cured(trace: StepTrace, holes: list[Hole]) -> bool:
    """Whether the step looks for such values in all of these tensors."""
    cured: set[str] = set()
    for call in trace.calls:
        if call.name in CURES or (call.name in WITH_ITSELF and len(call.inputs) == 2 and len(set(call.inputs)) == 1):
            for number in call.inputs:
                origin, _ = trace.origin(number, call.index)
                cured.add(trace.values[origin].source if origin in trace.values else "")
    return all(hole.name in cured for hole in holes) or (not trace.has_calls and _stays_finite(trace))


def _tell(look: Look, say: Say, holes: list[Hole], split: str) -> None:
    first = holes[0]
    count, samples = sum(hole.count for hole in holes), sum(hole.samples for hole in holes)
    what = "input" if first.name in look.data.inputs else "target"
    word = "NaN" if math.isnan(first.value) else f"{first.value:g}"
    at = (
        f", at {list(first.feature)}"
        if len(first.feature) > 1
        else f", feature {first.feature[0]}"
        if first.feature
        else ""
    )
    training = split == "training"
    say.find(
        Cause.NAN_IN_DATA,
        Severity.CRITICAL if training else Severity.WARNING,
        f"The {split} data hold values like {word}",
        f"{count:,} values in {samples:,} of the samples seen are not finite; the first is {word} in the {what} "
        f"{first.name} of batch {first.batch}, sample {first.sample}{at}. "
        + (
            "The loss of such a batch is not finite either, and one update with it makes the weights NaN for good."
            if training
            else "What is measured on the validation data will not be a number."
        ),
        remedies=(
            Remedy(
                "Leave such samples out, or fill the gaps (with the feature's median, and a column that says so); look "
                "for divisions by 0 and logarithms of 0 where the data are prepared.",
                code=f"keep = torch.isfinite({'x' if what == 'input' else 'y'}.flatten(1)).all(1)",
            ),
        ),
    )


CHECK = Check(
    "nan_in_data",
    "inputs and targets are finite",
    judge,
    (Cause.NAN_IN_DATA,),
    parameters=(Parameter(COUNT, 0, "values that are not finite and are no alarm yet", 0),),
    source="Slavv, 37 reasons why your neural network is not working: check the input data, NaN among them",
)
