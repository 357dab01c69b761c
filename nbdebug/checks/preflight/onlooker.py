"""The passive part: looks at the user's own first steps, changing nothing, and says what is wrong. Training thread.

The first two steps are looked into, and more where gradients are added up over several of them; of the next ones only
the batches are kept, to judge the data by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from nbdebug.checks.check import Skip
from nbdebug.checks.parameters import Parameters
from nbdebug.checks.preflight.baseline import baseline
from nbdebug.checks.preflight.battery import MOST_TRACED_STEPS, TRACED_STEPS, disabled, judge_all
from nbdebug.checks.preflight.bench import keep_result
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.registry import checks
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.tracer import can_trace_calls, traced
from nbdebug.records.findings import Cause, Finding
from nbdebug.training import batches
from nbdebug.training.aside import copied
from nbdebug.training.modules import Model
from nbdebug.training.steps import StepResult
from nbdebug.training.trainer import Trainer, length

MOST_BATCHES = 24
MOST_BYTES = 16_000_000
MOST_SAMPLES = 1_024


class Onlooker:
    """Sees the first steps. ``parameters()`` is the table in force, ``ignored()`` what nobody wants to hear of.

    ``baseline`` is the loss of the best constant prediction, NaN while unknown.
    """

    def __init__(
        self, trainer: Trainer, parameters: Callable[[], Parameters], ignored: Callable[[], frozenset[Cause]]
    ) -> None:
        self._checks = [check for check in checks() if check.passive]
        self._trainer = trainer
        self._parameters = parameters
        self._ignored = ignored
        self._model: Model | None = None
        self._batches: list[Any] = []
        self._traces: list[StepTrace] = []
        self._samples = self._bytes = self._steps = 0
        self._traced: StepTrace | None = None
        self._broke_off = False
        self._place = ("", 0)
        self._judged = (0, 0)
        self._told: set[Cause] = set()
        self._news = False
        self._over = False
        self._trouble: Exception | None = None
        self.baseline = math.nan

    def wants(self) -> bool:
        """Whether the step that begins now should be looked at."""
        return not self._over

    @contextmanager
    def watching(self, model: Model, batch: Any) -> Iterator[None]:
        """Within, that step is taken. What goes wrong in looking ends the looking, never the step."""
        self._model = model
        self._traced = None
        looking = ExitStack()
        with self._surviving():
            self._keep(batch)
            if self._is_tracing:
                calls = can_trace_calls(model, self._trainer)
                self._traced = looking.enter_context(traced(model, self._trainer.optimizers, batch, calls=calls))
                self._traces.append(self._traced)
        try:
            yield
        except Exception as error:
            self._broke_off = True
            if self._traced is not None:
                self._traced.error = error
            raise
        finally:
            with self._surviving():
                looking.close()
                self._mind_news()

    @property
    def _is_tracing(self) -> bool:
        """Whether this step should be looked into: one of the first, or one on the way to an update that is due."""
        count = len(self._traces)
        waits = count < MOST_TRACED_STEPS and bool(self._traces) and self._traces[-1].waits_for_update
        return count == self._steps - 1 and (count < TRACED_STEPS or waits)

    def _mind_news(self) -> None:
        """There is something to judge after each of the first steps, and once the update came that was waited for."""
        goes_on = len(self._traces) == self._steps and self._traces[-1].waits_for_update
        goes_on &= TRACED_STEPS <= len(self._traces) < MOST_TRACED_STEPS
        self._news |= self._traced is not None and not goes_on
        if self._is_enough and len(self._traces) >= TRACED_STEPS and not goes_on:
            self._end()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Programs may hold anything: an error of ours within ends the looking, and is told with the findings."""
        try:
            yield
        except Exception as error:
            self._trouble = self._trouble or error
            self._end()

    @property
    def _is_enough(self) -> bool:
        return len(self._batches) >= MOST_BATCHES or self._samples >= MOST_SAMPLES or self._bytes >= MOST_BYTES

    def _keep(self, batch: Any) -> None:
        self._steps += 1
        if len(self._batches) < TRACED_STEPS or not self._is_enough:
            self._batches.append(copied(batch))
            self._samples += batches.samples(batch, None)
            self._bytes += sum(tensor.numel() * tensor.element_size() for _, tensor in leaves(batch))

    def _end(self) -> None:
        self._over = self._news = True

    def step_done(self, result: StepResult) -> None:
        """The step came to its end."""
        if self._traced is not None:
            with self._surviving():
                keep_result(self._traced, result)

    def findings(self, run: str, step: int, *, last: bool, rests: bool = False) -> list[Finding]:
        """What is wrong, as far as it was not said before."""
        self._mind_jumps(run, step)
        if last and self._batches and not self._over:
            self._end()
        if not self._news or self._model is None:
            return []
        self._news = False
        found: list[Finding] = []
        if self._trouble is None:
            with self._surviving():
                found = self._judge(self._model, run, step, last=last)
        if self._trouble is not None:
            found = [disabled("looking at the first steps", self._trouble, run, step)]
        if self._over:
            self._let_go()
        return found

    def _mind_jumps(self, run: str, step: int) -> None:
        """Where training began again somewhere else, what was seen since belongs to no first steps, and is left out."""
        before, self._place = self._place, (run, step)
        if before[0] and (run != before[0] or step < before[1]) and not self._over:
            self._batches, self._traces = self._batches[: self._judged[0]], self._traces[: self._judged[1]]
            self._end()
        self._judged = (len(self._batches), len(self._traces))

    def _judge(self, model: Model, run: str, step: int, *, last: bool) -> list[Finding]:
        known = length(self._trainer.train_loader)
        seen_whole = last and not self._broke_off and len(self._batches) == step
        look = Look(
            model,
            self._trainer,
            self._batches,
            [],
            self._traces,
            epoch_length=known or (step if seen_whole else None),
            whole_epoch=last and len(self._batches) == known if known else seen_whole,
            of_one_epoch=len(self._batches),
            steps=self._steps,
        )
        self._note_baseline(look)
        results = judge_all(look, self._checks, self._parameters(), run, step)
        found = [finding for result in results for finding in result.findings]
        fresh = [each for each in found if each.cause not in self._told and each.cause not in self._ignored()]
        self._told.update(each.cause for each in fresh)
        return fresh

    def _note_baseline(self, look: Look) -> None:
        """What a constant prediction costs, for whoever judges the loss later."""
        try:
            self.baseline = baseline(look.task)
        except (Skip, RuntimeError, ValueError, TypeError):
            self.baseline = math.nan

    def _let_go(self) -> None:
        """Hold nothing of the model or the data any more."""
        self._batches, self._traces, self._model = [], [], None


class NoOnlooker:
    """In its place, where nobody wants one."""

    baseline = math.nan

    def wants(self) -> bool:
        """Whether the step that begins now should be looked at."""
        return False

    @contextmanager
    def watching(self, model: Model, batch: Any) -> Iterator[None]:
        """Within, that step is taken."""
        yield

    def step_done(self, result: StepResult) -> None:
        """The step came to its end."""

    def findings(self, run: str, step: int, *, last: bool, rests: bool = False) -> list[Finding]:
        """What is wrong, as far as it was not said before."""
        return []
