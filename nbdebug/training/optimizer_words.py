"""What became of an optimizer's state and options in a swap, in words. Pure functions; no thread of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch.optim import Optimizer

from nbdebug.records.optimizers import OptimizerKind
from nbdebug.training.optimizer_moments import ADAM_LIKE, WITH_BETAS

K = OptimizerKind
_STEP = {"step": "step", "mu_product": "step"}
_OF_ADAM = _STEP | {
    "exp_avg": "exp_avg",
    "exp_avg_sq": "exp_avg_sq",
    "max_exp_avg_sq": "max_exp_avg_sq",
    "exp_inf": "√(exp_avg_sq / (1 − β2ᵗ))",
    "square_avg": "exp_avg_sq / (1 − β2ᵗ)",
    "momentum_buffer": "exp_avg / (1 − β1ᵗ) · (1 − dampening) / (1 − momentum)",
}
MADE_FROM: dict[OptimizerKind, dict[str, str]] = {
    **dict.fromkeys(ADAM_LIKE, _OF_ADAM),
    K.ADAMAX: _OF_ADAM | {"exp_avg_sq": "exp_inf² · (1 − β2ᵗ)", "square_avg": "exp_inf²", "exp_inf": "exp_inf"},
    K.SGD: {
        "exp_avg": "momentum_buffer · (1 − momentum) / (1 − dampening) · (1 − β1)",
        "momentum_buffer": "momentum_buffer, for the same mean gradient",
        "square_avg": "the mean gradient of momentum_buffer, or the last gradient where larger, squared",
    },
    K.RMSPROP: _STEP | {"exp_avg_sq": "square_avg", "exp_inf": "√(square_avg / (1 − αᵗ))"},
    K.ADAGRAD: _STEP | {"exp_avg_sq": "sum / t · (1 − β2ᵗ)", "exp_inf": "√(sum / t)", "square_avg": "sum / t"},
}


def carried(source: OptimizerKind | None, old: Optimizer, new: Optimizer, kind: OptimizerKind, *, copied: bool
            ) -> dict[str, str]:  # fmt: skip
    """By entry of the new state, what it was made from."""
    before, after = entries(old), entries(new)
    if source is None or not before or (kind is K.ADAGRAD and not copied):
        return {}
    if copied:
        return {name: name for name in after if name in before}
    made = {name: text for name, text in MADE_FROM[source].items() if name in after}
    if kind is K.RMSPROP:
        made.pop("momentum_buffer", None)
    if "max_exp_avg_sq" not in before:
        made.pop("max_exp_avg_sq", None)
    return made


def of_state(
    source: OptimizerKind | None, old: Optimizer, new: Optimizer, kind: OptimizerKind, made: Mapping[str, str]
) -> Iterator[str]:
    """What starts anew, and what is left behind."""
    before, after = entries(old), entries(new)
    if not made:
        known = source is not None and bool(before)
        why = f"nothing that {type(old).__name__} keeps means anything to it" if known or source is None else (
            "there is nothing to carry over yet")  # fmt: skip
        yield f"{kind} starts anew: {why}."
    anew = [name for name in after if name not in made and made]
    if "exp_avg" in anew:
        yield "exp_avg starts at zero: the first updates are smaller, from about 1 − beta1 of a full one."
    if "exp_avg_sq" in anew or "exp_inf" in anew:
        name = "exp_avg_sq" if "exp_avg_sq" in anew else "exp_inf"
        step = max((float(state["step"]) for state in new.state.values() if "step" in state), default=1.0)
        yield f"{name} starts as if each update so far had been by the mean gradient, and step at {step:g}."
    yield from (f"{name} starts at zero." for name in anew if name in ("momentum_buffer", "grad_avg", "max_exp_avg_sq"))
    if kind is K.RMSPROP and "square_avg" not in made:
        burst = "starts at zero: until it has filled, updates are up to 1 / √(1 − alpha) times the learning rate"
        yield f"square_avg {'starts from the last gradient' if 'square_avg' in after else burst}."
    used = re.findall(r"\w+", " ".join(made.values()))
    left = [name for name in before if name not in used and name != "step"]
    if left and made:
        yield f"{', '.join(left)} {'is' if len(left) == 1 else 'are'} left behind: {kind} keeps nothing like it."


def of_options(
    source: OptimizerKind | None, group: Mapping[str, Any], kind: OptimizerKind, options: Mapping[str, Any],
    chosen: Mapping[str, Any], flags: tuple[str, ...],
) -> Iterator[str]:  # fmt: skip
    """Which options became others, or were dropped."""
    dropped = [name for name in flags if group.get(name) and name not in options]
    if dropped:
        yield f"{', '.join(dropped)} {'is' if len(dropped) == 1 else 'are'} dropped: {kind} has no such option."
    if source is None or source is kind:
        return
    for old, new, value in _became(source, group, kind, options):
        if new not in chosen and not (new.startswith("beta") and "betas" in chosen):
            yield f"{new} is {value:g}, after {old}."
    if "weight_decay" in chosen or "weight_decay" not in group:
        return
    before, after = float(group["weight_decay"]), float(options["weight_decay"])
    if before != after:
        yield (f"weight_decay is {kind}'s own default, {after:g}, not {before:g}: {_decay(group)} and "
               f"{_decay(options)} are not the same.")  # fmt: skip
    elif kind is K.ADAMW and not before:
        yield "weight_decay stays 0; AdamW's own default is 0.01."


def entries(optimizer: Optimizer) -> list[str]:
    """The names in the state of an optimizer's parameters, in order."""
    names = {name: None for state in optimizer.state.values() for name, value in state.items() if value is not None}
    return list(names)


def _became(
    source: OptimizerKind, group: Mapping[str, Any], kind: OptimizerKind, options: Mapping[str, Any]
) -> Iterator[tuple[str, str, float]]:
    if source is K.SGD and kind in WITH_BETAS and group["momentum"]:
        yield "momentum", "beta1", options["betas"][0]
    if source in WITH_BETAS and kind is K.SGD:
        yield "beta1", "momentum", options["momentum"]
    if source in WITH_BETAS and kind is K.RMSPROP:
        yield "beta2", "alpha", options["alpha"]
    if source is K.RMSPROP and kind in WITH_BETAS:
        yield "alpha", "beta2", options["betas"][1]


def _decay(options: Mapping[str, Any]) -> str:
    return "decay of the weights" if options.get("decoupled_weight_decay") else "decay through the gradient"
