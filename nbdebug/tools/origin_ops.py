"""What an operation of torch reads and writes, by its schema. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

FILLERS = frozenset({
    "fill_", "zero_", "copy_", "normal_", "uniform_", "bernoulli_", "random_", "exponential_", "geometric_", "cauchy_",
    "log_normal_", "_foreach_copy_", "_foreach_zero_",
})  # fmt: skip
EMPTY = frozenset({
    "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_",
})  # fmt: skip
MOVERS = frozenset({
    "index_put_", "index_put", "_index_put_impl_", "scatter_", "scatter", "index_copy_", "index_copy", "index_fill_",
    "index_fill", "masked_fill_", "masked_fill", "masked_scatter_", "masked_scatter", "copy_", "fill_", "where", "cat",
    "stack", "index", "index_select", "gather", "select_scatter", "slice_scatter", "constant_pad_nd", "clone",
    "embedding", "repeat", "full", "full_like", "new_full", "scalar_tensor", "lift_fresh", "roll", "flip", "_to_copy",
    "max", "min", "amax", "amin", "maximum", "minimum", "topk", "sort", "clamp", "clamp_", "neg",
})  # fmt: skip  # they bring infinities to other places, and make none
PASSING = frozenset({"gather", "index", "index_select", "clone", "_to_copy", "cat", "stack", "copy_"})
PER_ITEM = ("_foreach", "_fused_adam", "_fused_sgd", "_fused_adagrad", "_amp_foreach")
Named = tuple[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation's schema, as far as it matters here. ``fresh`` are the places of returned values that are new."""

    name: str
    arguments: tuple[str, ...]
    written: frozenset[str]
    fresh: tuple[int, ...]
    per_item: bool

    @property
    def fills(self) -> bool:
        """Whether what it writes does not depend on what was there."""
        return self.name in FILLERS

    @property
    def is_of_higher_order(self) -> bool:
        """Whether it runs functions, such as ``torch.cond``."""
        return not self.arguments and not self.fresh

    @property
    def leaves_garbage(self) -> bool:
        """Whether it only reserves memory."""
        return self.name in EMPTY


@dataclass(slots=True)
class Call:
    """One call, or one item of a call on lists; ``scalars`` are the Python numbers given."""

    read: list[Named] = field(default_factory=list)
    written: list[Named] = field(default_factory=list)
    scalars: list[float] = field(default_factory=list)


@cache
def operation_of(function: Any) -> Operation:
    """Its schema. Operators of higher order have none: they read all that they are given, and write nothing."""
    schema = getattr(function, "_schema", None)
    if schema is None:
        return Operation(str(getattr(function, "__name__", function)), (), frozenset(), (), False)
    name = schema.name.rpartition("::")[2]
    written = frozenset(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    fresh = tuple(place for place, value in enumerate(schema.returns) if value.alias_info is None)
    if name == "lift_fresh":  # an alias on paper: what Python or NumPy gave is new to torch
        fresh = (0,)
    arguments = tuple(a.name for a in schema.arguments)
    return Operation(name, arguments, written, fresh, name.startswith(PER_ITEM))


def calls_of(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Call]:
    """What it is about to read and write: one call, or one for each item of its lists."""
    if operation.is_of_higher_order:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        return [Call(read=[(f"input[{place}]", tensor) for place, tensor in enumerate(tensors)])]
    values = {**dict(zip(operation.arguments, args, strict=False)), **kwargs}
    written = operation.written | _statistics(operation, values)
    items = _length(values) if operation.per_item else 0
    if not items:
        return [_call(operation, values, written)]
    return [_call(operation, _item(values, place, items), written) for place in range(items)]


def returned(operation: Operation, result: Any, place: int, items: int) -> list[torch.Tensor]:
    """The new tensors that a call returned; of a call on lists those of the item at ``place``."""
    if operation.is_of_higher_order:
        return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    if operation.per_item and items:
        result = result[place : place + 1] if isinstance(result, (tuple, list)) and len(result) == items else ()
        return [value for value in result if isinstance(value, torch.Tensor)] if operation.fresh else []
    if isinstance(result, torch.Tensor):
        return [result] if operation.fresh else []
    if not isinstance(result, (tuple, list)):
        return []
    if len(operation.fresh) == 1 and operation.fresh[0] == 0 and isinstance(result, list):
        return [value for value in result if isinstance(value, torch.Tensor)]
    new = [result[place] for place in operation.fresh if place < len(result)]
    return [value for value in new if isinstance(value, torch.Tensor)]


def _statistics(operation: Operation, values: Mapping[str, Any]) -> frozenset[str]:
    """The running statistics that batch normalisation in training writes, and that its result does not depend on."""
    if "batch_norm" not in operation.name or not values.get("training", False):
        return frozenset()
    return frozenset(name for name in operation.arguments if name.startswith("running_"))


def _length(values: Mapping[str, Any]) -> int:
    return max((len(value) for value in values.values() if isinstance(value, (tuple, list))), default=0)


def _item(values: Mapping[str, Any], place: int, items: int) -> dict[str, Any]:
    return {
        name: value[place] if isinstance(value, (tuple, list)) and len(value) == items else value
        for name, value in values.items()
    }


def _call(operation: Operation, values: Mapping[str, Any], written: frozenset[str]) -> Call:
    call = Call()
    statistics = written - operation.written
    for name, value in values.items():
        tensors = list(_tensors(name, value))
        if name in written:
            call.written += tensors
        if name in written and (operation.fills or name in statistics or name == "out"):
            continue
        call.read += tensors
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            call.scalars.append(float(value))
    return call


def _tensors(name: str, value: Any) -> list[Named]:
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if isinstance(value, (tuple, list)):
        return [(f"{name}[{place}]", part) for place, part in enumerate(value) if isinstance(part, torch.Tensor)]
    return []
