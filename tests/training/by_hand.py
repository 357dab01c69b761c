"""What acts on gradients and updates, as one writes it by hand in a plain loop; and a network to train so."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.training.gradient_noise import SEED

Make = Callable[[Any], torch.optim.Optimizer]
BATCHES = 7
LAYERS = ("fc1", "norm", "fc2", "head")


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1, momentum=0.9)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 1e-2, weight_decay=0.1)


def lbfgs(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(parameters, 0.05, max_iter=3)


class Network(nn.Module):
    """Two blocks and a head; with dropout and batch norm, so that random numbers and buffers count."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.2)
        self.fc2 = nn.Linear(16, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.fc2(self.drop(torch.tanh(self.norm(self.fc1(x)))))))


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def data() -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [
        (3 * torch.randn(6, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator))
        for _ in range(BATCHES)
    ]


def made(make: Make = sgd, **options: Any) -> tuple[Network, Debugger]:
    model = network()
    torch.manual_seed(5)
    case = Debugger(model, Trainer(make(model.parameters()), F.cross_entropy, data(), **options), journal=None)
    return model, case


def plainly(make: Make, changes: dict[int, dict[str, Any]], steps: int) -> Network:
    """The loop as one writes it by hand, with these changes after so many steps."""
    model = network()
    optimizer = make(model.parameters())
    torch.manual_seed(5)
    batches, generator = data(), torch.Generator().manual_seed(SEED)
    norms: dict[str, float] = {}
    values: dict[str, float] = {}
    whole, noise, every, size, done = None, 0.0, 1, 1, 0

    def touch() -> None:
        for name in sorted({*norms, *values}):
            limit = norms.get(name, values.get(name))
            for layer in [n for n, _ in model.named_modules() if n and fnmatchcase(n, name)]:
                parameters = list(model.get_submodule(layer).parameters())
                if name in norms:
                    nn.utils.clip_grad_norm_(parameters, limit)
                elif parameters:
                    nn.utils.clip_grad_value_(parameters, limit)
        if whole is not None:
            nn.utils.clip_grad_norm_(model.parameters(), whole)
        for parameter in model.parameters() if noise else ():
            drawn = torch.randn(parameter.grad.shape, generator=generator)
            with torch.no_grad():
                parameter.grad += drawn * noise

    for step in range(steps):
        change = changes.get(step, {})
        norms.update({k: v for k, v in change.get("norms", {}).items()})
        values.update({k: v for k, v in change.get("values", {}).items()})
        for name in change.get("gone", ()):
            norms.pop(name, None), values.pop(name, None)
        whole = change.get("whole", whole)
        noise = change.get("noise", noise)
        every = change.get("every", every)
        x, y = batches[step % BATCHES]
        if isinstance(optimizer, torch.optim.LBFGS):

            def closure(x: Any = x, y: Any = y) -> Any:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                touch()
                return loss

            optimizer.step(closure)
            continue
        if done == 0:
            optimizer.zero_grad()
            size = every
        loss = F.cross_entropy(model(x), y)
        (loss / size).backward()
        done += 1
        if done == size:
            touch()
            optimizer.step()
            done = 0
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    kept, there = one.state_dict(), other.state_dict()
    return all(torch.equal(kept[name], there[name]) for name in kept)
