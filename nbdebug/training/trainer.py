"""Trainer: how to train. Holds what the user gave, checked; it runs nothing and owns no thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from nbdebug.records.errors import collect
from nbdebug.training.loss_parts import LossParts, part_mistakes, parts_of, weight_mistakes
from nbdebug.training.modules import Model, named_parameters
from nbdebug.training.smoothing import Smoothing

Optimizers: TypeAlias = Optimizer | Mapping[str, Optimizer]
Schedulers: TypeAlias = LRScheduler | Mapping[str, LRScheduler]
StepFunction: TypeAlias = Callable[[Any, Any, Any, Any], Any]
EvalStepFunction: TypeAlias = Callable[[Any, Any, Any], Any]
Metric: TypeAlias = Callable[[Any, Any], Any]
INTERVALS = ("epoch", "batch", "manual")


class Trainer:
    """How to train a model: the parts of a plain PyTorch loop.

    Args:
        optimizer: any ``torch.optim.Optimizer``, or a mapping of them (a GAN); with closures (LBFGS) too.
        loss_fn: ``loss_fn(output, target)`` → scalar tensor with a graph; also passed to ``step``. Or a mapping of such
            parts by name, of which the loss is the weighted sum, in their order; each is a series of its own.
        loss_weights: the parts' weights by name, 1 where none is given.
        train_loader: any re-iterable of batches: a ``DataLoader``, a list. Batches are ``(input, target)``, mappings
            with the usual keys, or anything else if ``step`` is given.
        val_loader: the same for validation after each epoch.
        scheduler: a learning-rate scheduler, or a mapping of them. ``ReduceLROnPlateau`` gets the validation loss,
            or the epoch's mean training loss where there is no validation.
        scheduler_interval: when it is stepped: after each ``"epoch"``, each ``"batch"``, or ``"manual"`` (by ``step``).
        metrics: by name, ``metric(output, target)`` → number; on each training batch and over the validation data.
        step: the user's whole training step, ``step(model, batch, loss_fn, optimizer)``, zero_grad, backward and
            optimizer call included; returns the loss, or ``{"loss", "output", "target"}``.
        eval_step: ``eval_step(model, batch, loss_fn)``, in evaluation mode, without gradients; returns the same.
        state: by name, whatever else training depends on and has ``state_dict`` and ``load_state_dict``.
        device: where batches go (and the model, if given); by default where the model's first parameter lives.

    Raises:
        ConfigurationError: lists every argument that can't work.
    """

    def __init__(
        self,
        optimizer: Optimizers,
        loss_fn: Any,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        *,
        loss_weights: Mapping[str, float] | None = None,
        scheduler: Schedulers | None = None,
        scheduler_interval: str = "epoch",
        metrics: Mapping[str, Metric] | None = None,
        step: StepFunction | None = None,
        eval_step: EvalStepFunction | None = None,
        state: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.loss_fn = loss_fn
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.metrics: dict[str, Metric] = dict(metrics) if isinstance(metrics, Mapping) else {}
        self.step = step
        self.eval_step = eval_step
        self.state: dict[str, Any] = dict(state) if isinstance(state, Mapping) else {}
        mistakes = [
            *_optimizer_mistakes(optimizer),
            *_loss_mistakes(loss_fn, step, loss_weights, self.metrics),
            *_loader_mistakes("train_loader", train_loader),
            *(_loader_mistakes("val_loader", val_loader) if val_loader is not None else ()),
            *_scheduler_mistakes(self.schedulers, scheduler, scheduler_interval),
            *_callable_mistakes(metrics, step, eval_step),
            *_state_mistakes(state),
        ]
        try:
            self.device = None if device is None else torch.device(device)
        except (RuntimeError, TypeError) as error:
            mistakes.append(f"device={device!r} is no torch device: {error}")
        if mistakes:
            raise collect(mistakes)
        parts = parts_of(loss_fn)
        self.smoothing = Smoothing({"": loss_fn} if parts is None else parts)
        called = {name: self.smoothing.of(part) for name, part in (parts or {}).items()}
        self.loss_parts = LossParts(called, loss_weights or {}) if called else None

    @property
    def loss(self) -> Any:
        """The loss as steps call it now: ``loss_fn`` itself unless it has parts, or its labels are smoothed."""
        if self.loss_parts is not None:
            return self.loss_parts
        return self.smoothing.of(self.loss_fn) if self.smoothing.value else self.loss_fn

    @property
    def measures(self) -> tuple[str, ...]:
        """What is measured on each batch besides the loss: its parts, and the metrics."""
        return (*(self.loss_parts.parts if self.loss_parts is not None else ()), *self.metrics)

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizers by name; a single one has the empty name."""
        return dict(self.optimizer) if isinstance(self.optimizer, Mapping) else {"": self.optimizer}

    @property
    def schedulers(self) -> dict[str, LRScheduler]:
        """The schedulers by name; a single one has the empty name."""
        if self.scheduler is None:
            return {}
        return dict(self.scheduler) if isinstance(self.scheduler, Mapping) else {"": self.scheduler}

    def mistakes_with(self, model: Model) -> list[str]:
        """What can't work with this model: an optimizer that holds none of its parameters, a missing ``step``."""
        mistakes = []
        own = {id(parameter) for parameter in named_parameters(model).values()}
        for name, optimizer in self.optimizers.items():
            held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            if not held & own:
                mistakes.append(
                    f"optimizer{f' {name!r}' if name else ''} ({type(optimizer).__name__}) holds none of the model's "
                    "parameters: make it after the model, as in torch.optim.Adam(model.parameters())"
                )
        several = isinstance(model, Mapping) or isinstance(self.optimizer, Mapping)
        if several and self.step is None:
            mistakes.append(
                "several models or optimizers need step=..., your whole training step: "
                "step(models, batch, loss_fn, optimizers) -> loss"
            )
        return mistakes


def _optimizer_mistakes(optimizer: Any) -> list[str]:
    if isinstance(optimizer, Mapping):
        if not optimizer:
            return ["optimizer is an empty mapping: give at least one optimizer"]
        return [line for each in optimizer.values() for line in _optimizer_mistakes(each)]
    if isinstance(optimizer, Optimizer):
        return []
    hint = " (a class: call it, as in Adam(model.parameters()))" if isinstance(optimizer, type) else ""
    return [f"optimizer must be a torch.optim.Optimizer or a mapping of them, not {_kind(optimizer)}{hint}"]


def _loss_mistakes(loss_fn: Any, step: Any, weights: Any, metrics: Mapping[str, Any]) -> list[str]:
    parts = parts_of(loss_fn)
    found = [] if weights is None else weight_mistakes(weights, parts)
    if parts is not None:
        return [*part_mistakes(parts, metrics), *found]
    return [*_single_loss_mistakes(loss_fn, step), *found]


def _single_loss_mistakes(loss_fn: Any, step: Any) -> list[str]:
    if isinstance(loss_fn, type):
        return [f"loss_fn is the class {loss_fn.__name__}: call it, as in {loss_fn.__name__}()"]
    if callable(loss_fn) or step is not None:
        return []
    return [f"loss_fn must be callable, as torch.nn.functional.cross_entropy is; got {_kind(loss_fn)}"]


def _loader_mistakes(name: str, loader: Any) -> list[str]:
    if hasattr(loader, "__next__"):
        return [
            f"{name} is one-shot ({_kind(loader)}), so a second epoch would find it empty: give the DataLoader itself, "
            "or a list of batches"
        ]
    if isinstance(loader, (str, bytes, Mapping, torch.Tensor)) or not (
        hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
    ):
        return [f"{name} must be a re-iterable of batches, such as a DataLoader or a list; got {_kind(loader)}"]
    if length(loader) == 0:
        return [f"{name} is empty: it has no batch (fewer samples than one batch, with drop_last?)"]
    return []


def _scheduler_mistakes(schedulers: Mapping[str, Any], given: Any, interval: str) -> list[str]:
    mistakes = [
        f"scheduler must be a torch.optim.lr_scheduler scheduler, not {_kind(each)}"
        for each in schedulers.values()
        if not isinstance(each, (LRScheduler, ReduceLROnPlateau))
    ]
    if interval not in INTERVALS:
        mistakes.append(f"scheduler_interval must be one of {', '.join(map(repr, INTERVALS))}; got {interval!r}")
    return mistakes


def _callable_mistakes(metrics: Any, step: Any, eval_step: Any) -> list[str]:
    mistakes = []
    if metrics is not None and not isinstance(metrics, Mapping):
        mistakes.append(f"metrics must be a mapping of name to metric(output, target); got {_kind(metrics)}")
    elif metrics is not None:
        mistakes += [f"a metric's name must be text; got {n!r}" for n in metrics if not (isinstance(n, str) and n)]
        mistakes += [
            f"metric {name!r} must be callable; got {_kind(m)}" for name, m in metrics.items() if not callable(m)
        ]
        mistakes += [
            f"a metric can't be named {name!r}: choose a name of your own" for name in metrics if name == "loss"
        ]
    for name, function in (("step", step), ("eval_step", eval_step)):
        if function is not None and not callable(function):
            mistakes.append(f"{name} must be a function; got {_kind(function)}")
    return mistakes


def _state_mistakes(state: Any) -> list[str]:
    if state is None:
        return []
    if not isinstance(state, Mapping):
        return [f"state must be a mapping of name to an object with state_dict; got {_kind(state)}"]
    return [
        f"state[{name!r}] needs state_dict and load_state_dict; {_kind(entry)} has not both"
        for name, entry in state.items()
        if not (hasattr(entry, "state_dict") and hasattr(entry, "load_state_dict"))
    ]


def _kind(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def length(loader: Any) -> int | None:
    """Batches per epoch, or ``None`` for a loader without a length."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None
