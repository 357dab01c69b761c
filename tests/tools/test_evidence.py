"""Levels held against chance: published examples, counted orders, and cases where the answer is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nbdebug.records.comparison import Verdict
from nbdebug.tools.evidence import Sample, rank_sum_p
from tests.tools.cases import ACCURACY, VAL, judged

NAN, INF = math.nan, math.inf

# Student's sleep data (1908), extra hours under two drugs, ten patients. Paired: t(9) = -4.0621, p = 0.002833;
# mean difference 1.58, standard error 0.3889587.
FIRST_DRUG = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND_DRUG = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Here every run lies below every parent: 2 of the 252 orders of ranks part the two so. Paired p = 0.0311.
LOOSE_PARENT = [1.0, 1.2, 0.9, 1.1, 1.05]
LOOSE_RUN = [0.8, 0.55, 0.85, 0.6, 0.72]


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
        sample = Sample(np.array(parents, dtype=float), np.array(runs, dtype=float))
        direction = np.mean(runs) - np.mean(parents)
        assert rank_sum_p(sample, direction) == pytest.approx(2 * sum(each <= mine for each in against) / len(orders))


def test_ties_count_against_a_difference() -> None:
    untied = Sample(np.array([5.0, 6, 7, 8, 9]), np.array([1.0, 2, 3, 4, 5.5]))
    tied = Sample(np.array([5.0, 6, 7, 8, 9]), np.array([1.0, 2, 3, 4, 5]))
    assert rank_sum_p(tied, -1) == rank_sum_p(untied, -1) == pytest.approx(2 * 2 / 252)


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
        pytest.param([1.0, 3.0], [0.5, 2.5], Verdict.UNDECIDED, 0.0, id="the same difference twice may be chance"),
        pytest.param([1.0, 1.2, 0.9], [1.0, 1.2, 0.9], Verdict.WITHIN_NOISE, 1.0, id="no difference at all"),
        pytest.param([1.0, 1.2], [1.0, 1.2], Verdict.WITHIN_NOISE, 1.0, id="no difference, one other seed"),
        pytest.param([1.0], [0.1], Verdict.UNDECIDED, 0.0, id="one pair"),
        pytest.param([1.0], [1.0], Verdict.UNDECIDED, 0.0, id="one pair alike"),
        pytest.param([1.0, 1.01], [0.1, 0.11001], Verdict.UNDECIDED, 0.0, id="one other seed"),
        pytest.param([1.0] * 5, [1.0, 1.1, 0.9, 1.2, 1.0], Verdict.UNDECIDED, 0.0, id="only the branch varies"),
        pytest.param([1.0], [NAN], Verdict.WORSE, 1.0, id="diverged"),
        pytest.param([INF], [0.5], Verdict.BETTER, 1.0, id="the parent diverged"),
        pytest.param([NAN], [INF], Verdict.UNDECIDED, 0.0, id="both diverged"),
        pytest.param([NAN, NAN], [INF, NAN], Verdict.WITHIN_NOISE, 1.0, id="both diverged at every seed"),
        pytest.param([1.0, NAN, 1.2], [0.9, NAN, 1.3], Verdict.UNDECIDED, 0.0, id="both diverged at another seed"),
        pytest.param(
            [1.0, NAN, *[1.0] * 6], [0.5, NAN, 0.4, 0.3, 0.5, 0.6, 0.4, 0.5], Verdict.BETTER,
            1 - 2 * 67 / 12_870, id="both diverged at another seed, the branch ahead at seven",
        ),
        pytest.param([1.0, 1.1, 1.2], [NAN] * 3, Verdict.WORSE, 1.0, id="the branch diverged at every seed"),
        pytest.param([1.0, 1.1, 1.2], [NAN, 1.0, 1.3], Verdict.WORSE, 1.0, id="the original branch diverged"),
        pytest.param([1.0, NAN, 1.2], [NAN, 1.0, 1.3], Verdict.UNDECIDED, 0.0, id="now the one, now the other"),
        pytest.param([1.0, 1.1, 1.2], [0.9, NAN, NAN], Verdict.UNDECIDED, 0.0, id="diverged at others, too few"),
        pytest.param([1.0] * 4, [1.1, *[NAN] * 3], Verdict.UNDECIDED, 0.0, id="diverged at others: too few for ranks"),
        pytest.param([1.0] * 7, [1.1, *[NAN] * 6], Verdict.WORSE, 1 - 2 / 3_432, id="diverged at others: ranks"),
        pytest.param([1e35, INF, 1e35, INF, 2e35], [0.2] * 5, Verdict.BETTER, 1 - 2 / 252, id="parents blow up"),
        pytest.param([1.0] * 5, [0.9, NAN, 0.9, NAN, 0.9], Verdict.UNDECIDED, 0.0, id="ranks, three to two"),
        pytest.param([1.0] * 9, [0.9, *[NAN] * 8], Verdict.WORSE, 1 - 2 * 97 / 48_620, id="ranks, eight to one"),
        pytest.param([1.0] * 10, [0.9, *[NAN] * 9], Verdict.WORSE, 1 - 2 * 139 / 184_756, id="ranks, nine to one"),
    ],
)  # fmt: skip
def test_verdict_and_confidence(
    parents: list[float], runs: list[float | None], verdict: Verdict, confidence: float
) -> None:
    result = judged(parents, runs)
    assert result.verdict is verdict
    assert result.rows[0].confidence == pytest.approx(confidence)
    assert result.seeds == len(parents) - 1


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


def test_of_a_single_pair_neither_interval_nor_noise_is_known() -> None:
    row = judged([0.5], [0.25]).rows[0]
    assert row.interval == (-INF, INF) and math.isnan(row.noise)


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
    assert judged([1.0, 1.1, NAN], [NAN, None, None]).verdict is Verdict.UNDECIDED
    assert judged([1.0, *[NAN] * 8], [0.9, *[None] * 8]).verdict is Verdict.UNDECIDED


def test_three_reruns_are_enough_for_pairs_though_others_are_missing() -> None:
    result = judged([1.0, 3.0, 2.0, 2.5], [0.5, 2.5, 1.5, None])
    assert result.verdict is Verdict.BETTER and result.caveat == ""
