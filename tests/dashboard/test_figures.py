"""What the charts draw is what was recorded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from nbdebug.dashboard.figures.activations import ActivationsPanel
from nbdebug.dashboard.figures.gradient_flow import GradientFlowPanel
from nbdebug.dashboard.figures.loss import Loss, merge_marks
from nbdebug.records.commands import Clip, ClipMode
from nbdebug.records.frames import GradientState
from nbdebug.records.runs import Mark
from tests.dashboard import views

PANELS = [Loss(), GradientFlowPanel(), ActivationsPanel()]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
@pytest.mark.parametrize("layers", [1, 3, 150])
def test_every_array_has_a_trace_of_its_name(panel, layers):
    view = views.view(gradients=views.flow(layers), activations=views.activations(layers))
    names = [trace.name for trace in panel.skeleton(view).data]
    assert len(set(names)) == len(names)
    assert {trace for trace, _ in panel.draw(view).arrays} <= set(names)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_nothing_recorded_gives_a_hint_and_no_chart(panel):
    view = views.view(runs=(views.run(),), gradients=None, activations=None)
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
    assert Loss().draw(views.view()).layout["meta"] == {"log": True}
    assert Loss().draw(views.view(runs=(views.run(train=[1.0, 0.0]),))).layout["meta"] == {"log": False}


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


@pytest.mark.parametrize("mode", [ClipMode.OFF, ClipMode.NORM, ClipMode.VALUE])
def test_gradients_are_exact_and_clipped_ones_shown_while_clipping(mode):
    view = views.view()
    view = replace(view, knobs=replace(view.knobs, clip=Clip(mode, 0.5)))
    drawing, flow = GradientFlowPanel().draw(view), view.gradients
    np.testing.assert_array_equal(drawing.arrays["mean", "y"], flow.mean)
    np.testing.assert_array_equal(drawing.arrays["max", "y"], flow.max)
    assert (("mean clipped", "y") in drawing.arrays) == (mode is not ClipMode.OFF)
    assert [shape["y0"] for shape in drawing.layout["shapes"]] == ([0.5] if mode is ClipMode.VALUE else [])


def test_what_a_log_axis_cannot_show_stands_at_its_edge():
    state = np.array([GradientState.PRESENT, GradientState.MISSING, GradientState.FROZEN, 0, 0], np.int8)
    mean = np.array([1.0, 0, 0, 0, math.nan])
    flow = views.flow(5, mean=mean, max=mean, clipped_mean=mean, clipped_max=mean, state=state)
    arrays = GradientFlowPanel().draw(views.view(gradients=flow)).arrays
    shown = {
        name: np.flatnonzero(np.isfinite(arrays[name, "y"])).tolist()
        for name in ("missing", "frozen", "zero", "not finite")
    }
    assert shown == {"missing": [1], "frozen": [2], "zero": [3], "not finite": [4]}


def test_ridges_carry_the_raw_counts():
    shown = views.activations(3)
    drawing = ActivationsPanel().draw(views.view(activations=shown))
    for index, layer in enumerate(shown.layers):
        np.testing.assert_array_equal(drawing.arrays[layer, "customdata"], shown.counts[index])


def test_the_heat_map_carries_the_raw_counts():
    shown = views.activations(13)
    arrays = ActivationsPanel().draw(views.view(activations=shown)).arrays
    np.testing.assert_array_equal(arrays["counts", "customdata"], shown.counts)
    assert arrays["counts", "z"].max() == 1


def test_a_layer_that_is_all_zero_is_told():
    counts = np.zeros((2, 8))
    counts[:, 4] = [100, 50]
    counts[1, 0] = 50
    drawing = ActivationsPanel().draw(views.view(activations=views.activations(2, counts=counts)))
    assert "layer0 100 % at zero" in drawing.readout
    colours = [drawing.traces[name]["fillcolor"] for name in ("layer0", "layer1")]
    assert colours[0] != colours[1]


def test_names_are_shown_literally():
    evil = "<b>&amp;</b>"
    flow, shown = views.flow(1, layers=(evil,)), views.activations(1, layers=(evil,))
    view = views.view(runs=(views.run(evil, [1.0]),), gradients=flow, activations=shown, marks=(Mark(evil, 1, evil),))
    for panel in PANELS:
        text = panel.skeleton(view).to_json() + json.dumps([panel.draw(view).layout, [*panel.draw(view).traces]])
        assert "<b>&amp;" not in text.replace("\\u003c", "<").replace("\\u003e", ">").replace("<b>%{", "")


def test_structure_changes_only_with_what_the_skeleton_shows():
    first, later = views.view(), views.view(runs=(views.run(train=[5.0] * 50),), gradients_step=50)
    for panel in PANELS:
        assert panel.draw(first).structure == panel.draw(later).structure
    assert Loss().draw(views.view(runs=(*first.runs, views.run("b", [1.0])))).structure != Loss().draw(first).structure
