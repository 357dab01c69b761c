"""History: the recorded numbers as numpy arrays, by the names that they have on screen. Any thread."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nbdebug.journal.journal import RunRecord
from nbdebug.journal.series import Thinned
from nbdebug.records.frames import Activations, Floats, GradientFlow, GradientState
from nbdebug.records.runs import Run
from nbdebug.records.signals import Series, Signal

T = TypeVar("T")


class Values(NamedTuple):
    """A curve: ``steps`` (integers, growing) and ``values``, of shape ``(n,)`` each."""

    steps: NDArray[np.int64]
    values: Floats


class Histograms(NamedTuple):
    """A layer's histograms: ``counts`` ``(n, bins)`` at ``steps`` ``(n,)``, each over ``[-limits, limits]``."""

    steps: NDArray[np.int64]
    counts: Floats
    limits: Floats


LAYER_SIGNALS: dict[Signal, Callable[[GradientFlow], Floats]] = {
    Signal.GRADIENT_MEAN: lambda flow: flow.mean,
    Signal.GRADIENT_MAX: lambda flow: flow.max,
    Signal.GRADIENT_MEAN_CLIPPED: lambda flow: flow.clipped_mean,
    Signal.GRADIENT_MAX_CLIPPED: lambda flow: flow.clipped_max,
}


MEANING: dict[Signal, str] = {
    Signal.LOSS: "loss, on each training batch and over the validation data",
    Signal.METRIC: "the trainer's metrics, likewise",
    Signal.LEARNING_RATE: "learning rate in force, schedule and slider included; by group where there are several",
    Signal.CLIP_NORM: "clipping threshold on the norm of all gradients; inf when off",
    Signal.CLIP_VALUE: "clipping threshold on each gradient element; inf when off",
    Signal.DROPOUT: "dropout probability, the mean over layers where they differ",
    Signal.UPDATES: "optimizer steps within the step (batch)",
    Signal.GRADIENT_NORM: "2-norm of all gradients before clipping",
    Signal.GRADIENT_MEAN: "mean of |g| per layer before clipping, on sampled steps",
    Signal.GRADIENT_MAX: "largest |g| per layer before clipping, on sampled steps",
    Signal.GRADIENT_MEAN_CLIPPED: "mean of |g| per layer after clipping, on sampled steps",
    Signal.GRADIENT_MAX_CLIPPED: "largest |g| per layer after clipping, on sampled steps",
    Signal.ACTIVATIONS: "histogram of a layer's output, on sampled steps",
}


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
    ``"dropout"``, ``"grad_norm"``, ``"grad_mean/<layer>"``, ``"activations/<layer>"`` and so on; ``list(history)``
    names all. Curves are exact up to 8,192 steps; longer ones keep the extremes of every stretch.
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
        known = {str(signal): signal for signal in Signal}
        groups: dict[Signal, list[str]] = {}
        for key in keys:
            groups.setdefault(known.get(key.partition("/")[0], Signal.METRIC), []).append(key)
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
    flow, activations = kept.gradients.latest, kept.activations.latest
    if flow is not None:
        keys += [Series(signal, layer).text for signal in LAYER_SIGNALS for layer in flow.layers]
    if activations is not None:
        keys += [Series(Signal.ACTIVATIONS, layer).text for layer in activations.layers]
    return keys


def _look_up(kept: RunRecord, key: str) -> Values | Histograms | None:
    curve = next((curve for series, curve in kept.curves.items() if series.text == key), None)
    if curve is not None:
        points = curve.points()
        return Values(points.steps, points.values)
    signal, _, layer = key.partition("/")
    if signal == Signal.ACTIVATIONS:
        return _histograms(kept.activations, layer)
    for known, read in LAYER_SIGNALS.items():
        if signal == known:
            return _layer_values(kept.gradients, layer, read)
    return None


def _layer_values(records: Thinned[GradientFlow], layer: str, read: Callable[[GradientFlow], Floats]) -> Values | None:
    found = [
        (step, read(flow)[flow.layers.index(layer)])
        for step, flow in zip(records.steps, records.records, strict=True)
        if layer in flow.layers and flow.state[flow.layers.index(layer)] == GradientState.PRESENT
    ]
    if not found:
        return None
    steps, values = zip(*found, strict=True)
    return Values(np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64))


def _histograms(records: Thinned[Activations], layer: str) -> Histograms | None:
    found = [
        (step, record.counts[record.layers.index(layer)], record.limit[record.layers.index(layer)])
        for step, record in zip(records.steps, records.records, strict=True)
        if layer in record.layers
    ]
    if not found:
        return None
    steps, counts, limits = zip(*found, strict=True)
    return Histograms(np.asarray(steps, dtype=np.int64), np.stack(counts), np.asarray(limits))
