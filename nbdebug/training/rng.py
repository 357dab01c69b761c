"""Random states: capturing and restoring every generator that training draws from, cheaply enough for each step.

Covered are torch's CPU generator, every CUDA device in use, numpy's legacy global generator and Python's ``random``.
The debugger itself never draws. Used by the training thread; the states are process-wide.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class RandomState:
    """The state of every generator at one moment."""

    torch_cpu: torch.Tensor
    numpy: Any
    python: Any
    cuda: tuple[torch.Tensor, ...]

    @classmethod
    def capture(cls) -> RandomState:
        """Read all generators, changing none."""
        return cls(torch.get_rng_state(), np.random.get_state(), random.getstate(), _cuda_states())

    def restore(self) -> None:
        """Set all generators back."""
        torch.set_rng_state(self.torch_cpu)
        np.random.set_state(self.numpy)
        random.setstate(self.python)
        _set_cuda_states(self.cuda)


def _cuda_states() -> tuple[torch.Tensor, ...]:
    return tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()


def _set_cuda_states(states: tuple[torch.Tensor, ...]) -> None:
    if states:
        torch.cuda.set_rng_state_all(list(states))


class OwnRandomState:
    """One debugger's random state, swapped in for each of its steps.

    After a step the generators stay as the step left them, as in a plain loop. What anyone else does to them in
    between (a draw in another cell, another debugger's step) is undone before the next step. Only a
    ``torch.manual_seed`` right before a run counts: :meth:`adopt_fresh_seed`.
    """

    def __init__(self) -> None:
        self._torch_cpu = torch.get_rng_state()
        self._numpy = _NumpyState()
        self._python = random.getstate()
        self._cuda = _cuda_states()

    def enter(self) -> None:
        """Make this state the global one."""
        torch.set_rng_state(self._torch_cpu)
        self._numpy.restore()
        random.setstate(self._python)
        _set_cuda_states(self._cuda)

    def leave(self) -> None:
        """Keep the global state as this one."""
        self._torch_cpu = torch.get_rng_state()
        self._numpy.update()
        self._python = random.getstate()
        self._cuda = _cuda_states()

    def state(self) -> RandomState:
        """The same as a record, to be kept."""
        return RandomState(self._torch_cpu, self._numpy.state, self._python, self._cuda)

    def take_over(self, state: RandomState) -> None:
        """From now on this is the state."""
        state.restore()
        self.leave()

    def adopt_fresh_seed(self) -> int | None:
        """Take over the global state if torch was seeded and nothing drawn since; returns that seed.

        A state that was seeded and then drawn from belongs to someone else, such as the cell that made a second model.
        """
        present = torch.get_rng_state()
        seed = torch.initial_seed()
        fresh = torch.Generator().manual_seed(seed).get_state()
        if torch.equal(present, self._torch_cpu) or not torch.equal(present, fresh):
            return None
        self.leave()
        return seed


class _NumpyState:
    """numpy's global state. Reading it whole takes 50 µs, so its raw words tell first whether it moved at all."""

    def __init__(self) -> None:
        self._state: Any = np.random.get_state()
        self._words = _raw_words()

    @property
    def state(self) -> Any:
        """As ``numpy.random.get_state`` gave it."""
        return self._state

    def update(self) -> None:
        words = _raw_words()
        if words is None or words != self._words or self._has_cached_normal():
            self._state = np.random.get_state()
            self._words = words

    def restore(self) -> None:
        words = _raw_words()
        if words is None or words != self._words or self._has_cached_normal():
            np.random.set_state(self._state)

    def _has_cached_normal(self) -> bool:
        return bool(self._state[3])


def _raw_words() -> bytes | None:
    """The Mersenne Twister's 624 words and position, or ``None`` if numpy runs on another generator."""
    generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]
    if not isinstance(generator, np.random.MT19937):
        return None
    address = generator.ctypes.state_address
    return bytes((ctypes.c_char * (625 * 4)).from_address(address))


def reseed(seed: int) -> None:
    """Seed every generator; numpy's takes 32 bits."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside, all generators are afterwards as they were."""
    before = RandomState.capture()
    try:
        yield
    finally:
        before.restore()
