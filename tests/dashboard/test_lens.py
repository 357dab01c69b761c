"""What people look at, and what follows for pulling and painting."""

from __future__ import annotations

import pytest

from nbdebug.dashboard import cost, fallback
from nbdebug.dashboard.lens import Lens, scope
from nbdebug.dashboard.picture import Painter, default_panels, difference
from nbdebug.dashboard.tree import Legend
from nbdebug.records.cost import Cost
from nbdebug.records.layers import Unseen
from nbdebug.records.signals import Signal
from nbdebug.records.view import Focus
from tests.dashboard import views


@pytest.mark.parametrize(
    "message",
    [
        {"layer": 3},
        {"histogram": "loss"},
        {"histogram": "x"},
        {"quantity": "weights"},
        {"path": "x"},
        {"path": ["a"] * 99},
    ],
)
def test_nonsense_is_refused_and_changes_nothing(message):
    lens = Lens()
    with pytest.raises(ValueError):
        lens.choose({"layer": "fc", **message})
    assert (lens.layer, lens.version) == ("", 0)


def test_the_story_is_asked_for_only_while_somebody_has_the_tab_open():
    lens, view = Lens(), views.view()
    assert lens.focus().layer == ""
    assert lens.tell_of(view) == "layer0" == lens.focus().layer
    lens.open_tab("v", "runs")
    assert lens.focus() == Focus("", Signal.ACTIVATIONS, (), (Signal.UPDATE_RATIO,))
    lens.open_tab("w", "layers")
    assert lens.focus().layer == "layer0" and Signal.UPDATE_RATIO in lens.focus().curves
    lens.open_tab("w", "")
    assert lens.focus().layer == ""


def test_a_choice_asks_for_its_layer_kind_and_quantity():
    lens = Lens()
    lens.choose({"layer": "fc", "histogram": "weights", "quantity": "units_dead"})
    focus = lens.focus()
    assert (focus.layer, focus.histogram, focus.tracks) == ("fc", Signal.WEIGHTS, (Signal.UNITS_DEAD,))
    lens.choose({"layer": ""})
    assert lens.focus().histogram is Signal.WEIGHTS


def test_rows_stay_the_same_object_until_the_layers_or_the_place_change():
    lens = Lens()
    first, later = views.view(layers=views.layers(60)), views.view(layers=views.layers(60, seed=1))
    rows = lens.rows(first)
    assert lens.rows(later) is rows
    lens.choose({"path": ["encoder.2."]})
    assert lens.rows(later).path == ("encoder.2.",)
    assert lens.rows(views.view(layers=views.layers(5))).path == ()


def test_the_browser_is_told_in_which_row_each_layer_is():
    lens, view = Lens(), views.view(layers=views.layers(60))
    names = view.layers.latest.layers
    told = scope(lens.rows(view), names)
    assert told["grouped"] and told["rows"][1] == ["encoder.0.", "encoder.0", 7]
    assert [told["of"][names.index(name)] for name in ("embed", "encoder.0.norm1", "encoder.0.mlp.fc2")] == [0, 1, 1]
    lens.choose({"path": ["encoder.0."]})
    assert scope(lens.rows(view), names)["of"][0] == -1


def made(lens, now):
    legend = Legend()
    return Painter(default_panels(legend, lens), legend, lens, clock=lambda: now[0])


def test_panels_are_drawn_one_at_a_time_and_no_sooner_than_their_period():
    now, lens = [0.0], Lens()
    painter = made(lens, now)
    samples = [views.view(layers=views.layers(30, seed=seed)) for seed in range(3)]
    before = painter.paint(samples[0])
    assert painter.paint(samples[1]) == before | {("focus",): lens.state(samples[1])}
    now[0] = 1.0
    seen = []
    for _ in range(6):
        now[0] += 0.01
        after = painter.paint(samples[1])
        changed = {key[0] for key in after if len(key) > 1 and after[key] != before.get(key)}
        assert len(changed) <= 1
        seen += changed
        before = after
    assert sorted(seen) == ["distributions", "gradient_flow", "layers"]
    assert difference(before, painter.paint(samples[1])) is None


def test_a_choice_is_drawn_at_once():
    now, lens = [0.0], Lens()
    painter, view = made(lens, now), views.view()
    painter.paint(view)
    lens.choose({"histogram": "weights"})
    assert painter.paint(view)["distributions", "panel"]["title"] == "Weights"


def test_a_hidden_tab_is_sent_nothing():
    now, lens = [0.0], Lens()
    painter = made(lens, now)
    lens.open_tab("v", "runs")
    picture = painter.paint(views.view())
    assert not any(key[0] in ("layers", "story") for key in picture if len(key) > 1)
    lens.open_tab("v", "layers")
    shown = painter.paint(views.view())
    assert ("layers", "figure") in shown
    lens.open_tab("v", "runs")
    now[0] = 9.0
    later = painter.paint(views.view(layers=views.layers(seed=5)))
    assert {key for key in later if key[0] == "layers" and later[key] is not shown[key]} == set()


def test_what_watching_costs_is_told_the_dearest_first():
    spent = Cost(
        0.05, 0.031, 0.0117, 1e-5, 0.0042, 12, 400, (("units", 7e-4), ("activations", 2.1e-3)), 0.004, 2_400_000
    )
    told = cost.state(views.view(cost=spent))
    assert told["rows"][0] == ["share of the time", "3.1 %, 5 % allowed"]
    assert ["sampled", "one step in 12"] in told["rows"] and ["held between steps", "2.4 MB"] in told["rows"]
    assert told["probes"] == [["activations", "2.1 ms", 0.75], ["units", "0.7 ms", 0.25]]
    assert cost.state(views.view(cost=spent, stored=True)) is None and cost.state(views.view()) is None


def test_it_is_told_what_is_exact_what_is_sampled_and_what_is_not_seen():
    unseen = (Unseen("", "forward time", "a compiled network takes no hooks"), Unseen("fc", "activations", "no"))
    lines = cost.notes(views.view(layers=views.layers(unseen=unseen)))
    assert lines[1] == "sampled: histograms, 4,096 values a layer, shares ± 0.78 %"
    assert lines[2:] == ["not seen: forward time: a compiled network takes no hooks"]


def test_the_text_tells_of_the_layers():
    text = fallback.text(views.view(layers=views.layers(60)))
    assert "\nactivations: 60 layers in 12 groups" in text and "\nupdate : weight: median" in text
    assert "gradients" not in fallback.text(views.view(layers=views.NO_LAYERS))
