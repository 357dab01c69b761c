"""The loss chart: every drawn run's raw, smoothed and validation loss over steps, and what was done along the way.

Pure; drawing thread. Traces are named ``<run> train``, ``<run> smooth`` and ``<run> val`` and hold exactly the
points given. Only a branch's smooth curve begins with one point more, its parent's at the step where it left, so that
it is seen to leave there. What is not finite cannot be placed on the axis: it is shown at the top edge, as ``NaN`` or
``inf``.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import ability, breakpoints, theme, words
from nbdebug.dashboard.figures import landmarks, marks
from nbdebug.dashboard.figures.panel import Array, Drawing, Floats, Json, cover
from nbdebug.dashboard.tree import Legend, training
from nbdebug.records.view import Points, RunView, View

MOST_MARKERS = 80
EDGE = 0.965
SIGNAL = "loss"  # as conditions call what this chart shows


@dataclass(frozen=True, slots=True)
class _Joined:
    """A branch's smooth curve with its parent's point before it, and what both were made of."""

    smooth: Points
    fork: tuple[float, float]
    curve: tuple[Floats, Floats]


class Loss:
    """Loss over steps."""

    name = "loss"
    title = "Loss"
    tab = ""
    period_s = 0.0

    def __init__(self, legend: Legend | None = None) -> None:
        self._legend = legend or Legend()
        self._joined: dict[str, _Joined] = {}

    def inputs(self, view: View) -> tuple[object, ...]:
        """The curves and marks themselves, not the tuples that they come in: those are new every time."""
        curves = (each for run in view.runs for each in (run.run, run.train, run.smooth, run.val))
        status = view.status
        here = ability.here(view)
        stop = marks.stopped(view)
        lines = json.dumps(breakpoints.aims(view, SIGNAL))
        return (
            *curves, *view.marks, view.snapshots, self._legend.choices, status.run, here, status.last_step, lines, stop
        )  # fmt: skip

    def draw(self, view: View) -> Drawing:
        """All points of the drawn runs, and the marks as lines and labels."""
        runs = self._legend.drawn(view)
        if not runs and training(view.runs):
            return cover("every run is switched off: tick one in the table of runs")
        if not any(run.train.steps.size or run.val.steps.size for run in runs):
            return cover("press ▶ to train")
        tones = self._legend.tones(view.runs)
        by_name = {run.run.name: run for run in view.runs}
        forks = {run.run.name: at for run in runs if run.smooth.steps.size and (at := landmarks.fork(run, by_name))}
        best = landmarks.best_ones(view, runs)
        return Drawing(
            readout=readout(view, len(runs)),
            structure=_structure(runs, tones),
            arrays=self._curves(runs, forks) | _edge_arrays(runs) | landmarks.arrays(view, runs, forks, best),
            layout={**marks.lines(view, runs, tones), "meta": {"log": _positive(runs), "breaks": _breaks(view)}},
            traces={trace_name(run, "val"): {"mode": _val_mode(run)} for run in runs}
            | landmarks.patches(runs, forks, best, tones),
        )

    def skeleton(self, view: View) -> go.Figure:
        """Branches lie over their parents; the first run's validation has its own colour, as the eye expects."""
        figure = go.Figure()
        tones, first = self._legend.tones(view.runs), training(view.runs)[0].run.name
        for run in self._legend.drawn(view):
            figure.add_traces(_run_traces(run, tones[run.run.name], first=run.run.name == first))
        figure.add_traces(landmarks.traces())
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

    def _curves(
        self, runs: Sequence[RunView], forks: Mapping[str, tuple[float, float]]
    ) -> dict[tuple[str, str], Array]:
        arrays: dict[tuple[str, str], Array] = {}
        for run in runs:
            for kind, points in (("train", run.train), ("smooth", run.smooth), ("val", run.val)):
                name = trace_name(run, kind)
                arrays[name, "x"], arrays[name, "y"] = points.steps, points.values
        self._joined = {run.run.name: self._join(run, forks[run.run.name]) for run in runs if run.run.name in forks}
        for run in runs:
            if run.run.name in forks:
                name = trace_name(run, "smooth")
                arrays[name, "x"], arrays[name, "y"] = self._joined[run.run.name].curve
        return arrays

    def _join(self, run: RunView, fork: tuple[float, float]) -> _Joined:
        """A branch's smooth curve from its parent's on: the same arrays again while it has not grown."""
        kept = self._joined.get(run.run.name)
        if kept is not None and kept.smooth is run.smooth and kept.fork == fork:
            return kept
        return _Joined(run.smooth, fork, landmarks.prepended(fork, run.smooth))


def _edge_arrays(runs: Sequence[RunView]) -> dict[tuple[str, str], Array]:
    """The marks at the top edge, and where one of a cluster is labelled."""
    arrays: dict[tuple[str, str], Array] = {}
    for kind, steps in non_finite(runs).items():
        labels = _first_of_clusters(steps)
        arrays[kind, "x"], arrays[kind, "y"] = steps, np.full(steps.size, EDGE)
        arrays[f"{kind} label", "x"], arrays[f"{kind} label", "y"] = labels, np.full(labels.size, EDGE - 0.03)
    return arrays


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
    """``train 0.142 · val 0.187 · best 0.171 at 2,310``, of the run in the model; of a rewound one, at its step."""
    run = next((run for run in view.runs if run.run.name == view.status.run), view.runs[0])
    step = ability.here(view)
    parts = [] if step is None else [f"at step {words.count(step)}"]
    for kind, points in (("train", run.train), ("val", run.val)):
        reached = points.values.size if step is None else int(np.searchsorted(points.steps, step, side="right"))
        parts += [f"{kind} {words.number(float(points.values[reached - 1]))}"] if reached else []
    if np.isfinite(run.val.values).any():
        best = int(np.nanargmin(np.where(np.isfinite(run.val.values), run.val.values, np.nan)))
        best_value = words.number(float(run.val.values[best]))
        parts.append(f"best {best_value} at {words.count(int(run.val.steps[best]))}")
    if drawn < (all_runs := len(training(view.runs))):
        parts.append(f"{drawn} of {all_runs} runs drawn")
    return " · ".join(parts)


def _structure(runs: Sequence[RunView], tones: Mapping[str, str]) -> Hashable:
    return tuple((run.run.name, run.run.title, tones[run.run.name]) for run in runs)


def _breaks(view: View) -> Json:
    """The breakpoints on the loss, and the trace whose last value is the latest."""
    return breakpoints.aims(view, SIGNAL) | {"trace": f"{words.plain(view.status.run)} train"}


def _positive(runs: Sequence[RunView]) -> bool:
    """Whether a log axis would show every finite value."""
    curves = [points.values for run in runs for points in (run.train, run.val)]
    return not any((values <= 0).any() for values in curves)


def _run_traces(run: RunView, tone: str, *, first: bool) -> list[go.Scatter]:
    name, shown, colour = words.plain(run.run.name), words.plain(run.run.shown), theme.tone(tone)
    common = {
        "connectgaps": False,
        "hovertemplate": "<b>%{y:.4g}</b> at step %{x:,}<extra>%{fullData.meta}</extra>",
    }
    return [
        go.Scatter(
            name=f"{name} train", meta=f"{shown} train", mode="lines", line={"color": colour, "width": 1}, opacity=0.3,
            **common,
        ),
        go.Scatter(
            name=f"{name} smooth", meta=f"{shown} smooth", mode="lines", line={"color": colour, "width": 1.9}, **common
        ),
        go.Scatter(
            name=f"{name} val", meta=f"{shown} val", mode="lines+markers",
            line={"color": theme.tone("val") if first else colour, "width": 1.6, "dash": "solid" if first else "dot"},
            marker={"size": 5, "symbol": "circle" if first else "diamond"}, **common,
        ),
    ]  # fmt: skip
