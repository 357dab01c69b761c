"""Checks before training and on its first steps, by method and for the dashboard. Any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from nbdebug.checks.courses import Told, told
from nbdebug.checks.live.registry import live_checks
from nbdebug.checks.parameters import Parameters
from nbdebug.checks.preflight import battery, registry
from nbdebug.checks.preflight.onlooker import NoOnlooker, Onlooker
from nbdebug.checks.ranking import ranked
from nbdebug.debugger_excursion import interruptibly
from nbdebug.debugger_live import LiveExaminer
from nbdebug.journal.journal import Journal
from nbdebug.records.checks import CheckOutcome, CheckResult, Report
from nbdebug.records.commands import Outcome, RunPreflight
from nbdebug.records.errors import collect
from nbdebug.records.findings import Cause, Course, Finding, Gone
from nbdebug.training.mailbox import Reservation
from nbdebug.training.seams import Examiner
from nbdebug.training.session import Session
from nbdebug.training.thread_context import ThreadContext
from nbdebug.training.trainer import Trainer

ACTIVITY = "checks before training"


class Preflight:
    """What is wrong with the program, before it is trained."""

    _session: Session
    _journal: Journal
    _not_from_within: Callable[[str], None]
    _report: Report | None = None
    _changed_parameters: dict[str, float]
    _ignored: dict[Cause, str]
    _kept_told: tuple[tuple[Any, ...], tuple[Course, ...], tuple[Finding, ...]] | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, the most likely cause first, symptoms after what explains them.

        It is what was found of the run in the model, and of those that it came from before it left them. Left out is
        what is ignored, and what was found once and no longer is: :attr:`courses` has that, too.
        """
        return self._told()[1]

    @property
    def courses(self) -> tuple[Course, ...]:
        """What became of everything that was found of the run in the model: since when, when gone, when back."""
        return self._told()[0]

    @property
    def check_parameters(self) -> Parameters:
        """The numbers that checks go by; prints as a table. :meth:`set_check_parameters` changes them."""
        return all_parameters(self._changed_parameters)

    def set_check_parameters(self, **changes: float) -> None:
        """Change numbers that checks go by, from the next check on.

        Raises:
            ConfigurationError: lists every name that there is not, and every value that means nothing.
        """
        if mistakes := self.check_parameters.mistakes(changes):
            raise collect(mistakes)
        self._changed_parameters.update(changes)

    def ignore(self, cause: str, *, reason: str = "") -> None:
        """Hear no more of a cause, such as ``"class_imbalance"``; ``reason`` is kept with the run.

        Raises:
            ConfigurationError: there is no such cause.
        """
        if cause not in list(Cause):
            near = [str(each) for each in Cause if str(cause) in str(each)]
            raise collect([f"there is no cause {cause!r}" + (f": did you mean {', '.join(near)}?" if near else "")])
        self._ignored[Cause(cause)] = reason

    @property
    def ignored(self) -> Mapping[str, str]:
        """What nobody wants to hear of, each with its reason."""
        return {str(cause): reason for cause, reason in self._ignored.items()}

    @property
    def report(self) -> Report | None:
        """The latest report of :meth:`preflight`, ``None`` without any."""
        return self._report

    def preflight(self, *, skip: str | Collection[str] = (), seconds: float | None = None) -> Report:
        """Check data, model, loss and step for what is wrong, on your own loaders; leaves everything as it was.

        Runs your training step on the side, so that what it does outside of torch, such as printing or counting, it
        does here as well; the report lists what was seen of that. ``skip`` leaves out checks by name, ``seconds`` says
        how long it may take (10 by default); what there is no time for is listed as skipped. An interrupt, ``pause()``
        or ``stop()`` ends it with what there is.

        Raises:
            ConfigurationError: there is no such check, or ``seconds`` is no time.
            CommandError: something else holds the model.
            Exception: what your loader raised; everything is as it was.
        """
        self._not_from_within("preflight")
        named = (skip,) if isinstance(skip, str) else tuple(skip)
        command = RunPreflight(named, seconds)
        try:
            if mistakes := _mistakes(named, seconds):
                raise collect(mistakes)
            with self._session.reserved(ACTIVITY) as hold:
                report = self._check(command, hold)
        except Exception as error:
            self._tell_preflight(command, False, str(error) or type(error).__name__)
            raise
        self._report = report
        self._record_report(report)
        first = f"; first: {report.findings[0].title}" if report.findings else ""
        self._tell_preflight(command, True, report.sentence + first)
        return report

    # -- inside -------------------------------------------------------------------------------------------------

    def _told(self) -> tuple[tuple[Course, ...], tuple[Finding, ...]]:
        """Courses and findings; the same objects while nothing comes or goes."""
        journal, run = self._journal, self._session.home
        key = (journal.tellings, run, tuple(self._ignored))
        if self._kept_told is None or self._kept_told[0] != key:
            found = told(journal.told, journal.lineage(run)) if run in journal.runs else Told()
            courses = tuple(each for each in found.courses if each.finding.cause not in self._ignored)
            self._kept_told = (key, courses, ranked(found.standing, ignored=self._ignored))
        return self._kept_told[1:]

    def _record_report(self, report: Report) -> None:
        """What was found; and what was, and is no more."""
        found = {each.cause for each in report.findings}
        made = {each.name for each in report.results if each.outcome in (CheckOutcome.PASSED, CheckOutcome.FAILED)}
        judged = {(cause, each.source) for each in registry.checks() if each.name in made for cause in each.causes}
        standing = told(self._journal.told, self._journal.lineage(report.run)).standing
        gone = {(each.cause, each.by): each for each in standing if not each.check and each.cause not in found}
        for (cause, by), each in gone.items():
            if (cause, by) in judged:
                self._journal.record_gone(Gone(report.run, report.step, cause, by, each.step))
        for finding in report.findings:
            if finding.cause not in self._ignored:
                self._journal.record_finding(finding)

    def _live_results(self) -> tuple[CheckResult, ...]:
        """What live checks last came to, on the run that the model holds."""
        if self._session.is_reserved:  # by a comparison, say, whose reruns are no news of this run
            return ()
        examiner = self._session.stepper.examiner
        return examiner.results(self._session.timeline.current) if isinstance(examiner, LiveExaminer) else ()

    def _onlooker(self, trainer: Trainer, *, checks: bool) -> Examiner:
        self._changed_parameters, self._ignored = {}, {}
        if not checks:
            return NoOnlooker()

        def ignored() -> frozenset[Cause]:
            return frozenset(self._ignored)

        def parameters() -> Parameters:
            return self.check_parameters

        onlooker = Onlooker(trainer, parameters, ignored)
        return LiveExaminer(onlooker, lambda: self._journal, lambda: self._session, parameters, ignored)

    def _check(self, command: RunPreflight, hold: Reservation) -> Report:
        """On the training thread; an interrupt of this one ends it."""
        session, context = self._session, ThreadContext.capture()
        changed = {**self._changed_parameters}
        if command.seconds is not None:
            changed["preflight_seconds"] = float(command.seconds)

        def tell(count: int, total: int, title: str) -> None:
            hold.activity = f"{ACTIVITY}: {count + 1} of {total}, {title}"

        def check() -> Report:
            return battery.run(
                session, context, all_parameters(changed), skip=command.skip, tell=tell,
                called_off=lambda: hold.cancelled or session.is_called_off,
            )  # fmt: skip

        return interruptibly(session, ACTIVITY, check, hold)

    def _tell_preflight(self, command: RunPreflight, ok: bool, text: str) -> None:
        session = self._session
        self._journal.record_outcome(Outcome(command, session.timeline.current, session.loop.step, ok, text))

    def _preflight_aside(self, command: RunPreflight) -> None:
        """Checks asked for on the dashboard: on a thread of their own, since they wait."""

        def check() -> None:
            with suppress(Exception):  # the user's code may raise anything; it is told as the outcome
                self.preflight(skip=command.skip, seconds=command.seconds)

        threading.Thread(target=check, name="nbdebug checks", daemon=True).start()


def all_parameters(changed: Mapping[str, float]) -> Parameters:
    """The table of all checks: before training, and while it goes on."""
    live = [parameter for check in live_checks() for parameter in check.parameters]
    return Parameters([*registry.table().known.values(), *live], changed)


def _mistakes(skip: Collection[str], seconds: float | None) -> list[str]:
    known = [check.name for check in registry.checks()]
    found = [f"there is no check {name!r}: there are {', '.join(known)}" for name in skip if name not in known]
    if seconds is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
        found.append(f"seconds must be a positive number; got {seconds!r}")
    return found
