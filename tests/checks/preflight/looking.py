"""Looks at a small training program as the passive part does, without a debugger around it."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

from nbdebug.checks.preflight import battery
from nbdebug.checks.preflight.bench import keep_result
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.registry import table
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.tracer import can_trace_calls, traced
from nbdebug.records.checks import CheckOutcome, CheckResult
from nbdebug.training import steps
from nbdebug.training.aside import copied
from nbdebug.training.trainer import Trainer, length

RULES = "nbdebug.checks.preflight.rules"
MOST_BATCHES = 64


def look_at(model: Any, trainer: Trainer) -> Look:
    """The batches of one epoch, those of validation, and two traced steps; what a step raises is in its trace."""
    training = _batches(trainer.train_loader)
    validation = _batches(trainer.val_loader) if trainer.val_loader is not None else []
    traces = [_trace(model, trainer, copied(batch)) for batch in (training * 2)[:2]]
    epoch = length(trainer.train_loader)
    return Look(model, trainer, training, validation, traces, epoch_length=epoch, whole_epoch=len(training) == epoch)


def judged(rule: str, model: Any, trainer: Trainer, **parameters: float) -> CheckResult:
    """What one rule, by its module's name, comes to."""
    check = importlib.import_module(f"{RULES}.{rule}").CHECK
    result, _ = battery.judge(check, look_at(model, trainer), table(parameters), "main", 0)
    assert result.outcome is not CheckOutcome.BROKE, result.findings[0].detail
    return result


def warned(result: CheckResult) -> list[str]:
    """The causes it names, but for what is told for completeness only."""
    return [str(finding.cause) for finding in result.findings if finding.severity != "info"]


def _batches(loader: Any) -> list[Any]:
    return [copied(batch) for _, batch in zip(range(MOST_BATCHES), loader, strict=False)]


def _trace(model: Any, trainer: Trainer, batch: Any) -> StepTrace:
    with traced(model, trainer.optimizers, batch, calls=can_trace_calls(model, trainer)) as trace:
        try:
            result = _step(model, trainer, batch)
        except Exception as error:
            trace.error, result = error, SimpleNamespace(loss=None)
    if result.loss is not None:
        keep_result(trace, result)
    return trace


def _step(model: Any, trainer: Trainer, batch: Any) -> Any:
    if trainer.step is not None:
        return steps.interpret(trainer.step(model, batch, trainer.loss, trainer.optimizer), "step")
    return steps.train_step(model, batch, trainer.loss, next(iter(trainer.optimizers.values())))
