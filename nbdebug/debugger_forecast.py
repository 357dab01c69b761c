"""The next step foretold, by method and for the dashboard's button. Any thread; not from within a step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from nbdebug.journal.history import History
from nbdebug.journal.journal import Journal
from nbdebug.records.commands import Changes, Foretell, Outcome, SwapOptimizer
from nbdebug.records.errors import CommandError, collect
from nbdebug.records.forecast import Forecast
from nbdebug.records.signals import Signal
from nbdebug.tools.forecast import Question, forecast
from nbdebug.training import knobs
from nbdebug.training.optimizers import conversion_mistakes
from nbdebug.training.session import Session

BEFORE = "before"


class Forecasting:
    """Tells what the next step of one session would be."""

    _session: Session
    _journal: Journal
    history: History
    _not_from_within: Callable[[str], None]
    _foretold: tuple[Forecast, Changes] | None = None

    def forecast(self, *, optimizer: str | None = None, **options: Any) -> Forecast:
        """What the next step would be under these knobs (those of :meth:`set`), before they are set: prints well.

        By layer the update : weight ratio, now and then; the loss; how many of the latest steps a clipping threshold
        would have clipped. Two steps on the side, on the batch that the next step then really uses; all is as it was
        afterwards, bit for bit. Training must stand still.

        Args:
            optimizer: another kind, as :meth:`swap_optimizer` takes it; then the options are that one's.
            options: knobs. Of a ``batch_size`` the memory that a step would take is foretold, by two more steps; on
                CUDA from the allocator's peak, whose record (``torch.cuda.max_memory_allocated``) begins anew.

        Raises:
            ConfigurationError: lists every unknown name and value out of range.
            CommandError: training runs, or the epoch has no batch left.
        """
        if optimizer is not None:
            return self._foretell(Question(swap=self._swap(optimizer, options)))
        changes, wrong = knobs.parse(options, tuple(self._session.knobs.own))
        wrong += self._session.knobs.mistakes(changes)
        if wrong:
            raise collect(wrong)
        return self._foretell(Question(changes))

    # -- inside -------------------------------------------------------------------------------------------------

    def _swap(self, kind: str, options: Mapping[str, Any]) -> SwapOptimizer:
        chosen = {name: value for name, value in options.items() if name != "lr"}
        rate = options.get("lr")
        optimizers = self._session.trainer.optimizers.values()
        wrong = [line for each in optimizers for line in conversion_mistakes(each, kind, rate, chosen)]
        if wrong:
            raise collect(list(dict.fromkeys(wrong)))
        return SwapOptimizer(kind, rate, chosen)

    def _foretell(self, question: Question) -> Forecast:
        self._not_from_within("forecast")
        session, norm = self._session, str(Signal.GRADIENT_NORM)
        if not session.at_rest:
            raise CommandError("training is running: pause it to foretell the next step")
        norms = self.history[norm][1].tolist() if norm in list(self.history) else []
        made: Forecast = session.call("a forecast", lambda: forecast(session, question, norms))
        return made

    def _foretell_aside(self, command: Foretell) -> None:
        """Asked for on the dashboard: of the knobs as they are set now, beside how they were for the step before."""

        def foretell() -> None:
            text, ok = "", True
            with suppress(Exception):  # the user's code may raise anything; it is told as the outcome
                try:
                    back = self._session.course.since_last_step()
                    question = Question(before=back, now=BEFORE)
                    self._foretold = (self._foretell(question), self._session.knobs.all_asked())
                except Exception as error:
                    text, ok = str(error) or type(error).__name__, False
                    raise
                finally:
                    session = self._session
                    told = Outcome(
                        command, session.timeline.current, session.loop.step, ok, text or "next step foretold"
                    )
                    self._journal.record_outcome(told)

        threading.Thread(target=foretell, name="nbdebug forecast", daemon=True).start()

    def _latest_forecast(self) -> Forecast | None:
        """What was foretold for the dashboard, as long as it is of the step that comes next, under these knobs."""
        if self._foretold is None:
            return None
        told, asked = self._foretold
        session = self._session
        here = (session.timeline.current, session.loop.step)
        return told if here == (told.run, told.step) and session.knobs.all_asked() == asked else None
