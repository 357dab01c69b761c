"""The activation chart: the distribution of every layer's output, as ridges for few layers, as a heat map for many.

Pure; drawing thread. Each layer has its own scale, ``-limit … limit``. Heights and colours are square roots of the
counts, per layer, so that tails show. The raw counts travel too, as ``customdata``: of the trace named after the
layer (ridges; one per bin), or of the trace ``counts`` (heat map; layers × bins).
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import theme, words
from nbdebug.dashboard.figures.panel import Array, Drawing, Floats, Json, cover
from nbdebug.records.frames import Activations
from nbdebug.records.view import View

MOST_RIDGES = 12
DEAD = 0.9
LABEL = 17
HEIGHT = 0.86


class ActivationsPanel:
    """Histograms of layer outputs."""

    name = "activations"
    title = "Activations"

    def inputs(self, view: View) -> tuple[object, ...]:
        """The latest measured histograms."""
        return (view.activations, view.activations_step)

    def draw(self, view: View) -> Drawing:
        """Ridges or heat map, by the number of layers."""
        shown = view.activations
        if shown is None or not shown.layers:
            return cover("what each layer puts out, from the first step on")
        ridges = len(shown.layers) <= MOST_RIDGES
        return Drawing(
            readout=readout(shown, view.activations_step),
            structure=(shown.layers, shown.counts.shape[1]),
            arrays=_ridges(shown) if ridges else _heat(shown),
            layout={"annotations": _notes(shown) if ridges else []},
            traces=_colours(shown) if ridges else {},
        )

    def skeleton(self, view: View) -> go.Figure:
        """Layer names on the left, one baseline each, the first layer on top."""
        shown = view.activations
        assert shown is not None
        return _ridge_figure(shown) if len(shown.layers) <= MOST_RIDGES else _heat_figure(shown)


def zero_share(shown: Activations) -> Floats:
    """The share of a layer's values that fall into the bin that holds 0; shape ``(layers,)``."""
    total = shown.counts.sum(axis=1)
    at_zero = shown.counts[:, shown.counts.shape[1] // 2]
    shares: Floats = np.divide(at_zero, total, out=np.zeros_like(total), where=total > 0)
    return shares


def heights(counts: Floats) -> Floats:
    """Square roots of the counts, each layer's largest 1; the same shape, ``(layers, bins)``."""
    top = counts.max(axis=1, keepdims=True)
    tall: Floats = np.sqrt(np.divide(counts, top, out=np.zeros_like(counts), where=top > 0))
    return tall


def readout(shown: Activations, step: int) -> str:
    """``6 layers · fc1 94 % at zero · step 2,412``."""
    parts = [words.plural(len(shown.layers), "layer")]
    shares = zero_share(shown)
    dead = np.flatnonzero(shares > DEAD)
    broken = np.flatnonzero(shown.non_finite > 0)
    if broken.size:
        parts.append(f"NaN or inf in {words.plural(broken.size, 'layer')}, first {shown.layers[broken[0]]}")
    if dead.size == 1:
        parts.append(f"{shown.layers[dead[0]]} {100 * shares[dead[0]]:.0f} % at zero")
    elif dead.size:
        parts.append(f"{dead.size} layers over {DEAD:.0%} at zero, first {shown.layers[dead[0]]}".replace("%", " %"))
    return " · ".join([*parts, f"step {words.count(step)}"])


def _centres(bins: int) -> Floats:
    return (np.arange(bins, dtype=np.float64) + 0.5) * (2 / bins) - 1.0


def _ridges(shown: Activations) -> dict[tuple[str, str], Array]:
    layers, bins = shown.counts.shape
    centres = _centres(bins)
    x = np.concatenate([centres, [1.0, -1.0]])
    arrays: dict[tuple[str, str], Array] = {}
    for index, (layer, ridge) in enumerate(zip(shown.layers, heights(shown.counts), strict=True)):
        name, base = words.plain(layer), float(layers - 1 - index)
        arrays[name, "x"] = x
        arrays[name, "y"] = np.concatenate([base + HEIGHT * ridge, [base, base]])
        arrays[name, "customdata"] = shown.counts[index]
    return arrays


def _heat(shown: Activations) -> dict[tuple[str, str], Array]:
    return {("counts", "z"): heights(shown.counts), ("counts", "customdata"): shown.counts}


def _tone(shown: Activations, index: int, share: float) -> str:
    if shown.non_finite[index] > 0:
        return "bad"
    return "warn" if share > DEAD else "train"


def _colours(shown: Activations) -> dict[str, dict[str, Json]]:
    shares = zero_share(shown)
    colours = {}
    for index, layer in enumerate(shown.layers):
        colour = theme.tone(_tone(shown, index, shares[index]))
        colours[words.plain(layer)] = {"fillcolor": colour, "line": {"color": colour, "width": 1}}
    return colours


def _notes(shown: Activations) -> list[dict[str, Json]]:
    """At the right of each ridge: its spread and scale, or what is wrong with it."""
    notes = []
    for index, share in enumerate(zero_share(shown)):
        text = f"σ {words.number(float(shown.std[index]))}   ±{shown.limit[index]:g}"
        colour = _tone(shown, index, share)
        if colour == "bad":
            text = f"{100 * shown.non_finite[index]:.3g} % NaN or inf"
        elif colour == "warn":
            text = f"{100 * share:.0f} % at zero   ±{shown.limit[index]:g}"
        font = {"size": 10.5, "color": theme.tone("mute" if colour == "train" else colour)}
        notes.append(
            {
                "xref": "paper",
                "x": 1,
                "xanchor": "left",
                "xshift": 8,
                "y": len(shown.layers) - 1 - index,
                "yanchor": "bottom",
                "text": text,
                "showarrow": False,
                "font": font,
            }
        )
    return notes


def _ridge_figure(shown: Activations) -> go.Figure:
    figure = go.Figure()
    for layer in shown.layers:
        name = words.plain(layer)
        figure.add_scatter(
            name=name,
            mode="lines",
            fill="toself",
            opacity=0.78,
            line={"shape": "linear"},
            hovertemplate="<b>%{fullData.name}</b><br>%{customdata:,} values<extra></extra>",
        )
    count = len(shown.layers)
    figure.update_layout(
        template=theme.template(),
        uirevision=str(count),
        hovermode="closest",
        margin={"l": 122, "r": 104, "t": 6, "b": 24},
        xaxis=_scale_axis(),
        yaxis={
            "range": [-0.1, count - 0.02],
            "showgrid": False,
            "ticklabelstandoff": 6,
            "tickmode": "array",
            "tickvals": list(range(count)),
            "ticktext": [words.plain(words.shorten(layer, LABEL)) for layer in reversed(shown.layers)],
        },
    )
    return figure


def _heat_figure(shown: Activations) -> go.Figure:
    layers, bins = shown.counts.shape
    names = [words.plain(layer) for layer in shown.layers]
    stride = -(-layers // 12)
    figure = go.Figure()
    figure.add_heatmap(
        name="counts",
        x=_centres(bins).tolist(),
        y=names,
        zmin=0,
        zmax=1,
        showscale=False,
        colorscale=[[0, theme.tone("panel")], [1, theme.tone("train")]],
        hovertemplate="<b>%{y}</b><br>%{customdata:,} values<extra></extra>",
    )
    figure.update_layout(
        template=theme.template(),
        uirevision=str(layers),
        margin={"l": 122, "r": 16, "t": 6, "b": 24},
        xaxis=_scale_axis(),
        yaxis={
            "type": "category",
            "autorange": "reversed",
            "showgrid": False,
            "tickmode": "array",
            "ticklabelstandoff": 4,
            "tickvals": names[::stride],
            "ticktext": [words.plain(words.shorten(n, LABEL)) for n in shown.layers[::stride]],
        },
    )
    return figure


def _scale_axis() -> dict[str, Json]:
    return {
        "range": [-1, 1],
        "tickmode": "array",
        "tickvals": [-1, -0.5, 0, 0.5, 1],
        "fixedrange": True,
        "ticktext": ["−limit", "", "0", "", "limit"],
    }
