"""Layers: all that a run's samples say about its layers, in bounded memory, and the parts of a view made of it.

Not thread-safe by itself: the journal locks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nbdebug.journal.histogram_track import HistogramTrack, Packed, Story
from nbdebug.journal.layer_table import Bucket, LayerTable
from nbdebug.records.frames import Frame
from nbdebug.records.layers import BINS, LayerValues, Unseen
from nbdebug.records.signals import Signal
from nbdebug.records.view import Focus, LayerStory, LayersView, Points

MAX_STRETCHES = 256
MAX_CURVE_POINTS = 512
MAX_MADE = 64
NO_STORY = Story(np.zeros(0, dtype=np.int64), np.zeros((0, BINS)), np.zeros(0))
NO_FOCUS = Focus()
T = TypeVar("T")


@dataclass(slots=True)
class Known:
    """Up to which step somebody knows a run's layers: the table, and histograms by kind."""

    table: int = -1
    tracks: dict[Signal, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class News:
    """What came since: buckets of the table, the latest values with their step, records of histograms with the width
    of their track. ``held`` is how many of all these there are, new or not.
    """

    buckets: list[Bucket]
    latest: tuple[LayerValues, int] | None
    histograms: list[tuple[Signal, int, Packed]]
    held: int = 0


class Layers:
    """The layers of one run. ``latest`` joins the newest values of every signal, as they were, up to ``step``."""

    def __init__(self) -> None:
        self.table = LayerTable()
        self.tracks: dict[Signal, HistogramTrack] = {}
        self.latest: LayerValues | None = None
        self.step = 0
        self._made: dict[Any, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.latest is not None or self.tracks)

    @property
    def size_bytes(self) -> int:
        """The size of the arrays, about."""
        latest = self.latest.values.nbytes if self.latest is not None else 0
        return self.table.size_bytes + sum(track.size_bytes for track in self.tracks.values()) + latest

    def record(self, frame: Frame) -> None:
        """Take in a sampled step."""
        self._made.clear()
        self.step = frame.step
        if frame.layers is not None:
            self.table.append(frame.step, frame.layers)
            self.latest = newest(self.latest, frame.layers)
        for histograms in frame.histograms:
            self.track(histograms.signal).append(frame.step, histograms)

    def track(self, signal: Signal) -> HistogramTrack:
        """The histograms of one kind, in the order of their signals."""
        if signal not in self.tracks:
            self.tracks[signal] = HistogramTrack(signal)
            order = list(Signal)
            self.tracks = dict(sorted(self.tracks.items(), key=lambda item: order.index(item[0])))
        return self.tracks[signal]

    # -- to and from a file -------------------------------------------------------------------------------------

    def news(self, known: Known) -> News:
        """What somebody who knows so much does not know; ``known`` is brought up to date."""
        buckets = self.table.buckets(known.table)
        latest = (self.latest, self.step) if buckets and self.latest is not None else None
        known.table = max(known.table, self.step if buckets else -1)
        histograms = []
        for signal, track in self.tracks.items():
            histograms += [(signal, track.width, record) for record in track.since(known.tracks.get(signal, -1))]
            known.tracks[signal] = track.records[-1].step
        held = len(self.table) + 1 + sum(len(track.records) for track in self.tracks.values())
        return News(buckets, latest, histograms, held)

    def take_in(self, news: News) -> None:
        """Take in what another run's record, such as in a file, had to tell, in the order of steps."""
        self._made.clear()
        for bucket in news.buckets:
            self.table.absorb(bucket)
            self.step = max(self.step, bucket.last_step)
        for signal, width, record in news.histograms:
            self.track(signal).absorb(record, width)
            self.step = max(self.step, record.step)
        if news.latest is not None:
            self.latest, self.step = news.latest[0], max(self.step, news.latest[1])

    def shrink(self) -> bool:
        """Take half the room from now on, and nothing over time when that is not possible; false if that is so."""
        self._made.clear()
        shrunk = any([self.table.shrink(), *[track.shrink() for track in self.tracks.values()]])
        if not shrunk:
            self.table = LayerTable()
            self.tracks = {}
        return shrunk

    # -- what is drawn ------------------------------------------------------------------------------------------

    def view(self, focus: Focus | None, unseen: tuple[Unseen, ...]) -> LayersView:
        """What is known, and what ``focus`` asks for; the same objects as long as nothing new came."""
        return self._once((focus, id(unseen)), lambda: self._view(focus or NO_FOCUS, unseen))

    def _view(self, focus: Focus, unseen: tuple[Unseen, ...]) -> LayersView:
        tracks = [self._once(signal, partial(self.table.tracks, signal, MAX_STRETCHES)) for signal in focus.tracks]
        return LayersView(
            latest=self.latest,
            step=self.step,
            histograms=tuple(track.latest for track in self.tracks.values() if track.latest is not None),
            tracks=tuple(one for one in tracks if one is not None),
            story=self._once((focus.layer, focus.histogram, focus.curves), lambda: self._story(focus)),
            unseen=unseen,
        )

    def _story(self, focus: Focus) -> LayerStory | None:
        """``None`` for a layer that nothing is known of."""
        track = self.tracks.get(focus.histogram)
        found = track.story(focus.layer) if track is not None else None
        curves = [(signal, self._curve(signal, focus.layer)) for signal in focus.curves]
        known = tuple((signal, points) for signal, points in curves if points is not None)
        if found is None and not known and focus.layer not in self.table.layout.layers:
            return None
        story = found or NO_STORY
        return LayerStory(focus.layer, focus.histogram, story.steps, story.counts, story.limits, known)

    def _curve(self, signal: Signal, layer: str) -> Points | None:
        return self.table.points(signal, layer, max_points=MAX_CURVE_POINTS)

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        """What was made under this key since the last sample, else made now."""
        if key not in self._made:
            if len(self._made) >= MAX_MADE:
                self._made.clear()
            self._made[key] = make()
        found: T = self._made[key]
        return found


def newest(known: LayerValues | None, more: LayerValues) -> LayerValues:
    """The newest of every signal: a signal that ``more`` says anything of as that says it, the others as known.

    The layers are those of ``more``.
    """
    fresh: NDArray[np.bool_] = np.asarray(more.present.any(axis=1))
    if known is None or (fresh.all() and set(known.signals) <= set(more.signals)):
        return more
    signals = (*more.signals, *(signal for signal in known.signals if signal not in more.signals))
    shape = (len(signals), len(more.layers))
    values, present = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    values[: len(fresh)], present[: len(fresh)] = more.values, more.present
    into, columns = _same_names(more.layers, known.layers)
    for row, signal in enumerate(signals):
        if signal in known.signals and not (row < len(fresh) and fresh[row]):
            at = known.signals.index(signal)
            values[row, into], present[row, into] = known.values[at, columns], known.present[at, columns]
    return LayerValues(more.layers, signals, values, present)


def _same_names(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[Any, Any]:
    """Where the names that both have stand in each."""
    if some == others:
        return slice(None), slice(None)
    at = {name: index for index, name in enumerate(others)}
    both = [(index, at[name]) for index, name in enumerate(some) if name in at]
    return [index for index, _ in both], [index for _, index in both]
