"""What became of findings along a run: since when, gone, back; what a branch has of its parent; what happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbdebug.checks.courses import told
from nbdebug.records.findings import Cause, Finding, Gone, Severity, Spell

MAIN = [("main", None)]
RATE, DEAD = Cause.LR_TOO_HIGH, Cause.DEAD_RELU


def found(step: int, run: str = "main", cause: Cause = RATE, check: str = "rate", **more: object) -> Finding:
    made = Finding(cause, Severity.WARNING, run, step, f"{cause} at {step}", "why", check=check)
    return replace(made, **more)  # type: ignore[arg-type]


def gone(step: int, last: int, run: str = "main", cause: Cause = RATE, by: str = "rate") -> Gone:
    return Gone(run, step, cause, by, last)


@pytest.mark.parametrize(
    ("events", "words", "stands"),
    [
        ([found(40)], "since step 40", True),
        ([found(40, first_step=25)], "since step 25", True),
        ([found(40), gone(1120, 1100)], "since step 40 · gone at 1,120", False),
        ([found(40), gone(120, 100), found(200)], "since step 40 · gone at 120 · back at 200", True),
        ([found(40), gone(120, 100), found(200), gone(260, 240)],
         "since step 40 · gone at 120 · back at 200 · gone at 260", False),
        ([found(40), found(60)], "since step 40", True),
        ([found(40), gone(120, 100), gone(140, 100)], "since step 40 · gone at 120", False),
        ([found(0, check="", source="a checklist")], "since step 0", True),
    ],
)  # fmt: skip
def test_the_course_of_one_in_words(events: list[Finding | Gone], words: str, stands: bool) -> None:
    [course] = told(events, MAIN).courses
    assert (str(course), course.stands) == (words, stands)
    assert bool(told(events, MAIN).standing) == stands


def test_two_who_find_the_same_are_one_course_and_it_goes_when_both_find_it_no_more() -> None:
    events: list[Finding | Gone] = [
        found(5, check="", source="advice"), found(40), gone(60, 50), gone(90, 5, by="advice")
    ]  # fmt: skip
    assert str(told(events[:3], MAIN).courses[0]) == "since step 5"
    assert [each.step for each in told(events[:3], MAIN).standing] == [5]
    assert str(told(events, MAIN).courses[0]) == "since step 5 · gone at 90"


def test_who_was_never_heard_can_not_go() -> None:
    assert told([gone(20, 10)], MAIN) == told([], MAIN)
    assert told([found(5), gone(20, 10, by="another")], MAIN).courses[0].stands


def test_what_one_says_anew_takes_the_place_of_the_old_and_what_it_says_at_once_stays() -> None:
    one, two = found(5, layers=("a",)), found(5, layers=("b",))
    assert told([one, two], MAIN).standing == (one, two)
    assert told([one, two, found(9, layers=("c",))], MAIN).standing == (found(9, layers=("c",)),)


BRANCH = [("main", 50), ("branch", None)]


def test_a_branch_has_what_its_parent_had_found_before_and_nothing_from_after() -> None:
    events: list[Finding | Gone] = [
        found(40), found(50, cause=DEAD), gone(60, 40), found(80), found(55, cause=Cause.OVERFITTING)
    ]  # fmt: skip
    assert [(each.finding.cause, str(each)) for each in told(events, BRANCH).courses] == [
        (RATE, "since step 40"), (DEAD, "since step 50")
    ]  # fmt: skip
    assert str(told(events, MAIN).courses[0]) == "since step 40 · gone at 60 · back at 80"


def test_a_branch_goes_its_own_way_whatever_was_recorded_first() -> None:
    """The parent was trained on after the branch was."""
    events: list[Finding | Gone] = [
        found(40), gone(75, 50, "branch"), found(90, "branch"), found(45, cause=DEAD), gone(60, 40)
    ]  # fmt: skip
    courses = told(events, BRANCH).courses
    assert [str(each) for each in courses] == ["since step 40 · gone at 75 · back at 90", "since step 45"]
    assert courses[0].spells == (Spell("main", 40, 50, 75, "branch"), Spell("branch", 90))
    assert told(events, [("main", 30), ("other", None)]).courses == ()


def test_what_merely_happened_stands_for_itself_and_what_befell_the_debugger_is_said_of_every_run() -> None:
    nan = found(60, cause=Cause.NAN_LOSS, check="")
    twice = [found(step, cause=Cause.USER_ERROR, check="") for step in (10, 70)]
    assert len(told([*twice, nan], MAIN).courses) == 3
    assert told([*twice, nan], BRANCH).standing == tuple(twice)
    assert told([*twice, nan], [("another", None)]).standing == tuple(twice)
