"""One step under observation: a turn, the user's step inside the measure point's hooks, a frame. Training thread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nbdebug.records.commands import ClipMode
from nbdebug.records.frames import Frame
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.training.knobs import Knobs
from nbdebug.training.loop import Evaluation, Loop
from nbdebug.training.rng import OwnRandomState
from nbdebug.training.seams import Pacer, Recorder, Watcher
from nbdebug.training.turn import PROCESS_TURN
from nbdebug.training.update import UpdateHooks

TRAIN_LOSS = Series(Signal.LOSS, split=Split.TRAIN)
VAL_LOSS = Series(Signal.LOSS, split=Split.VAL)
UPDATES = Series(Signal.UPDATES)
GRADIENT_NORM = Series(Signal.GRADIENT_NORM)
CLIP_NORM = Series(Signal.CLIP_NORM)
CLIP_VALUE = Series(Signal.CLIP_VALUE)
DROPOUT = Series(Signal.DROPOUT)
OFF = math.inf


@dataclass(frozen=True, slots=True)
class Progress:
    """What one advance did: whether it took a step, with which loss, and whether the epoch is over."""

    stepped: bool
    loss: float
    epoch_over: bool


class Stepper:
    """Advances a loop by a batch at a time and records a frame for each."""

    def __init__(
        self,
        loop: Loop,
        knobs: Knobs,
        watcher: Watcher,
        pacer: Pacer,
        recorder: Recorder,
        *,
        busy: Callable[[], bool],
    ) -> None:
        self.hooks = UpdateHooks(loop.trainer.optimizers, knobs, watcher, busy=busy)
        self._loop = loop
        self._knobs = knobs
        self._watcher = watcher
        self._pacer = pacer
        self._recorder = recorder

    def advance(self, run: str, random: OwnRandomState) -> Progress:
        """Take one step of ``run``, or find the epoch over. Errors of the user's code pass through."""
        began = time.perf_counter()
        with taking_turn(random):
            entered = time.perf_counter()
            if not self._loop.take_batch():
                return Progress(stepped=False, loss=math.nan, epoch_over=True)
            sample = self._pacer.wants_sample()
            try:
                frame, training_s = self._step(run, entered, sample=sample)
            finally:
                self._watcher.abandon_step()
            epoch_over = self._loop.cursor.at_end()
        self._recorder.record(frame)
        waited = entered - began
        watching_s = max(time.perf_counter() - began - waited - training_s, 0.0)
        self._pacer.step_done(training_s=training_s, watching_s=watching_s, sampled=sample)
        return Progress(stepped=True, loss=dict(frame.scalars)[TRAIN_LOSS], epoch_over=epoch_over)

    def replay(self, random: OwnRandomState) -> Progress:
        """Take one step that is on record already, or find the epoch over: the same, but nothing is written down."""
        began = time.perf_counter()
        with taking_turn(random):
            if not self._loop.take_batch():
                return Progress(stepped=False, loss=math.nan, epoch_over=True)
            try:
                frame, _ = self._step("", began, sample=False)
            finally:
                self._watcher.abandon_step()
            epoch_over = self._loop.cursor.at_end()
        return Progress(stepped=True, loss=dict(frame.scalars)[TRAIN_LOSS], epoch_over=epoch_over)

    def record_evaluation(self, run: str, evaluation: Evaluation) -> None:
        """Record a validation at the present step."""
        metrics = [(Series(Signal.METRIC, name, Split.VAL), value) for name, value in evaluation.metrics.items()]
        scalars = ((VAL_LOSS, evaluation.loss), *metrics)
        self._recorder.record(Frame(run, self._loop.step, self._loop.epoch, scalars))

    def _step(self, run: str, entered: float, *, sample: bool) -> tuple[Frame, float]:
        loop = self._loop
        fetched = time.perf_counter()
        self._watcher.begin_step(loop.step + 1, sample=sample)
        knobs = self._knob_values()
        stepping = time.perf_counter()
        with self.hooks:
            result = loop.train_batch()
        hooks_s = self.hooks.seconds + self._watcher.hook_seconds
        self._watcher.model_done()
        metrics = loop.batch_metrics(result)
        stepped = time.perf_counter()
        scalars: dict[Series, Any] = {TRAIN_LOSS: result.loss}
        scalars.update({Series(Signal.METRIC, name, Split.TRAIN): value for name, value in metrics.items()})
        if self.hooks.total_norm is not None:
            scalars[GRADIENT_NORM] = self.hooks.total_norm
        measured = self._watcher.end_step(scalars)
        loop.keep_loss(measured.scalars[TRAIN_LOSS], result)
        frame = Frame(
            run=run,
            step=loop.step,
            epoch=loop.epoch,
            scalars=(*measured.scalars.items(), *knobs, (UPDATES, float(self.hooks.updates))),
            updates=self.hooks.updates,
            gradients=measured.gradients,
            activations=measured.activations,
        )
        return frame, (fetched - entered) + (stepped - stepping) - hooks_s

    def _knob_values(self) -> list[tuple[Series, float]]:
        """The knobs that the step now runs with; clipping that is off counts as a threshold of infinity."""
        groups = self._knobs.groups
        values = [(Series(Signal.LEARNING_RATE), groups[0].in_force)]
        if len(groups) > 1:
            values += [(Series(Signal.LEARNING_RATE, group.name), group.in_force) for group in groups]
        clip = self._knobs.clip
        values.append((CLIP_NORM, clip.threshold if clip.mode is ClipMode.NORM else OFF))
        values.append((CLIP_VALUE, clip.threshold if clip.mode is ClipMode.VALUE else OFF))
        dropout = self._knobs.dropout
        if dropout is not None:
            values.append((DROPOUT, dropout))
        return values


@contextmanager
def taking_turn(random: OwnRandomState) -> Iterator[None]:
    """The process-wide turn, with this debugger's random state in force inside."""
    with PROCESS_TURN:
        random.enter()
        try:
            yield
        finally:
            random.leave()
