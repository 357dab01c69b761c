"""Targets of a regression far from unit scale, with a network whose outputs begin near 0 ± 1."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import floats
from nbdebug.checks.preflight.task import Kind
from nbdebug.checks.preflight.trace import LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

LARGEST = "target_scale_most"
SMALLEST = "target_scale_least"
AWAY = "target_output_ratio"
APART = "target_scales_apart"
APART_FROM = "target_scale_apart_from"
FEWEST = 8
MOST_COLUMNS = 64
GROWING = frozenset({"exp", "expm1", "pow", "__pow__", "square", "sinh"})


def judge(look: Look, say: Say) -> None:
    """What the loss compares, after whatever is done to the targets before."""
    trace = look.called
    loss = _compared(look)
    if loss is None or loss.target is None:
        say.skip("no regression on targets from the batch was seen")
        return
    _, made = trace.origin(loss.input_number, loss.call.index)
    if made is not None and made.name in GROWING:
        say.skip("the network's output is an exponential, which reaches any scale")
    target, output = floats(loss.target), floats(loss.input)
    if target.numel() < FEWEST or bool((target == target.flatten()[0]).all()):
        say.skip("there are too few targets to judge their scale by")
    _judge(target, output, loss, say)


def _judge(target: torch.Tensor, output: torch.Tensor, loss: LossCall, say: Say) -> None:
    size, answer = _size(target), _size(output)
    large = say.measure("size of targets", size, LARGEST)
    away = say.measure("size of targets over that of the first outputs", size / max(answer, 1e-12), AWAY)
    small = say.measure("size of the targets, lower limit", size, SMALLEST, above=False)
    apart = _apart(target, say)
    mean, deviation = float(target.mean()), float(target.std())
    first = (
        f"Targets have a mean of {mean:.4g} and a deviation of {deviation:.4g}, the network's first outputs are of the "
        f"size of {answer:.2g}. "
    )
    if large and away:
        _tell(loss, say, "Targets are far larger than outputs", first + "The first losses and gradients are as large, "
              "and most of training goes into reaching the scale.")  # fmt: skip
    elif small and answer > 10 * size:
        _tell(loss, say, "Targets are far smaller than outputs", first + "Differences between targets weigh next to "
              "nothing beside the network's own noise, and gradients are tiny.")  # fmt: skip
    elif apart:
        _tell(loss, say, "Targets are scales apart", f"{apart} The loss is the large one's alone.")


def _size(values: torch.Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _apart(target: torch.Tensor, say: Say) -> str:
    """Of several targets for a sample, whether one is far larger than another; in words."""
    if target.dim() != 2 or not 1 < target.shape[1] <= MOST_COLUMNS or len(target) < FEWEST:
        return ""
    deviations = target.double().std(0)
    moving = deviations[deviations > 0]
    if len(moving) < 2:
        return ""
    largest, least = float(moving.max()), float(moving.min())
    is_apart = say.measure("the largest target's deviation over the smallest's", largest / least, APART)
    is_apart &= say.measure("the largest target's deviation", largest, APART_FROM)
    top = int(deviations.argmax())
    return f"Target {top} has a deviation of {largest:.3g}, another of {least:.3g}." if is_apart else ""


def _compared(look: Look) -> LossCall | None:
    """The main loss if it is a regression on what the batch holds; of a hand-written one, the difference it takes."""
    trace = look.called
    if look.task.kind is not Kind.REGRESSION:
        return None
    candidates = [look.task.loss] if look.task.loss is not None else _differences(trace)
    for loss in candidates:
        if loss.target is not None and _is_of_the_batch(trace, loss):
            return loss
    return None


def _differences(trace: StepTrace) -> list[LossCall]:
    return [each for each in trace.meetings if each.name.strip("_") in ("sub", "rsub", "subtract")]


def _is_of_the_batch(trace: StepTrace, loss: LossCall) -> bool:
    """No weight has a part in the target, as in targets that a network bootstraps."""
    if loss.target_number is None:
        return False
    sources = trace.sources(loss.target_number, loss.call.index)
    return bool(sources) and not any(source.startswith("weight") for source in sources)


def _tell(loss: LossCall, say: Say, title: str, why: str) -> None:
    say.find(
        Cause.UNNORMALIZED_TARGET,
        Severity.WARNING,
        title,
        why,
        confidence=0.9,
        line=loss.call.line,
        remedies=(
            Remedy(
                "Standardise the targets by mean and deviation of the training samples, and turn predictions back.",
                code="mean, std = y_train.mean(0), y_train.std(0)\ny = (y - mean) / std    # prediction * std + mean",
            ),
            Remedy("Or rescale the output in the network: return self.head(x) * std + mean."),
        ),
    )


CHECK = Check(
    "unnormalized_target",
    "regression targets are at the scale of outputs",
    judge,
    (Cause.UNNORMALIZED_TARGET,),
    parameters=(
        Parameter(LARGEST, 25.0, "largest root mean square of targets that is no alarm", 1.0),
        Parameter(AWAY, 10.0, "how many times larger than the first outputs targets may be", 1.0),
        Parameter(SMALLEST, 1e-3, "least root mean square of targets", 0.0),
        Parameter(APART, 100.0, "how many times one target's deviation may be another's", 1.0),
        Parameter(APART_FROM, 8.0, "deviation of the largest target from which differing scales matter", 0.0),
    ),
    source="Bishop, Neural Networks for Pattern Recognition (1995), 8.2: rescale inputs and targets to order unity",
)
