"""The first loss against what guessing costs: far above it, outputs are far too large or far off."""

from __future__ import annotations

import math

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import compares_with_data, meetings
from nbdebug.checks.preflight.task import Kind, Task
from nbdebug.records.findings import Cause, Remedy, Severity

CLASSES = "initial_loss_of_classes"
NUMBERS = "initial_loss_of_numbers"
GRAVE = 20.0


def judge(look: Look, say: Say) -> None:
    """The loss of the first step's outputs, by what is to be learnt."""
    trace, task = look.called, look.task
    loss = task.loss
    if loss is None or task.output is None or task.target is None or not task.output.numel():
        say.skip("the loss is none of torch's")
    if not any(each.loss is loss for each in meetings(trace)) or not compares_with_data(trace, loss):
        say.skip("the loss has no targets from the batch")
    if loss.name == "cross_entropy":
        _judge_classes(task, say)
    elif loss.name == "mse_loss" and task.output.shape == task.target.shape:
        _judge_numbers(task, say)
    else:
        say.skip(f"nothing is known of a first {loss.name}")


def _judge_classes(task: Task, say: Say) -> None:
    assert task.output is not None and task.target is not None and task.loss is not None
    target = task.target
    if task.classes < 2:
        say.skip("there is one class")
    rows = task.output.float().log_softmax(1)
    if target.shape == rows.shape:
        value = float(-(target * rows).sum(1).mean())
    else:
        fitting = (target >= 0) & (target < task.classes)
        if not bool(fitting.any()):
            say.skip("no target is a class")
        value = float(-rows[fitting].gather(1, target[fitting].long()[:, None]).mean())
    guess = math.log(task.classes)
    if say.measure("first cross entropy, of that of guessing", value / guess, CLASSES):
        _tell(say, task, value, guess, f"guessing among {task.classes} classes costs ln {task.classes} = {guess:.3g}")


def _judge_numbers(task: Task, say: Say) -> None:
    assert task.output is not None and task.target is not None
    target = task.target.double()
    value = float((task.output.double() - target).square().mean())
    guess = max(float(target.square().mean()), float(target.var(correction=0)))
    if not guess or not math.isfinite(guess) or target.numel() < 2:
        say.skip("all targets are zero")
    if say.measure("first squared error, of that of always saying zero", value / guess, NUMBERS):
        _tell(say, task, value, guess, f"always saying zero costs {guess:.3g}")


def _tell(say: Say, task: Task, value: float, guess: float, what: str) -> None:
    limit = say.limit(CLASSES if task.kind is Kind.CLASSES else NUMBERS)
    grave = not math.isfinite(value) or value > GRAVE * limit * guess
    spread = float(task.output.float().std()) if isinstance(task.output, torch.Tensor) else math.nan
    say.find(
        Cause.INITIAL_LOSS,
        Severity.WARNING if grave else Severity.INFO,
        "The first loss is far above guessing",
        f"The first loss is {value:.3g}, where {what}. Outputs have a standard deviation of {spread:.3g}: the first "
        "steps only make them smaller.",
        confidence=0.6 if grave else 0.4,
        remedies=(
            Remedy("Look at the scale of inputs and targets, and of the last layer's weights."),
            Remedy("Begin with small weights in the last layer."),
        ),
        line=task.loss.call.line if task.loss is not None else None,
    )


CHECK = Check(
    "initial_loss",
    "the first loss is what guessing costs",
    judge,
    (Cause.INITIAL_LOSS,),
    parameters=(
        Parameter(CLASSES, 4.0, "how many times as large as that of guessing a first cross entropy may be", 1.0),
        Parameter(NUMBERS, 30.0, "how many times as large as that of saying zero a first squared error may be", 1.0),
    ),
    source="Karpathy, A recipe for training neural networks: verify the loss at init",
)
