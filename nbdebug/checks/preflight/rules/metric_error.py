"""The metrics are tried on right predictions, and on the same ones given to other samples: right ones are best."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.task import Kind, Task
from nbdebug.records.findings import Cause, Remedy, Severity

FEWEST = 8
TRIES = 8
SAME = 1e-6
BETWEEN = 0.1
HIGH = ("acc", "f1", "auc", "precision", "recall", "iou", "dice", "r2", "correct", "jaccard")
LOW = ("err", "mae", "mse", "rmse", "mape", "loss", "distance", "top")


@dataclass(frozen=True, slots=True)
class Tried:
    """A metric's values on perfect predictions, and on the same ones given to other samples.

    ``looks`` says that it changes with the targets.
    """

    perfect: float
    shuffled: list[float]
    looks: bool


def judge(look: Look, say: Say) -> None:
    """Every metric, on predictions in the form of the first step's output."""
    trace = look.trace
    output, target = trace.output, trace.target
    if not look.trainer.metrics:
        say.skip("there are no metrics")
    if not isinstance(output, torch.Tensor) or not isinstance(target, torch.Tensor) or not output.is_floating_point():
        say.skip("the step's output and target are not tensors")
    if len(target) < FEWEST or len(target) != len(output) or len(target.unique()) < 2:
        say.skip("there are too few samples, or all have one target")
    perfect = _perfect(look.task, output, target)
    if perfect is None:
        say.skip("what a perfect prediction would be is not known here")
    for name, metric in look.trainer.metrics.items():
        tried = _tried(_own(metric), perfect, target)
        if tried is not None:
            _judge(name, tried, say)


def _own(metric: Callable[..., Any]) -> Callable[..., Any] | None:
    """The metric, or a copy of one that may keep a state."""
    if isinstance(metric, (FunctionType, BuiltinFunctionType)):
        return metric
    try:
        return copy.deepcopy(metric)
    except Exception:  # what can't be copied is left alone
        return None


def _perfect(task: Task, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
    """Predictions that are right by a small margin, in the shape and form of the output."""
    made = torch.Generator().manual_seed(0)
    if task.kind is Kind.CLASSES and not target.is_floating_point():
        axis = next((each for each in _axes(task, output) if _without(output, each) == tuple(target.shape)), None)
        if axis is None or output.shape[axis] < 2 or bool((target < 0).any() | (target >= output.shape[axis]).any()):
            return None
        scores = 0.2 * torch.rand(output.shape, generator=made)
        scores.scatter_add_(axis, target.cpu().long().unsqueeze(axis), torch.full_like(scores.narrow(axis, 0, 1), 0.3))
        return _like(scores, output, axis)
    if target.numel() != output.numel():
        return None
    goal = target.detach().cpu().double().reshape(output.shape)
    if task.kind in (Kind.BINARY, Kind.MULTI_LABEL) and bool(((goal == 0) | (goal == 1)).all()):
        margin = (2 * goal - 1) * (0.1 + 0.3 * torch.rand(goal.shape, generator=made))
        return (margin + 0.5 if _are_probabilities(task, output) else margin).to(output)
    return goal.to(output) if task.kind is Kind.REGRESSION else None


def _are_probabilities(task: Task, output: torch.Tensor) -> bool:
    """By the loss that takes them; where that does not say, by whether all lie between 0 and 1."""
    name = task.loss.name if task.loss is not None else ""
    if name in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        return name == "binary_cross_entropy"
    return bool(((output >= 0) & (output <= 1)).all())


def _axes(task: Task, output: torch.Tensor) -> list[int]:
    as_loss = task.loss is not None and task.loss.input.shape == output.shape
    return [1, output.dim() - 1] if as_loss else [output.dim() - 1, 1]


def _without(output: torch.Tensor, axis: int) -> tuple[int, ...]:
    return tuple(size for place, size in enumerate(output.shape) if place != axis) if axis < output.dim() else ()


def _like(scores: torch.Tensor, output: torch.Tensor, axis: int) -> torch.Tensor:
    """Scores as logits, probabilities or their logarithms, as the output has them."""
    sums = output.detach().float().sum(axis)
    if bool((output >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()):
        return scores.softmax(axis).to(output)
    logs = output.detach().float().logsumexp(axis)
    return (scores.log_softmax(axis) if bool((logs.abs() < 1e-3).all()) else scores).to(output)


def _tried(metric: Callable[..., Any] | None, perfect: torch.Tensor, target: torch.Tensor) -> Tried | None:
    """``None`` for a metric that fails, or gives no number."""
    if metric is None:
        return None
    made = torch.Generator().manual_seed(1)
    value = _value(metric, perfect, target)
    others = [_value(metric, perfect, target[each : each + 1].expand_as(target).clone()) for each in range(2)]
    orders = [torch.randperm(len(target), generator=made).to(perfect.device) for _ in range(TRIES)]
    shuffled = [each for order in orders if (each := _value(metric, perfect[order], target)) is not None]
    if value is None or len(shuffled) < TRIES:
        return None
    return Tried(value, shuffled, any(each is not None and abs(each - value) > SAME for each in others))


def _value(metric: Callable[..., Any], output: torch.Tensor, target: torch.Tensor) -> float | None:
    try:
        with torch.no_grad():
            value = float(metric(output.clone(), target.clone()))
    except Exception:  # a metric may not take what is no real prediction
        return None
    return value if math.isfinite(value) else None


def _judge(name: str, tried: Tried, say: Say) -> None:
    best = tried.perfect
    say.measure(f"{name} of perfect predictions", best)
    say.measure(f"{name} of predictions for other samples, mean", sum(tried.shuffled) / TRIES)
    low, high = min(tried.shuffled), max(tried.shuffled)
    slack = SAME * max(1.0, abs(best))
    higher = any(part in name.lower() for part in HIGH) and not any(part in name.lower() for part in LOW)
    if not tried.looks and not higher:
        return
    if high - low <= slack and abs(best - low) <= slack and (abs(best) > 1e-3 or higher):
        what = "the same as for predictions given to the wrong samples"
    elif low + slack < best < high - slack and abs(best) > BETWEEN * (high - low):
        what = f"neither the highest nor the lowest: predictions for other samples reach from {low:.3g} to {high:.3g}"
    elif higher and best < high - slack:
        what = (
            f"not the highest, where its name says that more is better: predictions for other samples reach {high:.3g}"
        )
    else:
        return
    say.find(
        Cause.METRIC_ERROR,
        Severity.WARNING,
        f"The metric {name} can't tell right from wrong",
        f"On perfect predictions {name} is {best:.3g}, {what}. The network may learn well and the metric not show it. "
        "Common reasons: shapes that broadcast, an argmax along another dimension, a threshold of 0.5 on logits.",
        confidence=0.85,
        remedies=(Remedy(f"Try {name} by hand on targets given as predictions, and mend what it compares."),),
    )


CHECK = Check(
    "metric_error",
    "metrics are best for perfect predictions",
    judge,
    (Cause.METRIC_ERROR,),
    passive=False,
    source="37 reasons why your neural network is not working: test metrics on known predictions",
)
