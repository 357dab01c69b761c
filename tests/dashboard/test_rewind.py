"""The slider, what else holds the session, and what can be asked for meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbdebug.dashboard import ability, controls, rewind, runbar, runs
from nbdebug.dashboard.fallback import text
from nbdebug.records.commands import Outcome, Rewind
from nbdebug.records.runs import Run
from nbdebug.records.status import KnobStates, Replay, State, Status
from nbdebug.records.view import Rewindable
from tests.dashboard import views

REPLAY = Replay("main", 160, 18, 60, 3.2)


def view(status, **changes):
    return views.view(**{"status": status, "rewindable": Rewindable(400, (0, 100), 0.0123, 0.05), **changes})


@pytest.mark.parametrize(
    ("status", "rewindable", "last", "at"),
    [
        (Status(step=120, last_step=400), Rewindable(400), 400, 120),
        (Status(State.RUNNING, step=401, last_step=401), Rewindable(400), 401, 401),
        (Status(State.REWINDING, step=100, replay=REPLAY), Rewindable(400), 400, 160),
        (Status(), Rewindable(), 0, 0),
    ],
)
def test_the_slider_covers_the_steps_taken_and_stands_where_the_model_is(status, rewindable, last, at):
    state = rewind.state(view(status, rewindable=rewindable))
    assert (state["last"], state["at"]) == (last, at)


def test_costs_are_told_in_two_digits_and_snapshots_apart():
    shown = view(Status(step=120, last_step=400))
    state = rewind.state(shown)
    assert (state["step_s"], state["restore_s"]) == (0.012, 0.05)
    assert rewind.stops(shown) == [0, 100]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"status": Status(State.RUNNING, step=5)}, ""),
        ({"status": Status(State.REWINDING, step=5, replay=REPLAY)}, "rewound"),
        ({"status": Status(State.STOPPING, step=5)}, "stopping"),
        (
            {"status": Status(State.RUNNING, step=5, activity="comparing a with b: rerun 1 of 12")},
            "comparing a with b: wait",
        ),
        ({"rewindable": Rewindable(blocked="the model was changed by hand")}, "changed by hand"),
        ({"status": Status(), "rewindable": Rewindable()}, "no step taken"),
        ({"stored": True}, "from disk"),
    ],
)
def test_what_blocks_the_slider_is_said(changes, reason):
    shown = view(**{"status": Status(State.PAUSED, step=5), **changes})
    said = rewind.state(shown)["blocked"]
    assert reason in said and bool(said) == bool(reason)


@pytest.mark.parametrize(
    ("changes", "blocked"),
    [
        ({}, False),
        ({"status": Status(State.REWINDING, step=5, replay=REPLAY)}, True),
        ({"status": Status(State.RUNNING, step=5, activity="comparing")}, True),
        ({"stored": True}, True),
    ],
)
def test_everything_that_acts_is_blocked_at_once_and_for_one_reason(changes, blocked):
    shown = view(**{"status": Status(State.PAUSED, step=5, last_step=5), **changes})
    bar = runbar.state(shown)["buttons"]
    assert bar["toggle"]["enabled"] is not blocked and any(bar[name] for name in ("step", "epoch", "stop")) != blocked
    reasons = {bar["blocked"], controls.state(shown)["blocked"], runs.state(shown)["blocked"], ability.blocked(shown)}
    assert len(reasons) == 1 and bool(reasons.pop()) == blocked


@pytest.mark.parametrize(
    ("replay", "words", "share"),
    [
        (REPLAY, "rewinding to step 160 of main · 18 of 60 steps replayed · 0:03 left", 0.3),
        (replace(REPLAY, done=0), "rewinding to step 160 of main · 0 of 60 steps replayed", 0.0),
        (replace(REPLAY, total=0), "rewinding to step 160 of main", None),
        (None, "rewinding", None),
    ],
)
def test_a_rewind_under_way_is_told_and_a_pause_cancels_it(replay, words, share):
    shown = view(Status(State.REWINDING, step=5, last_step=400, replay=replay))
    assert rewind.activity(shown) == {"text": words, "share": share, "cancel": "pause"}
    assert runbar.state(shown)["state"] == "rewinding" and rewind.notice(shown) == ""
    assert words in text(shown)


def test_a_comparison_under_way_is_told_and_a_stop_cancels_it():
    shown = view(Status(State.RUNNING, step=5, activity="comparing a with b: rerun 3 of 12, 21 s left"))
    assert rewind.activity(shown)["cancel"] == "stop"
    assert "rerun 3 of 12" in text(shown)
    assert rewind.activity(view(Status(State.RUNNING, step=5))) is None


def test_a_rewound_model_is_said_in_the_bar_and_in_words():
    shown = view(Status(State.PAUSED, step=120, last_step=412))
    assert runbar.state(shown)["notice"].startswith("rewound to step 120 of 412 · ")
    assert "rewound to step 120 of 412" in text(shown)
    there = view(Status(State.PAUSED, step=412, last_step=412))
    assert runbar.state(there)["notice"] == "" and "rewound" not in text(there)


UNSTARTED = replace(views.branch("b", "main", 120, [1.0]), steps=0)


@pytest.mark.parametrize(
    ("status", "branch", "turned_back"),
    [
        (Status(State.PAUSED, step=120, last_step=400), (), 120),
        (Status(State.PAUSED, "b", step=120, last_step=120), (UNSTARTED,), 120),
        (Status(State.RUNNING, "b", step=120, last_step=120), (UNSTARTED,), None),
        (Status(State.PAUSED, "b", step=121, last_step=121), (replace(UNSTARTED, steps=1),), None),
        (Status(State.PAUSED, step=400, last_step=400), (), None),
    ],
)
def test_after_going_back_here_is_where_a_rerun_starts_also_once_a_knob_is_set(status, branch, turned_back):
    knobs = replace(views.view().knobs, origins=(("lr", "set at step 90 of main"), ("dropout", "as at the start")))
    shown = view(status, runs=(views.run(train=[1.0] * 400), *branch), knobs=knobs)
    state = controls.state(shown)
    assert state["rerun"]["turned_back"] == turned_back
    assert ("set at step 90" in state["lr"]["note"]) == (turned_back is not None)
    assert ("as at the start" in state["dropout"]["note"]) == (turned_back is not None)


def test_the_starts_of_a_rerun_name_the_step_only_while_it_stands():
    assert [name for _, name in controls.state(view(Status(State.PAUSED, step=1200)))["rerun"]["starts"]] == [
        "last epoch", "start", "best", "here (step 1,200)",
    ]  # fmt: skip
    assert controls.state(view(Status(State.RUNNING, step=7)))["rerun"]["starts"][-1] == ["here", "here"]


def test_back_at_the_first_step_a_rerun_is_possible_and_before_any_it_is_not():
    assert controls.state(view(Status(State.PAUSED, step=0, last_step=9)))["rerun"]["enabled"]
    assert not controls.state(view(Status()))["rerun"]["enabled"]


def test_a_journal_from_disk_without_knobs_breaks_nothing():
    empty = KnobStates((), "", views.view().knobs.clip, ())
    shown = view(Status(step=9, last_step=9, remaining_s=4.0, steps_per_s=3.0), knobs=empty, stored=True)
    bar, state = runbar.state(shown), controls.state(shown)
    assert (bar["state"], bar["stored"]) == ("from disk", True)
    assert [pill[0] for pill in bar["pills"]] == ["epoch", "step"]
    assert (state["lr"]["groups"], state["lr"]["note"], state["dropout"]["note"]) == ([], "", "")
    assert text(shown).startswith("nbdebug: from disk") and "lr" not in text(shown)


def test_a_journal_from_disk_has_no_model_that_could_stand_anywhere():
    shown = views.forest(stored=True, status=Status(State.IDLE, step=120, last_step=400, watching=0.03))
    assert (runbar.state(shown)["model"], runbar.state(shown)["notice"]) == ("", "")
    assert not any(row["in_model"] for row in runs.state(shown)["rows"])
    assert "rewound" not in text(shown) and "in the model" not in text(shown)


def test_a_run_is_called_by_its_title():
    titled = (views.run(train=[1.0] * 400, run=Run("main", title="the recipe")),)
    back = view(Status(State.PAUSED, step=120, last_step=400), runs=titled)
    assert "the recipe stays as it is" in rewind.notice(back)
    assert runbar.state(back)["model"] == "the recipe" and "in the model: the recipe" in text(back)
    going = view(Status(State.REWINDING, step=5, last_step=400, replay=REPLAY), runs=titled)
    assert "step 160 of the recipe" in rewind.activity(going)["text"]
    done = view(Status(), runs=titled, outcomes=(Outcome(Rewind(3), "main", 3, True, "done"),))
    assert controls.outcome(done)["where"] == "the recipe, step 3"


def test_the_comparison_is_in_the_words():
    assert "comparison: lr 0.02 is better than main" in text(views.forest())
