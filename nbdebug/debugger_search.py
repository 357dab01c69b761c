"""A small search over knobs: each setting a branch from one snapshot, under the same random numbers and batches.

Hopeless ones are ended early: after each part, what is worse than the median of those that came as far. Any thread but
the training thread; the session is held meanwhile, and the model is afterwards where it was.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbdebug.debugger_compare import TRAIN_LOSS, curves
from nbdebug.debugger_excursion import ask, excursion
from nbdebug.journal.journal import Journal
from nbdebug.records.commands import Changes, Rerun, Start
from nbdebug.records.errors import CommandError, ConfigurationError, collect
from nbdebug.records.search import Search, Trial
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.status import State
from nbdebug.training import knobs
from nbdebug.training.arguments import extent_mistakes
from nbdebug.training.mailbox import Reservation
from nbdebug.training.session import Session

PARTS = 5  # that a trial of so many steps is judged in
FEWEST = 3  # trials that must have come as far before one is ended
MOST = 500
WIDE = 100.0  # times: a wider range is drawn from on a log scale
WORSE = "worse than the median"
NOT_FINITE = "not finite"
NOT_VALIDATED = "no validation so soon"


@dataclass(frozen=True)
class SearchCost:
    """What a search would do: ``trials`` of ``steps`` steps each, in about ``seconds`` if none is ended early."""

    trials: int
    steps: int
    seconds: float

    def __str__(self) -> str:
        about = f"about {self.seconds:.0f} s" if self.seconds >= 1 else "under 1 s"
        return f"searching: {self.trials} trials of {self.steps:,} steps, at most {about}"


class Searching:
    """Tries settings out on one session."""

    _session: Session
    _journal: Journal
    _not_from_within: Callable[[str], None]

    def search(
        self,
        space: Mapping[str, Sequence[Any]],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        trials: int | None = None,
        seed: int = 0,
        measure: str = "",
        lower_is_better: bool = True,
        prune: bool = True,
    ) -> Search:
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
            lower_is_better: whether the best is the lowest.
            prune: end a trial early that is worse than the median of those before it at the same place.

        The branches stay on record: ``checkout(found.best.run)`` goes on with the best. ``pause()``, ``stop()`` and an
        interrupt call it off.

        Raises:
            ConfigurationError: lists all that can't work.
            CommandError: it was called off, or somebody else holds the session.
        """
        self._not_from_within("search")
        settings = self._settings(space, epochs, steps, trials, seed)
        series, name = self._measure_of(measure or ("loss" if steps is not None else ""))
        cost = self._cost(len(settings), epochs, steps)
        print(cost)
        run = _Run(self._session, self._journal, settings, epochs, steps, series, lower_is_better, prune)
        found = run.all(cost)
        return Search(name, lower_is_better, tuple(sorted(found, key=lambda trial: _rank(trial, lower_is_better))))

    def search_cost(
        self,
        space: Mapping[str, Sequence[Any]],
        *,
        epochs: int | None = None,
        steps: int | None = None,
        trials: int | None = None,
    ) -> SearchCost:
        """What :meth:`search` would take."""
        return self._cost(len(self._settings(space, epochs, steps, trials, 0)), epochs, steps)

    def _cost(self, count: int, epochs: int | None, steps: int | None) -> SearchCost:
        session = self._session
        each = steps if steps is not None else (epochs or 0) * (session.loop.cursor.batches or 0)
        return SearchCost(count, each, count * (each * session.seconds_per_step + session.restore_s))

    def _measure_of(self, measure: str) -> tuple[Series, str]:
        trainer = self._session.trainer
        known = {"loss": TRAIN_LOSS}
        if trainer.val_loader is not None:
            validated = {f"val_{name}": Series(Signal.METRIC, name, Split.VAL) for name in trainer.metrics}
            known = {"val_loss": Series(Signal.LOSS, split=Split.VAL), **validated, **known}
        name = measure or next(iter(known))
        if name not in known:
            raise ConfigurationError(f"measure={measure!r}: there are {', '.join(known)}")
        return known[name], name

    def _settings(
        self, space: Mapping[str, Sequence[Any]], epochs: Any, steps: Any, trials: int | None, seed: int
    ) -> list[Changes]:
        mistakes = extent_mistakes(epochs, steps, needed=True)
        if not isinstance(space, Mapping) or not space:
            raise collect([*mistakes, "space names no knob: give {'lr': [1e-3, 1e-2], 'weight_decay': [0, 0.1]}"])
        ranges = [name for name, values in space.items() if isinstance(values, tuple)]
        for name, values in space.items():
            numbers = isinstance(values, tuple) and len(values) == 2 and values[0] < values[1]
            if not (numbers or (isinstance(values, list) and values)):
                mistakes.append(f"{name}={values!r:.60}: give a list of values, or a pair (low, high)")
        if ranges and trials is None and not mistakes:
            mistakes.append(f"{ranges[0]} is a range: say how many settings to draw, trials=20")
        if mistakes:
            raise collect(mistakes)
        chosen = list(_drawn(space, trials, seed) if trials is not None else _grid(space))
        if len(chosen) > MOST:
            raise ConfigurationError(f"{len(chosen):,} settings are too many, {MOST} are the most: give trials=...")
        parsed = [knobs.parse(setting, tuple(self._session.knobs.own)) for setting in chosen]
        wrong = [line for changes, lines in parsed for line in (*lines, *self._session.knobs.mistakes(changes))]
        if wrong:
            raise collect(list(dict.fromkeys(wrong)))
        return [changes for changes, _ in parsed]


class _Run:
    """One search under way."""

    def __init__(
        self,
        session: Session,
        journal: Journal,
        settings: list[Changes],
        epochs: int | None,
        steps: int | None,
        series: Series,
        lower: bool,
        prune: bool,
    ) -> None:
        self._session = session
        self._journal = journal
        self._settings = settings
        self._series = series
        self._sign = 1.0 if lower else -1.0
        self._prune = prune
        self._by_epochs = steps is None
        total = epochs if steps is None else steps
        assert total is not None
        parts = total if self._by_epochs else min(PARTS, total)
        ends = [round(total * (k + 1) / parts) for k in range(parts)]
        self._parts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        self._scores: list[list[float]] = [[] for _ in self._parts]

    def all(self, cost: SearchCost) -> list[Trial]:
        """Every trial, and then back."""
        session, found = self._session, list[Trial]()
        with session.reserved(str(cost), quiet=True) as hold, excursion(session, hold, "(before a search)") as home:
            for index, changes in enumerate(self._settings):
                hold.activity = f"searching: trial {index + 1} of {len(self._settings)}, {changes}"
                found.append(self._trial(changes, home, hold))
        return found

    def _trial(self, changes: Changes, home: str, hold: Reservation) -> Trial:
        session, score, run, ended = self._session, math.nan, "", ""
        for part, length in enumerate(self._parts):
            epochs, steps = (length, None) if self._by_epochs else (None, length)
            if part == 0:
                run = ask(session, Rerun(home, epochs, steps, changes), hold).made
                begin = session.timeline.runs[run].step
            else:
                ask(session, Start(epochs, steps), hold)
            self._wait(hold)
            here = session.loop.step
            found = self._score(run, begin, here)
            if found is None:  # no validation so far
                ended = NOT_VALIDATED if part == len(self._parts) - 1 else ""
                continue
            score = found
            if not math.isfinite(score):
                score, ended = math.nan, NOT_FINITE
                break
            others, self._scores[part] = list(self._scores[part]), [*self._scores[part], score]
            last = part == len(self._parts) - 1
            if self._prune and not last and len(others) >= FEWEST and self._is_hopeless(score, others):
                ended = WORSE
                break
        return Trial(changes, run, score, session.loop.step - begin, ended)

    def _is_hopeless(self, score: float, others: list[float]) -> bool:
        return self._sign * score > self._sign * float(np.median(others))

    def _wait(self, hold: Reservation) -> None:
        session = self._session
        session.wait(lambda state: state not in (State.RUNNING, State.REWINDING))
        if hold.cancelled:
            raise CommandError("the search was called off; the model is where it was")
        if session.failure is not None and session.state is State.FAILED:
            raise session.failure.exception

    def _score(self, run: str, begin: int, here: int) -> float | None:
        """The measure at the end of a part, if it was taken; of training losses the mean over it."""
        points = curves(self._journal, run, begin, here).get(self._series)
        if points is None or not len(points.values):
            return None
        if self._series != TRAIN_LOSS:
            return float(points.values[-1])
        begun = here - max(1, (here - begin) // len(self._parts))
        return float(points.values[points.steps > begun].mean())


def _grid(space: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*space.values()):
        yield dict(zip(space, values, strict=True))


def _drawn(space: Mapping[str, Sequence[Any]], trials: int, seed: int) -> Iterator[dict[str, Any]]:
    """Settings drawn at random, none twice where there are enough of them; the global generators are left alone."""
    random = np.random.default_rng(seed)
    seen: set[str] = set()
    for _ in range(50 * trials):
        setting = {name: _draw(values, random) for name, values in space.items()}
        if repr(setting) not in seen:
            seen.add(repr(setting))
            yield setting
        if len(seen) == trials:
            return


def _draw(values: Sequence[Any], random: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[int(random.integers(len(values)))]
    low, high = float(values[0]), float(values[1])
    if low > 0 and high / low >= WIDE:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))
    return float(random.uniform(low, high))


def _rank(trial: Trial, lower: bool) -> tuple[bool, bool, float]:
    """Those that went to their end first, then those that were ended."""
    bad = math.isnan(trial.score)
    return bad, bool(trial.ended), 0.0 if bad else trial.score if lower else -trial.score
