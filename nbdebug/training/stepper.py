"""One step under observation: a turn, the user's step inside the measure point's hooks, a record. Training thread.

An ordinary step leaves a row in the ledger, and the gradient norm where that is affordable. What is looked into on
sampled steps is the watcher's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from nbdebug.records.commands import ClipMode
from nbdebug.records.cost import Timing
from nbdebug.records.frames import Frame
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.stops import Breakpoint
from nbdebug.training.averaging import Average
from nbdebug.training.breaks import Breaks
from nbdebug.training.guard import Guard, Reason, StepStopped, What
from nbdebug.training.knobs import Knobs
from nbdebug.training.ledger import CLIP_RATE, SKIPPED, Ledger, Value
from nbdebug.training.loop import Evaluation, Loop
from nbdebug.training.modules import roots
from nbdebug.training.scalers import Scalers
from nbdebug.training.seams import Examiner, Measurement, Pacer, Recorder, Watcher
from nbdebug.training.steps import StepResult
from nbdebug.training.turn import Turns
from nbdebug.training.update import UpdateHooks

TRAIN_LOSS = Series(Signal.LOSS, split=Split.TRAIN)
UPDATES = Series(Signal.UPDATES)
LOSS_SCALE = Series(Signal.LOSS_SCALE)
ASLEEP = (Series(Signal.EVALUATION_MODE),)
STRIDE_S = 0.005
NORM_ALONE = (Series(Signal.GRADIENT_NORM),)
NORM_AND_CLIPPED = (*NORM_ALONE, CLIP_RATE)


@dataclass(slots=True)
class Progress:
    """What one advance did: the losses of the steps taken, whether the epoch is over, what the user's code raised.

    A loss is ``None`` while it is on its way from the device. ``training_s`` is what the steps took without us.
    ``reason`` says why training should stop after the last of them.
    """

    losses: list[float | None] = field(default_factory=list)
    epoch_over: bool = False
    error: BaseException | None = None
    reason: Reason | None = None
    training_s: float = 0.0
    sampled: bool = False
    norms: int = 0
    norm_s: float = 0.0


class Stepper:
    """Advances a loop by a batch at a time and records what came of it; ``heeds`` faults and breakpoints.

    ``arrived(step, loss, skipped)`` hears of losses that came from the device after their step, ``before_sample()`` of
    a step that is about to be looked into, ``sample_hit(reason)`` of a breakpoint hit by what was seen in one.
    """

    def __init__(
        self,
        loop: Loop,
        knobs: Knobs,
        watcher: Watcher,
        pacer: Pacer,
        recorder: Recorder,
        turns: Turns,
        guard: Guard,
        breaks: Breaks,
        examiner: Examiner,
        *,
        busy: Callable[[], bool],
        arrived: Callable[[int, float, bool], None] = lambda step, loss, skipped: None,
        before_sample: Callable[[], None] = lambda: None,
        sample_hit: Callable[[Reason], None] = lambda reason: None,
    ) -> None:
        self.guard = guard
        self.scalers = Scalers(loop.trainer)
        self.hooks = UpdateHooks(loop.trainer.optimizers, knobs, watcher, guard, busy=busy, trains=self._trains)
        self.ledger = Ledger(recorder, watcher.send, arrived)
        self._loop = loop
        self._knobs = knobs
        self._watcher = watcher
        self._pacer = pacer
        self._recorder = recorder
        self._turns = turns
        self._before_sample = before_sample
        self._sample_hit = sample_hit
        self.breaks = breaks
        self.examiner = examiner
        self._series: tuple[Series, ...] = ()
        self._layout: tuple[object, bool, list[str]] = (None, False, [])
        self._is_plain = False
        self.heeds = True
        self._average: Average | None = None
        self._ended = 0.0
        self._since_norm = 0

    def begin_anew(self, average: Average | None) -> None:
        """Knobs or modules are others from now on; ``average`` is told of each step."""
        self._layout = (None, False, [])
        self._average = average

    def begin(self) -> None:
        """Training sets out, or goes on after a rest: time that passed meanwhile is nobody's."""
        self._ended = 0.0
        self._layout = (None, False, [])
        self.scalers.refresh()
        self.guard.begin()

    def advance(self, run: str, *, most: int = 1, wanted: Callable[[], bool] = lambda: False) -> Progress:
        """Take a step of ``run``, or find the epoch over.

        Where steps are shorter than what comes between them, several are taken at once: up to ``most``, for some
        milliseconds, until somebody is ``wanted``, something went wrong, or a step is to be sampled. The turn is kept
        afterwards, for the next step, until :meth:`Turns.let_go`.
        """
        called = time.perf_counter()
        self._turns.hold()
        entered = now = time.perf_counter()
        progress = Progress(sampled=self._pacer.wants_sample())
        if progress.sampled:
            self._before_sample()
        norm_every = 1 if progress.sampled or self.breaks.need_norm else self._pacer.norm_every()
        self.guard.armed = self.heeds
        self.guard.hit = self._hit_before_update if self.breaks.any and self.heeds else None
        while True:
            self._since_norm += 1
            self.hooks.measure_norm = self._since_norm >= norm_every
            try:
                is_over = not self._loop.take_batch() or not self._step(run, progress, now)
            except BaseException as error:  # the user's code may raise anything; told with the steps before it
                progress.error = error
                break
            finally:
                if progress.sampled or self._watcher.looking:
                    self._watcher.abandon_step()
            now = time.perf_counter()
            progress.epoch_over = is_over
            if is_over or progress.sampled or len(progress.losses) >= most or now - entered > STRIDE_S or wanted():
                break
            if progress.reason is not None:
                break
        self._account(progress, called, entered)
        return progress

    def replay(self) -> tuple[float | None, bool]:
        """Take one step that is on record already: its loss, ``None`` if there was none left; and if the epoch is over.

        The same as at the first time, but nothing is written down.
        """
        self._turns.hold()
        loop, guard = self._loop, self.guard
        guard.armed, guard.hit = guard.thorough, None
        if not loop.take_batch():
            return None, True
        self.hooks.measure_norm = False
        result = self._train_batch()
        loop.batch_metrics(result)
        loss = float(_on_host(result.loss))
        loop.keep_loss(loss, result)
        if guard.thorough and (reason := guard.after_step(loss, skipped=self._skipped())) is not None:
            raise StepStopped(reason)
        epoch_over = loop.cursor.at_end()
        self._turns.let_go_if_due(time.perf_counter())
        return loss, epoch_over

    def _account(self, progress: Progress, called: float, entered: float) -> None:
        """Tell the pacer what these steps took, and what the session did since those before."""
        now = time.perf_counter()
        since_s = called - self._ended if self._ended else 0.0
        self._ended = now
        if progress.losses and progress.error is None:
            self._pacer.steps_done(
                len(progress.losses),
                training_s=progress.training_s,
                watching_s=max(now - entered - progress.training_s + since_s, 0.0),
                norms=progress.norms,
                norm_s=progress.norm_s,
                sampled=progress.sampled,
            )
        self.ledger.turn_over(now)
        self._turns.let_go_if_due(now)

    def settle(self) -> None:
        """Everything measured so far is on record when this returns."""
        self.ledger.settle()
        self._ended = 0.0

    def record_evaluation(self, run: str, evaluation: Evaluation) -> None:
        """Record a validation at the present step."""
        self.ledger.settle()
        self._recorder.record(Frame(run, self._loop.step, self._loop.epoch, tuple(evaluation.series.items())))

    def _step(self, run: str, progress: Progress, entered: float) -> bool:
        """One step on the batch taken since ``entered``; whether the epoch goes on."""
        loop, hooks, watcher, sample = self._loop, self.hooks, self._watcher, progress.sampled
        fetched = time.perf_counter()
        if sample or watcher.looking:
            watcher.begin_step(loop.step + 1, sample=sample)
        knobs = self._knobs.in_force()
        stepping = time.perf_counter()
        result = self._examined_batch() if self.examiner.wants() else self._train_batch()
        returned = time.perf_counter()
        looking = sample or watcher.looking
        hooks_s = hooks.seconds + watcher.hook_seconds if looking else hooks.seconds
        if looking:
            watcher.model_done()
        metrics, metrics_s = self._metrics(result)
        progress.training_s += (fetched - entered) + (returned - stepping) + metrics_s - hooks_s
        if hooks.measure_norm:
            self._since_norm = 0
            progress.norms += 1
            progress.norm_s += hooks.norm_s
        progress.losses.append(self._write_row(run, result, metrics, knobs))
        progress.reason = self._judge(progress.losses[-1], result, metrics)
        if looking:
            timing = Timing(fetched - entered, stepping, hooks.before_update_s, hooks.optimizer_s, returned, hooks_s)
            self._record_sample(run, watcher.end_step(timing, self.scalers.leftover()))
        return not loop.cursor.at_end()

    def _train_batch(self) -> StepResult:
        """The user's step. What broke it off is raised, even where their code caught it."""
        guard, loop = self.guard, self._loop
        guard.begin_step()
        if self.scalers.any:
            self.scalers.begin_step()
        with self.hooks:
            result = loop.train_batch()
        if guard.broke_off is not None:
            loop.step -= 1
            raise guard.broke_off
        if self._average is not None:
            self._average.update(loop.model)
        return result

    def _examined_batch(self) -> StepResult:
        """The same, looked at for what is wrong with the program."""
        with self.examiner.watching(self._loop.model, self._loop.batch):
            result = self._train_batch()
        self.examiner.step_done(result)
        return result

    def _judge(self, loss: float | None, result: StepResult, metrics: dict[str, Any]) -> Reason | None:
        """Why training should stop after this step."""
        fault = self.guard.after_step(loss, skipped=loss is not None and self._skipped())
        if fault is not None or not (self.breaks.any and self.heeds):
            return fault
        named = {Series(Signal.METRIC, name): value for name, value in metrics.items()}
        present = _on_host(result.loss) if loss is None else loss
        values = {TRAIN_LOSS: present, UPDATES: self.hooks.updates, **named}
        early = self._hit_at(self._loop.step, None) if self.guard.saw_no_update else None
        hit = self.breaks.after_step(self._loop.step, self._loop.epoch, values)
        return early or (_reason_of(hit) if hit is not None else None)

    def _hit_before_update(self, norm: torch.Tensor | None) -> Reason | None:
        return self._hit_at(self._loop.step + 1, norm)

    def _hit_at(self, step: int, norm: torch.Tensor | None) -> Reason | None:
        """By what is known before a step's update, or, in one without any, at its end."""
        groups = self._knobs.groups
        hit = self.breaks.before_update(step, self._loop.epoch, groups[0].in_force if groups else 0.0, norm)
        return _reason_of(hit) if hit is not None else None

    def _skipped(self) -> bool:
        """Whether a scaler left the update out; waits for the device."""
        return self.scalers.any and float(self.scalers.skipped()) > 0

    def _metrics(self, result: StepResult) -> tuple[dict[str, Any], float]:
        if not self._loop.trainer.measures:
            return {}, 0.0
        began = time.perf_counter()
        metrics = self._loop.batch_metrics(result)
        return metrics, time.perf_counter() - began

    def _write_row(
        self, run: str, result: StepResult, metrics: dict[str, Any], knobs: tuple[Value, ...]
    ) -> float | None:
        loop, hooks, ledger = self._loop, self.hooks, self.ledger
        loss = _on_host(result.loss)
        series = self._series_of(metrics)
        if self._is_plain and not isinstance(loss, torch.Tensor):
            values: tuple[Value, ...] = (loss, float(hooks.updates), *knobs)
            add: Callable[..., None] = ledger.add
        else:
            values = (loss, *(_on_host(value) for value in metrics.values()), *self._updates(), *knobs)
            add = ledger.add_late
        add(run, loop.epoch, loop.step, series, values)
        if hooks.measure_norm:
            self._write_norm(run)
        if hooks.asleep if hooks.updates else not self._trains():
            ledger.add(run, loop.epoch, loop.step, ASLEEP, (1.0,))
        loop.keep_loss(loss, result)
        return None if isinstance(loss, torch.Tensor) else loss

    def _trains(self) -> bool:
        """Whether the model is in training mode now, or one of several is."""
        return any(root.training for root in roots(self._loop.model).values())

    def _write_norm(self, run: str) -> None:
        norm, limited, clip, loop = self.hooks.total_norm, self.hooks.norm_to_clip, self._knobs.clip, self._loop
        if norm is None or limited is None:
            return
        if clip.mode is ClipMode.NORM:
            found: list[Value] = [_on_host(norm), _on_host(limited > clip.threshold)]
            self.ledger.add_late(run, loop.epoch, loop.step, NORM_AND_CLIPPED, found)
        else:
            self.ledger.add_late(run, loop.epoch, loop.step, NORM_ALONE, [_on_host(norm)])

    def _updates(self) -> list[Value]:
        """Optimizer steps, and what scalers say: those that were skipped, the scale."""
        hooks, scalers = self.hooks, self.scalers
        updates: Value = float(hooks.updates)
        if hooks.skips:
            updates = _on_host(hooks.updates - sum(flag.reshape(()) for flag in hooks.skips))
        if not scalers.any and not hooks.skips:
            return [updates]
        if not scalers.any:
            return [updates, hooks.updates - updates]
        return [updates, _on_host(scalers.skipped()), _on_host(scalers.scale())]

    def _series_of(self, metrics: dict[str, Any]) -> tuple[Series, ...]:
        """The row's columns; the same object while they stay the same."""
        knobs, skips = self._knobs.series, bool(self.hooks.skips)
        layout = self._layout
        if layout[0] is not knobs or layout[1] != skips or ((metrics or layout[2]) and layout[2] != list(metrics)):
            self._layout = (knobs, skips, list(metrics))
            named = [Series(Signal.METRIC, name, Split.TRAIN) for name in metrics]
            scalers = self.scalers.any
            extra = (SKIPPED, LOSS_SCALE) if scalers else (SKIPPED,) if skips else ()
            self._series = (TRAIN_LOSS, *named, UPDATES, *extra, *knobs)
            self._is_plain = not (named or extra) and not any(group.is_on_device for group in self._knobs.groups)
        return self._series

    def _record_sample(self, run: str, measured: Measurement | None) -> None:
        if measured is None:
            return
        step, epoch, updates = self._loop.step, self._loop.epoch, self.hooks.updates

        def record(_: object) -> None:
            found = measured.read()
            scalars = tuple(found.scalars.items())
            self._recorder.record(Frame(run, step, epoch, scalars, updates, found.layers, found.histograms))
            if found.unseen is not None:
                self._recorder.record_unseen(run, found.unseen)
            if self.breaks.any and (hit := self.breaks.after_sample(step, found.layers)) is not None:
                self._sample_hit(_reason_of(hit))

        self.ledger.then(measured.parcel, record)


def _on_host(value: Any) -> Value:
    """A number; a tensor of a device stays there."""
    if isinstance(value, torch.Tensor) and value.device.type != "cpu":
        return value.detach()
    return float(value.item()) if isinstance(value, torch.Tensor) else float(value)


def _reason_of(hit: Breakpoint) -> Reason:
    return Reason(What.BREAKPOINT, breakpoint=hit.number, text=hit.text)
