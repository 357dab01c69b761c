"""The tab that changes what trains: optimizer, schedule, layers, and what the user added of their own. Pure.

A control shows what was asked for; under each is what became of the latest command of its kind.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable
from typing import Final, get_args

from nbdebug.dashboard import ability, change_more, tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.dashboard.messages import NO_SCHEDULE
from nbdebug.records.commands import (
    Checkout,
    Command,
    EditNorms,
    Freeze,
    Press,
    Refit,
    Rerun,
    Rewind,
    SetAverage,
    SetKnobs,
    SetSchedule,
    SplitDecay,
    SwapActivations,
    SwapOptimizer,
    Undo,
)
from nbdebug.records.optimizers import OptimizerKind, OptionType
from nbdebug.records.schedules import NEEDS_TOTAL, PARAMETERS, WARMS_UP_ITSELF, ScheduleKind, ScheduleParameter
from nbdebug.records.status import KnobStates, OptionKnob, OwnKnob
from nbdebug.records.view import OwnPanel, View

CHANGE_TAB: Final = "change"
USUAL_EPOCHS = 10
USUAL_BATCHES = 1_000
LONGEST_TEXT = 20_000
LARGEST_PICTURE = 4_000_000
PNG: Final = b"\x89PNG\r\n"
WARM_UP: Final = (
    ScheduleParameter("warmup_steps", 0, 0.0, math.inf, "positions over which the rate rises first", whole=True),
    ScheduleParameter(
        "warmup_start", 0.01, 0.0, 1.0, "where it rises from, as a share of the base rate", low_open=True
    ),
)
TOTAL: Final = "how many positions it is long, warm-up included; after them the last rate stays"


def state(view: View, layers: Iterable[str] = ()) -> Json:
    """What the tab shows besides the user's panels; ``layers`` are those of the model, in order."""
    knobs = view.knobs
    return {
        "blocked": ability.blocked(view),
        "stored": view.stored,
        "groups": [group.name for group in knobs.groups],
        "optimizer": {
            "name": knobs.optimizer,
            "kinds": [str(kind) for kind in OptimizerKind],
            "options": [_option(knob) for knob in knobs.options],
            "answer": _answer(
                view, lambda asked: isinstance(asked, (SwapOptimizer, SplitDecay)) or _sets(asked, "options")
            ),
        },
        "schedule": _schedule(view),
        "layers": _layers(view, knobs, layers),
        "average": change_more.average(knobs),
        "average_answer": _answer(view, lambda asked: isinstance(asked, SetAverage)),
        "more": {
            "numbers": change_more.numbers(knobs),
            "clips": change_more.layer_clips(knobs),
            "answer": _answer(view, lambda asked: isinstance(asked, SetKnobs) and change_more.sets_more(asked.changes)),
        },
        "own": {
            "knobs": [_own(knob) for knob in knobs.own if math.isfinite(knob.value)],
            "buttons": list(knobs.buttons),
            "answer": _answer(view, lambda asked: isinstance(asked, Press) or _sets(asked, "own")),
        },
    }


def undo(view: View) -> Json:
    """Whether the latest change can be asked back, and which one that is, as far as it is known."""
    last = next((each for each in reversed(view.outcomes) if each.ok and isinstance(each.command, _MOVES)), None)
    known = f": {last.command.changes}" if last is not None and isinstance(last.command, SetKnobs) else ""
    return {"able": bool(view.runs), "title": f"take the latest change back{known}"}


_MOVES: Final = (SetKnobs, Undo, Rewind, Checkout, Rerun, *get_args(Refit))


def panels(shown: Iterable[OwnPanel]) -> Json:
    """What the user's functions gave: texts, and pictures as base64 of their PNG."""
    return [_panel(each) for each in shown]


def _panel(panel: OwnPanel) -> Json:
    text, picture = panel.text, panel.picture
    if picture and (len(picture) > LARGEST_PICTURE or not picture.startswith(PNG)):
        size = f"a picture of {words.size(len(picture))} is too large to be shown here"
        text, picture = size if picture.startswith(PNG) else "a picture that is no PNG", b""
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]} …"
    png = base64.b64encode(picture).decode()
    return {"name": panel.name, "where": f"epoch {words.count(panel.epoch)}", "text": text, "png": png}


def _sets(command: Command, what: str) -> bool:
    return isinstance(command, SetKnobs) and bool(getattr(command.changes, what))


def _answer(view: View, is_meant: Callable[[Command], bool]) -> Json:
    """What became of the latest command of a kind; ``None`` while none was given."""
    last = next((each for each in reversed(view.outcomes) if is_meant(each.command)), None)
    if last is None:
        return None
    return {"ok": last.ok, "text": last.text, "where": f"{tree.shown(view, last.run)}, step {words.count(last.step)}"}


def _option(knob: OptionKnob) -> Json:
    option = knob.option
    values = [[group, value if isinstance(value, bool) else _finite(value)] for group, value in knob.values]
    distinct = list(dict.fromkeys(value for _, value in knob.values))
    return {
        "name": option.name,
        "title": "; ".join(part for part in (option.text, "" if knob.fixed else option.on_change) if part),
        "switch": option.type is OptionType.SWITCH,
        "whole": option.type is OptionType.COUNT,
        "low": _finite(option.low),
        "high": _finite(option.high),
        "low_open": False,
        "high_open": not option.closed,
        "values": values,
        "in_force": " / ".join(map(_word, distinct[:4])) + (" …" if len(distinct) > 4 else ""),
        "differ": len(distinct) > 1,
        "fixed": knob.fixed,
    }


def _word(value: float | bool) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else f"{value:g}"


def _own(knob: OwnKnob) -> Json:
    on_log = knob.log and 0 < knob.low < knob.high
    return {"name": knob.name, "value": knob.value, "low": knob.low, "high": knob.high, "log": on_log}


def _schedule(view: View) -> Json:
    kinds = [_kind(kind) for kind in ScheduleKind]
    rate = next((group.asked for group in view.knobs.groups), None)
    return {
        "name": view.knobs.schedule,
        "text": view.knobs.schedule_text or view.knobs.schedule,
        "rate": _finite(rate) if rate is not None else None,
        "kinds": [{"name": NO_SCHEDULE, "parameters": [], "warm_up": False, "total": False}, *kinds],
        "warm_up": [_parameter(each) for each in WARM_UP],
        "lengths": _lengths(view),
        "total_title": TOTAL,
        "answer": _answer(view, lambda asked: isinstance(asked, SetSchedule)),
    }


def _kind(kind: ScheduleKind) -> Json:
    return {
        "name": str(kind),
        "parameters": [_parameter(each) for each in PARAMETERS[kind]],
        "warm_up": kind not in WARMS_UP_ITSELF,
        "total": kind in NEEDS_TOTAL,
    }


def _parameter(each: ScheduleParameter) -> Json:
    return {
        "name": each.name,
        "usual": each.default,
        "low": _finite(each.low),
        "high": _finite(each.high),
        "low_open": each.low_open,
        "high_open": each.high_open,
        "whole": each.whole,
        "title": each.text,
    }


def _lengths(view: View) -> Json:
    """How long a schedule would be by default: to the run's goal, as far as there is one."""
    status = view.status
    left = (status.goal_epoch or 0) - status.epoch
    epochs = left if left > 1 else USUAL_EPOCHS
    return {"epoch": epochs, "batch": epochs * status.batches if status.batches else USUAL_BATCHES}


def _layers(view: View, knobs: KnobStates, layers: Iterable[str]) -> Json:
    return {
        "names": list(layers),
        "activations": [list(each) for each in knobs.activations],
        "kinds": list(knobs.activation_kinds),
        "frozen": list(knobs.frozen),
        "answers": {
            "activation": _answer(view, lambda asked: isinstance(asked, SwapActivations)),
            "freeze": _answer(view, lambda asked: isinstance(asked, Freeze)),
            "norms": _answer(view, lambda asked: isinstance(asked, EditNorms)),
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
