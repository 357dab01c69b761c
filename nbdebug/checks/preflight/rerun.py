"""Calls a network again, in evaluation mode, on what a step gave it or on something near to that.

Only within :meth:`Bench.fresh`, which puts all back. Training thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, default_collate

from nbdebug.checks.check import Skip
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import ModelCall
from nbdebug.training.aside import copied
from nbdebug.training.modules import Model, named_modules, roots

MOST_KEPT = 20_000_000  # elements of layers' outputs
SEED = 1


@dataclass(slots=True)
class Outcome:
    """What a call gave: its float outputs, and those of layers without children, in order."""

    outputs: list[torch.Tensor]
    layers: list[tuple[str, torch.Tensor]] = field(default_factory=list)


@dataclass(slots=True)
class Rerun:
    """A network's call, to be made again. ``axes`` says along which dimension each tensor argument has its samples."""

    look: Look
    call: ModelCall
    samples: int
    axes: dict[str, int]

    @property
    def root(self) -> nn.Module:
        """The network."""
        return roots(self.look.model)[self.call.root]

    def arguments(self) -> dict[str, torch.Tensor]:
        """The tensors with samples, by their way in the arguments."""
        return {name: tensor for name, tensor in leaves((self.call.args, self.call.kwargs), "") if name in self.axes}

    def _called(self, args: Any, kwargs: Any) -> Any:
        try:
            return self.root(*args, **kwargs)
        except Exception as error:  # the user's model may ask for sorted lengths, or for its training mode
            raise Skip(f"the network can't be called like that again ({type(error).__name__}: {error})") from error

    def run(self, changed: Mapping[str, torch.Tensor] | None = None, *, layers: bool = False) -> Outcome:
        """Call it, with these arguments instead of their own."""
        args, kwargs = _with((copied(self.call.args), copied(self.call.kwargs)), dict(changed or {}), "")
        kept: list[tuple[str, torch.Tensor]] = []
        with torch.no_grad(), torch.random.fork_rng(), _listening(self.look, kept if layers else None):
            torch.manual_seed(SEED)
            output = self._called(args, kwargs)
        floats = [tensor.detach().float() for _, tensor in leaves(output) if tensor.is_floating_point()]
        if not floats or not all(bool(torch.isfinite(each).all()) for each in floats):
            raise Skip("the network puts out no finite floating-point tensor")
        return Outcome(floats, kept)


@contextmanager
def rerunning(look: Look) -> Iterator[list[Rerun]]:
    """The networks' first calls of the first step, everything in evaluation mode; all is put back afterwards.

    Raises:
        Skip: no call can be made again, or not with the same result.
    """
    bench = look.experiments
    calls: dict[str, ModelCall] = {}
    for call in look.called.models:
        calls.setdefault(call.root, call)
    made = [rerun for call in calls.values() if (rerun := _rerun(look, call)) is not None]
    if not made:
        raise Skip("no network was called on a batch of several samples")
    with bench.fresh():
        for module in named_modules(look.model).values():
            module.training = False
        yield [rerun for rerun in made if _is_steady(rerun)]


def _is_steady(rerun: Rerun) -> bool:
    """Whether the same call gives the same twice: not so for what draws numbers of its own or keeps a state."""
    first, second = rerun.run(), rerun.run()
    return len(first.outputs) == len(second.outputs) and all(
        one.shape == other.shape and torch.equal(one, other)
        for one, other in zip(first.outputs, second.outputs, strict=True)
    )


def _rerun(look: Look, call: ModelCall) -> Rerun | None:
    if call.args is None or call.kwargs is None or not look.data.sizes:
        return None
    batch = dict(leaves(look.trace.batch)) if look.trace.batch is not None else {}
    samples = look.data.sizes[0]
    given = {name: tensor for name, tensor in leaves((call.args, call.kwargs), "") if tensor.dim()}
    axes = {name: axis for name, tensor in given.items() if (axis := _axis(tensor, batch, samples)) is not None}
    return Rerun(look, call, samples, axes) if axes and samples > 1 else None


def _axis(tensor: torch.Tensor, batch: Mapping[str, torch.Tensor], samples: int) -> int | None:
    """Where a tensor has its samples: where it has what the batch's first samples have; else in front."""
    for source in batch.values():
        if source.dim() and len(source) == samples and source.numel() == tensor.numel():
            for axis in range(tensor.dim()):
                if tensor.shape[axis] == samples and all(
                    _same(tensor, source, axis, place) for place in (0, samples - 1)
                ):
                    return axis
    return 0 if tensor.shape[0] == samples else None


def _same(tensor: torch.Tensor, source: torch.Tensor, axis: int, place: int) -> bool:
    one = tensor.select(axis, place).flatten().double().sort().values
    return torch.equal(one, source[place].flatten().double().sort().values.to(one.device))


def samples_come_first(look: Look) -> bool:
    """Whether batches certainly have their samples along the first dimension, rather than time."""
    loader = look.trainer.train_loader
    if isinstance(loader, DataLoader) and loader.collate_fn is default_collate and loader.batch_size is not None:
        return True
    tensors = [tensor for _, tensor in leaves(look.batches[0])] if look.batches else []
    count = look.data.sizes[0] if look.data.sizes else 0
    flat = any(each.dim() == 1 and len(each) == count for each in tensors)
    plain = any(each.is_floating_point() and each.dim() in (2, 4, 5) and len(each) == count for each in tensors)
    square = any(each.dim() > 1 and each.shape[0] == each.shape[1] for each in tensors)
    return ((flat or plain) and not square) or _first_by_size(look)


def _first_by_size(look: Look) -> bool:
    """Whether all tensors have the batch's size in front and nowhere else, told by several batches."""
    batches = [[each for _, each in leaves(batch) if each.dim()] for batch in look.batches]
    sizes = [tensors[0].shape[0] for tensors in batches if tensors]
    agree = all(each.shape[0] == size for tensors, size in zip(batches, sizes, strict=False) for each in tensors)
    if not sizes or len(sizes) < len(batches) or not agree or look.data.sizes[:1] != sizes[:1]:
        return False
    others = _second_sizes(batches)
    asked = _asked_for(look)
    if asked is not None:
        full = sizes[:-1] or sizes  # the last may be a smaller one
        return set(full) == {asked} and sizes[-1] <= asked and all(each != {asked} for each in others)
    tokens = any(not each.is_floating_point() and each.dim() == 2 for each in batches[0])
    return tokens and len(set(sizes)) == 1 and all(len(each) > 1 for each in others)


def _second_sizes(batches: list[list[torch.Tensor]]) -> list[set[int]]:
    """For each place in a batch, the sizes of the second dimension over batches."""
    found: dict[int, set[int]] = {}
    for tensors in batches:
        for place, tensor in enumerate(tensors):
            if tensor.dim() > 1:
                found.setdefault(place, set()).add(tensor.shape[1])
    return list(found.values())


def _asked_for(look: Look) -> int | None:
    """How many samples the loader was asked to put in a batch."""
    loader = look.trainer.train_loader
    for holder in (loader, getattr(loader, "batch_sampler", None)):
        size = getattr(holder, "batch_size", None)
        if isinstance(size, int) and not isinstance(size, bool) and size > 1:
            return size
    return None


def _with(value: Any, changed: dict[str, torch.Tensor], name: str) -> Any:
    """The same arguments, with some tensors replaced."""
    if isinstance(value, torch.Tensor):
        return changed.get(name, value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_with(part, changed, f"{name}[{i}]") for i, part in enumerate(value)))
    if isinstance(value, (tuple, list)):
        return type(value)(_with(part, changed, f"{name}[{i}]") for i, part in enumerate(value))
    if isinstance(value, dict):
        return {key: _with(part, changed, f"{name}[{key!r}]") for key, part in value.items()}
    return value


@contextmanager
def _listening(look: Look, kept: list[tuple[str, torch.Tensor]] | None) -> Iterator[None]:
    """Copies of what layers without children put out."""
    handles = []
    left = [MOST_KEPT]

    def listen(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first = next((tensor for _, tensor in leaves(output) if tensor.is_floating_point()), None)
            if first is not None and first.numel() <= left[0] and kept is not None:
                left[0] -= first.numel()
                kept.append((name, first.detach().float().clone()))

        handles.append(module.register_forward_hook(hook))

    try:
        for name, module in look.modules.items() if kept is not None else ():
            if not any(True for _ in module.children()) and not isinstance(module, torch.jit.ScriptModule):
                listen(name, module)
        yield
    finally:
        for handle in handles:
            handle.remove()


def wake_zeros(model: Model) -> None:
    """Give weights that are all zero, such as gates and last layers, small ones. Only within an experiment."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for module in named_modules(model).values():
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point() and parameter.numel() and not bool(torch.any(parameter)):
                    noise = torch.randn(parameter.shape, generator=generator) * 0.05
                    parameter.copy_(noise.to(parameter))


def changes(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """The largest change of any output, relative to the outputs' own size."""
    most = 0.0
    for one, other in zip(before, after, strict=True):
        size = float(one.abs().max()) if one.numel() else 0.0
        if one.shape == other.shape and size > 0:
            most = max(most, float((one - other).abs().max()) / size)
        elif one.shape == other.shape and one.numel():
            most = max(most, float(other.abs().max() > 0))
    return most
