"""What a probe is, and what it finds. Training thread only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nbdebug.records.layers import Histograms, Unseen
from nbdebug.records.signals import Series, Signal

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Column:
    """One signal for these layers, ``values`` ``(layers,)``; a layer that is left out was not measured."""

    signal: Signal
    layers: Sequence[str]
    values: Floats


@dataclass(slots=True)
class Reading:
    """What a probe found in one step, on the host."""

    columns: list[Column] = field(default_factory=list)
    histograms: list[Histograms] = field(default_factory=list)
    scalars: dict[Series, float] = field(default_factory=dict)


class Probe(Protocol):
    """Measures one thing on sampled steps. Draws no random number, keeps no graph, lets go of the user's tensors.

    The order in a sampled step: ``begin``, the user's step, ``unhook``, ``finish``, and later, once what ``finish``
    gave is on the host, ``read``; ``drop`` whenever the step broke off. Hooks are there between ``begin`` and
    ``unhook`` only.
    """

    name: str
    signals: tuple[Signal, ...]

    @property
    def hook_s(self) -> float:
        """Seconds that the hooks of this step took within the model's forward."""

    def begin(self, step: int) -> None:
        """The step begins: put the hooks on."""

    def unhook(self) -> None:
        """The user's step returned: take the hooks off; what they saw is kept."""

    def finish(self) -> list[torch.Tensor]:
        """The reduced statistics, still on the device, and nothing else kept of the step."""

    def read(self, arrays: list[Floats]) -> Reading:
        """The finding, made of those statistics on the host as float64 arrays of the same shapes; maybe a step late."""

    def drop(self) -> None:
        """Let go of hooks and tensors."""

    def unseen(self) -> list[Unseen]:
        """What this probe can't look at, as far as it knows after the steps sampled so far."""
