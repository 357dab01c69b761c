"""Learning one batch by heart: which samples are taken, and what then counts as a fault."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam

from nbdebug import Debugger, Trainer
from nbdebug.checks.preflight.registry import checks
from nbdebug.records.checks import CheckOutcome, CheckResult

OTHERS = [check.name for check in checks() if check.name != "overfit_one_batch"]


class Deaf(nn.Module):
    """Whose inputs come to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.net(0 * x)
        return made


def seeing() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))


def checked(model: nn.Module, positives: list[int], size: int = 32) -> CheckResult:
    torch.manual_seed(0)
    x, y = torch.randn(size, 6), torch.zeros(size, 1)
    y[positives] = 1
    case = Debugger(model, Trainer(Adam(model.parameters(), 1e-2), nn.BCEWithLogitsLoss(), [(x, y)] * 3), journal=None)
    try:
        report = case.preflight(skip=OTHERS)
    finally:
        case.close()
    return next(each for each in report.results if each.name == "overfit_one_batch")


@pytest.mark.parametrize("positives", [[3], [20], [16, 31]])
def test_rare_ones_beyond_the_first_samples_are_taken_in(positives: list[int]) -> None:
    assert checked(seeing(), positives).outcome is CheckOutcome.PASSED
    assert checked(Deaf(), positives).outcome is CheckOutcome.FAILED


def test_a_batch_of_one_class_can_not_tell() -> None:
    result = checked(Deaf(), [])
    assert result.outcome is CheckOutcome.SKIPPED and "all targets are the same" in result.why


@pytest.mark.parametrize("drawn", [True, False])
def test_noise_that_is_to_be_predicted_is_nothing_to_learn_by_heart(drawn: bool) -> None:
    """Drawn anew in each step there is nothing to memorise; drawn once, as part of the data, there is."""
    torch.manual_seed(0)
    x, kept = torch.randn(32, 6), torch.randn(32, 6)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 6))

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        clean, noise = batch
        if drawn:
            noise = torch.randn_like(clean)
        loss = F.mse_loss(model(0.9 * clean + (0.1 * noise if drawn else 0)), noise - 0.1 * clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    case = Debugger(model, Trainer(Adam(model.parameters(), 1e-2), None, [(x, kept)] * 3, step=step), journal=None)
    report = case.preflight(skip=OTHERS)
    case.close()
    result = next(each for each in report.results if each.name == "overfit_one_batch")
    assert result.outcome is (CheckOutcome.SKIPPED if drawn else CheckOutcome.PASSED), result
    assert ("drawn at random in the step" in result.why) is drawn
