"""The tensors within a batch or whatever else holds tensors, by their way in it, and copies of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from nbdebug.training.aside import copied

MOST_KEPT = 4_000_000  # elements of a loss's input or of a network's
MOST_PARTS = 200


def leaves(value: Any, name: str = "batch") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a batch (or whatever holds tensors), each with the way to it, such as ``batch['x']``."""
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    if isinstance(value, Mapping):
        parts = [(f"[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, (tuple, list)):
        parts = [(f"[{index}]", part) for index, part in enumerate(value)]
    elif hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)):
        parts = [(f".{key}", part) for key, part in vars(value).items() if not key.startswith("_")]
    else:
        return
    for way, part in parts[:MOST_PARTS]:
        yield from leaves(part, name + way)


def kept(value: Any) -> Any:
    """A copy, or ``None`` of what is too large."""
    size = sum(tensor.numel() for _, tensor in leaves(value))
    return copied(value) if size <= MOST_KEPT else None


def first_part(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor; of a large one, of as many of the first samples as may be kept."""
    tensor = tensor.detach()
    if tensor.numel() > MOST_KEPT and tensor.dim():
        tensor = tensor[: max(1, MOST_KEPT * tensor.shape[0] // tensor.numel())]
    return tensor.clone()


def plain(value: Any) -> Any:
    """An argument that is no tensor, if it is plain; else its type's name."""
    if isinstance(value, (int, float, bool, str, type(None), slice, torch.dtype)):
        return value
    if isinstance(value, (tuple, list)) and len(value) < 20:
        return tuple(plain(part) for part in value)
    return type(value).__name__
