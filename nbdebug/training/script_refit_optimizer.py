"""A swap of optimizer, and a schedule, as lines of Python: constructed as the debugger does, the state carried over.

Pure functions of what was converted or built; an optimizer's state is written from the recipes it was made by.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from nbdebug.records.schedules import PARAMETERS, Schedule, ScheduleKind
from nbdebug.training.optimizers import Conversion
from nbdebug.training.script_words import number, quoted, wrapped

SKIPPED = ("params", "param_names")
SHAPES = {
    ScheduleKind.CONSTANT: "constant",
    ScheduleKind.STEP: "stairs",
    ScheduleKind.EXPONENTIAL: "exponential",
    ScheduleKind.COSINE: "cosine",
    ScheduleKind.ONE_CYCLE: "one_cycle",
    ScheduleKind.CYCLIC: "cyclic",
}
LONGEST = 104


def swap_lines(name: str, old: Optimizer, made: Conversion, schedulers: Sequence[str]) -> list[str]:
    """The optimizer of this name becomes another; these schedulers, and what they keep, move to it."""
    new = made.optimizer
    place = f"optimizers[{quoted(name)}]"
    arguments = _arguments(new)
    usual, pairs = {**_defaults(type(new)), **arguments}, zip(old.param_groups, new.param_groups, strict=True)
    groups = [_group(index, *pair, usual) for index, pair in enumerate(pairs)]
    given = [f"{key}={_literal(value)}" for key, value in arguments.items()]
    lines = [f"old = {place}", f"{place} = torch.optim.{type(new).__name__}(", "    ["]
    lines += [f"        {line}" for group in groups for line in group]
    lines += ["    ],", *(f"    {each}," for each in given), ")"]
    if len(groups) == 1 and len(groups[0]) == 1:
        short = f"torch.optim.{type(new).__name__}([{groups[0][0].removesuffix(',')}], {', '.join(given)})"
        lines = [f"old = {place}", f"{place} = {short}"] if len(place + short) < LONGEST else lines
    lines += _state_lines(place, old, made)
    for scheduler in schedulers:
        ratios = ", ".join(repr(ratio) for ratio in made.ratios)
        lines.append(f"move_scheduler(schedulers[{quoted(scheduler)}], {place}, [{ratios}])")
    return lines


def schedule_lines(name: str, schedule: Schedule, rates: Sequence[float], done: int) -> list[str]:
    """Another schedule of an optimizer, with these rates at its highest, so many positions being over."""
    place = f"optimizers[{quoted(name)}]"
    lines = [f'{place}.param_groups[{k}]["initial_lr"] = {number(rate)}' for k, rate in enumerate(rates)]
    target = f"schedulers[{quoted(name)}] = "
    if schedule.kind is ScheduleKind.PLATEAU:
        numbers = {each.name: getattr(schedule, each.name) for each in PARAMETERS[schedule.kind]}
        numbers |= {"warmup_steps": schedule.warmup_steps, "warmup_start": schedule.warmup_start, "done": done}
        options = [f"{key}={value!r}" for key, value in numbers.items()]
        rates_text = f"[{', '.join(map(number, rates))}]"
        lines += wrapped(f"{target}WarmPlateau(", [place, rates_text, *options], ")")
    else:
        lines += wrapped("factor = Factor(", _shape(schedule), ")")
        lines.append(f"{target}LambdaLR({place}, factor, last_epoch={done - 1})")
    return [*lines, f"schedule.interval = {quoted(str(schedule.interval))}"]


def _shape(schedule: Schedule) -> list[str]:
    numbers = {each.name: getattr(schedule, each.name) for each in PARAMETERS[schedule.kind]}
    if schedule.total is not None:
        numbers["total"] = schedule.total
    if schedule.warmup_steps or schedule.kind is ScheduleKind.COSINE:
        numbers |= {"warmup_steps": schedule.warmup_steps, "warmup_start": schedule.warmup_start}
    return [SHAPES[schedule.kind], *(f"{key}={value!r}" for key, value in numbers.items())]


def constant_lines(name: str, rates: Sequence[float], tensors: Sequence[bool]) -> list[str]:
    """Without a schedule: the rate that was asked for, in each group."""
    lines = ["schedulers.clear()"]
    for index, (rate, is_tensor) in enumerate(zip(rates, tensors, strict=True)):
        group = f"optimizers[{quoted(name)}].param_groups[{index}]"
        lines.append(f'{group}["lr"].fill_({number(rate)})' if is_tensor else f'{group}["lr"] = {number(rate)}')
        lines.append(f'{group}.pop("initial_lr", None)')
    return lines


def given_lines(name: str, rates: Sequence[Mapping[str, Any]], moved: Sequence[str], interval: str) -> list[str]:
    """The schedule that was given goes on, with the rates that it had left in each group."""
    place = f"optimizers[{quoted(name)}]"
    lines = ["schedulers.clear()", "schedulers.update(given)"]
    ones = ", ".join("1.0" for _ in rates)
    lines += [f"move_scheduler(schedulers[{quoted(each)}], {place}, [{ones}])" for each in moved]
    for index, kept in enumerate(rates):
        group = f"{place}.param_groups[{index}]"
        for key, value in kept.items():
            in_place = key == "lr" and isinstance(value, torch.Tensor)
            text = number(float(value)) if isinstance(value, (float, torch.Tensor)) else repr(value)
            lines.append(f'{group}["lr"].fill_({text})' if in_place else f"{group}[{quoted(key)}] = {text}")
        lines += [f"{group}.pop({quoted(key)}, None)" for key in ("initial_lr",) if key not in kept]
    return [*lines, f"schedule.interval = {quoted(interval)}"]


# -- the optimizer --------------------------------------------------------------------------------------------------


def _arguments(new: Optimizer) -> dict[str, Any]:
    """Those that the constructor was given and that are not its own defaults."""
    known, usual = inspect.signature(type(new)).parameters, _defaults(type(new))
    given = {key: value for key, value in new.defaults.items() if key in known and key != "lr" and _is_plain(value)}
    return {"lr": new.defaults["lr"], **{key: value for key, value in given.items() if value != usual[key]}}


def _defaults(kind: type[Optimizer]) -> dict[str, Any]:
    made: Any = kind
    defaults: dict[str, Any] = made([torch.zeros(1)]).defaults
    return defaults


def _group(index: int, old: Mapping[str, Any], new: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """A parameter group as a mapping; what the constructor gives it is left out."""
    held = f"old.param_groups[{index}]"
    parts = [f'"params": {held}["params"]']
    for key, value in new.items():
        same = key in usual and _is_plain(value) and type(value) is type(usual[key]) and value == usual[key]
        if key in SKIPPED or same:
            continue
        parts.append(f"{quoted(key)}: {_value(held, key, old.get(key), value)}")
    line = "{" + ", ".join(parts) + "},"
    return [line] if len(line) <= LONGEST else ["{", *(f"    {part}," for part in parts), "},"]


def _value(held: str, key: str, old: Any, new: Any) -> str:
    if isinstance(new, torch.Tensor) and key == "lr":
        return f"{held}[{quoted(key)}].clone().fill_({number(float(new))})"
    if _is_plain(new):
        return _literal(new)
    return f"{held}[{quoted(key)}]"  # tensors and the user's own entries are carried over as they are


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _literal(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


def _state_lines(place: str, old: Optimizer, made: Conversion) -> list[str]:
    """What is carried over, for each sort of parameter: those whose state is made in the same way."""
    groups = zip(old.param_groups, made.optimizer.param_groups, strict=True)
    pairs = [(parameter, new) for group, new in groups for parameter in group["params"]]
    sorts: dict[tuple[str, ...], list[int]] = {}
    for index, ((parameter, options), recipes) in enumerate(zip(pairs, made.recipes, strict=True)):
        state = old.state.get(parameter, {})
        lines = [
            line
            for entry, recipe in recipes.items()
            for line in recipe.lines(f'made["{entry}"]', options, parameter, state)
        ]
        if lines:
            sorts.setdefault(tuple(lines), []).append(index)
    if not sorts:
        return []
    found = ['parameters = [parameter for group in old.param_groups for parameter in group["params"]]']
    for body, indices in sorts.items():
        every = len(indices) == len(pairs)
        chosen = "parameters" if every else f"[parameters[k] for k in {_indices(indices)}]"
        found.append(f"for parameter in {chosen}:")
        found += ["    state = old.state[parameter]"] if any("state[" in line for line in body) else []
        found += [f"    made = {place}.state[parameter] = {{}}", *(f"    {line}" for line in body)]
    return found


def _indices(indices: Sequence[int]) -> str:
    whole = list(range(indices[0], indices[-1] + 1))
    if len(indices) > 2 and list(indices) == whole:
        return f"range({indices[0]}, {indices[-1] + 1})"
    return f"({', '.join(map(str, indices))},)" if len(indices) == 1 else f"({', '.join(map(str, indices))})"
