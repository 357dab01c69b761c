"""The rewind slider and what else goes on in the run bar besides training. Pure; drawing thread."""

from __future__ import annotations

import math

from nbdebug.dashboard import ability, words
from nbdebug.dashboard.figures.panel import Json
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
        return {"text": _rewinding(status.replay), "share": _share(status.replay), "cancel": "pause"}
    if status.activity and not view.stored:
        return {"text": status.activity, "share": None, "cancel": "stop"}
    return None


def notice(view: View) -> str:
    """Where a rewound model stands, and what going on from there means; empty otherwise."""
    place = ability.place(view.status)
    if not place or view.stored:
        return place
    return f"{place} · going on from here begins a branch, {words.shorten(view.status.run, 40)} stays as it is"


def _rewinding(replay: Replay | None) -> str:
    if replay is None:
        return "rewinding"
    text = f"rewinding to step {words.count(replay.step)} of {replay.run}"
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
