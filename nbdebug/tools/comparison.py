"""Whether a branch did better than its parent, or only had other luck. Pure numbers; any thread.

Both are rerun under other seeds; a pair is the parent and the branch under one seed. Each curve is reduced to its
level, the mean over its last third, so a pair gives one difference (:mod:`nbdebug.tools.curves`). The levels are held
against chance (:mod:`nbdebug.tools.evidence`), and what is found is put into words
(:mod:`nbdebug.tools.verdict_words`).
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
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points
from nbdebug.tools.curves import Window, cut, level, mean_difference, smoothed, thinned
from nbdebug.tools.evidence import FEWEST_SEEDS, Evidence, Sample, weigh
from nbdebug.tools.verdict_words import sentence

LOWER_IS_BETTER = frozenset({
    "error", "err", "loss", "mse", "mae", "rmse", "mape", "perplexity", "ppl", "nll", "bce", "wer", "cer", "fid",
    "distance", "divergence",
})  # fmt: skip
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # "valMSELoss2" has the words val, MSE, Loss
PARENT_ONLY = (
    "{run} could not be rerun under other seeds: one run of it is held against {count} of {parent}. "
    "That is a weaker test: it can miss an effect of several times the noise."
)


LEAST_WITHIN = 0.05  # a difference that leaves out 0 and is hardly within the noise is not called so


@dataclass(frozen=True, slots=True)
class Pair:
    """Parent and branch under one seed: each one's recorded curves, every step of them. ``run`` None: not rerun."""

    parent: Mapping[Series, Points]
    run: Mapping[Series, Points] | None


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
    * 1 where every seed gives the very same difference, as in training without chance, from one other seed on;
    * 0 for "undecided", and only there: with fewer than two other seeds, where some diverged and too few agree, and
      where a difference is not shown although the parent does not vary at all. For a single pair, and where some
      diverged, ``interval`` is infinite; ``noise`` is NaN with one parent or a diverged one.

    ``interval`` is the 95 % t interval of the mean difference. Where some branches blow up it can hold 0 although
    the ranks leave no doubt; the sentence then counts who is ahead of whom instead of naming it.

    A curve that is NaN or infinite at its end has diverged and is infinitely bad. A single non-finite value that the
    run recovered from is passed over. If of the two original runs one diverged, it is worse with certainty, unless
    the other one diverged under some other seed. Divergence under other seeds only is put to the ranks, which need
    five pairs.

    Raises:
        ConfigurationError: no pair, no original branch, or no step to compare.
        CommandError: the two have no loss or metric in common in those steps.
    """
    if not pairs or pairs[0].run is None:
        raise ConfigurationError("pairs must start with the original runs, parent and branch; nothing to compare")
    if last_step < first_step:
        raise ConfigurationError(f"last_step {last_step} lies before first_step {first_step}: no step to compare")
    window = Window(first_step, last_step)
    inside = [Pair(cut(pair.parent, window), None if pair.run is None else cut(pair.run, window)) for pair in pairs]
    both = inside[0].parent.keys() & (inside[0].run or {}).keys()
    if not both:
        raise CommandError(
            f"{run_name} and {parent_name} share no loss or metric in steps {first_step} to {last_step}, "
            "so there is nothing to compare: run both past the step where they part"
        )
    judged = [_judge(series, inside, window, lower_is_better) for series in sorted(both, key=_rank)]
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
        sentence=sentence(parent_name, run_name, row, sample),
        caveat=" ".join(part for part in (caveat, weaker if sample.parent_only else "") if part),
    )


def lower_wins(series: Series, lower_is_better: Collection[str] = ()) -> bool:
    """Whether less of it is better: every loss, and metrics named so or with a word such as error in their name."""
    if series.signal is Signal.LOSS or series.name in lower_is_better:
        return True
    return any(word.lower() in LOWER_IS_BETTER for word in WORD.findall(series.name))


def _rank(series: Series) -> tuple[bool, bool, str]:
    return series.signal is not Signal.LOSS, series.split is not Split.VAL, series.name


def _judge(
    series: Series, pairs: Sequence[Pair], window: Window, lower_is_better: Collection[str]
) -> tuple[SeriesComparison, Sample]:
    lower = lower_wins(series, lower_is_better)
    parents, runs = _curves(series, pairs)
    worst = math.inf if lower else -math.inf
    sample = Sample(
        np.array([level(curve, series, window, worst) for curve in parents]),
        np.array([level(curve, series, window, worst) for curve in runs]),
    )
    evidence = weigh(sample)
    verdict = _verdict(evidence, lower)
    sure = 1 - evidence.p if evidence.shown else evidence.within
    smooth = functools.partial(smoothed, half_life=window.half_life if series.split is not Split.VAL else 0.0)
    row = SeriesComparison(
        series=series,
        lower_is_better=lower,
        parent_level=float(sample.parents.mean()),
        run_level=float(sample.runs.mean()),
        difference=evidence.difference,
        interval=evidence.interval,
        noise=sample.noise,
        confidence=0.0 if verdict is Verdict.UNDECIDED else sure,
        verdict=verdict,
        parent_curve=thinned(smooth(parents[0])),
        run_curve=thinned(smooth(runs[0])),
        difference_curve=thinned(mean_difference([smooth(c) for c in parents], [smooth(c) for c in runs])),
    )
    return row, sample


def _verdict(evidence: Evidence, lower: bool) -> Verdict:
    if evidence.shown:
        return Verdict.BETTER if (evidence.direction < 0) == lower else Verdict.WORSE
    low, high = evidence.interval
    leans = (low > 0 or high < 0) and evidence.within < LEAST_WITHIN  # large, and only too few seeds to be sure
    return Verdict.WITHIN_NOISE if evidence.within and not leans else Verdict.UNDECIDED


def _curves(series: Series, pairs: Sequence[Pair]) -> tuple[list[Points], list[Points]]:
    """The series' curves of parents and runs, in pairs; or of all parents and the one run, where too few were rerun."""
    complete = [(p.parent[series], p.run[series]) for p in pairs if p.run and series in p.run and series in p.parent]
    parents = [p.parent[series] for p in pairs if series in p.parent]
    if len(complete) <= FEWEST_SEEDS < len(parents):
        return parents, [complete[0][1]]
    return [parent for parent, _ in complete], [run for _, run in complete]
