"""Something is compared and could be learnt from, but does not reach ``backward``; or weighs next to nothing."""

from __future__ import annotations

import math

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import weighed
from nbdebug.checks.preflight.numbers_added import NumberAdded, numbers_added
from nbdebug.checks.preflight.trace import LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

APART = "loss_parts_apart"


def judge(look: Look, say: Say) -> None:
    """Torch's losses of the first step, by their way to ``backward``; then what is added to them as a number."""
    trace = look.called
    if not trace.backwards or trace.error is not None:
        say.skip("there was no backward pass")
    numbers = numbers_added(look.traces)
    say.measure("summands of the loss that are numbers taken from what learns", len(numbers))
    for each in numbers[:1]:
        _tell_number(look, trace, each, say)
    if not numbers:
        _judge_losses(look, trace, say)


def _judge_losses(look: Look, trace: StepTrace, say: Say) -> None:
    factors = weighed(trace)
    learning = [loss for loss in trace.losses if loss.call.outputs and trace.values[loss.call.outputs[0]].learns]
    if not any(loss.call.index in factors for loss in learning):
        say.skip("backward starts from no loss of torch's")
    dropped = [loss for loss in learning if loss.call.index not in factors]
    say.measure("losses that do not reach backward", len(dropped))
    for loss in dropped:
        _tell_dropped(look, trace, loss, say)
    if not dropped:
        _judge_sizes(learning, factors, say)


def _only_there(look: Look, trace: StepTrace, number: int, before: int) -> list[str]:
    """The parameters that an optimizer holds, and that only what depends on this tensor could teach."""
    reached = frozenset[str]().union(*(backward.reached for backward in trace.backwards))
    sources = trace.sources(number, before)
    mine = [each.removeprefix("weight ") for each in sources if each.startswith("weight ")]
    return [
        name
        for name in look.parameters
        if name in mine and name not in reached and name in look.optimized and look.parameters[name].requires_grad
    ]


def _tell_dropped(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    lost = _only_there(look, trace, loss.input_number, loss.call.index)
    layers = tuple(dict.fromkeys(look.layer_of(name) for name in lost))
    consequence = (
        f"{', '.join(layers[:4])} {'get' if len(layers) > 1 else 'gets'} no gradient from elsewhere, and can't learn."
        if lost
        else "If it is only there to be read, compute it under torch.no_grad()."
    )
    say.find(
        Cause.LOSS_PART_DROPPED,
        Severity.WARNING if lost else Severity.INFO,
        f"{loss.name} does not reach backward",
        f"{loss.name} is computed with a graph{f' (its value is {loss.value:.3g})' if loss.value is not None else ''}, "
        f"but what backward is called on does not depend on it. {consequence}",
        confidence=0.9 if lost else 0.5,
        layers=layers,
        remedies=(Remedy("Add it to the loss as a tensor, without .item() or .detach()."),),
        line=loss.call.line,
    )


def _tell_number(look: Look, trace: StepTrace, number: NumberAdded, say: Say) -> None:
    lost = _only_there(look, trace, number.left.inputs[0], number.left.index)
    layers = tuple(dict.fromkeys(look.layer_of(name) for name in lost))
    say.find(
        Cause.LOSS_PART_DROPPED,
        Severity.WARNING,
        "A part of the loss has no gradient",
        f"{number.value:.3g} is added to the loss, in step after step the same multiple of what {number.left.name}() "
        "took out of the graph as a number. It changes the loss that is shown, and no gradient: training does not mind "
        "it at all." + (f" {', '.join(layers[:4])} can't learn without it." if lost else ""),
        confidence=0.93,
        layers=layers,
        remedies=(Remedy("Add the tensor itself, without .item() or float()."),),
        line=number.left.line or number.added.line,
    )


def _judge_sizes(losses: list[LossCall], factors: dict[int, float], say: Say) -> None:
    """Parts whose weighted values are orders of magnitude apart."""
    sizes = [(abs(factors[each.call.index] * each.value), each) for each in losses if each.value]
    sizes = [(size, each) for size, each in sizes if math.isfinite(size) and size > 0]
    if len(sizes) < 2:
        return
    (least, small), (most, large) = min(sizes, key=lambda pair: pair[0]), max(sizes, key=lambda pair: pair[0])
    if say.measure("largest part of the loss, of the smallest", most / least, APART):
        say.find(
            Cause.LOSS_PART_DROPPED,
            Severity.INFO,
            "One part of the loss weighs next to nothing",
            f"With their weights, {large.name} is {most:.3g} and {small.name} {least:.3g}: the second hardly counts.",
            confidence=0.4,
            remedies=(Remedy("Weigh the parts so that they are of the same order."),),
            line=small.call.line,
        )


CHECK = Check(
    "loss_part_dropped",
    "every part of the loss counts",
    judge,
    (Cause.LOSS_PART_DROPPED,),
    parameters=(Parameter(APART, 1e5, "how many times as large as the smallest a part of the loss may be", 1.0),),
    source="37 reasons why your neural network is not working: check the scales of the parts of a combined loss",
)
