"""The gradient chart: mean and largest |g| of every layer, on a log axis, before and after clipping.

Pure; drawing thread. The traces ``mean``, ``max``, ``mean clipped`` and ``max clipped`` hold exactly the values
given, in the order of the layers. What a log axis cannot show stands at its edge: ``missing`` (no gradient),
``frozen``, ``zero`` at the bottom, ``not finite`` at the top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import theme, words
from nbdebug.dashboard.figures.panel import Array, Drawing, Json, cover
from nbdebug.records.commands import Clip, ClipMode
from nbdebug.records.frames import GradientFlow, GradientState
from nbdebug.records.view import View

LABEL = 14
EDGES = {
    "missing": (0.035, "bad", "x", "no gradient (None)"),
    "frozen": (0.035, "mute", "square", "frozen: requires no gradient"),
    "zero": (0.035, "warn", "circle-open", "gradient exactly 0"),
    "not finite": (0.965, "bad", "triangle-up", "NaN or inf"),
}


class GradientFlowPanel:
    """|g| per layer."""

    name = "gradient_flow"
    title = "Gradient flow"

    def inputs(self, view: View) -> tuple[object, ...]:
        """The latest measured gradients and the clipping rule."""
        return (view.gradients, view.gradients_step, view.knobs.clip)

    def draw(self, view: View) -> Drawing:
        """The values as given; the axis in whole decades, so that it stays put."""
        flow = view.gradients
        if flow is None or not flow.layers:
            return cover("gradients per layer, from the first step on")
        clipped = view.knobs.clip.mode is not ClipMode.OFF
        arrays: dict[tuple[str, str], Array] = {("mean", "y"): flow.mean, ("max", "y"): flow.max}
        if clipped:
            arrays |= {("mean clipped", "y"): flow.clipped_mean, ("max clipped", "y"): flow.clipped_max}
        for name, where in edges(flow).items():
            arrays[name, "y"] = np.where(where, EDGES[name][0], np.nan)
        return Drawing(
            readout=readout(flow, clipped, view.gradients_step),
            structure=(flow.layers, clipped),
            arrays=arrays,
            layout={"yaxis": _axis(flow, view.knobs.clip), **_clip_line(view.knobs.clip)},
        )

    def skeleton(self, view: View) -> go.Figure:
        """Bars over layer names; few enough tick labels to read, the full name on hover."""
        flow = view.gradients
        assert flow is not None
        names = [words.plain(name) for name in flow.layers]
        blue, hover = theme.tone("train"), "<b>%{x}</b><br>{} |g| %{y:.3g}<extra></extra>"
        figure = go.Figure()
        outline = {"color": theme.tone("panel"), "opacity": 0.95, "line": {"color": blue, "width": 1}}
        figure.add_bar(name="max", x=names, marker=outline, opacity=0.6, hovertemplate=hover.replace("{}", "max"))
        figure.add_bar(name="mean", x=names, marker={"color": blue}, hovertemplate=hover.replace("{}", "mean"))
        if view.knobs.clip.mode is not ClipMode.OFF:
            width = max(2, min(16, 280 // len(names)))
            for name in ("max clipped", "mean clipped"):
                line = {"color": theme.tone("clip"), "width": 2 if name == "mean clipped" and len(names) < 60 else 1.2}
                marker = {"symbol": "line-ew", "size": width, "line": line}
                figure.add_scatter(
                    name=name, x=names, mode="markers", marker=marker, hovertemplate=hover.replace("{}", name)
                )
        for name, (_, colour, symbol, text) in EDGES.items():
            figure.add_scatter(
                name=name, x=names, yaxis="y2", mode="markers", hovertemplate=f"<b>%{{x}}</b><br>{text}<extra></extra>",
                marker={"symbol": symbol, "size": max(5, min(9, 420 // len(names))), "color": theme.tone(colour)},
            )  # fmt: skip
        ticks = _ticks(flow.layers)
        figure.update_layout(
            template=theme.template(),
            uirevision=str(len(names)),
            barmode="overlay",
            bargap=0.25 if len(names) < 60 else 0.1,
            xaxis={
                "type": "category", "showgrid": False, "range": [-0.6, len(names) - 0.4],
                "tickmode": "array", "tickangle": 0, "tickvals": [names[i] for i in ticks],
                "ticktext": [words.plain(words.shorten(flow.layers[i], LABEL)) for i in ticks],
            },
            yaxis={"type": "log", "tickmode": "array"},
            yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        )  # fmt: skip
        return figure


def edges(flow: GradientFlow) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Which layers stand at an edge of the axis, and why; masks of shape ``(layers,)``."""
    present = flow.state == GradientState.PRESENT
    finite = np.isfinite(flow.mean) & np.isfinite(flow.max)
    return {
        "missing": flow.state == GradientState.MISSING,
        "frozen": flow.state == GradientState.FROZEN,
        "zero": present & (flow.max == 0),
        "not finite": present & ~finite,
    }


def decades(flow: GradientFlow, clip: Clip) -> list[float]:
    """The axis' ends as powers of ten: whole decades around every value shown, and the clip line."""
    values = np.concatenate([flow.mean, flow.max, flow.clipped_mean, flow.clipped_max])
    shown = values[np.isfinite(values) & (values > 0)]
    if clip.mode is ClipMode.VALUE and clip.threshold > 0:
        shown = np.append(shown, clip.threshold)
    if not shown.size:
        return [-6.0, 0.0]
    low, high = math.floor(math.log10(shown.min())), math.ceil(math.log10(shown.max()) + 0.05)
    return [max(low, high - 12) - 0.12, float(max(high, low + 1))]


def readout(flow: GradientFlow, clipped: bool, step: int) -> str:
    """``mean ▮ max ▯ · conv1 40 × below head · 2 without gradient``."""
    parts = ["mean ▮ max ▯" + (" clipped ▬" if clipped else "")]
    masks = edges(flow)
    for name, word in (
        ("not finite", "not finite"),
        ("missing", "without gradient"),
        ("zero", "at 0"),
        ("frozen", "frozen"),
    ):
        if amount := int(masks[name].sum()):
            parts.append(f"{amount} {word}")
    usable = np.where(np.isfinite(flow.mean) & (flow.mean > 0), flow.mean, np.nan)
    if np.isfinite(usable).sum() > 1:
        low, high = int(np.nanargmin(usable)), int(np.nanargmax(usable))
        ratio = usable[high] / usable[low]
        parts.append(f"{_called(flow.layers[low])} {ratio:,.3g} × below {_called(flow.layers[high])}")
    return " · ".join([*parts, f"step {words.count(step)}"])


def _axis(flow: GradientFlow, clip: Clip) -> dict[str, Json]:
    low, high = decades(flow, clip)
    stride = max(1, math.ceil((high - low) / 7))
    powers = range(math.ceil(low), math.floor(high) + 1, stride)
    return {
        "range": [low, high],
        "tickvals": [10.0**power for power in powers],
        "ticktext": [f"1e{power}" for power in powers],
    }


def _ticks(layers: Sequence[str]) -> list[int]:
    """The layers whose names are written out: as many as fit beside each other in the narrowest chart."""
    longest = max(min(len(name), LABEL) for name in layers)
    stride = math.ceil(len(layers) / max(2, 62 // (longest + 2)))
    return list(range(stride // 2, len(layers), stride)) if stride > 1 else list(range(len(layers)))


def _clip_line(clip: Clip) -> dict[str, Json]:
    """Clipping by value is a height on this axis; clipping by norm is not, and is only said."""
    if clip.mode is not ClipMode.VALUE or clip.threshold <= 0:
        return {"shapes": [], "annotations": []}
    line = {"color": theme.tone("clip"), "width": 1.2, "dash": "dash"}
    shape = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": clip.threshold,
        "y1": clip.threshold,
        "line": line,
    }
    label = {
        "xref": "paper", "x": 1, "y": math.log10(clip.threshold), "xanchor": "right", "yanchor": "bottom",
        "text": f"clip {clip.threshold:g}", "showarrow": False, "font": {"size": 10.5, "color": theme.tone("clip")},
    }  # fmt: skip
    return {"shapes": [shape], "annotations": [label]}


def _called(layer: str) -> str:
    """A layer's name in a sentence; a bare number needs the word before it."""
    return f"layer {layer}" if layer[:1].isdigit() else layer
