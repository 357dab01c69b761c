"""Gradient flow: mean and maximum of |g| per layer, before and after clipping. Exact; training thread only.

A layer is a module that owns parameters. mean|g| = Σ|g| / elements over all its parameters that learn, max|g| likewise.
A parameter whose gradient is ``None`` when the step ends counts as missing, not as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from nbdebug.records.frames import Floats, GradientFlow, GradientState
from nbdebug.records.signals import Signal


class GradientFlowProbe:
    """Measures at each optimizer step, and at the step's end whatever no optimizer step covered."""

    name = "gradient flow"
    signals = (
        Signal.GRADIENT_MEAN,
        Signal.GRADIENT_MAX,
        Signal.GRADIENT_MEAN_CLIPPED,
        Signal.GRADIENT_MAX_CLIPPED,
    )

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.layers: list[str] = []
        self._owner: dict[nn.Parameter, int] = {}
        for name, module in modules.items():
            own = [p for p in module.parameters(recurse=False) if p not in self._owner]
            if own:
                self._owner.update(dict.fromkeys(own, len(self.layers)))
                self.layers.append(name or type(module).__name__)
        self._before: dict[nn.Parameter, torch.Tensor] = {}
        self._after: dict[nn.Parameter, torch.Tensor] = {}

    def begin(self, turn: int) -> None:
        """A sampled step begins."""
        self._before.clear()
        self._after.clear()

    def gradients_ready(self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None) -> None:
        """Read the gradients before clipping."""
        measured = self._measure(parameters, scale)
        self._before.update(measured)
        self._after.update(measured)

    def gradients_clipped(
        self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None, factor: torch.Tensor | None
    ) -> None:
        """Clipping by norm multiplied all by ``factor``; by value, the gradients are read again."""
        if factor is None:
            self._after.update(self._measure(parameters, scale))
        else:
            self._after.update({p: self._before[p] * factor for p in parameters if p in self._before})

    def finish(self) -> list[torch.Tensor]:
        """Sum and maximum of |g| before, then after clipping: one tensor ``(parameters measured, 2)`` each."""
        rest = [p for p in self._owner if p not in self._before]
        self.gradients_ready(rest, None)
        if not self._before:
            return []
        device = next(iter(self._before.values())).device
        return [torch.stack([pair.to(device) for pair in pairs.values()]) for pairs in (self._before, self._after)]

    def read(self, arrays: list[Floats]) -> GradientFlow:
        """The record, from what :meth:`finish` gave once it is on the host."""
        count = len(self.layers)
        flow = GradientFlow(
            layers=tuple(self.layers),
            mean=np.zeros(count),
            max=np.zeros(count),
            clipped_mean=np.zeros(count),
            clipped_max=np.zeros(count),
            state=self._states(),
        )
        if arrays:
            self._aggregate(list(self._before), arrays[0], flow.mean, flow.max)
            self._aggregate(list(self._after), arrays[1], flow.clipped_mean, flow.clipped_max)
        return flow

    def drop(self) -> None:
        """Let go of all tensors."""
        self._before.clear()
        self._after.clear()

    def _measure(
        self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None
    ) -> dict[nn.Parameter, torch.Tensor]:
        found: dict[nn.Parameter, torch.Tensor] = {}
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None or parameter not in self._owner:
                continue
            pair = _sum_and_max(gradient)
            found[parameter] = pair if scale is None else pair / scale.to(pair)
        return found

    def _aggregate(self, parameters: list[nn.Parameter], pairs: Floats, mean: Floats, largest: Floats) -> None:
        elements = np.zeros(len(self.layers))
        for parameter, (total, peak) in zip(parameters, pairs, strict=True):
            layer = self._owner[parameter]
            mean[layer] += total
            elements[layer] += parameter.numel()
            largest[layer] = np.maximum(largest[layer], peak)
        np.divide(mean, elements, out=mean, where=elements > 0)

    def _states(self) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
        states = np.full(len(self.layers), GradientState.FROZEN, dtype=np.int8)
        for parameter, layer in self._owner.items():
            if parameter in self._before:
                states[layer] = GradientState.PRESENT
            elif parameter.requires_grad and states[layer] != GradientState.PRESENT:
                states[layer] = GradientState.MISSING
        return states


def _sum_and_max(gradient: torch.Tensor) -> torch.Tensor:
    """(Σ|g|, max|g|) as a tensor of two, on the gradient's device, in float32 at least."""
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    if values.is_complex():
        values = values.abs()
    if values.numel() == 0:
        return torch.zeros(2, device=values.device)
    total = torch.linalg.vector_norm(values, 1, dtype=torch.float64 if values.dtype is torch.float64 else torch.float32)
    low, high = values.aminmax()
    return torch.stack([total, torch.maximum(-low, high).to(total)])
