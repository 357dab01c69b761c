"""A breakpoint's condition: text, checked once against the signals there are, then judged step by step. Any thread.

The language is in :mod:`nbdebug.breakpoints.language`. Nothing of the text is ever run as Python.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from nbdebug.breakpoints.errors import ConditionError, refusal
from nbdebug.breakpoints.known import Known
from nbdebug.breakpoints.language import parse
from nbdebug.breakpoints.meaning import Meaning
from nbdebug.breakpoints.moment import NOTHING, Moment, Reading, Verdict

__all__ = ["Condition", "ConditionError", "Reading", "compile_condition"]


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A checked condition. ``longest_window`` says what it reads, and how many values before the present one of each.

    ``max(update_ratio)`` reads ``Reading("update_ratio", "*")``, which stands for all layers that have a value.
    """

    text: str
    longest_window: Mapping[Reading, int]
    _holds: Verdict

    @property
    def readings(self) -> frozenset[Reading]:
        """All that it reads."""
        return frozenset(self.longest_window)

    def judge(self, values: Mapping[Reading, float], past: Mapping[Reading, Sequence[float]]) -> bool | None:
        """Whether it holds now; ``None`` where that hangs on a value that is not there, or on too short a past.

        ``values`` are the present ones, of single layers too; ``past`` those before, oldest first. Arithmetic is
        numpy's: what can't be worked out is NaN or infinite, and NaN compares as False (``!=`` as True). So it is
        with a NaN within a window or among the layers.
        """
        with np.errstate(all="ignore"):
            return self._holds(Moment(values, past))


def compile_condition(
    text: str, names: Collection[str], layers: Collection[str] = (), layer_names: Collection[str] = ()
) -> Condition:
    """The condition that ``text`` says; :class:`ConditionError` where it is none, or could never change.

    ``names`` may be read alone, such as ``loss``; ``layer_names`` of one of the ``layers``, or over all of them.
    """
    if not isinstance(text, str):
        raise refusal("", 1, f"a condition is a text, not {type(text).__name__}", 'Write it in quotes: "loss > 5".')
    meaning = Meaning(Known(text, names, layers, layer_names))
    with np.errstate(all="ignore"):
        holds = meaning.truth(parse(text))
        always = holds(NOTHING)
    condition = Condition(text, MappingProxyType(meaning.windows), holds)
    if always is not None or not condition.readings:
        why = "whatever the signals are" if condition.readings else "it reads no signal"
        problem = f"this is always {str(always).lower()}: {why}"
        raise refusal(text, 1, problem, "Write what training should stop at: loss > 5.")
    return condition
