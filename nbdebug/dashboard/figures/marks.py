"""What was done along the runs, as lines and labels on the loss chart, and where a rewound model stands.

Pure; drawing thread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nbdebug.dashboard import ability, breakpoints, theme, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.runs import Mark
from nbdebug.records.stops import Halt
from nbdebug.records.view import RunView, View

MOST_LINES = 60
MOST_LABELS = 8
LABEL_LETTERS = 26
LABEL_SHARE = 0.018  # of the chart's width, a letter


def lines(view: View, runs: Sequence[RunView], tones: Mapping[str, str]) -> dict[str, Json]:
    """A dashed line for every intervention of the drawn ``runs``; the latest few are labelled, on three heights."""
    shown, last = {run.run.name: run.run.shown for run in runs}, span(runs)
    told = [mark for mark in view.marks if mark.run in shown and not _tells_of(mark, view.stop)]
    merged = merge_marks(told, last)[-MOST_LINES:]
    levels = _levels(merged, last)
    shapes, labels = _here(view)
    if view.stop is not None and view.stop.run in shown:
        for made, into in zip(_stop(view.stop, last), (shapes, labels), strict=True):
            into.append(made)
    for index, mark in enumerate(merged):
        colour = theme.tone(tones[mark.run])
        line = {"color": colour, "width": 1.1, "dash": "dash"}
        shapes.append(
            {"type": "line", "x0": mark.step, "x1": mark.step, "yref": "paper", "y0": 0, "y1": 1, "line": line}
        )
        if index in levels:
            labels.append(_label(mark, shown[mark.run], colour, levels[index], _leans_left(mark.step, last)))
    return {"shapes": shapes, "annotations": labels}


def _here(view: View) -> tuple[list[Json], list[Json]]:
    """A thin line where the model stands, if that is before the end of its run."""
    step = ability.here(view)
    if step is None:
        return [], []
    line = {"color": theme.tone("ink"), "width": 1.2}
    left = _leans_left(step, max(1.0, float(view.status.last_step)))
    label = {
        "x": step, "y": 0, "yref": "paper", "text": "model here", "showarrow": False, "yanchor": "bottom", "yshift": 8,
        "xanchor": "right" if left else "left", "xshift": -3 if left else 3,
        "font": {"size": 10.5, "color": theme.tone("ink")},
    }  # fmt: skip
    return [{"type": "line", "x0": step, "x1": step, "yref": "paper", "y0": 0, "y1": 1, "line": line}], [label]


def stopped(view: View) -> str:
    """What the line of a stop depends on."""
    stop = view.stop
    return "" if stop is None else f"{breakpoints.tone(stop)} {stop.step} {stop.before_update} {stop.run}"


def _tells_of(mark: Mark, stop: Halt | None) -> bool:
    """Whether a mark says the same as the line of the present stop."""
    return stop is not None and (mark.run, mark.step) == (stop.run, stop.step) and mark.text.startswith("stopped")


def _stop(stop: Halt, last: float) -> tuple[Json, Json]:
    """A full line where training stopped within a step, and its label at the foot."""
    colour, left = theme.tone(breakpoints.tone(stop)), _leans_left(stop.step, last)
    at = {"type": "line", "x0": stop.step, "x1": stop.step, "yref": "paper", "y0": 0, "y1": 1}
    label = {
        "x": stop.step, "y": 0, "yref": "paper", "text": "◼ stopped", "showarrow": False, "yanchor": "bottom",
        "yshift": 22, "xanchor": "right" if left else "left", "xshift": -3 if left else 3,
        "hovertext": words.plain(breakpoints.sentence(stop)), "font": {"size": 10.5, "color": colour},
    }  # fmt: skip
    return {**at, "line": {"color": colour, "width": 1.6}}, label


def _levels(marks: Sequence[Mark], last_step: float) -> dict[int, int]:
    """Which marks are labelled, and on which of three heights: the latest first, and none over another."""
    taken: list[list[tuple[float, float]]] = [[], [], []]
    levels: dict[int, int] = {}
    for index, mark in reversed(list(enumerate(marks))):
        width = LABEL_SHARE * (min(len(mark.text), LABEL_LETTERS) + 2) * last_step
        left = mark.step - width if _leans_left(mark.step, last_step) else mark.step
        place = (left, left + width)
        free = (level for level, others in enumerate(taken) if all(place[1] < o[0] or place[0] > o[1] for o in others))
        level = next(free, None)
        if level is not None and len(levels) < MOST_LABELS:
            levels[index] = level
            taken[level].append(place)
    return levels


def _leans_left(step: int, last_step: float) -> bool:
    """Whether a label at a step is written to its left, for want of room at its right."""
    return step > 0.7 * last_step


def _label(mark: Mark, run: str, colour: str, level: int, left: bool) -> dict[str, Json]:
    return {
        "x": mark.step, "y": 1, "yref": "paper", "text": words.plain(words.shorten(mark.text, LABEL_LETTERS)),
        "hovertext": words.plain(f"{mark.text} (after step {mark.step:,} of {run})"),
        "showarrow": False, "xanchor": "right" if left else "left", "yanchor": "bottom",
        "yshift": 3 - 13 * level, "xshift": -2 if left else 2, "font": {"size": 10.5, "color": colour},
    }  # fmt: skip


def span(runs: Sequence[RunView]) -> float:
    """The last step drawn, at least 1."""
    ends = [float(points.steps[-1]) for run in runs for points in (run.train, run.val) if points.steps.size]
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
