"""From one kind of optimizer to another in the middle of a run, over the same parameters. Training thread, safe point.

What the old one has learnt of the gradients goes over where it has a meaning (:mod:`.optimizer_moments`); the old
one is left as it is, so that going back to it undoes the swap. Only torch's own kinds: what a class of somebody else's
keeps and means can't be known.

The learning rate, where none is given, is kept within one family, whose updates are all about as large as the
learning rate itself: Adam, AdamW, NAdam, RAdam, Adamax, RMSprop without momentum. Between families each group's rate
is such that its updates stay about as large as they were, by the estimates at hand, rounded to two digits.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.optim import Optimizer

from nbdebug.records.errors import collect
from nbdebug.records.optimizers import OptimizerKind
from nbdebug.training import optimizer_moments as moments
from nbdebug.training import optimizer_words as words
from nbdebug.training.optimizer_groups import is_split_off
from nbdebug.training.optimizer_options import (
    MADE_LATER,
    combination_mistakes,
    has_sparse_gradient,
    known_option,
    plain,
    unknown_option,
    value_mistakes,
)
from nbdebug.training.optimizer_recipes import Recipe
from nbdebug.training.optimizer_state import deep_copy

K = OptimizerKind
CLASSES: dict[OptimizerKind, Any] = {kind: getattr(torch.optim, kind) for kind in OptimizerKind}
FLAGS = ("foreach", "fused", "capturable", "maximize", "differentiable")
TAKES_SPARSE = (K.SGD, K.ADAGRAD)
ADDS_EPS_TO_ROOT = (*moments.ADAM_LIKE, K.RMSPROP)
SHAPES_STATE = ("betas", "momentum", "dampening", "alpha", "momentum_decay")
COUNTS = ("step", "mu_product")
RATES = ("initial_lr", "max_lr", "min_lr", "swa_lr")


@dataclass(frozen=True)
class Conversion:
    """A new optimizer, and how it came about.

    ``carried`` says by entry of the new state what it was made from; ``said`` what starts anew, what was dropped, and
    how the learning rate was chosen, a sentence each. ``ratios`` are each group's new rate over the old one; the
    rates that schedulers keep in the groups (``initial_lr`` …) are multiplied by them too. ``recipes`` are how each
    parameter's state was made, in their order.
    """

    optimizer: Optimizer
    carried: dict[str, str]
    said: tuple[str, ...]
    ratios: tuple[float, ...]
    recipes: tuple[dict[str, Recipe], ...]


def kind_of(optimizer: Optimizer) -> OptimizerKind | None:
    """Its kind, where it is exactly one of torch's own that can be swapped to."""
    return next((kind for kind, cls in CLASSES.items() if type(optimizer) is cls), None)


def conversion_mistakes(
    optimizer: Optimizer, kind: str, lr: float | Sequence[float] | None = None, options: Mapping[str, Any] | None = None
) -> list[str]:
    """Why an optimizer can't be converted so, a line for each reason."""
    name = type(optimizer).__name__
    if not type(optimizer).__module__.startswith("torch.optim"):
        return [f"{name} can't be swapped: it is not one of torch's own, so what its state means is not known"]
    if kind not in list(K):
        return [unknown_option("torch.optim", str(kind), list(K)).replace("option", "kind of optimizer")]
    mistakes = []
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if kind not in TAKES_SPARSE and any(has_sparse_gradient(optimizer, parameter) for parameter in held):
        mistakes.append(f"{kind} takes no sparse gradients (an Embedding with sparse=True): swap to SGD or Adagrad")
    several = isinstance(lr, Sequence) and not isinstance(lr, str)
    rates = list(lr) if several else [lr] * len(optimizer.param_groups)  # type: ignore[arg-type]
    if len(rates) != len(optimizer.param_groups):
        mistakes.append(f"lr has {len(rates)} rates, but there are {len(optimizer.param_groups)} parameter groups")
    mistakes += [line for each in dict.fromkeys(rates) if each is not None
                 for line in value_mistakes(known_option("lr"), each)]  # fmt: skip
    return mistakes + _option_mistakes(optimizer, K(kind), options or {})


def converted(optimizer: Optimizer, kind: str, lr: float | Sequence[float] | None = None, **options: Any) -> Conversion:
    """A new optimizer of this kind over the same parameter groups, in the same order.

    ``lr`` is the first group's rate, the others keep their share of it, or a rate for each group; ``options`` are
    the new kind's own, for all groups. Options that both kinds have with one meaning are carried over by group: of
    SGD's momentum and the first beta each stands for the other, as do RMSprop's alpha and the second beta.

    Raises:
        ConfigurationError: lists everything that can't work.
    """
    options = {name: tuple(map(plain, v)) if isinstance(v, (list, tuple)) else plain(v) for name, v in options.items()}
    lr = plain(lr)
    mistakes = conversion_mistakes(optimizer, kind, lr, options)
    if mistakes:
        raise collect(mistakes)
    target, source = K(kind), kind_of(optimizer)
    settings = [_options_for(source, optimizer, group, target, options) for group in optimizer.param_groups]
    rates, how = _rates(source, optimizer, target, settings, lr)
    old = [float(group["lr"]) for group in optimizer.param_groups]
    ratios = tuple(b / a if a else 1.0 for a, b in zip(old, rates, strict=True))
    groups = [
        _new_group(optimizer, group, setting, rate, ratio)
        for group, setting, rate, ratio in zip(optimizer.param_groups, settings, rates, ratios, strict=True)
    ]
    defaults = _options_for(source, optimizer, optimizer.defaults, target, options)
    known = inspect.signature(CLASSES[target]).parameters
    given = {name: value for name, value in defaults.items() if name in known}
    try:
        new = CLASSES[target](groups, **{**given, "lr": float(groups[0]["lr"])})
    except (ValueError, RuntimeError, TypeError) as error:
        raise collect([f"torch refuses these options of {kind}: {error}"]) from error
    copied = source is target and all(map(_keeps_shape, optimizer.param_groups, settings))
    recipes: list[dict[str, Recipe]] = []
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        for parameter in group["params"]:
            recipes.append(recipes_of(optimizer, group, CLASSES[target], setting, parameter, copied=copied))
            state = optimizer.state.get(parameter, {})
            if recipes[-1]:
                new.state[parameter] = {n: each.make(state, parameter, setting) for n, each in recipes[-1].items()}
    carried = words.carried(source, optimizer, new, target, copied=copied)
    of_state = words.of_state(source, optimizer, new, target, carried)
    of_options = words.of_options(source, optimizer.param_groups[0], target, settings[0], options, FLAGS)
    return Conversion(new, carried, (*how, *of_state, *of_options), ratios, tuple(recipes))


@lru_cache
def _defaults_of(kind: OptimizerKind) -> Mapping[str, Any]:
    defaults: dict[str, Any] = CLASSES[kind]([torch.zeros(1)]).defaults
    return defaults


def _defaults(kind: OptimizerKind) -> dict[str, Any]:
    return dict(_defaults_of(kind))


def _option_mistakes(optimizer: Optimizer, kind: OptimizerKind, options: Mapping[str, Any]) -> list[str]:
    defaults = _defaults(kind)
    known = [name for name in defaults if name != "lr" and not (kind is K.ADAMW and name.startswith("decoupled"))]
    mistakes = [unknown_option(kind, name, known) for name in options if name not in known]
    for name, value in options.items():
        if name == "betas" and name in known:
            pair = value if isinstance(value, (tuple, list)) and len(value) == 2 else None
            mistakes += [f"betas must be two numbers, not {value!r}"] if pair is None else []
            mistakes += [line for beta, part in zip(("beta1", "beta2"), pair or (), strict=False)
                         for line in value_mistakes(known_option(beta), part)]  # fmt: skip
        elif name in known and name not in FLAGS:
            mistakes += value_mistakes(known_option(name), value)
    if mistakes:
        return mistakes
    source = kind_of(optimizer)
    for group in optimizer.param_groups:
        setting = _options_for(source, optimizer, group, kind, options)
        mistakes += combination_mistakes(kind, setting, set(setting))
    return list(dict.fromkeys(mistakes))


def _options_for(
    source: OptimizerKind | None, optimizer: Optimizer, group: Mapping[str, Any], kind: OptimizerKind,
    chosen: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """A group's options in the new kind, the learning rate apart."""
    if is_split_off(str(group.get("name", ""))):
        chosen = {**chosen, "weight_decay": plain(group["weight_decay"])}
    options = {name: value for name, value in _defaults(kind).items() if name != "lr"}
    options |= {name: group[name] for name in FLAGS if name in options and name in group}
    if source is kind:
        options |= {name: group[name] for name in options if name in group}
        return options | dict(chosen)
    if source is None:
        return options | dict(chosen)
    if "betas" in group:
        beta1, beta2 = (plain(beta) for beta in group["betas"])
        options |= {"betas": (beta1, beta2)} if "betas" in options else {}
        options |= {"alpha": beta2} if kind is K.RMSPROP else {}
        options |= {"momentum": beta1} if kind is K.SGD else {}
    elif "betas" in options:
        beta1, beta2 = options["betas"]
        beta1 = plain(group["momentum"]) if source is K.SGD and group["momentum"] else beta1
        options["betas"] = (beta1, plain(group["alpha"]) if source is K.RMSPROP else beta2)
    elif "momentum" in options and "momentum" in group:
        options["momentum"] = plain(group["momentum"])
    if source in ADDS_EPS_TO_ROOT and kind in ADDS_EPS_TO_ROOT:
        options["eps"] = plain(group["eps"])
    options |= {"amsgrad": group["amsgrad"]} if "amsgrad" in options and "amsgrad" in group else {}
    if "decoupled_weight_decay" in options and kind is not K.ADAMW and source is not K.ADAMW:
        options["decoupled_weight_decay"] = group.get("decoupled_weight_decay", False)
    elif kind in (K.NADAM, K.RADAM):
        options["decoupled_weight_decay"] = True
    options |= dict(chosen)
    if "weight_decay" not in chosen:
        decay = plain(group["weight_decay"])
        same = bool(group.get("decoupled_weight_decay")) is bool(options.get("decoupled_weight_decay"))
        options["weight_decay"] = decay if same or not decay else _defaults(kind)["weight_decay"]
    return options


def carried_options(optimizer: Optimizer, group: Mapping[str, Any], kind: OptimizerKind) -> dict[str, Any]:
    """What a group's options, the rate apart, become in another kind if none is chosen."""
    return _options_for(kind_of(optimizer), optimizer, group, kind, {})


def _rates(
    source: OptimizerKind | None, optimizer: Optimizer, kind: OptimizerKind, settings: list[dict[str, Any]],
    lr: float | Sequence[float] | None,
) -> tuple[list[float], tuple[str, ...]]:  # fmt: skip
    """Each group's new rate, and how it was chosen, in words."""
    old = [float(group["lr"]) for group in optimizer.param_groups]
    if isinstance(lr, Sequence):
        return [float(rate) for rate in lr], ()
    if lr is not None:
        shares = [rate / old[0] if old[0] else 1.0 for rate in old]
        return [lr * share if share != 1.0 else float(lr) for share in shares], ()
    pairs = list(zip(optimizer.param_groups, settings, strict=True))
    if source is kind or all(_is_normalised(source, a) and _is_normalised(kind, b) for a, b in pairs):
        return old, ("The learning rate stays.",)
    sizes = [_sizes(source, group, optimizer, kind, setting) for group, setting in pairs]
    before, after = sum(a for a, _ in sizes), sum(b for _, b in sizes)
    if not (before and after):
        rate = float(_defaults(kind)["lr"])
        text = f"The learning rate is {kind}'s own default, {rate:g}: it can't be known how large updates would be."
        return [rate] * len(old), (text,)
    overall = math.sqrt(before / after)
    ratios = [math.sqrt(a / b) if a and b else overall for a, b in sizes]
    rates = [float(f"{rate * ratio:.1e}") for rate, ratio in zip(old, ratios, strict=True)]
    listed = ", ".join(f"{a:g} → {b:g}" for a, b in zip(old, rates, strict=True))
    return rates, (f"The learning rate is scaled so that updates stay about as large as they were: {listed}.",)


def _is_normalised(kind: OptimizerKind | None, options: Mapping[str, Any]) -> bool:
    """Whether an update is about as large as the learning rate."""
    return kind in moments.WITH_BETAS or (kind is K.RMSPROP and not options["momentum"])


def _sizes(
    source: OptimizerKind | None, group: dict[str, Any], optimizer: Optimizer, kind: OptimizerKind, new: dict[str, Any]
) -> tuple[float, float]:
    """The squared norms of an update of a group at a learning rate of 1, old kind and new; 0 if unknown."""
    before = after = 0.0
    for parameter in group["params"] if source is not None else ():
        learnt = moments.read(source, group, optimizer.state.get(parameter, {}))
        known = moments.estimates(learnt, parameter)
        if known is not None and source is not None:
            before += moments.update_size(source, group, *known, learnt.updates)
            after += moments.update_size(kind, new, *known, 0)
    return before, after


def _new_group(
    optimizer: Optimizer, group: dict[str, Any], options: dict[str, Any], rate: float, ratio: float
) -> dict[str, Any]:
    own = {key: value for key, value in group.items() if key not in optimizer.defaults and key != "params"}
    names = own.pop("param_names", None)
    own |= {key: own[key] * ratio for key in RATES if key in own and ratio != 1.0}
    held = group["lr"]
    as_tensor = isinstance(held, torch.Tensor) and not (options["foreach"] and not options.get("capturable"))
    parameters = list(group["params"]) if names is None else list(zip(names, group["params"], strict=True))
    lr = held.detach().clone().fill_(rate) if as_tensor else rate
    return {**deep_copy(own), **options, "params": parameters, "lr": lr}


def _keeps_shape(group: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether the state of a kind means the same under these options of the same kind."""
    return all(group.get(name) == options.get(name) for name in SHAPES_STATE) or "alpha" in options


def recipes_of(
    optimizer: Optimizer, group: dict[str, Any], target: type[Optimizer], options: dict[str, Any],
    parameter: torch.Tensor, *, copied: bool,
) -> dict[str, Recipe]:  # fmt: skip
    """How a parameter's state in the new optimizer is made from that in the old one."""
    source, kind = kind_of(optimizer), K(target.__name__)
    state = optimizer.state.get(parameter, {})
    if copied:
        made = {
            name: Recipe(number=float(value)) if name in COUNTS else Recipe(name, same=True)
            for name, value in state.items()
        }
    else:
        made = moments.write(kind, options, moments.read(source, group, state), parameter)
    late = {entry for each, name, entry in MADE_LATER if issubclass(target, each) and options.get(name)}
    return made | {entry: Recipe() for entry in sorted(late - made.keys())} if made else {}
