"""Training goes uphill: what should fall is raised, by a sign that is one too many or one too few."""

from __future__ import annotations

import math

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.bench import Bench
from nbdebug.checks.preflight.data import Data
from nbdebug.checks.preflight.likeness import COSINES, Likeness, likenesses
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import PRODUCTS, behind, compares_with_data, meetings, weights
from nbdebug.checks.preflight.task import Kind, Task, task_of
from nbdebug.checks.preflight.trace import LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

WORSE = "agreement_lost"
STEPS = 16
LEAST_SECONDS = 2.0


def judge(look: Look, say: Say) -> None:
    """By the signs between torch's losses and ``backward``; in the battery by some steps on one batch."""
    trace = look.called
    compared = [each for each in meetings(trace) if not each.by_hand and compares_with_data(trace, each.loss)]
    up = any(bool(group.get("maximize")) for each in look.optimizers.values() for group in each.param_groups)
    factors = [-each.coefficient if up else each.coefficient for each in compared]
    say.measure("losses that training raises", sum(factor < 0 for factor in factors))
    if factors and all(factor < 0 for factor in factors):
        _tell_by_sign(compared[0].loss, up, say)
    elif not compared and (alike := likenesses(trace)):
        _judge_likeness(alike, up, say)
    elif look.bench is not None and not compared and not weights(trace):
        _judge_by_steps(look, look.bench, trace, say)


def _tell_by_sign(loss: LossCall, up: bool, say: Say) -> None:
    how = "the optimizer is told to maximize" if up else "what backward is called on falls as it rises"
    say.find(
        Cause.LOSS_SIGN_ERROR,
        Severity.CRITICAL,
        "Training raises the loss",
        f"{loss.name} is to be made small{f' (it is {loss.value:.3g})' if loss.value is not None else ''}, but {how}: "
        "each step takes the network further from the targets, without end.",
        confidence=0.97,
        remedies=(Remedy("Leave out maximize=True." if up else "Take away the minus before the loss."),),
        line=loss.call.line,
    )


def _judge_likeness(alike: list[Likeness], up: bool, say: Say) -> None:
    """By their signs alone: what brings some nearer and others apart, or is bent, may be meant."""
    lowered = [-each.coefficient if up else each.coefficient for each in alike]
    say.measure("likenesses to the targets that training lowers", sum(each > 0 for each in lowered))
    if not all(each > 0 for each in lowered):
        return
    met = alike[0].met
    say.find(
        Cause.LOSS_SIGN_ERROR,
        Severity.CRITICAL,
        "Training makes outputs unlike their targets",
        f"{'A cosine similarity' if met.name in COSINES else 'A product with the targets'} is largest where "
        "outputs are as the targets say, and it is all that backward is called on, to be made small"
        + (", with an optimizer that is told to maximize the loss: " if up else ": ")
        + "each step takes the network further from the targets.",
        confidence=0.95,
        remedies=(
            Remedy("Leave out maximize=True.")
            if up
            else Remedy("Minimise one minus the likeness.", code="loss = 1 - similarity"),
        ),
        line=met.call.line,
    )


def _judge_by_steps(look: Look, bench: Bench, trace: StepTrace, say: Say) -> None:
    """Some steps on one batch: does the prediction leave the targets as the loss falls?"""
    if _agreement(look.task, trace) is None or trace.error is not None or bench.seconds_left < LEAST_SECONDS:
        say.skip("it can't be told what the loss compares")
    batch = look.batches[0]
    with bench.fresh():
        first = bench.trace(batch)
        for _ in range(STEPS):
            bench.step(batch)
        last = bench.trace(batch)
    values = [(each.loss, _agreement(task_of(each, Data()), each)) for each in (first, last)]
    (loss_before, before), (loss_after, after) = values
    if before is None or after is None or loss_before is None or loss_after is None:
        say.skip("it can't be told what the loss compares")
    lost = say.measure("agreement with the targets lost by steps that lower the loss", before - after, WORSE)
    if lost and after < 0 and loss_after < loss_before:
        _tell_by_steps(look, loss_before, loss_after, say)


def _agreement(task: Task, trace: StepTrace) -> float | None:
    """How well outputs go with targets, 0 for none: of classes in deviations, of numbers as the share explained."""
    output, target = task.output, task.target
    if output is None or target is None or not output.numel() or (task.by_hand is None and task.loss is None):
        return None
    if task.by_hand is not None and task.by_hand.name in PRODUCTS and not _is_logarithm(trace, task.by_hand):
        return None
    if task.kind is Kind.CLASSES:
        return _margin(output.double(), target)
    if output.shape != target.shape or task.kind not in (Kind.REGRESSION, Kind.BINARY, Kind.MULTI_LABEL):
        return None
    output, target = output.double(), target.double()
    if task.kind is Kind.REGRESSION:
        return float(1 - (output - target).square().mean() / target.var(correction=0).clamp(min=1e-12))
    off = target - target.mean()
    return float((off * output).mean() / (off.std() * output.std()).clamp(min=1e-12))


def _is_logarithm(trace: StepTrace, met: LossCall) -> bool:
    """Whether what a target is multiplied by is a log-probability, rather than something that a mask weighs."""
    logs = ("log", "log_softmax", "logsigmoid", "log1p", "clamp", "log_sigmoid")
    return any(call.name in logs for call in behind(trace, met.input_number, met.call.index))


def _margin(output: torch.Tensor, target: torch.Tensor) -> float | None:
    """How far the right class's output lies above the others' mean, in deviations."""
    if target.dim() == 2 and target.shape == output.shape:
        target = target.argmax(1)
    fitting = (target >= 0) & (target < output.shape[1])
    output, target = output[fitting], target[fitting].long()
    if not len(output) or not bool(torch.isfinite(output).all()):
        return None
    output = output - output.mean(1, keepdim=True)
    right = output.gather(1, target[:, None]).mean()
    value = float(right / output.std().clamp(min=1e-12))
    return value if math.isfinite(value) else None


def _tell_by_steps(look: Look, before: float, after: float, say: Say) -> None:
    met = look.task.by_hand
    say.find(
        Cause.LOSS_SIGN_ERROR,
        Severity.CRITICAL,
        "The loss falls as predictions get worse",
        f"{STEPS} steps on one batch took the loss from {before:.3g} to {after:.3g}, while the network's outputs moved "
        "away from the targets they are compared with. A log-likelihood needs a minus, and an error must have none.",
        confidence=0.9,
        remedies=(Remedy("Turn the loss's sign round.", code="loss = -loss"),),
        line=met.call.line if met is not None else None,
    )


CHECK = Check(
    "loss_sign_error",
    "training lowers what it should lower",
    judge,
    (Cause.LOSS_SIGN_ERROR,),
    parameters=(Parameter(WORSE, 0.2, "agreement with the targets that steps may cost while the loss falls", 0.0),),
    source="37 reasons why your neural network is not working: verify the loss function; negated terms go unnoticed",
)
