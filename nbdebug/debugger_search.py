"""A small search over knobs: each setting a branch from one snapshot, under the same random numbers and batches.

By method, and for the dashboard's button. Any thread but the training thread; the session is held meanwhile, and the
model is afterwards where it was. Settings come from :mod:`nbdebug.debugger_search_space`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nbdebug.dashboard.runs import lower_is_better as is_named_so
from nbdebug.debugger_compare import TRAIN_LOSS
from nbdebug.debugger_search_optuna import Optuna, missing
from nbdebug.debugger_search_run import Conduct, Tour
from nbdebug.debugger_search_space import Engine, Listed, mistakes_in, refuse_unsearchable, settings, whole
from nbdebug.journal.journal import Journal
from nbdebug.records.commands import Outcome, Search
from nbdebug.records.errors import ConfigurationError, collect
from nbdebug.records.search import ACTIVITY, SearchEngine, SearchOptions, SearchResult
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.training.arguments import extent_mistakes
from nbdebug.training.session import Session


@dataclass(frozen=True)
class SearchCost:
    """What a search would do: ``trials`` of ``steps`` steps each, in about ``seconds`` if none is ended early."""

    trials: int
    steps: int
    seconds: float

    def __str__(self) -> str:
        about = f"about {self.seconds:.0f} s" if self.seconds >= 1 else "under 1 s"
        return f"{ACTIVITY}: {self.trials} trials of {self.steps:,} steps, at most {about}"


class Searching:
    """Tries settings out on one session."""

    _session: Session
    _journal: Journal
    _not_from_within: Callable[[str], None]

    @property
    def searches(self) -> tuple[SearchResult, ...]:
        """The searches made, oldest first; of one under way, what it found so far."""
        return self._journal.searches

    def search(
        self,
        space: Mapping[str, Sequence[Any]],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        trials: int | None = None,
        seed: int = 0,
        measure: str = "",
        lower_is_better: bool | None = None,
        prune: bool = True,
        engine: str = "random",
    ) -> SearchResult:
        """Try settings from where the model is, each on a branch with the same batches and random numbers.

        Args:
            space: by knob, as :meth:`set` names them: a list of values, or a pair (low, high) to draw from, on a log
                scale where it spans a factor of 100 or more.
            epochs: how long each is trained, or
            steps: so many steps.
            trials: so many settings drawn at random; without it all combinations of the lists.
            seed: by which they are drawn.
            measure: what is judged by: ``"val_loss"``, ``"val_"`` and a metric's name, or ``"loss"``, the mean training
                loss of the last part; by default the validation's where it is by ``epochs`` and there is one.
            lower_is_better: whether the best is the lowest; by default so for losses, and metrics named as errors are.
            prune: end a trial early that is worse than the median of those before it at the same place.
            engine: ``"random"``, or ``"optuna"``: after ten draws at random each setting is chosen by what came of
                those before (TPE, seeded), which pays off for 20 trials and more. Needs the package optuna.

        The branches stay on record: ``checkout(found.best.run)`` goes on with the best. ``pause()``, ``stop()`` and an
        interrupt call it off; what it found until then stays in :attr:`searches`.

        Raises:
            ConfigurationError: lists all that can't work; nothing is done then.
            CommandError: it was called off, or somebody else holds the session.
        """
        asked = Search(space, epochs, steps, trials, seed, measure, lower_is_better, prune, engine)
        return self._search(asked, print)

    def search_cost(
        self,
        space: Mapping[str, Sequence[Any]],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        trials: int | None = None,
    ) -> SearchCost:
        """What :meth:`search` would take."""
        refuse_nonsense(Search(space, epochs, steps, trials))
        return self._cost(len(settings(self._session, space, trials, 0)), epochs, steps)

    # -- inside -------------------------------------------------------------------------------------------------

    def _search(self, asked: Search, say: Callable[[Any], None]) -> SearchResult:
        self._not_from_within("search")
        refuse_nonsense(asked)
        series, measure = self._measure_of(asked.measure or ("loss" if asked.steps is not None else ""))
        lower = asked.lower_is_better if asked.lower_is_better is not None else _is_lower_better(measure)
        engine, count = self._engine(asked, lower)
        cost = self._cost(count, asked.epochs, asked.steps)
        say(cost)
        kind, number = SearchEngine(asked.engine), 1 + max((each.number for each in self._journal.searches), default=0)
        planned = SearchResult(
            *(measure, lower, ()), dict(asked.space), kind, planned=count, steps=cost.steps, number=number
        )
        conduct = Conduct(asked.epochs, asked.steps, series, asked.prune)
        return Tour(self._session, self._journal, engine, conduct, planned).go(str(cost))

    def _engine(self, asked: Search, lower: bool) -> tuple[Engine, int]:
        """What chooses the settings, and how many there will be."""
        session, space = self._session, asked.space
        if asked.engine == SearchEngine.OPTUNA and asked.trials is not None:
            refuse_unsearchable(session, space, asked.seed)
            return Optuna(space, whole(session, space), asked.trials, asked.seed, lower=lower), asked.trials
        chosen = settings(session, space, asked.trials, asked.seed)
        return Listed(iter(chosen), lower), len(chosen)

    def _cost(self, count: int, epochs: int | None, steps: int | None) -> SearchCost:
        session = self._session
        each = steps if steps is not None else (epochs or 0) * (session.loop.cursor.batches or 0)
        return SearchCost(count, each, count * (each * session.seconds_per_step + session.restore_s))

    def _measures(self) -> dict[str, Series]:
        """By name, the default one first."""
        trainer = self._session.trainer
        if trainer.val_loader is None:
            return {"loss": TRAIN_LOSS}
        validated = {f"val_{name}": Series(Signal.METRIC, name, Split.VAL) for name in trainer.metrics}
        return {"val_loss": Series(Signal.LOSS, split=Split.VAL), **validated, "loss": TRAIN_LOSS}

    def _measure_of(self, measure: str) -> tuple[Series, str]:
        known = self._measures()
        name = measure or next(iter(known))
        if name not in known:
            raise ConfigurationError(f"measure={measure!r}: there are {', '.join(known)}")
        return known[name], name

    def _search_options(self) -> SearchOptions:
        """For the dashboard."""
        measures = tuple((name, _is_lower_better(name)) for name in self._measures())
        why = missing()
        return SearchOptions(measures, ((SearchEngine.OPTUNA, why),) if why else (), self._session.restore_s)

    def _search_aside(self, command: Search) -> None:
        """A search asked for on the dashboard: on a thread of its own, since it gives many commands and waits."""

        def search() -> None:
            with suppress(Exception):  # the user's code may raise anything; it is told as the outcome
                self._search_and_tell(command)

        threading.Thread(target=search, name="nbdebug search", daemon=True).start()

    def _search_and_tell(self, command: Search) -> None:
        text, ok, made = "", False, ""
        try:
            found = self._search(command, lambda _: None)
            text, ok, made = found.sentence, True, found.best.run
        except Exception as error:
            text = str(error) or type(error).__name__
            raise
        finally:
            session = self._session
            told = Outcome(command, session.timeline.current, session.loop.step, ok, text, made)
            self._journal.record_outcome(told)


def refuse_nonsense(asked: Search) -> None:
    """Raise a ConfigurationError with all that is wrong before any knob is looked at."""
    mistakes = extent_mistakes(asked.epochs, asked.steps, needed=True)
    if asked.engine not in list(SearchEngine):
        mistakes.append(f"engine={asked.engine!r}: give 'random' or 'optuna'")
    if asked.engine == SearchEngine.OPTUNA and (why := missing()):
        mistakes.append(why)
    mistakes += mistakes_in(asked.space, asked.trials, asked.seed, asked.engine)
    if mistakes:
        raise collect(mistakes)


def _is_lower_better(measure: str) -> bool:
    return measure in ("loss", "val_loss") or is_named_so(measure.removeprefix("val_"))
