"""A softmax over a single output is 1 whatever the network says: the loss never changes."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.preflight.dropping import layers, place
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import axis_of, meetings, softmax_behind
from nbdebug.checks.preflight.trace import Call, LossCall
from nbdebug.records.findings import Cause, Remedy, Severity


def judge(look: Look, say: Say) -> None:
    """Cross entropies of one class, and softmaxes over one output on the way to the loss."""
    trace = look.called
    for meeting in meetings(trace):
        if meeting.loss.name == "cross_entropy":
            _judge_cross_entropy(meeting.loss, say)
        made, _ = softmax_behind(trace, meeting.loss)
        shape = trace.values[made.inputs[0]].shape if made is not None else ()
        if made is not None and shape and shape[axis_of(made, shape) or 0] == 1 and not say.findings:
            say.measure("outputs that a softmax runs over", 1)
            _tell(say, made, f"{made.name}{place(made)} runs over a dimension of size 1 of a tensor of shape {shape}")


def _judge_cross_entropy(loss: LossCall, say: Say) -> None:
    given, target = loss.input, loss.target
    classes = given.shape[1] if given.dim() > 1 else given.shape[0] if given.dim() else 1
    say.measure("classes that cross entropy compares", classes)
    if given.dim() > 1 and classes == 1:
        _tell(say, loss.call, f"cross_entropy gets one output for each sample (shape {tuple(given.shape)})")
    elif given.dim() == 1 and target is not None and target.shape == given.shape and not _is_distribution(target):
        many = f"one output for each of {len(given)} samples, without a dimension of classes"
        _tell(say, loss.call, f"cross_entropy gets {many}, and takes the samples for classes")


def _is_distribution(target: torch.Tensor) -> bool:
    """Whether one sample's probabilities, as of a loss without a batch."""
    return len(target) < 2 or abs(float(target.float().sum()) - 1) < 1e-3


def _tell(say: Say, call: Call, what: str) -> None:
    say.find(
        Cause.SINGLE_CLASS_SOFTMAX,
        Severity.CRITICAL,
        "A softmax over a single output",
        f"{what}. The softmax of one number is 1 whatever the network puts out, so there is nothing to learn from.",
        confidence=0.98,
        layers=layers(call),
        remedies=(
            Remedy(
                "For yes or no with one output, take BCEWithLogitsLoss.", code="loss_fn = torch.nn.BCEWithLogitsLoss()"
            ),
            Remedy("Or give the last layer one output for each class, and the loss the class as an integer."),
        ),
        line=call.line,
    )


CHECK = Check(
    "single_class_softmax",
    "a softmax has more than one output to weigh",
    judge,
    (Cause.SINGLE_CLASS_SOFTMAX,),
    source="Goodfellow, Bengio, Courville: Deep Learning, 6.2.2: sigmoid units for Bernoulli outputs",
)
