"""The optimizers' options as knobs: momentum, betas, weight decay and their like, by parameter group. Training thread.

What a schedule writes at each step (the momentum of a one-cycle) is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch.optim import Optimizer

from nbdebug.records.commands import OptionValue
from nbdebug.records.status import OptionKnob
from nbdebug.training import optimizer_options
from nbdebug.training.optimizer_groups import is_split_off
from nbdebug.training.optimizer_options import known_option, option_mistakes, options_of, set_options

RATE = "lr"
CYCLED = ("momentum", "beta1")
BY_A_SCHEDULE = "is written by the schedule at each step"
Values = dict[str, dict[str, float | bool]]


class Group(Protocol):
    """A parameter group, by the name that the person uses."""

    name: str
    optimizer: Optimizer
    index: int


def present(groups: Sequence[Group], schedulers: Iterable[Any]) -> Values:
    """By option and group, the values of those that can be changed."""
    found: Values = {}
    for knob in knobs(groups, schedulers):
        if not knob.fixed:
            found[knob.option.name] = dict(knob.values)
    return found


def knobs(groups: Sequence[Group], schedulers: Iterable[Any]) -> tuple[OptionKnob, ...]:
    """All options but for the rate, each with its value in the groups that have it, or why it can't be changed."""
    cycled = [scheduler.optimizer for scheduler in schedulers if getattr(scheduler, "cycle_momentum", False)]
    values: dict[str, list[tuple[str, float | bool]]] = {}
    found: dict[str, OptionKnob] = {}
    for group in groups:
        for state in options_of(group.optimizer, group.index):
            name = state.option.name
            if name == RATE or state.value is None:
                continue
            by_schedule = name in CYCLED and any(group.optimizer is each for each in cycled)
            values.setdefault(name, []).append((group.name, state.value))
            fixed = BY_A_SCHEDULE if by_schedule else state.fixed
            found[name] = OptionKnob(state.option, tuple(values[name]), fixed)
    return tuple(found.values())


def mistakes(groups: Sequence[Group], schedulers: Iterable[Any], options: Mapping[str, OptionValue]) -> list[str]:
    """Why these can't be set, a line for each reason."""
    if not groups:
        return ["the optimizer has no options that are known"]
    fixed = {knob.option.name: knob.fixed for knob in knobs(groups, schedulers)}
    found = [f"{name} can't be set: it {fixed[name]}" for name in options if fixed.get(name) == BY_A_SCHEDULE]
    names = [group.name for group in groups]
    for name, value in options.items():
        strangers = [each for each in value if each not in names] if isinstance(value, Mapping) else []
        found += [
            f"{name}: no parameter group {each!r} (there are {', '.join(map(repr, names))})" for each in strangers
        ]
    for group, changes in _by_group(groups, options):
        found += option_mistakes(group.optimizer, group.index, changes)
    return list(dict.fromkeys(found))


def apply(groups: Sequence[Group], options: Mapping[str, OptionValue]) -> None:
    """Set options that have no :func:`mistakes`."""
    for group, changes in _by_group(groups, options):
        set_options(group.optimizer, group.index, changes)


def is_meant(group: str, option: str, value: OptionValue) -> bool:
    """Whether a value is for this group: by its name, or as one of all. Those split off as not decayed stay so."""
    if isinstance(value, Mapping):
        return group in value
    return option != "weight_decay" or not is_split_off(group)


def _by_group(groups: Sequence[Group], options: Mapping[str, OptionValue]) -> Iterator[tuple[Group, dict[str, Any]]]:
    for group in groups:
        chosen = {
            name: value[group.name] if isinstance(value, Mapping) else value
            for name, value in options.items()
            if is_meant(group.name, name, value)
        }
        if chosen:
            yield group, chosen


def parse(given: Mapping[str, Any]) -> dict[str, OptionValue]:
    """Options as one writes them, pairs such as ``betas`` taken apart; for all groups, or by group's name."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            for group, part in value.items():
                for own, each in optimizer_options.taken_apart({name: part}).items():
                    found.setdefault(own, {})[str(group)] = each
        else:
            found.update(optimizer_options.taken_apart({name: value}))
    return found


def assignments(group: Group, name: str, value: float | bool) -> tuple[str, str]:
    """Key of the group, and the expression to assign to it, ``{}`` standing for the group."""
    option = known_option(name)
    if option.index is None:
        return option.key, repr(value)
    held = group.optimizer.param_groups[group.index][option.key]
    parts = [repr(value) if k == option.index else f'{{}}["{option.key}"][{k}]' for k in range(len(held))]
    return option.key, f"({', '.join(parts)})"
