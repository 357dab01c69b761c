"""The numbers of a module's call: how large its output is, how much of it is zero, how far samples differ. Pure."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.trace import LayerCall


def layer_call(name: str, module: nn.Module, args: Any, output: Any) -> LayerCall:
    """The numbers of one call of a module."""
    first = next((tensor for _, tensor in leaves(output) if tensor.is_floating_point()), None)
    given = next((tensor for _, tensor in leaves(args)), None)
    if first is None or not first.numel():
        shape = () if first is None else tuple(first.shape)
        return LayerCall(name, type(module).__name__, module.training, shape, *(math.nan,) * 5, True, math.nan)
    values = first.detach().float()
    samples = values.reshape(values.shape[0], -1) if values.dim() > 1 and values.shape[0] > 1 else None
    floats = given is not None and given.is_floating_point() and given.numel()
    inputs = given.detach().float() if given is not None and floats and given.dim() > 1 and len(given) > 1 else None
    return LayerCall(
        name,
        type(module).__name__,
        module.training,
        tuple(values.shape),
        float(values.mean()),
        float(values.std(correction=0)),
        float(values.abs().max()),
        float((values == 0).float().mean()),
        float(samples.std(0, correction=0).mean()) if samples is not None else math.nan,
        bool(torch.isfinite(values).all()),
        float(given.detach().float().square().mean().sqrt()) if given is not None and floats else math.nan,
        tuple(given.shape) if given is not None else (),
        float(inputs.std(0, correction=0).mean()) if inputs is not None else math.nan,
    )
