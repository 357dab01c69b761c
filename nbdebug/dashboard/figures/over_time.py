"""One quantity of all layers over steps: update : weight, norms, dead or saturated units.

Pure; drawing thread. Few layers have a line each, the trace of their name; of a stretch of steps both extremes are
drawn, so that no spike is lost. Of many, every group has the line of its median, over the band from the smallest to
the largest of all; the worst few layers have the traces ``line 1`` to ``line 3``, a chosen one ``line 4``. The trace
``steps`` only carries the steps, which all share.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import breakpoints, theme, words
from nbdebug.dashboard.figures import rowwise
from nbdebug.dashboard.figures.gradient_flow import power_ticks
from nbdebug.dashboard.figures.panel import Array, Drawing, Floats, Json, cover
from nbdebug.dashboard.figures.tracks import latest, measured, median, thinned
from nbdebug.dashboard.grouping import Row, Rows
from nbdebug.dashboard.lens import QUANTITIES, Lens
from nbdebug.records.signals import Signal
from nbdebug.records.view import Tracks, View

HEALTHY = (3e-4, 3e-3)
IDEAL = 1e-3
MOST_STRETCHES = 256
FEW_STRETCHES = 128
MANY_LINES = 16
WORST = 3
SHARES = (Signal.UNITS_DEAD, Signal.SATURATED)
MUCH = 0.5


@dataclass(frozen=True, slots=True)
class Lines:
    """What is drawn: ``groups`` have a line together, ``own`` layers one each, which in groups are few and vary.

    ``at`` and ``own_at`` are their places in ``tracks``; ``last`` are the latest values, by layer.
    """

    tracks: Tracks
    own: tuple[Row, ...]
    own_at: tuple[int, ...]
    groups: tuple[Row, ...]
    at: tuple[list[int], ...]
    worst: tuple[int, ...]
    last: Floats

    @property
    def all_at(self) -> list[int]:
        """The places of everything in the present part of the tree."""
        return [place for at in self.at for place in at] or list(self.own_at)

    @property
    def rows(self) -> tuple[Row, ...]:
        """What has a line, in the order of :attr:`names`."""
        return (*self.groups, *self.own)

    @property
    def names(self) -> list[str]:
        """The traces of the rows."""
        own = [f"line {slot + 1}" for slot in range(len(self.own))] if self.groups else map(rowwise.name, self.own)
        return [*map(rowwise.name, self.groups), *own]


class OverTimePanel:
    """Lines over steps, one per layer."""

    name = "over_time"
    title = "Update : weight"
    tab = ""
    period_s = 0.3

    def __init__(self, lens: Lens | None = None) -> None:
        self._lens = lens or Lens()

    def inputs(self, view: View) -> tuple[object, ...]:
        """The tracks, the rows, which layer is chosen (of many, it has a line for that), and the breakpoints on it."""
        breaks = json.dumps(breakpoints.aims(view, str(self._lens.quantity)))
        return (self._tracks(view), self._lens.rows(view), self._lens.quantity, self._lens.layer, breaks)

    def draw(self, view: View) -> Drawing:
        """The values as recorded; on a log axis what is not positive is left out and counted."""
        quantity = self._lens.quantity
        title = QUANTITIES[quantity].capitalize()
        lines = self._lines(view)
        if lines is None:
            why = f"no {QUANTITIES[quantity]} measured" if view.layers.latest is not None else "from the first step on"
            return replace(cover(why), title=title)
        arrays = _arrays(lines)
        drawn = [array for (_, attribute), array in arrays.items() if attribute == "y"]
        axis, ends = _axis(quantity, drawn)
        return Drawing(
            readout=readout(lines, view.layers.step),
            structure=(lines.groups or lines.own, quantity),
            arrays=arrays,
            layout={
                "yaxis": axis,
                "meta": {"lit": _lit(lines), "breaks": breakpoints.aims(view, str(quantity))} | _names(lines),
                **_band(quantity, ends),
            },
            traces={name: {"meta": _called(row)} for name, row in zip(lines.names, lines.rows, strict=True)},
            title=title,
        )

    def skeleton(self, view: View) -> go.Figure:
        """All lines alike: which are lit is up to the numbers and to the person."""
        lines = self._lines(view)
        assert lines is not None
        figure, blue = go.Figure(), theme.tone("train")
        figure.add_scatter(name="steps", visible=False)
        if lines.groups:
            edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
            figure.add_scatter(name="least", **edge)
            figure.add_scatter(name="most", fill="tonexty", fillcolor=blue, **edge)
        slots = [f"line {slot + 1}" for slot in range(WORST + 1)]
        for name in [*map(rowwise.name, lines.groups), *slots] if lines.groups else lines.names:
            line = {"color": blue, "width": 1}
            figure.add_scatter(
                name=name, mode="lines", connectgaps=False, line=line, opacity=0.45,
                hovertemplate="<b>%{fullData.meta}</b><br>%{y:.3g} at step %{x:,}<extra></extra>",
            )  # fmt: skip
        figure.update_layout(
            template=theme.template(),
            uirevision=str(hash((lines.groups or lines.own, self._lens.quantity))),
            margin={"t": 12, "r": 12},
            xaxis={"title": {"text": "step"}, "tickformat": ",d", "nticks": 7},
        )
        return figure

    def _tracks(self, view: View) -> Tracks | None:
        return next((each for each in view.layers.tracks if each.signal is self._lens.quantity), None)

    def _lines(self, view: View) -> Lines | None:
        tracks = self._tracks(view)
        if tracks is None or not tracks.steps.size:
            return None
        return lines_of(tracks, self._lens.rows(view), self._lens.layer)


def lines_of(tracks: Tracks, rows: Rows, layer: str) -> Lines | None:
    """Which layers have a line; ``None`` if none of these rows was measured."""
    known = measured(tracks)
    found = rows.having({name: index for index, name in enumerate(tracks.layers) if known[index]})
    if not found:
        return None
    last = latest(tracks)
    places = [place for _, at in found for place in at]
    badness = np.nan_to_num(_badness(tracks.signal, last[places]), nan=-np.inf, posinf=1e9)
    order = [places[index] for index in np.argsort(-badness, kind="stable") if np.isfinite(badness[index])]
    grouped = any(row.is_group for row, _ in found)
    stretches = FEW_STRETCHES if len(found) > MANY_LINES else MOST_STRETCHES
    tracks = thinned(tracks, stretches)
    shown, at = tuple(row for row, _ in found), tuple(at for _, at in found)
    if not grouped:
        return Lines(tracks, shown, tuple(places), (), (), tuple(order[:1]), last)
    chosen = order[:WORST]
    if layer in rows.row_of and layer in tracks.layers and tracks.layers.index(layer) not in chosen:
        chosen.append(tracks.layers.index(layer))
    own = tuple(Row(name, name, (name,)) for name in (tracks.layers[place] for place in chosen))
    return Lines(tracks, own, tuple(chosen), shown, at, tuple(order[:1]), last)


def readout(lines: Lines, step: int) -> str:
    """``median 1.4e-3 · worst blocks.2 at 2.1e-1``."""
    signal, places = lines.tracks.signal, lines.all_at
    last = lines.last[places]
    known = last[np.isfinite(last)]
    parts = [f"median {_value(signal, float(np.median(known)))}"] if known.size else []
    if lines.worst:
        worst = lines.worst[0]
        word = "worst" if signal is Signal.UPDATE_RATIO else "highest"
        name = rowwise.called(Row(lines.tracks.layers[worst], "", (lines.tracks.layers[worst],)))
        parts.append(f"{word} {name} at {_value(signal, float(lines.last[worst]))}")
    still = int((last == 0).sum()) if signal not in SHARES else 0
    parts += [f"{still} at 0"] if still else []
    odd = int(lines.tracks.odd[:, places].any(axis=0).sum())
    parts += [f"NaN or inf in {words.plural(odd, 'layer')}"] if odd else []
    return " · ".join([*parts, f"step {words.count(step)}"])


def _value(signal: Signal, value: float) -> str:
    return words.percent(value) if signal in SHARES else words.rate(value)


def _badness(signal: Signal, values: Floats) -> Floats:
    """How much a layer stands out: from the healthy ratio in orders of magnitude, else by size.

    One that does not move at all is counted, and no matter of degree: NaN.
    """
    if signal is not Signal.UPDATE_RATIO:
        return values
    moving: Floats = np.where(values > 0, values, np.nan)
    return np.abs(np.log10(moving / IDEAL))


def _lit(lines: Lines) -> dict[str, Json] | None:
    """The line to light while no layer is chosen: the worst, in a warning's colour where it is out of bounds."""
    if not lines.worst:
        return None
    place = lines.worst[0]
    name, value = lines.tracks.layers[place], float(lines.last[place])
    if lines.tracks.signal is Signal.UPDATE_RATIO:
        off = not HEALTHY[0] / 3 <= value <= HEALTHY[1] * 3
    else:
        off = lines.tracks.signal in SHARES and value > MUCH
    if not off and lines.tracks.signal in SHARES and value == 0:
        return None
    return {"key": name, "color": theme.tone("bad" if off else "train")}


def _names(lines: Lines) -> dict[str, Json]:
    """For the browser: which row each trace is."""
    return rowwise.meta(lines.rows) | {"traces": lines.names}


def _called(row: Row) -> str:
    return ("median of " if row.is_group else "") + rowwise.name(row)


def _arrays(lines: Lines) -> dict[tuple[str, str], Array]:
    tracks = lines.tracks
    steps = np.repeat(tracks.steps, 2)
    arrays: dict[tuple[str, str], Array] = {("steps", "x"): steps}
    if lines.groups:
        places = lines.all_at
        low, high = _positive(tracks.signal, tracks.low[:, places]), _positive(tracks.signal, tracks.high[:, places])
        arrays["least", "y"] = np.repeat(np.fmin.reduce(low, axis=1), 2)
        arrays["most", "y"] = np.repeat(np.fmax.reduce(high, axis=1), 2)
        for row, at in zip(lines.groups, lines.at, strict=True):
            arrays[rowwise.name(row), "y"] = np.repeat(median(_positive(tracks.signal, tracks.high[:, at])), 2)
    for name, place in zip(lines.names[len(lines.groups) :], lines.own_at, strict=True):
        both = np.column_stack([tracks.low[:, place], tracks.high[:, place]]).ravel()
        arrays[name, "y"] = _positive(tracks.signal, both)
    return arrays


def _positive(signal: Signal, values: Floats) -> Floats:
    """What the axis can show."""
    if signal in SHARES:
        return values
    shown: Floats = np.where(values > 0, values, np.nan)
    return shown


def _axis(signal: Signal, drawn: list[Array]) -> tuple[dict[str, Json], tuple[float, float]]:
    """The vertical axis, and its ends as plotly has them."""
    if signal in SHARES:
        top = max((float(np.nanmax(array)) for array in drawn if np.isfinite(array).any()), default=0.0)
        end = next(limit for limit in (0.1, 0.25, 0.5, 1.0, math.inf) if top <= limit * 0.98 or limit >= 1.0)
        return {"type": "linear", "range": [-0.02 * end, 1.04 * end], "tickformat": ".0%", "nticks": 5}, (0.0, end)
    values = np.concatenate(drawn)
    finite = values[np.isfinite(values)]
    ends = [1e-4, 1e-2] if signal is Signal.UPDATE_RATIO else []
    low = math.floor(math.log10(min([*ends, *([finite.min()] if finite.size else [])], default=0.1)))
    high = math.ceil(math.log10(max([*ends, *([finite.max()] if finite.size else [])], default=1.0)))
    low = max(low, high - 14)
    high = max(high, low + 1)
    if high - low == 1 and finite.size and finite.max() / finite.min() < 5:
        middle, half = math.log10(math.sqrt(finite.min() * finite.max())), 0.5
        return {"type": "log", "range": [middle - half, middle + half], "tickmode": "auto", "nticks": 4}, (low, high)
    return {"type": "log", "range": [low - 0.05, high], "tickmode": "array", **power_ticks(low, high)}, (low, high)


def _band(signal: Signal, ends: tuple[float, float]) -> dict[str, Json]:
    """Where update : weight is healthy."""
    if signal is not Signal.UPDATE_RATIO:
        return {"shapes": [], "annotations": []}
    low, high = HEALTHY
    shape = {
        "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high, "line": {"width": 0},
        "fillcolor": theme.tone("ok"), "opacity": 0.12, "layer": "below",
    }  # fmt: skip
    label = {
        "xref": "paper", "x": 1, "xanchor": "right", "y": math.log10(low), "yanchor": "bottom", "text": "healthy",
        "showarrow": False, "font": {"size": 10.5, "color": theme.tone("ok")}, "name": "band",
    }  # fmt: skip
    return {"shapes": [shape], "annotations": [label]}
