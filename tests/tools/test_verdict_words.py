"""The sentence of a comparison, word by word."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from nbdebug.records.signals import Series
from tests.tools.cases import ACCURACY, TRAIN, VAL, judged

NAN, INF = math.nan, math.inf


def noisy(level: float, noise: Sequence[float]) -> list[float]:
    return [level + each for each in noise]


NOISE = [0.009, -0.009, 0.004, -0.004, 0.011, -0.011, 0.0]
OTHER = [0.002, -0.003, 0.001, 0.0, -0.002, 0.003, -0.001]


@pytest.mark.parametrize(
    ("parents", "runs", "series", "sentence"),
    [
        (
            noisy(0.187, NOISE), noisy(0.142, np.add(NOISE, OTHER).tolist()), VAL,
            "lr 0.0003 is better than main: validation loss 0.1870 → 0.1420 (−24 %, 95 % interval −0.0470 to −0.0430); "
            "over 99.8 % sure; other seeds alone move it by ±0.0085.",
        ),
        (
            noisy(0.9, NOISE), noisy(0.85, NOISE[::-1]), ACCURACY,
            "lr 0.0003 is worse than main: validation accuracy 0.900 → 0.850 (−5.6 %, 95 % interval −0.056 to −0.044); "
            "over 99.8 % sure; other seeds alone move it by ±0.0085.",
        ),
        (
            noisy(0.048, NOISE), noisy(1.5, np.multiply(NOISE, 20).tolist()), VAL,
            "lr 0.0003 is worse than main: validation loss 0.048 → 1.50 (31 times as much, 95 % interval 1.30 to "
            "1.60); over 99.8 % sure; other seeds alone move it by ±0.0085.",
        ),
        (
            noisy(0.187, NOISE), noisy(0.189, np.add(NOISE, OTHER).tolist()), TRAIN,
            "lr 0.0003 is within noise of main: the difference of 0.0020 in training loss is what other seeds alone "
            "would give (±0.0085).",
        ),
        (
            [1.0, 1.2, 0.9], [0.7, 1.1, 0.4], VAL,
            "lr 0.0003 is within noise of main as far as 2 other seeds can tell: validation loss 1.0 → 0.7 (95 % "
            "interval of the difference −0.8 to 0.2); other seeds alone move it by ±0.15. More seeds would tell more.",
        ),
        (
            [2.0] * 3, [1.0] * 3, VAL,
            "lr 0.0003 is better than main: validation loss 2.0 → 1.0 (−50 %); every seed gives the same difference.",
        ),
        ([2.0] * 3, [2.0] * 3, VAL, "lr 0.0003 is within noise of main: the validation loss is the same under every "
         "seed."),
        ([2.0], [NAN], VAL, "lr 0.0003 is worse than main: it ends with a validation loss that is NaN or infinite."),
        ([INF], [NAN], VAL, "No verdict on lr 0.0003 against main: both end with a validation loss that is NaN or "
         "infinite."),
        ([2.0, 2.1, 2.2], [NAN, 1.9, NAN], VAL, "lr 0.0003 is worse than main: its validation loss ends NaN or "
         "infinite under 2 of 3 seeds, that of main under 0 of 3, with certainty."),
        (
            [0.5], [0.25], VAL,
            "No verdict on lr 0.0003 against main yet: validation loss 0.50 → 0.25 (−50 %), but with no other seeds "
            "that may be luck. Rerun both under at least 2 other seeds.",
        ),
        (
            [0.5, 0.6], [0.25, 0.4], VAL,
            "No verdict on lr 0.0003 against main yet: validation loss 0.55 → 0.33 (−41 %), but with 1 other seed "
            "that may be luck. Rerun both under at least 2 other seeds.",
        ),
        (
            [0.9] * 3, [0.9, 0.95, 0.91], ACCURACY,
            "No verdict on lr 0.0003 against main yet: validation accuracy 0.90 → 0.92 (+2.2 %, 95 % interval −0.05 to "
            "0.09), but with 2 other seeds that may be luck. More seeds would tell more.",
        ),
        (
            [2.0, 2.1, 2.2], [1.9, NAN, NAN], VAL,
            "No verdict on lr 0.0003 against main: its validation loss ends NaN or infinite under 2 of 3 seeds, that "
            "of main under 0 of 3. More seeds would tell more.",
        ),
        (
            [2.0, 2.1, NAN], [NAN, None, None], VAL,
            "No verdict on lr 0.0003 against main: its validation loss ends NaN or infinite under 1 of 1 seeds, that "
            "of main under 1 of 3.",
        ),
    ],
)  # fmt: skip
def test_the_sentence(parents: list[float], runs: list[float | None], series: Series, sentence: str) -> None:
    assert judged(parents, runs, series).sentence == sentence
