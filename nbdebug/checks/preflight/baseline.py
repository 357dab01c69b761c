"""What the best constant prediction costs: a loss that is no lower has learnt nothing from inputs. Pure."""

from __future__ import annotations

import math

import torch

from nbdebug.checks.preflight.task import Kind, Task


def baseline(task: Task) -> float:
    """The main loss of the best constant prediction on the targets seen; NaN where that is not known.

    Cross entropies: the entropy of the labels' shares; squared error: the variance; absolute error: the mean distance
    from the median. Only for losses averaged over samples, without weights.
    """
    loss, target = task.loss, task.target
    if loss is None or target is None or loss.reduction != "mean" or loss.weight is not None or not target.numel():
        return math.nan
    if loss.call.options.get("label_smoothing"):
        return math.nan
    if task.kind is Kind.CLASSES:
        return _entropy(task)
    values = target.detach().double()
    if task.kind in (Kind.BINARY, Kind.MULTI_LABEL):
        share = values.mean(0).clamp(0, 1)
        return float((torch.special.entr(share) + torch.special.entr(1 - share)).mean())
    if loss.name == "mse_loss":
        return float(values.var(0, correction=0).mean())
    if loss.name == "l1_loss":
        return float((values - values.median(0, keepdim=True).values).abs().mean())
    return math.nan


def _entropy(task: Task) -> float:
    target = task.target
    assert target is not None
    if target.is_floating_point():
        share = target.double().mean(0)
    else:
        ignored = task.loss.call.options.get("ignore_index", -100) if task.loss is not None else -100
        kept = target[(target != ignored) & (target >= 0) & (target < task.classes)]
        if not kept.numel():
            return math.nan
        share = torch.bincount(kept.long(), minlength=task.classes).double() / kept.numel()
    return float(torch.special.entr(share).sum())
