"""Gaussian noise on gradients, right before the update. Training thread.

N(0, std²) is added to every element (Neelakantan et al., "Adding gradient noise improves learning for very deep
networks", 2015), after clipping, as the usual implementations have it: so it is as large as asked for, whatever was
clipped. Of a sparse gradient, only the rows that it holds get any. The numbers come from generators of its own, one for
each device: nobody else's random numbers move, and while it is off none is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from nbdebug.training.clipping import merged_in_place

SEED = 0x6E6F697365
States = tuple[tuple[str, torch.Tensor], ...]


class GradientNoise:
    """Noise of a standard deviation ``std``, 0 for none, and the generators that it is drawn from."""

    def __init__(self) -> None:
        self.std = 0.0
        self.seed = SEED
        self._generators: dict[torch.device, torch.Generator] = {}

    def add(self, gradients: Iterable[torch.Tensor], scale: torch.Tensor | None) -> None:
        """Add it in place, in the order given; ``scale`` is that of gradients still multiplied for half precision."""
        for gradient in gradients:
            held = merged_in_place(gradient)
            generator = self._generator(held.device)
            noise = torch.randn(held.shape, generator=generator, dtype=held.dtype, device=held.device)
            held.add_(noise.mul_(self.std) if scale is None else noise.mul_(self.std).mul_(scale.to(held.device)))

    def reseed(self, seed: int) -> None:
        """Other numbers from here on; not those that the global generator gives under the same seed."""
        self.seed = (seed ^ SEED) % 2**63
        self._generators.clear()

    def states(self) -> States:
        """Where each generator stands."""
        return tuple((str(device), generator.get_state()) for device, generator in self._generators.items())

    def restore(self, std: float, seed: int, states: States) -> None:
        """As it was; generators that had not been used then begin anew."""
        self.std, self.seed = std, seed
        self._generators.clear()
        for name, state in states:
            self._generator(torch.device(name)).set_state(state.cpu())

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed + (device.index or 0))
        return self._generators[device]
