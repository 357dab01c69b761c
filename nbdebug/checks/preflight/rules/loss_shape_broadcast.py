"""Prediction and target differ in their number of dimensions, and each sample is compared with every other's target."""

from __future__ import annotations

import math

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import GATHERS, compares_with_data, meetings, weights
from nbdebug.checks.preflight.trace import LossCall
from nbdebug.records.findings import Cause, Remedy, Severity

NOT_BROADCAST = frozenset(
    {
        *("cross_entropy", "nll_loss", "ctc_loss", "multi_margin_loss", "multilabel_margin_loss", "where"),
        *("masked_select", "masked_fill", "index_select"),
    }
)


def judge(look: Look, say: Say) -> None:
    """Every loss that training goes by, torch's and those written by hand."""
    trace = look.called
    compared = [meeting.loss for meeting in meetings(trace)]
    for loss in (*compared, *weights(trace)):
        if loss.name in NOT_BROADCAST | GATHERS or loss.target is None or not compares_with_data(trace, loss):
            continue
        given, target = tuple(loss.input.shape), tuple(loss.target.shape)
        if _is_outer(given, target):
            _tell(say, loss, given, target)
            return


def _is_outer(given: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether broadcasting lays the samples of one along another dimension than those of the other."""
    if not given or not target or len(given) == len(target) or given[0] != target[0] or given[0] < 2:
        return False
    try:
        result = torch.broadcast_shapes(given, target)
    except RuntimeError:
        return False
    return bool(math.prod(result) > max(math.prod(given), math.prod(target)))


def _tell(say: Say, loss: LossCall, given: tuple[int, ...], target: tuple[int, ...]) -> None:
    result = torch.broadcast_shapes(given, target)
    say.measure("values that the loss compares for each that there is", math.prod(result) / math.prod(target))
    column = len(given) > len(target)
    fix = "output.squeeze(-1)" if column and given[-1] == 1 else "target.reshape(output.shape)"
    how = "loss_fn(output.squeeze(-1), target)" if fix.startswith("output") else f"loss_fn(output, {fix})"
    say.find(
        Cause.LOSS_SHAPE_BROADCAST,
        Severity.CRITICAL,
        "Each prediction meets every target",
        f"The prediction has shape {given} and the target {target}: torch stretches both to {tuple(result)}, so that "
        "each sample is compared with all samples' targets. The best answer is then the mean of the targets, whatever "
        "the input is.",
        confidence=0.98,
        remedies=(Remedy("Give both the same shape.", code=how),),
        line=loss.call.line,
    )


CHECK = Check(
    "loss_shape_broadcast",
    "prediction and target have the same shape",
    judge,
    (Cause.LOSS_SHAPE_BROADCAST,),
    source="torch.nn.functional.mse_loss warns of differing sizes: results are likely incorrect due to broadcasting",
)
