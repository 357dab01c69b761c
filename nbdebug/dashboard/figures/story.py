"""One layer over time: its histogram as a heat map, steps by value, and small curves of its numbers below.

Pure; drawing thread. The trace ``histogram`` has a column per recorded step; colours are square roots of the density
on the axis of :mod:`symlog`, each column's largest 1. All columns are in the unit of the latest one.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import theme, words
from nbdebug.dashboard.figures import symlog
from nbdebug.dashboard.figures.panel import Array, Drawing, Floats, Json, cover
from nbdebug.dashboard.lens import CURVES, KIND_WORDS, LAYERS_TAB, Lens
from nbdebug.records.signals import Signal
from nbdebug.records.view import LayerStory, Points, View

MOST_CURVES = 4
NAMES = {
    Signal.UPDATE_RATIO: "update",
    Signal.GRADIENT_NORM: "|gradient|",
    Signal.WEIGHT_NORM: "|weights|",
    Signal.ACTIVATION_STD: "σ activ.",
    Signal.UNITS_DEAD: "dead",
    Signal.SATURATED: "saturated",
}
LOGARITHMIC = (Signal.UPDATE_RATIO, Signal.GRADIENT_NORM)
SHARES = (Signal.UNITS_DEAD, Signal.SATURATED)
CURVE_SHARE = 0.115  # of the chart's height, a curve
MARKS = tuple(4.0**power for power in range(-1, 5))


class StoryPanel:
    """The story of the layer that is looked at."""

    name = "story"
    title = "Story"
    tab = LAYERS_TAB
    period_s = 0.5

    def __init__(self, lens: Lens | None = None) -> None:
        self._lens = lens or Lens()

    def inputs(self, view: View) -> tuple[object, ...]:
        """The story itself."""
        return (view.layers.story, self._lens.tell_of(view))

    def draw(self, view: View) -> Drawing:
        """Heat map and curves over the same steps."""
        story = view.layers.story
        if story is None or not (story.steps.size or story.curves):
            return cover("one layer over time: pick it in a chart or in the table")
        curves = shown(story)
        arrays: dict[tuple[str, str], Array] = {}
        layout: dict[str, Json] = {"annotations": _notes(story, curves)}
        if story.steps.size:
            unit, cells, first, last = _heat(story)
            arrays["histogram", "x"] = story.steps
            arrays["histogram", "y"] = symlog.position(symlog.borders()[first : last + 1])
            arrays["histogram", "z"] = cells
            layout["yaxis"] = _value_axis(unit, first, last)
        for signal, points in curves:
            values = np.where(points.values > 0, points.values, np.nan) if signal in LOGARITHMIC else points.values
            arrays[str(signal), "x"], arrays[str(signal), "y"] = points.steps, values
        return Drawing(
            readout=readout(story),
            structure=(bool(story.steps.size), tuple(signal for signal, _ in curves)),
            arrays=arrays,
            layout=layout,
            title=story.layer,
        )

    def skeleton(self, view: View) -> go.Figure:
        """The heat map above, a strip for each curve below it, one axis of steps at the bottom."""
        story = view.layers.story
        assert story is not None
        curves, figure, blue = shown(story), go.Figure(), theme.tone("train")
        floor = len(curves) * CURVE_SHARE + 0.02 if curves else 0.0
        layout: dict[str, Json] = {"yaxis": {"domain": [floor, 1], "showgrid": False, "tickmode": "array"}}
        if story.steps.size:
            figure.add_heatmap(
                name="histogram", transpose=True, zmin=0, zmax=1, showscale=False, hoverongaps=False,
                colorscale=[[0, theme.tone("panel")], [1, theme.tone("train")]],
                hovertemplate="step %{x:,}<extra></extra>",
            )  # fmt: skip
        for index, (signal, _) in enumerate(curves):
            below = floor - 0.02 - (index + 1) * CURVE_SHARE
            layout[f"yaxis{index + 2}"] = {
                "domain": [below + 0.012, below + CURVE_SHARE - 0.012], "visible": False, "fixedrange": True,
                "type": "log" if signal in LOGARITHMIC else "linear",
                **({"range": [-0.03, 1.05]} if signal in SHARES else {}),
            }  # fmt: skip
            figure.add_scatter(
                name=str(signal), yaxis=f"y{index + 2}", mode="lines", line={"color": blue, "width": 1.3},
                hovertemplate=f"{NAMES[signal]} %{{y:.3g}} at step %{{x:,}}<extra></extra>",
            )  # fmt: skip
        figure.update_layout(
            template=theme.template(),
            uirevision="story",
            margin={"l": 62, "r": 54, "t": 4, "b": 24},
            xaxis={"tickformat": ",d", "nticks": 6, "anchor": "free", "position": 0, "showgrid": False},
            **layout,
        )
        return figure


def readout(story: LayerStory) -> str:
    """``activations · steps 20 to 2,400``."""
    if not story.steps.size:
        return f"no histogram of its {KIND_WORDS[story.signal]}"
    first, last = words.count(int(story.steps[0])), words.count(int(story.steps[-1]))
    return f"{KIND_WORDS[story.signal]} · " + (f"steps {first} to {last}" if first != last else f"step {first}")


def shown(story: LayerStory) -> list[tuple[Signal, Points]]:
    """The curves to draw, in a fixed order: those that have points; shares of units only where there are any."""
    curves = {signal: points for signal, points in story.curves if points.steps.size}
    for signal in SHARES:
        if signal in curves and not (curves[signal].values > 0).any():
            del curves[signal]
    return [(signal, curves[signal]) for signal in CURVES if signal in curves][:MOST_CURVES]


def _heat(story: LayerStory) -> tuple[float, Floats, int, int]:
    """The unit, the colours ``(n, cells)``, and the first and last border of the cells that are used."""
    known = np.flatnonzero(story.counts.any(axis=1))
    latest = int(known[-1]) if known.size else len(story.steps) - 1
    unit = float(symlog.units(story.counts[latest : latest + 1], story.limits[latest : latest + 1])[0])
    cells = symlog.cells(story.counts, story.limits, np.full(len(story.steps), unit))
    used = np.flatnonzero(cells.any(axis=0))
    first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (symlog.SIDE, symlog.SIDE + 1)
    return unit, symlog.heights(symlog.density(cells))[:, first:last], first, last


def _value_axis(unit: float, first: int, last: int) -> dict[str, Json]:
    """True values beside the heat map: the unit is the same for all of it."""
    low, high = symlog.borders()[[first, last]]
    values = [mark for sign in (-1, 1) for mark in (sign * each for each in MARKS) if low <= mark <= high]
    spaced = [mark for mark in values if abs(mark) in (1.0, 16.0, 256.0)] + ([0.0] if low <= 0 <= high else [])
    chosen = sorted(spaced if len(spaced) > 1 else [low, high])
    return {
        "range": symlog.position(np.array([low, high])).tolist(),
        "tickvals": symlog.position(np.array(chosen)).tolist(),
        "ticktext": [words.number(mark * unit).replace("-", "−", 1) if mark else "0" for mark in chosen],
    }


def _notes(story: LayerStory, curves: list[tuple[Signal, Points]]) -> list[Json]:
    """Beside each curve: what it is, and its last value."""
    notes = []
    for index, (signal, points) in enumerate(curves):
        last = float(points.values[-1])
        value = words.percent(last) if signal in SHARES else words.number(last)
        for x, anchor, text, colour in ((0, "right", NAMES[signal], "mute"), (1, "left", value, "ink")):
            notes.append(
                {
                    "xref": "paper", "x": x, "xanchor": anchor, "xshift": -5 if x == 0 else 5, "yref": "paper",
                    "y": (len(curves) - index - 0.5) * CURVE_SHARE, "yanchor": "middle", "text": text,
                    "showarrow": False, "font": {"size": 10.5, "color": theme.tone(colour)},
                }
            )  # fmt: skip
    return notes
