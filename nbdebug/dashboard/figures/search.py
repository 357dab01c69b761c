"""A search as parallel coordinates: an axis for each knob and one for the score, a line for each trial.

Pure; drawing thread. Positions are shares of an axis's height, the best score at the top. A list of values stands in
its order at equal distances, a range on the scale it was drawn on. Traces: ``score1`` (the best fifth of the score's
axis) to ``score5``, ``ended`` early, ``lost`` (not finite, below the axis); lines of a trace are parted by NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import search, theme, words
from nbdebug.dashboard.figures.panel import Drawing, Floats, Json, cover
from nbdebug.records.search import SearchResult, Trial, is_log
from nbdebug.records.view import View

EMPTY = "no search was made yet: it tries settings on branches from here, and puts everything back as it was"
WAITING = "the first trial is under way"
TONES = ("score1", "score2", "score3", "score4", "score5")
LOOKS: dict[str, Json] = {
    **{tone: {"line": {"color": theme.tone(tone), "width": 1.8}} for tone in TONES},
    "ended": {"line": {"color": theme.tone("mute"), "width": 1.1, "dash": "dot"}},
    "lost": {"line": {"color": theme.tone("bad"), "width": 1.3, "dash": "dash"}},
}
LOST = -0.13  # where a score that is not finite stands
APART = 0.1  # of the height, at least, between two labels
FAR = 3.0  # times as far from the best as the median is: what is worse stands at the end of the axis


@dataclass(frozen=True, slots=True)
class Axis:
    """One knob, or the score: where each trial stands on it, from 0 to 1, and what is written where."""

    name: str
    places: Floats
    ticks: tuple[tuple[float, str], ...]


class SearchPanel:
    """The latest search."""

    name = "search"
    title = "Settings and scores"
    tab = search.SEARCH_TAB
    period_s = 0.0

    def inputs(self, view: View) -> tuple[object, ...]:
        """What was found so far."""
        return (view.search,)

    def draw(self, view: View) -> Drawing:
        """A line for each trial."""
        found = view.search
        if found is None:
            return cover(EMPTY)
        if not found.trials:
            return cover(found.note or WAITING)
        made = axes(found)
        lines = np.array([axis.places for axis in made]).T
        groups = [group_of(trial, line[-1]) for trial, line in zip(found.trials, lines, strict=True)]
        return Drawing(
            readout=search.readout(found),
            structure=len(made),
            arrays={
                (name, attribute): values
                for name in LOOKS
                for attribute, values in _curve(lines[[group == name for group in groups]]).items()
            },
            layout={
                "annotations": [*_heads(made), *_labels(made)],
                "yaxis": {"range": [LOST - 0.05 if "lost" in groups else -0.05, 1.05]},
                "meta": {
                    "heads": [axis.name for axis in made],
                    "numbers": [trial.number for trial in found.trials],
                    "lines": np.round(lines, 4).tolist(),
                },
            },
        )

    def skeleton(self, view: View) -> go.Figure:
        """The axes, the last one in the colours of its scores."""
        count = 1 + len(view.search.space if view.search is not None else ())
        figure = go.Figure()
        for name, look in LOOKS.items():
            figure.add_scatter(name=name, mode="lines", hoverinfo="skip", **look)
        fixed = {"showgrid": False, "zeroline": False, "showticklabels": False, "fixedrange": True}
        figure.update_layout(
            template=theme.template(),
            margin={"l": 62, "r": 62, "t": 30, "b": 8},
            xaxis={**fixed, "range": [0, max(count - 1, 1)]},
            yaxis=fixed,
            dragmode=False,
            hovermode=False,
            shapes=[*(_upright(at) for at in range(count)), *_key(count - 1)],
        )
        return figure


def axes(found: SearchResult) -> list[Axis]:
    """One for each knob, in the order in which they were named, and the score's."""
    made = [_knob(name, values, found.trials) for name, values in found.space.items()]
    return [*made, _score(found)]


def group_of(trial: Trial, place: float) -> str:
    """The trace that a trial is drawn by."""
    if math.isnan(trial.score):
        return "lost"
    if trial.ended:
        return "ended"
    return TONES[min(int((1 - place) * len(TONES)), len(TONES) - 1)]


def _knob(name: str, values: Sequence[Any], trials: Sequence[Trial]) -> Axis:
    tried = [trial.setting.get(name) for trial in trials]
    if isinstance(values, tuple):
        low, high = float(values[0]), float(values[1])
        log = is_log(low, high)
        places = [_place(float(value), low, high, log) if _is_number(value) else 0.5 for value in tried]
        return Axis(name, np.array(places), tuple(_ticks(low, high, log)))
    texts = [search.value_text(value) for value in _in_order(values)]
    known = list(dict.fromkeys(texts))
    at = {text: index / (len(known) - 1) if len(known) > 1 else 0.5 for index, text in enumerate(known)}
    places = [at.get(search.value_text(value), 0.5) for value in tried]
    return Axis(name, np.array(places), _apart([(place, text) for text, place in at.items()]))


def _score(found: SearchResult) -> Axis:
    """The best at the top."""
    scores = np.array([trial.score for trial in found.trials])
    known = scores[np.isfinite(scores)]
    if not known.size:
        return Axis(found.measure, np.full(scores.size, LOST), ((LOST, "not finite"),))
    low, high = _span(known, found.lower_is_better)
    log = is_log(low, high)
    up = [_place(float(score), low, high, log) if math.isfinite(score) else math.nan for score in scores]
    places = 1 - np.array(up) if found.lower_is_better else np.array(up)
    ticks = [(1 - at if found.lower_is_better else at, text) for at, text in _ticks(low, high, log)]
    if high < known.max() or low > known.min():
        ticks = [(at, text if at else f"{'≥' if found.lower_is_better else '≤'} {text}") for at, text in ticks]
    lost = [(LOST, "not finite")] if known.size < scores.size else []
    return Axis(found.measure, np.where(np.isnan(places), LOST, places), (*ticks, *lost))


def _span(known: Floats, lower: bool) -> tuple[float, float]:
    """The ends of the score's axis: a few that are far worse than the median would flatten all that matters."""
    low, high, middle = float(known.min()), float(known.max()), float(np.median(known))
    if lower and middle > low:
        return low, min(high, low + FAR * (middle - low))
    if not lower and middle < high:
        return max(low, high - FAR * (high - middle)), high
    return low, high


def _place(value: float, low: float, high: float, log: bool) -> float:
    if high <= low:
        return 1.0
    share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
    return min(1.0, max(0.0, share))


def _ticks(low: float, high: float, log: bool) -> list[tuple[float, str]]:
    """The ends, and what is round between them."""
    ends = [(0.0, _short(low)), (1.0, _short(high))]
    if high <= low:
        return ends[1:]
    if log:
        between = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    else:
        between = [low + (high - low) / 2]
    inner = [(_place(value, low, high, log), _short(value)) for value in between]
    return list(_apart([*ends, *inner]))


def _short(value: float) -> str:
    """A round number as one would type it."""
    return words.rate(value).replace(".0e", "e") if 0 < abs(value) < 1e-2 else search.value_text(value)


def _apart(ticks: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Those that leave room for each other, the first ones first."""
    kept: list[tuple[float, str]] = []
    for at, text in ticks:
        if all(abs(at - other) >= APART for other, _ in kept):
            kept.append((at, text))
    return tuple(sorted(kept))


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Numbers grow upwards; what is off comes first; anything else stays as it was given."""
    if all(value is None or _is_number(value) for value in values):
        return sorted(values, key=lambda value: (value is not None, value or 0))
    return list(values)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _curve(lines: Floats) -> dict[str, Floats]:
    """Many lines as one, parted by NaN."""
    count, width = lines.shape
    parted = np.full((count, width + 1), math.nan)
    parted[:, :-1] = lines
    places = np.tile(np.append(np.arange(width, dtype=np.float64), math.nan), (count, 1))
    return {"x": places.ravel(), "y": parted.ravel()}


def _upright(at: int) -> Json:
    line = {"color": theme.tone("line"), "width": 1.4}
    return {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": line, "layer": "below"}


def _key(at: int) -> list[Json]:
    """The score's axis in the colours of its lines, from the best at the top."""
    high = [1 - index / len(TONES) for index in range(len(TONES) + 1)]
    return [
        {
            "type": "line", "x0": at, "x1": at, "y0": low, "y1": top, "xref": "x",
            "line": {"color": theme.tone(tone), "width": 5},
        }
        for tone, top, low in zip(TONES, high, high[1:], strict=False)
    ]  # fmt: skip


def _heads(made: Sequence[Axis]) -> list[Json]:
    font = {"size": 11.5, "color": theme.tone("ink")}
    look = {"y": 1, "yanchor": "bottom", "yshift": 9, "showarrow": False, "font": font}
    return [{"x": at, "text": words.plain(axis.name), "xanchor": "center", **look} for at, axis in enumerate(made)]


def _labels(made: Sequence[Axis]) -> list[Json]:
    """Beside their axes: to the right of the last one, to the left of the others."""
    last = len(made) - 1
    return [
        {
            "x": at, "y": place, "text": words.plain(text), "showarrow": False, "yanchor": "middle",
            "xanchor": "left" if at == last else "right", "xshift": 5 if at == last else -3,
            "font": {"size": 10.5, "color": theme.tone("mute")}, "bgcolor": theme.tone("panel"), "opacity": 0.9,
            "borderpad": 1,
        }
        for at, axis in enumerate(made)
        for place, text in axis.ticks
    ]  # fmt: skip
