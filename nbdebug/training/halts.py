"""Stops within a step, and what leads on from them. Training thread only.

A step that broke off has moved random numbers and batch-norm statistics, and one that was found bad afterwards its
weights. So the model is put back to before it: the latest sound snapshot, and from there an exact replay in which
everything is looked at, so that what is found in the end is the first bad step. There its batch is at hand, the step
can be taken on the side to see what is in it, and training goes on with it, without it, or from elsewhere.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from nbdebug.records.commands import Skip
from nbdebug.records.errors import CommandError
from nbdebug.records.findings import Cause, Severity
from nbdebug.records.runs import Mark, RunKind
from nbdebug.records.status import State
from nbdebug.records.stops import BatchView, Halt, Origin, Phase
from nbdebug.training.aside import Reenactment, aside, batch_of_its_own, copied, reenact, take_step
from nbdebug.training.data import Held
from nbdebug.training.guard import Reason, What, is_sound
from nbdebug.training.journey import Journey
from nbdebug.training.modules import roots
from nbdebug.training.shelf import Kept
from nbdebug.training.timeline import Place

if TYPE_CHECKING:
    from nbdebug.training.session import Session

LOG = logging.getLogger("nbdebug")
HALF = ("float16", "bfloat16")
WHAT_NEXT = "skip() leaves the batch out; change something, or resume to go on as it is."
NOTHING_AT_HAND = "no batch is at hand: training does not stand at a stop; pause at a breakpoint first"
DAMAGED = "What is damaged stays so, since the step can't be gone back to: rewind to a snapshot from before it."
NOT_AGAIN = "Repeated from a sound snapshot, it did not happen again: the model is as it was then."
NO_WAY_BACK = "The step broke off before its update: the weights are good, but random numbers have moved on."


class Halts:
    """The present stop, if training stands at one, and the way there."""

    def __init__(self, session: Session) -> None:
        self.stop: Halt | None = None
        self.late: tuple[Reason, int] | None = None
        self._session = session
        self._reason: Reason | None = None
        self._seen_at: Place | None = None
        self._skips = False
        self._late = False
        self._on_the_way = False

    # -- stopping -----------------------------------------------------------------------------------------------

    def within(self, reason: Reason) -> None:
        """A step broke off before its update."""
        session = self._session
        session.come_to_rest()
        self._go_before(session.timeline.here, reason)

    def after(self, reason: Reason, step: int) -> None:
        """After a step it is known that something is wrong, or that a breakpoint was hit."""
        session = self._session
        session.come_to_rest()
        gathers = session.knobs.update.accumulation.done > 0  # what is bad in the loss is in the gradients
        if reason.is_fault and (gathers or session.stepper.guard.damage() is not None):
            self._go_before(session.timeline.here, reason, late=True)
            return
        self._stand(reason, step, before_update=False)

    def heed_late(self) -> bool:
        """Whether something came late from the device that stops training."""
        if self.late is None:
            return False
        (reason, step), self.late = self.late, None
        self.after(reason, step)
        return True

    def found_earlier(self, reason: Reason, run: str) -> None:
        """In the search, a step was found bad: it is the first. ``run`` is the one that it belongs to."""
        session = self._session
        session.turns.let_go()
        step, epoch = session.loop.step, session.loop.epoch
        if session.stepper.guard.broke_off is None:  # the step is over, and was bad
            step -= 1
        made = session.timeline.lines[run].interventions
        applied = sum((each.step, each.epoch) <= (step, epoch) for each in made)
        self._go_before(Place(run, step, epoch, applied), reason, searching=False)

    def _go_before(self, place: Place, reason: Reason, *, searching: bool = True, late: bool = False) -> None:
        """Put the model to the place before the bad step, and stand there.

        ``late``: the place is after it, and it will be found on the way.
        """
        session, self._reason, self._late = self._session, reason, late
        guard = session.stepper.guard
        session.stepper.scalers.forget_the_step()
        journey = None if session.loop.doubt else self._way_to(place, sound=reason.is_fault)
        if journey is None:
            self._stay(reason, NO_WAY_BACK)
            return
        guard.thorough, guard.accepted = searching and reason.is_fault, False
        session.begin_quietly()
        self._on_the_way = True
        try:
            session.travel(journey)
        except CommandError as error:  # the model is at the snapshot that the way begins with
            guard.thorough = False
            self._stand(reason, session.loop.step, before_update=False, note=f"{error}.")

    def _stay(self, reason: Reason, note: str) -> None:
        """There is no way back."""
        step = self._session.loop.step
        if self._late:
            self._stand(reason, step, before_update=False, note=DAMAGED)
        else:
            self._stand(reason, step + 1, before_update=True, note=note)

    def _way_to(self, place: Place, *, sound: bool) -> Journey | None:
        """The way to a place: from a sound snapshot where something became bad, if one leads there; else from any."""
        session = self._session
        for wanted in (_is_sound, None) if sound else (None,):
            try:
                start = session.course.way_to(place, wanted)
                return Journey(session, start, place, start, self._arrive)
            except CommandError as error:
                LOG.debug("nbdebug: no way back to step %d: %s", place.step, error)
        return None

    def _arrive(self) -> str:
        """The model is where it was before the step."""
        session, reason = self._session, self._reason
        assert reason is not None
        session.stepper.guard.thorough = False
        if self._skips:
            self._skips = False
            return self._leave_out()
        session.paused_by_itself = False  # whoever waits for the stop waits until all is known of it
        if self._late:
            self._stand(reason, session.loop.step, before_update=False, note=NOT_AGAIN)
        else:
            self._stand(reason, session.loop.step + 1, before_update=True)
        return reason.words

    def _stand(self, reason: Reason, step: int, *, before_update: bool, note: str = "") -> None:
        """Say that training stands here, and why."""
        session, run = self._session, self._session.timeline.current
        held = self._hold(again=bool(note)) if before_update else None
        origin, batch, loss = self._look(reason, held)
        self.stop = Halt(run, step, before_update, self._why(reason, origin), reason.breakpoint, loss, origin, batch)
        if reason.is_fault and reason.what is not What.ERROR:
            self._say(reason, step, origin, note)
        session.recorder.mark(Mark(run, step, f"stopped: {self.stop.why}"))
        session.breaks.pending = None
        self._on_the_way = False
        session.come_to_rest()  # before anybody who waits goes on: the turn is given back
        session.paused_by_itself = True
        where = "before the update" if before_update else "after the step"
        session.goal.stride = None
        session.become(State.PAUSED, f"stopped in step {step:,}, {where}: {self.stop.why}")

    def hold(self) -> Held:
        """The next batch at hand, to be used next.

        Raises:
            CommandError: the epoch is over.
        """
        held = self._hold()
        if held is None:
            raise CommandError("the epoch has no batch left: take a step first")
        return held

    def _hold(self, *, again: bool = False) -> Held | None:
        """The next batch at hand; ``again`` the one that was just taken, where it can't be fetched anew."""
        session = self._session
        with session.turns:
            if again:
                session.loop.cursor.hold_again(session.loop.batch)
            held = session.loop.cursor.hold()
        if held is not None:
            session.loop.show(held.batch)
        return held

    # -- what is in it ------------------------------------------------------------------------------------------

    def _look(self, reason: Reason, held: Held | None) -> tuple[Origin | None, BatchView | None, float]:
        """Origin, batch and loss of the step; an error of ours in looking is no reason not to stop."""
        session = self._session
        try:
            if held is not None:
                return self._look_at(reason, held)
            if reason.is_fault:
                with self.look_back() as back:
                    return self._look_at(reason, back)
        except CommandError as error:
            LOG.info("nbdebug: could not look into the step: %s", error)
        except Exception:  # the user's step may raise anything when it is taken again
            LOG.warning("nbdebug: could not look into the step", exc_info=True)
        view = session.investigator.batch_view(session.loop.batch, None)
        return None, view, self._last_loss() if held is None else math.nan

    def _look_at(self, reason: Reason, held: Held) -> tuple[Origin | None, BatchView | None, float]:
        session = self._session
        investigator, origin, found = session.investigator, None, Reenactment()
        if reason.is_fault and reason.what is not What.ERROR:
            batch = batch_of_its_own(session, held)
            with aside(session, held):
                origin = investigator.origin(
                    lambda: _kept(found, take_step(session, batch)),
                    roots(session.model),
                    session.trainer.optimizers,
                    batch,
                )
        elif session.trainer.step is None and reason.what is not What.ERROR:
            found = reenact(session, held)
        losses = None
        if found.result.has_output:
            losses = investigator.sample_losses(session.trainer.loss, found.result.output, found.result.target)
        loss = found.loss
        return origin, investigator.batch_view(session.loop.batch, losses), math.nan if loss is None else loss

    def _last_loss(self) -> float:
        losses = self._session.loop.epoch_losses
        return losses[-1][0] if losses else math.nan

    def reenact(self, layers: tuple[str, ...] = ()) -> Reenactment:
        """The step of the stop once more, or the latest one, on the side.

        Raises:
            CommandError: it can't be gone back to.
        """
        session = self._session
        if session.state is State.FAILED:
            raise CommandError("the latest step raised an error: post_mortem() goes to before it")
        if self.stop is not None and self.stop.before_update:
            with session.unnoticed():
                return reenact(session, self.hold(), layers)
        with session.unnoticed(), self.look_back() as held:
            return reenact(session, held, layers)

    @contextmanager
    def look_back(self) -> Iterator[Held]:
        """Within, the model is where it was before the latest step, its batch at hand; then it is here again.

        Raises:
            CommandError: that place can't be gone back to.
        """
        session, timeline = self._session, self._session.timeline
        loop, here = session.loop, self._session.timeline.here
        if loop.doubt:
            raise CommandError(f"the latest step can't be looked into: {loop.doubt}")
        if not timeline.started or here.step == 0:
            raise CommandError("no step has been taken yet")
        session.come_to_rest()
        place = self._before_the_latest()
        start = session.course.way_to(place)
        present, batch, following, stop = session.snapshot(), loop.batch, session.following, self.stop
        guard = session.stepper.guard
        armed, accepted, guard.armed = guard.armed, guard.accepted, False
        try:
            journey = Journey(session, start, place, start, str)
            journey.set_out()
            while not journey.advance():
                pass
            session.turns.let_go()
            held = self._hold()
            if held is None:
                raise CommandError("the latest step's batch is not there any more")
            yield held
        finally:
            session.turns.let_go()
            session.restore(present)
            guard.armed, guard.accepted = armed, accepted
            session.timeline.here, loop.batch, self.stop = here, batch, stop
            session.follow(following)

    def _before_the_latest(self) -> Place:
        """The place right before the latest step, at the end of its epoch where it was the first of the next."""
        timeline = self._session.timeline
        here = timeline.here
        place = timeline.at_step(here.step - 1)
        ends = timeline.lines[place.run].epoch_ends
        if place.step in ends:
            epoch = timeline.lines[place.run].first_epoch + list(ends).index(place.step) + 1
            return replace(place, epoch=epoch)
        return place

    @property
    def under_way(self) -> bool:
        """Whether the model is on its way to a stop, where training will stand still anyway."""
        return self._on_the_way

    def called_off(self) -> None:
        """The way back was called off, or could not be gone to its end."""
        self._session.stepper.guard.thorough = self._skips = self._on_the_way = False

    # -- going on -----------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Training stands elsewhere now: what was seen and accepted was so where it stood."""
        self.stop = None
        self._session.stepper.guard.accepted = False

    def stand_again(self, stop: Halt | None) -> None:
        """After an excursion, at the stop that training stood at before."""
        if stop is not None and stop.before_update:
            self.hold()
        self.stop = stop

    def going_on(self) -> None:
        """Training goes on from here, with the step if it stands within one; what was seen there is accepted."""
        stop, self.stop = self.stop, None
        if stop is None:
            return
        session = self._session
        if stop.before_update:
            session.stepper.breaks.pass_over(stop.step)
        if not stop.breakpoint and session.timeline.here == self._seen_at:
            session.stepper.guard.accepted = True

    def skip(self) -> str | None:
        """Leave the batch of the stop out; ``None`` while the model is on its way back to before it.

        Raises:
            CommandError: training does not stand at a stop.
        """
        session = self._session
        failed = session.state is State.FAILED
        if self.stop is None and not failed:
            raise CommandError(NOTHING_AT_HAND)
        if self.stop is not None and self.stop.before_update:
            return self._leave_out()
        place = session.timeline.here if failed else self._before_the_latest()
        return self._travel_to(place, skips=True)

    def post_mortem(self) -> str | None:
        """Go to before the step that raised an error, its batch at hand.

        Raises:
            CommandError: none did.
        """
        if self._session.state is not State.FAILED:
            raise CommandError("there is nothing to look at after: no step has raised an error")
        return self._travel_to(self._session.timeline.here, skips=False)

    def _travel_to(self, place: Place, *, skips: bool) -> str | None:
        session = self._session
        failure = session.failure
        if session.loop.doubt:
            raise CommandError(f"the step can't be gone back to: {session.loop.doubt}")
        start = session.course.way_to(place)
        text = failure.title if failure is not None else ""
        self._reason, self._skips = Reason(What.ERROR, text=text), skips
        session.stepper.scalers.forget_the_step()
        session.begin_quietly()
        try:
            return session.travel(Journey(session, start, place, start, self._arrive))
        except CommandError:
            self._skips = False
            raise

    def _leave_out(self) -> str:
        """Take the batch and drop it."""
        session = self._session
        text = f"batch {session.loop.cursor.batch + 1:,} of the epoch left out"
        session.breaks.spend(session.loop.step + 1)
        session.course.make_ready("batch left out")
        session.leave_out_a_batch()
        session.course.intervene(Skip(), "batch left out")
        self.stop = None
        session.come_to_rest()
        session.paused_by_itself = True
        session.become(State.PAUSED, f"{text}; resume to go on")
        return text

    # -- saying it ----------------------------------------------------------------------------------------------

    def _why(self, reason: Reason, origin: Origin | None) -> str:
        if not reason.is_fault or origin is None:
            return reason.words
        kind = "NaN" if origin.kind == "nan" else "inf"
        if origin.source:
            return f"{kind} in {origin.source}, before the step"
        where = f" in {origin.module}" if origin.module else ""
        return f"{kind} out of {origin.operation}{where}, {origin.phase}"

    def _say(self, reason: Reason, step: int, origin: Origin | None, note: str) -> None:
        session = self._session
        self._seen_at = session.timeline.here
        title = f"{reason.words[0].upper()}{reason.words[1:]}" if origin is None else self._title(origin)
        parts = [f"In step {step:,} {reason.words}; training is paused."]
        if origin is not None and origin.advice:
            parts.append(origin.advice)
        parts.append(note or WHAT_NEXT)
        session.find(_cause(reason, origin), Severity.CRITICAL, title, " ".join(parts), origin=origin, step=step)

    def _title(self, origin: Origin) -> str:
        kind = "NaN" if origin.kind == "nan" else "inf"
        if origin.source:
            return f"{kind} in {origin.source}, there before the step"
        module = f" in {origin.module}" if origin.module else ""
        phase = {Phase.BACKWARD: " (backward)", Phase.OPTIMIZER: " (optimizer)", Phase.CLIPPING: " (clipping)"}
        return f"{kind} comes out of {origin.operation}{module}{phase.get(origin.phase, '')}"

    @property
    def concerns_a_measurement(self) -> bool:
        """Whether the current run only measures noise, in which nothing is said."""
        line = self._session.timeline.lines[self._session.timeline.current]
        return line.run.kind is RunKind.NOISE


def _kept(found: Reenactment, result: Any) -> Any:
    """The result, and a copy of it kept: the step's own may be changed in place after."""
    parts = (copied(part) for part in (result.loss, result.output, result.target))
    found.result = replace(result, **dict(zip(("loss", "output", "target"), parts, strict=True)))
    return result


def _is_sound(kept: Kept) -> bool:
    """Whether a snapshot's weights and optimizer state are finite."""
    state = kept.load()
    tensors = [*state.modules.parameters.values(), *_tensors_in([part for part in state.optimizers.values()])]
    return is_sound(tensors)


def _tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors_in(part)]


def _cause(reason: Reason, origin: Origin | None) -> Cause:
    if origin is None:
        return Cause.HALF_PRECISION_OVERFLOW if reason.what is What.SKIPS else Cause.NAN_LOSS
    if origin.phase is Phase.BEFORE and origin.source.startswith("batch"):
        return Cause.NAN_IN_DATA
    overflowed = origin.kind == "inf" and any(each.dtype.endswith(HALF[0]) for each in origin.inputs)
    return Cause.HALF_PRECISION_OVERFLOW if overflowed else Cause.NUMERICAL_INSTABILITY
