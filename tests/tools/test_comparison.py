"""The verdict of a comparison, against tables, published examples and cases where the answer is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from nbdebug.records.comparison import Comparison, SeriesComparison, Verdict
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points
from nbdebug.tools.comparison import Pair, _rank_sum_p, _Sample, compare, cumulative, lower_wins, quantile, two_sided_p

TRAIN = Series(Signal.LOSS, split=Split.TRAIN)
VAL = Series(Signal.LOSS, split=Split.VAL)
ACCURACY = Series(Signal.METRIC, "accuracy", Split.VAL)
NAN, INF = math.nan, math.inf

# Student's sleep data (1908), extra hours under two drugs, ten patients. Paired: t(9) = -4.0621, p = 0.002833;
# mean difference 1.58, standard error 0.3889587.
FIRST_DRUG = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND_DRUG = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Here every run lies below every parent: 2 of the 252 orders of ranks part the two so. Paired p = 0.0311.
LOOSE_PARENT = [1.0, 1.2, 0.9, 1.1, 1.05]
LOOSE_RUN = [0.8, 0.55, 0.85, 0.6, 0.72]


def points(values: Sequence[float], first: int = 1) -> Points:
    return Points(np.arange(first, first + len(values), dtype=np.int64), np.array(values, dtype=np.float64))


def pairs(parents: Sequence[float], runs: Sequence[float | None], series: Series = VAL) -> list[Pair]:
    """One validation each: its value is the level."""
    return [
        Pair({series: points([parent])}, None if run is None else {series: points([run])})
        for parent, run in zip(parents, runs, strict=True)
    ]


def judged(parents: Sequence[float], runs: Sequence[float | None], series: Series = VAL) -> Comparison:
    return compare("main", "lr 0.0003", pairs(parents, runs, series), first_step=1, last_step=1)


def one_row(parent: Points, run: Points, series: Series, last_step: int, first_step: int = 1) -> SeriesComparison:
    pair = Pair({series: parent}, {series: run})
    return compare("main", "b", [pair], first_step=first_step, last_step=last_step).rows[0]


# Student's t

QUANTILES = {
    0.975: (
        12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.306, 2.26216, 2.22814, 2.20099, 2.17881,
        2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596, 2.07961, 2.07387, 2.06866, 2.0639,
        2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227,
    ),
    0.99: (
        31.82052, 6.96456, 4.5407, 3.74695, 3.36493, 3.14267, 2.99795, 2.89646, 2.82144, 2.76377, 2.71808, 2.681,
        2.65031, 2.62449, 2.60248, 2.58349, 2.56693, 2.55238, 2.53948, 2.52798, 2.51765, 2.50832, 2.49987, 2.49216,
        2.48511, 2.47863, 2.47266, 2.46714, 2.46202, 2.45726,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("probability", "freedom", "tabulated"),
    [(q, freedom, t) for q, row in QUANTILES.items() for freedom, t in enumerate(row, start=1)],
)
def test_quantiles_are_those_of_the_table(probability: float, freedom: int, tabulated: float) -> None:
    assert quantile(probability, freedom) == pytest.approx(tabulated, abs=1e-4)
    assert cumulative(tabulated, freedom) == pytest.approx(probability, abs=1e-6)
    assert cumulative(-tabulated, freedom) == pytest.approx(1 - probability, abs=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 7.5, -7.5, 4000.0])
def test_one_and_two_degrees_of_freedom_have_closed_forms(t: float) -> None:
    assert two_sided_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(abs(t)), rel=1e-9, abs=1e-12)
    assert two_sided_p(t, 2) == pytest.approx(1 - abs(t) / math.sqrt(2 + t * t), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("t", "freedom", "p"), [(25, 3, 1.40331390e-4), (60, 6, 1.44044863e-9), (2.0, 17.776, 0.0610178227)]
)
def test_small_chances_and_broken_degrees_keep_their_digits(t: float, freedom: float, p: float) -> None:
    assert two_sided_p(t, freedom) == pytest.approx(p, rel=1e-7)


def test_with_many_degrees_of_freedom_it_is_the_normal_distribution() -> None:
    assert two_sided_p(1.96, 5000) == pytest.approx(math.erfc(1.96 / math.sqrt(2)), abs=1e-4)


# Direction


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


# Levels


@pytest.mark.parametrize(
    ("series", "steps", "values", "last_step", "level"),
    [
        (TRAIN, [1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 9, 9, 9, 9, 9, 1, 2, 6], 9, 3.0),
        (TRAIN, [1, 2, 3, 4], [9, 9, 1, 3], 4, 2.0),  # a third of 4 is taken as 2
        (TRAIN, [1], [5], 1, 5.0),
        (TRAIN, [1, 2, 3, 4, 5, 6], [9, 9, 9, 9, NAN, 4], 6, 4.0),  # recovered
        (TRAIN, [1, 2, 3, 4, 5, 6], [9, 9, 9, 9, INF, 4], 6, 4.0),
        (TRAIN, [1, 2, 3, 4, 5, 6], [9, 9, 9, 9, 4, NAN], 6, INF),  # diverged
        (TRAIN, [1, 2, 3, 4, 5, 6], [9, 9, 9, 9, 4, -INF], 6, INF),
        (TRAIN, [1, 2, 3, 4, 5, 6, 7], [9, 9, 9, 9, 4, 6, 100], 6, 5.0),  # step 7 is outside
        (TRAIN, [1, 2], [9, 7], 30, 7.0),  # ended early: its last point
        (TRAIN, [1, 2], [9, NAN], 30, INF),
        (VAL, [10, 20, 30], [9, 8, 1], 30, 1.0),
        (VAL, [10, 20, 30, 40], [9, 8, 3, 1], 49, 2.0),
        (VAL, [10], [8], 90, 8.0),
        (ACCURACY, [10, 20, 30], [0.5, 0.6, NAN], 30, -INF),
    ],
)  # fmt: skip
def test_the_level_is_the_mean_over_the_last_third(
    series: Series, steps: list[int], values: list[float], last_step: int, level: float
) -> None:
    curve = Points(np.array(steps), np.array(values, dtype=np.float64))
    assert one_row(curve, curve, series, last_step).parent_level == level


def test_what_came_before_the_first_step_does_not_count() -> None:
    curve = points([100.0, 100.0, 100.0, 1.0, 2.0, 3.0])
    row = one_row(curve, curve, VAL, last_step=6, first_step=4)
    assert row.parent_level == 3.0
    assert row.parent_curve.steps.tolist() == [4, 5, 6]


# Verdicts


def test_the_paired_test_decides_students_sleep_data() -> None:
    row = judged(FIRST_DRUG, SECOND_DRUG, ACCURACY).rows[0]
    assert row.verdict is Verdict.BETTER
    assert row.difference == pytest.approx(1.58)
    assert 1 - row.confidence == pytest.approx(2 * 0.002832890197, rel=1e-6)
    half_width = 2.26216 * 0.3889587239
    assert row.interval == pytest.approx((1.58 - half_width, 1.58 + half_width), abs=1e-5)
    assert row.noise == pytest.approx(1.789010, abs=1e-6)
    assert judged(FIRST_DRUG, SECOND_DRUG, VAL).verdict is Verdict.WORSE
    assert judged(SECOND_DRUG, FIRST_DRUG, VAL).verdict is Verdict.BETTER


def test_ranks_decide_where_the_seeds_move_the_two_apart() -> None:
    row = judged(LOOSE_PARENT, LOOSE_RUN).rows[0]
    assert row.verdict is Verdict.BETTER
    assert 1 - row.confidence == pytest.approx(2 * 2 / 252)


@pytest.mark.parametrize("count", [5, 6])
def test_the_chance_of_ranks_is_that_of_counting_all_orders(count: int) -> None:
    orders = list(itertools.combinations(range(2 * count), count))
    against = [sum(run > parent for run in runs for parent in set(range(2 * count)) - set(runs)) for runs in orders]
    for runs in orders[:12]:
        parents = [each for each in range(2 * count) if each not in runs]
        mine = sum(run > parent for run in runs for parent in parents)
        sample = _Sample(np.array(parents, dtype=float), np.array(runs, dtype=float))
        assert _rank_sum_p(sample) == pytest.approx(2 * sum(each <= mine for each in against) / len(orders))


def test_ties_count_against_a_difference() -> None:
    untied = _Sample(np.array([5.0, 6, 7, 8, 9]), np.array([1.0, 2, 3, 4, 5.5]))
    tied = _Sample(np.array([5.0, 6, 7, 8, 9]), np.array([1.0, 2, 3, 4, 5]))
    assert _rank_sum_p(tied) == _rank_sum_p(untied) == pytest.approx(2 * 2 / 252)


def test_a_branch_that_blows_up_under_some_seeds_is_worse() -> None:
    result = judged([1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98], [1.5, 1.4, 90.0, 1.2, 1.3, 30.0, 1.25])
    row = result.rows[0]
    assert row.interval[0] < 0 < row.interval[1]
    assert row.verdict is Verdict.WORSE
    assert 1 - row.confidence == pytest.approx(2 * 2 / 3432)
    assert result.sentence.endswith("worse in 49 of 49 pairings of their runs, over 99.8 % sure.")


def test_ranks_do_not_overrule_the_direction_of_the_mean() -> None:
    parents = [1.0 + 0.01 * index for index in range(20)]
    assert judged(parents, [*[0.9] * 19, 50.0]).verdict is Verdict.WITHIN_NOISE


@pytest.mark.parametrize(
    ("parents", "runs", "verdict", "confidence"),
    [
        pytest.param([1.0] * 7, [0.9] * 7, Verdict.BETTER, 1.0, id="no chance in training"),
        pytest.param([1.0] * 2, [1.1] * 2, Verdict.WORSE, 1.0, id="no chance, one other seed"),
        pytest.param([1.0, 3.0, 2.0], [0.5, 2.5, 1.5], Verdict.BETTER, 1.0, id="the same difference at every seed"),
        pytest.param([1.0, 3.0], [0.5, 2.5], Verdict.WITHIN_NOISE, 0.0, id="the same difference twice may be chance"),
        pytest.param([1.0, 1.2, 0.9], [1.0, 1.2, 0.9], Verdict.WITHIN_NOISE, 1.0, id="no difference at all"),
        pytest.param([1.0, 1.2], [1.0, 1.2], Verdict.WITHIN_NOISE, 1.0, id="no difference, one other seed"),
        pytest.param([1.0], [0.1], Verdict.WITHIN_NOISE, 0.0, id="one pair"),
        pytest.param([1.0], [1.0], Verdict.WITHIN_NOISE, 0.0, id="one pair alike"),
        pytest.param([1.0, 1.01], [0.1, 0.11001], Verdict.WITHIN_NOISE, 0.0, id="one other seed"),
        pytest.param([1.0], [NAN], Verdict.WORSE, 1.0, id="diverged"),
        pytest.param([INF], [0.5], Verdict.BETTER, 1.0, id="the parent diverged"),
        pytest.param([NAN], [INF], Verdict.WITHIN_NOISE, 0.0, id="both diverged"),
        pytest.param([NAN, NAN], [INF, NAN], Verdict.WITHIN_NOISE, 1.0, id="both diverged at every seed"),
        pytest.param([1.0, NAN, 1.2], [0.9, NAN, 1.3], Verdict.WITHIN_NOISE, 0.0, id="both diverged at another seed"),
        pytest.param(
            [1.0, NAN, *[1.0] * 6], [0.5, NAN, 0.4, 0.3, 0.5, 0.6, 0.4, 0.5], Verdict.BETTER, 1 - 2 / 128,
            id="both diverged at another seed, the branch ahead at seven",
        ),
        pytest.param([1.0, 1.1, 1.2], [NAN] * 3, Verdict.WORSE, 1.0, id="the branch diverged at every seed"),
        pytest.param([1.0, 1.1, 1.2], [NAN, 1.0, 1.3], Verdict.WORSE, 1.0, id="the original branch diverged"),
        pytest.param([1.0, NAN, 1.2], [NAN, 1.0, 1.3], Verdict.WITHIN_NOISE, 0.0, id="now the one, now the other"),
        pytest.param([1.0, 1.1, 1.2], [0.9, NAN, NAN], Verdict.WITHIN_NOISE, 0.0, id="diverged at others, too few"),
        pytest.param([1.0] * 7, [1.1, *[NAN] * 6], Verdict.WORSE, 1 - 2 / 128, id="diverged at others: sign test"),
        pytest.param([1.0] * 9, [0.9, *[NAN] * 8], Verdict.WITHIN_NOISE, 0.0, id="sign test, eight to one"),
        pytest.param([1.0] * 10, [0.9, *[NAN] * 9], Verdict.WITHIN_NOISE, 0.0, id="sign test, nine to one: p 0.021"),
        pytest.param([1.0] * 11, [0.9, *[NAN] * 10], Verdict.WORSE, 1 - 24 / 2048, id="sign test, ten to one"),
    ],
)  # fmt: skip
def test_verdict_and_confidence(
    parents: list[float], runs: list[float | None], verdict: Verdict, confidence: float
) -> None:
    result = judged(parents, runs)
    assert result.verdict is verdict
    assert result.rows[0].confidence == pytest.approx(confidence)
    assert result.seeds == len(parents) - 1
    str(result)


def test_within_noise_is_the_surer_the_more_seeds_say_so() -> None:
    rng = np.random.default_rng(0)
    steps = rng.normal(size=31)
    steps -= steps.mean()
    few, many = (judged((10 + steps[:n]).tolist(), (10 + np.roll(steps[:n], 1)).tolist()).rows[0] for n in (4, 31))
    assert few.verdict is many.verdict is Verdict.WITHIN_NOISE
    assert 0.2 < few.confidence < 0.8 < 0.95 < many.confidence


def test_a_difference_of_the_size_of_the_noise_is_an_even_bet() -> None:
    row = judged([0.0, 2.0, 4.0], [2.0, 9.0, -1.0 + 2.0]).rows[0]
    assert row.difference == pytest.approx(row.noise) == 2.0
    assert row.verdict is Verdict.WITHIN_NOISE
    assert 0.25 < row.confidence < 0.5  # half of all lies below +noise, less what lies below -noise


def test_without_other_seeds_nothing_is_claimed() -> None:
    result = judged([0.5], [0.25])
    row = result.rows[0]
    assert row.interval == (-INF, INF) and math.isnan(row.noise)
    assert result.sentence == (
        "No verdict on lr 0.0003 against main yet: validation loss 0.50 → 0.25 (−50 %), "
        "but with no other seeds that may be luck. Rerun both under at least 2 other seeds."
    )


@pytest.mark.parametrize(
    ("run", "verdict", "p"), [(0.6, Verdict.BETTER, 0.02131164113), (0.75, Verdict.WITHIN_NOISE, None)]
)
def test_a_branch_that_was_not_rerun_is_held_against_all_parents(run: float, verdict: Verdict, p: float | None) -> None:
    runs: list[float | None] = [run, None, None, None, None]
    result = judged(LOOSE_PARENT, runs)
    row = result.rows[0]
    assert result.verdict is verdict
    assert row.interval == pytest.approx((run - 1.05 - 0.34004369, run - 1.05 + 0.34004369))
    assert p is None or 1 - row.confidence == pytest.approx(p, rel=1e-6)
    assert "weaker test" in result.caveat and "against 5 of main" in result.caveat


def test_a_diverged_branch_that_was_not_rerun_is_worse() -> None:
    assert judged([1.0, 1.1, 1.2], [NAN, None, None]).verdict is Verdict.WORSE
    assert judged([1.0, 1.1, NAN], [NAN, None, None]).verdict is Verdict.WITHIN_NOISE
    assert judged([1.0, *[NAN] * 8], [0.9, *[None] * 8]).verdict is Verdict.WITHIN_NOISE


def test_three_reruns_are_enough_for_pairs_though_others_are_missing() -> None:
    result = judged([1.0, 3.0, 2.0, 2.5], [0.5, 2.5, 1.5, None])
    assert result.verdict is Verdict.BETTER and result.caveat == ""


# Rows and words


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
        ([INF], [NAN], VAL, "lr 0.0003 is within noise of main: both end with a validation loss that is NaN or "
         "infinite."),
        ([2.0, 2.1, 2.2], [NAN, 1.9, NAN], VAL, "lr 0.0003 is worse than main: its validation loss ends NaN or "
         "infinite under 2 of 3 seeds, that of main under 0 of 3, with certainty."),
    ],
)  # fmt: skip
def test_the_sentence(parents: list[float], runs: list[float | None], series: Series, sentence: str) -> None:
    assert judged(parents, runs, series).sentence == sentence


# Curves


def test_training_curves_are_smoothed_without_a_pull_to_their_start_and_validation_is_left_as_it_is() -> None:
    values = np.random.default_rng(0).normal(size=200) + 5
    row = one_row(points(values.tolist()), points([3.0] * 200), TRAIN, last_step=200)
    decay, total, weight, expected = 0.5 ** (30 / 200), 0.0, 0.0, []
    for value in values:
        total, weight = total * decay + value, weight * decay + 1
        expected.append(total / weight)
    assert row.parent_curve.values == pytest.approx(expected)
    assert row.run_curve.values == pytest.approx([3.0] * 200)
    assert row.difference_curve.values == pytest.approx(3.0 - np.array(expected))
    assert one_row(points(values.tolist()), points([3.0] * 200), VAL, 200).parent_curve.values == pytest.approx(values)


def test_the_half_life_is_three_steps_at_least() -> None:
    row = one_row(points([1.0, 0.0, 0.0, 0.0]), points([0.0] * 4), TRAIN, last_step=4)
    weights = 0.5 ** (np.array([3, 2, 1, 0]) / 3)
    assert row.parent_curve.values[-1] == pytest.approx(weights[0] / weights.sum())


def test_what_is_not_finite_stays_in_its_place() -> None:
    row = one_row(points([1.0, NAN, INF, 1.0]), points([2.0] * 4), TRAIN, last_step=4)
    assert row.parent_curve.values == pytest.approx([1.0, NAN, INF, 1.0], nan_ok=True)
    assert row.difference_curve.values == pytest.approx([1.0, NAN, -INF, 1.0], nan_ok=True)


def test_the_difference_is_the_mean_over_seeds_at_the_steps_that_all_have() -> None:
    first = Pair({VAL: points([1.0, 1.0, 1.0])}, {VAL: points([2.0, 2.0, 2.0])})
    second = Pair({VAL: points([1.0, 1.0, 1.0], first=2)}, {VAL: points([4.0, 5.0, 6.0], first=2)})
    row = compare("main", "b", [first, second], first_step=1, last_step=4).rows[0]
    assert row.difference_curve.steps.tolist() == [2, 3]
    assert row.difference_curve.values.tolist() == [2.0, 2.5]
    assert row.run_curve.steps.tolist() == [1, 2, 3]


def test_long_curves_are_thinned_to_what_a_chart_can_show_and_end_where_they_ended() -> None:
    curve = points(np.arange(9_003.0).tolist())
    row = one_row(curve, curve, VAL, last_step=9_003)
    assert 1_000 < row.parent_curve.steps.size <= 2_000
    assert row.parent_curve.steps[-1] == row.difference_curve.steps[-1] == 9_003
    assert (row.parent_curve.values == row.parent_curve.steps - 1).all()


# What cannot be compared


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
