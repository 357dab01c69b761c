"""Samples of large tensors that do not line up with their layout. Pure; draws no global random numbers.

A tensor of n elements in memory order is cut into ``SAMPLE_SIZE`` stretches of equal length, and of each one element is
taken at a place that is random but fixed for that n; the places move on a little from step to step. So no column,
channel or unit is seen more often than its share, whatever the layout (a regular stride would see one column only).
The standard error of a share p is at most sqrt(p (1 - p) / SAMPLE_SIZE), that of a mean std / sqrt(SAMPLE_SIZE).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

SAMPLE_SIZE = 4096
MOST_PLACES = 512
SETS = 8
STRIDE_OF_TURNS = 7919


class Places:
    """Where samples are taken, by the number of elements and device; remembered, as making them takes a while."""

    def __init__(self, size: int = SAMPLE_SIZE) -> None:
        self.size = size
        self._known: dict[tuple[int, int, torch.device], torch.Tensor] = {}

    def take(self, flat: torch.Tensor, turn: int) -> torch.Tensor:
        """The sample as a view where all elements are taken, else gathered: ``(min(n, size),)``, of the same type."""
        count = flat.numel()
        return flat if count <= self.size else torch.index_select(flat, 0, self._places(flat, count, turn))

    def take_into(self, out: torch.Tensor, flat: torch.Tensor, turn: int) -> None:
        """The same, written into ``out`` ``(min(n, size),)``, converted to its type."""
        count = flat.numel()
        if count <= self.size:
            out.copy_(flat)
        elif flat.dtype is out.dtype:
            torch.index_select(flat, 0, self._places(flat, count, turn), out=out)
        else:
            out.copy_(torch.index_select(flat, 0, self._places(flat, count, turn)))

    def _places(self, flat: torch.Tensor, count: int, turn: int) -> torch.Tensor:
        """One of a few sets of places, in turn."""
        slack = count // self.size
        shift = turn * STRIDE_OF_TURNS % slack
        key = (count, turn % SETS, flat.device)
        places = self._known.get(key)
        if places is None:
            if len(self._known) >= MOST_PLACES:
                self._known.clear()
            shifted = torch.from_numpy(jittered(count, self.size) + shift)
            places = self._known[key] = shifted.to(flat.device)
        return places


def jittered(count: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """``size`` increasing places among the first ``count - count // size + 1``, one in each of as many stretches."""
    room = count - count // size + 1
    borders = np.linspace(0, room, size + 1)
    spread = np.random.Generator(np.random.PCG64(count)).random(size)
    places = np.floor(borders[:-1] + spread * np.diff(borders)).astype(np.int64)
    return np.minimum(places, room - 1)


def flattened(tensor: torch.Tensor) -> torch.Tensor:
    """The elements in memory order, one-dimensional; a view where the memory is dense. Complex as pairs of reals."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.is_contiguous():
        return tensor.view(-1)
    order = sorted(range(tensor.dim()), key=lambda axis: -int(tensor.stride()[axis]))
    return tensor.permute(order).reshape(-1)


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first floating-point tensor in a module's output: itself, or within a tuple, list, mapping or dataclass."""
    if isinstance(output, torch.Tensor):
        usable = output.is_floating_point() or output.is_complex()
        return output if usable and not output.is_sparse and output.numel() else None
    if isinstance(output, dict):
        parts: Any = output.values()
    elif isinstance(output, (tuple, list)):
        parts = output
    else:
        parts = vars(output).values() if hasattr(output, "__dict__") else ()
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)
