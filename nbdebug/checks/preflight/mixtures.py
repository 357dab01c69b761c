"""Where data come to a layer side by side with what learns, as numbers beside embeddings of categories.

Such a mixture has a gradient, so it is no arrival of data alone; the columns that are data are found here. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from nbdebug.checks.preflight.arrivals import LINEAR
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Call, StepTrace

TAKING = {"linear": 0, "matmul": 0, "__matmul__": 0, "mm": 0, "addmm": 1, "lstm": 0, "gru": 0, "rnn_tanh": 0}
JOINS = frozenset({"cat", "concat", "concatenate", "hstack", "column_stack"})
SAME = frozenset(
    {"to", "float", "double", "contiguous", "clone", "detach", "type", "identity", "cpu", "cuda", "type_as"}
)


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a layer gets: ``values`` ``(rows, columns)`` are those of the data, ``places`` where in the layer's input.

    ``call`` is the layer's, ``names`` the ways in the batch, ``answer`` the root mean square of what it puts out.
    """

    call: Call
    values: torch.Tensor
    places: tuple[int, ...]
    names: frozenset[str]
    answer: float | None


def mixtures(look: Look) -> Iterator[Mixture]:
    """Every layer that takes data and what learns side by side, in order of the calls."""
    trace = look.called
    for call in trace.calls:
        place = TAKING.get(call.name)
        if place is None or place >= len(call.inputs):
            continue
        parts = list(_parts(look, trace, call.inputs[place], call.index, 0))
        rows = {len(values) for _, values, _ in parts}
        width = sum(values.shape[1] for _, values, _ in parts)
        if len(rows) == 1 and width < trace.values[call.inputs[place]].shape[-1]:
            yield Mixture(
                call,
                torch.cat([values.float() for _, values, _ in parts], 1),
                tuple(offset + each for offset, values, _ in parts for each in range(values.shape[1])),
                frozenset(name for _, _, name in parts),
                _answer(trace, call),
            )


def _parts(
    look: Look, trace: StepTrace, number: int, before: int, offset: int
) -> Iterator[tuple[int, torch.Tensor, str]]:
    """The data among what was joined along the last axis: place, values over all batches, name."""
    join = _join(trace, number, before)
    if join is None:
        return
    for each in join.inputs:
        shape = trace.values[each].shape
        width = shape[-1] if len(shape) > 1 else 1
        read = _read(look, trace, each, join.index)
        if read is not None and read[0].shape[1:] == (shape[1:] or ()):
            yield offset, read[0].reshape(-1, width), read[1]
        elif read is None:
            yield from _parts(look, trace, each, join.index, offset)
        offset += width


def _join(trace: StepTrace, number: int, before: int) -> Call | None:
    """The call that put tensors side by side along the features, if this is what it gave."""
    width = trace.values[number].shape[-1:]
    call = trace.producer(number, before)
    while call is not None and call.name in (*SAME, "dropout") and call.inputs:
        number, before = call.inputs[0], call.index
        call = trace.producer(number, before)
    if call is None or call.name not in JOINS or trace.values[number].shape[-1:] != width or not width:
        return None
    if call.name in ("hstack", "column_stack"):
        return call if len(trace.values[number].shape) == 2 else None
    axis = call.options.get("axis", call.option("dim", 1, 0))
    return call if axis in (-1, len(trace.values[number].shape) - 1) else None


def _read(look: Look, trace: StepTrace, number: int, before: int) -> tuple[torch.Tensor, str] | None:
    """A tensor of the batch, in another form or some of its columns, over all batches; ``None`` of anything else."""
    call = trace.producer(number, before)
    if call is None:
        name = trace.values[number].source
        found = look.data.inputs.get(name)
        return (found, name) if found is not None and name not in look.data.cut else None
    if call.name not in (*SAME, "unsqueeze", "__getitem__") or not call.inputs:
        return None
    given = _read(look, trace, call.inputs[0], call.index)
    if given is None or call.name in SAME:
        return given
    values, name = given
    if call.name == "unsqueeze":
        axis = call.option("dim", 0)
        return (values.unsqueeze(axis), name) if isinstance(axis, int) and axis else None
    index = _columns(call.rest[0] if call.rest and len(call.inputs) == 1 else None)
    return (values[index], name) if index is not None else None


def _columns(index: Any) -> tuple[Any, ...] | None:
    """An index that takes every sample, as one can use it again."""
    if not isinstance(index, tuple) or not index or index[0] != slice(None):
        return None
    parts = [list(part) if isinstance(part, tuple) else part for part in index]
    return tuple(parts) if all(isinstance(part, (slice, int, list, type(None))) for part in parts) else None


def _answer(trace: StepTrace, call: Call) -> float | None:
    """The root mean square of what a linear layer put out; ``None`` of others."""
    for layer in trace.layers:
        if layer.layer == call.layer and layer.kind.startswith(LINEAR):
            return float((layer.mean**2 + layer.deviation**2) ** 0.5)
    return None
