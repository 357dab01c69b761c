# mypy: ignore-errors
"""The parts of an exported script that exchange what trains: layers, norms, optimizers, schedules; averages.

Marked and used like :mod:`nbdebug.training.script_template`, which says how. Schedules' shapes, the fold of a norm and
the move of a scheduler are taken from where the debugger itself has them.
"""

from __future__ import annotations

import torch
from torch import nn

from nbdebug.training.schedules import warm_up
from nbdebug.training.script_template_hand import Rate
from nbdebug.training.script_template_start import named_modules


def look_again(modules, roots):
    """Layers were exchanged: these are their names now."""
    modules.clear()
    modules.update(named_modules(roots))


def drop(optimizers, parameters):
    """Parameters that left the model leave the optimizers."""
    gone = set(map(id, parameters))
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in gone]


def put_norm_after(layer, norm):
    """A batch norm for what a layer gives; the layer's own names stay, those of the norm come below it."""
    layer.inserted_norm = norm
    layer.__class__ = normed(type(layer))


def take_norm_off(layer):
    """The layer as it was."""
    del layer.inserted_norm
    layer.__class__ = layer.normed_base


def normed(base):
    """A layer's class that norms what the layer gives: over all but the last dimension, of a linear one."""

    class Normed(base):
        normed_base = base

        def forward(self, *args, **kwargs):
            output = base.forward(self, *args, **kwargs)
            if issubclass(base, nn.Linear) and output.dim() != 2:
                return self.inserted_norm(output.reshape(-1, output.shape[-1])).reshape(output.shape)
            return self.inserted_norm(output)

    return Normed


def renew_rates(rates, optimizers, options=()):
    """Another optimizer or schedule: how each parameter group's rate relates to it now."""
    shares = [rate.share for rate in rates]
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    rates[:] = [Rate(group, **given) for group, given in zip(groups, options, strict=True)]  #: factor
    rates[:] = [Rate(group) for group in groups]  #: not_factor
    for rate, share in zip(rates, shares, strict=False):
        rate.share = share


class Factor:
    """Which share of its highest rate a schedule has at a position, an epoch or a batch."""

    def __init__(self, shape, warmup_steps=0, warmup_start=1.0, **numbers):
        self.shape, self.warmup_steps, self.warmup_start = shape, warmup_steps, warmup_start
        vars(self).update(numbers)

    def __call__(self, position):
        """The share at a position, counted from 0."""
        if position < self.warmup_steps:
            return warm_up(position, self.warmup_steps, self.warmup_start)
        return float(self.shape(self, position - self.warmup_steps))


class Average:
    """An average of weights and buffers on the side: exponential with a decay, equal without."""

    def __init__(self, decay=None, start=1, every=1):
        self.decay, self.start, self.every = decay, start, every
        self.steps, self.held = 0, {}

    def update(self, roots):
        """A step is over. What the model did not have before begins with what it is."""
        self.steps += 1
        if self.steps < self.start or (self.steps - self.start) % self.every:
            return
        before, self.held = self.held, {}
        for name, tensor in named_tensors(roots).items():
            average, taken = before.get(name, (None, 0))
            dtype = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.dtype
            if average is None or average.shape != tensor.shape:
                average, taken = torch.empty_like(tensor, dtype=dtype), 0
            average = average.detach().to(tensor.device, dtype)
            share = 1 / (taken + 1) if self.decay is None else 1.0 if taken == 0 else 1 - self.decay
            with torch.no_grad():
                if share == 1 or not (tensor.is_floating_point() or tensor.is_complex()):
                    average.copy_(tensor)
                else:
                    torch._foreach_lerp_([average], [tensor.to(dtype)], share)
            self.held[name] = average, taken + 1

    def tensors(self):
        """The averages by name."""
        return {name: average for name, (average, _) in self.held.items()}


def named_tensors(roots):
    """Parameters and buffers of the model, each once, by its first name."""
    found = {}
    for name, module in named_modules(roots).items():
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), (f"{name}.{key}" if name else key, tensor))
    return dict(found.values())
