"""Something is compared and could be learnt from, but does not reach ``backward``; or weighs next to nothing."""

from __future__ import annotations

import math

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import weighed
from nbdebug.checks.preflight.trace import LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

APART = "loss_parts_apart"


def judge(look: Look, say: Say) -> None:
    """Torch's losses of the first step, by their way to ``backward``."""
    trace = look.called
    if not trace.backwards or trace.error is not None:
        say.skip("there was no backward pass")
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


def _only_there(look: Look, trace: StepTrace, loss: LossCall) -> list[str]:
    """The parameters that an optimizer holds, and that only this loss depends on."""
    reached = frozenset[str]().union(*(backward.reached for backward in trace.backwards))
    sources = trace.sources(loss.input_number, loss.call.index)
    mine = [each.removeprefix("weight ") for each in sources if each.startswith("weight ")]
    return [
        name
        for name in look.parameters
        if name in mine and name not in reached and name in look.optimized and look.parameters[name].requires_grad
    ]


def _tell_dropped(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    lost = _only_there(look, trace, loss)
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
