"""Causes before what they bring about; what is found again is one; events stay apart."""

from __future__ import annotations

from typing import Any

from nbdebug.checks.ranking import EXPLAINS, ranked
from nbdebug.records.findings import Cause, Finding, Severity


def finding(cause: Cause, severity: Severity = Severity.WARNING, *, step: int = 0, **others: Any) -> Finding:
    given = {"source": "a book", **others}
    return Finding(cause, severity, "main", step, f"{cause}", "why", **given)


def order(*findings: Finding) -> list[str]:
    return [str(each.cause) for each in ranked(findings)]


def test_a_cause_comes_before_its_symptom_whatever_their_severity() -> None:
    symptom = finding(Cause.VANISHING_GRADIENT, Severity.CRITICAL)
    cause = finding(Cause.BAD_INITIALIZATION, Severity.WARNING)
    assert order(symptom, cause) == ["bad_initialization", "vanishing_gradient"]
    assert ranked([symptom, cause])[0].folded == ("vanishing_gradient",)


def test_a_note_explains_nothing_critical() -> None:
    assert order(
        finding(Cause.VANISHING_GRADIENT, Severity.CRITICAL), finding(Cause.BAD_INITIALIZATION, Severity.INFO)
    )[0] == ("vanishing_gradient")


def test_among_causes_the_worse_then_the_surer_comes_first() -> None:
    sure = finding(Cause.UNNORMALIZED_INPUT, confidence=0.9)
    unsure = finding(Cause.FROZEN_PARAMETERS, confidence=0.5)
    worst = finding(Cause.PADDING_IN_LOSS, Severity.CRITICAL, confidence=0.6)
    assert order(unsure, sure, worst) == ["padding_in_loss", "unnormalized_input", "frozen_parameters"]


def test_what_checks_find_again_is_one_finding_with_the_layers_of_all() -> None:
    first = finding(Cause.DEAD_RELU, step=3, layers=("a",))
    again = finding(Cause.DEAD_RELU, Severity.CRITICAL, step=9, layers=("b", "a"))
    [one] = ranked([first, again])
    assert one.severity is Severity.CRITICAL and one.layers == ("b", "a")


def test_events_stay_apart_the_latest_first() -> None:
    events = [finding(Cause.NAN_LOSS, step=step, source="") for step in (3, 9)]
    assert [each.step for each in ranked(events)] == [9, 3]


def test_what_is_ignored_is_left_out_and_what_it_explained_stands_by_itself() -> None:
    both = [finding(Cause.BAD_INITIALIZATION), finding(Cause.VANISHING_GRADIENT)]
    assert [each.cause for each in ranked(both, ignored=[Cause.BAD_INITIALIZATION])] == [Cause.VANISHING_GRADIENT]


def test_two_that_explain_each_other_do_not_both_vanish_below() -> None:
    pairs = [(a, b) for a in EXPLAINS for b in EXPLAINS[a] if a in EXPLAINS.get(b, ())]
    for a, b in pairs:
        first = ranked([finding(a), finding(b)])[0]
        assert first.folded, f"neither {a} nor {b} stands above the other"
