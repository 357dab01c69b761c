"""What a step takes in memory at another batch size, from one at the present size and one at half. Training thread.

On CUDA it is the peak of torch's allocator, whose own record of the peak is begun anew by this. On the CPU there is no
such record: what autograd keeps for the backward pass is counted, which is the part that grows with the batch.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from nbdebug.records.errors import CommandError
from nbdebug.records.forecast import MemoryForecast
from nbdebug.training import batches
from nbdebug.training.aside import aside, batch_of_its_own, take_step
from nbdebug.training.data import Held
from nbdebug.training.modules import named_parameters

if TYPE_CHECKING:
    from nbdebug.training.session import Session

FEWEST = 4  # samples: half of them must be more than one, for a batch norm
ON_CUDA = "peak of the CUDA allocator"
ON_CPU = "kept for the backward pass; on the CPU parameters, gradients and the optimizer's state come on top"


def foretell_memory(session: Session, held: Held, batch_size: int) -> MemoryForecast:
    """The memory of a step with so many samples, as a straight line through two that are measured.

    Raises:
        CommandError: the batch is too small, or is none that can be cut in half.
    """
    now = batches.samples(held.batch, None)
    if now < FEWEST:
        raise CommandError(f"memory can't be foretold from a batch of {now}: it takes {FEWEST} samples, to halve them")
    half = now // 2
    less, more = (_measured(session, held, size, now) for size in (half, now))
    slope = max(more - less, 0) / (now - half)
    device = session.loop.device
    total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 0
    size_bytes = round(max(more + slope * (batch_size - now), 0))
    how = ON_CUDA if device.type == "cuda" else ON_CPU
    return MemoryForecast(batch_size, size_bytes, now, more, how, total)


def _measured(session: Session, held: Held, size: int, now: int) -> int:
    """The bytes of a step on so many of the batch's samples."""
    device = session.loop.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        resting = torch.cuda.memory_allocated(device)
    with aside(session, held):
        batch = first_of(batch_of_its_own(session, held), size, now)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            base = torch.cuda.memory_allocated(device)
            take_step(session, batch)
            torch.cuda.synchronize(device)
            return resting + torch.cuda.max_memory_allocated(device) - base
        kept = Kept({each.untyped_storage().data_ptr() for each in named_parameters(session.model).values()})
        with saved_tensors_hooks(kept.pack, kept.unpack):
            take_step(session, batch)
        return kept.peak


class Kept:
    """How many bytes autograd keeps at most: each storage once, but for those of ``known`` addresses."""

    def __init__(self, known: set[int]) -> None:
        self.peak = 0
        self._known = known
        self._now = 0
        self._uses: dict[int, int] = {}

    def pack(self, tensor: torch.Tensor) -> Any:
        """A tensor is kept from here on."""
        if tensor.layout is not torch.strided:
            return tensor
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._known:
            return tensor
        return _Holding(self, tensor, storage.data_ptr(), storage.nbytes())

    def unpack(self, held: Any) -> torch.Tensor:
        """The same tensor."""
        found: torch.Tensor = held.tensor if isinstance(held, _Holding) else held
        return found

    def take(self, address: int, size: int) -> None:
        """Once more."""
        self._uses[address] = self._uses.get(address, 0) + 1
        self._now += size if self._uses[address] == 1 else 0
        self.peak = max(self.peak, self._now)

    def drop(self, address: int, size: int) -> None:
        """Once less."""
        self._uses[address] -= 1
        self._now -= size if not self._uses[address] else 0


class _Holding:
    """A tensor that autograd keeps; it goes when the graph lets go of it."""

    def __init__(self, kept: Kept, tensor: torch.Tensor, address: int, size: int) -> None:
        self.tensor = tensor
        self._kept, self._address, self._size = kept, address, size
        kept.take(address, size)

    def __del__(self) -> None:
        self._kept.drop(self._address, self._size)


def first_of(batch: Any, size: int, now: int) -> Any:
    """The batch with the first so many of its samples: of every tensor and list that is as long as it, in whatever.

    Raises:
        CommandError: nothing in it is.
    """
    cut = _Cut(size, now)
    made = cut.of(batch)
    if not cut.found:
        raise CommandError(f"memory can't be foretold: {batches.describe(batch)} can't be cut in half")
    return made


class _Cut:
    def __init__(self, size: int, now: int) -> None:
        self.size, self.now, self.found = size, now, False

    def of(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, (list, tuple)):
            return self._sequence(value)
        if isinstance(value, Mapping):
            made: Any = copy.copy(value)
            made.update({key: self.of(part) for key, part in value.items()})
            return made
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed = {each.name: self.of(getattr(value, each.name)) for each in dataclasses.fields(value) if each.init}
            return dataclasses.replace(value, **changed)
        return value

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        if not value.dim() or value.shape[0] != self.now:
            return value
        self.found = True
        return value[: self.size].detach().clone().requires_grad_(value.is_leaf and value.requires_grad)

    def _sequence(self, value: Any) -> Any:
        holds_tensors = any(isinstance(part, (torch.Tensor, Mapping, list, tuple)) for part in value)
        if len(value) == self.now and not holds_tensors:
            return value[: self.size]
        parts = [self.of(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
