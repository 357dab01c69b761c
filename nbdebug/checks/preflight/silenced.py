"""Layers whose ReLU gives nothing but zeros at the start, as their biases lie below all that they get. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Call, LayerCall
from nbdebug.checks.preflight.wiring import consumers, descendants

RELUS = frozenset({"relu", "threshold", "relu6"})
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FEWEST = 64  # numbers before a ReLU that may all be negative by chance
SHARE_OF_BIAS = 0.5


@dataclass(frozen=True, slots=True)
class Silenced:
    """A layer, the mean of its biases and of what it gives; ``wholly`` if no number behind its ReLU is above zero."""

    layer: str
    bias: float
    mean: float
    wholly: bool


def silenced(look: Look) -> list[Silenced]:
    """Layers that biases push below zero by more than a deviation, if the ReLU behind one of them gives only zeros."""
    users = consumers(look.trace)
    calls = {call.layer: call for call in look.trace.layers}
    found: dict[str, Silenced] = {}
    for call in look.trace.calls:
        bias = getattr(look.modules.get(call.layer or ""), "bias", None)
        if call.layer not in calls or not isinstance(look.modules[call.layer], LAYERS) or bias is None:
            continue
        seen, level = calls[call.layer], float(bias.detach().float().mean())
        after = [each for number in call.outputs for each in users.get(number, []) if each.name.strip("_") in RELUS]
        if not after or not level < 0 or level > SHARE_OF_BIAS * seen.mean or seen.mean + seen.deviation > 0:
            continue
        wholly = math.prod(seen.shape) >= FEWEST and any(_is_zero(users, calls, each) for each in after)
        found[call.layer] = Silenced(call.layer, level, seen.mean, wholly)
    return list(found.values()) if any(each.wholly for each in found.values()) else []


def _is_zero(users: dict[int, list[Call]], calls: dict[str, LayerCall], relu: Call) -> bool:
    """Whether a ReLU gave only zeros, by itself as a layer or by the next layer that has weights."""
    own = calls.get(relu.layer or "")
    if own is not None and own.kind in ("ReLU", "ReLU6"):
        return own.zeros == 1.0
    return any(each.scale_in == 0 for each in _next(users, calls, relu))


def _next(users: dict[int, list[Call]], calls: dict[str, LayerCall], relu: Call) -> Iterator[LayerCall]:
    """The first layer behind, if there is one."""
    for call in descendants(users, relu):
        if call.layer in calls and call.layer != relu.layer:
            yield calls[call.layer]
            return
