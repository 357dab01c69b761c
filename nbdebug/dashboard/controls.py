"""The controls: knob states → what they show. Pure; any thread.

A control shows what was asked for; the line under it says what is in force, and where that comes from if told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nbdebug.dashboard import ability, change, tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.commands import AddBreakpoint, Clip, ClipMode, Foretell, InitScheme, StartPoint
from nbdebug.records.forecast import Forecast
from nbdebug.records.status import KnobStates, State, Status
from nbdebug.records.view import View

SCHEMES = {
    InitScheme.DEFAULT: "PyTorch default",
    InitScheme.XAVIER_UNIFORM: "Glorot uniform",
    InitScheme.XAVIER_NORMAL: "Glorot normal",
    InitScheme.KAIMING_UNIFORM: "He uniform",
    InitScheme.KAIMING_NORMAL: "He normal",
    InitScheme.LECUN_UNIFORM: "LeCun uniform",
    InitScheme.LECUN_NORMAL: "LeCun normal",
    InitScheme.ORTHOGONAL: "orthogonal",
}
STARTS = {StartPoint.LAST_EPOCH: "last epoch", StartPoint.START: "start", StartPoint.BEST: "best"}

AT_REST = (State.IDLE, State.PAUSED)
NO_RATE = "this optimizer has no learning rate"


def state(view: View) -> Json:
    """What every control shows; numbers are finite or null."""
    knobs = view.knobs
    origins = knobs.origins if ability.turned_back(view) else ()
    return {
        "blocked": ability.blocked(view),
        "lr": _rates(knobs, _origin(origins, "lr")),
        "clip": {
            "mode": str(knobs.clip.mode),
            "threshold": _finite(knobs.clip.threshold),
            "note": _joined(_clip_note(knobs.clip), _origin(origins, "clip")),
        },
        "dropout": _dropout(knobs, _origin(origins, "dropout")),
        "init": {
            "schemes": [[str(scheme), name] for scheme, name in SCHEMES.items()],
            "note": f"redraws {words.plural(len(knobs.init_layers), 'layer')}" if knobs.init_layers else "",
        },
        "rerun": _rerun(view),
        "undo": change.undo(view),
        "next": _next_step(view),
    }


def _rerun(view: View) -> Json:
    """Where a rerun can start; ``turned_back`` is the step gone back to, then the likely start."""
    status = view.status
    here = "here" if status.state is State.RUNNING else f"here (step {words.count(status.step)})"
    able = max(status.step, status.last_step) > 0
    return {
        "starts": [[str(start), name] for start, name in STARTS.items()] + [[str(StartPoint.HERE), here]],
        "turned_back": status.step if ability.turned_back(view) else None,
        "epoch_s": _epoch_s(status),
        "enabled": able,
        "note": "" if able else "nothing to go back to yet",
    }


def _next_step(view: View) -> Json:
    """The step that comes next, foretold: whether it can be asked for, what was said, or why nothing was."""
    shown = not view.stored and view.status.state in AT_REST and bool(view.knobs.optimizer or view.knobs.groups)
    asked = next((each for each in reversed(view.outcomes) if isinstance(each.command, Foretell)), None)
    here = asked is not None and (asked.run, asked.step) == (view.status.run, view.status.step)
    told = view.forecast
    return {
        "shown": shown,
        "lines": _foretold(told) if told is not None else [],
        "refusal": asked.text if told is None and asked is not None and here and not asked.ok else "",
    }


def _foretold(told: Forecast) -> list[str]:
    """A line each: the median update beside what it was, the largest, the loss, what would be clipped."""
    changed = not np.array_equal(told.ratios, told.ratios_now, equal_nan=True)
    before = f" (was {words.rate(told.ratio_now)})" if changed else ""
    lines = [f"update : weight {words.rate(told.ratio)}{before}"]
    known = np.flatnonzero(np.isfinite(told.ratios))
    if known.size > 1:
        largest = int(known[int(np.argmax(told.ratios[known]))])
        lines.append(f"at most {words.rate(float(told.ratios[largest]))}, in {words.shorten(told.layers[largest], 24)}")
    lines.append(f"loss {words.number(told.loss)}")
    clips = f"clips {100 * told.clipped:.0f} % of the last {words.plural(told.recent, 'step')}"
    return [*lines, clips] if math.isfinite(told.clipped) else lines


def outcome(view: View) -> Json:
    """The last command's outcome in words, and whether it was refused; of a condition only the first line."""
    if not view.outcomes:
        return None
    last = view.outcomes[-1]
    return {
        "text": last.text.partition("\n")[0].rstrip(":") if isinstance(last.command, AddBreakpoint) else last.text,
        "ok": last.ok,
        "where": f"{tree.shown(view, last.run)}, step {words.count(last.step)}",
        "count": len(view.outcomes),
    }


def _rates(knobs: KnobStates, origin: str) -> Json:
    groups = []
    for group in knobs.groups:
        note = f"in force {words.rate(group.in_force)}"
        if knobs.schedule:
            factor = f" × {group.in_force / group.asked:.2g}" if group.asked else ""
            note += f" ({knobs.schedule}{factor})"
        groups.append(
            {"name": group.name, "asked": _finite(group.asked), "in_force": _finite(group.in_force), "note": note}
        )
    return {
        "groups": groups,
        "optimizer": knobs.optimizer,
        "note": _joined(_note_of_all(knobs, [group["note"] for group in groups]), origin),
    }


def _note_of_all(knobs: KnobStates, notes: list[Any]) -> str:
    """The line under the slider while it moves all groups: one group's own, or each group's rate by name.

    Without an optimizer, as in a journal from disk, there is nothing to say.
    """
    if len(notes) < 2:
        return notes[0] if notes else NO_RATE if knobs.optimizer else ""
    named = [f"{group.name} {words.rate(group.in_force)}" for group in knobs.groups[:4]]
    return "in force " + ", ".join(named) + (" …" if len(knobs.groups) > 4 else "")


def _clip_note(clip: Clip) -> str:
    match clip.mode:
        case ClipMode.OFF:
            return "in force: off"
        case ClipMode.NORM:
            return f"in force: total norm at most {clip.threshold:g}"
        case ClipMode.VALUE:
            return f"in force: each |g| at most {clip.threshold:g}"


def _dropout(knobs: KnobStates, origin: str) -> Json:
    if not knobs.dropout:
        return {"layers": [], "note": "no dropout layer in this model" if knobs.groups else ""}
    layers = [{"name": layer.name, "p": _finite(layer.p)} for layer in knobs.dropout]
    rates = sorted({layer.p for layer in knobs.dropout})
    text = f"{rates[0]:.2f}" if len(rates) == 1 else f"{rates[0]:.2f} … {rates[-1]:.2f}"
    note = f"in force {text} in {words.plural(len(layers), 'layer')}"
    return {"layers": layers, "note": _joined(note, origin)}


def _origin(origins: Sequence[tuple[str, str]], knob: str) -> str:
    """Where a knob's value comes from, as far as it is known."""
    return ", ".join(dict.fromkeys(text for name, text in origins if name.partition("/")[0] == knob and text))


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _epoch_s(status: Status) -> float | None:
    """Predicted seconds per epoch, for "about 21 s"; None while unknown."""
    if not status.batches or not status.steps_per_s > 0 or not math.isfinite(status.steps_per_s):
        return None
    return round(status.batches / status.steps_per_s, 2)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
