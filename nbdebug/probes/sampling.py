"""Samples of large tensors that do not line up with their layout."""

from __future__ import annotations

import math
from typing import Any

import torch

SAMPLE_SIZE = 4096


def strided_sample(tensor: torch.Tensor, turn: int, size: int = SAMPLE_SIZE) -> torch.Tensor:
    """About ``size`` of the tensor's elements (all of a smaller one) as a new 1-d float tensor.

    The stride is coprime with every dimension, so that no column, channel or unit is seen more than its share, and the
    first element moves with ``turn``. No random numbers are drawn. The sampling error of a share p is about
    sqrt(p (1 - p) / size).
    """
    flat = _flat(tensor.detach())
    stride = _stride(flat.numel(), tuple(tensor.shape), size)
    chosen = flat[turn * 7919 % stride :: stride][:size]
    return chosen.to(torch.float32, copy=True)


def _stride(count: int, shape: tuple[int, ...], size: int) -> int:
    if count <= size:
        return 1
    stride = count // size
    while any(math.gcd(stride, extent) > 1 for extent in shape if extent > 1):
        stride += 1
    return stride


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The elements in memory order; a view where the memory is dense."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
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
