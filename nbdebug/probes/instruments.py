"""All probes of one session, as the session sees them. One transfer per frame; training thread only.

A probe that raises is switched off, reported once through ``on_failure``, and training goes on.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from nbdebug.probes.activations import ActivationsProbe
from nbdebug.probes.gradient_flow import GradientFlowProbe
from nbdebug.records.frames import Activations, Floats, GradientFlow
from nbdebug.records.signals import Series, Signal


class Probe(Protocol):
    """Measures one thing on sampled steps; ``signals`` says what."""

    name: str
    signals: tuple[Signal, ...]

    def begin(self, turn: int) -> None:
        """The step begins."""

    def finish(self) -> list[torch.Tensor]:
        """The step is over: the reduced statistics, still on the device."""

    def read(self, arrays: list[Floats]) -> Any:
        """The record, made of those statistics on the host."""

    def drop(self) -> None:
        """Let go of hooks and tensors."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one step gave, on the host."""

    scalars: dict[Series, float]
    gradients: GradientFlow | None
    activations: Activations | None


@dataclass
class Instruments:
    """The probes, switched on for sampled steps. ``on_failure(probe name, traceback)`` hears of broken ones."""

    on_failure: Callable[[str, str], None]
    _probes: dict[str, Any] = field(default_factory=dict)
    _broken: set[str] = field(default_factory=set)
    _sampling: bool = False

    def watch(self, modules: Mapping[str, nn.Module]) -> None:
        """Look at these modules from the next step on; names of broken probes are kept out."""
        probes = (GradientFlowProbe(modules), ActivationsProbe(modules))
        self._probes = {probe.name: probe for probe in probes if probe.name not in self._broken}

    @property
    def hook_seconds(self) -> float:
        """Time that module hooks of the present step spent within the model's forward."""
        activations = self._probes.get(ActivationsProbe.name)
        return activations.hook_seconds if self._sampling and activations is not None else 0.0

    def begin_step(self, step: int, *, sample: bool) -> None:
        """A step begins; only a sampled one is looked into."""
        self._sampling = sample
        if sample:
            for probe in list(self._probes.values()):
                self._guarded(probe, probe.begin, step)

    def gradients_ready(self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None) -> None:
        """Called by the measure point before clipping."""
        flow = self._probes.get(GradientFlowProbe.name)
        if self._sampling and flow is not None:
            self._guarded(flow, flow.gradients_ready, parameters, scale)

    def gradients_clipped(
        self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None, factor: torch.Tensor | None
    ) -> None:
        """Called by the measure point after clipping."""
        flow = self._probes.get(GradientFlowProbe.name)
        if self._sampling and flow is not None:
            self._guarded(flow, flow.gradients_clipped, parameters, scale, factor)

    def model_done(self) -> None:
        """The user's step returned: take the module hooks off."""
        activations = self._probes.get(ActivationsProbe.name)
        if self._sampling and activations is not None:
            activations.unhook()

    def end_step(self, scalars: Mapping[Series, Any]) -> Measured:
        """Bring everything to the host in one transfer: ``scalars`` (tensors or numbers) and what the probes found."""
        packed: dict[Any, list[torch.Tensor]] = {}
        if self._sampling:
            for probe in list(self._probes.values()):
                with torch.no_grad():
                    found = self._guarded(probe, probe.finish)
                if found is not None:
                    packed[probe] = found
        on_device = {series: value for series, value in scalars.items() if isinstance(value, torch.Tensor)}
        arrays = _transfer([*on_device.values(), *(t for tensors in packed.values() for t in tensors)])
        values = {series: float(v) for series, v in scalars.items() if series not in on_device}
        values.update({series: float(arrays.pop(0).reshape(())) for series in on_device})
        records = {}
        for probe, tensors in packed.items():
            own = [arrays.pop(0) for _ in tensors]
            records[probe.name] = self._guarded(probe, probe.read, own)
        self.abandon_step()
        return Measured(values, records.get(GradientFlowProbe.name), records.get(ActivationsProbe.name))

    def abandon_step(self) -> None:
        """Leave no hook and no tensor behind, whatever happened."""
        if self._sampling:
            for probe in list(self._probes.values()):
                probe.drop()
        self._sampling = False

    def _guarded(self, probe: Probe, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except Exception:  # a probe meets whatever modules people write; it must not take training down
            self._probes.pop(probe.name, None)
            self._broken.add(probe.name)
            probe.drop()
            self.on_failure(probe.name, traceback.format_exc())
            return None


def _transfer(tensors: list[torch.Tensor]) -> list[Floats]:
    """The tensors as float64 arrays of their own shapes; those of a device in one copy."""
    arrays: dict[int, Floats] = {}
    elsewhere: dict[torch.device, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if tensor.device.type == "cpu":
            arrays[index] = tensor.detach().numpy().astype(np.float64) if _has_numpy(tensor) else _widened(tensor)
        else:
            elsewhere.setdefault(tensor.device, []).append(index)
    for device, indices in elsewhere.items():
        wide = torch.float32 if device.type == "mps" else torch.float64
        packed = torch.cat([tensors[i].detach().reshape(-1).to(wide) for i in indices]).cpu().numpy()
        parts = np.split(packed, np.cumsum([tensors[i].numel() for i in indices])[:-1])
        for index, part in zip(indices, parts, strict=True):
            arrays[index] = part.reshape(tuple(tensors[index].shape)).astype(np.float64)
    return [arrays[index] for index in range(len(tensors))]


def _has_numpy(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float32, torch.float64)


def _widened(tensor: torch.Tensor) -> Floats:
    """numpy has no bfloat16."""
    return tensor.detach().to(torch.float64).numpy().copy()
