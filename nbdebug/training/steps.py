"""One step of training and one of evaluation, as Trainer stands for them when the user gives none of their own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer

from nbdebug.records.errors import ConfigurationError
from nbdebug.training import batches
from nbdebug.training.accumulation import Accumulation


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step gave: its loss (a scalar tensor, or a number), and output and target where metrics can use them."""

    loss: Any
    output: Any = None
    target: Any = None
    has_output: bool = False


def train_step(
    model: Any, batch: Any, loss_fn: Any, optimizer: Optimizer, accumulation: Accumulation | None = None
) -> StepResult:
    """The plain step: zero_grad, forward, loss, backward, update; as a closure for optimizers that want one.

    Under ``accumulation`` gradients are cleared at the beginning of a group of batches, and used at its end.
    """
    if needs_closure(optimizer):
        return _step_with_closure(model, batch, loss_fn, optimizer)
    gathered = accumulation or Accumulation()
    inputs, target = batches.split(batch)
    if gathered.begin():
        optimizer.zero_grad()
    output = model(inputs)
    loss = _with_graph(_scalar(loss_fn(output, target)))
    if gathered.backward(loss):
        optimizer.step()
    return StepResult(loss, output, target, has_output=True)


def _step_with_closure(model: Any, batch: Any, loss_fn: Any, optimizer: Optimizer) -> StepResult:
    inputs, target = batches.split(batch)
    result = StepResult(None)

    def compute() -> torch.Tensor:
        nonlocal result
        optimizer.zero_grad()
        output = model(inputs)
        loss = _with_graph(_scalar(loss_fn(output, target)))
        loss.backward()
        result = StepResult(loss, output, target, has_output=True)
        return loss

    loss = optimizer.step(compute)  # type: ignore[arg-type]  # a closure may return the tensor itself
    return StepResult(loss, result.output, result.target, has_output=True)


def eval_step(model: Any, batch: Any, loss_fn: Any) -> StepResult:
    """The plain evaluation of a batch; call it in evaluation mode and without gradients."""
    inputs, target = batches.split(batch)
    output = model(inputs)
    return StepResult(_scalar(loss_fn(output, target)), output, target, has_output=True)


def interpret(returned: Any, function: str) -> StepResult:
    """What a user's ``step`` or ``eval_step`` returned, as a result."""
    if isinstance(returned, StepResult):
        return returned
    if isinstance(returned, Mapping):
        if "loss" not in returned:
            raise ConfigurationError(
                f"{function} returned a mapping without 'loss' (keys: {', '.join(map(repr, returned))}): "
                "return the loss, or {'loss': ..., 'output': ..., 'target': ...}"
            )
        has_output = "output" in returned and "target" in returned
        return StepResult(
            _number(returned["loss"], function), returned.get("output"), returned.get("target"), has_output
        )
    return StepResult(_number(returned, function))


def _number(loss: Any, function: str) -> Any:
    if loss is None:
        raise ConfigurationError(f"{function} returned nothing: return the loss, or {{'loss': ...}}")
    if isinstance(loss, torch.Tensor):
        return _scalar(loss)
    if isinstance(loss, (int, float)) or hasattr(loss, "__float__"):
        return float(loss)
    raise ConfigurationError(
        f"{function} must return the loss as a scalar tensor or a number, not {type(loss).__name__}"
    )


def _scalar(loss: Any) -> torch.Tensor:
    if not isinstance(loss, torch.Tensor):
        raise ConfigurationError(f"the loss must be a tensor, not {type(loss).__name__}: return it before .item()")
    if loss.numel() != 1:
        raise ConfigurationError(
            f"the loss must be one number, but has shape {tuple(loss.shape)}: "
            "reduce it with .mean(), or reduction='mean' in the loss function"
        )
    return loss


def _with_graph(loss: torch.Tensor) -> torch.Tensor:
    if not loss.requires_grad:
        raise ConfigurationError(
            "the loss has no graph, so nothing can be learned from it: look for .detach(), .item(), .data, argmax or "
            "torch.no_grad() between the model's parameters and the loss, or for parameters that are all frozen"
        )
    return loss


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether its steps take a closure, as those of LBFGS do."""
    kind: Any = type(optimizer)
    return _step_requires_closure(kind)


@cache
def _step_requires_closure(kind: Any) -> bool:
    closure = inspect.signature(kind.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
