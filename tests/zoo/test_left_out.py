"""Thresholds are chosen without the family that they are judged on; rows made by hand say what must come out."""

from __future__ import annotations

import math

import pytest

from tests.zoo import left_out
from tests.zoo.made_rows import check, row, scaled
from tests.zoo.rows import Checked, Measured, Row


def three_families() -> list[Row]:
    """Faults at 8 and more, healthy ones at 3 and less; the shipped threshold of 10 misses the smaller faults."""
    rows = []
    for family, fault, sound in (("mlp", 8.0, 2.0), ("cnn", 40.0, 3.0), ("rnn", 9.0, 1.0)):
        rows += [
            scaled(f"{family}_fault", family, "scale_error", fault),
            scaled(f"{family}_strong", family, "scale_error", 100.0),
            scaled(f"{family}_sound", family, "", sound),
        ]
    return rows


def test_each_family_is_judged_by_what_the_others_chose() -> None:
    folds = {fold.family: fold for fold in left_out.folds(three_families())}
    # Between healthy ones at 3 and faults at 8 lies the middle on a log scale, the only value that parts them all.
    assert folds["rnn"].thresholds == {"scale_most": pytest.approx(math.sqrt(3 * 8))}
    assert folds["mlp"].thresholds == {"scale_most": pytest.approx(math.sqrt(3 * 9))}
    assert {family: [r.place for r in fold.before if r.cause] for family, fold in folds.items()} == {
        "mlp": [None, 1], "cnn": [1, 1], "rnn": [None, 1],
    }  # fmt: skip
    assert all(r.place == 1 for fold in folds.values() for r in fold.after if r.cause)
    assert all(not r.loud for fold in folds.values() for r in fold.after if not r.cause)


def test_what_the_others_did_not_know_shows_in_the_family_left_out() -> None:
    rows = [*three_families(), scaled("odd_sound", "odd", "", 7.0), scaled("odd_fault", "odd", "scale_error", 6.0)]
    fold = next(fold for fold in left_out.folds(rows) if fold.family == "odd")
    before, after = ([bool(r.loud) for r in part] for part in (fold.before, fold.after))
    assert before == [False, False]
    assert after == [True, True]  # a false alarm, and a fault found


def test_shipped_thresholds_stay_where_nothing_is_gained() -> None:
    rows = [
        scaled("f", "mlp", "scale_error", 50.0),
        scaled("s", "mlp", "", 2.0),
        scaled("g", "cnn", "scale_error", 30.0),
    ]
    assert all(fold.thresholds == {"scale_most": 10.0} for fold in left_out.folds(rows))
    assert "as shipped" in left_out.report(rows)


def test_false_alarms_weigh_more_than_faults_found() -> None:
    rows = [
        scaled("s", "a", "", 20.0),
        *(scaled(f"f{i}", "a", "scale_error", 15.0) for i in range(5)),
        scaled("x", "b", "", 1.0),
    ]
    rows.append(scaled("loud", "a", "scale_error", 30.0))
    chosen = left_out.choose(rows, left_out.rules_of(rows), left_out.shipped_thresholds(rows))
    assert 20.0 < chosen["scale_most"] < 30.0


@pytest.mark.parametrize(("cause", "every"), [("", True), ("both_wrong", False)])
def test_whether_all_or_any_parameter_must_be_crossed_is_read_off_the_rows(cause: str, every: bool) -> None:
    rows = [
        row("one", cause, *filter(None, [cause]), checks=(check("c", cause, a=(2.0, 1.0), b=(0.0, 1.0)),)),
        row("two", "both_wrong", "both_wrong", checks=(check("c", "both_wrong", a=(2.0, 1.0), b=(2.0, 1.0)),)),
        row("none", "", checks=(check("c", "", a=(0.0, 1.0), b=(0.0, 1.0)),)),
    ]
    assert left_out.rules_of(rows)["c"].every is every


def test_a_check_that_does_not_follow_its_thresholds_keeps_what_it_said() -> None:
    rows = [
        row("told", "a", "a", checks=(check("c", "a", limit=(5.0, 1.0)),), family="mlp"),
        row("silent", "", checks=(check("c", "", limit=(6.0, 1.0)),), family="cnn"),  # a gate of another kind
    ]
    assert left_out.rules_of(rows)["c"].every is None
    for fold in left_out.folds(rows):
        assert fold.after == fold.before
    assert "`c`" in left_out.report(rows)


def test_values_that_speak_below_their_threshold() -> None:
    def low(value: float, told: bool) -> Checked:
        return Checked("c", "failed" if told else "passed", 0.0, (Measured("v", value, "least", 1.0, above=False),),
                       ("too_low",) if told else ())  # fmt: skip

    rows = [
        row("f", "too_low", "too_low", checks=(low(0.5, True),)),
        row("g", "too_low", checks=(low(2.0, False),)),
        row("s", "", checks=(low(8.0, False),)),
    ]
    chosen = left_out.choose(rows, left_out.rules_of(rows), left_out.shipped_thresholds(rows))
    assert chosen["least"] == pytest.approx(4.0)


def test_the_worst_of_many_places_counts() -> None:
    places = Checked("c", "failed", 0.0, tuple(Measured(f"layer{i}", float(i), "most", 5.0) for i in range(9)), ("a",))
    assert left_out.accuses(places, True, {"most": 7.5})
    assert not left_out.accuses(places, True, {"most": 8.5})


def test_rejudging_takes_away_and_adds_but_leaves_the_rest_in_its_order() -> None:
    rows = [
        row("f", "a", "x", "a", "y", checks=(check("c", "a", limit=(5.0, 1.0)),)),
        row("g", "a", "x", checks=(check("c", "", limit=(0.5, 1.0)),)),
    ]
    rules = left_out.rules_of(rows)
    assert left_out.rejudged(rows[0], rules, {"limit": 9.0}).loud == ("x", "y")
    assert left_out.rejudged(rows[1], rules, {"limit": 0.1}).loud == ("x", "a")
    assert left_out.rejudged(rows[0], rules, {"limit": 1.0}) == rows[0]


def test_rows_that_could_not_be_judged_are_left_aside() -> None:
    rows = [*three_families(), row("broken", "scale_error", family="gone", error="crashed")]
    assert [fold.family for fold in left_out.folds(rows)] == ["cnn", "mlp", "rnn"]


def test_the_report_adds_up() -> None:
    line = next(line for line in left_out.report(three_families()).splitlines() if line.startswith("| all "))
    assert line == "| all | 6 | 4 | 6 | 6 | 6 | 3 | 0 | 0 |"


def test_a_parameter_that_only_the_family_left_out_has_stays_as_it_is() -> None:
    rows = [row("f", "a", "a", checks=(check("c", "a", limit=(5.0, 1.0)),), family="one"), row("g", family="two")]
    assert {fold.family: fold.thresholds["limit"] for fold in left_out.folds(rows)} == {"one": 1.0, "two": 1.0}
