"""A data set that is read on the side stays as it was: its fields, counters, caches and generators. Training thread.

What is large, such as the data itself, is taken to be only read.
"""

from __future__ import annotations

import random
import types
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from nbdebug.training.data import generator_state, set_generator

DEPTH = 6
MOST_ITEMS = 100_000  # of a list or mapping whose contents are kept
MOST_SEARCHED = 256  # of them that are looked into
MOST_BYTES = 1_000_000  # of a tensor or an array that might be a counter
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
PLAIN = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, types.FunctionType)


class _Kept:
    """What can be reached from some objects, some steps deep, and how it was."""

    def __init__(self, roots: tuple[Any, ...]) -> None:
        self._containers: list[tuple[Any, Any]] = []
        self._values: list[tuple[Any, Any]] = []
        self._generators: list[tuple[Any, Any]] = []
        self._seen: dict[int, Any] = {}
        for root in roots:
            self._keep(root, DEPTH)

    def _keep(self, value: Any, depth: int) -> None:
        if isinstance(value, PLAIN) or id(value) in self._seen or not depth:
            return
        self._seen[id(value)] = value
        if isinstance(value, GENERATORS):
            self._generators.append((value, generator_state(value)))
        elif isinstance(value, (torch.Tensor, np.ndarray)):
            self._keep_numbers(value)
        elif isinstance(value, (dict, list, set, deque)):
            self._keep_container(value, depth)
        elif isinstance(value, tuple):
            for part in value[:MOST_SEARCHED]:
                self._keep(part, depth - 1)
        elif isinstance(getattr(value, "__dict__", None), dict):
            self._keep_container(value.__dict__, depth)

    def _keep_numbers(self, value: Any) -> None:
        plain = isinstance(value, np.ndarray) or (value.layout is torch.strided and not value.is_meta)
        if plain and value.nbytes <= MOST_BYTES:
            self._values.append((value, value.copy() if isinstance(value, np.ndarray) else value.detach().clone()))

    def _keep_container(self, value: Any, depth: int) -> None:
        if len(value) <= MOST_ITEMS:
            self._containers.append((value, value.copy()))
        parts = value.values() if isinstance(value, dict) else value
        for _, part in zip(range(MOST_SEARCHED), list(parts) if len(value) <= MOST_SEARCHED else parts, strict=False):
            self._keep(part, depth - 1)

    def put_back(self) -> None:
        """As it was; what was left alone is not written to."""
        for container, before in self._containers:
            if _differ(container, before):
                container.clear()
                (container.update if isinstance(container, (dict, set)) else container.extend)(before)
        for value, before in self._values:
            with torch.no_grad():
                if isinstance(value, np.ndarray):
                    value[...] = before
                elif not torch.equal(value, before):
                    value.copy_(before)
        for source, state in self._generators:
            set_generator(source, state)


def _differ(container: Any, before: Any) -> bool:
    if len(container) != len(before):
        return True
    if isinstance(container, dict):
        return any(a is not b for a, b in zip(container, before, strict=True)) or any(
            a is not b for a, b in zip(container.values(), before.values(), strict=True)
        )
    return any(a is not b for a, b in zip(container, before, strict=True))


@contextmanager
def unmoved(*roots: Any) -> Iterator[None]:
    """Within, data may be read; afterwards what is read from holds what it held."""
    kept = _Kept(roots)
    try:
        yield
    finally:
        kept.put_back()
