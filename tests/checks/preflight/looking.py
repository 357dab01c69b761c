"""Looks at a small training program as the passive part does, without a debugger around it.

Tables of programs, faulty and healthy ones by rule, become two tests: see :func:`told_apart`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
import torch

from nbdebug.checks.preflight import battery
from nbdebug.checks.preflight.battery import MOST_TRACED_STEPS, TRACED_STEPS
from nbdebug.checks.preflight.bench import keep_result
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.registry import table
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.tracer import can_trace_calls, traced
from nbdebug.records.checks import CheckOutcome, CheckResult
from nbdebug.training import steps
from nbdebug.training.aside import copied
from nbdebug.training.trainer import Trainer, length

Program: TypeAlias = tuple[Any, Trainer]
Make: TypeAlias = Callable[[], Program]
Table: TypeAlias = Mapping[str, Sequence[Make]]
RULES = "nbdebug.checks.preflight.rules"
MOST_BATCHES = 64


def look_at(model: Any, trainer: Trainer) -> Look:
    """The batches of one epoch, those of validation, and as many traced steps as the battery looks into.

    What a step raises is in its trace.
    """
    training = _batches(trainer.train_loader)
    validation = _batches(trainer.val_loader) if trainer.val_loader is not None else []
    traces: list[StepTrace] = []
    while len(traces) < TRACED_STEPS or (traces[-1].waits_for_update and len(traces) < MOST_TRACED_STEPS):
        traces.append(_trace(model, trainer, copied(training[len(traces) % len(training)])))
    known = length(trainer.train_loader)
    over = len(training) < MOST_BATCHES or len(training) == known
    epoch = known or (len(training) if over else None)
    return Look(
        model, trainer, training, validation, traces,
        epoch_length=epoch, whole_epoch=over, of_one_epoch=len(training),
    )  # fmt: skip


def judged(rule: str, model: Any, trainer: Trainer, **parameters: float) -> CheckResult:
    """What one rule, by its module's name, comes to."""
    check = importlib.import_module(f"{RULES}.{rule}").CHECK
    result, _ = battery.judge(check, look_at(model, trainer), table(parameters), "main", 0)
    assert result.outcome is not CheckOutcome.BROKE, result.findings[0].detail
    return result


def warned(result: CheckResult) -> list[str]:
    """The causes it names, but for what is told for completeness only."""
    return [str(finding.cause) for finding in result.findings if finding.severity != "info"]


def cases(table: Table) -> list[Any]:
    """Each program of a table, with the rule that it is for."""
    return [pytest.param(rule, made, id=f"{rule}-{made.__name__}") for rule, each in table.items() for made in each]


def told_apart(
    faults: Table,
    healthy: Table,
    *,
    judge: Callable[..., CheckResult] = judged,
    causes: Mapping[str, str] | None = None,
    fault_seeds: Sequence[int] = (0, 1),
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Two tests: the rule names each fault, by its own name unless ``causes`` has another; and no healthy program."""

    @pytest.mark.parametrize(("rule", "make"), cases(faults))
    @pytest.mark.parametrize("seed", fault_seeds)
    def test_a_fault_is_named(rule: str, make: Make, seed: int) -> None:
        torch.manual_seed(seed)
        assert warned(judge(rule, *make())) == [(causes or {}).get(rule, rule)]

    @pytest.mark.parametrize(("rule", "make"), cases(healthy))
    @pytest.mark.parametrize("seed", [0, 1])
    def test_what_only_looks_odd_is_left_alone(rule: str, make: Make, seed: int) -> None:
        torch.manual_seed(seed)
        result = judge(rule, *make())
        assert warned(result) == [], result.findings

    return test_a_fault_is_named, test_what_only_looks_odd_is_left_alone


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
