"""The search's tab besides its picture: what can be tried, what is under way, what was found. Pure; drawing thread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nbdebug.dashboard import ability, tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.commands import Search
from nbdebug.records.optimizers import OptionType
from nbdebug.records.search import ACTIVITY, SearchEngine, SearchResult, Trial
from nbdebug.records.status import KnobStates, OptionKnob
from nbdebug.records.view import View

SEARCH_TAB: Final = "search"
NOTHING: Final = "no knob that could be tried"
ENGINES: Final = {SearchEngine.RANDOM: "at random, or all", SearchEngine.OPTUNA: "learning from those before"}
USUAL: Final = {
    "weight_decay": "0, 1e-4, 1e-2",
    "momentum": "0.5, 0.9, 0.99",
    "beta1": "0.8, 0.9, 0.95",
    "beta2": "0.98, 0.99, 0.999",
}
LONGEST_VALUE = 16
NUMBER: Final = "number"


def state(view: View) -> Json:
    """The form's choices and the price of a step, what is under way, the latest search as a table."""
    options, found = view.search_options, view.search
    missing = dict(options.missing)
    return {
        "blocked": ability.blocked(view) or ("" if knobs(view.knobs) else NOTHING),
        "stored": view.stored,
        "knobs": [list(each) for each in knobs(view.knobs)],
        "measures": [[name, "lower" if lower else "higher"] for name, lower in options.measures],
        "engines": [[str(name), text, missing.get(name, "")] for name, text in ENGINES.items()],
        "step_s": float(f"{ability.step_s(view):.2g}"),
        "restore_s": float(f"{options.restore_s:.2g}"),
        "batches": view.status.batches,
        "doing": _doing(view),
        "refusal": _refusal(view),
        "found": _found(view, found) if found is not None else None,
    }


def knobs(states: KnobStates) -> list[tuple[str, str, str]]:
    """The knobs that can be tried: its name, what one might try, as it is typed, and of which kind its values are."""
    found = []
    if states.groups:
        found.append(("lr", _around(states.groups[0].asked, "1e-4 to 1e-1"), NUMBER))
        found += [("clip_norm", "off, 0.5, 1", "clip"), ("clip_value", "off, 0.1, 1", "clip")]
    found += [("dropout", "0, 0.1, 0.3", NUMBER)] if states.dropout else []
    found += [_of_option(knob) for knob in states.options if not knob.fixed]
    return found + [(knob.name, f"{knob.low:g} to {knob.high:g}", NUMBER) for knob in states.own]


def _of_option(knob: OptionKnob) -> tuple[str, str, str]:
    name = knob.option.name
    if knob.option.type is OptionType.SWITCH:
        return name, "on, off", "switch"
    present = next((float(value) for _, value in knob.values), math.nan)
    return name, USUAL.get(name) or _around(present, "0, 1e-4, 1e-2"), NUMBER


def _around(value: float, otherwise: str) -> str:
    return f"{value / 10:g}, {value:g}, {value * 10:g}" if value > 0 and math.isfinite(value) else otherwise


def _doing(view: View) -> Json:
    """The search under way: in words, how far it is as a share; ``None`` without one."""
    if not view.status.activity.startswith(ACTIVITY):
        return None
    found = view.search
    share = len(found.trials) / found.planned if found is not None and found.planned else 0.0
    return {"text": view.status.activity, "share": round(share, 3)}


def _refusal(view: View) -> str:
    """Why the latest search asked for came to nothing; empty if it did not."""
    asked = next((each for each in reversed(view.outcomes) if isinstance(each.command, Search)), None)
    return asked.text if asked is not None and not asked.ok else ""


def _found(view: View, found: SearchResult) -> Json:
    names = tuple(found.space)
    there = {run.run.name for run in view.runs}
    held = "" if view.stored else view.status.run
    return {
        "about": _about(view, found),
        "note": found.note,
        "heads": ["trial", found.measure, *names, "steps", "run", "ended early"],
        "rows": [_row(view, found, trial, names, trial.run in there, trial.run == held) for trial in found.trials],
        "best": best.number if (best := best_of(found)) is not None else None,
    }


def _row(view: View, found: SearchResult, trial: Trial, names: Sequence[str], there: bool, held: bool) -> Json:
    score = words.number(trial.score) if math.isfinite(trial.score) else "not finite"
    values = [value_text(trial.setting.get(name)) for name in names]
    return {
        "number": trial.number,
        "run": trial.run,
        "cells": [score, *values, words.count(trial.steps), tree.shown(view, trial.run), trial.ended],
        "able": there and not view.stored,
        "in_model": held,
    }


def best_of(found: SearchResult) -> Trial | None:
    """The best that went to its end, if one did."""
    first = next(iter(found.trials), None)
    return first if first is not None and not first.ended and math.isfinite(first.score) else None


def _about(view: View, found: SearchResult) -> str:
    """``9 of 12 trials of 40 steps from step 400 of main, 3 ended early; val_loss, lower is better``."""
    made = len(found.trials)
    count = words.plural(found.planned, "trial") if made == found.planned else f"{made} of {found.planned} trials"
    ended = sum(bool(trial.ended) for trial in found.trials)
    engine = " by Optuna" if found.engine is SearchEngine.OPTUNA else ""
    text = f"{count} of {words.plural(found.steps, 'step')}{engine} from step {words.count(found.step)} of "
    text += tree.shown(view, found.run) + (f", {ended} ended early" if ended else "")
    return f"{text}; {found.measure}, {'lower' if found.lower_is_better else 'higher'} is better"


def readout(found: SearchResult) -> str:
    """``best trial 14: val_loss 0.221 with lr 0.0213 · dotted: ended early``."""
    best = best_of(found)
    if best is None:
        return "no trial went to its end" if found.trials else ""
    values = ", ".join(f"{name} {value_text(best.setting.get(name))}" for name in found.space)
    dotted = (
        " · dotted: ended early" if any(trial.ended and math.isfinite(trial.score) for trial in found.trials) else ""
    )
    return f"best trial {best.number}: {found.measure} {words.number(best.score)} with {values}{dotted}"


def value_text(value: Any) -> str:
    """A knob's value as it is shown."""
    if value is None or isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return words.shorten(", ".join(f"{name} {value_text(each)}" for name, each in value.items()), 2 * LONGEST_VALUE)
    if isinstance(value, (int, float)):
        return f"{value:g}" if abs(value - float(f"{value:g}")) <= 1e-12 * abs(value) else words.number(value)
    return words.shorten(str(value), LONGEST_VALUE)
