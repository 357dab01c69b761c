"""What the charts draw is what was recorded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from nbdebug.dashboard.figures import landmarks
from nbdebug.dashboard.figures.loss import Loss
from nbdebug.dashboard.figures.marks import merge_marks
from nbdebug.dashboard.figures.verdict import VerdictPanel
from nbdebug.dashboard.picture import default_panels
from nbdebug.dashboard.tree import Legend
from nbdebug.records.runs import Mark
from nbdebug.records.signals import Signal
from nbdebug.records.status import State, Status
from nbdebug.records.view import Focus, LayersView
from tests.dashboard import views

PANELS = [panel for panel in default_panels() if panel.name != "layers"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
@pytest.mark.parametrize("layers", [1, 3, 150])
def test_every_array_has_a_trace_of_its_name(panel, layers):
    view = views.forest(layers=views.layers(layers, focus=Focus("layer0", tracks=(Signal.UPDATE_RATIO,))))
    names = [trace.name for trace in panel.skeleton(view).data]
    assert len(set(names)) == len(names)
    assert {trace for trace, _ in panel.draw(view).arrays} <= set(names)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_nothing_recorded_gives_a_hint_and_no_chart(panel):
    view = views.view(runs=(views.run(),), layers=views.NO_LAYERS)
    drawing = panel.draw(view)
    assert drawing.empty and not drawing.arrays


def test_loss_curves_are_exact():
    values = [1.25, math.nan, 0.1 + 0.2, math.inf, -2.0]
    view = views.view(runs=(views.run(train=values, val=views.points([0.7], first=5)),))
    arrays = Loss().draw(view).arrays
    np.testing.assert_array_equal(arrays["main train", "y"], values)
    np.testing.assert_array_equal(arrays["main train", "x"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(arrays["main val", "x"], [5])


def test_what_is_not_finite_is_marked_at_the_top():
    view = views.view(runs=(views.run(train=[1.0, math.nan, 1.0, math.inf, -math.inf]),))
    arrays = Loss().draw(view).arrays
    assert arrays["NaN", "x"].tolist() == [2]
    assert arrays["inf", "x"].tolist() == [4, 5]
    assert (arrays["NaN", "y"] > 0.9).all()


def test_log_axis_is_offered_only_where_it_shows_everything():
    assert Loss().draw(views.view()).layout["meta"]["log"] is True
    assert Loss().draw(views.view(runs=(views.run(train=[1.0, 0.0]),))).layout["meta"]["log"] is False


def test_marks_of_a_drag_become_one_and_keep_the_last_word():
    drag = [Mark("main", 500 + step, f"lr {step}") for step in range(9)]
    merged = merge_marks([*drag, Mark("main", 501, "clip off"), Mark("branch", 502, "lr 7")], 1000)
    assert [(mark.run, mark.step, mark.text) for mark in merged] == [
        ("main", 508, "lr 8, clip off"),
        ("branch", 502, "lr 7"),
    ]


def test_labels_of_marks_do_not_overlap_and_the_latest_has_one():
    marks = tuple(Mark("main", 100 * step, f"learning rate {step}") for step in range(1, 30))
    view = views.view(runs=(views.run(train=[1.0] * 3000),), marks=marks)
    layout = Loss().draw(view).layout
    assert len(layout["shapes"]) == 29
    labels = layout["annotations"]
    assert 3 <= len(labels) <= 8
    assert "learning rate 29" in [label["text"] for label in labels]
    for level in {label["yshift"] for label in labels}:
        ends = sorted(
            (label["x"] - 800, label["x"]) if label["xanchor"] == "right" else (label["x"], label["x"] + 800)
            for label in labels
            if label["yshift"] == level
        )
        assert all(first[1] <= second[0] for first, second in pairwise(ends))


def test_very_many_validations_are_a_line_without_markers():
    few, many = (views.run(train=[1.0] * 10, val=views.points([1.0] * count)) for count in (5, 500))
    modes = [Loss().draw(views.view(runs=(run,))).traces["main val"]["mode"] for run in (few, many)]
    assert modes == ["lines+markers", "lines"]


def test_names_are_shown_literally():
    evil = "<b>&amp;</b>"
    shown = LayersView(
        latest=views.table(1, layers=(evil,)),
        histograms=((views.histograms(size=1, layers=(evil,)), 3),),
        tracks=(views.tracks(1, layers=(evil,)),),
        story=views.story(evil),
    )
    runs = (views.run(evil, [1.0]), views.branch("b", evil, 1, [1.0], title=f"%{{y}}{evil}"))
    view = views.view(
        runs=runs, layers=shown, marks=(Mark(evil, 1, evil),),
        snapshots=(views.snapshot(run="b", step=2, best=True),), comparison=views.comparison(parent=evil, run="b"),
    )  # fmt: skip
    for panel in PANELS:
        drawing = panel.draw(view)
        skeleton, layout = panel.skeleton(view), {**drawing.layout, "meta": {}}  # meta: the browser escapes that itself
        text = skeleton.update_layout(meta={}, overwrite=True).to_json()
        text += json.dumps([layout, [*drawing.traces], dict(drawing.traces)])
        assert "<b>&amp;" not in text.replace("\\u003c", "<").replace("\\u003e", ">").replace("<b>%{", "")
        assert not any("&amp;" in (trace.hovertemplate or "") for trace in panel.skeleton(view).data)


def test_structure_changes_only_with_what_the_skeleton_shows():
    made = views.comparison()
    focus = Focus("layer1", tracks=(Signal.UPDATE_RATIO,))
    first = views.view(comparison=made, layers=views.layers(100, focus=focus))
    grown = views.layers(100, step=50, seed=1, focus=focus, tracks=(views.tracks(100, 90),))
    later = views.view(runs=(views.run(train=[5.0] * 50),), layers=grown, comparison=made)
    for panel in PANELS:
        assert panel.draw(first).structure == panel.draw(later).structure
    assert Loss().draw(views.view(runs=(*first.runs, views.run("b", [1.0])))).structure != Loss().draw(first).structure


def straight(name, parent, step, first, last, slope):
    """A branch whose curves are a straight line in the step."""
    return views.branch(name, parent, step, [first + slope * (i - step - 1) for i in range(step + 1, last + 1)])


def test_a_branch_leaves_its_parent_where_it_left_it():
    main = views.run(train=[10.0 - 0.1 * step for step in range(1, 51)])
    view = views.view(runs=(main, straight("b", "main", 20, 3.0, 30, 0.0), straight("c", "b", 25, 1.0, 30, 0.0)))
    arrays = Loss().draw(view).arrays
    assert [arrays["b smooth", axis][0] for axis in "xy"] == [20, 8.0]
    assert [arrays["c smooth", axis][0] for axis in "xy"] == [25, 3.0]
    assert [arrays["b train", axis][0] for axis in "xy"] == [21, 3.0], "what was measured stays as it was"
    assert (arrays["forks", "x"].tolist(), arrays["forks", "y"].tolist()) == ([20, 25], [8.0, 3.0])


@pytest.mark.parametrize(
    ("parent", "step", "fork"),
    [
        ("main", 4, [4.0, 6.0]),  # between two points of a thinned curve
        ("b", 10, [10.0, 3.0]),  # where the parent itself left: the grandparent was there
        ("main", 0, None),  # before any loss
        ("gone", 5, None),
        ("nan", 3, None),
    ],
)
def test_a_fork_is_on_the_nearest_curve_that_was_there(parent, step, fork):
    main = views.run()
    curve = replace(views.points([7.0, 5.0, 3.0]), steps=np.array([3, 5, 10]))
    main = replace(main, train=curve, smooth=curve)
    runs = (main, straight("b", "main", 10, 9.0, 12, 0.0), views.run("nan", [math.nan] * 9))
    drawn = Loss().draw(views.view(runs=(*runs, straight("x", parent, step, 1.0, step + 2, 0.0)))).arrays
    found = dict(zip(drawn["forks", "x"], drawn["forks", "y"], strict=True))
    smooth = [drawn["x smooth", "x"][0], drawn["x smooth", "y"][0]]
    if fork is None:
        assert smooth == [step + 1, 1.0]
    else:
        assert smooth == fork and found[fork[0]] == fork[1]


def test_a_branch_that_did_not_grow_is_the_same_array_again():
    panel, view = Loss(), views.forest()
    first, again = panel.draw(view).arrays, panel.draw(replace(view, layers=views.layers(step=9))).arrays
    assert first["lr 0.02 smooth", "y"] is again["lr 0.02 smooth", "y"]
    assert first["main train", "x"] is view.runs[0].train.steps
    grown = straight("lr 0.02", "main", 100, 5.0, 350, 0.0)
    later = panel.draw(replace(view, runs=(view.runs[0], grown))).arrays["lr 0.02 smooth", "y"]
    assert (later.size, later[-1]) == (251, 5.0)


def test_snapshots_of_drawn_runs_stand_at_the_bottom_and_the_best_on_its_curve():
    view = views.forest()
    arrays = Loss().draw(view).arrays
    assert arrays["snapshots", "x"].tolist() == [0, 50, 100, 150, 200, 250, 300, 345, 350, 400]
    assert (arrays["snapshots", "y"] < 0.05).all()
    val, branch = view.runs[0].val, next(run for run in view.runs if run.run.name == "lr 0.02")
    best = {400.0: val.values[-1], 300.0: branch.smooth.values[-1]}
    assert dict(zip(arrays["best", "x"], arrays["best", "y"], strict=True)) == best


def test_what_is_switched_off_is_not_drawn_nor_are_its_marks():
    legend, view = Legend(), views.forest(snapshots=(views.snapshot(step=50), views.snapshot(run="lr 0.5", step=275)))
    panel = Loss(legend)
    before = panel.inputs(view)
    legend.choose("lr 0.5", False)
    drawing = panel.draw(view)
    assert ("lr 0.5 train", "x") not in drawing.arrays and ("main train", "x") in drawing.arrays
    assert 250 not in [shape["x0"] for shape in drawing.layout["shapes"]]
    assert drawing.arrays["snapshots", "x"].tolist() == [50]
    assert "3 of 4 runs drawn" in drawing.readout
    assert any(a is not b for a, b in zip(before, panel.inputs(view), strict=True)), "the drawing is made anew"
    for run in view.runs:
        legend.choose(run.run.name, False)
    assert "switched off" in panel.draw(view).empty


@pytest.mark.parametrize(
    ("status", "here"),
    [
        (Status(State.PAUSED, step=120, last_step=400), 120),
        (Status(State.PAUSED, step=0, last_step=400), 0),
        (Status(State.PAUSED, step=400, last_step=400), None),
        (Status(State.REWINDING, step=120, last_step=400), None),
    ],
)
def test_a_line_says_where_a_rewound_model_is(status, here):
    layout = Loss().draw(views.forest(status=status, marks=())).layout
    assert [shape["x0"] for shape in layout["shapes"]] == ([] if here is None else [here])
    assert [label["text"] for label in layout["annotations"]] == ([] if here is None else ["model here"])


def test_a_journal_from_disk_has_no_line_for_a_model():
    status = Status(State.IDLE, step=120, last_step=400)
    assert not Loss().draw(views.forest(status=status, marks=(), stored=True)).layout["shapes"]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (6, "train 1 · val 4 · best 3 at 4"),
        (5, "at step 5 · train 2 · val 3 · best 3 at 4"),
        (2, "at step 2 · train 5 · val 9 · best 3 at 4"),
        (1, "at step 1 · train 6 · best 3 at 4"),
        (0, "at step 0 · best 3 at 4"),
    ],
)
def test_the_heading_tells_the_losses_where_a_rewound_model_stands(step, said):
    val = replace(views.points([9.0, 3.0, 4.0]), steps=np.array([2, 4, 6]))
    shown = views.view(
        runs=(views.run(train=[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], val=val),),
        status=Status(State.PAUSED, step=step, last_step=6),
    )
    assert Loss().draw(shown).readout == said


def test_a_mark_names_its_run_by_its_title():
    labels = Loss().draw(views.forest()).layout["annotations"]
    assert any("of calmer)" in label["hovertext"] for label in labels)
    assert not any("of lr 0.02)" in label["hovertext"] for label in labels)


def test_the_verdict_draws_the_curves_the_noise_around_zero_and_the_interval_over_the_last_third():
    made = views.comparison()
    drawing = VerdictPanel().draw(views.forest())
    row = made.rows[0]
    for name, curve in (("parent", row.parent_curve), ("run", row.run_curve), ("difference", row.difference_curve)):
        np.testing.assert_array_equal(drawing.arrays[name, "x"], curve.steps)
        np.testing.assert_array_equal(drawing.arrays[name, "y"], curve.values)
    noise, interval = (shape for shape in drawing.layout["shapes"] if shape["type"] == "rect")
    assert [noise[key] for key in ("x0", "x1", "y0", "y1")] == [101, 300, -0.009, 0.009]
    assert [interval[key] for key in ("x1", "y0", "y1")] == [300, -0.052, -0.038]
    assert interval["x0"] == pytest.approx(101 + 2 / 3 * 199)


def test_without_noise_or_interval_only_the_curves_are_drawn():
    row = replace(
        views.comparison().rows[0], noise=math.nan, interval=(math.nan, math.nan), difference=math.inf, confidence=0.0
    )
    drawing = VerdictPanel().draw(views.view(comparison=views.comparison(rows=(row,))))
    assert (drawing.layout["shapes"], drawing.layout["annotations"]) == ([], [])
    assert VerdictPanel().draw(views.view(comparison=views.comparison(rows=()))).empty
    json.dumps([dict(drawing.layout), dict(drawing.traces)], allow_nan=False)


def test_a_large_difference_at_the_start_does_not_flatten_the_verdict():
    row = views.comparison().rows[0]
    curve = row.difference_curve
    wild = replace(row, difference_curve=replace(curve, values=np.where(curve.steps < 150, 40.0, curve.values)))
    low, high = VerdictPanel().draw(views.view(comparison=views.comparison(rows=(wild,)))).layout["yaxis2"]["range"]
    assert -0.1 < low < min(-0.052, curve.values[100:].min()) and 0.009 < high < 0.03


def test_ticks_of_very_many_snapshots_can_be_told_apart_and_stay_where_they_are():
    few = np.array([0.0, 10.0, 11.0])
    np.testing.assert_array_equal(landmarks.thinned(few), few)
    many = landmarks.thinned(np.arange(0.0, 6000.0, 7.0))
    assert 40 <= many.size <= landmarks.MOST_TICKS and (np.diff(many) > 60).all()
    later = landmarks.thinned(np.arange(0.0, 6300.0, 7.0))
    np.testing.assert_array_equal(later[: many.size], many)
