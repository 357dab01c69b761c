"""Counts array operations: ufuncs, as operators too, numpy's functions, and indexing, by whatever name they are called.

An array of this kind makes whatever is computed from it one, so that a chain is followed to its end. What leaves the
chain by ``np.array`` of plain numbers is seen by :func:`calls`, which counts entries into numpy itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import FrameType
from typing import Any

import numpy as np


class Counted(np.ndarray[Any, Any]):
    """An array that counts what is done with it."""

    operations = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        Counted.operations += 1
        if "out" in options:
            options["out"] = tuple(plain(each) for each in options["out"])
        return counted(getattr(ufunc, method)(*(plain(each) for each in inputs), **options))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        Counted.operations += 1
        return counted(function(*plain(args), **plain(kwargs)))

    def __getitem__(self, key: Any) -> Any:
        Counted.operations += 1
        return super().__getitem__(plain(key))


def plain(value: Any) -> Any:
    """Without counting."""
    if isinstance(value, Counted):
        return value.view(np.ndarray)
    if isinstance(value, (tuple, list)):
        return type(value)(plain(each) for each in value)
    return {key: plain(each) for key, each in value.items()} if isinstance(value, dict) else value


def counted(value: Any) -> Any:
    """The same with arrays that count, in dataclasses and mappings too."""
    if isinstance(value, np.ndarray):
        return value.view(Counted)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: counted(getattr(value, each.name)) for each in fields(value)})
    if isinstance(value, Mapping):
        return {key: counted(each) for key, each in value.items()}
    return type(value)(counted(each) for each in value) if type(value) in (tuple, list) else value


def operations(action: Callable[[], object]) -> int:
    """How many operations on counted arrays it makes."""
    before = Counted.operations
    action()
    return Counted.operations - before


def calls(action: Callable[[], object]) -> int:
    """How often Python enters numpy, or a method of an array, meanwhile."""
    count = 0

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        if event == "call":
            count += "numpy" in frame.f_code.co_filename
        elif event == "c_call":
            owner = getattr(argument, "__self__", None)
            count += isinstance(owner, (np.ndarray, np.ufunc)) or "numpy" in (getattr(argument, "__module__", "") or "")

    sys.setprofile(watch)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count
