"""What a layer's name or pattern stands for. Pure; exported scripts use the same."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any


def covered(modules: Mapping[str, Any], name: str) -> list[list[Any]]:
    """The parameters of a layer together, or of each that matches a pattern; tied ones with the first of them."""
    if name in modules:
        return [list(modules[name].parameters())]
    found: list[list[Any]] = []
    seen: set[int] = set()
    for layer, module in modules.items():
        if layer and fnmatchcase(layer, name):
            own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
            seen.update(map(id, own))
            found.append(own)
    return [own for own in found if own]
