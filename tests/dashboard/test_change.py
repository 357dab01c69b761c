"""The tab that changes optimizer, schedule and layers, as the browser is told of it, and the messages that it sends."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from nbdebug.dashboard import change, controls, messages
from nbdebug.dashboard.picture import Painter, default_panels
from nbdebug.records.commands import (
    Changes,
    Clip,
    ClipMode,
    Command,
    EditNorms,
    Foretell,
    Freeze,
    Outcome,
    Pause,
    Press,
    Rewind,
    SetAverage,
    SetKnobs,
    SetSchedule,
    SwapActivations,
    SwapOptimizer,
    Undo,
)
from nbdebug.records.optimizers import OptimizerKind
from nbdebug.records.schedules import NEEDS_TOTAL, Schedule, ScheduleKind
from nbdebug.records.status import AverageTaken, KnobStates, OwnKnob, State, Status
from nbdebug.records.view import OwnPanel
from tests.dashboard import views

EVIL = "<img src=x onerror=alert(1)>"
DECAY = SetKnobs(Changes(options={"weight_decay": 0.01}))
OWN = SetKnobs(Changes(own={"temperature": 0.5}))
PNG = change.PNG + b"\x1a\n rest"


def outcome(command: Command, text: str = "done", *, ok: bool = True) -> Outcome:
    return Outcome(command, "main", 3, ok, text)


# --- messages


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ({"command": "set_option", "name": "weight_decay", "value": 0.01, "group": ""}, DECAY),
        (
            {"command": "set_option", "name": "beta1", "value": 0.5, "group": "head"},
            SetKnobs(Changes(options={"beta1": {"head": 0.5}})),
        ),
        ({"command": "set_option", "name": "amsgrad", "value": True}, SetKnobs(Changes(options={"amsgrad": True}))),
        ({"command": "set_own", "name": "temperature", "value": 0.5}, OWN),
        ({"command": "swap_optimizer", "kind": "AdamW"}, SwapOptimizer("AdamW")),
        ({"command": "swap_optimizer", "kind": "SGD", "lr": 0.1}, SwapOptimizer("SGD", 0.1)),
        ({"command": "swap_optimizer", "kind": "SGD", "lr": None}, SwapOptimizer("SGD")),
        ({"command": "freeze", "layers": ["a"], "hold": True}, Freeze(True, ("a",), True)),
        ({"command": "remove_norms", "layers": [], "fold": True}, EditNorms(False, (), True)),
        ({"command": "average", "kind": "ema", "decay": 0.99}, SetAverage("ema", 0.99)),
        ({"command": "average", "kind": "swa", "decay": 0.5}, SetAverage("swa")),
        ({"command": "average", "kind": "", "decay": 0.5}, SetAverage("")),
        ({"command": "set_more", "name": "batch_size", "value": 64, "part": ""}, SetKnobs(Changes(batch_size=64))),
        ({"command": "set_more", "name": "accumulate", "value": 4.0, "part": ""}, SetKnobs(Changes(accumulate=4))),
        (
            {"command": "set_more", "name": "label_smoothing", "value": 0.1, "part": ""},
            SetKnobs(Changes(label_smoothing=0.1)),
        ),
        (
            {"command": "set_more", "name": "loss_weights", "value": -2, "part": "l2"},
            SetKnobs(Changes(loss_weights={"l2": -2})),
        ),
        (
            {"command": "set_layer_clip", "layer": "fc1", "mode": "value", "threshold": 0.5},
            SetKnobs(Changes(layer_clips={"fc1": Clip(ClipMode.VALUE, 0.5)})),
        ),
        (
            {"command": "set_layer_clip", "layer": "fc1", "mode": "off", "threshold": 1},
            SetKnobs(Changes(layer_clips={"fc1": Clip()})),
        ),
        ({"command": "foretell"}, Foretell()),
        ({"command": "set_schedule", "kind": "none", "options": {}}, SetSchedule(None)),
        (
            {"command": "set_schedule", "kind": "cosine", "options": {"total": 10, "interval": "batch"}},
            SetSchedule(Schedule.of("cosine", total=10, interval="batch")),
        ),
        ({"command": "set_schedule", "kind": "step"}, SetSchedule(Schedule.of("step"))),
        ({"command": "swap_activation", "kind": "gelu", "layers": []}, SwapActivations("gelu")),
        ({"command": "swap_activation", "kind": "gelu", "layers": ["a.b"]}, SwapActivations("gelu", ("a.b",))),
        ({"command": "freeze", "layers": ["a", "b"]}, Freeze(True, ("a", "b"))),
        ({"command": "unfreeze", "layers": []}, Freeze(False)),
        ({"command": "insert_norms", "layers": ["a"]}, EditNorms(True, ("a",))),
        ({"command": "remove_norms"}, EditNorms(False)),
        ({"command": "press", "name": "save"}, Press("save")),
        ({"command": "undo"}, Undo()),
    ],
)
def test_every_message_has_its_command(message, command):
    assert messages.decode({"type": "command", "view": "v", **message}) == command


def test_a_whole_number_stays_one():
    decoded = messages.decode({"command": "set_option", "name": "ns_steps", "value": 5, "group": ""})
    assert isinstance(decoded, SetKnobs) and decoded.changes.options is not None
    assert type(decoded.changes.options["ns_steps"]) is int


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"command": "set_option", "value": 1}, "no name named"),
        ({"command": "set_option", "name": "eps", "value": "1"}, "is no number"),
        ({"command": "set_option", "name": "eps", "value": float("nan")}, "is not between"),
        ({"command": "set_option", "name": "eps", "value": 10**400}, "is not between"),
        ({"command": "set_option", "name": "eps", "value": 1, "group": 3}, "is no text"),
        ({"command": "set_own", "name": "t", "value": True}, "is no number"),
        ({"command": "set_own", "value": 1}, "no name named"),
        ({"command": "swap_optimizer", "kind": "Lion"}, "is not known"),
        ({"command": "swap_optimizer", "kind": "SGD", "lr": -1}, "is not between"),
        ({"command": "set_schedule", "options": {}}, "no kind named"),
        ({"command": "set_schedule", "kind": "cosin", "options": {}}, "did you mean 'cosine'"),
        ({"command": "set_schedule", "kind": "cosine", "options": {}}, "needs total"),
        ({"command": "set_schedule", "kind": "cosine", "options": {"total": 4, "warmup_steps": 4}}, "leaves nothing"),
        ({"command": "set_schedule", "kind": "step", "options": [1]}, "are no mapping"),
        ({"command": "set_schedule", "kind": "step", "options": {"kind": "step"}}, "no such schedule"),
        ({"command": "set_schedule", "kind": "step", "options": {str(i): 1 for i in range(33)}}, "are no mapping"),
        ({"command": "set_schedule", "kind": "step", "options": {"every": float("inf")}}, "whole number"),
        ({"command": "swap_activation", "layers": []}, "no kind named"),
        ({"command": "swap_activation", "kind": "gelu", "layers": "a"}, "no list of names"),
        ({"command": "freeze", "layers": [3]}, "one that is no name"),
        ({"command": "freeze", "layers": [""]}, "one that is no name"),
        ({"command": "insert_norms", "layers": ["x" * 1001]}, "one that is no name"),
        ({"command": "press"}, "no name named"),
        ({"command": "freeze", "layers": [], "hold": 1}, "neither true nor false"),
        ({"command": "remove_norms", "layers": [], "fold": "yes"}, "neither true nor false"),
        ({"command": "average", "kind": "median", "decay": 0.9}, "is no average"),
        ({"command": "average", "kind": "ema", "decay": 1}, "is no average"),
        ({"command": "set_more", "name": "lr", "value": 1, "part": ""}, "is not known"),
        ({"command": "set_more", "name": "batch_size", "value": 1.5, "part": ""}, "no whole number"),
        ({"command": "set_more", "name": "batch_size", "value": 0, "part": ""}, "is not between"),
        ({"command": "set_more", "name": "gradient_noise", "value": "a", "part": ""}, "is no number"),
        ({"command": "set_layer_clip", "layer": "", "mode": "norm", "threshold": 1}, "no layer named"),
        ({"command": "set_layer_clip", "layer": "a", "mode": "max", "threshold": 1}, "is not known"),
    ],
)
def test_nonsense_is_ignored_and_logged(message, complaint, caplog):
    assert messages.decode(message) is None
    assert complaint in caplog.text


# --- what the tab shows


def test_options_have_their_ranges_values_and_reasons():
    state = change.state(views.view(knobs=views.knobs(groups=2)), ("layer0",))
    options = {each["name"]: each for each in state["optimizer"]["options"]}
    assert options["beta1"]["values"] == [["body", 0.9], ["head", 0.5]]
    assert (options["beta1"]["in_force"], options["beta1"]["differ"]) == ("0.9 / 0.5", True)
    assert (options["beta1"]["low"], options["beta1"]["high"], options["beta1"]["high_open"]) == (0.0, 1.0, True)
    assert (options["eps"]["in_force"], options["eps"]["differ"], options["eps"]["high"]) == ("1e-08", False, None)
    assert (options["amsgrad"]["switch"], options["amsgrad"]["in_force"]) == (True, "off / on")
    assert options["momentum"]["fixed"] == "is written by the schedule at each step"
    assert options["weight_decay"]["title"] == "what weight_decay does; acts from the next update on"
    assert (state["optimizer"]["name"], state["groups"]) == ("AdamW", ["body", "head"])
    assert state["optimizer"]["kinds"] == list(OptimizerKind)
    assert state["layers"]["names"] == ["layer0"] and state["layers"]["frozen"] == ["layer1"]
    json.dumps(state, allow_nan=False)


def test_every_kind_of_schedule_is_offered_and_its_defaults_make_one():
    schedule = change.state(views.view())["schedule"]
    kinds = {each["name"]: each for each in schedule["kinds"]}
    assert list(kinds) == ["none", *ScheduleKind]
    for kind in ScheduleKind:
        asked = {each["name"]: each["usual"] for each in kinds[kind]["parameters"]}
        asked |= {each["name"]: each["usual"] for each in schedule["warm_up"]} if kinds[kind]["warm_up"] else {}
        asked |= {"total": schedule["lengths"]["epoch"]} if kinds[kind]["total"] else {}
        assert kinds[kind]["total"] == (kind in NEEDS_TOTAL)
        assert Schedule.of(kind, **json.loads(json.dumps(asked))).kind is kind
    assert (schedule["name"], schedule["rate"]) == ("cosine", 3e-3)


@pytest.mark.parametrize(
    ("status", "lengths"),
    [
        (Status(goal_epoch=10, epoch=4, batches=50), {"epoch": 6, "batch": 300}),
        (Status(goal_epoch=10, epoch=10, batches=50), {"epoch": 10, "batch": 500}),
        (Status(), {"epoch": 10, "batch": 1000}),
    ],
)
def test_a_schedule_is_as_long_as_what_is_left(status, lengths):
    assert change.state(views.view(status=status))["schedule"]["lengths"] == lengths


def test_each_part_has_the_latest_answer_to_what_was_asked_there():
    refused = outcome(SwapOptimizer("SGD"), "- a\n- b", ok=False)
    asked = (outcome(DECAY), refused, outcome(OWN, "temperature 0.5"), outcome(Pause()))
    state = change.state(views.view(outcomes=asked))
    assert state["optimizer"]["answer"] == {"ok": False, "text": "- a\n- b", "where": "main, step 3"}
    assert state["own"]["answer"]["text"] == "temperature 0.5"
    assert state["schedule"]["answer"] is None
    parts = [SwapActivations("relu"), Freeze(True), EditNorms(True), SetSchedule(None), Press("x")]
    state = change.state(views.view(outcomes=[*asked, *(outcome(each, str(i)) for i, each in enumerate(parts))]))
    answers = state["layers"]["answers"]
    assert [answers[name]["text"] for name in ("activation", "freeze", "norms")] == ["0", "1", "2"]
    assert (state["schedule"]["answer"]["text"], state["own"]["answer"]["text"]) == ("3", "4")


def test_an_average_and_knobs_of_data_and_gradients_are_told_with_what_they_can_t_do():
    state = change.state(views.view(knobs=views.knobs()))
    assert state["average"]["text"] == "none is taken" and state["average"]["kind"] == ""
    knobs = views.knobs(
        batch_size=32, accumulate=4, accumulated=1, why_not_label_smoothing="the loss is yours",
        loss_weights=(("ce", 1.0),), average=AverageTaken("swa", 3, every=5), schedule_text="cosine per epoch",
        layer_clips=(("fc1", Clip(ClipMode.NORM, 0.5)), ("fc2", Clip())),
    )  # fmt: skip
    state = change.state(views.view(knobs=knobs))
    assert state["average"]["text"] == "SWA, every 5 steps, of 3 weights so far"
    assert state["schedule"]["text"] == "cosine per epoch" and state["schedule"]["name"] == "CosineAnnealingLR"
    numbers = {each["label"]: each for each in state["more"]["numbers"]}
    assert list(numbers) == ["batch size", "accumulate", "label smoothing", "gradient noise", "weight of ce"]
    assert (numbers["batch size"]["value"], numbers["batch size"]["fixed"]) == (32, "")
    assert numbers["accumulate"]["note"] == "1 of 4 batches done"
    assert (numbers["label smoothing"]["value"], numbers["label smoothing"]["fixed"]) == (None, "the loss is yours")
    assert numbers["weight of ce"]["part"] == "ce" and numbers["weight of ce"]["low"] is None
    assert state["more"]["clips"] == [["fc1", "norm 0.5"]]
    asked = (outcome(SetKnobs(Changes(batch_size=8)), "batch size 8"), outcome(SetAverage("ema"), "on"), outcome(DECAY))
    state = change.state(views.view(outcomes=asked))
    assert (state["more"]["answer"]["text"], state["average_answer"]["text"]) == ("batch size 8", "on")
    json.dumps(state, allow_nan=False)


def test_the_next_step_is_told_as_long_as_training_rests():
    paused = replace(views.view().status, state=State.PAUSED, step=400)
    state = controls.state(views.view(status=paused, forecast=views.forecast(), knobs=views.knobs()))["next"]
    assert state["shown"] and not state["refusal"]
    assert state["lines"][0] == "update : weight 3.1e-3 (was 1.0e-3)"
    same = views.forecast(ratios_now=views.forecast().ratios, clipped=float("nan"))
    assert controls.state(views.view(status=paused, forecast=same))["next"]["lines"] == [
        "update : weight 3.1e-3", "at most 2.4e-2, in layer2", "loss 0.412",
    ]  # fmt: skip
    refused = Outcome(Foretell(), "main", 400, False, "no batch left")
    assert controls.state(views.view(status=paused, outcomes=(refused,)))["next"]["refusal"] == "no batch left"
    elsewhere = views.view(status=replace(paused, step=401), outcomes=(refused,))
    assert controls.state(elsewhere)["next"]["refusal"] == ""
    for view in (views.view(), views.view(stored=True, status=paused)):
        assert not controls.state(view)["next"]["shown"]


def test_odd_knobs_do_no_harm():
    odd = (OwnKnob("a", float("nan"), 0, 1), OwnKnob("b", 0.5, 0.0, 1.0, log=True))
    knobs = replace(views.knobs(options=(views.option(values=(float("inf"),)),)), own=odd)
    state = change.state(views.view(knobs=knobs))
    assert [(knob["name"], knob["log"]) for knob in state["own"]["knobs"]] == [("b", False)]
    assert state["optimizer"]["options"][0]["values"] == [["all", None]]
    nothing = KnobStates((), "", views.view().knobs.clip, ())
    assert change.state(views.view(knobs=nothing, stored=True))["schedule"]["rate"] is None


def test_undo_says_what_it_takes_back_as_far_as_that_is_known():
    general = "take the latest change back"
    assert controls.state(views.view())["undo"] == {"able": True, "title": general}
    assert change.undo(views.view(outcomes=(outcome(DECAY),)))["title"] == f"{general}: weight_decay 0.01"
    for later in (Undo(), Rewind(2)):
        assert change.undo(views.view(outcomes=(outcome(DECAY), outcome(later))))["title"] == general
    assert change.undo(views.view(outcomes=(outcome(DECAY), outcome(OWN, ok=False))))["title"].endswith("decay 0.01")
    assert not change.undo(views.view(runs=()))["able"]


# --- the user's panels


def test_panels_are_texts_or_pictures():
    text, picture = change.panels((OwnPanel("a", 3, EVIL), OwnPanel("b", 1200, "", PNG)))
    assert text == {"name": "a", "where": "epoch 3", "text": EVIL, "png": ""}
    assert base64.b64decode(picture["png"]) == PNG and picture["where"] == "epoch 1,200"


def test_what_is_too_long_or_no_png_is_said():
    large = PNG + bytes(change.LARGEST_PICTURE)
    shown = change.panels((OwnPanel("a", 1, "x" * 30_000), OwnPanel("b", 1, "", large), OwnPanel("c", 1, "", b"GIF")))
    assert len(shown[0]["text"]) == change.LONGEST_TEXT + 2
    assert shown[1]["text"] == "a picture of 4.0 MB is too large to be shown here" and not shown[1]["png"]
    assert shown[2]["text"] == "a picture that is no PNG" and not shown[2]["png"]


def test_panels_are_made_once_and_only_for_who_looks():
    painter = Painter(default_panels())
    view = views.view(panels=(OwnPanel("a", 3, "", PNG),), status=Status(State.PAUSED))
    painter._lens.open_tab("v", "layers")
    assert painter.paint(view)[("own",)] == []
    painter._lens.open_tab("v", change.CHANGE_TAB)
    first = painter.paint(view)[("own",)]
    assert [each["name"] for each in first] == ["a"]
    assert painter.paint(replace(view, status=Status()))[("own",)] is first
    assert painter.paint(replace(view, panels=()))[("own",)] == []
