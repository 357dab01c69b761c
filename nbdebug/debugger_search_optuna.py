"""Settings chosen by Optuna, which learns from the trials before: TPE and median pruning. Any one thread.

Tree-structured Parzen estimators: Bergstra et al. 2011, https://papers.nips.cc/paper/4443. The first ten settings are
drawn at random. Seeded by itself: the same results before give the same setting next, and no global generator is used.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nbdebug.debugger_search_space import FEWEST, Setting, Space
from nbdebug.records.errors import ConfigurationError
from nbdebug.records.search import is_log

NEEDED = "search(engine='optuna') needs the package optuna, which is not installed: pip install 'nbdebug[search]'"


def missing() -> str:
    """Why Optuna can't be used; empty if it can. Looks for it without importing it."""
    return "" if importlib.util.find_spec("optuna") is not None else NEEDED


class Optuna:
    """A study of so many trials.

    Raises:
        ConfigurationError: Optuna is not installed.
    """

    def __init__(self, space: Space, whole: frozenset[str], trials: int, seed: int, *, lower: bool) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigurationError(NEEDED) from error
        self._optuna = optuna
        self._space = space
        self._left = trials
        self._known = {name: _distribution(optuna, values, name in whole) for name, values in space.items()}
        with self._quietly():
            self._study = optuna.create_study(
                direction="minimize" if lower else "maximize",
                sampler=optuna.samplers.TPESampler(seed=seed),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=FEWEST),
            )
        self._trial: Any = None

    def propose(self) -> Setting | None:
        """What promises most after the trials so far."""
        if not self._left:
            return None
        self._left -= 1
        with self._quietly():
            self._trial = self._study.ask(self._known)
        return {
            name: values[self._trial.params[name]] if isinstance(values, list) else self._trial.params[name]
            for name, values in self._space.items()
        }

    def is_hopeless(self, part: int, score: float) -> bool:
        """Whether the best that this trial has been is worse than the median of the others at this part."""
        with self._quietly():
            self._trial.report(score, part)
            return bool(self._trial.should_prune())

    def finish(self, score: float, ended: str) -> None:
        """A trial that was ended early counts for what it reached."""
        states = self._optuna.trial.TrialState
        with self._quietly():
            if math.isnan(score):
                self._study.tell(self._trial, state=states.FAIL)
            elif ended:
                self._study.tell(self._trial, state=states.PRUNED)
            else:
                self._study.tell(self._trial, score)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Optuna's log is the process's, and would speak of each study; afterwards it says as much as before."""
        log = self._optuna.logging
        before = log.get_verbosity()
        log.set_verbosity(max(before, log.WARNING))
        try:
            yield
        finally:
            log.set_verbosity(before)


def _distribution(optuna: Any, values: Any, whole: bool) -> Any:
    """Of a list its places are chosen among: then its values may be anything."""
    kinds = optuna.distributions
    if isinstance(values, list):
        return kinds.CategoricalDistribution(tuple(range(len(values))))
    low, high = values
    log = is_log(low, high)
    return kinds.IntDistribution(low, high, log=log) if whole else kinds.FloatDistribution(low, high, log=log)
