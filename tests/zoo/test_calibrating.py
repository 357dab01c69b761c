"""How sure findings are said to be follows how often they are right; samples made by hand say what must come out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nbdebug.checks.calibration import Calibration
from tests.zoo import calibrating
from tests.zoo.calibrating import Sample, fit, left_out, reliability, rising, samples
from tests.zoo.made_rows import row
from tests.zoo.rows import Found

GRID = np.linspace(0, 1, 101)


def made(stated: float, right: int, of: int, cause: str = "a", family: str = "mlp") -> list[Sample]:
    return [Sample(cause, stated, place < right, family) for place in range(of)]


BOASTING = [*made(0.95, 240, 400), *made(0.6, 120, 400), *made(0.3, 40, 400)]


@pytest.mark.parametrize(("stated", "share"), [(0.95, 0.6), (0.6, 0.3), (0.3, 0.1)])
def test_boasting_rules_are_put_right(stated: float, share: float) -> None:
    assert fit(BOASTING)("a", stated) == pytest.approx(share, abs=0.02)


def test_modest_rules_are_put_right_where_their_causes_are_known() -> None:
    calibration = fit([*made(0.6, 380, 400), *made(0.9, 392, 400)])
    assert calibration("a", 0.6) == pytest.approx(0.95, abs=0.02)


def test_the_error_shrinks_for_families_left_out() -> None:
    known = [replace(s, family=f"family{place % 4}") for place, s in enumerate(BOASTING)]
    right = [s.right for s in known]
    before = reliability([s.stated for s in known], right)
    after = reliability(left_out(known), right)
    assert before.gap == pytest.approx((0.35 + 0.3 + 0.2) / 3)
    assert after.gap < 0.03 and after.squares < before.squares


@pytest.mark.parametrize("cause", ["a", "b", "never seen"])
def test_surer_rules_give_surer_findings_and_none_is_certain(cause: str) -> None:
    known = [*made(0.9, 3, 9, "b"), *made(0.5, 8, 9, "b"), *made(0.7, 30, 40), *made(1.0, 40, 40)]
    values = [fit(known)(cause, each) for each in GRID]
    assert np.all(np.diff(values) >= -1e-12)
    assert values[0] >= 0 and values[-1] < 1


def test_however_many_are_right_none_is_certain() -> None:
    assert 0.98 < fit(made(1.0, 2000, 2000))("a", 1.0) <= 2001 / 2002


def test_a_cause_that_is_often_wrong_is_less_sure_than_others_and_one_seldom_seen_is_in_between() -> None:
    known = [*made(0.9, 90, 100), *made(0.9, 5, 20, "wrong"), *made(0.9, 0, 1, "once")]
    calibration = fit(known)
    assert calibration("wrong", 0.9) < 0.55 < calibration("once", 0.9) < calibration("a", 0.9)


def test_a_cause_never_seen_is_at_most_as_sure_as_its_rule() -> None:
    assert fit(BOASTING)("never seen", 0.95) == fit(BOASTING).usual(0.95) < 0.65
    modest = fit([*made(0.6, 395, 400), *made(0.9, 399, 400)])
    assert modest("never seen", 0.6) == 0.6 < modest("a", 0.6)


def test_rising_is_the_least_squares_answer() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, weights = rng.normal(size=7), rng.uniform(0.5, 3, size=7)
        # The closed form: the largest over starts of the smallest over ends of the mean in between.
        wanted = [
            max(
                min(np.average(values[a : b + 1], weights=weights[a : b + 1]) for b in range(i, 7))
                for a in range(i + 1)
            )
            for i in range(7)
        ]
        assert rising(values, weights) == pytest.approx(wanted)


def test_each_family_is_judged_by_what_the_others_gave() -> None:
    known = [*made(0.9, 9, 10, family="mlp"), *made(0.9, 1, 10, family="cnn")]
    asked: list[set[str]] = []

    def fitted(given: list[Sample]) -> Calibration:
        asked.append({s.family for s in given})
        return fit(given)

    said = left_out(known, fitted)  # type: ignore[arg-type]
    assert sorted(asked, key=min) == [{"cnn"}, {"mlp"}]
    assert max(said[:10]) < 0.5 < min(said[10:])


def test_reliability_is_what_the_words_say() -> None:
    found = reliability([0.55, 0.55, 0.97, 0.97, 0.97, 0.97], [True, False, True, True, True, False])
    assert [line[1:] for line in found.lines] == [(2, pytest.approx(0.55), 0.5), (4, pytest.approx(0.97), 0.75)]
    assert found.gap == pytest.approx((2 * 0.05 + 4 * 0.22) / 6)
    squares = (0.45**2 + 0.55**2 + 3 * 0.03**2 + 0.97**2) / 6
    assert found.squares == pytest.approx(squares)


def test_what_is_right_of_a_row() -> None:
    faulty = row(
        "p", "lr_too_high", "lr_too_high", "dead_relu", "loss_divergence", "class_imbalance", also=("dead_relu",)
    )
    assert [s.right for s in samples([faulty])] == [True, True, True, False]
    assert [s.right for s in samples([row("q", "", "lr_too_high")])] == [False]


def test_information_events_and_failures_are_no_samples() -> None:
    event = replace(row("p", "a"), found=(Found("nan_loss", "critical", source=""), Found("b", "info")))
    assert samples([event, row("q", "a", "a", error="took longer")]) == []


def test_the_report_has_both_tables() -> None:
    rows = [row(f"p{i}", "lr_too_high", "lr_too_high", family=f"f{i % 2}") for i in range(6)]
    text = calibrating.report(rows)
    assert "| confidence | findings | mean confidence | right |" in text and "| 6 |" in text
    assert "expected calibration error" in text and calibrating.report([]) == "No rule found anything."
