# mypy: ignore-errors
"""The parts of an exported script that put into force what was set by hand, around each update of the weights.

Marked and used like :mod:`nbdebug.training.script_template`, which says how.
"""

from __future__ import annotations

from functools import partial

import torch

from nbdebug.training.script_template_update import Noise, clip_layers, clip_norm, clip_value

RATES: list[dict] = []


class Updates:
    """What is set by hand and acts around each update of the weights."""

    def __init__(
        self,
        optimizers,
        rates=None,  #: factor
        model=None,  #: layers
        kept=None,  #: noise
    ):
        self.rates = rates  #: factor
        self.model, self.layer_clips = model, {}  #: layers
        self.noise = Noise(kept)  #: noise
        self.clip_norm = None  #: norm
        self.clip_value = None  #: value
        for optimizer in optimizers.values():
            self.watch(optimizer)

    def watch(self, optimizer):
        """Act around the updates of this one."""
        optimizer.register_step_pre_hook(self.before)
        optimizer.register_step_post_hook(self.after)  #: factor

    def before(self, optimizer, args, kwargs):
        """Gradients are complete, or a closure will compute them."""
        for rate in self.rates:  #: factor
            if any(group is rate.group for group in optimizer.param_groups):  #: factor
                rate.put_factor_on()  #: factor
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  #: closures clip
        if callable(closure):  #: closures clip
            evaluate = partial(self.evaluate, optimizer, closure)  #: closures clip
            if len(args) > 1:  #: closures clip
                return (args[0], evaluate, *args[2:]), kwargs  #: closures clip
            return args, {**kwargs, "closure": evaluate}  #: closures clip
        self.clip(optimizer)  #: clip
        return None  #: closures clip

    def evaluate(self, optimizer, closure):  #: closures clip
        """What the closure gives, with its gradients clipped."""  #: closures clip
        loss = closure()  #: closures clip
        self.clip(optimizer)  #: closures clip
        return loss  #: closures clip

    def after(self, optimizer, args, kwargs):  #: factor
        """The update is done."""  #: factor
        for rate in self.rates:  #: factor
            if any(group is rate.group for group in optimizer.param_groups):  #: factor
                rate.take_factor_off()  #: factor

    def clip(self, optimizer):  #: clip
        """Clip the gradients in place; by norm only finite ones."""  #: clip not_noise
        """Clip the gradients in place, by norm only finite ones, and add noise."""  #: noise
        held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]  #: clip
        scale = getattr(optimizer, "grad_scale", None)  # that of a gradient scaler  #: scaler clip
        scale = 1.0 if scale is None else scale  #: scaler clip
        with torch.no_grad():  #: clip
            clip_layers(self.model, self.layer_clips, held, scale)  #: layers scaler
            clip_layers(self.model, self.layer_clips, held)  #: layers not_scaler
            if self.clip_value is not None:  #: value
                clip_value(held, self.clip_value * float(scale))  #: value scaler
                clip_value(held, self.clip_value)  #: value not_scaler
            if self.clip_norm is not None:  #: norm
                clip_norm(held, self.clip_norm * scale)  #: norm scaler
                clip_norm(held, self.clip_norm)  #: norm not_scaler
            self.noise.add(held, scale)  #: noise scaler
            self.noise.add(held)  #: noise not_scaler


class Rate:
    """The learning rate of a parameter group. Under a schedule, what is set by hand is a factor on it."""

    def __init__(
        self,
        group,
        scheduled=False,  #: factor
        peak=False,  #: factor
        first=None,  #: factor
        factor=1.0,  #: factor
    ):
        self.group = group
        self.scheduled, self.peak, self.first, self.factor = scheduled, peak, first, factor  #: factor
        self.share = 1.0
        if isinstance(group["lr"], torch.Tensor):  #: tensor_lr
            group["lr"] = group["lr"].clone()  #: tensor_lr

    @property  #: factor
    def base(self):  #: factor
        """What the schedule scales: its peak where it has one, else its start."""  #: factor
        start = self.group.get("initial_lr", self.first)  #: factor
        return float(self.group.get("max_lr", start) if self.peak else start)  #: factor

    @property
    def asked(self):
        """The rate as it was asked for."""
        return self.base * self.factor if self.scheduled else float(self.group["lr"])  #: factor
        return float(self.group["lr"])  #: not_factor

    def ask(self, lr):
        """Ask for another rate."""
        if self.scheduled:  #: factor
            self.factor = lr / self.base  #: factor
            return  #: factor
        write_lr(self.group, lr)

    def put_factor_on(self):  #: factor
        """For the length of an update."""  #: factor
        lr = self.group["lr"]  #: factor
        self.kept = lr.clone() if isinstance(lr, torch.Tensor) else lr  #: factor
        write_lr(self.group, self.kept * self.factor)  #: factor

    def take_factor_off(self):  #: factor
        """So that the schedule never sees it."""  #: factor
        write_lr(self.group, self.kept)  #: factor


def write_lr(group, lr):
    """Write the learning rate of a parameter group."""
    if isinstance(group["lr"], torch.Tensor):  #: tensor_lr
        group["lr"].fill_(lr)  #: tensor_lr
        return  #: tensor_lr
    group["lr"] = lr


def rates_of(optimizers):
    """The rates of all parameter groups, in their order."""
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    return [Rate(group, **options) for group, options in zip(groups, RATES, strict=True)]  #: factor
    return [Rate(group) for group in groups]  #: not_factor


def set_lr(rates, lr):
    """Set the learning rate of all parameter groups; they keep their ratio to the first."""
    asked = [rate.asked for rate in rates]
    for rate, before in zip(rates, asked, strict=True):
        rate.share = before / asked[0] if asked[0] > 0 else rate.share
        rate.ask(lr * rate.share if rate.share != 1.0 else lr)


def forget(optimizers, parameters):
    """Clear what the optimizers remember of parameters that were drawn anew."""
    for optimizer in optimizers.values():
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}  #: lbfgs
        if isinstance(optimizer, torch.optim.LBFGS) and held & set(map(id, parameters)):  #: lbfgs
            optimizer.state.clear()  # LBFGS keeps what it knows of all under its first parameter  #: lbfgs
        for parameter in parameters:
            optimizer.state.pop(parameter, None)
