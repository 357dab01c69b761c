"""The loss of each sample of a batch, by the user's own loss function wherever that can be. Training thread.

Three ways, tried in this order: the loss without its reduction, where it has one and means the same; the loss on one
sample after the other; and, where the loss is one of whole batches, the usual one for what is foretold.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from nbdebug.training.smoothing import Smoothed

CLOSE, CLOSE_IN_HALF = 1e-3, 3e-2
NAMES_OF_MEANS = ("mean", "elementwise_mean")


class Way(StrEnum):
    """How the loss of one sample is taken, as it is told."""

    UNREDUCED = "your loss, without its reduction"
    SINGLY = "your loss, on one sample at a time"
    USUAL = "the usual loss: yours can't be taken of one sample"


class NotThisWay(Exception):
    """The loss of a sample can't be had in this way."""


def each(way: Way, loss_fn: Callable[[Any, Any], Any], output: Any, target: Any, count: int, whole: float) -> Any:
    """``(count,)`` losses as float64; ``whole`` is the batch's own loss, against which they are held.

    Raises:
        NotThisWay: it can't be had, or the batch's loss is not made of its samples' losses.
    """
    taken = _unreduced if way is Way.UNREDUCED else _singly
    try:
        found = taken(loss_fn, output, target, count)
    except NotThisWay:
        raise
    except Exception as error:  # the user's loss, in a way that it was not made for
        raise NotThisWay(f"{type(error).__name__}: {error}") from error
    _refuse_unlike(found, whole, _precision(output), exactly=way is Way.UNREDUCED)
    return found


def _unreduced(loss_fn: Any, output: Any, target: Any, count: int) -> torch.Tensor:
    function, reduction = _without_reduction(loss_fn)
    found = function(output, target)
    if not isinstance(found, torch.Tensor) or not found.dim() or len(found) != count:
        raise NotThisWay("without its reduction, the loss is not one for each sample")
    rows = found.detach().double().reshape(count, -1)
    return rows.mean(dim=1) if reduction in NAMES_OF_MEANS else rows.sum(dim=1)


def _without_reduction(loss_fn: Any) -> tuple[Callable[[Any, Any], Any], str]:
    """torch's own losses know how; what else has a reduction may mean anything by it."""
    if (
        isinstance(loss_fn, nn.Module)
        and _is_torchs(type(loss_fn))
        and isinstance(getattr(loss_fn, "reduction", None), str)
    ):
        twin: Any = copy.copy(loss_fn)
        reduction, twin.reduction = twin.reduction, "none"
        return twin, reduction
    inner = loss_fn.function if isinstance(loss_fn, Smoothed) else loss_fn
    inner = inner.func if isinstance(inner, functools.partial) else inner
    if inspect.isfunction(inner) and _is_torchs(inner) and "reduction" in inspect.signature(inner).parameters:
        given = loss_fn.keywords.get("reduction") if isinstance(loss_fn, functools.partial) else None
        return functools.partial(loss_fn, reduction="none"), given or "mean"
    raise NotThisWay("the loss has no reduction that could be left out")


def _is_torchs(value: Any) -> bool:
    return str(value.__module__).startswith("torch.nn.")


def _singly(loss_fn: Any, output: Any, target: Any, count: int) -> torch.Tensor:
    losses = []
    for place in range(count):
        loss = loss_fn(one_of(output, place, count), one_of(target, place, count))
        if isinstance(loss, torch.Tensor) and (loss.numel() != 1 or loss.is_complex()):
            raise NotThisWay("the loss of one sample is not one number")
        losses.append(float(loss))
    return torch.tensor(losses, dtype=torch.float64, device="cpu")


def one_of(value: Any, place: int, count: int) -> Any:
    """What belongs to one of ``count`` samples, still as a batch: a row of every tensor and list with one for each."""
    if isinstance(value, torch.Tensor):
        return value[place : place + 1].clone() if value.dim() and len(value) == count else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(one_of(part, place, count) for part in value))
    if isinstance(value, (tuple, list)):
        if len(value) == count and not any(isinstance(part, torch.Tensor) for part in value):
            return value[place : place + 1]
        return type(value)(one_of(part, place, count) for part in value)
    if isinstance(value, dict):
        made: Any = copy.copy(value)
        made.update({key: one_of(part, place, count) for key, part in value.items()})
        return made
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made = copy.copy(value)
        for field in dataclasses.fields(value):
            object.__setattr__(made, field.name, one_of(getattr(value, field.name), place, count))
        return made
    return value


def _precision(output: Any) -> float:
    half = isinstance(output, torch.Tensor) and output.dtype in (torch.float16, torch.bfloat16)
    return CLOSE_IN_HALF if half else CLOSE


def _refuse_unlike(found: torch.Tensor, whole: float, precision: float, *, exactly: bool) -> None:
    """The whole is the samples' mean or sum, or, where they weigh differently, somewhere between their extremes."""
    if not math.isfinite(whole) or not bool(torch.isfinite(found).all()):
        return
    slack = precision * abs(whole) + 1e-6
    if abs(float(found.mean()) - whole) <= slack:
        return
    total = float(found.sum())
    if abs(total - whole) <= slack:
        return
    if exactly or not float(found.min()) - slack <= whole <= float(found.max()) + slack:
        raise NotThisWay("the loss of a batch is not made of its samples' losses")
