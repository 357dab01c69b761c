"""History: the recorded numbers as numpy arrays, by the names that they have on screen. Any thread."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nbdebug.journal.meaning import MEANING
from nbdebug.journal.run_record import RunRecord
from nbdebug.journal.series import thinned
from nbdebug.records.frames import Floats
from nbdebug.records.layers import edges
from nbdebug.records.runs import Run
from nbdebug.records.signals import Series, Signal
from nbdebug.records.view import Points

T = TypeVar("T")
SIGNALS = {str(signal): signal for signal in Signal}
HISTOGRAMS = frozenset(
    {Signal.ACTIVATIONS, Signal.GRADIENTS, Signal.WEIGHTS, Signal.BIASES, Signal.CHANGES, Signal.DATA}
)
LONGEST = 1 << 62


class Values(NamedTuple):
    """A curve: ``steps`` (integers, growing) and ``values``, of shape ``(n,)`` each."""

    steps: NDArray[np.int64]
    values: Floats


class Histograms(NamedTuple):
    """A layer's histograms: ``counts`` ``(n, bins)`` at ``steps`` ``(n,)``, each over ``[-limits, limits]``.

    Bins are logarithmic on either side of 0: see :meth:`edges`.
    """

    steps: NDArray[np.int64]
    counts: Floats
    limits: Floats

    def edges(self, row: int = -1) -> Floats:
        """The borders of the bins of a row, of the latest without one: ``(bins + 1,)``, growing."""
        borders: Floats = edges() * self.limits[row]
        return borders


class Recorded(Protocol):
    """What a history reads from: a journal in memory, or one that follows a file."""

    @property
    def runs(self) -> Mapping[str, Run]:
        """All runs by name."""

    def lineage(self, run: str) -> list[tuple[str, int | None]]:
        """The runs that led to this one, each with its last step that counts."""

    def read(self, run: str, look: Callable[[RunRecord], T]) -> T:
        """Look at a run's record."""


class History(Mapping[str, "Values | Histograms"]):
    """What was recorded of the run that the model now holds, back to the first step, parents included.

    Keys are ``"loss/train"``, ``"loss/val"``, ``"<metric>/train"``, ``"lr"``, ``"clip_norm"`` (inf when off),
    ``"dropout"``, ``"grad_norm"``, ``"grad_norm/<layer>"``, ``"update_ratio/<layer>"``, ``"activations/<layer>"`` and
    so on; ``list(history)`` names all, and printing it says what they mean. Curves are exact up to 8,192 steps, those
    of layers up to 512 samples (fewer with thousands of numbers a sample) and as float32; longer ones keep the extremes
    of every stretch. NaN and inf are there where they were recorded; what was not measured is not.
    """

    def __init__(self, journal: Recorded, run: Callable[[], str], *, inherited: bool = True) -> None:
        self._journal = journal
        self._run = run
        self._inherited = inherited

    def of(self, run: str, *, inherited: bool = False) -> History:
        """The history of another run: only its own steps, unless ``inherited`` says to put its parents' before."""
        if run not in self._journal.runs:
            near = difflib.get_close_matches(run, list(self._journal.runs), 1, 0.3)
            raise KeyError(f"no run {run!r}" + (f": did you mean {near[0]!r}?" if near else ""))
        return History(self._journal, lambda: run, inherited=inherited)

    def __getitem__(self, key: str) -> Values | Histograms:
        parts = [part for name, last in self._line() if (part := self._part(name, key, last)) is not None]
        if not parts:
            raise KeyError(self._missing(key))
        kind: Any = type(parts[-1])
        joined: Values | Histograms = kind(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        return joined

    def window(self, key: str, first: int, last: int, max_points: int = 1_000) -> Values:
        """The steps ``first`` to ``last`` of a curve, both included, in about ``max_points`` points at most.

        The extremes of every stretch are among them. What it takes does not grow with the run.

        Raises:
            KeyError: nothing was recorded under that name.
            ValueError: these are histograms, no curve.
        """
        parts: list[Points] = []
        known = False
        for name, end in self._line():
            ends = last if end is None else min(last, end)
            found = self._journal.read(name, partial(_window, key=key, first=first, last=ends, max_points=max_points))
            known = known or found is not None
            parts += [found] if found is not None and len(found.steps) else []
        if not known:
            if key in self:
                raise ValueError(f"{key!r} are histograms, no curve: take history[{key!r}], and of it what you need")
            raise KeyError(self._missing(key))
        if not parts:
            return Values(np.zeros(0, dtype=np.int64), np.zeros(0))
        steps, values = np.concatenate([p.steps for p in parts]), np.concatenate([p.values for p in parts])
        whole = thinned(Points(steps, values), max_points) if len(parts) > 1 else parts[0]
        return Values(whole.steps, whole.values)

    def __iter__(self) -> Iterator[str]:
        keys: dict[str, None] = {}
        for name, _ in self._line():
            keys.update(dict.fromkeys(self._journal.read(name, _keys)))
        return iter(keys)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        keys = list(self)
        if not keys:
            return f"History of run {self._run()!r}: nothing recorded yet"
        lines = [f"History of run {self._run()!r}, {len(keys)} series:"]
        for signal, group in self._by_signal(keys).items():
            shown = ", ".join(group[:3]) + (f" … {len(group)} in all" if len(group) > 3 else "")
            lines.append(f"  {shown}: {MEANING[signal]}")
        return "\n".join(lines)

    def _by_signal(self, keys: list[str]) -> dict[Signal, list[str]]:
        groups: dict[Signal, list[str]] = {}
        for key in keys:
            groups.setdefault(SIGNALS.get(key.partition("/")[0], Signal.METRIC), []).append(key)
        return groups

    def _line(self) -> list[tuple[str, int | None]]:
        line = self._journal.lineage(self._run())
        return line if self._inherited else line[-1:]

    def _part(self, run: str, key: str, last: int | None) -> Values | Histograms | None:
        found = self._journal.read(run, lambda kept: _look_up(kept, key))
        if found is None or last is None:
            return found
        keep = found.steps <= last
        kind: Any = type(found)
        kept: Values | Histograms = kind(*(column[keep] for column in found))
        return kept

    def _missing(self, key: str) -> str:
        known = list(self)
        if not known:
            return f"nothing recorded as {key!r} yet: train a step first"
        near = difflib.get_close_matches(str(key), known, 3, 0.4)
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"there are {', '.join(known)}"
        return f"nothing recorded as {key!r}: {hint}"


def _keys(kept: RunRecord) -> list[str]:
    keys = [series.text for series in kept.curves]
    keys += [Series(signal, layer).text for signal, layer in kept.layers.table.layout.pairs()]
    for signal, track in kept.layers.tracks.items():
        keys += [Series(signal, layer).text for layer in track.layers]
    return keys


def _look_up(kept: RunRecord, key: str) -> Values | Histograms | None:
    signal, layer = _signal_and_layer(key)
    if signal in HISTOGRAMS:
        track = kept.layers.tracks.get(signal)
        story = track.story(layer) if track is not None else None
        return Histograms(story.steps, story.counts, story.limits) if story is not None else None
    points = _window(kept, key, 0, LONGEST, None)
    return Values(points.steps, points.values) if points is not None else None


def _window(kept: RunRecord, key: str, first: int, last: int, max_points: int | None) -> Points | None:
    """Part of a curve, ``None`` where there is no such curve."""
    curve = next((curve for series, curve in kept.curves.items() if series.text == key), None)
    if curve is not None:
        return curve.points() if max_points is None else curve.window(first, last, max_points)
    signal, layer = _signal_and_layer(key)
    return kept.layers.table.points(signal, layer, first, last, max_points) if signal is not None else None


def _signal_and_layer(key: str) -> tuple[Signal | None, str]:
    signal, _, layer = str(key).partition("/")
    return SIGNALS.get(signal), layer
