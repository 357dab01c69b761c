"""The rewind slider and what else goes on in the run bar besides training. Pure; drawing thread."""

from __future__ import annotations

import math

from nbdebug.dashboard import ability, tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.finder import ACTIVITY
from nbdebug.records.status import Replay, State
from nbdebug.records.view import View


def state(view: View) -> Json:
    """The slider's range and place, what a step and a restore cost in seconds (0 while unknown), why it is blocked."""
    status, last = view.status, ability.rewind_last(view)
    at = status.replay.step if status.replay is not None else status.step
    return {
        "last": last,
        "at": min(max(at, 0), last),
        "step_s": _cost(ability.step_s(view)),
        "restore_s": _cost(view.rewindable.restore_s),
        "blocked": ability.rewind_blocked(view),
    }


def stops(view: View) -> Json:
    """The steps with a snapshot, growing; a part of its own because it seldom changes."""
    return list(view.rewindable.snapshots)


def activity(view: View) -> Json:
    """What holds the session besides training: its words, the share done or null, the command that cancels it."""
    status = view.status
    if status.state is State.REWINDING:
        return {"text": _rewinding(view), "share": _share(status.replay), "cancel": "pause"}
    if status.activity and not view.stored:
        is_test = status.activity.startswith(ACTIVITY)  # a pause ends it, and leaves the run's goal alone
        return {"text": status.activity, "share": None, "cancel": "pause" if is_test else "stop"}
    return None


def notice(view: View) -> str:
    """Where a rewound model stands, and what going on from there means; empty otherwise."""
    place = ability.place(view)
    if not place:
        return ""
    run = words.shorten(tree.shown(view, view.status.run), 40)
    return f"{place} · going on from here begins a branch, {run} stays as it is"


def _rewinding(view: View) -> str:
    replay = view.status.replay
    if replay is None:
        return "rewinding"
    text = f"rewinding to step {words.count(replay.step)} of {tree.shown(view, replay.run)}"
    if replay.total:
        text += f" · {words.count(replay.done)} of {words.plural(replay.total, 'step')} replayed"
        if math.isfinite(replay.remaining_s) and replay.done:
            text += f" · {words.duration(replay.remaining_s)} left"
    return text


def _share(replay: Replay | None) -> float | None:
    return round(min(1.0, replay.done / replay.total), 3) if replay is not None and replay.total else None


def _cost(seconds: float) -> float:
    """In two significant digits, so that it does not change with every tick."""
    return float(f"{seconds:.2g}") if math.isfinite(seconds) and seconds > 0 else 0.0
