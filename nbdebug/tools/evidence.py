"""Holds the levels of a series against chance. Pure numbers; any thread.

Two tests do so:

* the paired t-test, strong where a seed moves parent and branch alike, as it does in steady training;
* from five pairs on the rank-sum test of all branches against all parents, strong where seeds do not, and where some
  branches blow up: then the spread drowns a mean, though every branch may be worse than every parent. It relies on
  one seed not moving the two in opposite directions.

Where there are two tests each gets half of ``ALPHA``, so together they give false alarm in at most ``ALPHA`` of cases.

Sources: Student 1908; Wilcoxon 1945, Mann & Whitney 1947 (exact, ties counted against a difference); for runs that
diverged, and have no level, the ranks alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nbdebug.records.frames import Floats
from nbdebug.tools.student import cumulative, quantile, two_sided_p

ALPHA = 0.02
ALPHA_SINGLE = 0.05  # of one run against many parents: too blunt for more
FEWEST_SEEDS = 2
FEWEST_RANKED = 5  # pairs: with fewer, no order of ranks is rare enough


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' levels by seed, the original runs first; one run for all parents where it was not rerun."""

    parents: Floats
    runs: Floats

    @property
    def parent_only(self) -> bool:
        """Whether the branch was not rerun."""
        return self.runs.size < self.parents.size

    @property
    def diverged(self) -> bool:
        """Whether any of them did."""
        return not np.isfinite([*self.parents, *self.runs]).all()

    @property
    def differences(self) -> Floats:
        """Run minus parent; 0 where both diverged."""
        with np.errstate(invalid="ignore"):
            found = self.runs - self.parents
        return np.where(np.isnan(found), 0.0, found)

    def pairings_ahead(self, direction: float) -> int:
        """Of all pairings of a run with a parent, those in which the run lies in ``direction`` of the parent."""
        return int((np.subtract.outer(self.runs, self.parents) * np.sign(direction) > 0).sum())

    @property
    def noise(self) -> float:
        """The sample standard deviation of the parent's levels; NaN with one seed or a diverged parent."""
        return _deviation(self.parents) if np.isfinite(self.parents).all() else math.nan


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the levels say: ``p`` of chance, which way, and how sure it is that the difference is below the noise.

    With ``within`` 0 they say nothing of that.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    within: float
    direction: float
    alpha: float = ALPHA

    @property
    def shown(self) -> bool:
        """Whether chance is too seldom to explain the difference."""
        return self.p < self.alpha


def weigh(sample: Sample) -> Evidence:
    """Hold the levels of the runs against those of the parents."""
    differences = sample.differences
    count = differences.size
    shift = float(differences[0])
    chanceless = _alike(sample.parents) and _alike(sample.runs)
    # Two equal differences of a coarse metric are soon met by chance; three seldom.
    same = count > 1 and _alike(differences) and (chanceless or count > FEWEST_SEEDS or not shift)
    if same and math.isfinite(shift):
        return Evidence(shift, (shift, shift), 0.0 if shift else 1.0, 1.0, np.sign(shift))
    if sample.diverged:
        return _of_diverged(sample)
    if count <= FEWEST_SEEDS:
        return _of_too_few(differences)
    return _of_single_run(sample) if sample.parent_only else _of_pairs(sample)


def _of_too_few(differences: Floats) -> Evidence:
    shift = float(differences.mean())
    spread = quantile(0.975, 1) * _deviation(differences) / math.sqrt(2) if differences.size > 1 else math.inf
    return Evidence(shift, (shift - spread, shift + spread), 1.0, 0.0, 0.0)


def _of_pairs(sample: Sample) -> Evidence:
    differences = sample.differences
    count = differences.size
    shift = float(differences.mean())
    error = _deviation(differences) / math.sqrt(count)
    p = two_sided_p(shift / error, count - 1)
    if count >= FEWEST_RANKED:
        p = min(1.0, 2 * min(p, rank_sum_p(sample, shift)))
    return _of_t(shift, error=error, freedom=count - 1, noise=sample.noise, p=p)


def rank_sum_p(sample: Sample, direction: float) -> float:
    """The exact chance of ranks that part the two groups as far in this direction; two infinite ones count against."""
    count = sample.parents.size
    with np.errstate(invalid="ignore"):
        against = count * count - sample.pairings_ahead(direction)
    ways = [1] + [0] * against  # of the C(2n, n) orders, those with 0, 1, 2 … pairings against: a Gaussian binomial
    for size in range(1, count + 1):
        for u in range(against, count + size - 1, -1):
            ways[u] -= ways[u - count - size]
        for u in range(size, against + 1):
            ways[u] += ways[u - size]
    return min(1.0, 2 * sum(ways) / math.comb(2 * count, count))


def _of_single_run(sample: Sample) -> Evidence:
    """The t-test of one new observation against many: its error is theirs and its own."""
    count = sample.parents.size
    error = sample.noise * math.sqrt(1 + 1 / count)
    shift = float(sample.differences.mean())
    p = two_sided_p(shift / error, count - 1)
    return _of_t(shift, error=error, freedom=count - 1, noise=sample.noise, p=p, alpha=ALPHA_SINGLE)


def _of_t(shift: float, *, error: float, freedom: float, noise: float, p: float, alpha: float = ALPHA) -> Evidence:
    half_width = quantile(0.975, freedom) * error
    within = cumulative((noise - shift) / error, freedom) - cumulative((-noise - shift) / error, freedom)
    return Evidence(shift, (shift - half_width, shift + half_width), p, within, np.sign(shift), alpha)


def _of_diverged(sample: Sample) -> Evidence:
    """Some level is infinite: certain where the original runs show it and nothing speaks against it."""
    differences = sample.differences
    with np.errstate(invalid="ignore"):
        shift = float(differences.mean())
    signs = np.sign(differences)
    healthy = np.isfinite(sample.parents).all() or np.isfinite(sample.runs).all()
    if healthy and np.isinf(differences[0]):
        p, direction = 0.0, signs[0]
    else:
        direction = np.sign(signs.sum())
        told = bool(direction) and not sample.parent_only and differences.size >= FEWEST_RANKED
        p = rank_sum_p(sample, direction) if told else 1.0
    return Evidence(shift, (-math.inf, math.inf), p, 0.0, float(direction))


def _alike(levels: Floats) -> bool:
    return bool((levels == levels[0]).all())


def _deviation(levels: Floats) -> float:
    return float(levels.std(ddof=1)) if levels.size > 1 else math.nan
