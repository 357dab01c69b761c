"""Each planted fault of :mod:`tests.tools.faults` in a training run: where it stops, what is said, the weights then."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.findings import Severity
from nbdebug.records.status import State
from tests.tools.faults import FAULTS, FILE, Fault, line_of

LEFT_OUT = ("raising_midway", "scaled_too_far")  # an error of the user's, and an update that a scaler skips
BAD_WEIGHTS = ("nan_in_weight",)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", [each for each in FAULTS if each.name not in LEFT_OUT], ids=lambda fault: fault.name)
def test_training_stops_at_a_fault_and_names_it(fault: Fault) -> None:
    torch.manual_seed(0)
    made = fault.build()
    model: Any = made.roots[""] if list(made.roots) == [""] else dict(made.roots)
    optimizer: Any = made.optimizers[""] if list(made.optimizers) == [""] else dict(made.optimizers)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        return made.rerun()

    case = Debugger(model, Trainer(optimizer, None, [made.batch] * 4, step=step), journal=None, checks=False)
    case.run(steps=4)
    assert case.state is State.PAUSED, "it was not noticed"
    assert case.status.step <= 1
    found = [each for each in case.findings if each.severity is Severity.CRITICAL]
    assert len(found) == 1
    origin = found[0].origin
    assert origin is not None
    assert (origin.operation, origin.module) == (fault.operation, fault.module)
    if not fault.source.startswith("batch"):  # these steps hold their own data, and are given another batch
        assert (origin.phase, origin.source) == (fault.phase, fault.source)
    if fault.marked:
        assert origin.line is not None and (origin.line.file, origin.line.line) == (str(FILE), line_of(fault.name))
    if fault.name not in BAD_WEIGHTS:
        parameters = [p for root in made.roots.values() for p in root.parameters()]
        assert all(parameter.isfinite().all() for parameter in parameters)
    case.close()


def large(x: torch.Tensor) -> torch.Tensor:
    return x * 1e12


class Masked(nn.Module):
    """Attention over what came before, by a mask of minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(6, 18), nn.Linear(6, 3)
        self.register_buffer("mask", torch.full((5, 5), -math.inf).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.mix(x).chunk(3, -1)
        weights = (q @ k.transpose(-1, -2) / 2 + self.mask).softmax(-1)
        return self.head((weights @ v).mean(1))


class Deep(nn.Module):
    """Grows by a factor per layer, and shrinks at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(8)])
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = 100 * layer(x)
        return self.head(x) * 1e-16


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def inputs(scale: float = 1.0, shape: tuple[int, ...] = (8, 6)) -> list[Any]:
    generator = torch.Generator().manual_seed(4)
    return [
        (scale * torch.randn(shape, generator=generator), torch.randint(0, 3, (8,), generator=generator))
        for _ in range(10)
    ]


def hard(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.masked_fill(torch.tensor([False, False, True]), -math.inf), target.clamp(max=1))


def far(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 1e18 * F.cross_entropy(output, target)


def squares(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((output - 1e9) ** 2).mean()


def guarded(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = output.sigmoid()
    return torch.where(p > 0.5, p.clamp(min=1e-6).log(), p).mean()


def best_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    best = torch.full((3,), -math.inf)
    best = torch.maximum(best, output.max(0).values)
    return best.exp().clamp(max=10.0).sum()


HEALTHY = {
    "inputs of a million": (plain, inputs(1e6), F.cross_entropy, 1e-9),
    "a loss of 1e18": (plain, inputs(), far, 1e-25),
    "squares of 1e18": (plain, inputs(), squares, 1e-22),
    "a causal mask in a buffer": (Masked, inputs(shape=(8, 5, 6)), F.cross_entropy, 0.1),
    "masked logits": (plain, inputs(), hard, 0.1),
    "activations of 1e16": (Deep, inputs(), F.cross_entropy, 1e-4),
    "a guarded logarithm": (plain, inputs(), guarded, 0.1),
    "minus infinity as a beginning": (plain, inputs(), best_of, 0.01),
    "a loss below zero": (plain, inputs(), lambda output, target: -output.pow(2).mean().clamp(max=1e30), 1e-3),
    "tiny numbers": (plain, inputs(1e-30), F.cross_entropy, 0.1),
    "an infinite threshold that nothing reaches": (
        plain, inputs(), lambda output, target: F.cross_entropy(output.clamp(-math.inf, math.inf), target), 0.1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_raise_nothing(name: str) -> None:
    build, data, loss_fn, lr = HEALTHY[name]
    torch.manual_seed(0)
    model = build()
    case = Debugger(model, Trainer(torch.optim.SGD(model.parameters(), lr), loss_fn, data), journal=None, checks=False)
    case.run(epochs=3)
    assert (case.state, case.status.step, case.findings) == (State.IDLE, 30, ())
    case.close()
