"""What live rules know of a run besides its numbers, and what they make of a curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.checks.live.course import course
from nbdebug.debugger_live import facts_of
from tests.checks.live.test_odd_runs import batches, mlp
from tests.checks.live.windows import flat, window


def facts(model: nn.Module, optimizer: Any) -> Any:
    debugger = Debugger(model, Trainer(optimizer, F.cross_entropy, batches()), journal=None)
    found = facts_of(debugger._session, float("nan"))
    debugger.close()
    return found


@pytest.mark.parametrize("decays", [(0.0, 0.1), (0.1, 0.0), (0.01, 0.1, 0.0)])
def test_options_are_those_of_the_group_that_decays_most(decays: tuple[float, ...]) -> None:
    model = mlp(nn.Linear(32, 32))
    layers = [each for each in model if isinstance(each, nn.Linear)]
    groups = [
        {"params": layer.parameters(), "weight_decay": decay} for layer, decay in zip(layers, decays, strict=False)
    ]
    options = facts(model, torch.optim.AdamW(groups, lr=0.01)).options
    assert options["weight_decay"] == 0.1 and options["decoupled_weight_decay"] == 1.0


def test_without_decay_they_are_the_first_groups() -> None:
    model = mlp()
    groups = [{"params": [each], "momentum": 0.1 * place} for place, each in enumerate(model.parameters())]
    assert facts(model, torch.optim.SGD(groups, lr=0.01)).options["momentum"] == 0.0


def test_layers_that_sleep() -> None:
    kinds = [
        nn.Dropout(0.5), nn.Dropout(0.0), nn.BatchNorm1d(32), nn.BatchNorm1d(32, track_running_stats=False),
        nn.LayerNorm(32), nn.BatchNorm1d(32), nn.Dropout(0.5),
    ]  # fmt: skip
    model = mlp(*kinds).eval()
    kinds[5].requires_grad_(False)
    kinds[6].train()
    assert facts(model, torch.optim.SGD(model.parameters(), lr=0.01)).asleep == ("2", "4")
    recurrent = nn.ModuleList([nn.LSTM(4, 4, 2, dropout=0.1), nn.LSTM(4, 4), nn.MultiheadAttention(4, 2, dropout=0.1)])
    recurrent.eval()
    assert facts(recurrent, torch.optim.SGD(recurrent.parameters(), lr=0.01)).asleep == ("0", "2")


def test_what_surely_fell_goes_by_medians_less_two_standard_errors() -> None:
    losses = np.r_[99.0, np.full(19, 2.0), np.full(60, 1.5), np.full(20, 1.0)]
    assert course(window(losses)).surely_fallen() == 0.5
    noisy = flat(400, 2.0, 0.2)
    seen = course(window(noisy))
    error = seen.noise * np.sqrt(np.pi / 2 * (1 / 20 + 1 / 20))
    first, latest = np.median(noisy[:20]), np.median(noisy[-20:])
    assert seen.surely_fallen() == pytest.approx((first - latest - 2 * error) / first)


def test_what_surely_fell_allows_scatter_a_tenth_at_most() -> None:
    noisy = flat(400, 2.0, 1.0)
    noisy[:20], noisy[-20:] = 2.0, 1.0
    assert course(window(noisy)).surely_fallen() == pytest.approx(0.5 - 0.1)
    assert np.isnan(course(window(flat(100, -2.0))).surely_fallen())
