"""Layers in rows: each by itself while they are few, else groups by the module tree. Pure; any thread.

A group is called by its prefix, dot included (``encoder.3.``), so that it differs from a layer of the same name
(``encoder.3``); a stretch of too many siblings by its ends (``blocks.0 … blocks.12``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MOST_SINGLE = 40
MOST_ROWS = 32
FEWEST = 4  # stretches of a group that tell more than the group
STRETCH = " … "

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer, or a group of them: ``key`` is unique, ``label`` short within the place one is at."""

    key: str
    label: str
    layers: tuple[str, ...]

    @property
    def is_group(self) -> bool:
        """Whether one can go into it."""
        return self.layers != (self.key,)

    @property
    def shown(self) -> str:
        """``conv1``, or ``blocks.3 ▸ 12 layers``."""
        return f"{self.label} ▸ {len(self.layers)} layers" if self.is_group else self.label


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one place in the tree: ``path`` are the keys of the groups gone into, ``crumbs`` their labels.

    ``row_of`` says by layer in which row it is; layers elsewhere in the tree are not in it.
    """

    rows: tuple[Row, ...] = ()
    path: tuple[str, ...] = ()
    crumbs: tuple[str, ...] = ()
    total: int = 0
    row_of: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_grouped(self) -> bool:
        """Whether the model has so many layers that they are shown in groups."""
        return self.total > MOST_SINGLE

    def having(self, layers: Mapping[str, int]) -> list[tuple[Row, list[int]]]:
        """The rows with any of these layers, and the places of those: ``layers`` gives each name's place."""
        found = [(row, [layers[name] for name in row.layers if name in layers]) for row in self.rows]
        return [(row, at) for row, at in found if at]


def place(layers: Sequence[str], path: Sequence[str] = ()) -> Rows:
    """The rows at a place in the tree; a path that leads nowhere (any more) is followed as far as it goes."""
    names, base, crumbs, gone = list(layers), "", [], []
    rows = _rows(names, base)
    for key in path:
        row = next((row for row in rows if row.key == key and row.is_group), None)
        if row is None:
            break
        gone.append(key)
        crumbs.append(row.label)
        names, base = list(row.layers), key if key.endswith(".") else base
        rows = _rows(names, base)
    row_of = {name: index for index, row in enumerate(rows) for name in row.layers}
    return Rows(tuple(rows), tuple(gone), tuple(crumbs), len(layers), row_of)


def cut(names: Sequence[str], most: int = MOST_ROWS) -> list[tuple[str, list[str]]]:
    """The module tree cut across: at most ``most`` groups or layers, in order, siblings always treated alike."""
    nodes = _descend(names, "")
    if len(nodes) > most:
        return _stretches(nodes, -(-len(nodes) // most))
    closed: set[str] = set()
    while True:
        groups = [(key, inside) for key, inside in nodes if key.endswith(".") and _parent(key) not in closed]
        if not groups:
            return _in_stretches(nodes, most)
        parent = _parent(max(groups, key=lambda group: len(group[1]))[0])
        opened = [
            child
            for key, inside in nodes
            for child in (_descend(inside, key) if key.endswith(".") and _parent(key) == parent else [(key, inside)])
        ]
        closed.add(parent)
        if len(opened) <= most:
            nodes = opened


def _in_stretches(nodes: list[tuple[str, list[str]]], most: int) -> list[tuple[str, list[str]]]:
    """The largest group, with the groups beside it, opened so far as there is room: their children in stretches."""
    largest_key = max(nodes, key=lambda node: len(node[1]))[0]
    if not largest_key.endswith("."):
        return nodes
    beside = _parent(largest_key)
    groups = {key: _descend(inside, key) for key, inside in nodes if key.endswith(".") and _parent(key) == beside}
    room, size = most - len(nodes) + len(groups), 1
    while sum(-(-len(inside) // _size(inside, size)) for inside in groups.values()) > max(room, FEWEST * len(groups)):
        size += 1
    if max(map(len, groups.values())) < FEWEST * size:
        return nodes
    opened = []
    for key, inside in nodes:
        opened += _stretches(groups[key], _size(groups[key], size)) if key in groups else [(key, inside)]
    return opened if len(opened) <= most else nodes


def _size(children: Sequence[object], size: int) -> int:
    """How many of them go into a stretch: few stand alone beside any others."""
    return size if len(children) > FEWEST else 1


def _rows(names: Sequence[str], base: str) -> list[Row]:
    if len(names) <= MOST_SINGLE:
        return [Row(name, _label(name, base), (name,)) for name in names]
    return [Row(key, _label(key, base), tuple(inside)) for key, inside in cut(names)]


def _label(key: str, base: str) -> str:
    """A key as read at ``base``: what is plain from the place, or said already, is left out. ``encoder.0–12``."""
    first, *rest = [end.removeprefix(base).rstrip(".") or end.rstrip(".") for end in key.split(STRETCH)]
    if not rest:
        return first
    common = first.rpartition(".")[0] + "."
    return f"{first}–{rest[0].removeprefix(common)}"


def _descend(names: Sequence[str], prefix: str) -> list[tuple[str, list[str]]]:
    """What is right below a prefix; where that is one group alone, what is below that."""
    while True:
        found: dict[str, list[str]] = {}
        for name in names:
            head, dot, _ = name[len(prefix) :].partition(".")
            found.setdefault(prefix + head + dot if dot else name, []).append(name)
        nodes = [(key if len(inside) > 1 else inside[0], inside) for key, inside in found.items()]
        if len(nodes) > 1 or not nodes[0][0].endswith("."):
            return nodes
        prefix = nodes[0][0]


def _parent(key: str) -> str:
    return key.rstrip(".").rpartition(".")[0]


def _stretches(nodes: Sequence[tuple[str, list[str]]], size: int) -> list[tuple[str, list[str]]]:
    """Neighbours taken together, ``size`` at a time."""
    found = []
    for first in range(0, len(nodes), size):
        part = nodes[first : first + size]
        key = part[0][0] if len(part) == 1 else f"{part[0][0].rstrip('.')}{STRETCH}{part[-1][0].rstrip('.')}"
        found.append((key, [name for _, inside in part for name in inside]))
    return found


def largest(values: Floats, rows: Sequence[Sequence[int]]) -> Floats:
    """The largest of each row's values, NaN left aside; ``(…, rows)``."""
    return _each(np.fmax, values, rows)


def smallest(values: Floats, rows: Sequence[Sequence[int]]) -> Floats:
    """The smallest of each row's values, NaN left aside; ``(…, rows)``."""
    return _each(np.fmin, values, rows)


def average(values: Floats, rows: Sequence[Sequence[int]]) -> Floats:
    """The mean of each row's values, NaN left aside; ``(…, rows)``."""
    known = np.isfinite(values) | np.isinf(values)
    amount = _each(np.add, known.astype(np.float64), rows)
    total = _each(np.add, np.where(known, values, 0.0), rows)
    means: Floats = np.divide(total, amount, out=np.full(amount.shape, np.nan), where=amount > 0)
    return means


def some(flags: NDArray[np.bool_], rows: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
    """Whether any of each row's flags is set; ``(rows,)``."""
    return _each(np.fmax, flags.astype(np.float64), rows) > 0


def _each(reduce: np.ufunc, values: Floats, rows: Sequence[Sequence[int]]) -> Floats:
    """``reduce`` over each row's places in ``values`` ``(…, layers)``; ``(…, rows)``. No row is empty."""
    if not rows:
        return np.empty((*values.shape[:-1], 0))
    flat = np.concatenate([np.asarray(row, dtype=np.intp) for row in rows])
    starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
    reduced: Floats = reduce.reduceat(values[..., flat], starts, axis=-1)
    return reduced
