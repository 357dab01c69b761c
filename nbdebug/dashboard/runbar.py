"""The run bar: buttons, progress and pills, as the browser is to show them. Pure; drawing thread.

The slider in it is told in :mod:`rewind`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from nbdebug.dashboard import ability, breakpoints, rewind, tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.dashboard.tree import Legend
from nbdebug.records.status import State, Status
from nbdebug.records.view import View

ACTIVE = (State.RUNNING, State.STOPPING, State.REWINDING)
MOST_EPOCHS = 50  # to be told apart below the slider
TOGGLES = {
    State.RUNNING: "Pause",
    State.STOPPING: "Pause",
    State.PAUSED: "Resume",
    State.REWINDING: "Resume",  # which it is once there
}


def state(view: View, legend: Legend | None = None) -> Json:
    """What the bar shows: every label a finished text, every number finite."""
    status = view.status
    if status.stepping:  # one step is no reason to turn Resume into Pause under the person's finger
        status = replace(status, state=State.PAUSED)
    stop = breakpoints.stop(view)
    tones = (legend or Legend()).tones(view.runs)
    return {
        "buttons": _buttons(status, ability.blocked(view)),
        "progress": _progress(status),
        "pills": _pills(status, view.stored),
        "watching": words.percent(status.watching) if status.step and not view.stored else "",
        "state": "from disk" if view.stored else word(status),
        "message": _message(status, stop is not None),
        "stop": stop,
        "notice": rewind.notice(view),
        "activity": rewind.activity(view),
        "model": "" if view.stored else tree.shown(view, status.run),
        "colour": tones.get(status.run, "mute"),
        "stored": view.stored,
    }


def _message(status: Status, stopped: bool) -> str:
    """Why training is not running, unless a stop says so already."""
    told = status.state in (State.FAILED, State.PAUSED) and not stopped
    return status.message if told else ""


def finished(status: Status) -> bool:
    """Whether the goal was reached; then idle means done."""
    by_epoch = status.goal_epoch is not None and status.epoch >= status.goal_epoch > 0
    by_step = status.goal_step is not None and status.step >= status.goal_step > 0
    return status.state is State.IDLE and (by_epoch or by_step)


def word(status: Status) -> str:
    """The state in one word: idle, running, rewinding, paused, stopping, failed, finished."""
    return "finished" if finished(status) else str(status.state)


def _buttons(status: Status, blocked: str) -> Json:
    """The toggle's name and command, which buttons make sense now, and why none does."""
    toggle = TOGGLES.get(status.state, "Run")
    able = not blocked
    return {
        "toggle": {"label": toggle, "enabled": able},
        "step": able and status.state not in ACTIVE,
        "epoch": able and status.state not in ACTIVE,
        "stop": able and status.state in (State.RUNNING, State.PAUSED),
        "blocked": blocked,
    }


def _progress(status: Status) -> Json:
    """How far training is, as a share of its goal or of the epoch; epochs to mark, 0 for none; the same in words."""
    ticks = status.goal_epoch if status.goal_epoch and status.goal_epoch <= MOST_EPOCHS and not status.goal_step else 0
    return {"share": round(_share(status), 4), "ticks": ticks, "text": _text(status)}


def _share(status: Status) -> float:
    part = status.batch / status.batches if status.batches else 0.0
    if status.goal_step:
        share = status.step / status.goal_step
    elif status.goal_epoch:
        share = (status.epoch + part) / status.goal_epoch
    else:
        share = part
    return min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0


def _text(status: Status) -> str:
    if status.goal_step:
        return f"step {words.count(status.step)} of {words.count(status.goal_step)}"
    if status.goal_epoch:
        return f"epoch {status.epoch} of {status.goal_epoch}, batch {status.batch}"
    of = f" of {status.batches}" if status.batches else ""
    return f"batch {status.batch}{of} of epoch {status.epoch + 1}"


def epoch_shown(status: Status) -> int:
    """The epoch one is in, counted from 1; the last one when all are done, 0 before the first step."""
    if status.step == 0:
        return 0
    return status.epoch if status.batch == 0 else status.epoch + 1


def _pills(status: Status, stored: bool) -> list[list[str]]:
    """Texts in three pieces, the middle one to stand out."""
    of = f"/{status.goal_epoch}" if status.goal_epoch else ""
    pills = [["epoch", str(epoch_shown(status)), of]]
    goal = f"/{words.count(status.goal_step)}" if status.goal_step else ""
    pills.append(["step", words.count(status.step), goal])
    if status.steps_per_s > 0 and math.isfinite(status.steps_per_s) and not stored:
        pills.append(
            ["", f"{status.steps_per_s:.1f}" if status.steps_per_s < 1000 else f"{status.steps_per_s:,.0f}", " it/s"]
        )
    under_way = status.state is not State.IDLE and not stored
    if under_way and status.remaining_s is not None and math.isfinite(status.remaining_s):
        pills.append(["", words.duration(status.remaining_s), " left"])
    return pills
