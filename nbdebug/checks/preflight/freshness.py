"""Whether weights look as they were drawn, or as something was learnt: read off their distribution. Pure.

Fresh weights are uniform or normal without a structure, biases constant or within their layer's bounds. Training leaves
none of that as it was: weights beyond the bounds, biases of their own, heavy tails, a large singular value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum

import torch
from torch import nn

FEWEST = 64  # values of which a distribution can be told
UNIFORM, NORMAL, CUT_NORMAL = 1.8, 3.0, 2.37  # kurtosis; the last is of a normal cut at two deviations
ROUNDING = 1e-5
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


class State(StrEnum):
    """What weights look like."""

    FRESH = "fresh"
    TRAINED = "trained"
    UNKNOWN = "unknown"


def state_of(layers: Mapping[str, nn.Module], names: Iterable[str], steps: int = 0) -> State:
    """Of these layers together: trained if anything in them was, since nobody loads half a network."""
    states = {layer_state(layers[name], steps) for name in names if name in layers}
    return next((each for each in (State.TRAINED, State.FRESH) if each in states), State.UNKNOWN)


def layer_state(layer: nn.Module, steps: int = 0) -> State:
    """Of a layer's own weights; after so many ``steps``, statistics that a norm gathered tell nothing by themselves."""
    own = {name: parameter.detach() for name, parameter in layer.named_parameters(recurse=False)}
    tracked = getattr(layer, "num_batches_tracked", None)
    if isinstance(tracked, torch.Tensor) and int(tracked) > 10 + 2 * steps:
        return State.TRAINED
    vectors = {name: value for name, value in own.items() if value.dim() < 2}
    matrices = [value for value in own.values() if value.dim() >= 2 and value.numel() >= FEWEST]
    if not matrices:
        is_norm = "Norm" in type(layer).__name__
        return State.TRAINED if is_norm and any(not _is_constant(each) for each in vectors.values()) else State.UNKNOWN
    bound = _default_bound(layer, matrices[0])
    within = bool(bound) and all(float(each.abs().max()) <= bound * (1 + ROUNDING) for each in own.values())
    if within and all(float(each.abs().max()) >= bound * (1 - 30 / each.numel()) for each in matrices):
        return State.FRESH
    if any(not _is_constant(each) for each in vectors.values()) and not isinstance(layer, RECURRENT):
        return State.TRAINED
    states = {tensor_state(each) for each in matrices}
    return next((each for each in (State.TRAINED, State.FRESH) if each in states), State.UNKNOWN)


def tensor_state(tensor: torch.Tensor) -> State:
    """Of weights of which nothing else is known."""
    count = tensor.numel()
    if count < FEWEST or not tensor.is_floating_point() or tensor.layout is not torch.strided:
        return State.UNKNOWN
    values = tensor.detach().float()
    values = values - values.mean()
    deviation = float(values.std(correction=0))
    if not math.isfinite(deviation) or deviation == 0:
        return State.UNKNOWN
    kurtosis = float((values / deviation).pow(4).mean())
    noise = 5 * math.sqrt(24 / count)
    drawn = abs(kurtosis - UNIFORM) < noise / 4 or min(abs(kurtosis - NORMAL), abs(kurtosis - CUT_NORMAL)) < noise
    flat = values.reshape(values.shape[0], -1) if values.dim() > 1 else values[None]
    edge = deviation * (math.sqrt(flat.shape[0]) + math.sqrt(flat.shape[1]))
    if min(flat.shape) >= 16 and _largest_singular(flat) > 1.3 * edge:
        return State.TRAINED
    return State.FRESH if drawn else State.TRAINED if count >= 4 * FEWEST else State.UNKNOWN


def _default_bound(layer: nn.Module, matrix: torch.Tensor) -> float:
    """Within which torch draws this layer's weights and biases unless told otherwise; 0 if not uniformly."""
    if isinstance(layer, RECURRENT):
        return 1 / math.sqrt(layer.hidden_size)
    if isinstance(layer, (nn.Linear, nn.Bilinear)) or hasattr(layer, "kernel_size"):
        return 1 / math.sqrt(max(1, matrix[0].numel()))
    return 0.0


def _is_constant(vector: torch.Tensor) -> bool:
    return vector.numel() < 2 or bool((vector == vector.reshape(-1)[0]).all())


def _largest_singular(matrix: torch.Tensor) -> float:
    """By a few rounds of power iteration, from a start that is the same each time."""
    vector = torch.arange(1, matrix.shape[1] + 1, device=matrix.device, dtype=matrix.dtype).sin()
    for _ in range(12):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / vector.norm().clamp_min(1e-30)
    return float((matrix @ vector).norm())
