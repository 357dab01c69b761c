"""What the charts and the table of layers draw is what was recorded, layer by layer and by group."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nbdebug.dashboard import layer_table
from nbdebug.dashboard.figures import distributions, symlog
from nbdebug.dashboard.figures.distributions import DistributionsPanel
from nbdebug.dashboard.figures.gradient_flow import GradientFlowPanel
from nbdebug.dashboard.figures.over_time import OverTimePanel
from nbdebug.dashboard.figures.story import StoryPanel
from nbdebug.dashboard.figures.tracks import latest, median, thinned
from nbdebug.dashboard.layer_table import LayerTablePanel
from nbdebug.dashboard.lens import Lens
from nbdebug.records.commands import Clip, ClipMode
from nbdebug.records.layers import GradientState, Unseen
from nbdebug.records.signals import Signal
from nbdebug.records.view import LayersView
from tests.dashboard import views


def seen(latest=None, **changes):
    """A view of these layers; without more, nothing but their numbers."""
    return views.view(layers=LayersView(latest=latest, step=7, **changes))


# --- gradient flow


@pytest.mark.parametrize("mode", [ClipMode.OFF, ClipMode.NORM, ClipMode.VALUE])
def test_gradients_are_exact_and_clipped_ones_shown_while_clipping(mode):
    view = views.view()
    view = replace(view, knobs=replace(view.knobs, clip=Clip(mode, 0.5)))
    drawing, table = GradientFlowPanel().draw(view), view.layers.latest
    np.testing.assert_array_equal(drawing.arrays["mean", "y"], table.of(Signal.GRADIENT_MEAN)[0])
    np.testing.assert_array_equal(drawing.arrays["max", "y"], table.of(Signal.GRADIENT_MAX)[0])
    assert (("mean clipped", "y") in drawing.arrays) == (mode is not ClipMode.OFF)
    assert [shape["y0"] for shape in drawing.layout["shapes"]] == ([0.5] if mode is ClipMode.VALUE else [])


def edges_of(table):
    arrays = GradientFlowPanel().draw(seen(table)).arrays
    names = ("missing", "frozen", "zero", "not finite")
    return {name: np.flatnonzero(np.isfinite(arrays[name, "y"])).tolist() for name in names}


def test_what_a_log_axis_cannot_show_stands_at_its_edge():
    hole, missing, frozen = views.HOLE, GradientState.MISSING, GradientState.FROZEN
    mean = np.array([1.0, hole, hole, 0, math.nan])
    table = views.table(5, GRADIENT_STATE=np.array([0, missing, frozen, 0, 0]), GRADIENT_MEAN=mean, GRADIENT_MAX=mean)
    assert edges_of(table) == {"missing": [1], "frozen": [2], "zero": [3], "not finite": [4]}


def test_layers_without_a_gradient_to_look_at_have_no_bar():
    table = views.table(4, GRADIENT_STATE=np.array([0, views.HOLE, 0, views.HOLE]))
    figure = GradientFlowPanel().skeleton(seen(table))
    assert list(figure.data[0].x) == ["layer0", "layer2"]


def test_a_group_has_the_mean_of_means_the_largest_of_all_and_any_edge():
    state = np.zeros(60)
    state[12] = GradientState.MISSING
    table = views.table(60, GRADIENT_STATE=state)
    lens = Lens()
    view = seen(table)
    arrays = GradientFlowPanel(lens).draw(view).arrays
    rows = lens.rows(view).rows
    for index, row in enumerate(rows):
        chosen = [table.layers.index(name) for name in row.layers]
        assert arrays["mean", "y"][index] == pytest.approx(table.of(Signal.GRADIENT_MEAN)[0][chosen].mean())
        assert arrays["max", "y"][index] == table.of(Signal.GRADIENT_MAX)[0][chosen].max()
    assert [rows[i].key for i in np.flatnonzero(np.isfinite(arrays["missing", "y"]))] == ["encoder.1."]
    assert "1 without gradient" in GradientFlowPanel(lens).draw(view).readout


# --- distributions


def test_ridges_carry_the_shares_of_the_recorded_counts():
    found = views.histograms(size=4)
    drawing = DistributionsPanel().draw(seen(views.table(4), histograms=((found, 7),)))
    cells = symlog.cells(found.counts, found.limit, symlog.units(found.counts, found.limit))
    for index, layer in enumerate(found.layers):
        np.testing.assert_allclose(drawing.arrays[layer, "customdata"], cells[index] / found.counts[index].sum())
        tall = drawing.arrays[layer, "y"][:-2] - (3 - index)
        assert tall.max() == pytest.approx(0.86) and tall.min() >= 0


def test_a_group_has_the_mean_of_its_layers_shares():
    found, lens = views.histograms(size=60), Lens()
    view = seen(views.table(60), histograms=((found, 7),))
    arrays = DistributionsPanel(lens).draw(view).arrays
    cells = symlog.cells(found.counts, found.limit, symlog.units(found.counts, found.limit))
    chosen = [found.layers.index(name) for name in lens.rows(view).rows[1].layers]
    shares = (cells[chosen] / cells[chosen].sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(arrays["encoder.0 ▸ 7 layers", "customdata"], shares)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"UNITS_DEAD": [0, 0.62, 0]}, "layer1 62 % dead"),
        ({"SATURATED": [0, 0, 0.71]}, "layer2 71 % saturated"),
        ({"ACTIVATION_ZERO": [0, 0.95, 0]}, "layer1 95 % at 0"),
        ({"ACTIVATION_NON_FINITE": [0.01, 0, 0], "UNITS_DEAD": [0, 0.9, 0]}, "layer0 1 % NaN or inf and 1 more"),
        ({"ACTIVATION_NON_FINITE": [0.02, 0, 0], "UNITS_DEAD": [0.9, 0, 0]}, "layer0 2 % NaN or inf ·"),
        ({"UNITS_DEAD": [0, 0.4, 0]}, None),
    ],
)
def test_what_is_off_is_told_and_coloured(numbers, told):
    table = views.table(3, **{name: np.array(values) for name, values in numbers.items()})
    drawing = DistributionsPanel().draw(seen(table, histograms=((views.histograms(), 7),)))
    colours = {trace["fillcolor"] for trace in drawing.traces.values()}
    assert (told or "3 layers · 4,096") in drawing.readout
    assert (len(colours) > 1) == bool(told)


def test_how_exact_it_is_is_read_out():
    found = views.histograms()
    assert distributions.sampling(found) == "4,096 values a layer, shares ± 0.78 %"
    assert distributions.sampling(replace(found, elements=found.sampled)) == "every value counted"


def test_the_kind_is_chosen_and_falls_back_to_one_that_there_is():
    lens = Lens()
    view = views.view()
    assert DistributionsPanel(lens).draw(view).title == "Activations"
    lens.choose({"histogram": "weights"})
    assert DistributionsPanel(lens).draw(view).title == "Weights"
    lens.choose({"histogram": "changes"})
    assert DistributionsPanel(lens).draw(view).title == "Activations"
    assert DistributionsPanel(lens).draw(seen(views.table())).empty == "no histograms are measured"


def test_data_is_shown_by_its_names_and_is_no_layer():
    names = (*views.names(3), "input")
    hole = views.HOLE
    table = views.table(4, layers=names, DATA_MEAN=np.array([hole] * 3 + [0.5]), DATA_STD=np.array([hole] * 3 + [2.0]))
    absent = table.present.copy()
    absent[:-2, 3] = False
    table = replace(table, present=absent)
    found = views.histograms(Signal.DATA, 1, layers=("input",))
    view, lens = seen(table, histograms=((found, 7),)), Lens()
    lens.choose({"histogram": "data"})
    assert [trace.name for trace in DistributionsPanel(lens).skeleton(view).data] == ["input"]
    assert lens.names(view) == views.names(3)
    drawing = LayerTablePanel(lens).draw(view)
    assert drawing.arrays[Signal.ACTIVATION_MEAN, "values"][3] == 0.5
    assert drawing.arrays[Signal.ACTIVATION_MEAN, "present"][3] == 1
    assert LayerTablePanel(lens).skeleton(view)["data"] == [3]


def test_a_layer_called_like_data_is_still_a_layer():
    table = views.table(3, layers=("fc1", "fc2", "output"), DATA_MEAN=np.array([views.HOLE, views.HOLE, 0.5]))
    assert Lens().names(seen(table)) == ("fc1", "fc2", "output")


# --- over time


def test_lines_are_exact_and_keep_both_extremes():
    tracks = views.tracks(3, 20)
    tracks = replace(tracks, low=tracks.low / 2)
    arrays = OverTimePanel().draw(seen(views.table(), tracks=(tracks,))).arrays
    for index, layer in enumerate(tracks.layers):
        np.testing.assert_array_equal(arrays[layer, "y"][0::2], tracks.low[:, index])
        np.testing.assert_array_equal(arrays[layer, "y"][1::2], tracks.high[:, index])
    np.testing.assert_array_equal(arrays["steps", "x"], np.repeat(tracks.steps, 2))


def test_the_worst_is_lit_and_read_out():
    drawing = OverTimePanel().draw(seen(views.table(), tracks=(views.tracks(3),)))
    assert "worst layer1 at" in drawing.readout and "median" in drawing.readout
    assert drawing.layout["meta"]["lit"]["key"] == "layer1"


def test_many_layers_have_a_band_medians_and_the_worst_few():
    tracks, lens = views.tracks(400), Lens()
    lens.choose({"layer": "encoder.7.norm1"})
    view = seen(views.table(400), tracks=(tracks,))
    drawing = OverTimePanel(lens).draw(view)
    np.testing.assert_allclose(drawing.arrays["least", "y"][::2], tracks.low.min(axis=1))
    np.testing.assert_allclose(drawing.arrays["most", "y"][::2], tracks.high.max(axis=1))
    keys = drawing.layout["meta"]["keys"]
    assert keys[-1] == "encoder.7.norm1" and "head.norm" in keys[-4:]
    place = tracks.layers.index("encoder.7.norm1")
    np.testing.assert_array_equal(drawing.arrays["line 4", "y"][1::2], tracks.high[:, place])
    row = lens.rows(view).rows[1]
    chosen = [tracks.layers.index(name) for name in row.layers]
    name = drawing.layout["meta"]["traces"][1]
    np.testing.assert_allclose(drawing.arrays[name, "y"][::2], np.median(tracks.high[:, chosen], axis=1))


def test_what_a_log_axis_cannot_show_is_counted():
    tracks = views.tracks(3)
    low, high, odd = tracks.low.copy(), tracks.high.copy(), tracks.odd.copy()
    low[:, 0] = high[:, 0] = 0
    low[9, 2] = high[9, 2] = np.nan
    odd[9, 2] = True
    drawing = OverTimePanel().draw(seen(views.table(), tracks=(replace(tracks, low=low, high=high, odd=odd),)))
    assert (
        "1 at 0" in drawing.readout and "worst layer1" in drawing.readout and "NaN or inf in 1 layer" in drawing.readout
    )
    assert np.isnan(drawing.arrays["layer0", "y"]).all()
    json.dumps([dict(drawing.layout), dict(drawing.traces)], allow_nan=False)


def test_fewer_stretches_keep_every_extreme():
    tracks = views.tracks(4, 1000)
    few = thinned(tracks, 128)
    assert len(few.steps) <= 128 and few.steps[-1] == tracks.steps[-1]
    np.testing.assert_array_equal(few.high.max(axis=0), tracks.high.max(axis=0))
    np.testing.assert_array_equal(few.low.min(axis=0), tracks.low.min(axis=0))
    assert thinned(few, 128) is few


def test_medians_and_latest_leave_gaps_aside():
    values = np.array([[1.0, 3.0, np.nan], [np.nan, np.nan, np.nan], [5.0, 2.0, 9.0]])
    np.testing.assert_array_equal(median(values), [2.0, np.nan, 5.0])
    tracks = views.tracks(3, 3)
    np.testing.assert_array_equal(latest(replace(tracks, high=values)), [5.0, 2.0, 9.0])
    np.testing.assert_array_equal(latest(replace(tracks, steps=tracks.steps[:2], high=values[:2])), [1.0, 3.0, np.nan])


@pytest.mark.parametrize("quantity", [Signal.UNITS_DEAD, Signal.SATURATED, Signal.WEIGHT_NORM, Signal.GRADIENT_NORM])
def test_other_quantities(quantity):
    lens = Lens()
    lens.choose({"quantity": str(quantity)})
    assert lens.focus().tracks == (quantity,)
    tracks = views.tracks(3, signal=quantity)
    drawing = OverTimePanel(lens).draw(seen(views.table(), tracks=(tracks,)))
    low, high = drawing.layout["yaxis"]["range"]
    top = tracks.high.max() if drawing.layout["yaxis"]["type"] == "linear" else np.log10(tracks.high.max())
    assert low < top <= high
    assert drawing.layout["shapes"] == []
    assert OverTimePanel(lens).draw(seen(views.table())).empty


# --- one layer over time


def test_the_story_draws_its_histograms_over_time():
    story = views.story()
    drawing = StoryPanel().draw(seen(views.table(), story=story))
    heat = drawing.arrays["histogram", "z"]
    assert heat.shape == (50, len(drawing.arrays["histogram", "y"]) - 1)
    np.testing.assert_array_equal(drawing.arrays["histogram", "x"], story.steps)
    np.testing.assert_allclose(heat.max(axis=1), 1)
    wide = (heat > 0.3).sum(axis=1)  # the Gaussian grows four times wider
    assert wide[-5:].mean() > wide[:5].mean() + 4
    unit = symlog.units(story.counts[-1:], story.limits[-1:])
    counts = symlog.cells(story.counts, story.limits, np.repeat(unit, 50))
    dense = counts[-1][counts.any(axis=0)] / np.diff(drawing.arrays["histogram", "y"])
    np.testing.assert_allclose(heat[-1] ** 2, dense / dense.max())
    assert drawing.title == "layer0" and "steps 20 to 1,000" in drawing.readout
    np.testing.assert_array_equal(drawing.arrays["weight_norm", "y"], story.curves[2][1].values)


@pytest.mark.parametrize("changes", [{"curves": ()}, {"steps": np.empty(0, np.int64), "counts": np.empty((0, 81))}])
def test_a_story_may_lack_histograms_or_curves(changes):
    story = views.story(**changes)
    view = seen(views.table(), story=story)
    drawing = StoryPanel().draw(view)
    names = {trace.name for trace in StoryPanel().skeleton(view).data}
    assert names == {trace for trace, _ in drawing.arrays} and names
    assert (
        StoryPanel()
        .draw(seen(views.table(), story=views.story(**changes, curves=()) if "steps" in changes else None))
        .empty
    )


# --- the table


def test_the_table_holds_the_numbers_as_they_are():
    table = views.table(6, BIAS_MAX=np.array([0.1, views.HOLE, math.nan, math.inf, 0, 1e-300]))
    drawing = LayerTablePanel().draw(seen(table))
    for column in layer_table.columns(table):
        if column.name != "memory":
            values, present = table.of(Signal(column.name))
            np.testing.assert_array_equal(drawing.arrays[column.name, "values"], values)
            np.testing.assert_array_equal(drawing.arrays[column.name, "present"], present)
    assert drawing.arrays["memory", "values"][0] == 2 * 262_144


def test_only_what_was_measured_has_a_column():
    table = views.table(2)
    light = replace(table, signals=table.signals[:5], values=table.values[:5], present=table.present[:5])
    assert [column.name for column in layer_table.columns(light)] == ["grad_mean", "grad_max"]
    assert LayerTablePanel().draw(seen()).empty


def test_what_cannot_be_seen_says_why():
    unseen = (Unseen("layer1", "activations", "was not called as a module in the forward"), Unseen("", "time", "no"))
    made = LayerTablePanel().skeleton(seen(views.table(), unseen=unseen))
    assert made["unseen"][0] == ["layer1", "activations", "was not called as a module in the forward"]
    assert json.loads(json.dumps(made, allow_nan=False)) == made
