"""Says in one or two plain sentences what a comparison found. Pure; any thread."""

from __future__ import annotations

import math

import numpy as np

from nbdebug.records.comparison import SeriesComparison, Verdict
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.tools.evidence import FEWEST_SEEDS, Sample

MANY_TIMES = 4


def sentence(parent: str, run: str, row: SeriesComparison, sample: Sample) -> str:
    """What the row that gives the verdict says, from its figures and its levels by seed."""
    if row.verdict is Verdict.UNDECIDED:
        return _no_verdict(parent, run, row, sample)
    if sample.diverged:
        return f"{run} {_is(row.verdict)} {parent}: {_divergence(parent, row, sample)}."
    if row.verdict is not Verdict.WITHIN_NOISE:
        return f"{run} {_is(row.verdict)} {parent}: {_change(row, interval=_clear(row))}; {_certainty(row, sample)}."
    seeds = sample.parents.size - 1
    if not sample.differences.any():
        return f"{run} is within noise of {parent}: the {_called(row.series)} is the same under every seed."
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


def _no_verdict(parent: str, run: str, row: SeriesComparison, sample: Sample) -> str:
    seeds = sample.parents.size - 1
    if sample.diverged:
        advice = " More seeds would tell more." if seeds and not sample.parent_only else ""
        return f"No verdict on {run} against {parent}: {_divergence(parent, row, sample)}.{advice}"
    few = seeds < FEWEST_SEEDS
    advice = f"Rerun both under at least {FEWEST_SEEDS} other seeds." if few else "More seeds would tell more."
    return (
        f"No verdict on {run} against {parent} yet: {_change(row, interval=not few)}, but with "
        f"{seeds or 'no'} other seed{'' if seeds == 1 else 's'} that may be luck. {advice}"
    )


def _is(verdict: Verdict) -> str:
    return "is within noise of" if verdict is Verdict.WITHIN_NOISE else f"is {verdict} than"


def _divergence(parent: str, row: SeriesComparison, sample: Sample) -> str:
    of_run, of_parent = (int((~np.isfinite(levels)).sum()) for levels in (sample.runs, sample.parents))
    if sample.parents.size == 1:
        ends = "both end" if of_run and of_parent else "it ends" if of_run else f"{parent} ends"
        return f"{ends} with a {_called(row.series)} that is NaN or infinite"
    sure = f", {_sure(row.confidence)}" if row.verdict in (Verdict.BETTER, Verdict.WORSE) else ""
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
    levels = f"{_called(row.series)} {figures.level(row.parent_level)} → {figures.level(row.run_level)}"
    return f"{levels} ({inside})" if inside else levels


def _certainty(row: SeriesComparison, sample: Sample) -> str:
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

    def level(self, value: float) -> str:
        """With two digits at least, be it small beside the difference."""
        finer = 1 - math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
        return self._written(value, max(self._decimals, finer))

    def __call__(self, value: float) -> str:
        return self._written(value, self._decimals)

    def _written(self, value: float, decimals: int) -> str:
        text = f"{value:z.{decimals}f}" if decimals <= 6 else f"{value:.3g}"
        return text.replace("-", "−")


def _brief(value: float) -> str:
    """Two digits, never with a power of ten where it can be written out."""
    return (f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}").replace("-", "−")


def _signed_percent(share: float) -> str:
    if share >= MANY_TIMES - 1:
        return f"{1 + share:.0f} times as much"
    digits = 0 if abs(share) >= 0.1 else 1 if abs(share) >= 0.001 else 3
    return f"{100 * share:+.{digits}f} %".replace("-", "−")
