"""The batches' tensors by what they are for, put together over batches. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.records.errors import ConfigurationError
from nbdebug.training.batches import split

BATCH = "batch"


@dataclass(slots=True)
class Data:
    """Tensors by their way in a batch, such as ``batch[0]``; along the first dimension all samples seen.

    ``inputs`` reach the network, ``targets`` the loss and not the network, what the main loss compares with first;
    ``val_inputs`` and ``val_targets`` are those of the validation loader. ``sizes`` are the batches' numbers of
    samples. Sequences of differing length are cut to the shortest, and named in ``cut``.
    """

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    targets: dict[str, torch.Tensor] = field(default_factory=dict)
    val_inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    val_targets: dict[str, torch.Tensor] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    cut: tuple[str, ...] = ()

    @classmethod
    def of(cls, batches: Sequence[Any], validation: Sequence[Any], trace: StepTrace | None) -> Data:
        """Put together what these batches hold; the trace tells what reaches the network, and what the loss."""
        if not batches:
            return cls()
        inputs, targets = roles(batches[0], trace)
        made = cls()
        together, cut = _together(batches)
        made.cut = cut
        beside, _ = _together(validation)
        made.inputs, made.val_inputs = _named(together, inputs), _named(beside, inputs)
        made.targets, made.val_targets = _named(together, targets), _named(beside, targets)
        first = next(iter(made.targets or made.inputs), None)
        for batch in batches:
            found = dict(leaves(batch))
            tensor = found.get(first) if first is not None else None
            made.sizes.append(len(tensor) if tensor is not None and tensor.dim() else 1)
        return made

    @property
    def input(self) -> torch.Tensor | None:
        """The first input; ``None`` if there is none."""
        return next(iter(self.inputs.values()), None)

    @property
    def target(self) -> torch.Tensor | None:
        """The first target; ``None`` if there is none."""
        return next(iter(self.targets.values()), None)


def roles(batch: Any, trace: StepTrace | None) -> tuple[list[str], list[str]]:
    """The ways of the tensors in a batch that reach the network, and of those that only the loss works on.

    What the main loss compares with comes first among the latter.
    """
    names = [name for name, _ in leaves(batch, BATCH)]
    if trace is not None and trace.models and trace.has_calls:
        reach = {name for call in trace.models for number in call.inputs for name in _of_batch(trace, number)}
        inputs = [name for name in names if name in reach] or _of_the_same_shape(batch, trace)
        compared = _compared(trace)
        worked_on = {name for backward in trace.backwards for name in _of_batch(trace, backward.number)} | set(compared)
        targets = [name for name in (*compared, *names) if name in worked_on and name not in inputs]
        return inputs, list(dict.fromkeys(targets)) or _given_as_target(batch, inputs)
    try:
        given, _ = split(batch)
    except ConfigurationError:
        return names[:1], names[1:2]
    mine = {id(tensor) for _, tensor in leaves(given)}
    inputs = [name for name, tensor in leaves(batch, BATCH) if id(tensor) in mine]
    return inputs, [name for name in names if name not in inputs]


def _compared(trace: StepTrace) -> list[str]:
    """The ways of what losses compare with, those of the main loss first."""
    main = trace.main_loss or trace.failed_loss
    losses = [*([main] if main is not None else []), *trace.losses]
    numbers = [number for loss in losses for number in (loss.target_number, loss.input_number) if number]
    return list(dict.fromkeys(name for number in numbers for name in sorted(_of_batch(trace, number))))


def _of_the_same_shape(batch: Any, trace: StepTrace) -> list[str]:
    """Where no way to the network was seen, as through numpy: what looks like what it was given."""
    shapes = {tensor.shape for call in trace.models for _, tensor in leaves((call.args, call.kwargs))}
    try:
        given, _ = split(batch)
    except ConfigurationError:
        return []
    mine = {id(tensor) for _, tensor in leaves(given)}
    return [name for name, tensor in leaves(batch, BATCH) if id(tensor) in mine and tensor.shape in shapes]


def _given_as_target(batch: Any, inputs: list[str]) -> list[str]:
    """Where the loss was not seen: the second half of a pair."""
    try:
        _, target = split(batch)
    except ConfigurationError:
        return []
    mine = {id(tensor) for _, tensor in leaves(target)}
    return [name for name, tensor in leaves(batch, BATCH) if id(tensor) in mine and name not in inputs]


def _of_batch(trace: StepTrace, number: int) -> set[str]:
    return {source for source in trace.sources(number) if source.startswith(BATCH)}


def _named(tensors: dict[str, torch.Tensor], names: list[str]) -> dict[str, torch.Tensor]:
    return {name: tensors[name] for name in names if name in tensors}


def _together(batches: Sequence[Any]) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    found: dict[str, list[torch.Tensor]] = {}
    for batch in batches:
        for name, tensor in leaves(batch, BATCH):
            if tensor.layout is torch.strided:
                found.setdefault(name, []).append(tensor.detach())
    joined = {name: _joined(parts) for name, parts in found.items()}
    cut = tuple(name for name, (_, is_cut) in joined.items() if is_cut)
    return {name: tensor for name, (tensor, _) in joined.items()}, cut


def _joined(parts: list[torch.Tensor]) -> tuple[torch.Tensor, bool]:
    """Along the samples; parts of another number of dimensions are left out, longer ones are cut."""
    parts = [part for part in parts if part.dim() == parts[0].dim()]
    if not parts[0].dim():
        return torch.stack(parts), False
    shapes = [part.shape[1:] for part in parts]
    shortest = [min(sizes) for sizes in zip(*shapes, strict=True)] if shapes[0] else []
    is_cut = any(list(shape) != shortest for shape in shapes)
    if is_cut:
        window = tuple(slice(0, size) for size in shortest)
        parts = [part[(slice(None), *window)] for part in parts]
    return torch.cat(parts), is_cut
