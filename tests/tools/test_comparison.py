"""A comparison as a whole: its rows, their order and direction, how it prints, and what is refused."""

from __future__ import annotations

import math

import pytest

from nbdebug.records.comparison import Verdict
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.tools.comparison import Pair, compare, lower_wins
from tests.tools.cases import ACCURACY, TRAIN, VAL, judged, pairs, points

NAN = math.nan


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("accuracy", False), ("f1", False), ("auc", False), ("top1", False), ("R2", False), ("iou", False),
        ("error", True), ("val_err", True), ("top5error", True), ("MSE", True), ("valMSE", True), ("MSELoss", True),
        ("rmse", True), ("mean-absolute-error", True), ("mape", True), ("Perplexity", True), ("ppl", True),
        ("nllLoss", True), ("bce", True), ("WER", True), ("charCER", True), ("fid", True), ("FID_50k", True),
        ("kl.divergence", True), ("edit distance", True), ("maeOfDepth", True), ("mae2", True),
        ("power", False), ("confidence", False), ("glossary", False), ("certainty", False), ("terror", False),
        ("fidelity", False), ("answer", False), ("", False),
    ],
)  # fmt: skip
def test_a_metrics_name_says_which_way_is_better(name: str, lower: bool) -> None:
    assert lower_wins(Series(Signal.METRIC, name, Split.VAL)) is lower


def test_a_loss_is_better_lower_and_so_is_what_the_user_names() -> None:
    assert lower_wins(TRAIN) and lower_wins(VAL)
    assert lower_wins(Series(Signal.METRIC, "latency"), ["latency"])
    assert not lower_wins(Series(Signal.METRIC, "latency_share"), ["latency"])


def test_rows_start_with_the_validation_loss_and_the_first_gives_the_verdict() -> None:
    train_accuracy = Series(Signal.METRIC, "accuracy", Split.TRAIN)
    rate = Series(Signal.LEARNING_RATE)
    order = [VAL, TRAIN, ACCURACY, train_accuracy]
    parent = {series: points([1.0]) for series in [rate, *reversed(order)]}
    run = {**{series: points([0.9]) for series in parent}, VAL: points([1.1])}
    result = compare("main", "b", [Pair(parent, run)] * 3, first_step=1, last_step=1, caveat="Other data.")
    assert [row.series for row in result.rows] == order
    assert [row.verdict for row in result.rows] == [Verdict.WORSE, Verdict.BETTER, Verdict.WORSE, Verdict.WORSE]
    assert result.verdict is Verdict.WORSE
    assert (result.parent, result.run, result.first_step, result.last_step) == ("main", "b", 1, 1)
    assert result.caveat == "Other data."
    no_val = [Pair({TRAIN: points([1.0])}, {TRAIN: points([0.9]), VAL: points([1.1])})] * 3
    assert [row.series for row in compare("main", "b", no_val, first_step=1, last_step=1).rows] == [TRAIN]


@pytest.mark.parametrize(
    ("parents", "runs", "line"),
    [
        ([1.0, 3.0, 2.0], [0.5, 2.5, 1.5], "2 → 1.5, difference -0.5 [-0.5, -0.5], noise ±1: better (100%)"),
        ([0.0, 2.0, 4.0], [2.0, 9.0, 1.0], "2 → 4, difference +2 [-10.4, +14.4], noise ±2: within noise (35%)"),
        ([0.5, 0.7], [0.25, 0.55], "0.6 → 0.4, difference -0.2 [-0.835, +0.435], noise ±0.14: undecided"),
        ([0.5], [0.25], "0.5 → 0.25, difference -0.25, noise unknown: undecided"),
        ([0.5], [NAN], "0.5 → inf, noise unknown: worse (100%)"),
        ([1.0, NAN], [NAN, 1.0], "inf → inf, noise unknown: undecided"),
        ([1.0, 1.1, 1.2], [NAN, 1.0, 1.3], "1.1 → inf, noise ±0.1: worse (100%)"),
    ],
)
def test_it_prints_its_sentence_and_a_line_for_each_row_without_what_is_unknown(
    parents: list[float], runs: list[float | None], line: str
) -> None:
    result = judged(parents, runs)
    assert str(result).splitlines() == [result.sentence, f"  {VAL.text}: {line}"]


@pytest.mark.parametrize(
    ("given", "last_step", "error", "message"),
    [
        ([], 1, ConfigurationError, "pairs must start with the original runs"),
        (pairs([1.0], [None]), 1, ConfigurationError, "pairs must start with the original runs"),
        (pairs([1.0], [1.0]), 0, ConfigurationError, "last_step 0 lies before first_step 1"),
        ([Pair({TRAIN: points([1.0])}, {VAL: points([1.0])})], 1, CommandError, "b and main share no loss or metric"),
        ([Pair({VAL: points([1.0], 9)}, {VAL: points([1.0], 9)})], 5, CommandError, "in steps 1 to 5"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    given: list[Pair], last_step: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compare("main", "b", given, first_step=1, last_step=last_step)


def test_a_large_difference_that_few_seeds_can_not_prove_is_not_called_noise() -> None:
    made = judged([2.2, 2.201, 2.199, 2.2], [0.5, 1.9, 0.7, 1.0], VAL)
    assert made.verdict is Verdict.UNDECIDED
    assert made.rows[0].confidence == 0
    assert made.sentence.endswith("but with 3 other seeds that may be luck. More seeds would tell more.")
