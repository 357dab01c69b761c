"""What follows from several probes: ratios to the weights, what an optimizer's settings amount to. Pure; host only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from nbdebug.probes.probe import Column, Floats
from nbdebug.records.signals import Series, Signal

RATIOS = ((Signal.UPDATE_NORM, Signal.UPDATE_RATIO), (Signal.GRADIENT_NORM, Signal.GRADIENT_RATIO))
Norms = tuple[Sequence[nn.Parameter], Floats]


def ratios(columns: Sequence[Column]) -> list[Column]:
    """‖Δw‖ / ‖w‖ and ‖g‖ / ‖w‖ of each layer, over all its parameters; left out where the weights are all zero."""
    by_signal = {column.signal: column for column in columns}
    weights, biases = by_signal.get(Signal.WEIGHT_NORM), by_signal.get(Signal.BIAS_NORM)
    norms: dict[str, float] = {}
    for column in (weights, biases):
        if column is not None:
            for layer, value in zip(column.layers, column.values.tolist(), strict=True):
                norms[layer] = math.hypot(norms[layer], value) if layer in norms else value
    found = []
    for of, ratio in RATIOS:
        column = by_signal.get(of)
        if column is None:
            continue
        below = np.asarray([norms.get(layer, 0.0) for layer in column.layers])
        some = below > 0
        if some.all():
            found.append(Column(ratio, column.layers, column.values / below))
        else:
            layers = tuple(layer for layer, kept in zip(column.layers, some, strict=True) if kept)
            found.append(Column(ratio, layers, column.values[some] / below[some]))
    return found


class GroupNumbers:
    """Per parameter group, from the norms of parameters, where an update was seen.

    Effective learning rate: ‖Δw‖ / ‖g‖, g as the optimizer got it; plain SGD's is its learning rate. Decay share: what
    weight decay makes up of the update, λ‖w‖ lr / ‖Δw‖ where it is decoupled (at most 1), else λ‖w‖ / (λ‖w‖ + ‖g‖).
    """

    def __init__(self, groups: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        self._groups = groups
        self._places: dict[tuple[int, ...], list[list[int]]] = {}

    def of(self, weights: Norms, gradients: Norms, changes: Norms) -> dict[Series, float]:
        """The numbers by series."""
        found: dict[Series, float] = {}
        wheres = [self._where(parameters) for parameters, _ in (weights, gradients, changes)]
        for index, (name, options) in enumerate(self._groups):
            norms = zip((weights[1], gradients[1], changes[1]), wheres, strict=True)
            weight, gradient, change = (_together(values, where[index]) for values, where in norms)
            if not wheres[2][index] or not wheres[1][index]:
                continue
            if gradient > 0:
                found[Series(Signal.EFFECTIVE_RATE, name)] = change / gradient
            decay = float(options.get("weight_decay") or 0.0)
            if decay:
                found[Series(Signal.DECAY_SHARE, name)] = _decay_share(options, decay * weight, gradient, change)
        return found

    def _where(self, parameters: Sequence[nn.Parameter]) -> list[list[int]]:
        """By group, which of the parameters are its; remembered."""
        key = tuple(map(id, parameters))
        known = self._places.get(key)
        if known is None:
            if len(self._places) >= 16:
                self._places.clear()
            owner = {id(p): index for index, (_, options) in enumerate(self._groups) for p in options["params"]}
            known = [[] for _ in self._groups]
            for place, parameter in enumerate(key):
                if parameter in owner:
                    known[owner[parameter]].append(place)
            self._places[key] = known
        return known


def _decay_share(options: Mapping[str, Any], decay: float, gradient: float, change: float) -> float:
    if options.get("decoupled_weight_decay"):
        return min(1.0, float(options["lr"]) * decay / change) if change > 0 else 0.0
    return decay / (decay + gradient) if decay + gradient > 0 else 0.0


def _together(norms: Floats, where: list[int]) -> float:
    return math.sqrt(float(np.square(norms[where]).sum()))
