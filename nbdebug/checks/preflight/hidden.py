"""What learns and that a model does not know of: tensors and modules in plain lists, dicts and attributes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from nbdebug.training.modules import Model, named_modules, named_parameters

DEEPEST, MOST = 3, 1_000
OF_MODULES = frozenset(vars(nn.Module()))


def hidden_tensors(model: Model) -> dict[str, torch.Tensor]:
    """Learning leaf tensors that modules keep where ``parameters()`` does not look, by the way to them."""
    known = {id(parameter) for parameter in named_parameters(model).values()}
    modules = named_modules(model)
    inside = {id(module) for module in modules.values()}
    found: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        for key, value in vars(module).items():
            if key not in OF_MODULES:
                for way, tensor in _within(value, f"{name}.{key}".lstrip("."), inside, DEEPEST):
                    if id(tensor) not in known:
                        known.add(id(tensor))
                        found[way] = tensor
    return found


def _within(value: Any, way: str, inside: set[int], depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if value.requires_grad and value.is_leaf:
            yield way, value
    elif isinstance(value, nn.Module):
        if id(value) not in inside:
            yield from ((f"{way}.{name}", parameter) for name, parameter in value.named_parameters())
    elif depth and isinstance(value, Mapping) and len(value) <= MOST:
        for key, part in value.items():
            yield from _within(part, f"{way}[{key!r}]", inside, depth - 1)
    elif depth and isinstance(value, (list, tuple)) and len(value) <= MOST:
        for place, part in enumerate(value):
            yield from _within(part, f"{way}[{place}]", inside, depth - 1)
