"""What a batch is: taking (input, target) out of it, moving it to a device, counting its samples."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from nbdebug.records.errors import ConfigurationError

PAIRS = (
    ("input", "target"),
    ("inputs", "targets"),
    ("x", "y"),
    ("image", "label"),
    ("images", "labels"),
    ("pixel_values", "labels"),
    ("features", "labels"),
    ("data", "target"),
)


def split(batch: Any) -> tuple[Any, Any]:
    """(input, target) of a pair, or of a mapping with one of the usual pairs of keys (:data:`PAIRS`)."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping):
        for input_key, target_key in PAIRS:
            if input_key in batch and target_key in batch:
                return batch[input_key], batch[target_key]
    raise ConfigurationError(
        f"the loader yielded {describe(batch)}, which is not (input, target): give Trainer step=..., a function "
        "step(model, batch, loss_fn, optimizer) that does one whole training step and returns the loss "
        "(and eval_step=... for validation)"
    )


def describe(batch: Any) -> str:
    """A batch's type and form in a few words."""
    if isinstance(batch, torch.Tensor):
        return f"a single tensor of shape {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with keys {', '.join(map(repr, batch))}"
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"


def move(batch: Any, device: torch.device) -> Any:
    """The batch on ``device``: tensors, and whatever holds them or has a ``to`` of its own; the rest as it is."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(part, device) for part in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(move(part, device) for part in batch)
    if isinstance(batch, dict):
        moved = copy.copy(batch)
        moved.update({key: move(part, device) for key, part in batch.items()})
        return moved
    return batch


def samples(batch: Any, target: Any) -> int:
    """Number of samples: the length of the target where there is one, else of the batch's first tensor, else 1."""
    if target is None and isinstance(batch, (tuple, list)) and len(batch) == 2:
        target = batch[1]
    tensor = target if isinstance(target, torch.Tensor) else _first_tensor(batch)
    return int(tensor.shape[0]) if tensor is not None and tensor.dim() else 1


def _first_tensor(batch: Any) -> torch.Tensor | None:
    if isinstance(batch, torch.Tensor):
        return batch
    parts: Any = ()
    if isinstance(batch, Mapping):
        parts = batch.values()
    elif isinstance(batch, (tuple, list)):
        parts = batch
    elif dataclasses.is_dataclass(batch):
        parts = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    elif hasattr(batch, "__dict__"):
        parts = vars(batch).values()
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)
