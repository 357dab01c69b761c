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
from nbdebug.checks.preflight.rules import overfit_one_batch
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


class Coder(nn.Module):
    """An autoencoder of values in [0, 1]; deaf, it hears nothing of them."""

    def __init__(self, deaf: bool) -> None:
        super().__init__()
        self.inner, self.outer, self.deaf = nn.Linear(24, 32), nn.Linear(32, 24), deaf

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(self.inner(0 * x if self.deaf else x).relu()).sigmoid()


def coded(model: Any, step: Any, batch: Any, steps: float = 120) -> CheckResult:
    case = Debugger(model, Trainer(Adam(model.parameters(), 3e-3), None, [batch] * 3, step=step), journal=None)
    case.set_check_parameters(overfit_steps=steps)
    report = case.preflight(skip=OTHERS, seconds=120)
    case.close()
    return next(each for each in report.results if each.name == "overfit_one_batch")


def to_itself(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    (x,) = batch
    loss = F.binary_cross_entropy(model(x), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize("deaf", [False, True])
def test_what_is_its_own_target_keeps_it_where_inputs_say_nothing(deaf: bool) -> None:
    """Blind, an autoencoder can only learn the mean; with the first sample as everyone's target it would learn that."""
    torch.manual_seed(0)
    result = coded(Coder(deaf), to_itself, (torch.rand(16, 24).pow(3),))
    assert result.outcome is (CheckOutcome.FAILED if deaf else CheckOutcome.PASSED), result


def test_the_least_that_soft_targets_allow_is_their_entropy() -> None:
    torch.manual_seed(0)
    x = torch.rand(16, 24)
    entropy = -(x * x.log() + (1 - x) * (1 - x).log()).mean()
    result = coded(Coder(False), to_itself, (x,), 40)
    assert f"no less than {float(entropy):.3g} is possible" in result.why


def test_the_gain_is_of_what_the_floor_leaves() -> None:
    assert overfit_one_batch._gain([0.7] + [0.62] * 19, [0.7] + [0.65] * 19, 0.6) == pytest.approx(0.03 / 0.05)
    assert overfit_one_batch._gain([0.7] + [0.62] * 19, [0.7] + [0.65] * 19) == pytest.approx(0.03 / 0.65)


def test_inputs_that_help_ever_more_are_told_from_those_that_stay_behind() -> None:
    steps = torch.linspace(0, 1, 120)
    blind = (0.7 - 0.1 * steps).tolist()
    growing = (0.7 - 0.1 * steps - 0.02 * steps**3).tolist()
    assert overfit_one_batch._is_learning(growing, blind)
    for still in (blind, (0.69 - 0.1 * steps).tolist(), (0.7 - 0.08 * steps).tolist()):
        assert not overfit_one_batch._is_learning(still, blind)
