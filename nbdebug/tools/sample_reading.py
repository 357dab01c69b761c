"""What a model foretells of each sample, read out of its output and the target: a class, numbers, a label a place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nbdebug.records.samples import Task
from nbdebug.training.smoothing import Smoothed

MOST_VALUES = 8
LEAST = 1e-12
MAIN = ("logits", "output", "prediction", "labels", "label", "target")
OF_CLASSES = ("crossentropy", "cross_entropy", "nllloss", "nll_loss", "multimargin", "multi_margin")
OF_ODDS = ("bce", "binary_cross_entropy")
OF_VALUES = ("mse", "l1", "huber", "poisson", "gaussian")


class NotThisTask(Exception):
    """Output and target are not those of such a task."""


@dataclass(frozen=True)
class Reading:
    """Of each sample: the target, what was foretold, how surely, and how right that is.

    ``usual`` is the usual loss. ``targets`` and ``predicted`` are classes ``(n,)``, or numbers ``(n, values)``.
    """

    targets: torch.Tensor
    predicted: torch.Tensor
    confidence: torch.Tensor
    margins: torch.Tensor
    right: torch.Tensor
    usual: torch.Tensor
    classes: int = 0


def read(task: Task, loss_fn: Any, output: Any, target: Any, count: int) -> Reading:
    """What the output says of each of ``count`` samples, as a task of this kind.

    Raises:
        NotThisTask: it says no such thing.
    """
    if task is Task.OTHER:
        nothing = _nan(count)
        return Reading(_nan(0), nothing, nothing, nothing, nothing, nothing)
    output, target = main_part(output), main_part(target)
    for part in (output, target):
        if not isinstance(part, torch.Tensor) or part.is_nested or not part.dim() or len(part) != count:
            raise NotThisTask
    if not output.is_floating_point():
        raise NotThisTask
    output = output.detach().to(torch.float32 if output.dtype != torch.float64 else torch.float64)
    target = target.detach()
    family = family_of(loss_fn)
    readers = {Task.CLASSES: _classes, Task.PLACES: _places, Task.VALUES: _values}
    found = readers[task](output, target, family)
    return found


def main_part(value: Any) -> Any:
    """Of several outputs the one that foretells: the logits, or the first; of a target the labels."""
    if isinstance(value, Mapping):
        return next((value[key] for key in MAIN if key in value), None)
    if dataclasses.is_dataclass(value):
        return next((getattr(value, key) for key in MAIN if hasattr(value, key)), None)
    return value[0] if isinstance(value, tuple) and value else value


def family_of(loss_fn: Any) -> str:
    """What kind of thing a loss compares, by its name: classes, odds (of yes and no) or values; empty if not known."""
    while isinstance(loss_fn, Smoothed) or hasattr(loss_fn, "func"):
        loss_fn = loss_fn.function if isinstance(loss_fn, Smoothed) else loss_fn.func
    name = type(loss_fn).__name__ if isinstance(loss_fn, nn.Module) else getattr(loss_fn, "__name__", "")
    name = str(name).lower()
    if any(word in name for word in OF_ODDS):
        return "odds with logits" if "with" in name and "logits" in name else "odds"
    if any(word in name for word in OF_CLASSES):
        return "classes"
    return "values" if any(word in name for word in OF_VALUES) else ""


# -- one class of several -----------------------------------------------------------------------------------------


def _classes(output: torch.Tensor, target: torch.Tensor, family: str) -> Reading:
    if family == "values":
        raise NotThisTask
    if output.dim() == 2 and output.shape[1] > 1 and not family.startswith("odds"):
        return _of_chances(_chances(output), _class_of(output, target))
    single = output.numel() == len(output) and target.numel() == len(target)
    if not single or family == "classes" or not _is_yes_or_no(target):
        raise NotThisTask
    yes = _odds(output.reshape(-1), family)
    return _of_chances(torch.stack([1 - yes, yes], dim=1), target.reshape(-1).long())


def _class_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Integers, or rows with a share for each class."""
    if not target.is_floating_point() and target.dim() == 1 and target.dtype is not torch.bool:
        if bool(((target < 0) | (target >= output.shape[1])).any()):
            raise NotThisTask
        return target.long()
    if target.shape != output.shape or not _sum_to_one(target.to(output.dtype)):
        raise NotThisTask
    return target.argmax(dim=1)


def _chances(output: torch.Tensor) -> torch.Tensor:
    """Probabilities: as they are, or from logits, or logarithms of probabilities."""
    return output if _sum_to_one(output) else output.softmax(dim=1)


def _sum_to_one(rows: torch.Tensor) -> bool:
    return bool((rows >= 0).all()) and bool(((rows.sum(dim=1) - 1).abs() < 1e-3).all())


def _odds(output: torch.Tensor, family: str) -> torch.Tensor:
    known = family == "odds" or (not family and bool(((output >= 0) & (output <= 1)).all()))
    return output if known else output.sigmoid()


def _is_yes_or_no(target: torch.Tensor) -> bool:
    return bool(((target == 0) | (target == 1)).all())


def _of_chances(chances: torch.Tensor, target: torch.Tensor) -> Reading:
    own = chances.gather(1, target[:, None])[:, 0]
    others = chances.scatter(1, target[:, None], -1.0).amax(dim=1)
    confidence, predicted = chances.max(dim=1)
    known = torch.isfinite(chances).all(dim=1)
    nan = torch.full_like(own, torch.nan)
    return Reading(
        target.to(torch.float32),
        torch.where(known, predicted.to(own.dtype), nan),
        torch.where(known, confidence, nan),
        torch.where(known, own - others, nan),
        (known & (predicted == target)).to(torch.float32),
        torch.where(known, -own.clamp_min(LEAST).log(), nan),
        classes=chances.shape[1],
    )


# -- a label at each place ------------------------------------------------------------------------------------------


def _places(output: torch.Tensor, target: torch.Tensor, family: str) -> Reading:
    """Tokens of a sequence, pixels of a mask, several yes or no."""
    if family == "values":
        raise NotThisTask
    if output.dim() == target.dim() + 1 and not (target.is_floating_point() or target.dtype is torch.bool):
        return _of_places(*_labels(output, target))
    if output.shape == target.shape and output[0].numel() > 1 and family != "classes" and _is_yes_or_no(target):
        yes = _odds(output, family)
        foretold = (yes > 0.5).to(target.dtype) == target
        own = torch.where(target.bool(), yes, 1 - yes)
        return _of_places(foretold, torch.ones_like(foretold), own)
    raise NotThisTask


def _labels(output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whether each is right, whether it counts, and its own probability; classes stand second, as torch has it."""
    if (len(output), *output.shape[2:]) == tuple(target.shape):
        output = output.movedim(1, -1)
    elif output.shape[:-1] != target.shape:
        raise NotThisTask
    counts = (target >= 0) & (target < output.shape[-1])
    own = output.softmax(dim=-1).gather(-1, target.where(counts, 0)[..., None].long())[..., 0]
    return output.argmax(dim=-1) == target, counts, own


def _of_places(right: torch.Tensor, counts: torch.Tensor, own: torch.Tensor) -> Reading:
    """Shares over the places that count; those that are padding have a label that there is not."""
    count = len(right)
    right, counts, own = (part.reshape(count, -1) for part in (right, counts, own))
    amount = counts.sum(dim=1)
    usual = -(own.clamp_min(LEAST).log() * counts).sum(dim=1) / amount.clamp_min(1)
    share = (right & counts.bool()).sum(dim=1) / amount.clamp_min(1)
    none, nothing = amount == 0, _nan(count, right.device)
    share, usual = torch.where(none, nothing, share.float()), torch.where(none, nothing, usual.float())
    return Reading(_nan(0), share, nothing, nothing, share, usual)


# -- numbers --------------------------------------------------------------------------------------------------------


def _values(output: torch.Tensor, target: torch.Tensor, family: str) -> Reading:
    if family == "classes" or family.startswith("odds") or output.numel() != target.numel():
        raise NotThisTask
    count = len(output)
    values = output.reshape(count, -1)
    if not 0 < values.shape[1] <= MOST_VALUES:
        raise NotThisTask
    truth = target.reshape(count, -1).to(values.dtype)
    nothing = _nan(count, output.device)
    return Reading(truth, values, nothing, nothing, nothing, (values - truth).square().mean(dim=1))


def _nan(count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    return torch.full((count,), torch.nan, device=device)
