"""A parameter group's options: which there are, what may be changed in the middle of a run, and the change itself.

A change is the plain assignment ``group[option] = value``. Where an optimizer makes a buffer only at a parameter's
first update (RMSprop's momentum and centred average, the maxima of AMSGrad) and would later fail for want of it, the
buffer is made as it would have been then: zeros. Only RMSprop's centred average is also made anew where it
was left from an earlier time: out of date, it can exceed the average square, whose difference then has no root.
Functions for the training thread at a safe point; no state is kept.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from nbdebug.records.optimizers import Option, OptionState, OptionType

_SWITCH, _COUNT = OptionType.SWITCH, OptionType.COUNT
_STALE = "switched off and on again, it takes up the buffer it left"
_BIASED = (
    "the correction for the first updates takes it to have been so from the start: early in training, updates jump"
)
_MOMENTUM = Option(
    "momentum", "momentum", "share of the last update that is kept", high=1.0, on_change=f"updates grow towards "
    f"1 / (1 − momentum) times a plain one; switched on, it starts from the next gradient; {_STALE}"
)  # fmt: skip
_OPTIONS: tuple[Option, ...] = (
    Option("lr", "lr", "learning rate", on_change="acts from the next update on; a scheduler writes it anew"),
    _MOMENTUM,
    Option("dampening", "dampening", "share of each gradient that is kept out of the momentum", high=1.0),
    Option("nesterov", "nesterov", "look ahead along the momentum", _SWITCH),
    Option("beta1", "betas", "decay of the average gradient", high=1.0, index=0, on_change=_BIASED),
    Option("beta2", "betas", "decay of the average squared gradient", high=1.0, index=1, on_change=_BIASED),
    Option("alpha", "alpha", "decay of the average squared gradient", high=1.0),
    Option("rho", "rho", "decay of the average squared gradient", high=1.0, closed=True),
    Option("eps", "eps", "added to the denominator"),
    Option("weight_decay", "weight_decay", "pull of the weights towards zero"),
    Option("decoupled_weight_decay", "decoupled_weight_decay", "decay the weights, not through the gradient", _SWITCH),
    Option("amsgrad", "amsgrad", "divide by the largest average so far", _SWITCH, on_change=f"starts from the present "
           f"average; {_STALE}"),
    Option("centered", "centered", "divide by the spread, not the size, of the gradient", _SWITCH, on_change=
           "starts uncentred, and comes in over 1 / (1 − alpha) updates"),
    Option("momentum_decay", "momentum_decay", "how slowly the momentum rises to beta1"),
    Option("lr_decay", "lr_decay", "decay of the rate", on_change="counts for all updates so far: the rate jumps"),
    Option("initial_accumulator_value", "initial_accumulator_value", "what the sum of squares starts from"),
    Option("lambd", "lambd", "decay of the step size"),
    Option("t0", "t0", "update at which averaging starts"),
    Option("eta_minus", "etas", "shrinks a step after a change of sign", high=1.0, index=0),
    Option("eta_plus", "etas", "grows a step while the sign stays", low=1.0, index=1),
    Option("smallest_step", "step_sizes", "lower bound of a step", index=0),
    Option("largest_step", "step_sizes", "upper bound of a step", index=1),
    Option("beta2_decay", "beta2_decay", "decay of beta2", low=-math.inf, high=0.0, closed=True),
    Option("d", "d", "clipping threshold of the update", low=1.0),
    Option("ns_steps", "ns_steps", "Newton–Schulz iterations", _COUNT, low=1.0, high=100.0),
    Option("max_iter", "max_iter", "most iterations in an update", _COUNT, low=1.0, on_change="max_eval stays"),
    Option("max_eval", "max_eval", "most evaluations in an update", _COUNT, low=1.0),
    Option("tolerance_grad", "tolerance_grad", "gradient at which an update ends"),
    Option("tolerance_change", "tolerance_change", "change at which an update ends"),
    Option("history_size", "history_size", "how many updates are remembered", _COUNT, low=1.0),
)  # fmt: skip
_ALIASES = {"wd": "weight_decay", "learning_rate": "lr", "beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps",
            "decay": "weight_decay", "mu": "momentum", "betas": "beta1"}  # fmt: skip
_HOW_IT_RUNS = "says how an update is computed, not what it is: it is chosen when the optimizer is made"
_FIXED = {
    **dict.fromkeys(("foreach", "fused", "capturable", "differentiable"), _HOW_IT_RUNS),
    "maximize": "turns training around: it is chosen when the optimizer is made",
}
MADE_LATER = (
    (torch.optim.RMSprop, "momentum", "momentum_buffer"),
    (torch.optim.RMSprop, "centered", "grad_avg"),
    (torch.optim.Adam, "amsgrad", "max_exp_avg_sq"),
)


OPTION_NAMES = tuple(dict.fromkeys(name for option in _OPTIONS for name in (option.name, option.key)))
OPTION_KEYS = frozenset(option.key for option in _OPTIONS)


def options_of(optimizer: Optimizer, group: int = 0) -> tuple[OptionState, ...]:
    """The options of a parameter group, with their present values; those that can't be changed say why."""
    return tuple(_states(optimizer, optimizer.param_groups[group]))


def option_mistakes(optimizer: Optimizer, group: int | None, changes: Mapping[str, Any]) -> list[str]:
    """Why these changes can't be made, a line for each reason. ``group`` ``None`` stands for all groups."""
    count = len(optimizer.param_groups)
    if group is not None and not 0 <= group < count:
        return [f"no parameter group {group}: there are {count}, counted from 0"]
    if not changes:
        return ["no option is named"]
    groups = optimizer.param_groups if group is None else [optimizer.param_groups[group]]
    return list(dict.fromkeys(line for each in groups for line in _mistakes(optimizer, each, changes)))


def option_cautions(optimizer: Optimizer, group: int | None, changes: Mapping[str, Any]) -> list[str]:
    """What changes without :meth:`option_mistakes` would do that one may not expect, a line for each."""
    groups = optimizer.param_groups if group is None else [optimizer.param_groups[group]]
    return list(dict.fromkeys(line for each in groups for line in _cautions(optimizer, each, taken_apart(changes))))


def set_options(optimizer: Optimizer, group: int | None, changes: Mapping[str, Any]) -> None:
    """Make changes that have no :func:`option_mistakes`, as by ``group[option] = value``; a tensor is filled in place.

    A tensor that several groups share is first made the group's own.
    """
    groups = optimizer.param_groups if group is None else [optimizer.param_groups[group]]
    by_name = {option.name: option for option in _OPTIONS}
    for each in groups:
        for name, value in taken_apart(changes).items():
            if name == "centered" and value and not each["centered"]:
                _drop(optimizer, each, "grad_avg")
            _assign(optimizer, each, by_name[name], value)
        make_buffers(optimizer, each)


def _states(optimizer: Optimizer, group: dict[str, Any]) -> Iterator[OptionState]:
    for option in _OPTIONS:
        present = group.get(option.key)
        if option.index is not None:
            present = present[option.index] if isinstance(present, (tuple, list)) else None
        value = plain(present)
        if isinstance(value, (bool, int, float)):
            yield OptionState(_for(optimizer, group, option), value, _why_fixed(optimizer, option))
    for name, reason in _FIXED.items():
        if name in group:
            yield OptionState(Option(name, name, "", _SWITCH), group[name], reason)


def _for(optimizer: Optimizer, group: dict[str, Any], option: Option) -> Option:
    """The option as this kind of optimizer means it."""
    if option.name == "alpha" and isinstance(optimizer, torch.optim.ASGD):
        return replace(option, text="power of the decay of the step size", high=math.inf)
    if option.name == "beta2" and isinstance(optimizer, torch.optim.Adamax):
        return replace(option, text="decay of the largest gradient", on_change="acts from the next update on")
    if option.name == "weight_decay" and _is_decoupled(optimizer, group):
        return replace(option, text="share of the weights, times the learning rate, that each update takes away")
    return option


def _why_fixed(optimizer: Optimizer, option: Option) -> str:
    if option.name == "initial_accumulator_value":
        return "only counts when the optimizer is made, where the sum of squares starts from it"
    if option.name == "decoupled_weight_decay" and isinstance(optimizer, torch.optim.AdamW):
        return "is what makes AdamW: swap to Adam for decay through the gradient"
    if option.name == "history_size" and any("al" in state for state in optimizer.state.values()):
        return "has shaped the memory of LBFGS by now"
    return ""


def _mistakes(optimizer: Optimizer, group: dict[str, Any], changes: Mapping[str, Any]) -> Iterator[str]:
    states = {state.option.name: state for state in _states(optimizer, group)}
    kind, split = type(optimizer).__name__, taken_apart(changes)
    for name, value in split.items():
        if name not in states:
            yield unknown_option(kind, name, [each for each, state in states.items() if not state.fixed])
        elif states[name].fixed:
            yield f"{name} can't be changed in the middle of a run: it {states[name].fixed}"
        else:
            yield from value_mistakes(states[name].option, value)
    merged = {name: state.value for name, state in states.items()} | split
    yield from combination_mistakes(kind, merged, set(split))
    if split.get("weight_decay") and any(has_sparse_gradient(optimizer, each) for each in group["params"]):
        yield "weight_decay can't be set: the group has sparse gradients (an Embedding with sparse=True), and no decay"


def known_option(name: str) -> Option:
    """The option of this name."""
    return next(option for option in _OPTIONS if option.name == name)


def unknown_option(kind: str, name: str, known: list[str]) -> str:
    """In words: an optimizer of this kind has no such option, and which is nearest."""
    near = _ALIASES.get(name) or next(iter(difflib.get_close_matches(name, known, 1, 0.5)), None)
    hint = f": did you mean {str(near)!r}?" if near in known else ""
    return f"{kind} has no option {name!r}{hint} (there are {', '.join(known)})"


def value_mistakes(option: Option, value: Any) -> list[str]:
    """Why a value can't be an option's, if so."""
    if option.type is _SWITCH:
        return [] if isinstance(value, bool) else [f"{option.name} must be True or False, not {value!r}"]
    kinds = (int,) if option.type is _COUNT else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return [f"{option.name} must be a {'whole ' if option.type is _COUNT else ''}number, not {value!r}"]
    if (
        math.isfinite(value)
        and option.low <= value
        and (value <= option.high if option.closed else value < option.high)
    ):
        return []
    ends = [f"at least {option.low:g}"] if math.isfinite(option.low) else []
    ends += [f"{'at most' if option.closed else 'below'} {option.high:g}" if math.isfinite(option.high) else "finite"]
    return [f"{option.name}={value!r} is out of range: it must be {' and '.join(ends)}"]


def combination_mistakes(kind: str, values: Mapping[str, Any], changed: set[str]) -> Iterator[str]:
    """Which options can't go together; only where one of them is changed."""
    if kind == "SGD" and values.get("nesterov") is True and changed & {"nesterov", "momentum", "dampening"}:
        if values.get("momentum") == 0:
            yield "nesterov needs momentum above 0: set momentum too, or nesterov=False"
        if values.get("dampening") != 0:
            yield "nesterov needs dampening 0: set dampening=0 too, or nesterov=False"
    ends = [values.get(name) for name in ("smallest_step", "largest_step")]
    numbers = [end for end in ends if isinstance(end, (int, float))]
    if changed & {"smallest_step", "largest_step"} and len(numbers) == 2 and numbers[0] > numbers[1]:
        yield f"smallest_step={numbers[0]!r} is above largest_step={numbers[1]!r}"


def _cautions(optimizer: Optimizer, group: dict[str, Any], changes: dict[str, Any]) -> Iterator[str]:
    updates = max((_updates(optimizer, p) for p in group["params"]), default=0)
    if changes.keys() & {"beta1", "beta2"} and updates and "betas" in group:
        old = [float(plain(beta)) for beta in group["betas"]]
        new = [float(changes.get(name, beta)) for name, beta in zip(("beta1", "beta2"), old, strict=True)]
        growth = _corrected(old[0], updates) / _corrected(new[0], updates)
        if not isinstance(optimizer, torch.optim.Adamax):
            growth *= math.sqrt(_corrected(new[1], updates) / _corrected(old[1], updates))
        if not 1 / 1.5 < growth < 1.5:
            yield (f"after only {updates} updates, the next one becomes about {growth:.2g} times as large: {_BIASED}")
    decay, rate = (float(plain(changes.get(name, group.get(name, 0)))) for name in ("weight_decay", "lr"))
    if changes.keys() & {"weight_decay", "lr"} and _is_decoupled(optimizer, group) and decay * rate >= 1:
        yield f"weight_decay × lr is {decay * rate:.3g}: from 1 on, an update turns the weights' sign around"
    if changes.get("eps") == 0:
        yield "eps=0 divides 0 by 0 where a weight has had no gradient, and makes it NaN"


def _corrected(beta: float, updates: int) -> float:
    """Which share of a full average an average over the updates so far is, the next one included."""
    return 1 - beta ** (updates + 1)


def _updates(optimizer: Optimizer, parameter: torch.Tensor) -> int:
    return int(optimizer.state[parameter].get("step", 0)) if parameter in optimizer.state else 0


def _is_decoupled(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    return group.get("decoupled_weight_decay") is True or type(optimizer).__name__ == "Muon"


def has_sparse_gradient(optimizer: Optimizer, parameter: torch.Tensor) -> bool:
    """Whether a parameter's gradient, or what is kept of it, is known to be sparse."""
    state = optimizer.state.get(parameter, {})
    kept = [parameter.grad, *(state.values() if isinstance(state, Mapping) else ())]
    return any(isinstance(each, torch.Tensor) and each.is_sparse for each in kept)


def _assign(optimizer: Optimizer, group: dict[str, Any], option: Option, value: Any) -> None:
    held = group[option.key]
    present = held if option.index is None else held[option.index]
    if isinstance(present, torch.Tensor):
        if any(each is not group and _holds(each.get(option.key), present) for each in optimizer.param_groups):
            present = present.clone()
        value = present.fill_(value)
    if option.index is not None:
        value = type(held)(value if k == option.index else part for k, part in enumerate(held))
    group[option.key] = value


def _holds(held: Any, tensor: torch.Tensor) -> bool:
    return any(part is tensor for part in (held if isinstance(held, (tuple, list)) else (held,)))


def _drop(optimizer: Optimizer, group: dict[str, Any], entry: str) -> None:
    for parameter in group["params"]:
        optimizer.state.get(parameter, {}).pop(entry, None)


def make_buffers(optimizer: Optimizer, group: dict[str, Any]) -> None:
    """What an optimizer now needs beside what it made at each parameter's first update."""
    for kind, name, entry in MADE_LATER:
        if isinstance(optimizer, kind) and group.get(name):
            for parameter in group["params"]:
                state = optimizer.state.get(parameter)
                if state and entry not in state:
                    state[entry] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def taken_apart(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs such as ``betas`` as their two options, and plain values."""
    split: dict[str, Any] = {}
    for name, value in changes.items():
        parts = [option for option in _OPTIONS if option.key == name and option.index is not None]
        if parts and isinstance(value, (tuple, list)) and len(value) == len(parts):
            split |= {option.name: plain(part) for option, part in zip(parts, value, strict=True)}
        else:
            split[name] = plain(value)
    return split


def plain(value: Any) -> Any:
    """A number of numpy, or of a tensor, as Python's own; anything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.numel() == 1):
        return value.item()
    return value
