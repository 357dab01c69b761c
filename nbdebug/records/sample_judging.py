"""What the passes over a set of samples tell of each: hard, forgotten, probably mislabelled. Pure; any thread.

Forgetting counts how often a sample turns from right to wrong (Toneva et al. 2019, "An Empirical Study of Example
Forgetting during Deep Neural Network Learning"). A wrong label shows in the area under the margin: the mean over
training of the label's own score less the greatest other (Pleiss et al. 2020, "Identifying Mislabeled Data using the
Area Under the Margin Ranking"). Here the scores are probabilities, and only passes count in which the model knew most
of the samples: before that it is sure of nothing, or of the wrong things.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Flags = NDArray[np.bool_]
FEWEST_PASSES = 3  # before anything is said of a course
SETTLED = 0.5  # of the passes, the later ones, tell what is hard
THROUGHOUT = 0.8  # of those passes
TOP = 0.9  # of the losses of a pass, below which none counts as high
ABOVE_THE_MEDIAN = 3.0  # times
KNOWN = 0.6  # of the way from chance to all right, from which on the model knows most samples
MARGIN = -0.3  # at most, for a label that is probably wrong
STEADY = 0.6  # of the passes that count, for the one same other class
SURE = 0.5  # on average, when it was for that class


@dataclass(frozen=True)
class Seen:
    """Targets ``(n,)``, empty without classes, and by pass ``(passes, n)`` what was foretold, how surely, and so on.

    ``has_right`` says whether a prediction is right or wrong at all.
    """

    targets: Singles
    predicted: Singles
    confidence: Singles
    margins: Singles
    right: Singles
    has_right: bool


def forgetting(right: Singles) -> NDArray[np.int64]:
    """``(n,)``: how often all was right at one pass, and not at the next."""
    was = right >= 1.0
    fell = was[:-1] & (right[1:] < 1.0)
    return np.asarray(fell.sum(axis=0), dtype=np.int64)


def forgotten(seen: Seen, events: NDArray[np.int64]) -> list[int]:
    """Places of those that were right once and are wrong now, what fell most often first."""
    if not seen.has_right or len(seen.right) < 2:
        return []
    lost = (events > 0) & (seen.right[-1] < 1.0)
    return [int(place) for place in np.argsort(-events, kind="stable") if lost[place]]


def hard(seen: Seen, losses: Singles) -> list[int]:
    """Places of those whose loss is among the highest in most of the later passes, the highest first."""
    if len(losses) < FEWEST_PASSES or losses.shape[1] < 2:
        return []
    later = _finite_losses(losses[-max(FEWEST_PASSES, round(SETTLED * len(losses))) :])
    medians = np.median(later, axis=1, keepdims=True)
    high = (later >= np.quantile(later, TOP, axis=1, keepdims=True)) & (later > ABOVE_THE_MEDIAN * medians)
    found = high.mean(axis=0) >= THROUGHOUT
    if seen.has_right:
        found &= np.nan_to_num(seen.right[-len(later) :], nan=1.0).mean(axis=0) < 0.5
    return [int(place) for place in np.argsort(-later.mean(axis=0), kind="stable") if found[place]]


def _finite_losses(losses: Singles) -> NDArray[np.float64]:
    """What is not finite is as bad as anything."""
    wide = losses.astype(np.float64)
    return np.where(np.isfinite(wide), wide, np.finfo(np.float32).max)


def telling(seen: Seen) -> Flags:
    """``(passes,)``: in which the model was right on most samples, far beyond what the commonest class would be."""
    if not len(seen.targets) or not len(seen.right):
        return np.zeros(len(seen.right), dtype=np.bool_)
    _, counts = np.unique(seen.targets, return_counts=True)
    chance = counts.max() / len(seen.targets)
    share = np.nan_to_num(seen.right).mean(axis=1)
    return np.asarray(share >= chance + KNOWN * (1 - chance)) if len(counts) > 1 else np.zeros(len(share), np.bool_)


def mean_margins(seen: Seen) -> Singles:
    """``(n,)``: the mean margin over the telling passes; NaN without any."""
    count = telling(seen)
    if not count.any():
        return np.full(seen.margins.shape[1:], np.nan, dtype=np.float32)
    return np.asarray(seen.margins[count].mean(axis=0, dtype=np.float64), dtype=np.float32)


def mislabelled(seen: Seen) -> list[int]:
    """Places of those for which the model was surely and steadily for another class, the surest first."""
    count = telling(seen)
    if count.sum() < FEWEST_PASSES:
        return []
    margins, predicted = mean_margins(seen), seen.predicted[count]
    other, times, sure = _steadiest_other(seen.targets, predicted, seen.confidence[count])
    found = (margins <= MARGIN) & (times >= STEADY * count.sum()) & (sure >= SURE) & np.isfinite(other)
    return [int(place) for place in np.argsort(margins, kind="stable") if found[place]]


def _steadiest_other(targets: Singles, predicted: Singles, confidence: Singles) -> tuple[Singles, Singles, Singles]:
    """By sample the class other than its own that was foretold most often, how often, and how surely on average."""
    count = predicted.shape[1]
    best, times, sure = (np.full(count, np.nan, np.float32), np.zeros(count, np.float32), np.zeros(count, np.float32))
    for one in np.unique(predicted[np.isfinite(predicted)]):
        here = (predicted == one) & (targets != one)
        often = here.sum(axis=0)
        mean = np.where(here, confidence, 0.0).sum(axis=0) / np.maximum(often, 1)
        more = often > times
        best[more], times[more], sure[more] = one, often[more], mean[more]
    return best, times, sure


def confusion(targets: Singles, predicted: Singles, classes: int) -> NDArray[np.int64]:
    """``(classes, classes)``: how many of each class, by row, were foretold as which; without what is NaN."""
    known = np.isfinite(targets) & np.isfinite(predicted)
    flat = targets[known].astype(np.int64) * classes + predicted[known].astype(np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.int64)
