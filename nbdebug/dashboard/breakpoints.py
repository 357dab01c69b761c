"""Breakpoints and the stop within a step, as the browser is to show them. Drawing thread.

All pure but for :class:`Answers`, which remembers which answers were told already.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from nbdebug.dashboard import ability, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.commands import AddBreakpoint, Outcome
from nbdebug.records.status import State
from nbdebug.records.stops import Breakpoint, Halt
from nbdebug.records.view import View

LONGEST_TEXT = 1_000
BACK_AND_SKIP = "go back to before the step, and leave its batch out"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SUBJECT = r"""(?P<over>max|min)\(\s*(?P<all>\w+)\s*\)|(?P<name>\w+)\s*(?:\[\s*(?P<layer>"[^"]*"|'[^']*')\s*\])?"""
_SIMPLE = re.compile(rf"\s*(?:{_SUBJECT})\s*(?P<sign>[<>])=?\s*(?P<value>{_NUMBER})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a simple condition such as ``loss > 2.5`` or ``max(grad_norm) > 2.5`` waits for.

    ``sign`` is ``">"`` or ``"<"``; ``over`` is ``"max"`` or ``"min"`` of all layers, or empty; ``layer`` is one's name.
    """

    sign: str
    value: float
    enabled: bool
    over: str = ""
    layer: str = ""


class Answers:
    """Numbers what became of conditions that were asked for, so that a browser knows a new answer from an old one."""

    def __init__(self) -> None:
        self._last: Outcome | None = None
        self._number = 0

    def latest(self, view: View) -> Json:
        """The latest answer, or ``None`` while there is none."""
        asked = (each for each in reversed(view.outcomes) if isinstance(each.command, AddBreakpoint))
        last = next(asked, None)
        if last is not None and last is not self._last:
            self._last, self._number = last, self._number + 1
        if self._last is None or not isinstance(self._last.command, AddBreakpoint):
            return None
        return {
            "number": self._number,
            "condition": self._last.command.condition,
            "ok": self._last.ok,
            "text": self._last.text,
        }


def state(view: View, answer: Json = None) -> Json:
    """The list, and the latest answer to what was asked for."""
    hit = view.stop.breakpoint if view.stop is not None else 0
    return {
        "items": [_item(each, lit=each.number == hit) for each in view.breakpoints],
        "answer": answer,
        "blocked": ability.STORED if view.stored else "",
    }


def _item(each: Breakpoint, *, lit: bool) -> Json:
    return {
        "number": each.number,
        "text": each.text[:LONGEST_TEXT],
        "when": "before the update" if each.before_update else "after the step",
        "enabled": each.enabled,
        "hits": f"×{words.count(each.hits)}" if each.hits else "",
        "note": each.note,
        "lit": lit,
    }


def thresholds(view: View, signal: str) -> list[Threshold]:
    """The simple conditions on a signal, those that compare it with a number."""
    found = []
    for each in view.breakpoints:
        match = _SIMPLE.fullmatch(each.text[:LONGEST_TEXT])
        if match and signal in (match["name"], match["all"]) and math.isfinite(float(match["value"])):
            layer = (match["layer"] or "")[1:-1]
            found.append(Threshold(match["sign"], float(match["value"]), each.enabled, match["over"] or "", layer))
    return found


def aims(view: View, signal: str) -> dict[str, Json]:
    """What a chart of ``signal`` shows of the breakpoints on it; ``of`` is a layer, ``*`` for all, or empty."""
    lines = [
        {
            "value": each.value,
            "text": f"{each.over} {each.sign} {each.value:g}".strip(),
            "enabled": each.enabled,
            "of": "*" if each.over else each.layer,
        }
        for each in thresholds(view, signal)
    ]
    return {"name": signal, "lines": lines, "able": not view.stored}


def stop(view: View) -> Json:
    """Where training stands within a step, or that it failed, and what can be done; ``None`` otherwise."""
    made = view.stop
    if view.status.state is State.FAILED and not view.stored:
        return _failed(view)
    if made is None or view.stored:
        return None
    return {
        "text": " ".join(sentence(made).split()),
        "title": sentence(made),
        "tone": tone(made),
        "blocked": ability.blocked(view),
        "failed": False,
        "skip": "leave the batch out" if made.before_update else BACK_AND_SKIP,
    }


def _failed(view: View) -> Json:
    """The user's code raised something: the model can be put to before the step, its batch at hand."""
    message = view.status.message or "an error was raised"
    return {
        "text": " ".join(message.split()),
        "title": message,
        "tone": "bad",
        "blocked": ability.blocked(view),
        "failed": True,
        "skip": BACK_AND_SKIP,
    }


def sentence(made: Halt) -> str:
    """``stopped at step 412, before the update: grad_norm > 5``."""
    when = "before the update" if made.before_update else "after the step"
    return f"stopped at step {words.count(made.step)}, {when}" + (f": {made.why}" if made.why else "")


def tone(made: Halt) -> str:
    """The colour of a stop: something is broken, or a breakpoint was hit."""
    return "warn" if made.breakpoint else "bad"
