"""What checks of the data share: labels sample by sample, fingerprints, how richly data vary, in which order they come.

Pure; draws no random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.task import Kind
from nbdebug.checks.preflight.trace import LossCall, StepTrace

MOST_VALUES = 4_000_000  # that statistics are taken over
RECODINGS = frozenset({"one_hot", "long", "int", "short"})
TOKEN_CALLS = frozenset({"embedding", "embedding_bag", "one_hot"})
MOST_CLASSES = 10_000


class Order(StrEnum):
    """In which order samples come: drawn anew each epoch, as stored, as the user's sampler says, or unknown."""

    RANDOM = "random"
    FIXED = "fixed"
    OWN = "own"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Labels:
    """One class for each sample, exactly as the loss gets them: ``values`` ``(n,)``, integers, in order of the batches.

    ``classes`` is the number of outputs (2 where one output decides), ``source`` the way to them in a batch,
    ``validation`` the same of the validation loader, if there is one.
    """

    source: str
    values: torch.Tensor
    classes: int
    validation: torch.Tensor | None = None

    @property
    def counts(self) -> torch.Tensor:
        """How often each class comes; those off the range are not counted."""
        return self.count(self.values)

    def count(self, values: torch.Tensor) -> torch.Tensor:
        """The same of other labels."""
        return torch.bincount(values[(values >= 0) & (values < self.classes)], minlength=self.classes)


def order_of(loader: Any) -> Order:
    """The order of a loader's samples, as far as its sampler tells."""
    if isinstance(loader, (list, tuple)):
        return Order.FIXED
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return Order.UNKNOWN
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        return Order.OWN
    sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler.sampler
    if isinstance(sampler, DistributedSampler):
        return Order.RANDOM if sampler.shuffle else Order.FIXED
    if isinstance(sampler, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)):
        return Order.RANDOM
    return Order.FIXED if isinstance(sampler, SequentialSampler) else Order.OWN


def raw_source(trace: StepTrace, number: int | None, before: int | None) -> str:
    """The way in the batch of what a tensor is, but for its form; empty if it was worked on or comes from elsewhere."""
    if number is None:
        return ""
    while True:
        number, call = trace.origin(number, before)
        if call is None or call.name not in RECODINGS or not call.inputs:
            break
        number, before = call.inputs[0], call.index
    value = trace.values.get(number)
    made = trace.producer(number, before)
    return value.source if value is not None and made is None and value.source.startswith("batch") else ""


def target_source(look: Look) -> str:
    """Where in a batch the loss's target lies unchanged; of a hand-written loss, the first target."""
    trace, loss = look.trace, look.task.loss or look.task.by_hand
    if loss is not None:
        return raw_source(trace, loss.target_number, loss.call.index)
    return next(iter(look.data.targets), "")


def labels(look: Look) -> Labels | None:
    """The samples' classes, if each has one and the loss gets it as it is in the batch."""
    task = look.task
    source = target_source(look)
    target = look.data.targets.get(source)
    if target is None or task.kind not in (Kind.CLASSES, Kind.BINARY):
        return None
    classes = task.classes if task.kind is Kind.CLASSES and task.classes > 1 else 2
    values = _classes_in(target, classes)
    loss = task.loss or task.by_hand
    if values is None or not 2 <= classes <= MOST_CLASSES or (loss is not None and not _one_each(loss)):
        return None
    beside = look.data.val_targets.get(source)
    validation = _classes_in(beside, classes) if beside is not None else None
    if task.kind is Kind.BINARY:
        yes_or_no, validation = _yes_or_no(values), _yes_or_no(validation) if validation is not None else None
        return Labels(source, yes_or_no, classes, validation) if yes_or_no is not None else None
    return Labels(source, values, classes, validation)


def _yes_or_no(values: torch.Tensor) -> torch.Tensor | None:
    """0 and 1, of those or of -1 and 1; ``None`` of anything else."""
    if not bool(((values == 0) | (values.abs() == 1)).all()):
        return None
    signs = bool((values < 0).any())
    return None if signs and bool((values == 0).any()) else values.clamp(min=0)


def _one_each(loss: LossCall) -> bool:
    """Whether the loss compares one class for each sample, not for each position."""
    return loss.input.dim() <= 2 and (loss.input.dim() < 2 or loss.target is None or loss.target.dim() < 3)


def _classes_in(target: torch.Tensor, classes: int) -> torch.Tensor | None:
    """``(n,)``, ``(n, 1)`` of whole numbers, or one-hot rows ``(n, classes)``, as class numbers."""
    if target.dim() == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.dim() == 1:
        whole = not target.is_floating_point() or bool((target == target.round()).all())
        return target.long() if whole else None
    if target.dim() == 2 and target.shape[1] == classes:
        one_hot = bool((((target == 0) | (target == 1)).all(1) & (target.sum(1) == 1)).all())
        return target.argmax(1) if one_hot else None
    return None


def is_tokens(look: Look, name: str) -> bool:
    """Whether an input's numbers are names of things: looked up in a table, or whole numbers used as places."""
    tensor = look.data.inputs.get(name)
    if tensor is None or tensor.is_floating_point() or tensor.is_complex():
        return False
    trace = look.trace
    looked_up = [call for call in trace.calls if call.name in TOKEN_CALLS]
    if any(name in trace.sources(number, call.index) for call in looked_up for number in call.inputs):
        return True
    return tensor.dtype is not torch.uint8


def capped(tensor: torch.Tensor, most: int = MOST_VALUES) -> torch.Tensor:
    """As many samples, evenly spaced, as hold this many values."""
    if tensor.numel() <= most or not tensor.dim():
        return tensor
    return tensor[:: math.ceil(tensor.numel() / most)]


def fingerprints(tensors: Sequence[torch.Tensor]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A number for each sample, the same for samples whose values are the same in all of these tensors."""
    rows = [_bytes_of(tensor) for tensor in tensors]
    return np.fromiter((hash(b"|".join(parts)) for parts in zip(*rows, strict=True)), np.int64)


def _bytes_of(tensor: torch.Tensor) -> list[bytes]:
    held = tensor.detach().cpu().contiguous().reshape(len(tensor), -1)
    held = held.to(torch.uint8) if held.dtype is torch.bool else held + 0  # -0 becomes 0
    plain = held.view(torch.uint8) if held.shape[1] else held.to(torch.uint8)
    return [row.tobytes() for row in plain.numpy()]


def is_rich(tensors: Sequence[torch.Tensor], pairs: float) -> bool:
    """Whether data vary so much that of so many pairs of samples hardly one would be the same by chance.

    Counts the combinations of the values that each feature takes.
    """
    wanted = math.log(max(pairs, 2.0)) + 3.0
    combinations = 0.0
    for tensor in tensors:
        flat = tensor.detach().reshape(len(tensor), -1)[:512]
        for column in flat[:, :: max(1, flat.shape[1] // 64)].unbind(1):
            combinations += math.log(len(torch.unique(column)))
            if combinations > wanted:
                return True
    return False


def is_blank(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """``(n,)``: whether all values of a sample are one and the same in all of these."""
    blank = [(flat == flat[:, :1]).all(1) for flat in (tensor.reshape(len(tensor), -1) for tensor in tensors)]
    return torch.stack(blank).all(0)


def floats(tensor: torch.Tensor) -> torch.Tensor:
    """As numbers to reckon with: those that are not finite become 0."""
    values = tensor.detach().to(torch.float32 if tensor.dtype is not torch.float64 else torch.float64)
    return torch.nan_to_num(values, 0.0, 0.0, 0.0)
