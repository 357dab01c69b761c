"""Exact reductions of many tensors at once: norms, sums and maxima of absolute values. Nothing reaches the host.

Accumulated in float32 at least. Training thread only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SMALL = 1 << 13
LARGEST_KEPT = 1 << 24
HALF = (torch.float16, torch.bfloat16)


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor: itself, or the values of a sparse one with repeated indices summed."""
    tensor = tensor.detach()
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def norms(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The 2-norm of each, as real 0-d tensors on their devices."""
    found = list(tensors)
    for kind, indices in _by_kind(tensors).items():
        group = [tensors[i] for i in indices]
        wide = torch.float32 if kind[0] in HALF else None
        for i, norm in zip(indices, torch._foreach_norm(group, 2.0, dtype=wide), strict=True):
            found[i] = norm.abs() if norm.is_complex() else norm
    return found


class Magnitudes:
    """Σ|x| and max|x| of many tensors. Large ones are taken one after the other through memory that is kept."""

    def __init__(self) -> None:
        self._scratch: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    @property
    def size_bytes(self) -> int:
        """What is kept."""
        return sum(scratch.nbytes for scratch in self._scratch.values())

    def of(self, tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Σ|x| and max|x| of each, as real 0-d tensors on their devices; none of them may be empty."""
        sums, largest = list(tensors), list(tensors)
        for kind, indices in _by_kind(tensors).items():
            wide = torch.float32 if kind[0] in HALF else None
            small = [i for i in indices if tensors[i].numel() <= SMALL]
            if small:
                absolute = torch._foreach_abs([tensors[i] for i in small])
                for i, values, most in zip(small, absolute, torch._foreach_max(absolute), strict=True):
                    sums[i], largest[i] = values.sum(dtype=wide), most
            for i in indices:
                if tensors[i].numel() > SMALL:
                    values = self._absolute(tensors[i])
                    sums[i], largest[i] = values.sum(dtype=wide), values.amax()
        return sums, largest

    def _absolute(self, tensor: torch.Tensor) -> torch.Tensor:
        count = tensor.numel()
        if tensor.is_complex() or count > LARGEST_KEPT or not tensor.is_contiguous():
            return tensor.abs()
        key = (tensor.dtype, tensor.device)
        scratch = self._scratch.get(key)
        if scratch is None or len(scratch) < count:
            scratch = self._scratch[key] = torch.empty(count, dtype=tensor.dtype, device=tensor.device)
        return torch.abs(tensor.view(-1), out=scratch[:count])


def together(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """0-d tensors as one, ``(n,)``, on the first one's device, in float64 where that is needed, else float32."""
    device = values[0].device
    wide = torch.float64 if any(v.dtype is torch.float64 for v in values) else torch.float32
    if all(v.device == device and v.dtype is wide for v in values):
        return torch.stack(list(values))
    return torch.stack([v.to(device, wide) for v in values])


def _by_kind(tensors: Sequence[torch.Tensor]) -> dict[tuple[torch.dtype, torch.device], list[int]]:
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for index, tensor in enumerate(tensors):
        kinds.setdefault((tensor.dtype, tensor.device), []).append(index)
    return kinds
