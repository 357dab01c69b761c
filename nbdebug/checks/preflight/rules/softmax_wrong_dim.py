"""A softmax on the way to the loss runs along samples or time, so that classes do not compete."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.dropping import layers, place
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import (
    axis_of,
    class_axis,
    compares_with_data,
    meetings,
    softmax_behind,
)
from nbdebug.checks.preflight.trace import Call, LossCall
from nbdebug.records.findings import Cause, Remedy, Severity

OFF = "class_sum_slack"


def judge(look: Look, say: Say) -> None:
    """Every softmax whose output the loss compares with targets of the batch."""
    trace = look.called
    told = set[int]()
    for meeting in meetings(trace):
        loss = meeting.loss
        if not compares_with_data(trace, loss):
            continue
        made, picked = softmax_behind(trace, loss)
        if (
            made is not None
            and made.index not in told
            and _judge(look, loss, made, trace.values[made.inputs[0]].shape, picked, say)
        ):
            told.add(made.index)


def _judge(look: Look, loss: LossCall, made: Call, shape: tuple[int, ...], picked: bool, say: Say) -> bool:
    axis = axis_of(made, shape)
    if axis is None or len(shape) < 2 or shape[axis] < 2:
        return False
    along = class_axis(loss)
    if axis == 0 and shape[0] == _samples(look, shape):
        off = _distance(loss, along)
        say.measure("distance of the sum over a sample's classes from 1", off, OFF)
        square_by_pairs = len(shape) == 2 and shape[0] == shape[1] and along is None
        if not square_by_pairs and not _sums_to_one(loss, along):
            _tell(look, say, made, shape, axis, "the samples of the batch")
            return True
        return False
    if picked or along is None or _sums_to_one(loss, along) or shape[axis] == loss.input.shape[along]:
        return False
    say.measure("distance of the sum over a sample's classes from 1", _distance(loss, along), OFF)
    _tell(look, say, made, shape, axis, f"dimension {axis} (of size {shape[axis]}), where no classes lie")
    return True


def _samples(look: Look, shape: tuple[int, ...]) -> int:
    """The samples of the first batch; where they aren't known, whatever the first dimension says."""
    return look.data.sizes[0] if look.data.sizes else shape[0]


def _distance(loss: LossCall, axis: int | None) -> float:
    given = loss.input.float()
    axis = given.dim() - 1 if axis is None else axis
    values = given.exp() if float(given.max()) <= 0 else given
    return float((values.sum(axis) - 1).abs().max()) if given.dim() and given.numel() else 0.0


def _sums_to_one(loss: LossCall, axis: int | None) -> bool:
    given = loss.input.float()
    if axis is not None:
        return _distance(loss, axis) < 1e-2
    values = given.exp() if given.numel() and float(given.max()) <= 0 else given
    return any(
        bool(((values.sum(each) - 1).abs() < 1e-2).all()) for each in range(1, given.dim()) if given.shape[each] > 1
    )


def _tell(look: Look, say: Say, made: Call, shape: tuple[int, ...], axis: int, what: str) -> None:
    implicit = made.option("dim", 0) is None
    right = 1 if len(shape) == 4 else -1
    name = (
        f"{look.code_name(made.layer)}.dim = {right}" if made.layer and _has_dim(look, made.layer) else f"dim={right}"
    )
    say.find(
        Cause.SOFTMAX_WRONG_DIM,
        Severity.CRITICAL,
        f"The {made.name} runs along the wrong dimension",
        f"{made.name}{place(made)} gets a tensor of shape {shape} and sums to one along {what}"
        f"{', which torch guesses where no dim is given' if implicit else ''}. Each sample's classes do not sum to "
        "one, so raising one class does not lower the others, and samples compete with each other instead.",
        confidence=0.97,
        layers=layers(made),
        remedies=(Remedy("Let it run along the classes.", code=name),),
        line=made.line,
    )


def _has_dim(look: Look, layer: str) -> bool:
    return isinstance(look.modules.get(layer), (torch.nn.Softmax, torch.nn.LogSoftmax))


CHECK = Check(
    "softmax_wrong_dim",
    "probabilities sum to one over classes",
    judge,
    (Cause.SOFTMAX_WRONG_DIM,),
    parameters=(Parameter(OFF, 1e-2, "how far a sample's probabilities may be from a sum of 1", 0.0, 1.0),),
    source="torch.nn.Softmax: dim is the dimension along which every slice will sum to 1",
)
