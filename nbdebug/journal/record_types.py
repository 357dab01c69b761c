"""Whether the fields of a record that was read are of the types that they should be. Pure; any thread."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np


def refuse_wrong_types(record: Any) -> None:
    """Raise ``TypeError`` where a field of a record, such as a run's step, is not of its declared type."""
    kind: Any = type(record)
    for name, hint in _hints(kind).items():
        value = getattr(record, name)
        if not _fits(value, hint):
            raise TypeError(f"{type(record).__name__}.{name} is {str(value)[:60]!r}, not of {hint}")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind) if is_dataclass(kind) else {}


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        expected = parts[:1] * len(value) if parts[-1] is Ellipsis and isinstance(value, tuple) else parts
        return (
            isinstance(value, tuple)
            and len(value) == len(expected)
            and all(_fits(part, each) for part, each in zip(value, expected, strict=True))
        )
    if origin is np.ndarray:
        return isinstance(value, np.ndarray)
    if origin is not None:
        return isinstance(value, Mapping if origin is not dict else dict)
    if hint is float:
        return isinstance(value, (float, int)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
