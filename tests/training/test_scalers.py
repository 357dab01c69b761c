"""Half precision with a scaler: true units, updates that are skipped are counted, wherever the scaler is kept."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn import functional as F

from nbdebug.records.signals import Signal
from nbdebug.training.reach import visible_to
from nbdebug.training.trainer import Trainer
from tests.probes.watched import Watched, close, mlp, watched

Step = Callable[..., torch.Tensor]


def scaled_step(scaler: GradScaler, model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss = loss_fn(model(batch[0]), batch[1])
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss


GLOBAL_SCALER = GradScaler("cpu", init_scale=1024.0, growth_interval=1000)


def step_with_a_global(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
    return scaled_step(GLOBAL_SCALER, model, batch, loss_fn, optimizer)


class Stepping:
    def __init__(self) -> None:
        self.scaler = GradScaler("cpu", init_scale=1024.0)

    def step(self, model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
        return scaled_step(self.scaler, model, batch, loss_fn, optimizer)

    __call__ = step


def closing_over(scaler: GradScaler) -> Step:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
        return scaled_step(scaler, model, batch, loss_fn, optimizer)

    return step


PLACES: dict[str, Callable[[], Any]] = {
    "a closure": lambda: closing_over(GradScaler("cpu")),
    "a global": lambda: step_with_a_global,
    "a bound method": lambda: Stepping().step,
    "an object that is called": Stepping,
    "a partial": lambda: functools.partial(scaled_step, GradScaler("cpu")),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_scaler_is_found_where_a_step_keeps_it(place: str) -> None:
    assert any(isinstance(value, GradScaler) for value in visible_to(PLACES[place]()))


def run(optimizer_options: dict[str, Any], bad: int = 0, steps: int = 8) -> tuple[Watched, nn.Module]:
    torch.manual_seed(0)
    model = mlp()
    scaler = GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, **optimizer_options)
    batches = [(torch.randn(6, 12), torch.randint(0, 5, (6,))) for _ in range(steps)]

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
        overflow = bad > 0 and batch[0] is batches[bad - 1][0]
        return scaled_step_with_overflow(scaler, model, batch, optimizer, overflow=overflow)

    case = watched(model, Trainer(optimizer, F.cross_entropy, batches, step=step, state={"scaler": scaler}))
    case.run(steps)
    assert not case.broken, case.broken
    return case, model


def scaled_step_with_overflow(
    scaler: GradScaler, model: Any, batch: Any, optimizer: Any, *, overflow: bool
) -> torch.Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1])
    scaler.scale(loss).backward()
    if overflow:
        model[0].weight.grad[0, 0] = math.inf
    scaler.step(optimizer)
    scaler.update()
    return loss


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=["plain", "fused"])
def test_gradients_are_in_true_units(options: dict[str, Any]) -> None:
    case, _ = run(options)
    torch.manual_seed(0)
    twin = mlp()
    batch = (torch.randn(6, 12), torch.randint(0, 5, (6,)))
    F.cross_entropy(twin(batch[0]), batch[1]).backward()
    expected = float(torch.cat([p.grad.flatten() for p in twin[0].parameters()]).norm())
    close(case.recorder.layer(Signal.GRADIENT_NORM, "0")[1], expected, 1e-4)
    whole = float(torch.cat([p.grad.flatten() for p in twin.parameters()]).norm())
    close(case.recorder.series(Signal.GRADIENT_NORM)[1], whole, 1e-4)
    largest = float(max(p.grad.abs().max() for p in twin[0].parameters()))
    histogram = case.recorder.histogram(Signal.GRADIENTS, 0)
    assert histogram.limit[0] / 2 <= largest < histogram.limit[0]
    case.session.close()


@pytest.mark.parametrize("options", [{}, {"fused": True}], ids=["plain", "fused"])
def test_a_skipped_update_is_counted_and_no_update(options: dict[str, Any]) -> None:
    case, _ = run(options, bad=4)
    skipped, updates = case.recorder.series(Signal.SKIPPED_UPDATES), case.recorder.series(Signal.UPDATES)
    assert [step for step, value in skipped.items() if value] == [4]
    assert updates[4] == 0 and sum(updates.values()) == 7
    scale = case.recorder.series(Signal.LOSS_SCALE)
    assert scale[3] == 1024 and scale[4] == 512
    assert 4 not in case.recorder.layer(Signal.UPDATE_NORM, "0")
    assert {3, 5} <= set(case.recorder.layer(Signal.UPDATE_NORM, "0"))
    assert not [each for each in case.recorder.findings if "finite" in each.why]
    case.session.close()
