"""The findings' cards: since when, what one explains, what is gone, what came of remedies that were tried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nbdebug.dashboard import findings, trials
from nbdebug.dashboard.picture import Painter, default_panels
from nbdebug.records.commands import ApplyRemedy, Changes, Outcome, SetKnobs, TryRemedy
from nbdebug.records.comparison import Verdict
from nbdebug.records.findings import Cause, Course, Finding, Remedy, Severity, Spell
from nbdebug.records.proofs import Proof, Trial
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.status import Status
from nbdebug.records.view import Points, View
from tests.dashboard import views

SLOWER = Remedy("Lower the rate.", SetKnobs(Changes(lr=0.01)))
CLIP = Remedy("Clip.", SetKnobs(Changes(lr=0.02)))
HAND = Remedy("Warm up.", code="warm_up(optimizer)")


def found(cause: Cause = Cause.LR_TOO_HIGH, step: int = 60, **changes: Any) -> Finding:
    made = Finding(cause, Severity.WARNING, "main", step, f"about {cause}", "why", source="advice", check=f"c {cause}")
    return replace(made, **changes)


def view(*told: Finding, **changes: Any) -> View:
    return views.view(findings=told, **changes)


def cards(made: View) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = findings.state(made.findings, made)["cards"]
    return shown


def test_a_card_says_since_when_and_what_it_lights() -> None:
    rate = found(layers=("", "fc1", "fc2"))
    course = Course(rate, (Spell("main", 40, 100, 120, "main"), Spell("main", 1200)))
    [card] = cards(view(rate, courses=(course,)))
    assert card["where"] == "since step 40 · gone at 120 · back at 1,200"
    assert card["lit"] == {"layers": ["fc1", "fc2"], "spells": [[40, 100], [1200, None]]}


def test_what_merely_happened_says_where_and_lights_its_step() -> None:
    nan = Finding(Cause.NAN_LOSS, Severity.CRITICAL, "main", 1234, "NaN", "why")
    [card] = cards(view(nan, courses=(Course(nan, (Spell("main", 1234),)),)))
    assert (card["where"], card["lit"]["spells"]) == ("main, step 1,234", [[1234, 1234]])
    assert card["sure"] == ""


def test_what_one_explains_is_within_its_card_and_nowhere_else() -> None:
    cause = found(folded=("about exploding_gradient", "about loss_oscillation"))
    other = found(Cause.DEAD_RELU, folded=("about loss_oscillation",))
    symptoms = [found(Cause.EXPLODING_GRADIENT), found(Cause.LOSS_OSCILLATION)]
    shown = cards(view(cause, other, *symptoms))
    assert [card["cause"] for card in shown] == ["lr_too_high", "dead_relu"]
    assert [[each["cause"] for each in card["symptoms"]] for card in shown] == [
        ["exploding_gradient", "loss_oscillation"], []
    ]  # fmt: skip


def test_three_are_seen_at_once_and_none_is_lost() -> None:
    causes = list(Cause)[:9]
    state = findings.state([found(cause) for cause in causes])
    assert state["first"] == 3 and [card["cause"] for card in state["cards"]] == [str(each) for each in causes]


def test_no_repeats_of_what_happened_several_times_the_latest_stands() -> None:
    told = [Finding(Cause.USER_ERROR, Severity.CRITICAL, "main", step, "ValueError", "why") for step in (3, 9, 5)]
    assert [card["where"] for card in cards(view(*told))] == ["main, step 9"]


def test_what_is_gone_is_told_apart_but_for_what_stands() -> None:
    over, rate = found(Cause.OVERFITTING), found()
    ended = (Spell("main", 80, 140, 160, "main"),)
    state = findings.state([rate], view(rate, courses=(Course(over, ended), Course(rate, (Spell("main", 40),)))))
    assert [(each["title"], each["where"]) for each in state["gone"]] == [
        ("about overfitting", "since step 80 · gone at 160")
    ]  # fmt: skip
    assert state["gone"][0]["lit"]["spells"] == [[80, 140]]
    assert len({each["key"] for each in (*state["cards"], *state["gone"])}) == 2


@pytest.mark.parametrize(
    ("confidence", "words"),
    [(1.0, "beyond doubt"), (0.97, "almost certain, 97 %"), (0.87, "very likely, 87 %"), (0.6, "likely, 60 %"),
     (0.59, "possible, 59 %"), (0.0, "possible, 0 %")],
)  # fmt: skip
def test_how_sure_in_words(confidence: float, words: str) -> None:
    assert findings.sureness(confidence) == words
    [card] = cards(view(found(confidence=confidence)))
    assert card["sure"] == words


# -- trials -----------------------------------------------------------------------------------------------------


def proof(rung: int = 0, run: str = "lr 0.02", **changes: Any) -> Proof:
    return Proof(found(), SLOWER, rung, run, views.comparison(**changes))


def tried(*proofs: Proof, **changes: Any) -> list[dict[str, Any]]:
    """The remedies of a card, in a view with these proofs."""
    rate = found(remedies=(SLOWER, HAND, CLIP))
    [card] = cards(replace(views.forest(findings=(rate,)), proofs=proofs, **changes))
    remedies: list[dict[str, Any]] = card["remedies"]
    return remedies


def test_each_remedy_has_its_rung_and_what_came_of_it() -> None:
    shown = tried(proof(rung=1))
    assert [(each["rung"], each["proof"] is not None) for each in shown] == [(0, False), (-1, False), (1, True)]
    assert shown[1]["code"] == "warm_up(optimizer)"


def test_the_latest_of_several_trials_counts() -> None:
    [first, *_] = tried(proof(), proof(verdict=Verdict.WITHIN_NOISE))
    assert (first["proof"]["helped"], first["proof"]["said"]) == (False, "No difference beyond noise")
    [first, *_] = tried(proof(verdict=Verdict.WORSE), proof())
    assert (first["proof"]["helped"], first["proof"]["said"]) == (True, "It helps")
    assert first["proof"]["numbers"] == (
        "validation loss 0.187 → 0.142 (−24 %), 99.8 % sure · steps 101 to 300, 6 seeds"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "held", "applied", "gone"),
    [
        ("lr 0.02", "main", False, False),
        ("lr 0.02", "lr 0.02", True, False),
        ("main", "lr 0.02", True, False),
        ("deleted", "main", False, True),
    ],
)
def test_whether_the_model_goes_on_from_it(run: str, held: str, applied: bool, gone: bool) -> None:
    status = Status(run=held, step=300)
    [first, *_] = tried(proof(run=run), status=status)
    assert (first["proof"]["applied"], first["proof"]["gone"]) == (applied, gone)


def test_the_curves_are_means_of_what_was_measured() -> None:
    steps = np.arange(101, 341)
    values = np.where(steps == 120, np.nan, steps.astype(float))
    row = views.comparison().rows[0]
    curve = Points(steps, values)
    [first, *_] = tried(proof(rows=(replace(row, parent_curve=curve, run_curve=Points(steps[:40], -values[:40])),)))
    drawn = first["proof"]["picture"]
    assert drawn["rows"] == ["without it", "with it"]
    truth = [float(f"{np.nanmean(values[at : at + 4]):.4g}") for at in range(0, 240, 4)]
    assert drawn["values"][0] == truth
    assert drawn["values"][1] == [-each for each in truth[:10]] + [None] * 50


def test_a_metric_is_called_by_its_name() -> None:
    assert trials.called(Series(Signal.METRIC, "accuracy", Split.VAL)) == "accuracy/val"
    assert trials.called(Series(Signal.LOSS, split=Split.TRAIN)) == "training loss"


def test_what_a_trial_takes_is_said_beside_the_cards() -> None:
    made = view(found(), trials=(Trial(120, 10, 12.3, "lr_too_high"), Trial(40, 9, 0.0, "dead_relu")))
    state = trials.state(made)
    assert state["costs"] == {"lr_too_high": "about 12 s: 10 reruns of 120 steps", "dead_relu": "9 reruns of 40 steps"}
    assert state["trial"] is None


@pytest.mark.parametrize(
    ("seconds", "now_s", "share"), [(10.0, 105.0, 0.5), (10.0, 200.0, 0.97), (0.0, 105.0, 0.0), (10.0, 99.0, 0.0)]
)
def test_how_far_a_trial_is(seconds: float, now_s: float, share: float) -> None:
    under_way = Trial(40, 9, seconds, "lr_too_high", 1, began_s=100.0)
    made = view(trial=under_way, status=Status(activity="trying: Clip."))
    assert trials.state(made, lambda: now_s)["trial"] == {
        "cause": "lr_too_high", "rung": 1, "doing": "trying: Clip.", "share": share
    }  # fmt: skip


def test_why_nothing_came_of_it_is_said_until_it_did() -> None:
    asked = (TryRemedy("lr_too_high", 1), ApplyRemedy("dead_relu", 0), TryRemedy("lr_too_high", 1))
    outcomes = [
        Outcome(each, "main", 3, ok, text) for each, ok, text in zip(asked, (False, False, True), "abc", strict=True)
    ]
    assert trials.state(view(outcomes=tuple(outcomes[:2])))["refusals"] == {"lr_too_high 1": "a", "dead_relu 0": "b"}
    assert trials.state(view(outcomes=tuple(outcomes)))["refusals"] == {"dead_relu 0": "b"}


def test_a_card_stays_the_same_while_only_prices_change() -> None:
    """The browser would make it anew, under the hand of whoever uses it."""
    painter, rate = Painter(default_panels()), found(remedies=(SLOWER,))
    made = view(rate, trials=(Trial(40, 9, 2.0, "lr_too_high"),))
    before = painter.paint(made)[("findings",)]
    after = painter.paint(replace(made, trials=(Trial(40, 9, 3.0, "lr_too_high"),)))[("findings",)]
    assert before["cards"] is after["cards"] and before["costs"] != after["costs"]
    proven = painter.paint(replace(made, proofs=(proof(),)))[("findings",)]
    assert proven["cards"][0]["remedies"][0]["proof"]["helped"]
