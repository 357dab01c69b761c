"""The gradient chart: mean and largest |g| of every layer, on a log axis, before and after clipping.

Pure; drawing thread. The traces ``mean``, ``max``, ``mean clipped`` and ``max clipped`` hold exactly the values
given, in the order of the layers; of a group, the mean of the means and the largest of all. What a log axis cannot
show stands at its edge: ``missing`` (no gradient), ``frozen``, ``zero`` at the bottom, ``not finite`` at the top.
"""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from nbdebug.dashboard import theme, words
from nbdebug.dashboard.figures import rowwise
from nbdebug.dashboard.figures.panel import Array, Drawing, Floats, Json, cover
from nbdebug.dashboard.figures.rowwise import Table
from nbdebug.dashboard.grouping import Rows, place
from nbdebug.dashboard.lens import Lens
from nbdebug.records.commands import Clip, ClipMode
from nbdebug.records.layers import GradientState, LayerValues
from nbdebug.records.signals import Signal
from nbdebug.records.view import View

EDGES = {
    "missing": (0.035, "bad", "x", "no gradient (None)"),
    "frozen": (0.035, "mute", "square", "frozen: requires no gradient"),
    "zero": (0.035, "warn", "circle-open", "gradient exactly 0"),
    "not finite": (0.965, "bad", "triangle-up", "NaN or inf"),
}
SAID = (("not finite", "not finite"), ("missing", "without gradient"), ("zero", "at 0"), ("frozen", "frozen"))
TRACES = {
    "mean": Signal.GRADIENT_MEAN,
    "max": Signal.GRADIENT_MAX,
    "mean clipped": Signal.GRADIENT_MEAN_CLIPPED,
    "max clipped": Signal.GRADIENT_MAX_CLIPPED,
}
Masks = dict[str, NDArray[np.bool_]]


class GradientFlowPanel:
    """|g| per layer, or per group of layers."""

    name = "gradient_flow"
    title = "Gradient flow"
    tab = ""
    period_s = 0.2

    def __init__(self, lens: Lens | None = None) -> None:
        self._lens = lens or Lens()

    def inputs(self, view: View) -> tuple[object, ...]:
        """The latest numbers, the rows, and the clipping rule."""
        return (view.layers.latest, self._lens.rows(view), view.knobs.clip)

    def draw(self, view: View) -> Drawing:
        """The values as given; the axis in whole decades, so that it stays put."""
        table = self._table(view)
        if table is None:
            return cover("gradients per layer, from the first step on")
        clip, masks = view.knobs.clip, edges(table.latest)
        clipped = clip.mode is not ClipMode.OFF
        arrays: dict[tuple[str, str], Array] = {}
        for name, signal in TRACES.items():
            if clipped or "clipped" not in name:
                arrays[name, "y"] = (table.largest if "max" in name else table.mean)(signal)
        drawn = list(arrays.values())
        for name, where in masks.items():
            arrays[name, "y"] = np.where(table.some(where), EDGES[name][0], np.nan)
        return Drawing(
            readout=readout(table, clipped, view.layers.step),
            structure=(table.rows, clipped),
            arrays=arrays,
            layout={"yaxis": _axis(drawn, clip), **_clip_line(clip)},
        )

    def skeleton(self, view: View) -> go.Figure:
        """Bars over layer names; the browser writes as many names as fit."""
        table = self._table(view)
        assert table is not None
        names = [rowwise.name(row) for row in table.rows]
        blue, hover = theme.tone("train"), "<b>%{x}</b><br>{} |g| %{y:.3g}<extra></extra>"
        figure = go.Figure()
        outline = {"color": theme.tone("panel"), "opacity": 0.95, "line": {"color": blue, "width": 1}}
        figure.add_bar(name="max", x=names, marker=outline, opacity=0.6, hovertemplate=hover.replace("{}", "max"))
        figure.add_bar(name="mean", x=names, marker={"color": blue}, hovertemplate=hover.replace("{}", "mean"))
        if view.knobs.clip.mode is not ClipMode.OFF:
            width = max(2, min(16, 280 // len(names)))
            for name in ("max clipped", "mean clipped"):
                line = {"color": theme.tone("clip"), "width": 2 if name == "mean clipped" else 1.2}
                marker = {"symbol": "line-ew", "size": width, "line": line}
                figure.add_scatter(
                    name=name, x=names, mode="markers", marker=marker, hovertemplate=hover.replace("{}", name)
                )
        for name, (_, colour, symbol, text) in EDGES.items():
            figure.add_scatter(
                name=name, x=names, yaxis="y2", mode="markers", hovertemplate=f"<b>%{{x}}</b><br>{text}<extra></extra>",
                marker={"symbol": symbol, "size": max(5, min(9, 420 // len(names))), "color": theme.tone(colour)},
            )  # fmt: skip
        figure.update_layout(
            template=theme.template(),
            uirevision=str(hash(tuple(names))),
            meta=rowwise.meta(table.rows),
            barmode="overlay",
            bargap=0.25,
            xaxis={
                "type": "category", "showgrid": False, "range": [-0.6, len(names) - 0.4],
                "tickmode": "array", "tickangle": 0, "tickvals": [], "ticktext": [],
            },
            yaxis={"type": "log", "tickmode": "array"},
            yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        )  # fmt: skip
        return figure

    def _table(self, view: View) -> Table | None:
        return measured(view.layers.latest, self._lens.rows(view))


def measured(latest: LayerValues | None, rows: Rows | None = None) -> Table | None:
    """The rows with layers whose gradient was looked at, each layer by itself without ``rows``; ``None`` without."""
    if latest is None:
        return None
    _, there = latest.of(Signal.GRADIENT_STATE)
    table = rowwise.table(latest, rows or place(latest.layers), there)
    return table if table.rows else None


def edges(latest: LayerValues) -> Masks:
    """Which layers stand at an edge of the axis, and why; masks of shape ``(layers,)``."""
    state, there = latest.of(Signal.GRADIENT_STATE)
    mean, known = latest.of(Signal.GRADIENT_MEAN)
    largest, _ = latest.of(Signal.GRADIENT_MAX)
    present = there & known & (state == GradientState.PRESENT)
    return {
        "missing": there & (state == GradientState.MISSING),
        "frozen": there & (state == GradientState.FROZEN),
        "zero": present & (largest == 0),
        "not finite": present & ~(np.isfinite(mean) & np.isfinite(largest)),
    }


def decades(drawn: list[Array], clip: Clip) -> list[float]:
    """The axis' ends as powers of ten: whole decades around every value shown, and the clip line."""
    values = np.concatenate(drawn)
    shown = values[np.isfinite(values) & (values > 0)]
    if clip.mode is ClipMode.VALUE and clip.threshold > 0:
        shown = np.append(shown, clip.threshold)
    if not shown.size:
        return [-6.0, 0.0]
    low, high = math.floor(math.log10(shown.min())), math.ceil(math.log10(shown.max()) + 0.05)
    return [max(low, high - 12) - 0.12, float(max(high, low + 1))]


def readout(table: Table, clipped: bool, step: int) -> str:
    """``mean ▮ max ▯ · conv1 40 × below head · 2 without gradient``."""
    parts = ["mean ▮ max ▯" + (" clipped ▬" if clipped else "")]
    masks, chosen = edges(table.latest), [place for at in table.at for place in at]
    for name, word in SAID:
        if amount := int(masks[name][chosen].sum()):
            parts.append(f"{amount} {word}")
    mean = table.mean(Signal.GRADIENT_MEAN)
    usable: Floats = np.where(np.isfinite(mean) & (mean > 0), mean, np.nan)
    if np.isfinite(usable).sum() > 1:
        low, high = int(np.nanargmin(usable)), int(np.nanargmax(usable))
        times, small, large = usable[high] / usable[low], table.rows[low], table.rows[high]
        parts.append(f"{rowwise.called(small)} {times:,.3g} × below {rowwise.called(large)}")
    return " · ".join([*parts, f"step {words.count(step)}"])


def _axis(drawn: list[Array], clip: Clip) -> dict[str, Json]:
    low, high = decades(drawn, clip)
    return {"range": [low, high], **power_ticks(low, high)}


def power_ticks(low: float, high: float, most: int = 7) -> dict[str, Json]:
    """Ticks at whole powers of ten between two exponents."""
    stride = max(1, math.ceil((high - low) / most))
    powers = range(math.ceil(low), math.floor(high) + 1, stride)
    return {
        "tickvals": [10.0**power for power in powers],
        "ticktext": ["1" if power == 0 else f"1e{power}" for power in powers],
    }


def _clip_line(clip: Clip) -> dict[str, Json]:
    """Clipping by value is a height on this axis; clipping by norm is not, and is only said."""
    if clip.mode is not ClipMode.VALUE or clip.threshold <= 0:
        return {"shapes": [], "annotations": []}
    line = {"color": theme.tone("clip"), "width": 1.2, "dash": "dash"}
    ends = {"xref": "paper", "x0": 0, "x1": 1, "y0": clip.threshold, "y1": clip.threshold}
    label = {
        "xref": "paper", "x": 1, "y": math.log10(clip.threshold), "xanchor": "right", "yanchor": "bottom",
        "text": f"clip {clip.threshold:g}", "showarrow": False, "font": {"size": 10.5, "color": theme.tone("clip")},
    }  # fmt: skip
    return {"shapes": [{"type": "line", **ends, "line": line}], "annotations": [label]}
