"""One call for scripts: all checks before training, some steps of it, and the report of both. Any thread."""

from __future__ import annotations

from contextlib import nullcontext

from nbdebug.debugger_live import LiveExaminer
from nbdebug.debugger_remedies import Remedies
from nbdebug.debugger_steering import Steering, refuse
from nbdebug.records.checks import Report
from nbdebug.records.commands import Start
from nbdebug.records.status import State
from nbdebug.training.arguments import extent_mistakes


class Diagnosing(Steering, Remedies):
    """What is wrong with a program, by checking it and training it for a while."""

    def diagnose(self, steps: int = 200, *, seconds: float | None = None) -> Report:
        """All checks before training, then so many steps of it with the live checks; the report of both.

        The model is trained by these steps; live checks are made whenever they are due, however long they take. What
        the user's code raises meanwhile is among the findings. A kernel interrupt of the checks gives the report of
        those that were made, without a step; one while training pauses.

        Raises:
            ConfigurationError: ``steps`` is no number of steps, or ``seconds`` no time.
            CommandError: something else holds the model, or it can't be trained now.
        """
        refuse(extent_mistakes(None, steps, needed=True))
        report = self.preflight(seconds=seconds)
        if report.was_called_off:
            return report
        examiner = self._session.stepper.examiner
        with examiner.unhurried() if isinstance(examiner, LiveExaminer) else nullcontext():
            self._ask(Start(steps=steps))
            self._pausing_on_interrupt(lambda state: state not in (State.RUNNING, State.REWINDING))
        results = (*report.results, *self._live_results())
        status = self._session.status()
        return Report(results, self.findings, status.run, status.step, report.seconds, report.notes, report.batch)
