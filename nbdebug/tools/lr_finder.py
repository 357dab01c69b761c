"""Reading a learning-rate range test: smoothing, where it diverged, which rates it suggests. Pure; any thread.

The test is Smith's (Cyclical learning rates for training neural networks, WACV 2017, section 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nbdebug.records.frames import Floats

FEWEST = 10  # rates to read anything from
MOST = 10_000
LOWEST, HIGHEST = 1e-12, 1e6
RUNAWAY = 4.0  # times the best smoothed loss
SETTLED = 5  # losses, before whose mean means little
LEAST_FALL = 0.1  # of the fall so far, which a loss near zero must rise by to count as running away
LIKELY, SURE = 3.0, 4.5  # standard deviations of the noise; noise alone gets to the second in one test of fifty
STEEPEST, VALLEY, TENTH, HALF = "steepest descent", "middle of the valley", "minimum / 10", "half of the diverging rate"


def mistakes(low: object, high: object, steps: object) -> list[str]:
    """Why no test can be made with these, a line for each reason."""
    found = []
    numbers = {"low": low, "high": high}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            found.append(f"{name}={value!r:.80}: give a learning rate, such as {1e-7 if name == 'low' else 10.0}")
        elif not LOWEST <= value <= HIGHEST:
            found.append(f"{name}={value!r}: give a learning rate from {LOWEST:g} to {HIGHEST:g}")
    if not found and not low < high:  # type: ignore[operator]  # both are numbers
        found.append(f"low={low!r} is not below high={high!r}: the rates grow from low to high")
    if isinstance(steps, bool) or not isinstance(steps, int) or not FEWEST <= steps <= MOST:
        found.append(f"steps={steps!r:.80}: give a whole number from {FEWEST} to {MOST:,}")
    return found


def rates(low: float, high: float, steps: int) -> Floats:
    """So many rates, each the same multiple of the one before; ``(steps,)``."""
    return np.geomspace(low, high, steps)


def beta(steps: int) -> float:
    """How much of the mean is kept from step to step: it reaches over a twelfth of the test."""
    return 1 - 1 / max(2.0, steps / 12)


class Smoother:
    """The exponential mean of what it was given so far, divided by 1 - β^t, so that it begins at the first value."""

    def __init__(self, keep: float) -> None:
        self._keep, self._mean, self._weight = keep, 0.0, 0.0

    def add(self, value: float) -> float:
        """The mean, this value included."""
        self._mean = self._keep * self._mean + (1 - self._keep) * value
        self._weight = self._keep * self._weight + (1 - self._keep)
        return self._mean / self._weight


def smoothed(losses: Floats, keep: float) -> Floats:
    """The same of a whole curve; NaN from the first loss on that is not finite."""
    smoother, found = Smoother(keep), np.full(losses.size, math.nan)
    for index, loss in enumerate(losses):
        if not math.isfinite(loss):
            break
        found[index] = smoother.add(float(loss))
    return found


class Watch:
    """Follows a test from step to step, and says when the loss has run away."""

    def __init__(self, steps: int) -> None:
        self._smoother = Smoother(beta(steps))
        self._first = self._best = self._last = math.nan
        self._early, self._seen, self._rough = max(3, steps // 3), 0, 0.0

    def has_diverged(self, loss: float) -> bool:
        """Whether it has, with this loss: not finite, or its mean far above the best.

        Far is four times the best; of losses near zero or below it, where that says little, three times its size, a
        part of the fall so far, or several times what losses differ by from step to step, above it.
        """
        if not math.isfinite(loss):
            return True
        smooth, seen = self._smoother.add(loss), self._seen
        if seen >= SETTLED:
            self._first = smooth if math.isnan(self._first) else self._first
            self._best = smooth if math.isnan(self._best) else min(self._best, smooth)
            size = max(abs(self._best), LEAST_FALL * (self._first - self._best), self._rough)
            if smooth > self._best + (RUNAWAY - 1) * size:
                return True
        if 0 < seen <= self._early:
            self._rough += (abs(loss - self._last) - self._rough) / seen
        self._last, self._seen = loss, seen + 1
        return False


@dataclass(frozen=True, slots=True)
class _Fall:
    """The stretch of a smooth curve in which something is learned, as indices.

    ``top`` is the last place above nine tenths of the way from the beginning's ``level`` to the ``bottom``, where the
    curve is lowest. ``noise`` is the standard deviation of the smooth curve while nothing is learned.
    """

    top: int
    middle: int
    bottom: int
    level: float
    depth: float
    noise: float

    def exceeds(self, deviations: float) -> bool:
        """Whether it is deeper than so many standard deviations of the noise."""
        return self.depth > max(deviations * self.noise, 1e-7 * abs(self.level))


def _try_fall(losses: Floats, smooth: Floats, keep: float) -> _Fall | None:
    """Where the curve falls; ``None`` where it is too short to tell."""
    settled = round(2 / (1 - keep))  # before it, the mean is over few losses, and low by chance
    if smooth.size < settled + 3:
        return None
    early = max(3, smooth.size // 3)
    level = float(np.median(smooth[:early]))
    bottom = settled + int(np.argmin(smooth[settled:]))
    depth = level - float(smooth[bottom])
    steps = np.diff(losses[: 2 * early])  # of neighbours, so that a slow fall does not count as noise
    raw = 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2)
    noise = raw * math.sqrt((1 - keep) / (1 + keep))

    def last_above(share: float) -> int:
        above = np.flatnonzero(smooth[: bottom + 1] > level - share * depth)
        return int(above[-1]) if above.size else 0

    return _Fall(last_above(0.1), last_above(0.5), bottom, level, depth, noise)


def _steepest(smooth: Floats, fall: _Fall, reach: int) -> int:
    """Where the smooth curve falls most within so many steps to either side, in its fall."""
    first, last = max(fall.top, reach), min(fall.bottom, smooth.size - 1 - reach)
    if last < first:
        return fall.middle
    places = np.arange(first, last + 1)
    return int(places[np.argmin(smooth[places + reach] - smooth[places - reach])])


def _read(losses: Floats, steps: int) -> tuple[Floats, _Fall | None]:
    """The smooth curve as far as it is finite, and its fall."""
    keep = beta(steps)
    smooth = smoothed(losses, keep)
    smooth = smooth[np.isfinite(smooth)]
    return smooth, _try_fall(losses[: smooth.size], smooth, keep)


def suggestions(rates: Floats, losses: Floats, steps: int, diverged_at: float | None) -> tuple[tuple[str, float], ...]:
    """Names and rates, the best first; none where the loss did not fall by more than its noise.

    The best is the lower of a tenth of the rate at the minimum and the middle of the valley, its half height: on the
    small problems of tests/benchmarks/find_lr.py that came nearest to a search, and either alone may be too high.
    """
    smooth, fall = _read(losses, steps)
    if fall is None or not fall.exceeds(LIKELY):
        return ()
    steepest = _steepest(smooth, fall, max(1, steps // 25))
    found = {
        VALLEY: float(rates[fall.middle]),
        TENTH: float(rates[fall.bottom]) / 10,
        STEEPEST: float(rates[steepest]),
    }
    best = min(VALLEY, TENTH, key=lambda name: found[name])
    order = [best, *(name for name in found if name != best)]
    told = [(name, found[name]) for name in order]
    if diverged_at is not None:
        told.append((HALF, diverged_at / 2))
    return tuple((name, float(f"{rate:.1e}")) for name, rate in told)


def note(rates: Floats, losses: Floats, steps: int, *, diverged: bool, found: tuple[tuple[str, float], ...]) -> str:
    """What else to know of a test: why there is nothing to suggest, or that it ended too soon."""
    ended = f"ended after {losses.size} of {steps} rates" if losses.size < steps and not diverged else ""
    if diverged and losses.size <= max(3, steps // 10):
        return f"the loss ran away at once: begin lower than {rates[0]:.1e}"
    if not found:
        why = "" if losses.size < FEWEST else "the loss did not fall by more than its noise: more steps would tell more"
        return "; ".join(text for text in (ended, why) if text)
    smooth, fall = _read(losses, steps)
    unsure = "the loss fell by little more than its noise: more steps would be surer"
    if fall is not None and not fall.exceeds(SURE):
        return "; ".join(text for text in (ended, unsure) if text)
    if not ended and not diverged and int(np.argmin(smooth)) >= losses.size - 2:
        return f"the loss still fell at the highest rate, {rates[-1]:.1e}: test higher ones"
    return ended
