"""The search's tab: what can be tried, what is said and drawn of what was found, and what a browser may ask for."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nbdebug.dashboard import fallback, messages, search
from nbdebug.dashboard.figures.search import LOOKS, LOST, TONES, SearchPanel, axes
from nbdebug.dashboard.picture import Painter, default_panels
from nbdebug.records.commands import Changes, Outcome, Search, SetKnobs
from nbdebug.records.search import SearchOptions, SearchResult, Trial, ranked
from nbdebug.records.status import KnobStates, State, Status
from tests.dashboard import views

BUSY = "searching: trial 3 of 24, lr 0.01; best so far val_loss 0.3"
MESSAGE = {
    "command": "search", "space": {"lr": [0.1, 0.01]}, "length": 2, "by_epochs": True, "trials": None, "seed": 0,
    "measure": "val_loss", "lower": True, "prune": True, "engine": "random",
}  # fmt: skip


# --- the form, and what is under way


def test_the_knobs_that_can_be_tried_come_with_what_one_might_try():
    assert search.knobs(views.knobs()) == [
        ("lr", "0.0003, 0.003, 0.03", "number"), ("clip_norm", "off, 0.5, 1", "clip"),
        ("clip_value", "off, 0.1, 1", "clip"), ("dropout", "0, 0.1, 0.3", "number"),
        ("beta1", "0.8, 0.9, 0.95", "number"), ("beta2", "0.98, 0.99, 0.999", "number"),
        ("eps", "1e-09, 1e-08, 1e-07", "number"), ("weight_decay", "0, 1e-4, 1e-2", "number"),
        ("amsgrad", "on, off", "switch"), ("temperature", "0.001 to 10", "number"),
        ("label smoothing", "0 to 0.5", "number"),
    ]  # fmt: skip


def test_the_form_says_by_what_is_judged_what_chooses_and_what_a_step_costs():
    state = search.state(views.view(search_options=views.SEARCHABLE))
    assert state["measures"] == [["val_loss", "lower"], ["val_accuracy", "higher"], ["loss", "lower"]]
    assert [name for name, _, why in state["engines"] if not why] == ["random", "optuna"]
    assert (state["step_s"], state["restore_s"], state["batches"]) == (0.2, 0.05, 10)
    assert (state["doing"], state["found"], state["blocked"]) == (None, None, "")
    missing = SearchOptions(missing=(("optuna", "pip install it"),))
    assert search.state(views.view(search_options=missing))["engines"][1][2] == "pip install it"
    nothing = KnobStates((), "", views.view().knobs.clip, ())
    assert search.state(views.view(knobs=nothing))["blocked"] == "no knob that could be tried"


def test_a_search_under_way_is_told_with_its_share():
    found = views.search(24)
    under_way = replace(found, trials=found.trials[:6])
    view = views.view(status=Status(State.RUNNING, activity=BUSY), search=under_way)
    assert search.state(view)["doing"] == {"text": BUSY, "share": 0.25}
    assert search.state(view)["found"]["about"].startswith("6 of 24 trials of 40 steps by Optuna from step 400 of main")
    assert search.state(views.view(status=Status(activity="comparing a with b"), search=found))["doing"] is None


def test_why_a_search_came_to_nothing_is_told_until_the_next_one():
    refused = Outcome(Search({"lr": [1.0]}), "main", 3, False, "mine")
    other = Outcome(SetKnobs(Changes(lr=1.0)), "main", 3, True, "")
    assert search.state(views.view(outcomes=(refused, other)))["refusal"] == "mine"
    assert search.state(views.view(outcomes=(refused, replace(refused, ok=True))))["refusal"] == ""


# --- the table


def test_the_table_has_every_trial_the_best_first():
    found = views.search()
    runs = tuple(views.branch(trial.run, "main", 400, [1.0]) for trial in found.trials[1:])
    state = search.state(views.view(search=found, runs=(*views.view().runs, *runs)))["found"]
    assert state["heads"] == ["trial", "val_loss", "lr", "dropout", "clip_norm", "steps", "run", "ended early"]
    assert [row["number"] for row in state["rows"]] == [trial.number for trial in found.trials]
    first, last = state["rows"][0], state["rows"][-1]
    assert state["best"] == first["number"] and not first["able"], "its run was deleted"
    assert all(row["able"] for row in state["rows"][1:])
    best = found.trials[0]
    assert first["cells"][0] == f"{best.score:.3g}" and first["cells"][4:] == ["40", best.run, ""]
    assert last["cells"][0] == last["cells"][-1] == "not finite"
    assert {row["cells"][3] for row in state["rows"]} == {"off", "0.5", "1"}
    assert "val_loss, lower is better" in state["about"] and "ended early" in state["about"]


def test_what_was_ended_early_is_not_the_best():
    trials = ranked((views.trial(1, 0.5), views.trial(2, 0.1, ended="worse than the median")), True)
    assert [trial.number for trial in trials] == [1, 2]
    ended = SearchResult("loss", True, tuple(t for t in trials if t.ended), {"lr": [0.1]}, planned=1)
    assert search.state(views.view(search=ended))["found"]["best"] is None
    assert search.readout(ended) == "no trial went to its end"


def test_a_journal_from_disk_shows_it_and_offers_nothing():
    state = search.state(views.view(stored=True, search=views.search()))
    assert state["stored"] and not any(row["able"] or row["in_model"] for row in state["found"]["rows"])
    assert "search: 24 trials, best lr" in fallback.text(views.view(stored=True, search=views.search()))


# --- the picture


def test_every_trial_is_a_line_at_the_places_of_its_values():
    found = views.search()
    lr, dropout, clip, score = axes(found)
    for index, trial in enumerate(found.trials):
        assert lr.places[index] == pytest.approx((math.log10(trial.setting["lr"]) + 4) / 4)
        assert dropout.places[index] == pytest.approx(trial.setting["dropout"] / 0.5)
        assert clip.places[index] == {None: 0.0, 0.5: 0.5, 1.0: 1.0}[trial.setting["clip_norm"]]
    assert [text for _, text in lr.ticks] == ["1e-4", "1e-3", "0.01", "0.1", "1"]
    assert [text for _, text in clip.ticks] == ["off", "0.5", "1"]
    finite = [t.score for t in found.trials if not math.isnan(t.score)]
    best, bottom = min(finite), min(finite) + 3 * (np.median(finite) - min(finite))
    for trial, place in zip(found.trials, score.places, strict=True):
        expected = LOST if math.isnan(trial.score) else max(0.0, 1 - (trial.score - best) / (bottom - best))
        assert place == pytest.approx(expected, abs=1e-12)
    ticks = dict(score.ticks)
    assert ticks[LOST] == "not finite" and ticks[0.0] == f"≥ {bottom:.3g}" and ticks[1.0] == f"{best:.3g}"


def test_lines_are_grouped_by_score_ended_and_lost():
    found = views.search()
    drawing = SearchPanel().draw(views.view(search=found))
    shown = {}
    for name in LOOKS:
        x, y = drawing.arrays[name, "x"], drawing.arrays[name, "y"]
        assert np.array_equal(np.isnan(x), np.isnan(y))
        shown[name] = y.reshape(-1, 5)[:, :4].tolist() if y.size else []
        assert not x.size or x.reshape(-1, 5)[:, :4].tolist() == [[0, 1, 2, 3]] * len(shown[name])
    assert sum(map(len, shown.values())) == 24
    assert len(shown["lost"]) == 1 and len(shown["ended"]) == sum(t.ended.startswith("worse") for t in found.trials)
    for index, tone in enumerate(TONES):
        assert all(1 - (index + 1) / 5 - 1e-9 <= line[-1] <= 1 - index / 5 for line in shown[tone])
    meta = drawing.layout["meta"]
    assert meta["numbers"] == [trial.number for trial in found.trials] and len(meta["lines"]) == 24
    assert drawing.readout.startswith("best trial ")
    assert {trace.name for trace in SearchPanel().skeleton(views.view(search=found)).data} == set(LOOKS)
    json.dumps(dict(drawing.layout), allow_nan=False)


def test_where_higher_is_better_the_highest_is_at_the_top():
    trials = tuple(views.trial(i, score) for i, score in enumerate([0.7, 0.9, 0.8], 1))
    found = SearchResult("val_accuracy", False, ranked(trials, False), {"lr": [0.01]}, planned=3)
    assert [trial.number for trial in found.trials] == [2, 3, 1]
    assert axes(found)[-1].places.tolist() == pytest.approx([1.0, 0.5, 0.0])


ODD = {
    "one trial": ((views.trial(),), {"lr": [0.01]}),
    "one that is not finite": ((views.trial(1, math.nan),), {"lr": [0.01]}),
    "all alike": ((views.trial(1, 0.5), views.trial(2, 0.5)), {"lr": [0.01, 0.02]}),
    "hostile": ((views.trial(setting={"<img src=x>": "<b>"}),), {"<img src=x>": ["<b>", "a" * 80]}),
    "switches and groups": (
        (Trial(Changes(), "a", 1.0, 3, "", 1, {"nesterov": True, "lr": {"body": 0.1}, "betas": (0.9, 0.99)}),),
        {"nesterov": [True, False], "lr": [{"body": 0.1}, 0.2], "betas": [(0.9, 0.99)]},
    ),
    "far apart": (tuple(views.trial(i, 10.0 ** (3 * i)) for i in range(1, 9)), {"lr": (1e-30, 1e30)}),
    "a knob that is missing": ((views.trial(),), {"lr": (0.001, 0.1), "gone": [1, 2], "other": (0, 1)}),
}


@pytest.mark.parametrize(("trials", "space"), ODD.values(), ids=ODD)
def test_odd_searches_are_drawn(trials, space):
    view = views.view(search=SearchResult("loss", True, trials, space, planned=9, note="called off"))
    drawing = SearchPanel().draw(view)
    json.dumps([dict(drawing.layout), search.state(view)], allow_nan=False)
    assert all(0 <= place <= 1 or place == LOST for line in drawing.layout["meta"]["lines"] for place in line)
    assert not any("<" in note["text"].replace("&lt;", "") for note in drawing.layout["annotations"])


def test_before_any_search_and_any_trial_it_says_so():
    assert "no search was made yet" in SearchPanel().draw(views.view()).empty
    empty = replace(views.search(), trials=())
    assert "first trial is under way" in SearchPanel().draw(views.view(search=empty)).empty
    called_off = replace(empty, note="ended after 0 of 24 trials: called off")
    assert SearchPanel().draw(views.view(search=called_off)).empty == called_off.note


def test_the_picture_is_drawn_again_only_for_another_search():
    view = views.view(search=views.search())
    assert SearchPanel().inputs(view) == SearchPanel().inputs(replace(view, status=Status(step=9)))
    picture = Painter(default_panels()).paint(view, whole=True)
    assert ("search", "figure") in picture and picture["searching",]["found"]["rows"]


# --- what a browser may ask for


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, Search({"lr": [0.1, 0.01]}, 2, measure="val_loss", lower_is_better=True)),
        (
            {"space": {"lr": {"low": 1e-4, "high": 1}, "clip_norm": [None, 0.5], "nesterov": [True]}, "trials": 9,
             "by_epochs": False, "engine": "optuna", "seed": 3, "lower": False, "prune": False, "measure": ""},
            Search({"lr": (1e-4, 1), "clip_norm": [None, 0.5], "nesterov": [True]}, None, 2, 9, 3, "", False, False,
                   "optuna"),
        ),
        ({"space": {"batch_size": {"low": 8, "high": 64}}, "trials": 2},
         Search({"batch_size": (8, 64)}, 2, trials=2, measure="val_loss", lower_is_better=True)),
    ],
)  # fmt: skip
def test_a_search_is_asked_for(changes, command):
    asked = messages.decode({**MESSAGE, **changes})
    assert asked == command
    assert all(type(a) is type(b) for a, b in zip(asked.space.values(), command.space.values(), strict=True))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"space": {}}, "no mapping of a few knobs"),
        ({"space": {str(i): [1] for i in range(33)}}, "no mapping of a few knobs"),
        ({"space": {"lr": []}}, "neither a list nor a range"),
        ({"space": {"lr": [0.1] * 501}}, "neither a list nor a range"),
        ({"space": {"lr": "0.1"}}, "neither a list nor a range"),
        ({"space": {"lr": ["0.1"]}}, "is no number"),
        ({"space": {"lr": [math.inf]}}, "is not between"),
        ({"space": {"lr": {"low": 1, "high": 1}}}, "is not below"),
        ({"space": {"lr": {"low": 1}}}, "is no number"),
        ({"length": 0}, "is not between"),
        ({"length": 1.5}, "no whole number"),
        ({"by_epochs": 1}, "neither true nor false"),
        ({"trials": 501}, "is not between"),
        ({"engine": "hyperband"}, "is not known"),
        ({"lower": None}, "neither true nor false"),
        ({"seed": -1}, "is not between"),
    ],
)
def test_nonsense_is_ignored_and_logged(changes, complaint, caplog):
    assert messages.decode({**MESSAGE, **changes}) is None
    assert complaint in caplog.text
