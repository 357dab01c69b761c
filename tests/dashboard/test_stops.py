"""Breakpoints, stops within a step, origins of bad values, and the batch at hand, as the browser is told of them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nbdebug.dashboard import batch, breakpoints, controls, findings, origin, runbar
from nbdebug.dashboard.fallback import text
from nbdebug.dashboard.figures.loss import Loss
from nbdebug.dashboard.figures.over_time import OverTimePanel
from nbdebug.dashboard.lens import Lens
from nbdebug.dashboard.picture import Painter, default_panels
from nbdebug.records.commands import AddBreakpoint, Outcome, Pause
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.runs import Mark
from nbdebug.records.status import State, Status
from nbdebug.records.stops import CodeLine, Phase, Range
from tests.dashboard import views

EVIL = "<img src=x onerror=alert(1)>"
REFUSAL = "there is no signal los\n    los > 3\n    ^\nDid you mean loss?"


def refused(condition: str = "los > 3", **changes: Any) -> Outcome:
    return replace(Outcome(AddBreakpoint(condition), "main", 3, False, REFUSAL), **changes)


# --- breakpoints


def test_a_breakpoint_says_what_when_and_how_often():
    shown = views.breakpoint_on(hits=1203, note="always true", enabled=False)
    [item] = breakpoints.state(views.view(breakpoints=(shown,)))["items"]
    assert item == {
        "number": 1, "text": "loss > 2.5", "when": "before the update", "enabled": False, "hits": "×1,203",
        "note": "always true", "lit": False,
    }  # fmt: skip
    [item] = breakpoints.state(views.view(breakpoints=(replace(shown, before_update=False, hits=0),)))["items"]
    assert (item["when"], item["hits"]) == ("after the step", "")


def test_the_one_that_was_hit_is_lit():
    both = (views.breakpoint_on(), views.breakpoint_on(number=2))
    lit = [
        item["lit"] for item in breakpoints.state(views.view(breakpoints=both, stop=views.stop(breakpoint=2)))["items"]
    ]
    assert lit == [False, True]
    assert not any(item["lit"] for item in breakpoints.state(views.view(breakpoints=both))["items"])


def test_every_answer_has_its_own_number_even_where_old_ones_are_forgotten():
    answers, first, other = breakpoints.Answers(), refused(), Outcome(Pause(), "main", 3, True, "paused")
    assert answers.latest(views.view()) is None
    asked = answers.latest(views.view(outcomes=(first, other)))
    assert (asked["number"], asked["condition"], asked["ok"], asked["text"]) == (1, "los > 3", False, REFUSAL)
    assert answers.latest(views.view(outcomes=(first, other)))["number"] == 1
    assert answers.latest(views.view(outcomes=(refused(),)))["number"] == 2
    assert answers.latest(views.view(outcomes=(other,)))["number"] == 2


def test_the_line_under_the_controls_says_only_that_a_condition_was_refused():
    assert controls.outcome(views.view(outcomes=(refused(),)))["text"] == "there is no signal los"


@pytest.mark.parametrize(
    ("condition", "line"),
    [
        ("loss > 2.5", ("> 2.5", 2.5, "")),
        (" loss<=1e-3 ", ("< 0.001", 1e-3, "")),
        ("max(loss) >= -.5", ("max > -0.5", -0.5, "*")),
        ("min( loss ) < 3", ("min < 3", 3.0, "*")),
        ('loss["blocks.2"] > 1', ("> 1", 1.0, "blocks.2")),
        ("loss['a \"b\"'] > 1", ("> 1", 1.0, 'a "b"')),
        ("loss > 2 and step > 3", None),
        ("val_loss > 2", None),
        ("loss > 1e999", None),
        ("2 < loss", None),
        ("loss > median(loss, 20)", None),
        ("loss" * 2000, None),
    ],
)
def test_simple_conditions_are_lines_on_a_chart(condition, line):
    aims = breakpoints.aims(views.view(breakpoints=(views.breakpoint_on(condition),)), "loss")
    assert [(each["text"], each["value"], each["of"]) for each in aims["lines"]] == ([line] if line else [])
    assert aims["able"]


def test_charts_know_the_breakpoints_on_what_they_show():
    made = (views.breakpoint_on(), views.breakpoint_on("max(update_ratio) > 0.01", 2, enabled=False))
    view, lens = views.view(breakpoints=made), Lens()
    on_loss = Loss().draw(view).layout["meta"]["breaks"]
    assert (on_loss["trace"], [line["value"] for line in on_loss["lines"]]) == ("main train", [2.5])
    assert [line["enabled"] for line in OverTimePanel(lens).draw(view).layout["meta"]["breaks"]["lines"]] == [False]
    for panel in (Loss(), OverTimePanel(lens)):
        assert panel.inputs(view)[-2:] != panel.inputs(views.view())[-2:]
    assert not breakpoints.aims(views.view(stored=True), "loss")["able"]


# --- the stop


def test_the_run_bar_says_where_training_stands_and_offers_to_go_on():
    status = Status(State.PAUSED, step=3, message="stopped in step 4")
    bar = runbar.state(views.view(stop=views.stop(why="loss > 2.5:\n3 > 2.5"), status=status))
    assert bar["stop"]["text"] == "stopped at step 4, before the update: loss > 2.5: 3 > 2.5"
    assert bar["stop"]["title"].endswith("loss > 2.5:\n3 > 2.5")
    assert (bar["stop"]["tone"], bar["stop"]["blocked"], bar["message"]) == ("warn", "", "")
    late = breakpoints.stop(views.view(stop=views.stop(before_update=False, breakpoint=0, why="")))
    assert (late["text"], late["tone"]) == ("stopped at step 4, after the step", "bad")
    assert "go back" in late["skip"]


def test_a_failed_run_offers_to_look_before_the_step():
    status = Status(State.FAILED, step=3, message="RuntimeError: shapes\ndiffer")
    bar = runbar.state(views.view(status=status))
    assert (bar["stop"]["text"], bar["stop"]["failed"], bar["message"]) == ("RuntimeError: shapes differ", True, "")
    assert bar["stop"]["title"] == status.message and bar["stop"]["tone"] == "bad" and "go back" in bar["stop"]["skip"]
    stored = runbar.state(views.view(status=status, stored=True))
    assert stored["stop"] is None and stored["message"] == status.message
    assert not runbar.state(views.view(stop=views.stop()))["stop"]["failed"]


def test_without_a_stop_the_message_is_told_as_before():
    bar = runbar.state(views.view(status=Status(State.PAUSED, message="paused by the script")))
    assert (bar["stop"], bar["message"]) == (None, "paused by the script")
    assert breakpoints.stop(views.view(stop=views.stop(), stored=True)) is None


def test_a_stop_is_told_in_words_too():
    assert "stopped at step 4, before the update: grad_norm > 5" in text(views.view(stop=views.stop()))


def test_a_stop_is_a_line_of_its_own_on_the_loss_chart():
    marks = (Mark("main", 2, "lr 0.1"), Mark("main", 4, "stopped: loss"))
    layout = Loss().draw(views.view(stop=views.stop(why=EVIL), marks=marks)).layout
    lines = [(shape["x0"], shape["line"].get("dash", "")) for shape in layout["shapes"]]
    assert lines == [(4, ""), (2, "dash")]
    texts = [each["text"] for each in layout["annotations"]]
    assert texts == ["◼ stopped", "lr 0.1"]
    assert "<img" not in json.dumps(layout)
    elsewhere = Loss().draw(views.view(stop=views.stop(run="other"))).layout
    assert elsewhere["shapes"] == []


# --- where a bad value came from


def test_a_finding_without_an_origin_has_none():
    plain = Finding(Cause.NAN_LOSS, Severity.CRITICAL, "main", 3, "t", "w")
    assert findings.state([plain])["cards"][0]["origin"] is None


def test_an_origin_is_told_in_finished_texts():
    found = Finding(Cause.NUMERICAL_INSTABILITY, Severity.CRITICAL, "main", 4, "t", "w", origin=views.origin())
    card = findings.state([found])["cards"][0]["origin"]
    assert (card["phase"], card["operation"], card["type"]) == ("in the backward of", "sqrt", "RootNorm")
    assert [name for name, _ in card["path"]] == ["model", "blocks", "blocks.3", "act"]
    assert [whole for _, whole in card["path"]][1:] == ["blocks", "blocks.3", "blocks.3.act"]
    assert [(line["label"], line["where"]) for line in card["lines"]] == [
        ("", "norm.py:41"), ("in your backward", "notebook cell, line 12"),
    ]  # fmt: skip
    inputs, parameters = card["tables"]
    assert [row["bad"] for row in inputs["rows"]] == [False, True]
    assert inputs["rows"][0]["special"] == [["17 zeros", False]]
    assert inputs["rows"][1]["special"] == [["3 NaN", True], ["1 inf", True], ["120,334 zeros", False]]
    assert (parameters["rows"][0]["shape"], parameters["rows"][0]["range"]) == ("256", "0.98 … 1.02")
    assert (card["samples"], card["advice"][:3]) == ("samples 3, 17 of the batch", "Use")
    json.dumps(card, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "phase", "path"),
    [
        ({"path": (), "module": "", "module_type": ""}, "in the backward, outside of the model", []),
        ({"path": ("",), "module": ""}, "in the backward of", ["model"]),
        ({"path": ("blocks.3", "blocks.3.act")}, "in the backward of", ["model", "blocks.3", "act"]),
        ({"path": ("a.b.c", "a.b.c.0", "a.b.c.0.d")}, "in the backward of", ["model", "a.b.c", "c.0", "d"]),
        ({"path": (), "module": "fc"}, "in the backward of", ["model", "fc"]),
        ({"path": ("fc", "shared")}, "in the backward of", ["model", "fc", "shared"]),
        (
            {"path": (), "module": "", "module_type": "", "source": "batch[0]", "phase": Phase.BEFORE},
            "there before the step, in", [],
        ),
        ({"path": (), "module": "", "module_type": "", "phase": Phase.OPTIMIZER}, "in the optimizer's update", []),
    ],
)  # fmt: skip
def test_the_way_to_the_module_shows_what_each_name_adds(changes, phase, path):
    shown = origin.state(views.origin(**changes))
    assert (shown["phase"], [name for name, _ in shown["path"]]) == (phase, path)


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("/home/me/train.py", "train.py:7"),
        (r"C:\work\train.py", "train.py:7"),
        ("/tmp/ipykernel_123/4567.py", "notebook cell, line 7"),
        ("/private/var/T/ipykernel_9/1.py", "notebook cell, line 7"),
        ("<ipython-input-3-abc>", "notebook cell, line 7"),
        ("<string>", "<string>:7"),
        ("/home/ipykernel_1/model.py", "model.py:7"),
    ],
)
def test_a_line_of_code_is_named_as_people_do(file, place):
    assert origin.place(CodeLine(file, 7, "f", "x")) == place


def test_odd_ranges_are_told():
    nan = float("nan")
    assert origin.spread(nan, nan) == "–"
    assert origin.spread(0.0, 0.0) == "0"
    ranges = tuple(Range(f"x{i}", (), "float16", 1.0, 2.0, 1, 0, 0) for i in range(20))
    [table] = origin.state(views.origin(inputs=ranges, parameters=()))["tables"]
    assert (len(table["rows"]), table["more"], table["rows"][0]["shape"]) == (12, "and 8 more", "scalar")
    assert table["rows"][0]["special"] == [["1 zero", False]]
    assert origin.samples(range(1000, 1020)).endswith("1,011 and 8 more of the batch")
    assert origin.samples((4,)) == "sample 4 of the batch"
    long = origin.state(views.origin(line=CodeLine("a.py", 1, "f", "x" * 5000)))
    assert len(long["lines"][0]["code"]) == origin.LONGEST_CODE + 1


# --- the batch


def test_without_a_stop_the_tab_says_what_will_be_there():
    assert batch.state(None) == {"hint": batch.EMPTY}
    assert batch.state(views.stop(batch=None)) == {"hint": batch.UNKNOWN}


def test_pictures_travel_as_their_bytes():
    made = views.batch()
    shown = batch.state(views.stop(batch=made))
    assert base64.b64decode(shown["pixels"]) == made.pictures.tobytes()
    assert shown["size"] == [8, 8]
    assert shown["samples"][0] == {"index": "#0", "target": "ship", "loss": "6", "bad": False}


def test_bad_samples_are_lit_by_loss_and_by_origin():
    made = views.batch(losses=np.array([np.nan, 5, 4, 3, 2, 1]))
    shown = batch.state(views.stop(batch=made, origin=views.origin(samples=(3,))))
    assert [sample["bad"] for sample in shown["samples"]] == [True, False, False, True, False, False]
    assert shown["samples"][0]["loss"] == "NaN"


def test_large_pictures_are_thinned_and_many_samples_counted():
    assert batch.thinned(np.zeros((2, 300, 100, 3), np.uint8)).shape == (2, 100, 34, 3)
    assert batch.thinned(np.zeros((0, 4, 4, 3), np.uint8)).shape == (0, 4, 4, 3)
    shown = batch.state(views.stop(batch=views.batch(70, note="of the first input")))
    assert (len(shown["samples"]), shown["note"]) == (64, "of the first input · 6 more samples not shown")
    assert len(base64.b64decode(shown["pixels"])) == 64 * 8 * 8 * 3


def test_tables_and_sequences_are_rows_of_texts():
    rows = np.array([[1.5, np.nan, 3.0], [4.0, 5.0, -6.25]])
    table = views.batch(2, kind="table", pictures=None, rows=rows, columns=("age", "income"))
    shown = batch.state(views.stop(batch=table))
    assert (shown["columns"], shown["rows"]) == (["age", "income", "2"], [["1.5", "NaN", "3"], ["4", "5", "-6.25"]])
    padded = np.array([[31999, 2, np.nan], [1, np.nan, np.nan], [np.nan] * 3])
    sequence = views.batch(3, kind="sequence", pictures=None, rows=padded)
    assert batch.state(views.stop(batch=sequence))["rows"] == [["31999 2"], ["1"], [""]]
    wide = views.batch(1, kind="table", pictures=None, rows=np.zeros((1, 70)))
    shown = batch.state(views.stop(batch=wide))
    assert (len(shown["rows"][0]), shown["note"]) == (64, "6 more columns not shown")


def test_a_batch_of_another_kind_has_samples_only():
    other = views.batch(2, kind="other", pictures=None, losses=None, targets=())
    shown = batch.state(views.stop(batch=other))
    assert [sample["loss"] for sample in shown["samples"]] == ["", ""]
    assert "rows" not in shown


def test_pictures_are_sent_to_those_who_look_and_made_once():
    lens = Lens()
    painter = Painter(default_panels(lens=lens), lens=lens)
    view = views.view(stop=views.stop())
    lens.open_tab("v", "layers")
    assert painter.paint(view)["batch",] == {"hint": batch.WAITING}
    lens.open_tab("v", batch.BATCH_TAB)
    first = painter.paint(view)["batch",]
    assert "pixels" in first
    assert painter.paint(replace(view, outcomes=(refused(),)))["batch",] is first
    assert painter.paint(views.view())["batch",] == {"hint": batch.EMPTY}


def test_everything_there_is_travels_as_json():
    view = views.view(
        stop=views.stop(origin=views.origin(), loss=float("nan")), breakpoints=(views.breakpoint_on(EVIL, note=EVIL),),
        outcomes=(refused(),), findings=(Finding(Cause.NAN_LOSS, Severity.CRITICAL, "main", 4, EVIL, EVIL,
                                                 origin=views.origin(advice=EVIL, operation=EVIL)),),
    )  # fmt: skip
    picture = Painter(default_panels()).paint(view, whole=True)
    for key in ("bar", "breakpoints", "batch", "findings", "outcome"):
        json.dumps(picture[key,], allow_nan=False)
