"""Whether a branch did better than its parent, or only had other luck. Pure numbers; any thread.

Both are rerun under other seeds; a pair is the parent and the branch under one seed. Each curve is reduced to its
level, the mean over its last third, so a pair gives one difference. Two tests hold the levels against chance:

* the paired t-test, strong where a seed moves parent and branch alike, as it does in steady training;
* from five pairs on the rank-sum test of all branches against all parents, strong where seeds do not, and where some
  branches blow up: then the spread drowns a mean, though every branch may be worse than every parent. It relies on
  one seed not moving the two in opposite directions.

Where there are two tests each gets half of ``ALPHA``, so together they give false alarm in at most ``ALPHA`` of cases.

Sources: Student 1908; Wilcoxon 1945, Mann & Whitney 1947 (exact, ties counted against a difference); the sign test for
runs that diverged, which have no level.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nbdebug.records.comparison import Comparison, SeriesComparison, Verdict
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.frames import Floats
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points

ALPHA = 0.02
ALPHA_SINGLE = 0.05  # of one run against many parents: too blunt for more
FEWEST_SEEDS = 2
FEWEST_RANKED = 5  # pairs: with fewer, no order of ranks is rare enough
MOST_POINTS = 2000
LOWER_IS_BETTER = frozenset({
    "error", "err", "loss", "mse", "mae", "rmse", "mape", "perplexity", "ppl", "nll", "bce", "wer", "cer", "fid",
    "distance", "divergence",
})  # fmt: skip
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # "valMSELoss2" has the words val, MSE, Loss
PARENT_ONLY = (
    "{run} could not be rerun under other seeds: one run of it is held against {count} of {parent}. "
    "That is a weaker test: it can miss an effect of several times the noise."
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Parent and branch under one seed: each one's recorded curves, every step of them. ``run`` None: not rerun."""

    parent: Mapping[Series, Points]
    run: Mapping[Series, Points] | None


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the levels say: ``p`` of chance, which way, and how sure it is that the difference is below the noise."""

    difference: float
    interval: tuple[float, float]
    p: float
    within: float
    direction: float
    alpha: float = ALPHA


def compare(
    parent_name: str,
    run_name: str,
    pairs: Sequence[Pair],
    *,
    first_step: int,
    last_step: int,
    lower_is_better: Collection[str] = (),
    caveat: str = "",
) -> Comparison:
    """Judge a branch against its parent over the steps ``first_step`` to ``last_step``, both included.

    Args:
        parent_name: How the parent is called on screen.
        run_name: How the branch is called on screen.
        pairs: The original runs first, then the same two under each other seed. Two other seeds are the fewest that
            allow a verdict. Where branches under other seeds are missing (``run=None``) and fewer than two are there,
            the one branch is held against all parents.
        first_step: The first step that both have.
        last_step: The last step that both have.
        lower_is_better: Names of metrics that are better lower although their names do not say so.
        caveat: In what the comparison limps, as far as the caller knows.

    ``parent_level``, ``run_level`` and ``difference`` of a row are means over all seeds. Its ``confidence`` is

    * for "better" and "worse": 1 - p, p being the chance that other seeds alone would part the two at least as far
      (with two tests twice the smaller p, which is an upper bound);
    * for "within noise": how sure it is that the true difference is smaller than the noise (the area of its t
      distribution from -noise to +noise). Few seeds give a low one: not shown to differ, nor shown to be alike;
    * 0 without two other seeds, which is no verdict at all, and the sentence says so. ``interval`` is then infinite
      for a single pair, and so is ``noise`` unknown (NaN);
    * 1 where every seed gives the very same difference, as in training without chance, from one other seed on.

    ``interval`` is the 95 % t interval of the mean difference. Where some branches blow up it can hold 0 although
    the ranks leave no doubt; the sentence then counts who is ahead of whom instead of naming it.

    A curve that is NaN or infinite at its end has diverged and is infinitely bad. A single non-finite value that the
    run recovered from is passed over. If of the two original runs one diverged, it is worse with certainty, unless
    the other one diverged under some other seed. Divergence under other seeds only is put to the sign test,
    which needs seven pairs that agree.

    Raises:
        ConfigurationError: no pair, no original branch, or no step to compare.
        CommandError: the two have no loss or metric in common in those steps.
    """
    if not pairs or pairs[0].run is None:
        raise ConfigurationError("pairs must start with the original runs, parent and branch; nothing to compare")
    if last_step < first_step:
        raise ConfigurationError(f"last_step {last_step} lies before first_step {first_step}: no step to compare")
    cut = [_within(pair, first_step, last_step) for pair in pairs]
    both = cut[0].parent.keys() & (cut[0].run or {}).keys()
    if not both:
        raise CommandError(
            f"{run_name} and {parent_name} share no loss or metric in steps {first_step} to {last_step}, "
            "so there is nothing to compare: run both past the step where they part"
        )
    window = _Window(first_step, last_step)
    judged = [_judge(series, cut, window, lower_is_better) for series in sorted(both, key=_rank)]
    row, sample = judged[0]
    weaker = PARENT_ONLY.format(run=run_name, parent=parent_name, count=sample.parents.size)
    return Comparison(
        parent=parent_name,
        run=run_name,
        first_step=first_step,
        last_step=last_step,
        seeds=len(pairs) - 1,
        rows=tuple(row for row, _ in judged),
        verdict=row.verdict,
        sentence=_sentence(parent_name, run_name, row, sample),
        caveat=" ".join(part for part in (caveat, weaker if sample.parent_only else "") if part),
    )


def lower_wins(series: Series, lower_is_better: Collection[str] = ()) -> bool:
    """Whether less of it is better: every loss, and metrics named so or with a word such as error in their name."""
    if series.signal is Signal.LOSS or series.name in lower_is_better:
        return True
    return any(word.lower() in LOWER_IS_BETTER for word in WORD.findall(series.name))


def _rank(series: Series) -> tuple[bool, bool, str]:
    return series.signal is not Signal.LOSS, series.split is not Split.VAL, series.name


# From curves to levels


@dataclass(frozen=True, slots=True)
class _Window:
    """The steps compared, both ends included."""

    first: int
    last: int

    @property
    def steps(self) -> int:
        return self.last - self.first + 1

    @property
    def half_life(self) -> float:
        """Of the smoothing, in steps."""
        return max(3.0, self.steps / 30)


@dataclass(frozen=True, slots=True)
class _Sample:
    """One series' levels by seed, the original runs first. ``parent_only``: there is one run for all parents."""

    parents: Floats
    runs: Floats

    @property
    def parent_only(self) -> bool:
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


def _within(pair: Pair, first: int, last: int) -> Pair:
    """The pair's losses and metrics in the steps compared, without those that have no point there."""

    def cut(curves: Mapping[Series, Points]) -> dict[Series, Points]:
        kept = {}
        for series, points in curves.items():
            inside = (points.steps >= first) & (points.steps <= last)
            if series.signal in (Signal.LOSS, Signal.METRIC) and inside.any():
                kept[series] = Points(points.steps[inside], points.values[inside])
        return kept

    return Pair(cut(pair.parent), None if pair.run is None else cut(pair.run))


def _judge(
    series: Series, pairs: Sequence[Pair], window: _Window, lower_is_better: Collection[str]
) -> tuple[SeriesComparison, _Sample]:
    lower = lower_wins(series, lower_is_better)
    parents, runs = _curves(series, pairs)
    worst = math.inf if lower else -math.inf
    sample = _Sample(
        np.array([_level(curve, series, window, worst) for curve in parents]),
        np.array([_level(curve, series, window, worst) for curve in runs]),
    )
    evidence = _evidence(sample)
    shown = evidence.p < evidence.alpha
    verdict = Verdict.WITHIN_NOISE
    if shown:
        verdict = Verdict.BETTER if (evidence.direction < 0) == lower else Verdict.WORSE
    smooth = functools.partial(_smoothed, half_life=window.half_life if series.split is not Split.VAL else 0.0)
    row = SeriesComparison(
        series=series,
        lower_is_better=lower,
        parent_level=float(sample.parents.mean()),
        run_level=float(sample.runs.mean()),
        difference=evidence.difference,
        interval=evidence.interval,
        noise=sample.noise,
        confidence=1 - evidence.p if shown else evidence.within,
        verdict=verdict,
        parent_curve=_thinned(smooth(parents[0])),
        run_curve=_thinned(smooth(runs[0])),
        difference_curve=_thinned(_mean_difference([smooth(c) for c in parents], [smooth(c) for c in runs])),
    )
    return row, sample


def _curves(series: Series, pairs: Sequence[Pair]) -> tuple[list[Points], list[Points]]:
    """The series' curves of parents and runs, in pairs; or of all parents and the one run, where too few were rerun."""
    complete = [(p.parent[series], p.run[series]) for p in pairs if p.run and series in p.run and series in p.parent]
    parents = [p.parent[series] for p in pairs if series in p.parent]
    if len(complete) <= FEWEST_SEEDS < len(parents):
        return parents, [complete[0][1]]
    return [parent for parent, _ in complete], [run for _, run in complete]


def _level(curve: Points, series: Series, window: _Window, worst: float) -> float:
    """The mean of the finite values in the last third: of the points for validation, else of the steps."""
    if not np.isfinite(curve.values[-1]):
        return worst
    if series.split is Split.VAL:
        stretch = curve.values[-math.ceil(curve.values.size / 3) :]
    else:
        stretch = curve.values[curve.steps > window.last - math.ceil(window.steps / 3)]
    finite = stretch[np.isfinite(stretch)]
    return float(finite.mean()) if finite.size else float(curve.values[-1])


# From levels to evidence


def _evidence(sample: _Sample) -> _Evidence:
    differences = sample.differences
    count = differences.size
    shift = float(differences[0])
    chanceless = _alike(sample.parents) and _alike(sample.runs)
    # Two equal differences of a coarse metric are soon met by chance; three seldom.
    same = count > 1 and _alike(differences) and (chanceless or count > FEWEST_SEEDS or not shift)
    if same and math.isfinite(shift):
        return _Evidence(shift, (shift, shift), 0.0 if shift else 1.0, 1.0, np.sign(shift))
    if sample.diverged:
        return _of_diverged(sample)
    if count <= FEWEST_SEEDS:
        return _of_too_few(differences)
    return _of_single_run(sample) if sample.parent_only else _of_pairs(sample)


def _of_too_few(differences: Floats) -> _Evidence:
    shift = float(differences.mean())
    spread = quantile(0.975, 1) * _deviation(differences) / math.sqrt(2) if differences.size > 1 else math.inf
    return _Evidence(shift, (shift - spread, shift + spread), 1.0, 0.0, 0.0)


def _of_pairs(sample: _Sample) -> _Evidence:
    differences = sample.differences
    count = differences.size
    shift = float(differences.mean())
    error = _deviation(differences) / math.sqrt(count)
    p = two_sided_p(shift / error, count - 1)
    if count >= FEWEST_RANKED:
        p = min(1.0, 2 * min(p, _rank_sum_p(sample)))
    return _of_t(shift, error=error, freedom=count - 1, noise=sample.noise, p=p)


def _rank_sum_p(sample: _Sample) -> float:
    """The exact chance of ranks that part the two groups as far, in the direction of the mean difference."""
    count = sample.parents.size
    against = count * count - sample.pairings_ahead(sample.differences.mean())
    ways = [1] + [0] * against  # of the C(2n, n) orders, those with 0, 1, 2 … pairings against: a Gaussian binomial
    for size in range(1, count + 1):
        for u in range(against, count + size - 1, -1):
            ways[u] -= ways[u - count - size]
        for u in range(size, against + 1):
            ways[u] += ways[u - size]
    return min(1.0, 2 * sum(ways) / math.comb(2 * count, count))


def _of_single_run(sample: _Sample) -> _Evidence:
    """The t-test of one new observation against many: its error is theirs and its own."""
    count = sample.parents.size
    error = sample.noise * math.sqrt(1 + 1 / count)
    shift = float(sample.differences.mean())
    p = two_sided_p(shift / error, count - 1)
    return _of_t(shift, error=error, freedom=count - 1, noise=sample.noise, p=p, alpha=ALPHA_SINGLE)


def _of_t(shift: float, *, error: float, freedom: float, noise: float, p: float, alpha: float = ALPHA) -> _Evidence:
    half_width = quantile(0.975, freedom) * error
    within = cumulative((noise - shift) / error, freedom) - cumulative((-noise - shift) / error, freedom)
    return _Evidence(shift, (shift - half_width, shift + half_width), p, within, np.sign(shift), alpha)


def _of_diverged(sample: _Sample) -> _Evidence:
    """Some level is infinite: certain where the original runs show it and nothing speaks against it."""
    differences = sample.differences
    with np.errstate(invalid="ignore"):
        shift = float(differences.mean())
    signs = np.sign(differences)
    healthy = np.isfinite(sample.parents).all() or np.isfinite(sample.runs).all()
    if healthy and np.isinf(differences[0]):
        p, direction = 0.0, signs[0]
    else:
        p, direction = 1.0 if sample.parent_only else _sign_p(signs), np.sign(signs.sum())
    return _Evidence(shift, (-math.inf, math.inf), p, 0.0, float(direction))


def _sign_p(signs: Floats) -> float:
    """The chance that fair coins fall at least as one-sidedly; ties are left out."""
    up, down = int((signs > 0).sum()), int((signs < 0).sum())
    tail = sum(math.comb(up + down, k) for k in range(min(up, down) + 1))
    return min(1.0, 2.0 * tail / 2.0 ** (up + down))


def _alike(levels: Floats) -> bool:
    return bool((levels == levels[0]).all())


def _deviation(levels: Floats) -> float:
    return float(levels.std(ddof=1)) if levels.size > 1 else math.nan


# Student's t distribution: with t = sqrt(freedom) tan(angle), the density becomes cos(angle) ** (freedom - 1)

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)


def two_sided_p(t: float, freedom: float) -> float:
    """The chance of a value at least as far from 0 as ``t``; ``freedom`` 1 or more."""
    angle = math.atan2(math.sqrt(freedom), abs(t))  # counted from the far end, so that small chances keep their digits
    area = 0.5 * angle * float(_WEIGHTS @ np.sin(0.5 * angle * (_NODES + 1)) ** (freedom - 1))
    whole = 0.5 * math.sqrt(math.pi) * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return min(1.0, area / whole)


def cumulative(t: float, freedom: float) -> float:
    """The chance of a value up to ``t``."""
    tail = two_sided_p(t, freedom) / 2
    return 1 - tail if t > 0 else tail


def quantile(probability: float, freedom: float) -> float:
    """The t that a share ``probability`` (0.5 to below 1) of all values stays under, by bisection of the angle."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        under = cumulative(math.sqrt(freedom) * math.tan(middle), freedom) < probability
        low, high = (middle, high) if under else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


# Curves to draw


def _smoothed(curve: Points, half_life: float) -> Points:
    """A moving average that forgets by half in ``half_life`` steps, without the pull of its start. 0: as it is.

    What is not finite is passed over in the average and kept in its place.
    """
    finite = np.isfinite(curve.values)
    if not half_life or not finite.any():
        return curve
    weights = np.where(finite, 2.0 ** ((curve.steps - curve.steps[-1]) / half_life), 0.0)
    totals = np.cumsum(weights * np.where(finite, curve.values, 0.0))
    return Points(curve.steps, np.where(finite, totals / np.maximum(np.cumsum(weights), 1e-300), curve.values))


def _mean_difference(parents: Sequence[Points], runs: Sequence[Points]) -> Points:
    """Run minus parent at the steps that all have, averaged over seeds; NaN from where one of them is not finite."""
    steps = functools.reduce(np.intersect1d, [curve.steps for curve in (*parents, *runs)])
    with np.errstate(invalid="ignore"):
        run, parent = (
            np.mean([curve.values[np.isin(curve.steps, steps)] for curve in curves], axis=0)
            for curves in (runs, parents)
        )
        return Points(steps, run - parent)


def _thinned(curve: Points) -> Points:
    every = math.ceil(curve.steps.size / MOST_POINTS) or 1
    return Points(curve.steps[::-every][::-1], curve.values[::-every][::-1])  # the last point stays


# What it says


def _sentence(parent: str, run: str, row: SeriesComparison, sample: _Sample) -> str:
    """The first row in one or two plain sentences."""
    if sample.diverged:
        return f"{run} {_is(row.verdict)} {parent}: {_divergence(parent, row, sample)}."
    if row.verdict is not Verdict.WITHIN_NOISE:
        return f"{run} {_is(row.verdict)} {parent}: {_change(row, interval=_clear(row))}; {_certainty(row, sample)}."
    seeds = sample.parents.size - 1
    if seeds and not sample.differences.any():
        return f"{run} is within noise of {parent}: the {_called(row.series)} is the same under every seed."
    if seeds < FEWEST_SEEDS:
        return (
            f"No verdict on {run} against {parent} yet: {_change(row, interval=False)}, but with "
            f"{seeds or 'no'} other seed{'' if seeds == 1 else 's'} that may be luck. "
            f"Rerun both under at least {FEWEST_SEEDS} other seeds."
        )
    figures = _Figures(row)
    if row.confidence >= 0.5:
        return (
            f"{run} is within noise of {parent}: the difference of {figures(row.difference)} in {_called(row.series)} "
            f"is what other seeds alone would give (±{_brief(row.noise)})."
        )
    low, high = row.interval
    return (
        f"{run} is within noise of {parent} as far as {seeds} other seeds can tell: {_called(row.series)} "
        f"{figures(row.parent_level)} → {figures(row.run_level)} (95 % interval of the difference {figures(low)} to "
        f"{figures(high)}); other seeds alone move it by ±{_brief(row.noise)}. More seeds would tell more."
    )


def _is(verdict: Verdict) -> str:
    return "is within noise of" if verdict is Verdict.WITHIN_NOISE else f"is {verdict} than"


def _divergence(parent: str, row: SeriesComparison, sample: _Sample) -> str:
    of_run, of_parent = (int((~np.isfinite(levels)).sum()) for levels in (sample.runs, sample.parents))
    if sample.parents.size == 1:
        ends = "both end" if of_run and of_parent else "it ends" if of_run else f"{parent} ends"
        return f"{ends} with a {_called(row.series)} that is NaN or infinite"
    sure = f", {_sure(row.confidence)}" if row.verdict is not Verdict.WITHIN_NOISE else ""
    return (
        f"its {_called(row.series)} ends NaN or infinite under {of_run} of {sample.runs.size} seeds, "
        f"that of {parent} under {of_parent} of {sample.parents.size}{sure}"
    )


def _change(row: SeriesComparison, *, interval: bool = True) -> str:
    """``validation loss 0.187 → 0.142 (−24 %, 95 % interval −0.052 to −0.038)``."""
    figures = _Figures(row)
    low, high = row.interval
    share = [f"{_signed_percent(row.relative)}"] if row.parent_level else []
    bounds = [f"95 % interval {figures(low)} to {figures(high)}"] if interval and high > low else []
    inside = ", ".join(share + bounds)
    levels = f"{_called(row.series)} {figures(row.parent_level)} → {figures(row.run_level)}"
    return f"{levels} ({inside})" if inside else levels


def _certainty(row: SeriesComparison, sample: _Sample) -> str:
    low, high = row.interval
    if low == high:
        return "every seed gives the same difference"
    sure = _sure(min(row.confidence, 0.999))  # certainty is not a test's to give
    if not _clear(row):
        ahead, all_ = sample.pairings_ahead(row.difference), sample.runs.size * sample.parents.size
        return f"{row.verdict} in {ahead} of {all_} pairings of their runs, {sure}"
    return f"{sure}; other seeds alone move it by ±{_brief(row.noise)}"


def _clear(row: SeriesComparison) -> bool:
    """Whether the interval of the difference leaves out 0."""
    low, high = row.interval
    return low > 0 or high < 0


def _sure(confidence: float) -> str:
    if confidence == 1:
        return "with certainty"
    return f"{100 * confidence:.1f} % sure" if confidence < 0.9985 else "over 99.8 % sure"


def _called(series: Series) -> str:
    words = {Split.VAL: "validation", Split.TRAIN: "training"}
    split = [words[series.split]] if series.split else []
    return " ".join([*split, series.name if series.signal is Signal.METRIC else "loss"])


class _Figures:
    """Writes the figures of a row with as many decimals as its interval is sure of."""

    def __init__(self, row: SeriesComparison) -> None:
        low, high = row.interval
        telling = [size for size in ((high - low) / 2, abs(row.difference)) if 0 < size < math.inf]
        self._decimals = max(0, -math.floor(math.log10(telling[0] / 3))) if telling else 3

    def __call__(self, value: float) -> str:
        text = f"{value:z.{self._decimals}f}" if self._decimals <= 6 else f"{value:.3g}"
        return text.replace("-", "−")


def _brief(value: float) -> str:
    """Two digits, never with a power of ten where it can be written out."""
    return (f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}").replace("-", "−")


def _signed_percent(share: float) -> str:
    digits = 0 if abs(share) >= 0.1 else 1 if abs(share) >= 0.001 else 3
    return f"{100 * share:+.{digits}f} %".replace("-", "−")
