"""What the zoo is made of: a case to train, and a kind, which makes the same case anew and says what can be seen of it.

Everything here is tiny, and made from one seed on the thread of the test.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Case:
    """A model, or a mapping of them, and how to train it."""

    model: Any
    optimizer: Any
    batches: list[Any]
    loss_fn: Any = F.cross_entropy
    step: Callable[..., Any] | None = None
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """How to make a case, and what is expected of a look at every layer of it.

    ``seen`` are the layers whose activations are there, ``unseen`` those declared out of sight with a word of the
    reason. ``learning``, ``frozen`` and ``missing`` are the layers by the state of their gradients. All are names
    separated by spaces. ``findings`` are the titles of what there is to say about the way it is trained.
    """

    build: Callable[[], Case]
    seen: str
    learning: str
    unseen: Mapping[str, str] = field(default_factory=dict)
    frozen: str = ""
    missing: str = ""
    findings: tuple[str, ...] = ()

    def make(self, seed: int = 0) -> Case:
        """The same case each time; leaves the same random states."""
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        return self.build()


Build = Callable[[], Case]


class Collection(dict[str, Kind]):
    """Kinds by name."""

    def add(self, name: str, **expected: Any) -> Callable[[Build], Build]:
        """Put the decorated function in; the name is what the test is called."""

        def put(build: Build) -> Build:
            assert name not in self
            self[name] = Kind(build, **expected)
            return build

        return put


@contextmanager
def deprecated() -> Iterator[None]:
    """Around what torch advises against by now, and people still have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr, momentum=0.9)


def adam(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)


def labels(count: int = 8) -> torch.Tensor:
    return torch.randint(0, 5, (count,))


def vectors(dtype: torch.dtype = torch.float32) -> Batches:
    return [(torch.randn(8, 10).to(dtype), labels()) for _ in range(4)]


def images() -> Batches:
    return [(torch.randn(8, 3, 8, 8), labels()) for _ in range(4)]


def tokens(length: int = 6) -> Batches:
    return [(torch.randint(1, 20, (8, length)), labels()) for _ in range(4)]


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 5))
