"""The run bar: buttons, progress and pills, as the browser is to show them. Pure; drawing thread."""

from __future__ import annotations

import math
from dataclasses import replace

from nbdebug.dashboard import theme, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.status import State, Status
from nbdebug.records.view import View

ACTIVE = (State.RUNNING, State.STOPPING)


def state(view: View) -> Json:
    """What the bar shows: every label a finished text, every number finite."""
    status = view.status
    if status.stepping:  # one step is no reason to turn Resume into Pause under the person's finger
        status = replace(status, state=State.PAUSED)
    return {
        "buttons": _buttons(status),
        "progress": _progress(view),
        "pills": _pills(status),
        "state": word(status),
        "message": status.message if status.state in (State.PAUSED, State.FAILED) else "",
        "model": status.run,
        "colour": next((theme.run_tone(i) for i, run in enumerate(view.runs) if run.run.name == status.run), "mute"),
    }


def finished(status: Status) -> bool:
    """Whether the goal was reached; then idle means done."""
    by_epoch = status.goal_epoch is not None and status.epoch >= status.goal_epoch > 0
    by_step = status.goal_step is not None and status.step >= status.goal_step > 0
    return status.state is State.IDLE and (by_epoch or by_step)


def word(status: Status) -> str:
    """The state in one word: idle, running, paused, stopping, failed, finished."""
    return "finished" if finished(status) else str(status.state)


def _buttons(status: Status) -> Json:
    """The toggle's name and command, and which buttons make sense now."""
    toggle = {State.RUNNING: "Pause", State.STOPPING: "Pause", State.PAUSED: "Resume"}.get(status.state, "Run")
    return {
        "toggle": {"label": toggle, "enabled": status.state is not State.STOPPING},
        "step": status.state not in ACTIVE,
        "epoch": status.state not in ACTIVE,
        "stop": status.state in (State.RUNNING, State.PAUSED),
    }


def _progress(view: View) -> Json:
    """How far the model and the furthest run are, as shares of the goal; epochs to tick off, 0 for none."""
    status = view.status
    model = _share(status)
    ends = [int(run.train.steps[-1]) for run in view.runs if run.train.steps.size]
    furthest = model * max([status.step, *ends]) / status.step if status.step else model
    ticks = status.goal_epoch if status.goal_epoch and status.goal_epoch <= 100 else 0
    return {"model": round(model, 4), "furthest": round(min(1.0, furthest), 4), "ticks": ticks, "text": _text(status)}


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


def _pills(status: Status) -> list[list[str]]:
    """Texts in three pieces, the middle one to stand out."""
    of = f"/{status.goal_epoch}" if status.goal_epoch else ""
    pills = [["epoch", str(epoch_shown(status)), of]]
    goal = f"/{words.count(status.goal_step)}" if status.goal_step else ""
    pills.append(["step", words.count(status.step), goal])
    if status.steps_per_s > 0 and math.isfinite(status.steps_per_s):
        pills.append(
            ["", f"{status.steps_per_s:.1f}" if status.steps_per_s < 1000 else f"{status.steps_per_s:,.0f}", " it/s"]
        )
    if status.remaining_s is not None and math.isfinite(status.remaining_s) and status.state is not State.IDLE:
        pills.append(["", words.duration(status.remaining_s), " left"])
    if status.step:
        pills.append(["watching", words.percent(status.watching), ""])
    return pills
