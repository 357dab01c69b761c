"""The loss is a sum over the batch: gradients, and what learning rate and clipping mean, grow with the batch size."""

from __future__ import annotations

import math
from typing import Any

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import batch_sources, meetings, weighed
from nbdebug.checks.preflight.trace import Call, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.training.aside import copied

GROWTH = "loss_growth_by_doubling"
RATE = "summed_rate"
NEAR = 0.1
ADDITIONS = ("add", "iadd", "radd", "sub", "isub", "rsub")
BY_SCALE = ("SGD", "ASGD", "LBFGS")


def judge(look: Look, say: Say) -> None:
    """By the options of torch's losses and the sums after them; in the battery by giving the batch twice."""
    trace = look.called
    seen = _summing(look, trace)
    size = look.data.sizes[0] if look.data.sizes else 0
    if size < 2 or trace.error is not None or not trace.backwards or not trace.loss:
        say.skip("there is no batch of several samples")
    growth = _by_doubling(look, size) if look.bench is not None else None
    if growth is None and seen is None:
        say.note("no loss is summed; doubling the batch was not tried" if look.bench is None else "")
        return
    if growth is not None:
        say.measure("the loss, when the batch is given twice, of that of giving it once", growth, GROWTH)
        if abs(growth - 2) > NEAR:
            return
    _tell(look, trace, seen, growth, size, say)


def _summing(look: Look, trace: StepTrace) -> Call | None:
    """The call that sums what torch's losses give over samples, with no division or mean after it."""
    factors = weighed(trace)
    size = look.data.sizes[0] if look.data.sizes else 0
    scaled = [
        call for index in factors if (call := trace.calls[index]).name in ("mean", "div", "__truediv__", "true_divide")
    ]
    for loss in trace.losses:
        factor = factors.get(loss.call.index)
        if factor is None:
            continue
        after = [call for call in scaled if call.index > loss.call.index]
        divided = not math.isnan(factor) and abs(factor) * size < 2 and abs(factor) != 1
        if loss.reduction == "sum" and not after and not divided:
            return loss.call
        if loss.reduction == "none" and not after and not divided:
            sums = [
                call for index in factors if (call := trace.calls[index]).name == "sum" and call.index > loss.call.index
            ]
            whole = next((call for call in sums if trace.values[call.outputs[0]].shape == ()), None)
            if whole is not None:
                return whole
    return None


def _by_doubling(look: Look, size: int) -> float | None:
    """How much the loss grows when each sample is there twice; ``None`` where that can't be told."""
    bench = look.experiments
    batch = look.batches[0]
    with bench.fresh():
        once = bench.trace(batch)
    with bench.fresh():
        again = bench.trace(batch)
    with bench.fresh():
        doubled = bench.trace(_twice(copied(batch), size))
    values = [each.loss for each in (once, again, doubled) if each.error is None and each.loss is not None]
    if len(values) < 3 or not all(map(math.isfinite, values)) or not values[0]:
        return None  # a step may want batches of its own size
    steady = abs(values[0] - values[1]) < 1e-3 * abs(values[0])
    return values[2] / values[0] if steady else None


def _twice(value: Any, size: int) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.cat([value, value]) if value.dim() and len(value) == size else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_twice(part, size) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_twice(part, size) for part in value)
    if isinstance(value, dict):
        return type(value)((key, _twice(part, size)) for key, part in value.items())
    return value


def _tell(look: Look, trace: StepTrace, seen: Call | None, growth: float | None, size: int, say: Say) -> None:
    optimizers = list(look.optimizers.values())
    plain = [each for each in optimizers if type(each).__name__ in BY_SCALE]
    rate = max((float(group["lr"]) for each in plain for group in each.param_groups), default=0.0)
    rows = _rows(trace, size)
    together = _has_other_parts(trace)
    compensated = bool(plain) and not say.measure("learning rate × samples that are summed", rate * rows, RATE)
    once = look.epoch_length == 1
    quiet = compensated or together or once
    ways = "the learning rate means this many times more than with a mean, and another batch size is another rate"
    if not plain:
        ways = (
            f"{type(optimizers[0]).__name__ if optimizers else 'The optimizer'} takes the scale out of its steps, but "
            "clipping, weight decay and the loss's curve (a smaller last batch) depend on the batch size"
        )
    say.find(
        Cause.LOSS_REDUCTION_SUM,
        Severity.INFO if quiet else Severity.WARNING,
        "The loss is summed over the batch",
        f"The loss grows with the number of samples ({size} in a batch{f', {rows} values' if rows != size else ''}"
        f"{f'; given twice it is {growth:.2f} times as large' if growth is not None else ''}), and so do its "
        f"gradients: {ways}.",
        confidence=0.5 if quiet else 0.9 if plain else 0.7,
        remedies=(
            Remedy("Take the mean over the batch.", code='reduction="mean"'),
            Remedy(f"Or divide the learning rate by the batch size ({size})."),
        ),
        line=seen.line if seen is not None else None,
    )


def _rows(trace: StepTrace, size: int) -> int:
    """How many values are added up, of a torch loss; else the samples."""
    loss = trace.main_loss
    return max(size, loss.target.numel()) if loss is not None and loss.target is not None else size


def _has_other_parts(trace: StepTrace) -> bool:
    """Whether the loss has a further part, of the batch but without a target, as the bound of an autoencoder."""
    factors = weighed(trace)
    compared = {meeting.loss.call.index for meeting in meetings(trace)}
    for index in factors:
        call = trace.calls[index]
        if call.name.strip("_") not in ADDITIONS or trace.values[call.outputs[0]].shape != ():
            continue
        parts = [each for each in call.inputs if trace.values[each].learns]
        if len(parts) > 1 and any(_is_free(trace, each, call.index, compared) for each in parts):
            return True
    return False


def _is_free(trace: StepTrace, number: int, before: int, compared: set[int]) -> bool:
    made = {call.index for call in trace.ancestors(number, before)}
    return not made & compared and bool(batch_sources(trace, number, before))


CHECK = Check(
    "loss_reduction_sum",
    "the loss does not grow with the batch",
    judge,
    (Cause.LOSS_REDUCTION_SUM,),
    parameters=(
        Parameter(GROWTH, 1.9, "how much the loss may grow when each sample is given twice", 1.0, 2.0),
        Parameter(RATE, 0.5, "a learning rate of SGD times the samples summed that means it was chosen for a sum", 0.0),
    ),
    source="Goyal et al. 2017, Accurate, large minibatch SGD: the rate is tied to a loss averaged over the batch",
)
