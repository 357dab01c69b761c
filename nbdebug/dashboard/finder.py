"""The learning-rate finder's tab besides its chart: what to ask for, what it costs, what it suggests. Pure."""

from __future__ import annotations

import math
from typing import Final

from nbdebug.dashboard import ability, tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.commands import FindLr
from nbdebug.records.finder import ACTIVITY, LrCurve
from nbdebug.records.view import View

FINDER_TAB: Final = "finder"
USUAL: Final = FindLr()
NO_RATE: Final = "the optimizer has no learning rate"


def state(view: View) -> Json:
    """The form's usual values and the price of a step, what is under way, what the latest test said."""
    curve = view.lr_curve
    return {
        "usual": {"low": USUAL.low, "high": USUAL.high, "steps": USUAL.steps},
        "step_s": float(f"{ability.step_s(view):.2g}"),
        "blocked": ability.blocked(view) or ("" if view.knobs.groups else NO_RATE),
        "stored": view.stored,
        "doing": view.status.activity if view.status.activity.startswith(ACTIVITY) else "",
        "refusal": _refusal(view),
        "taken": _taken(view, curve) if curve is not None else "",
        "note": curve.note if curve is not None else "",
        "suggestions": [_suggestion(view, *each) for each in curve.suggestions] if curve is not None else [],
        "schedule": _schedule(view) if curve is not None and curve.suggestions else "",
    }


def _refusal(view: View) -> str:
    """Why the latest test asked for came to nothing; empty if it did not."""
    asked = next((each for each in reversed(view.outcomes) if isinstance(each.command, FindLr)), None)
    return asked.text if asked is not None and not asked.ok else ""


def _taken(view: View, curve: LrCurve) -> str:
    """``taken after step 120 of main: 88 of 100 rates, 1.0e-7 to 1.1e0``."""
    text = f"taken after step {words.count(curve.step)} of {tree.shown(view, curve.run)}"
    if curve.rates.size:
        of = f" of {words.count(curve.planned)}" if curve.planned > curve.rates.size else ""
        ends = f"{words.rate(float(curve.rates[0]))} to {words.rate(float(curve.rates[-1]))}"
        text += f": {words.count(curve.rates.size)}{of} rates, {ends}"
    return text


def _suggestion(view: View, name: str, rate: float) -> Json:
    present = in_force(view)
    return {
        "name": name,
        "rate": rate,
        "text": words.rate(rate),
        "on": present is not None and math.isclose(present, rate, rel_tol=1e-3),
    }


def _schedule(view: View) -> str:
    schedule = view.knobs.schedule
    return f"{schedule} goes on from what is set here" if schedule else ""


def in_force(view: View) -> float | None:
    """The first group's rate as it was asked for, ``None`` where none is known."""
    return view.knobs.groups[0].asked if view.knobs.groups else None
