"""The loss applies a softmax itself, and gets a distribution: gradients shrink, and the loss can't come near zero."""

from __future__ import annotations

import math

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.dropping import layers, place, without
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import LOG_SOFTMAXES, SOFTMAXES, axis_of, meetings, weighed
from nbdebug.checks.preflight.trace import Call, LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

SUMS = "softmax_row_sums"
FEWEST_VALUES = 8


def judge(look: Look, say: Say) -> None:
    """Every cross entropy that training goes by, torch's and those written by hand."""
    trace = look.called
    for meeting in meetings(trace):
        loss = meeting.loss
        if loss.name == "cross_entropy" and loss.input.dim() > 1 and loss.input.shape[1] > 1:
            _judge(look, trace, loss, say)
    if not say.findings:
        _judge_by_hand(look, trace, say)


def _judge(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    rows = loss.input.movedim(1, -1).float()
    _, made = trace.origin(loss.input_number, loss.call.index)
    by_softmax = made is not None and made.name in SOFTMAXES
    if not rows.numel() or (rows.numel() < FEWEST_VALUES and not by_softmax):
        return
    off = max(float((rows.sum(-1) - 1).abs().max()), -float(rows.min()))
    is_distribution = say.measure(
        "largest distance of the loss's input rows from a distribution", off, SUMS, above=False
    )
    if is_distribution or by_softmax:
        _tell(look, say, made if by_softmax else None, loss.call, rows.shape[-1], by_hand=made)


def _judge_by_hand(look: Look, trace: StepTrace, say: Say) -> None:
    """A second softmax over the output of a first one, with nothing between, on the way to the loss."""
    again = SOFTMAXES | LOG_SOFTMAXES | {"logsumexp"}
    found = 0
    for index in weighed(trace, through=True):
        call = trace.calls[index]
        if call.name not in again or not call.inputs:
            continue
        number, made = trace.origin(call.inputs[0], call.index)
        shape = trace.values[number].shape
        if made is not None and made.name in SOFTMAXES and shape and shape[axis_of(made, shape) or 0] > 1:
            found += 1
            _tell(look, say, made, call, shape[axis_of(made, shape) or 0])
    say.measure("softmaxes over the output of a softmax", found)


def _tell(look: Look, say: Say, made: Call | None, again: Call, classes: int, *, by_hand: Call | None = None) -> None:
    text = "Give the loss the values from before the softmax; take the softmax only to read them."
    say.find(
        Cause.SOFTMAX_BEFORE_CROSS_ENTROPY,
        Severity.CRITICAL,
        "A softmax before cross entropy",
        f"{again.name} takes a softmax by itself, and gets rows that already sum to one{place(made)}. Taken "
        f"twice, outputs stay within a factor of e of each other: with {classes} classes the loss can't fall below "
        f"{math.log(1 + (classes - 1) * math.exp(-1)):.2f}, and gradients shrink.",
        confidence=0.99 if made is not None else 0.9,
        layers=layers(made),
        remedies=(without(look, made, text) if made is not None else Remedy(text),),
        line=(made or by_hand or again).line,
    )


CHECK = Check(
    "softmax_before_cross_entropy",
    "the loss gets logits, not probabilities",
    judge,
    (Cause.SOFTMAX_BEFORE_CROSS_ENTROPY,),
    parameters=(Parameter(SUMS, 1e-4, "how far rows may be from a distribution and count as one", 0.0, 0.1),),
    source="torch.nn.CrossEntropyLoss: the input is expected to contain unnormalised logits",
)
