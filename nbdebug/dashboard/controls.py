"""The controls: knob states → what they show, and a browser's messages → commands. Pure; any thread.

A control shows what was asked for; the line under it says what is in force.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nbdebug.dashboard import words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.commands import (
    Changes,
    Checkout,
    Clip,
    ClipMode,
    Command,
    InitScheme,
    Pause,
    Reinitialize,
    Rerun,
    Resume,
    SetKnobs,
    Start,
    StartPoint,
    Step,
    Stop,
)
from nbdebug.records.status import KnobStates, State, Status
from nbdebug.records.view import View

T = TypeVar("T")

log = logging.getLogger(__name__)

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
STARTS = {StartPoint.LAST_EPOCH: "last epoch", StartPoint.START: "start"}
LARGEST_SEED = 2**32 - 1


def state(view: View) -> Json:
    """What every control shows; numbers are finite or null."""
    knobs, status = view.knobs, view.status
    able = status.state is not State.STOPPING
    return {
        "lr": _rates(knobs),
        "clip": {
            "mode": str(knobs.clip.mode),
            "threshold": _finite(knobs.clip.threshold),
            "note": _clip_note(knobs.clip),
        },
        "dropout": _dropout(knobs),
        "init": {
            "schemes": [[str(scheme), name] for scheme, name in SCHEMES.items()],
            "note": f"redraws {words.plural(len(knobs.init_layers), 'layer')}" if knobs.init_layers else "",
            "enabled": able,
        },
        "rerun": {
            "starts": [[str(start), name] for start, name in STARTS.items()],
            "epoch_s": _epoch_s(status),
            "enabled": able and status.step > 0,
            "note": "" if status.step > 0 else "nothing to go back to yet",
        },
        "checkout": able,
    }


def outcome(view: View) -> Json:
    """The last command's outcome in words, and whether it was refused."""
    if not view.outcomes:
        return None
    last = view.outcomes[-1]
    return {
        "text": last.text,
        "ok": last.ok,
        "where": f"{last.run}, step {words.count(last.step)}",
        "count": len(view.outcomes),
    }


def _rates(knobs: KnobStates) -> Json:
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
        "note": _note_of_all(knobs, [group["note"] for group in groups]),
    }


def _note_of_all(knobs: KnobStates, notes: list[Any]) -> str:
    """The line under the slider while it moves all groups: one group's own, or each group's rate by name."""
    if len(notes) < 2:
        return notes[0] if notes else "this optimizer has no learning rate"
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


def _dropout(knobs: KnobStates) -> Json:
    if not knobs.dropout:
        return {"layers": [], "note": "no dropout layer in this model"}
    layers = [{"name": layer.name, "p": _finite(layer.p)} for layer in knobs.dropout]
    rates = sorted({layer.p for layer in knobs.dropout})
    text = f"{rates[0]:.2f}" if len(rates) == 1 else f"{rates[0]:.2f} … {rates[-1]:.2f}"
    return {"layers": layers, "note": f"in force {text} in {words.plural(len(layers), 'layer')}"}


def _epoch_s(status: Status) -> float | None:
    """Predicted seconds per epoch, for "about 21 s"; None while unknown."""
    if not status.batches or not status.steps_per_s > 0 or not math.isfinite(status.steps_per_s):
        return None
    return round(status.batches / status.steps_per_s, 2)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


class GarbledError(ValueError):
    """A message from the browser that makes no sense; says what and where."""


def decode(message: object) -> Command | None:
    """The command that a browser's message asks for; ``None``, and a warning in the log, if it makes no sense."""
    try:
        return _decode(message)
    except GarbledError as error:
        log.warning("nbdebug: ignored a message from the dashboard: %s", error)
        return None


def _decode(message: object) -> Command:
    if not isinstance(message, Mapping):
        raise GarbledError(f"not a mapping: {message!r:.80}")
    name = message.get("command")
    maker = _MAKERS.get(name) if isinstance(name, str) else None
    if maker is None:
        raise GarbledError(f"unknown command {name!r:.80}")
    return maker(message)


def _number(message: Mapping[Any, Any], key: str, low: float, high: float) -> float:
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GarbledError(f"{key} {value!r:.80} is no number")
    if not low <= value <= high:
        raise GarbledError(f"{key} {value!r:.80} is not between {low:g} and {high:g}")
    return float(value)


def _whole(message: Mapping[Any, Any], key: str, low: int, high: int) -> int:
    value = _number(message, key, low, high)
    if value != int(value):
        raise GarbledError(f"{key} {value!r} is no whole number")
    return int(value)


def _text(message: Mapping[Any, Any], key: str) -> str:
    value = message.get(key, "")
    if not isinstance(value, str):
        raise GarbledError(f"{key} {value!r:.80} is no text")
    return value


def _choice(message: Mapping[Any, Any], key: str, make: Callable[[str], T]) -> T:
    value = _text(message, key)
    try:
        return make(value)
    except ValueError:
        raise GarbledError(f"{key} {value!r:.80} is not known") from None


def _set_lr(message: Mapping[Any, Any]) -> Command:
    rate, group = _number(message, "value", 0.0, 1e6), _text(message, "group")
    return SetKnobs(Changes(lr={group: rate} if group else rate))


def _set_clip(message: Mapping[Any, Any]) -> Command:
    mode = _choice(message, "mode", ClipMode)
    threshold = _number(message, "threshold", 0.0, 1e12)
    if mode is not ClipMode.OFF and threshold == 0:
        raise GarbledError("threshold 0 would leave no gradient")
    return SetKnobs(Changes(clip=Clip(mode, threshold)))


def _set_dropout(message: Mapping[Any, Any]) -> Command:
    share, layer = _number(message, "value", 0.0, 1.0), _text(message, "layer")
    return SetKnobs(Changes(dropout={layer: share} if layer else share))


def _reinitialize(message: Mapping[Any, Any]) -> Command:
    return Reinitialize(_choice(message, "scheme", InitScheme), _whole(message, "seed", 0, LARGEST_SEED))


def _rerun(message: Mapping[Any, Any]) -> Command:
    return Rerun(_choice(message, "start", StartPoint), epochs=_whole(message, "epochs", 1, 1_000_000), keep_knobs=True)


def _checkout(message: Mapping[Any, Any]) -> Command:
    run = _text(message, "run")
    if not run:
        raise GarbledError("no run named")
    return Checkout(run)


_MAKERS: Mapping[str, Callable[[Mapping[Any, Any]], Command]] = {
    "run": lambda _: Start(),
    "pause": lambda _: Pause(),
    "resume": lambda _: Resume(),
    "step": lambda _: Step(),
    "epoch": lambda _: Start(epochs=1),
    "stop": lambda _: Stop(),
    "set_lr": _set_lr,
    "set_clip": _set_clip,
    "set_dropout": _set_dropout,
    "reinitialize": _reinitialize,
    "rerun": _rerun,
    "checkout": _checkout,
}
