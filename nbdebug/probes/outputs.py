"""What can be read of a module's inputs and outputs: the tensors in them, and why one can't be read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from nbdebug.probes.sampling import flattened

PLAIN = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})
DEPTH = 4
MOST_TENSORS = 64
MOST_VALUES = 256


def named_tensors(value: Any, name: str) -> list[tuple[str, torch.Tensor]]:
    """The tensors in tuples, lists, mappings and objects, named by place or key; the first of a sequence plainly.

    Not deeper than ``DEPTH``, and none beyond ``MOST_VALUES`` values: a batch may carry long lists of plain numbers.
    """
    found: list[tuple[str, torch.Tensor]] = []
    waiting = [(value, name, DEPTH)]
    visited = 0
    while waiting and visited < MOST_VALUES:
        value, name, depth = waiting.pop()
        visited += 1
        if isinstance(value, torch.Tensor):
            found.append((name, value))
        elif depth:
            parts = list(islice(_parts(value), MOST_TENSORS))
            waiting += [(part, f"{name}.{key}" if key else name, depth - 1) for key, part in reversed(parts)]
    return found


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, (tuple, list)):
        yield from ((str(place) if place else "", part) for place, part in enumerate(value[:MOST_TENSORS]))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name, None)) for field in fields(value))
    elif hasattr(value, "__dict__") and not isinstance(value, (type, torch.nn.Module)):
        yield from ((key, part) for key, part in vars(value).items())


def first_readable(output: Any) -> torch.Tensor | str:
    """The first tensor that :func:`why_unreadable` has nothing against, plain; else why there is none."""
    if type(output) is torch.Tensor:
        tensor = plain(output)
        return why_unreadable(tensor) or tensor
    why = ""
    for _, found in named_tensors(output, ""):
        tensor = plain(found)
        reason = why_unreadable(tensor)
        if not reason:
            return tensor
        why = why or reason
    return why or "its output holds no tensor"


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a plain tensor in memory order, one-dimensional; a view where the memory is dense."""
    return tensor.view(-1) if tensor.is_contiguous() and not tensor.is_complex() else flattened(tensor)


def size_bytes(output: Any) -> int:
    """What the tensors of an output take; 0 for those that can't be read."""
    if type(output) is torch.Tensor:
        return int(output.nbytes) if output.layout is torch.strided else 0
    tensors = {id(tensor): tensor for _, tensor in named_tensors(output, "")}
    return sum(int(t.nbytes) for t in tensors.values() if t.layout is torch.strided and not t.is_nested)


def why_unreadable(tensor: torch.Tensor, *, integers: bool = False) -> str:
    """Why no statistics of a tensor's values can be taken, empty when they can; ``integers`` may be allowed."""
    is_usual = tensor.dtype in PLAIN and type(tensor) is torch.Tensor and tensor.layout is torch.strided
    if is_usual and not tensor.is_nested and not tensor.is_meta and tensor.numel():  # all the rest takes longer
        return ""
    if tensor.is_quantized:
        return f"its output is quantized ({tensor.dtype})"
    if not integers and not (tensor.is_floating_point() or tensor.is_complex()):
        return f"its output holds integers ({tensor.dtype})"
    if tensor.is_nested:
        return "its output is a nested tensor"
    if tensor.layout is not torch.strided:
        return f"its output is not dense ({tensor.layout})"
    if tensor.is_meta:
        return "its output is on the meta device, without values"
    if tensor.is_floating_point() and tensor.itemsize < 2:
        return f"its output is quantized ({tensor.dtype})"
    if is_traceable_wrapper_subclass(tensor) or type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"its output is a {type(tensor).__name__}, whose values are elsewhere"
    return "" if tensor.numel() else "its output was empty"


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The values without graph and without the wrappers of ``torch.func``; under ``vmap`` those of the whole batch."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.detach()
