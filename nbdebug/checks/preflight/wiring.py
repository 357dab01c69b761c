"""What hangs together in a step: who uses a tensor, what learns, and where a path from weights to loss ends. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from nbdebug.checks.preflight.freshness import State, state_of
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Call, StepTrace

WEIGHT = "weight "


def consumers(trace: StepTrace) -> dict[int, list[Call]]:
    """The calls that take each tensor."""
    found: dict[int, list[Call]] = {}
    for call in trace.calls:
        for number in dict.fromkeys(call.inputs):
            found.setdefault(number, []).append(call)
    return found


def weights_of(trace: StepTrace, call: Call) -> list[str]:
    """The model's parameters that a call works with."""
    sources = (trace.values[number].source for number in call.inputs if number in trace.values)
    return [source.removeprefix(WEIGHT) for source in sources if source.startswith(WEIGHT)]


def descendants(users: dict[int, list[Call]], call: Call) -> Iterator[Call]:
    """Every later call that depends on a call's outputs, each once."""
    queue, seen = [call], {call.index}
    while queue:
        for number in queue.pop().outputs:
            for each in users.get(number, []):
                if each.index > call.index and each.index not in seen:
                    seen.add(each.index)
                    queue.append(each)
                    yield each


def moving(look: Look) -> frozenset[str]:
    """The parameters that moved in a step that was looked at, by whomever they were moved."""
    return frozenset(name for trace in look.traces for name, far in trace.moved.items() if far > 0)


def reached(look: Look) -> frozenset[str]:
    """The parameters that a loss reached in any step looked at, or that got a gradient that is not zero."""
    by_graph = (backward.reached for trace in look.traces for backward in trace.backwards)
    with_gradient = (
        name for trace in look.traces for update in trace.updates for name, norm in update.norms.items() if norm != 0
    )
    return frozenset[str](with_gradient).union(*by_graph)


def state_of_layers(look: Look, say_step: int, layers: Collection[str]) -> State:
    """Whether these layers look drawn or learnt."""
    return state_of(look.modules, layers, say_step + look.steps)


def twins(look: Look, name: str) -> list[str]:
    """Parameters that had the very same values when the step began, as a copy has."""
    norms, parameters = look.trace.norms, look.parameters
    mine = norms.get(name, 0.0)
    return [
        other
        for other, norm in norms.items()
        if other != name and mine > 0 and norm == mine and parameters[other].shape == parameters[name].shape
    ]


def listed(names: Collection[str], most: int = 4) -> str:
    """The first few of these, as text."""
    return ", ".join(list(names)[:most]) + (", …" if len(names) > most else "")


def weights_in(look: Look, names: Collection[str]) -> int:
    """How many numbers these parameters hold."""
    return sum(look.parameters[name].numel() for name in names)
