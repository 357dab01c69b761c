"""The loss chart: every run's raw, smoothed and validation loss over steps, with a mark at each intervention.

Pure; drawing thread. Traces are named ``<run> train``, ``<run> smooth`` and ``<run> val`` and hold exactly the
points given. What is not finite cannot be placed on the axis: it is shown at the top edge, as ``NaN`` or ``inf``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import theme, words
from nbdebug.dashboard.figures.panel import Drawing, Floats, Json, cover
from nbdebug.records.runs import Mark
from nbdebug.records.view import Points, RunView, View

MOST_RUNS = 12
MOST_LABELS = 8
MOST_MARKERS = 80
EDGE = 0.965
LABEL_LETTERS = 26
LABEL_SHARE = 0.018  # of the chart's width, a letter


class Loss:
    """Loss over steps."""

    name = "loss"
    title = "Loss"

    def inputs(self, view: View) -> tuple[object, ...]:
        """The curves themselves: they grow with every step."""
        return (view.runs, view.marks, view.status.run)

    def draw(self, view: View) -> Drawing:
        """All points of the drawn runs, and the marks as lines and labels."""
        runs = drawn_runs(view)
        if not any(run.train.steps.size or run.val.steps.size for _, run in runs):
            return cover("press ▶ to train")
        arrays: dict[tuple[str, str], Floats] = {}
        for _, run in runs:
            for kind, points in (("train", run.train), ("smooth", run.smooth), ("val", run.val)):
                name = trace_name(run, kind)
                arrays[name, "x"] = points.steps.astype(np.float64)
                arrays[name, "y"] = points.values
        for kind, steps in non_finite([run for _, run in runs]).items():
            arrays[kind, "x"] = steps
            arrays[kind, "y"] = np.full(steps.size, EDGE)
            labels = _first_of_clusters(steps)
            arrays[f"{kind} label", "x"] = labels
            arrays[f"{kind} label", "y"] = np.full(labels.size, EDGE - 0.03)
        return Drawing(
            readout=readout(view, len(runs)),
            structure=_structure(runs),
            arrays=arrays,
            layout={**_marks(view), "meta": {"log": _positive(runs)}},
            traces={trace_name(run, "val"): {"mode": _val_mode(run)} for _, run in runs},
        )

    def skeleton(self, view: View) -> go.Figure:
        """Branches lie over their parents; the first run's validation has its own colour, as the eye expects."""
        figure = go.Figure()
        for index, run in drawn_runs(view):
            figure.add_traces(_run_traces(index, run))
        for kind, symbol in (("NaN", "x"), ("inf", "triangle-up")):
            marker = {"symbol": symbol, "size": 8, "color": theme.tone("bad")}
            hover = f"{kind} at step %{{x:,}}<extra></extra>"
            figure.add_scatter(name=kind, yaxis="y2", mode="markers", marker=marker, hovertemplate=hover)
            figure.add_scatter(
                name=f"{kind} label", yaxis="y2", mode="text", text=kind, textposition="bottom center",
                textfont={"size": 10.5, "color": theme.tone("bad")}, hoverinfo="skip",
            )  # fmt: skip
        figure.update_layout(
            template=theme.template(),
            uirevision="loss",
            margin={"t": 18},
            xaxis={"title": {"text": "step"}, "tickformat": ",d", "nticks": 7, "showspikes": False},
            yaxis={"tickformat": "~g", "nticks": 6},
            yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        )
        return figure


def drawn_runs(view: View) -> list[tuple[int, RunView]]:
    """The runs to draw with their colour's index: the first, the one in the model, and the latest."""
    numbered = list(enumerate(view.runs))
    if len(numbered) <= MOST_RUNS:
        return numbered
    kept = set(range(len(numbered) - MOST_RUNS + 2, len(numbered))) | {0}
    return [(i, run) for i, run in numbered if i in kept or run.run.name == view.status.run]


def _val_mode(run: RunView) -> str:
    """Single validations are points; very many of them a line."""
    return "lines+markers" if run.val.steps.size <= MOST_MARKERS else "lines"


def trace_name(run: RunView, kind: str) -> str:
    """A trace's name, escaped as plotly needs it."""
    return f"{words.plain(run.run.name)} {kind}"


def non_finite(runs: Sequence[RunView]) -> dict[str, Floats]:
    """The steps at which a loss was NaN or infinite, in order, over train and val of all runs."""
    curves = [points for run in runs for points in (run.train, run.val)]
    return {
        "NaN": _steps_where(curves, np.isnan),
        "inf": _steps_where(curves, np.isinf),
    }


def _steps_where(curves: Sequence[Points], test: np.ufunc) -> Floats:
    found = [points.steps[test(points.values)] for points in curves]
    return np.unique(np.concatenate(found)).astype(np.float64) if found else np.empty(0)


def _first_of_clusters(steps: Floats, most: int = 4) -> Floats:
    """Where to write the label: the first of each cluster, at most ``most`` of them."""
    if not steps.size:
        return steps
    gap = max(1.0, (steps[-1] - steps[0]) / most)
    kept = [steps[0]]
    for step in steps[1:]:
        if step - kept[-1] > gap:
            kept.append(step)
    return np.array(kept)


def readout(view: View, drawn: int) -> str:
    """``train 0.142 · val 0.187 · best val 0.171 at 2,310``, of the run in the model."""
    run = next((run for run in view.runs if run.run.name == view.status.run), view.runs[0])
    parts = []
    if run.train.values.size:
        parts.append(f"train {words.number(float(run.train.values[-1]))}")
    if run.val.values.size:
        parts.append(f"val {words.number(float(run.val.values[-1]))}")
        if np.isfinite(run.val.values).any():
            best = int(np.nanargmin(np.where(np.isfinite(run.val.values), run.val.values, np.nan)))
            best_value = words.number(float(run.val.values[best]))
            parts.append(f"best {best_value} at {words.count(int(run.val.steps[best]))}")
    if drawn < len(view.runs):
        parts.append(f"{drawn} of {len(view.runs)} runs drawn")
    return " · ".join(parts)


def _structure(runs: Sequence[tuple[int, RunView]]) -> Hashable:
    return tuple((index, run.run.name) for index, run in runs)


def _positive(runs: Sequence[tuple[int, RunView]]) -> bool:
    """Whether a log axis would show every finite value."""
    curves = [points.values for _, run in runs for points in (run.train, run.val)]
    return not any((values <= 0).any() for values in curves)


def _run_traces(index: int, run: RunView) -> list[go.Scatter]:
    name = words.plain(run.run.name)
    colour = theme.tone(theme.run_tone(index))
    val_colour = theme.tone("val") if index == 0 else colour
    hover = "<b>%{y:.4g}</b> at step %{x:,}<extra>%{fullData.name}</extra>"
    return [
        go.Scatter(
            name=f"{name} train", mode="lines", line={"color": colour, "width": 1}, opacity=0.3,
            connectgaps=False, hovertemplate=hover,
        ),
        go.Scatter(
            name=f"{name} smooth", mode="lines", line={"color": colour, "width": 1.9},
            connectgaps=False, hovertemplate=hover,
        ),
        go.Scatter(
            name=f"{name} val", mode="lines+markers", hovertemplate=hover,
            line={"color": val_colour, "width": 1.6, "dash": "solid" if index == 0 else "dot"},
            marker={"size": 5, "symbol": "circle" if index == 0 else "diamond"},
        ),
    ]  # fmt: skip


def _marks(view: View) -> dict[str, Json]:
    """A dashed line for every intervention; the latest few are labelled, on three heights."""
    colours = {run.run.name: theme.tone(theme.run_tone(index)) for index, run in enumerate(view.runs)}
    merged = merge_marks(view.marks, span(view))[-60:]
    levels = _levels(merged, span(view))
    shapes, labels = [], []
    for index, mark in enumerate(merged):
        colour = colours.get(mark.run, theme.tone("mute"))
        line = {"color": colour, "width": 1.1, "dash": "dash"}
        shapes.append(
            {"type": "line", "x0": mark.step, "x1": mark.step, "yref": "paper", "y0": 0, "y1": 1, "line": line}
        )
        if index in levels:
            labels.append(_label(mark, colour, levels[index], _leans_left(mark, span(view))))
    return {"shapes": shapes, "annotations": labels}


def _levels(marks: Sequence[Mark], last_step: float) -> dict[int, int]:
    """Which marks are labelled, and on which of three heights: the latest first, and none over another."""
    taken: list[list[tuple[float, float]]] = [[], [], []]
    levels: dict[int, int] = {}
    for index, mark in reversed(list(enumerate(marks))):
        width = LABEL_SHARE * (min(len(mark.text), LABEL_LETTERS) + 2) * last_step
        left = mark.step - width if _leans_left(mark, last_step) else mark.step
        place = (left, left + width)
        free = (level for level, others in enumerate(taken) if all(place[1] < o[0] or place[0] > o[1] for o in others))
        level = next(free, None)
        if level is not None and len(levels) < MOST_LABELS:
            levels[index] = level
            taken[level].append(place)
    return levels


def _leans_left(mark: Mark, last_step: float) -> bool:
    """Whether a mark's label is written to its left, for want of room at its right."""
    return mark.step > 0.7 * last_step


def _label(mark: Mark, colour: str, level: int, left: bool) -> dict[str, Json]:
    return {
        "x": mark.step, "y": 1, "yref": "paper", "text": words.plain(words.shorten(mark.text, LABEL_LETTERS)),
        "hovertext": words.plain(f"{mark.text} (after step {mark.step:,} of {mark.run})"),
        "showarrow": False, "xanchor": "right" if left else "left", "yanchor": "bottom",
        "yshift": 3 - 13 * level, "xshift": -2 if left else 2, "font": {"size": 10.5, "color": colour},
    }  # fmt: skip


def span(view: View) -> float:
    """The last step drawn, at least 1."""
    ends = [float(points.steps[-1]) for run in view.runs for points in (run.train, run.val) if points.steps.size]
    return max([1.0, *ends])


def merge_marks(marks: Sequence[Mark], last_step: float) -> list[Mark]:
    """Marks of one drag become one, where it ended: same run, near steps. Of each knob only the last word is kept.

    Near is a power of two of steps, about a fiftieth of the chart, so that labels do not regroup on every tick.
    """
    near = 2.0 ** math.floor(math.log2(max(1.0, last_step) / 50)) if last_step >= 50 else 1.0
    groups: list[tuple[Mark, dict[str, str]]] = []
    latest: dict[str, int] = {}
    for mark in sorted(marks, key=lambda each: each.step):
        knob, home = mark.text.split(" ", 1)[0], latest.get(mark.run)
        if home is not None and mark.step - groups[home][0].step <= near:
            texts = groups[home][1] | {knob: mark.text}
            groups[home] = (mark, texts)
        else:
            latest[mark.run] = len(groups)
            groups.append((mark, {knob: mark.text}))
    return [Mark(last.run, last.step, ", ".join(texts.values())) for last, texts in groups]
