"""A loss of several parts: their weighted sum, in the order in which they were given. Training thread only."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

NAMES_TAKEN = ("loss",)


class LossParts:
    """``w1 * part1(output, target) + w2 * part2(output, target) + …``; called as a loss is.

    ``weights`` may change between two steps. ``latest`` are the parts of the last call, without their weights.
    """

    def __init__(self, parts: Mapping[str, Any], weights: Mapping[str, float]) -> None:
        self.parts = dict(parts)
        self.weights = {name: float(weights.get(name, 1.0)) for name in self.parts}
        self.latest: dict[str, torch.Tensor] = {}

    def __call__(self, output: Any, target: Any) -> Any:
        """The weighted sum."""
        total: Any = None
        for name, part in self.parts.items():
            value = part(output, target)
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                given = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
                raise TypeError(f"part {name!r} of the loss must return a tensor of one number, not {given}")
            self.latest[name] = value.detach()
            weighted = self.weights[name] * value
            total = weighted if total is None else total + weighted
        return total


def parts_of(loss_fn: Any) -> dict[str, Any] | None:
    """The parts of a loss given as a mapping, ``None`` for a single one."""
    if isinstance(loss_fn, Mapping):
        return dict(loss_fn)
    return dict(loss_fn.items()) if isinstance(loss_fn, nn.ModuleDict) else None


def modules_of(loss_fn: Any) -> dict[str, nn.Module]:
    """The modules of a loss by name, whose state is part of training."""
    if isinstance(loss_fn, nn.Module):
        return {"loss_fn": loss_fn}
    parts = parts_of(loss_fn) or {}
    return {f"loss_fn.{name}": part for name, part in parts.items() if isinstance(part, nn.Module)}


def part_mistakes(parts: Mapping[Any, Any], metrics: Collection[str]) -> list[str]:
    """Why these can't be a loss's parts."""
    found = [] if parts else ["loss_fn is an empty mapping: give at least one part"]
    for name, part in parts.items():
        if not isinstance(name, str) or not name:
            found.append(f"the name of a part of loss_fn must be text; got {name!r}")
        elif name in NAMES_TAKEN or name in metrics:
            taken = "the sum's own" if name in NAMES_TAKEN else "a metric's"
            found.append(f"loss_fn[{name!r}] has {taken} name: choose a different one")
        if isinstance(part, type):
            found.append(f"loss_fn[{name!r}] is the class {part.__name__}: call it, as in {part.__name__}()")
        elif not callable(part):
            found.append(f"loss_fn[{name!r}] must be callable; got a {type(part).__name__}")
    return found


def weight_mistakes(weights: Any, parts: Mapping[str, Any] | None) -> list[str]:
    """Why these can't be the weights of a loss's parts."""
    if not parts:
        why = "the loss has no parts: give them by name, as in Trainer(loss_fn={'ce': ce, 'l2': l2})"
        return [f"loss_weights can't be set: {why}"]
    if not isinstance(weights, Mapping):
        return [f"loss_weights must be a mapping of part to weight, not {weights!r}: there are {_listed(parts)}"]
    found = [] if weights else [f"loss_weights={{}} names no part: there are {_listed(parts)}"]
    for name, value in weights.items():
        if name not in parts:
            near = difflib.get_close_matches(str(name), parts, 1, 0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {_listed(parts)}"
            found.append(f"the loss has no part {name!r}: {hint}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            found.append(f"loss_weights[{name!r}] must be a number, not {value!r}")
        elif not math.isfinite(value):
            found.append(f"loss_weights[{name!r}]={value!r} must be finite")
    return found


def _listed(parts: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, parts))
