"""The learning-rate finder's tab: what it says and draws of a range test."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nbdebug.dashboard import finder, rewind
from nbdebug.dashboard.figures.lr_curve import LrCurvePanel, heights, readout, span
from nbdebug.dashboard.picture import Painter, default_panels
from nbdebug.records.commands import Changes, FindLr, Outcome, SetKnobs
from nbdebug.records.finder import LrCurve
from nbdebug.records.status import GroupRate, State, Status
from tests.dashboard import views

BUSY = "testing learning rates: step 37 of 100, at 2.1e-4"


def test_before_any_test_the_form_says_what_one_costs():
    state = finder.state(views.view())
    assert state["usual"] == {"low": 1e-7, "high": 10.0, "steps": 100}
    assert (state["step_s"], state["blocked"], state["doing"], state["suggestions"]) == (0.2, "", "", [])
    drawing = LrCurvePanel().draw(views.view())
    assert "no range test was made yet" in drawing.empty and not drawing.arrays


def test_a_test_under_way_is_told_and_a_pause_ends_it():
    view = views.view(status=Status(State.PAUSED, step=3, activity=BUSY))
    state = finder.state(view)
    assert state["doing"] == BUSY and state["blocked"].startswith("testing learning rates: wait")
    assert rewind.activity(view) == {"text": BUSY, "share": None, "cancel": "pause"}
    assert finder.state(views.view(status=Status(activity="comparing a with b: rerun 1")))["doing"] == ""


def test_what_a_test_found_is_told_with_the_rate_that_is_set():
    knobs = replace(views.view().knobs, groups=(GroupRate("all", 2.1e-3, 1e-3),), schedule="cosine")
    state = finder.state(views.view(lr_curve=views.lr_curve(), knobs=knobs))
    assert state["taken"] == "taken after step 120 of main: 84 of 100 rates, 1.0e-7 to 5.1e-1"
    assert [(each["text"], each["on"]) for each in state["suggestions"]] == [
        ("2.1e-3", True), ("3.2e-3", False), ("5.0e-3", False), ("2.5e-1", False),
    ]  # fmt: skip
    assert state["schedule"] == "cosine goes on from what is set here"
    assert finder.state(views.view(lr_curve=views.lr_curve(note="a note")))["note"] == "a note"


def test_why_a_test_came_to_nothing_is_told_until_the_next_one():
    refused = Outcome(FindLr(), "main", 3, False, "mine")
    assert finder.state(views.view(outcomes=(refused,)))["refusal"] == "mine"
    other = Outcome(SetKnobs(Changes(lr=1.0)), "main", 3, True, "")
    assert finder.state(views.view(outcomes=(refused, other)))["refusal"] == "mine"
    assert finder.state(views.view(outcomes=(refused, replace(refused, ok=True))))["refusal"] == ""


def test_the_chart_holds_exactly_what_was_measured():
    curve = views.lr_curve()
    view = views.view(lr_curve=curve)
    panel = LrCurvePanel()
    drawing = panel.draw(view)
    np.testing.assert_array_equal(drawing.arrays["raw", "y"], curve.losses)
    np.testing.assert_array_equal(drawing.arrays["smooth", "y"], curve.smooth)
    np.testing.assert_array_equal(drawing.arrays["raw", "x"], curve.rates)
    assert {trace.name for trace in panel.skeleton(view).data} == {trace for trace, _ in drawing.arrays}
    assert panel.skeleton(view).layout.xaxis.type == "log"
    assert drawing.readout == "best 2.1e-3 (middle of the valley) · lowest loss at 4.5e-2 · ran away at 5.1e-1"
    json.dumps([dict(drawing.layout)], allow_nan=False)


def test_a_line_and_a_label_for_each_suggestion_and_the_rate_in_force():
    drawing = LrCurvePanel().draw(views.view(lr_curve=views.lr_curve()))
    assert [shape["x0"] for shape in drawing.layout["shapes"]] == [2.1e-3, 3.2e-3, 5e-3, 0.25, 3e-3]
    labels = drawing.layout["annotations"]
    assert [label["text"] for label in labels] == [
        "valley 2.1e-3", "steepest 3.2e-3", "minimum / 10 5.0e-3", "diverging / 2 2.5e-1", "in force 3.0e-3",
    ]  # fmt: skip
    assert labels[0]["x"] == pytest.approx(math.log10(2.1e-3))
    near = [label["yshift"] for label in labels[:3]] + [labels[4]["yshift"]]
    assert len(set(near)) == 4, "labels that are near each other have a height of their own"


def test_the_loss_axis_leaves_out_what_it_ran_away_to():
    curve = views.lr_curve()
    low, high = heights(curve)
    assert low < np.nanmin(curve.smooth) and 2.3 < high < 3 < curve.losses.max()
    first, last = span(curve)
    assert 10**first < curve.rates[0] and curve.rates[-1] < 10**last


ODD = {
    "never finite": LrCurve(np.array([1e-7]), np.array([math.nan]), np.array([math.nan]), (), 1e-7),
    "flat": LrCurve(np.array([1e-7, 1e-6]), np.array([0.0, 0.0]), np.array([0.0, 0.0])),
    "one": LrCurve(np.array([1e-7]), np.array([3.0]), np.array([3.0]), (("minimum / 10", 1e-8),)),
    "infinite at last": LrCurve(np.array([1e-3, 1.0]), np.array([3.0, math.inf]), np.array([3.0, math.nan]), (), 1.0),
}


@pytest.mark.parametrize("curve", ODD.values(), ids=ODD)
def test_odd_curves_are_drawn(curve):
    view = views.view(lr_curve=curve)
    drawing = LrCurvePanel().draw(view)
    json.dumps([dict(drawing.layout), finder.state(view), readout(curve)], allow_nan=False)
    low, high = heights(curve)
    assert low < high


def test_the_chart_is_drawn_again_only_for_another_curve_or_rate():
    panel, view = LrCurvePanel(), views.view(lr_curve=views.lr_curve())
    assert panel.inputs(view) == panel.inputs(replace(view, status=Status(step=9)))
    other = replace(view.knobs, groups=(GroupRate("all", 1.0, 1.0),))
    assert panel.inputs(view) != panel.inputs(replace(view, knobs=other))
    picture = Painter(default_panels()).paint(view, whole=True)
    assert ("lr_curve", "figure") in picture and picture["finder",]["suggestions"]


def test_of_a_journal_from_disk_nothing_can_be_set():
    view = views.view(stored=True, lr_curve=views.lr_curve())
    assert finder.state(view)["stored"] and not LrCurvePanel().draw(view).layout["meta"]["able"]


def test_without_any_group_no_rate_is_in_force():
    view = views.view(lr_curve=views.lr_curve(), knobs=replace(views.view().knobs, groups=()))
    assert finder.state(view)["blocked"] == "the optimizer has no learning rate"
    assert finder.in_force(view) is None and len(LrCurvePanel().draw(view).layout["shapes"]) == 4
