"""The chart of distributions: a ridge per layer, or per group of layers, on an axis that is linear around 0.

Pure; drawing thread. Each row has its own unit, written beside it (see :mod:`symlog`). Heights are square roots of the
density on this axis, each row's largest 1, so that tails show. The trace named after a row carries the share of the
values in each cell as ``customdata``; of a group, the mean of its layers' shares. Data is never grouped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import grouping, theme, words
from nbdebug.dashboard.figures import rowwise, symlog
from nbdebug.dashboard.figures.panel import Array, Drawing, Floats, Json, cover
from nbdebug.dashboard.grouping import Row, Rows
from nbdebug.dashboard.lens import KIND_WORDS, Lens
from nbdebug.records.layers import Histograms, LayerValues
from nbdebug.records.signals import Signal
from nbdebug.records.view import View

MOST_APART = 12  # rows; more of them reach into each other
MUCH = 0.5
NEARLY_ALL = 0.9
FLAGS = {  # by kind: what colours a ridge, the worst first, with the share from which on it does
    Signal.ACTIVATIONS: (
        (Signal.ACTIVATION_NON_FINITE, 0.0, "bad", "NaN or inf"),
        (Signal.UNITS_DEAD, MUCH, "warn", "dead"),
        (Signal.SATURATED, MUCH, "violet", "saturated"),
        (Signal.ACTIVATION_ZERO, NEARLY_ALL, "warn", "at 0"),
    ),
    Signal.GRADIENTS: (
        (Signal.GRADIENT_NON_FINITE, 0.0, "bad", "NaN or inf"),
        (Signal.GRADIENT_ZERO, NEARLY_ALL, "warn", "at 0"),
    ),
    Signal.DATA: ((Signal.DATA_NON_FINITE, 0.0, "bad", "NaN or inf"),),
}
DEVIATIONS = {Signal.ACTIVATIONS: Signal.ACTIVATION_STD, Signal.DATA: Signal.DATA_STD}


@dataclass(frozen=True, slots=True)
class Flag:
    """What is wrong with a row: its colour, the share, and a word for it."""

    colour: str
    share: float
    word: str

    def __str__(self) -> str:
        return f"{100 * self.share:.3g} % {self.word}"


@dataclass(frozen=True, slots=True)
class Ridges:
    """The rows drawn: ``at`` are the places of each row's layers in ``found``; ``latest`` has their numbers."""

    found: Histograms
    step: int
    rows: tuple[Row, ...]
    at: tuple[list[int], ...]
    flags: tuple[Flag | None, ...]
    deviation: Floats


class DistributionsPanel:
    """Histograms of activations, gradients, weights, biases, changes or data, by layer."""

    name = "distributions"
    title = "Distributions"
    tab = ""
    period_s = 0.3

    def __init__(self, lens: Lens | None = None) -> None:
        self._lens = lens or Lens()

    def inputs(self, view: View) -> tuple[object, ...]:
        """The latest histograms of the chosen kind, the numbers beside them, and the rows."""
        found, step = _latest(view, self._lens.kind(view))
        return (found, step, view.layers.latest, self._lens.rows(view))

    def draw(self, view: View) -> Drawing:
        """Closed outlines, one above the other, the first layer on top."""
        ridges = self._ridges(view)
        if ridges is None:
            hint = "what each layer puts out, from the first step on" if view.layers.latest is None else _why_not(view)
            return cover(hint)
        counts, unit = _by_row(ridges)
        return Drawing(
            readout=readout(ridges, self._lens.rows(view)),
            structure=(ridges.rows, ridges.found.signal),
            arrays=_outlines(ridges, counts),
            layout={"annotations": _notes(ridges, unit), "xaxis": _scale(symlog.reach(counts))},
            traces=_colours(ridges, unit),
            title=KIND_WORDS[ridges.found.signal].capitalize(),
        )

    def skeleton(self, view: View) -> go.Figure:
        """Layer names on the left, one baseline each."""
        ridges = self._ridges(view)
        assert ridges is not None
        figure, count = go.Figure(), len(ridges.rows)
        for row in ridges.rows:
            figure.add_scatter(
                name=rowwise.name(row),
                mode="lines",
                fill="toself",
                hoveron="points",
                hovertemplate="<b>%{fullData.name}</b><br>%{text}<br>%{customdata:.2%} of the values<extra></extra>",
            )
        figure.update_layout(
            template=theme.template(),
            uirevision=str(hash(ridges.rows)),
            meta=rowwise.meta(ridges.rows) | {"borders": symlog.borders().tolist()},
            margin={"l": 122, "r": 118, "t": 6, "b": 24},
            xaxis={"tickmode": "array", "fixedrange": True},
            yaxis={
                "range": [-0.15, count - 1 + _height(count) + 0.12],
                "showgrid": False,
                "fixedrange": True,
                "ticklabelstandoff": 6,
                "tickmode": "array",
                "tickvals": [],
                "ticktext": [],
            },
            dragmode=False,
        )
        return figure

    def _ridges(self, view: View) -> Ridges | None:
        kind = self._lens.kind(view)
        found, step = _latest(view, kind)
        if found is None or not found.layers:
            return None
        rows = self._lens.rows(view) if kind is not Signal.DATA else _alone(found.layers)
        chosen = rows.having({name: index for index, name in enumerate(found.layers)})
        if not chosen:
            return None
        at = tuple(places for _, places in chosen)
        shown = tuple(row for row, _ in chosen)
        flags, deviation = _judged(found, view.layers.latest, at)
        return Ridges(found, step, shown, at, flags, deviation)


def readout(ridges: Ridges, rows: Rows) -> str:
    """``6 layers · fc1 62 % dead · 4,096 of 51,200 values at most, ± 0.8 % · step 2,412``."""
    layers = [place for at in ridges.at for place in at]
    unit = "tensor" if ridges.found.signal is Signal.DATA else "layer"
    grouped = any(row.is_group for row in ridges.rows)
    parts = [words.plural(len(layers), unit) + (f" in {words.plural(len(ridges.rows), 'group')}" if grouped else "")]
    flagged = [(row, flag) for row, flag in zip(ridges.rows, ridges.flags, strict=True) if flag]
    if flagged:
        row, flag = max(flagged, key=lambda each: (each[1].colour == "bad", each[1].share))
        more = f" and {len(flagged) - 1} more" if len(flagged) > 1 else ""
        parts.append(f"{rowwise.called(row)} {flag}{more}")
    return " · ".join([*parts, sampling(ridges.found), f"step {words.count(ridges.step)}"])


def sampling(found: Histograms) -> str:
    """How exact histograms are: ``every value counted``, or ``4,096 values a layer, shares ± 0.8 %``."""
    partly = (found.sampled < found.elements) & (found.sampled > 0)
    if not partly.any():
        return "every value counted"
    error = 100 * standard_error(found)
    return f"{words.count(int(found.sampled[partly].max()))} values a layer, shares ± {error:.2g} %"


def standard_error(found: Histograms) -> float:
    """The largest standard error of a share, that of one half; 0 where every value was counted."""
    partly = (found.sampled < found.elements) & (found.sampled > 0)
    return float(0.5 / np.sqrt(found.sampled[partly].min())) if partly.any() else 0.0


def _latest(view: View, kind: Signal) -> tuple[Histograms | None, int]:
    return next(((found, step) for found, step in view.layers.histograms if found.signal is kind), (None, 0))


def _why_not(view: View) -> str:
    return "no histograms are measured" if not view.layers.histograms else "no histogram of these layers"


def _alone(names: Sequence[str]) -> Rows:
    return Rows(tuple(Row(name, name, (name,)) for name in names), total=len(names))


def _judged(
    found: Histograms, latest: LayerValues | None, at: Sequence[Sequence[int]]
) -> tuple[tuple[Flag | None, ...], Floats]:
    """What is wrong by row, and the deviation by layer of ``found``."""
    deviation = symlog.spread(found.counts, found.limit)
    if latest is None:
        return (None,) * len(at), deviation
    places = {name: index for index, name in enumerate(latest.layers)}
    where = np.array([places.get(name, -1) for name in found.layers])
    flags: list[Flag | None] = [None] * len(at)
    for signal, threshold, colour, word in FLAGS.get(found.signal, ()):
        shares = grouping.largest(_of(latest, signal, where), at)
        for index in np.flatnonzero(shares > threshold):
            flags[index] = flags[index] or Flag(colour, float(shares[index]), word)
    if found.signal in DEVIATIONS:
        measured = _of(latest, DEVIATIONS[found.signal], where)
        deviation = np.where(np.isfinite(measured), measured, deviation)
    return tuple(flags), deviation


def _of(latest: LayerValues, signal: Signal, where: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    """A signal in the order of other layers; NaN where it was not measured."""
    values, present = latest.of(signal)
    known: Floats = np.where(present[where] & (where >= 0), values[where], np.nan)
    return known


def _by_row(ridges: Ridges) -> tuple[Floats, list[tuple[float, float]]]:
    """Shares by cell, ``(rows, CELLS)``, and the smallest and largest unit of each row's layers."""
    chosen = [place for at in ridges.at for place in at]
    limit = ridges.found.limit[chosen]
    units = symlog.units(ridges.found.counts[chosen], limit)
    cells = symlog.cells(ridges.found.counts[chosen], limit, units)
    total = cells.sum(axis=1, keepdims=True)
    shares = np.divide(cells, total, out=np.zeros_like(cells), where=total > 0)
    ends = np.cumsum([0, *(len(at) for at in ridges.at)])
    spans = list(pairwise(ends))
    rows = [shares[first:last].mean(axis=0) for first, last in spans]
    return np.array(rows), [(float(units[a:b].min()), float(units[a:b].max())) for a, b in spans]


def _height(rows: int) -> float:
    return 0.86 if rows <= MOST_APART else min(2.2, 0.86 + (rows - MOST_APART) / 14)


def _outlines(ridges: Ridges, shares: Floats) -> dict[tuple[str, str], Array]:
    count = len(ridges.rows)
    tall = _height(count) * symlog.heights(symlog.density(shares))
    at = symlog.centres()
    x = np.concatenate([at, [at[-1], at[0]]])
    arrays: dict[tuple[str, str], Array] = {}
    for index, row in enumerate(ridges.rows):
        name, base = rowwise.name(row), float(count - 1 - index)
        arrays[name, "x"] = x
        arrays[name, "y"] = np.concatenate([base + tall[index], [base, base]])
        arrays[name, "customdata"] = shares[index]
    return arrays


def _colours(ridges: Ridges, units: Sequence[tuple[float, float]]) -> dict[str, dict[str, Json]]:
    """Ridges that reach into each other have an edge in the panel's colour."""
    close = len(ridges.rows) > MOST_APART
    colours = {}
    for row, flag, (low, high) in zip(ridges.rows, ridges.flags, units, strict=True):
        colour = theme.tone(flag.colour if flag else "train")
        line = {"color": theme.tone("panel") if close else colour, "width": 1}
        unit = low if low == high else 0
        colours[rowwise.name(row)] = {
            "fillcolor": colour,
            "opacity": 0.95 if close else 0.78,
            "line": line,
            "meta": unit,
        }
    return colours


def _notes(ridges: Ridges, units: Sequence[tuple[float, float]]) -> list[dict[str, Json]]:
    """At the right of each ridge: its deviation and unit, or what is wrong with it; thinned out in the browser."""
    notes = []
    for index, (row, at, flag) in enumerate(zip(ridges.rows, ridges.at, ridges.flags, strict=True)):
        text = str(flag) if flag else _spread(ridges.deviation[at], row)
        if not flag and not row.is_group:
            text += f"   ×{words.number(units[index][0])}"
        font = {"size": 10.5, "color": theme.tone(flag.colour if flag else "mute")}
        notes.append(
            {
                "xref": "paper", "x": 1, "xanchor": "left", "xshift": 8, "y": len(ridges.rows) - 1 - index,
                "yanchor": "middle", "text": text, "showarrow": False, "font": font,
            }
        )  # fmt: skip
    return notes


def _spread(deviations: Floats, row: Row) -> str:
    """``σ 0.6``, of a group ``σ 0.4 – 1.2``."""
    known = deviations[np.isfinite(deviations)]
    if not known.size:
        return ""
    low, high = words.number(float(known.min())), words.number(float(known.max()))
    return f"σ {low}" if not row.is_group or low == high else f"σ {low} – {high}"


def _scale(reach: float) -> dict[str, Json]:
    """The axis as far as there are values; its numbers are multiples of each row's unit."""
    marks = [mark for mark in (1.0, 4.0, 16.0, 64.0, 256.0) if mark <= reach]
    values = [-mark for mark in marks[::-1]] + [0.0, *marks]
    end = float(symlog.position(reach))
    return {
        "range": [-end, end],
        "tickvals": symlog.position(np.array(values)).tolist(),
        "ticktext": ["0" if value == 0 else f"{value:g}×".replace("-", "−") for value in values],
    }
