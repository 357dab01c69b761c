"""Where a run's natural end is, and that live checks are made by steps alone."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer, debugger_live
from tests.zoo import training
from tests.zoo.training import STRETCH, End, first_broken, judged_by_steps, settled, train


def decay(steps: int, speed: float, rest: float = 0.1) -> list[float]:
    return [rest + math.exp(-speed * step) for step in range(steps)]


@pytest.mark.parametrize(
    ("losses", "is_settled"),
    [
        (decay(3 * STRETCH - 1, 0.2), False),  # too short to say
        (decay(3 * STRETCH, 0.2), True),
        (decay(3 * STRETCH, 0.005), False),  # falling still
        (decay(8 * STRETCH, 0.005), False),  # e-folding in 200 steps: the last stretch brought 2 % of the fall
        (decay(12 * STRETCH, 0.005), True),
        ([1.0] * 4 * STRETCH, False),  # never fell
        ([1.0 + 0.01 * step for step in range(4 * STRETCH)], False),
        ([1.0, *[math.nan] * 4 * STRETCH], False),
    ],
)
def test_a_loss_has_settled_where_it_fell_and_falls_no_more(losses: list[float], is_settled: bool) -> None:
    assert settled(losses) is is_settled


def test_the_end_comes_with_the_losses_or_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    end = End()
    assert [end({"loss": loss}) for loss in decay(3 * STRETCH, 0.2)].index(True) == 3 * STRETCH - 1
    assert end.has_settled
    slow = End()
    assert not slow({"loss": 1.0})
    monkeypatch.setattr(training, "SLOW_S", 0.0)
    busy_until = time.process_time() + 0.01
    while time.process_time() < busy_until:
        pass
    assert slow({"loss": 1.0}) and not slow.has_settled


def test_judging_is_unpaced_only_within() -> None:
    paced = debugger_live.SHARE
    with judged_by_steps():
        assert 1 / debugger_live.SHARE == 0
    assert paced == debugger_live.SHARE


def program(*, breaks_at: int = 0) -> tuple[nn.Module, Trainer]:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    model, calls = nn.Linear(4, 1), [0]

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        loss = nn.functional.mse_loss(output, target)
        return loss * math.nan if calls[0] == breaks_at else loss

    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 16, shuffle=True)
    return model, Trainer(torch.optim.SGD(model.parameters(), 0.1), loss_fn, loader)


@pytest.mark.parametrize(("to_the_end", "steps"), [(False, 400), (True, 3 * STRETCH)])
def test_a_run_ends_where_its_loss_has_settled(to_the_end: bool, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SLOW_S", math.inf)
    debugger = Debugger(*program(), journal=None)
    end = End() if to_the_end else None
    assert train(debugger, 400, end) == "" and (end is None or end.has_settled)
    assert (debugger.status.step, debugger.status.goal_step) == (steps, 400)
    assert first_broken(debugger) == 0
    debugger.close()


def test_the_first_step_that_is_not_finite() -> None:
    debugger = Debugger(*program(breaks_at=12), journal=None, checks=False)
    assert train(debugger, 40) == ""
    assert first_broken(debugger) == 12
    debugger.close()
