"""A browser's messages become commands; nonsense becomes a line in the log."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbdebug.dashboard import controls, findings, messages, runbar, runs
from nbdebug.dashboard.fallback import text
from nbdebug.dashboard.picture import Painter, default_panels
from nbdebug.records.commands import (
    AddBreakpoint,
    Changes,
    Checkout,
    Clip,
    ClipMode,
    Compare,
    DeleteRun,
    DropSnapshot,
    EditBreakpoint,
    EditRun,
    FindLr,
    InitScheme,
    Outcome,
    Pause,
    PostMortem,
    Reinitialize,
    RemoveBreakpoint,
    Rerun,
    Resume,
    Rewind,
    SetKnobs,
    Skip,
    Start,
    StartPoint,
    Step,
    Stop,
    TakeSnapshot,
)
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.status import GroupRate, State, Status
from tests.dashboard import views


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ({"command": "run"}, Start()),
        ({"command": "pause"}, Pause()),
        ({"command": "resume"}, Resume()),
        ({"command": "step"}, Step()),
        ({"command": "epoch"}, Start(epochs=1)),
        ({"command": "stop"}, Stop()),
        ({"command": "set_lr", "value": 0.01, "group": ""}, SetKnobs(Changes(lr=0.01))),
        ({"command": "set_lr", "value": 1, "group": "head"}, SetKnobs(Changes(lr={"head": 1.0}))),
        ({"command": "find_lr", "low": 1e-6, "high": 1, "steps": 50}, FindLr(1e-6, 1.0, 50)),
        ({"command": "post_mortem"}, PostMortem()),
        ({"command": "set_clip", "mode": "norm", "threshold": 2}, SetKnobs(Changes(clip=Clip(ClipMode.NORM, 2.0)))),
        ({"command": "set_clip", "mode": "off", "threshold": 0}, SetKnobs(Changes(clip=Clip(ClipMode.OFF, 0.0)))),
        ({"command": "set_dropout", "value": 0.3, "layer": ""}, SetKnobs(Changes(dropout=0.3))),
        ({"command": "set_dropout", "value": 0, "layer": "drop"}, SetKnobs(Changes(dropout={"drop": 0.0}))),
        ({"command": "reinitialize", "scheme": "orthogonal", "seed": 3}, Reinitialize(InitScheme.ORTHOGONAL, 3)),
        (
            {"command": "rerun", "start": "last_epoch", "epochs": 2},
            Rerun(StartPoint.LAST_EPOCH, epochs=2, keep_knobs=True),
        ),
        ({"command": "rerun", "start": "here", "epochs": 1}, Rerun(StartPoint.HERE, epochs=1, keep_knobs=True)),
        ({"command": "rerun", "start": "best", "epochs": 1}, Rerun(StartPoint.BEST, epochs=1, keep_knobs=True)),
        ({"command": "checkout", "run": "main"}, Checkout("main")),
        ({"command": "checkout", "snapshot": "main@40"}, Checkout(snapshot="main@40")),
        ({"command": "rewind", "step": 0}, Rewind(0)),
        ({"command": "rewind", "step": 1240}, Rewind(1240)),
        ({"command": "compare", "run": "b", "seeds": 12}, Compare("b", 12)),
        ({"command": "edit_run", "run": "b", "title": " calm  er\n"}, EditRun("b", title="calm er")),
        ({"command": "edit_run", "run": "b", "title": ""}, EditRun("b", title="")),
        ({"command": "edit_run", "run": "b", "note": "a\nb "}, EditRun("b", note="a\nb")),
        ({"command": "edit_run", "run": "b", "pinned": False}, EditRun("b", pinned=False)),
        ({"command": "delete_run", "run": "b"}, DeleteRun("b")),
        ({"command": "take_snapshot", "name": " lunch "}, TakeSnapshot("lunch")),
        ({"command": "take_snapshot"}, TakeSnapshot()),
        ({"command": "drop_snapshot", "name": "lunch"}, DropSnapshot("lunch")),
        ({"command": "skip"}, Skip()),
        ({"command": "add_breakpoint", "condition": " loss > 2.5\n"}, AddBreakpoint("loss > 2.5")),
        ({"command": "add_breakpoint", "condition": "x" * 1000}, AddBreakpoint("x" * 1000)),
        ({"command": "edit_breakpoint", "number": 3, "enabled": False}, EditBreakpoint(3, False)),
        ({"command": "remove_breakpoint", "number": 1}, RemoveBreakpoint(1)),
    ],
)
def test_every_message_has_its_command(message, command):
    assert messages.decode({"type": "command", "view": "v", **message}) == command


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (None, "not a mapping"),
        ("run", "not a mapping"),
        ({}, "unknown command None"),
        ({"command": "format_disk"}, "unknown command"),
        ({"command": ["run"]}, "unknown command"),
        ({"command": "set_lr"}, "is no number"),
        ({"command": "set_lr", "value": True}, "is no number"),
        ({"command": "set_lr", "value": "1e-3"}, "is no number"),
        ({"command": "set_lr", "value": float("nan")}, "is not between"),
        ({"command": "set_lr", "value": float("inf")}, "is not between"),
        ({"command": "set_lr", "value": -1}, "is not between"),
        ({"command": "set_lr", "value": 1, "group": 7}, "is no text"),
        ({"command": "find_lr", "low": 1e-6, "high": 1}, "steps None is no number"),
        ({"command": "find_lr", "low": 0, "high": 1, "steps": 50}, "is not between"),
        ({"command": "find_lr", "low": 1, "high": 1, "steps": 50}, "low 1 is not below high 1"),
        ({"command": "find_lr", "low": 1e-6, "high": 1, "steps": 9}, "is not between"),
        ({"command": "find_lr", "low": 1e-6, "high": 1, "steps": 50.5}, "no whole number"),
        ({"command": "set_clip", "mode": "sideways", "threshold": 1}, "is not known"),
        ({"command": "set_clip", "mode": "norm", "threshold": 0}, "no gradient"),
        ({"command": "set_dropout", "value": 1.5}, "is not between"),
        ({"command": "reinitialize", "scheme": "orthogonal", "seed": 1.5}, "no whole number"),
        ({"command": "reinitialize", "scheme": [], "seed": 1}, "is no text"),
        ({"command": "rerun", "start": "start", "epochs": 0}, "is not between"),
        ({"command": "checkout"}, "no run named"),
        ({"command": "checkout", "snapshot": ""}, "no snapshot named"),
        ({"command": "checkout", "run": "x" * 1001}, "1,000 are the most"),
        ({"command": "rewind"}, "is no number"),
        ({"command": "rewind", "step": -1}, "is not between"),
        ({"command": "rewind", "step": 1.5}, "no whole number"),
        ({"command": "rewind", "step": True}, "is no number"),
        ({"command": "rerun", "start": "main", "epochs": 1}, "is not known"),
        ({"command": "compare", "run": "b", "seeds": 2}, "is not between"),
        ({"command": "compare", "run": "b", "seeds": 13}, "is not between"),
        ({"command": "compare", "seeds": 6}, "no run named"),
        ({"command": "edit_run", "run": "b"}, "nothing to edit"),
        ({"command": "edit_run", "run": "b", "title": "x" * 201}, "200 are the most"),
        ({"command": "edit_run", "run": "b", "note": "x" * 2001}, "2,000 are the most"),
        ({"command": "edit_run", "run": "b", "title": None}, "is no text"),
        ({"command": "edit_run", "run": "b", "pinned": 1}, "neither true nor false"),
        ({"command": "edit_run", "title": "x"}, "no run named"),
        ({"command": "delete_run", "run": 3}, "is no text"),
        ({"command": "take_snapshot", "name": 3}, "is no text"),
        ({"command": "drop_snapshot", "name": ""}, "no name named"),
        ({"command": "add_breakpoint"}, "no condition named"),
        ({"command": "add_breakpoint", "condition": " "}, "no condition named"),
        ({"command": "add_breakpoint", "condition": 3}, "is no text"),
        ({"command": "add_breakpoint", "condition": "x" * 1001}, "1,000 are the most"),
        ({"command": "edit_breakpoint", "number": 0, "enabled": True}, "is not between"),
        ({"command": "edit_breakpoint", "number": True, "enabled": True}, "is no number"),
        ({"command": "edit_breakpoint", "number": 1, "enabled": 1}, "neither true nor false"),
        ({"command": "remove_breakpoint"}, "is no number"),
        ({"command": "remove_breakpoint", "number": 1.5}, "no whole number"),
    ],
)
def test_nonsense_is_ignored_and_logged(message, complaint, caplog):
    assert messages.decode(message) is None
    assert complaint in caplog.text


def test_the_line_under_the_rate_says_what_is_in_force():
    rates = controls.state(views.view())["lr"]
    assert rates["note"] == "in force 2.1e-3 (cosine × 0.7)"
    view = views.view()
    groups = (GroupRate("body", 1e-3, 1e-3), GroupRate("head", 1e-2, 1e-2))
    two = controls.state(replace(view, knobs=replace(view.knobs, groups=groups)))["lr"]
    assert two["note"] == "in force body 1.0e-3, head 1.0e-2"


def test_no_dropout_is_said():
    view = views.view()
    state = controls.state(replace(view, knobs=replace(view.knobs, dropout=())))
    assert state["dropout"] == {"layers": [], "note": "no dropout layer in this model"}


def test_a_rerun_predicts_its_time_once_the_pace_is_known():
    assert controls.state(views.view())["rerun"]["epoch_s"] == 2.0
    assert controls.state(views.view(status=Status()))["rerun"]["epoch_s"] is None


def test_a_refusal_is_the_last_outcome():
    outcomes = (Outcome(Pause(), "main", 3, True, "paused"), Outcome(Step(), "main", 4, False, "not now"))
    shown = controls.outcome(views.view(outcomes=outcomes))
    assert (shown["text"], shown["ok"]) == ("not now", False)


@pytest.mark.parametrize(
    ("status", "word", "toggle", "enabled"),
    [
        (Status(), "idle", "Run", {"step", "epoch"}),
        (Status(State.RUNNING), "running", "Pause", {"stop"}),
        (Status(State.PAUSED), "paused", "Resume", {"step", "epoch", "stop"}),
        (Status(State.STOPPING), "stopping", "Pause", set()),
        (Status(State.REWINDING), "rewinding", "Resume", set()),
        (Status(State.FAILED), "failed", "Run", {"step", "epoch"}),
        (Status(State.IDLE, epoch=3, step=30, goal_epoch=3), "finished", "Run", {"step", "epoch"}),
    ],
)
def test_buttons_follow_the_state(status, word, toggle, enabled):
    bar = runbar.state(views.view(status=status))
    assert (bar["state"], bar["buttons"]["toggle"]["label"]) == (word, toggle)
    assert {name for name in ("step", "epoch", "stop") if bar["buttons"][name]} == enabled


def test_the_run_in_the_model_is_said_everywhere():
    view = views.view(runs=(views.run(train=[1.0]), views.run("b", [2.0])), status=Status(run="b", step=1))
    assert runbar.state(view)["model"] == "b"
    assert [(row["name"], row["in_model"]) for row in runs.state(view)["rows"]] == [("b", True), ("main", False)]
    assert "in the model: b" in text(view)


def test_the_worst_finding_comes_first_else_they_stand_as_they_were_ranked():
    made = [
        Finding(Cause.NAN_LOSS, severity, "main", step, f"{severity} {step}", "why")
        for step, severity in enumerate([Severity.INFO, Severity.CRITICAL, Severity.WARNING, Severity.CRITICAL])
    ]
    shown = findings.state(made)
    assert [card["title"] for card in shown["cards"]] == ["critical 1", "critical 3", "warning 2", "info 0"]
    assert shown["summary"] == "2 critical, 1 warning, 1 note"


def test_a_finding_names_its_run_by_its_title():
    made = Finding(Cause.NAN_LOSS, Severity.INFO, "lr 0.02", 4, "what", "why")
    picture = Painter(default_panels()).paint(views.forest(findings=(made,)))
    assert picture[("findings",)]["cards"][0]["where"] == "calmer, step 4"


def test_the_text_has_the_numbers():
    said = text(
        views.view(findings=(Finding(Cause.NAN_LOSS, Severity.CRITICAL, "main", 2, "Loss is NaN", "Because."),))
    )
    for part in ("running", "step 3", "train 1", "lr all 2.1e-3", "critical: Loss is NaN. Because.", "3 layers"):
        assert part in said
    assert "no dropout" not in said


def test_a_single_step_does_not_turn_resume_into_pause():
    for stepping, label in ((True, "Resume"), (False, "Pause")):
        status = Status(state=State.RUNNING, step=5, stepping=stepping)
        assert runbar.state(views.view(status=status))["buttons"]["toggle"]["label"] == label
