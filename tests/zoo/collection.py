"""All programs of the zoo: those that checks are tuned on, and those held out from that."""

from __future__ import annotations

from fnmatch import fnmatch

from tests.zoo import (
    articles,
    data_order,
    data_values,
    healthy_data,
    healthy_losses,
    healthy_networks,
    healthy_sequences,
    healthy_tasks,
    healthy_training,
    held_out,
    init,
    layout,
    live_healthy,
    live_runs,
    live_updates,
    losses,
    shapes,
    wiring,
)
from tests.zoo.program import Program

MODULES = (
    losses,
    shapes,
    wiring,
    init,
    layout,
    data_values,
    data_order,
    articles,
    live_updates,
    live_runs,
    live_healthy,
    healthy_training,
    healthy_losses,
    healthy_networks,
    healthy_sequences,
    healthy_data,
    healthy_tasks,
)
HELD_OUT = (held_out,)


def programs(*, held_out: bool = False) -> tuple[Program, ...]:
    """Every program, or with ``held_out`` those that nothing may be tuned on."""
    return tuple(program for module in (HELD_OUT if held_out else MODULES) for program in module.SHELF.programs)


def chosen(pattern: str, *, held_out: bool = False) -> tuple[Program, ...]:
    """Those whose name, cause, family or kind fits a pattern with ``*``, or contains it."""
    wanted = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    return tuple(
        program
        for program in programs(held_out=held_out)
        if any(fnmatch(word, wanted) for word in (program.name, program.cause, program.family, program.kind))
    )


def named(name: str) -> Program:
    """The program of this name."""
    for program in (*programs(), *programs(held_out=True)):
        if program.name == name:
            return program
    raise KeyError(f"no program of the zoo is called {name!r}")
