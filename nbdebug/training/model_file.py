"""Saving the model's weights, for use without nbdebug. Any thread; training must stand still."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from nbdebug.records.errors import CommandError
from nbdebug.training.modules import Model, roots

SAFE = ".safetensors"


def save(model: Model, path: Path) -> Path:
    """Write all weights and buffers that a ``state_dict`` holds; several models' names begin with their own.

    To ``.safetensors``, or by ``torch.save`` to any other file. An older file stays until the new one is whole.

    Raises:
        CommandError: it can't be written there, or holds what safetensors can't.
    """
    state = {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, root in roots(model).items()
        for name, value in root.state_dict().items()
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == SAFE:
            _save_safely(state, beside)
        else:
            torch.save(state, beside)
        os.replace(beside, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CommandError(f"the model can't be written to {path}: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return path


def _save_safely(state: Mapping[str, object], path: Path) -> None:
    odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise CommandError(f"{', '.join(map(repr, odd[:5]))} is no tensor: save to a .pt file instead")
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path)
