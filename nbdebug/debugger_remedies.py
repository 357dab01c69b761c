"""Trying a finding's remedy on a branch, and going on with it: by method and for the cards' buttons. Any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import get_args

from nbdebug.debugger_compare import Comparer
from nbdebug.debugger_excursion import ask, excursion
from nbdebug.debugger_preflight import Preflight
from nbdebug.records.commands import (
    ApplyRemedy,
    Checkout,
    Command,
    EditRun,
    Mendable,
    Outcome,
    Pause,
    Rerun,
    Rewind,
    SetKnobs,
    Start,
    TryRemedy,
)
from nbdebug.records.errors import CommandError, collect
from nbdebug.records.findings import Cause, Finding, Remedy
from nbdebug.records.proofs import Proof, Trial
from nbdebug.records.status import State
from nbdebug.training.arguments import extent_mistakes
from nbdebug.training.mailbox import Reservation

ABLE = get_args(Mendable)
FEWEST_STEPS, MOST_STEPS = 40, 300
SEEDS = 4


class Remedies(Preflight):
    """Remedies of findings."""

    _comparer: Comparer
    _trial: Trial | None = None

    def try_remedy(
        self, finding: Finding | str, *, rung: int = 0, start: int | None = None, steps: int | None = None
    ) -> Proof:
        """Train on from one place with a remedy and without, and compare; afterwards the model is where it was.

        Args:
            finding: one of :attr:`findings`, or its cause as text.
            rung: the how-manieth of its remedies that the debugger can do itself; the next one if this does not help.
            start: the step to go back to; without it the present one, or the very first for what is wrong from the
                beginning.
            steps: how many steps both sides take; an epoch's without it, from 40 to 300.

        Raises:
            ConfigurationError: there is no such finding, or none of its remedies is the debugger's to do.
            CommandError: it was called off, or the place can't be come back to.
        """
        self._not_from_within("try_remedy")
        meant, remedy = self._remedy(finding, rung)
        command = TryRemedy(str(meant.cause), rung)
        session = self._session
        if start is not None and not 0 <= start <= session.status().last_step:
            raise collect([f"start={start!r}: give a step of the run, from 0 to {session.status().last_step}"])
        place = self._place(meant) if start is None else start
        if mistakes := extent_mistakes(None, steps):
            raise collect(mistakes)
        count = steps if steps is not None else self._steps()
        try:
            with self._under_way(command, self._trial_at(place, count)):
                branch = self._branch(remedy, place, count)
                made = self._comparer.compare(self._comparer.plan(*self._pair(branch), SEEDS))
        except Exception as error:
            self._tell_remedy(command, False, str(error) or type(error).__name__)
            raise
        proof = Proof(meant, remedy, rung, branch, made)
        self._journal.record_proof(proof)
        self._tell_remedy(command, True, made.sentence)
        return proof

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """What came of remedies that were tried, oldest first."""
        return self._journal.proofs

    def remedy_cost(
        self, finding: Finding | str, *, rung: int = 0, start: int | None = None, steps: int | None = None
    ) -> Trial:
        """What :meth:`try_remedy` with these would take: steps on each side, reruns, seconds.

        Raises:
            ConfigurationError: there is no such finding, or none of its remedies is the debugger's to do.
        """
        meant, _ = self._remedy(finding, rung)
        if mistakes := extent_mistakes(None, steps):
            raise collect(mistakes)
        return self._trial_at(self._place(meant) if start is None else start, steps or self._steps())

    def apply_remedy(self, proof: Proof | Finding | str, *, rung: int = 0) -> Outcome:
        """Go on with a remedy: from the branch that proved it, or, without a proof, by doing it here and now.

        Where training is running, it goes on from there to the same end.

        Raises:
            ConfigurationError: there is no such finding, or none of its remedies is the debugger's to do.
            CommandError: the change was refused.
        """
        if isinstance(proof, Proof):
            return self._go_on_from(proof.run)
        _, remedy = self._remedy(proof, rung)
        assert remedy.command is not None
        return self._asked(remedy.command)

    # -- inside -------------------------------------------------------------------------------------------------

    def _remedy(self, finding: Finding | str, rung: int) -> tuple[Finding, Remedy]:
        """The finding, and the remedy at this rung of those that are commands."""
        if isinstance(finding, str):
            known = [each for each in self.findings if each.cause == finding]
            if not known:
                there = ", ".join(dict.fromkeys(str(each.cause) for each in self.findings)) or "none"
                raise collect([f"there is no finding of the cause {finding!r}; there are: {there}"])
            finding = known[0]
        able = [each for each in finding.remedies if isinstance(each.command, ABLE)]
        if not able:
            words = finding.remedies[0].text if finding.remedies else "nothing is known that would"
            raise collect([f"{finding.cause}: only you can mend this. {words}"])
        if isinstance(rung, bool) or not 0 <= rung < len(able):
            raise collect([f"rung={rung!r}: {finding.cause} has {len(able)} remedies to try, counted from 0"])
        return finding, able[rung]

    def _place(self, finding: Finding) -> int:
        """Where to part: the beginning, for what is wrong from the first steps on; else here."""
        from_the_start = finding.cause in FROM_THE_START or finding.step <= FEWEST_STEPS
        return 0 if from_the_start else self._session.loop.step

    def _trial_at(self, place: int, steps: int) -> Trial:
        """A branch, both sides under other seeds, and the side without it where nothing was trained on from there."""
        session = self._session
        reruns = 1 + 2 * SEEDS + (place >= session.status().last_step)
        return Trial(steps, reruns, reruns * (steps * session.seconds_per_step + session.restore_s))

    def _trials(self) -> tuple[Trial, ...]:
        """Of every finding whose remedies can be tried."""
        able = [each for each in self.findings if any(isinstance(it.command, ABLE) for it in each.remedies)]
        steps = self._steps()
        return tuple(replace(self._trial_at(self._place(each), steps), cause=str(each.cause)) for each in able)

    @contextmanager
    def _under_way(self, command: TryRemedy, trial: Trial) -> Iterator[None]:
        """Meanwhile this one is tried."""
        self._trial = replace(trial, cause=command.cause, rung=command.rung, began_s=time.time())
        try:
            yield
        finally:
            self._trial = None

    def _proof(self, cause: str, rung: int) -> Proof | None:
        """The latest of a remedy."""
        found = [each for each in self._journal.proofs if (each.finding.cause, each.rung) == (cause, rung)]
        return found[-1] if found else None

    def _steps(self) -> int:
        length = self._session.loop.cursor.batches or FEWEST_STEPS
        return max(FEWEST_STEPS, min(length, MOST_STEPS))

    def _branch(self, remedy: Remedy, place: int, steps: int) -> str:
        """The run that has the remedy."""
        session = self._session
        assert remedy.command is not None
        with session.reserved(f"trying: {remedy.text}") as hold, excursion(session, hold, "(before trying a remedy)"):
            self._part(remedy.command, place, steps, hold)
            self._settle(hold)
            branch = session.timeline.current
            if session.state is State.FAILED and session.failure is not None:
                raise session.failure.exception
            ask(session, EditRun(branch, title=remedy.text[:60].rstrip(".")), hold)
        return branch

    def _part(self, command: Command, place: int, steps: int, hold: Reservation) -> None:
        """Set out on a branch with this change."""
        session = self._session
        if isinstance(command, Rerun):
            ask(session, replace(command, epochs=None, steps=steps), hold)
            return
        if isinstance(command, SetKnobs):
            ask(session, Rerun(place, None, steps, command.changes), hold)
            return
        last = session.status().last_step
        if not last:
            raise CommandError("train a step first: there is nothing yet that a branch could leave")
        ask(session, Rewind(min(place, last - 1)), hold)
        self._settle(hold)
        ask(session, command, hold)
        ask(session, Start(steps=steps), hold)

    def _pair(self, branch: str) -> tuple[str, str]:
        parent = self._session.timeline.runs[branch].parent
        if parent is None:
            raise CommandError("the remedy made no branch: nothing was trained on from there before")
        return parent, branch

    def _settle(self, hold: Reservation) -> None:
        self._session.wait(lambda state: state not in (State.RUNNING, State.REWINDING))
        if hold.cancelled:
            raise CommandError("called off; the model is where it was")

    def _go_on_from(self, run: str) -> Outcome:
        """The branch in the model; it is trained on if training was under way."""
        session = self._session
        was_running, goal = session.state is State.RUNNING, replace(session.goal)
        if was_running:
            self._asked(Pause())
        outcome = self._asked(Checkout(run))
        steps = goal.step - session.loop.step if goal.step is not None else None
        epochs = goal.epoch - session.loop.epoch if goal.epoch is not None else None
        if was_running and (steps is None or steps > 0) and (epochs is None or epochs > 0):
            self._asked(Start(epochs, steps))
        return outcome

    def _asked(self, command: Command) -> Outcome:
        outcome = self._session.post(command).wait()
        if outcome is None or not outcome.ok:
            raise CommandError(outcome.text if outcome else "closed before it was done")
        return outcome

    def _tell_remedy(self, command: Command, ok: bool, text: str) -> None:
        session = self._session
        self._journal.record_outcome(Outcome(command, session.timeline.current, session.loop.step, ok, text))

    def _apply_aside(self, command: ApplyRemedy) -> None:
        proof = self._proof(command.cause, command.rung)
        proven = proof is not None and proof.helped and proof.run in self._session.timeline.runs
        outcome = self.apply_remedy(proof if proof is not None and proven else command.cause, rung=command.rung)
        self._tell_remedy(command, True, outcome.text)

    def _remedy_aside(self, command: TryRemedy | ApplyRemedy) -> None:
        """What a card's button asks for: on a thread of its own, since it waits.

        A remedy that was proven is gone on with from its branch.
        """

        def work() -> None:
            try:
                if isinstance(command, TryRemedy):
                    self.try_remedy(command.cause, rung=command.rung)
                else:
                    self._apply_aside(command)
            except Exception as error:  # told as the outcome; the thread is nobody's who could hear it
                self._tell_remedy(command, False, str(error))

        threading.Thread(target=work, name="nbdebug remedy", daemon=True).start()


FROM_THE_START = frozenset(
    {
        *(Cause.BAD_INITIALIZATION, Cause.SYMMETRIC_INITIALIZATION, Cause.FROZEN_PARAMETERS, Cause.DEAD_RELU),
        *(Cause.OUTPUT_ACTIVATION_MISMATCH, Cause.SOFTMAX_BEFORE_CROSS_ENTROPY, Cause.MISSING_NONLINEARITY),
        *(Cause.LR_TOO_HIGH, Cause.LOSS_DIVERGENCE, Cause.EXPLODING_GRADIENT),
    }
)
