"""Numbers that were taken out of torch, and come back as a summand of the loss: they count for nothing. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nbdebug.checks.preflight.lossward import weighed
from nbdebug.checks.preflight.trace import Call, StepTrace

SUMS = frozenset({"add", "radd", "iadd", "sub", "subtract", "rsub", "isub"})
MADE_OF_NUMBERS = frozenset({"tensor", "as_tensor", "full", "scalar_tensor"})
EXACT = 1e-6  # relative; numbers in Python keep all digits
MOST_TAKEN = 200
DIFFERENT = 1e-4  # relative; what does not change from step to step may be a constant


@dataclass(frozen=True, slots=True)
class NumberAdded:
    """A summand of the loss, and the call that took it, or the first part of it, out of torch; ``value`` as added."""

    left: Call
    added: Call
    value: float


def numbers_added(traces: Sequence[StepTrace]) -> list[NumberAdded]:
    """Summands that are, in two steps, the same multiple of what learns and left torch before them.

    What also reaches ``backward`` as a tensor is none of these: then the number only shifts the loss.
    """
    if len(traces) < 2:
        return []
    pairs = zip(_summands(traces[0]), _summands(traces[1]), strict=False)
    found = []
    for (added, first), (also, second) in pairs:
        if (added.name, added.line) == (also.name, also.line) and _differ(first, second):
            left = _taken_from(traces[0], traces[1], (added, first), (also, second))
            found += [NumberAdded(left, added, first)] if left is not None else []
    return found


def _summands(trace: StepTrace) -> list[tuple[Call, float]]:
    """Sums of one number each on the way to ``backward``, with what is added that does not learn."""
    found = []
    for index in sorted(weighed(trace, through=True)):
        call = trace.calls[index]
        if call.name.strip("_") in SUMS and call.outputs and math.prod(trace.values[call.outputs[0]].shape) == 1:
            value = _number(trace, call)
            found += [(call, value)] if value is not None else []
    return found


def _number(trace: StepTrace, call: Call) -> float | None:
    """The summand that is a number, or a tensor made of one."""
    other = call.option("other", 0) if len(call.inputs) == 1 else None
    for number in call.inputs if len(call.inputs) == 2 else ():
        _, made = trace.origin(number, call.index)
        if made is not None and made.name in MADE_OF_NUMBERS and not made.inputs:
            other = next((each for each in made.rest if isinstance(each, float)), None)
    return float(other) if isinstance(other, (int, float)) and not isinstance(other, bool) and other else None


def _differ(one: float, other: float) -> bool:
    return math.isfinite(one) and math.isfinite(other) and abs(one - other) > DIFFERENT * max(abs(one), abs(other))


def _taken_from(
    first: StepTrace, second: StepTrace, added: tuple[Call, float], also: tuple[Call, float]
) -> Call | None:
    """Which number, or sum of the numbers that one line took out, the summand is the same multiple of."""
    before, after = (_taken(trace, each[0].index) for trace, each in ((first, added), (second, also)))
    if [call.line for call, _ in before] != [call.line for call, _ in after]:
        return None
    lines = list(dict.fromkeys(call.line for call, _ in before))
    groups = [[place] for place in range(len(before))]
    groups += [[place for place, (call, _) in enumerate(before) if call.line == line] for line in lines]
    for group in groups:
        here, there = (sum(taken[place][1] for place in group) for taken in (before, after))
        if _differ(here, there) and abs(added[1] * there - also[1] * here) <= EXACT * abs(added[1] * there):
            return before[group[0]][0]
    return None


def _taken(trace: StepTrace, until: int) -> list[tuple[Call, float]]:
    """Numbers that left torch before a call and depend on weights, but for what reaches ``backward`` as well."""
    reach = weighed(trace, through=True)
    found = []
    for call in trace.exits[:MOST_TAKEN]:
        value, number = call.options.get("result"), call.inputs[0] if call.inputs else 0
        made = trace.origin(number, call.index)[1]
        if call.index > until or not isinstance(value, float) or (made is not None and made.index in reach):
            continue
        if any(source.startswith(("weight ", "held ", "hidden ")) for source in trace.sources(number, call.index)):
            found.append((call, value))
    return found
