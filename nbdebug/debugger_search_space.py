"""What a search tries: combinations of lists, settings drawn at random, and what can't be tried. Any thread."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nbdebug.records.commands import Changes
from nbdebug.records.errors import ConfigurationError, collect
from nbdebug.records.search import is_log
from nbdebug.training import knobs
from nbdebug.training.session import Session

FEWEST = 3  # trials that must have come as far before one is ended
MOST = 500
LOOKED_AT = 20  # settings that are tried for mistakes before Optuna chooses any
INSIDE = 0.437  # of a range: no whole number, as the ends of one may be

Setting = dict[str, Any]
Space = Mapping[str, Sequence[Any]]


class Engine(Protocol):
    """Chooses settings one after the other, and hears what came of each."""

    def propose(self) -> Setting | None:
        """The next setting, ``None`` when no more are to be tried."""
        ...

    def is_hopeless(self, part: int, score: float) -> bool:
        """Whether the present trial, with this score after a part of its time, is not worth going on with."""
        ...

    def finish(self, score: float, ended: str) -> None:
        """What came of the present trial; NaN where it did not stay finite."""
        ...


@dataclass
class Listed:
    """Settings known beforehand. Hopeless is what is worse than the median of those that came as far."""

    settings: Iterator[Setting]
    lower: bool
    _scores: dict[int, list[float]] = field(default_factory=dict)

    def propose(self) -> Setting | None:
        """One after the other."""
        return next(self.settings, None)

    def is_hopeless(self, part: int, score: float) -> bool:
        """Once enough others came as far."""
        sign = 1.0 if self.lower else -1.0
        others = self._scores.setdefault(part, [])
        hopeless = len(others) >= FEWEST and sign * score > sign * float(np.median(others))
        others.append(score)
        return hopeless

    def finish(self, score: float, ended: str) -> None:
        """Nothing is learnt from it."""


def mistakes_in(space: Any, trials: Any, seed: Any, engine: str) -> list[str]:
    """What can't be a space, or a way to search it."""
    if not isinstance(space, Mapping) or not space:
        return ["space names no knob: give {'lr': [1e-3, 1e-2], 'weight_decay': [0, 0.1]}"]
    found = []
    for name, values in space.items():
        if not (_is_range(values) or (isinstance(values, list) and values)):
            found.append(f"{name}={values!r:.60}: give a list of values, or a pair (low, high)")
    ranges = [name for name, values in space.items() if isinstance(values, tuple)]
    if ranges and trials is None and not found:
        found.append(f"{ranges[0]} is a range: say how many settings to draw, trials=20")
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or not 1 <= trials <= MOST):
        found.append(f"trials={trials!r}: give a whole number from 1 to {MOST}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        found.append(f"seed={seed!r}: give a whole number from 0 to {2**32 - 1}")
    if engine == "optuna" and trials is None:
        found.append("engine='optuna' chooses settings one after the other: say how many, trials=30")
    return found


def _is_range(values: Any) -> bool:
    if not isinstance(values, tuple) or len(values) != 2:
        return False
    return all(is_number(value) for value in values) and values[0] < values[1]


def is_number(value: Any) -> bool:
    """A finite number, and no flag."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def parsed(session: Session, setting: Mapping[str, Any]) -> tuple[Changes, list[str]]:
    """A setting as changes, and why it can't be made."""
    changes, wrong = knobs.parse(setting, tuple(session.knobs.own))
    return changes, [*wrong, *session.knobs.mistakes(changes)]


def refuse_wrong(session: Session, settings: Sequence[Mapping[str, Any]]) -> None:
    """Raise a ConfigurationError with all that can't be made of these settings."""
    wrong = [line for setting in settings for line in parsed(session, setting)[1]]
    if wrong:
        raise collect(list(dict.fromkeys(wrong)))


def whole(session: Session, space: Space) -> frozenset[str]:
    """The knobs whose range is one of whole numbers, since they take no others."""
    return frozenset(
        name
        for name, values in space.items()
        if isinstance(values, tuple)
        and all(isinstance(value, int) for value in values)
        and not parsed(session, {name: values[0]})[1]
        and parsed(session, {name: values[0] + INSIDE * (values[1] - values[0])})[1]
    )


def settings(session: Session, space: Space, trials: int | None, seed: int) -> list[Setting]:
    """All combinations, or so many drawn at random.

    Raises:
        ConfigurationError: they are too many, or some can't be made; lists all that is wrong.
    """
    count = math.prod(len(values) for values in space.values()) if trials is None else trials
    if count > MOST:
        raise ConfigurationError(f"{count:,} settings are too many, {MOST} are the most: give trials=...")
    chosen = list(_grid(space) if trials is None else drawn(space, trials, seed, whole(session, space)))
    refuse_wrong(session, chosen)
    return chosen


def refuse_unsearchable(session: Session, space: Space, seed: int) -> None:
    """Raise a ConfigurationError where settings in this space can't be made, as far as a look at some can tell."""
    ends = [{name: value} for name, values in space.items() for value in values]
    refuse_wrong(session, [*ends, *drawn(space, LOOKED_AT, seed, whole(session, space))])


def _grid(space: Space) -> Iterator[Setting]:
    for values in itertools.product(*space.values()):
        yield dict(zip(space, values, strict=True))


def drawn(space: Space, trials: int, seed: int, whole: frozenset[str]) -> Iterator[Setting]:
    """Settings drawn at random, none twice where there are enough of them; the global generators are left alone."""
    random = np.random.default_rng(seed)
    seen: set[str] = set()
    for _ in range(50 * trials):
        setting = {name: _draw(values, random, name in whole) for name, values in space.items()}
        if repr(setting) not in seen:
            seen.add(repr(setting))
            yield setting
        if len(seen) == trials:
            return


def _draw(values: Sequence[Any], random: np.random.Generator, whole: bool) -> Any:
    if isinstance(values, list):
        return values[int(random.integers(len(values)))]
    low, high = float(values[0]), float(values[1])
    value = np.exp(random.uniform(np.log(low), np.log(high))) if is_log(low, high) else random.uniform(low, high)
    return min(max(round(float(value)), values[0]), values[1]) if whole else float(value)
