"""What is to be learnt, told by the loss that training goes by. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch

from nbdebug.checks.preflight.data import Data
from nbdebug.checks.preflight.lossward import DIFFERENCES, GATHERS, PRODUCTS, Meeting, class_axis, meetings
from nbdebug.checks.preflight.trace import LossCall, StepTrace

REGRESSIONS = frozenset({"mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss"})
CLASS_LOSSES = frozenset({"cross_entropy", "nll_loss", "multi_margin_loss"})
BINARY_LOSSES = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss"})


class Kind(StrEnum):
    """What a loss compares."""

    CLASSES = "classes"
    BINARY = "binary"
    MULTI_LABEL = "multi-label"
    REGRESSION = "regression"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be learnt. ``loss`` is the call of the main loss, if it is one of torch's.

    ``classes`` is the number of outputs that a class index picks from; ``output`` ``(n, outputs)`` and ``target``
    ``(n,)`` or ``(n, outputs)`` are what the loss compared, with all positions of a sequence or picture as rows.
    ``by_hand`` is the call in which a hand-written loss compares, in its place.
    """

    kind: Kind
    loss: LossCall | None = None
    classes: int = 0
    output: torch.Tensor | None = None
    target: torch.Tensor | None = None
    by_hand: LossCall | None = None


def task_of(trace: StepTrace | None, data: Data) -> Task:
    """Told by the main loss of the first step; by where a hand-written one compares; else by the targets' looks."""
    loss = (trace.main_loss or trace.failed_loss) if trace is not None else None
    met = meetings(trace) if trace is not None and trace.has_calls else []
    if loss is not None and (all(each.by_hand for each in met) and met):
        loss = None  # torch's losses are only looked at beside what training goes by
    if loss is None:
        told = (_by_hand(each) for each in met if each.by_hand)
        return next((task for task in told if task is not None), None) or _by_target(trace, data)
    target = loss.target
    if loss.name in CLASS_LOSSES:
        return _classes(loss)
    if loss.name in BINARY_LOSSES:
        wide = loss.input.dim() > 1 and loss.input.shape[-1] > 1 and loss.input.dim() == 2
        return Task(Kind.MULTI_LABEL if wide else Kind.BINARY, loss, 0, _rows(loss.input), _rows(target))
    if loss.name in REGRESSIONS:
        return Task(Kind.REGRESSION, loss, 0, _rows(loss.input), _rows(target))
    return Task(Kind.UNKNOWN, loss, 0, _rows(loss.input), _rows(target))


def _classes(loss: LossCall) -> Task:
    """Rows of logits: the classes lie along dimension 1, or along the only one."""
    logits, target = loss.input, loss.target
    classes = logits.shape[1] if logits.dim() > 1 else logits.shape[0]
    rows = logits.movedim(1, -1).reshape(-1, classes) if logits.dim() > 1 else logits[None]
    if target is not None:
        is_soft = target.is_floating_point() and target.shape == logits.shape
        target = target.movedim(1, -1).reshape(-1, classes) if is_soft and target.dim() > 1 else target.reshape(-1)
    return Task(Kind.CLASSES, loss, classes, rows, target)


def _by_hand(meeting: Meeting) -> Task | None:
    """What a hand-written loss compares: picks by class, products with one-hot rows or with 0 and 1, differences."""
    met = meeting.loss
    output, target = met.input, met.target
    if target is None or not output.dim():
        return None
    axis = class_axis(met)
    if met.name in GATHERS:
        return _picked(met, axis)
    if met.name in PRODUCTS and axis is not None:
        classes = output.shape[axis]
        rows, soft = (each.movedim(axis, -1).reshape(-1, classes) for each in (output, target))
        return Task(Kind.CLASSES, None, classes, rows, soft, met)
    if met.name in (*PRODUCTS, "where") and target.numel() == output.numel() and _is_yes_or_no(target):
        kind = Kind.MULTI_LABEL if output.dim() == 2 and output.shape[-1] > 1 else Kind.BINARY
        return Task(kind, None, 0, _rows(output), _rows(target), met)
    if met.name in DIFFERENCES:
        return Task(Kind.REGRESSION, None, 0, _rows(output), _rows(target), met)
    return None


def _picked(met: LossCall, axis: int | None) -> Task | None:
    """A class index for each row."""
    target = met.target
    if axis is None or target is None or target.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
        return None
    classes = met.input.shape[axis]
    rows = met.input.movedim(axis, -1).reshape(-1, classes)
    if classes < 2 or target.numel() != len(rows):
        return None
    if target.dim() == met.input.dim():
        target = target.movedim(axis, -1)
    return Task(Kind.CLASSES, None, classes, rows, target.reshape(-1).long(), met)


def _is_yes_or_no(target: torch.Tensor) -> bool:
    return target.dtype == torch.bool or bool(((target == 0) | (target.abs() == 1)).all())


def _by_target(trace: StepTrace | None, data: Data) -> Task:
    target = data.target
    if target is None:
        return Task(Kind.UNKNOWN)
    last = trace.models[-1].output if trace is not None and trace.models else None
    output = trace.output if trace is not None and isinstance(trace.output, torch.Tensor) else last
    output = output if isinstance(output, torch.Tensor) else None
    rows = _rows(output) if output is not None else None
    if target.is_floating_point():
        return Task(Kind.REGRESSION, None, 0, rows, _rows(target))
    classes = rows.shape[-1] if rows is not None else 0
    return Task(Kind.CLASSES if classes != 1 else Kind.BINARY, None, classes, rows, target.reshape(-1))


def _rows(tensor: torch.Tensor | None) -> torch.Tensor | None:
    if tensor is None or not tensor.dim():
        return tensor
    return tensor.reshape(tensor.shape[0], -1)
