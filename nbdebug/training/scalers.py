"""Gradient scalers of half precision: where they are, what their scale is, which updates they skipped.

Nothing is read to the host here: on a device, scale and skips stay tensors. Training thread only.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch.amp import GradScaler
from torch.amp.grad_scaler import _refresh_per_optimizer_state

from nbdebug.training.reach import visible_to
from nbdebug.training.trainer import Trainer


class Scalers:
    """The enabled scalers that a trainer's ``state`` names, or that its ``step`` can see."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._scalers: list[GradScaler] = []
        self._before: list[torch.Tensor] = []
        self.refresh()

    def refresh(self) -> None:
        """Look for them again."""
        found = [*self._trainer.state.values(), *visible_to(self._trainer.step)]
        scalers = {id(value): value for value in found if isinstance(value, GradScaler) and value.is_enabled()}
        self._scalers = list(scalers.values())

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._scalers)

    @property
    def all(self) -> tuple[GradScaler, ...]:
        """Them all."""
        return tuple(self._scalers)

    def forget_the_step(self) -> None:
        """A step that broke off leaves a scaler in its midst, where ``unscale_`` refuses to be called again."""
        for scaler in self._scalers:
            scaler._per_optimizer_states = defaultdict(_refresh_per_optimizer_state)

    def begin_step(self) -> None:
        """Remember the scales before the step; a scaler that was never used has none yet."""
        if self._scalers:
            self._before = [_scale_of(scaler).clone() for scaler in self._scalers]

    def scale(self) -> torch.Tensor:
        """The scale of the first."""
        return _scale_of(self._scalers[0])

    def skipped(self) -> torch.Tensor:
        """How many scalers lowered their scale in this step, which is what they do when they skip an update."""
        return torch.stack([lowered.to(torch.float32) for lowered in self._lowered()]).sum()

    def leftover(self) -> torch.Tensor | None:
        """By what gradients are still multiplied that no update used in this step; ``None`` without a scaler.

        A skipped update left them divided already, and its scale lowered.
        """
        if not self._scalers:
            return None
        now = _scale_of(self._scalers[0])
        return torch.where(self._lowered()[0], torch.ones_like(now), now)

    def _lowered(self) -> list[torch.Tensor]:
        return [_scale_of(s) < before for s, before in zip(self._scalers, self._before, strict=True)]


def _scale_of(scaler: GradScaler) -> torch.Tensor:
    """Its scale tensor, made at its first use; before that the value that it will have."""
    scale = scaler._scale
    return scale if scale is not None else torch.tensor(float(scaler._init_scale))
