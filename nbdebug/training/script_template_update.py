# mypy: ignore-errors
"""The parts of an exported script that change gradients: clipping, of all or layer by layer, and noise.

Marked and used like :mod:`nbdebug.training.script_template`, which says how.
"""

from __future__ import annotations

import torch

from nbdebug.training.layer_names import covered
from nbdebug.training.script_template_start import named_modules, named_roots


def clip_layers(model, rules, held, scale=1.0):
    """Clip each rule's layers, in the order of their names."""
    modules, known = named_modules(named_roots(model, None)), {id(parameter) for parameter in held}
    for name, (kind, limit) in sorted(rules.items()):
        for parameters in covered(modules, name):
            chosen = [p for p in parameters if id(p) in known and p.grad is not None]
            if kind == "norm":  #: layer_norm
                clip_norm(chosen, limit * scale)  #: layer_norm
            if kind == "value":  #: layer_value
                clip_value(chosen, limit * float(scale))  #: layer_value


def clip_norm(parameters, limit):
    """Scale gradients down to a norm, together; finite ones only."""
    if not parameters:
        return
    whole = [p.grad.coalesce().values() if p.grad.is_sparse else p.grad for p in parameters]  #: sparse
    whole = [p.grad for p in parameters]  #: not_sparse
    norm = torch.nn.utils.get_total_norm(whole)
    if torch.isfinite(norm):
        factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
        for parameter in parameters:
            numbers_of(parameter.grad).mul_(factor.to(parameter.device))  #: sparse
            parameter.grad.mul_(factor.to(parameter.device))  #: not_sparse


def clip_value(parameters, limit):
    """Clamp gradients."""
    for parameter in parameters:
        merge(parameter)  #: sparse
        numbers_of(parameter.grad).clamp_(-limit, limit)  #: sparse
        parameter.grad.clamp_(-limit, limit)  #: not_sparse


def merge(parameter):
    """Sum the repeated rows of a sparse gradient."""
    if parameter.grad.is_sparse:
        parameter.grad.data = parameter.grad.coalesce()


def numbers_of(gradient):
    """The numbers of a gradient, also of a sparse one."""
    return gradient._values() if gradient.is_sparse else gradient


class Noise:
    """Gaussian noise on gradients, from random generators of its own."""

    def __init__(self, kept):
        self.std, self.seed, self.generators = kept.noise, kept.noise_seed, {}
        for device, state in kept.noise_states:
            self.generator(torch.device(device)).set_state(state)

    def generator(self, device):
        """That of a device."""
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed + (device.index or 0))
        return self.generators[device]

    def reseed(self, seed):  #: reseeded_noise
        """Other numbers from here on."""  #: reseeded_noise
        self.seed = (seed ^ NOISE_SEED) % 2**63  #: reseeded_noise
        self.generators.clear()  #: reseeded_noise

    def add(self, parameters, scale=1.0):
        """Add it in place."""
        for parameter in parameters if self.std > 0 else ():
            merge(parameter)  #: sparse
            held = numbers_of(parameter.grad)  #: sparse
            held = parameter.grad  #: not_sparse
            generator = self.generator(held.device)
            drawn = torch.randn(held.shape, generator=generator, dtype=held.dtype, device=held.device).mul_(self.std)
            held.add_(drawn.mul_(scale))  #: scaler
            held.add_(drawn)  #: not_scaler


NOISE_SEED = 0x6E6F697365


def split_decay(optimizer, parts, schedulers):
    """Take parameters, by group and place, out of the weight decay: into groups of their own, at the end."""
    groups = optimizer.param_groups
    sources = [index for index, places in parts if len(places) < len(groups[index]["params"])]
    for scheduler in with_inner(schedulers):
        for name in PER_GROUP:
            values = getattr(scheduler, name, None)
            if isinstance(values, (list, tuple)) and len(values) == len(groups):
                setattr(scheduler, name, [*values, *(own_value(values[source]) for source in sources)])
    for index, places in parts:
        group = groups[index]
        none = torch.zeros_like(group["weight_decay"]) if isinstance(group["weight_decay"], torch.Tensor) else 0.0
        if index not in sources:
            group["weight_decay"] = none
            continue
        options = {key: own_value(value) for key, value in group.items() if key not in ("params", "param_names")}
        options |= {"weight_decay": none, "name": f"{group.get('name', index)}, no decay"}
        held = list(enumerate(zip(group.get("param_names", group["params"]), group["params"], strict=True)))
        named = "param_names" in group
        moved = [pair if named else pair[1] for place, pair in held if place in places]
        left = [pair for place, pair in held if place not in places]
        group["params"][:] = [parameter for _, parameter in left]
        if named:
            group["param_names"] = [name for name, _ in left]
        optimizer.add_param_group({**options, "params": moved})


def own_value(value):
    """A tensor copied, anything else as it is."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def with_inner(schedulers):
    """Each schedule, and those inside chains and sequences."""
    for scheduler in schedulers:
        yield scheduler
        yield from with_inner(getattr(scheduler, "_schedulers", ()))


PER_GROUP = ("base_lrs", "max_lrs", "min_lrs", "base_momentums", "max_momentums", "lr_lambdas", "_last_lr")
