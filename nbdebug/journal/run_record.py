"""Run record: all that the journal keeps of one run; its own steps only. Not thread-safe by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nbdebug.journal.layers import Layers
from nbdebug.journal.series import TRAIN_LOSS, VAL_LOSS, Curve, Smoothed, Steps
from nbdebug.records.frames import Floats, Frame, Rows
from nbdebug.records.layers import Unseen
from nbdebug.records.runs import Intervention, Run, RunKind
from nbdebug.records.signals import Series, Signal
from nbdebug.records.view import Points, RunView

NO_POINTS = Points(np.zeros(0, dtype=np.int64), np.zeros(0))


@dataclass
class RunRecord:
    """Curves, layers and changes of one run; ``unseen`` is ``None`` until somebody says what can't be looked at."""

    run: Run
    curves: dict[Series, Curve] = field(default_factory=dict)
    smooth: Smoothed = field(default_factory=Smoothed)
    layers: Layers = field(default_factory=Layers)
    interventions: list[Intervention] = field(default_factory=list)
    unseen: tuple[Unseen, ...] | None = None
    last_step: int = 0

    def record(self, frame: Frame) -> float | None:
        """Take in a frame; returns the smoothed training loss after it, ``None`` where it has none."""
        smooth = None
        for series, value in frame.scalars:
            self.curve(series).append(frame.step, value)
            if series == TRAIN_LOSS:
                smooth = self.smooth.append(frame.step, value)
        if self.is_sample(frame):
            self.layers.record(frame)
        self.last_step = max(self.last_step, frame.step)
        return smooth

    def record_rows(self, rows: Rows, columns: Floats) -> Points | None:
        """Take in rows, their values by series in ``columns``; returns the smoothed training loss after each."""
        smooth = None
        for series, column in zip(rows.series, columns, strict=True):
            self.curve(series).extend(rows.steps, column)
            if series == TRAIN_LOSS:
                smooth = self.smooth.extend(rows.steps, column)
        self.last_step = max(self.last_step, int(rows.steps[-1]))
        return smooth

    def extend(self, series: Series, steps: Steps, values: Floats, *, smooth: bool) -> None:
        """Add to a curve, or to the smoothed training loss."""
        (self.smooth.curve if smooth else self.curve(series)).extend(steps, values)

    def curve(self, series: Series) -> Curve:
        """The curve of a series, made where there is none."""
        curve = self.curves.get(series)
        if curve is None:
            curve = self.curves[series] = Curve()
        return curve

    def is_sample(self, frame: Frame) -> bool:
        """Whether a frame says anything of layers that is to be kept: not so where only noise is measured."""
        return self.run.kind is not RunKind.NOISE and (frame.layers is not None or bool(frame.histograms))

    def view(self, max_points: int) -> RunView:
        """The run as drawn."""
        metrics = tuple(
            (series.text, curve.last_value) for series, curve in self.curves.items() if series.signal is Signal.METRIC
        )
        return RunView(
            run=self.run,
            train=self._points(TRAIN_LOSS, max_points),
            smooth=self.smooth.curve.points(max_points),
            val=self._points(VAL_LOSS, max_points),
            metrics=metrics,
            steps=self.last_step - self.run.step,
        )

    def _points(self, series: Series, max_points: int) -> Points:
        curve = self.curves.get(series)
        return curve.points(max_points) if curve is not None else NO_POINTS
