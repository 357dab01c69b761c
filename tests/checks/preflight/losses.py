"""Small programs around a loss, for the tests of what checks say of losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.checks.preflight.registry import checks
from nbdebug.records.checks import CheckOutcome, CheckResult
from tests.checks.preflight.looking import judged, warned

SAMPLES, BATCH, WIDTH = 96, 24, 6
Loss = Callable[[Any, Any], torch.Tensor]


class Targets:
    """Inputs, and targets of several kinds that depend on them."""

    def __init__(self) -> None:
        made = torch.Generator().manual_seed(3)
        self.x = torch.randn(SAMPLES, WIDTH, generator=made)
        self.number = 2 * self.x[:, :1] + self.x[:, 1:2]
        self.yes = (self.x[:, :1] > 0).float()
        self.kind = self.x[:, :4].argmax(1)
        self.labels = (self.x[:, :4] > 0).float()
        self.series = torch.randn(SAMPLES, 10, WIDTH, generator=made)
        self.tags = self.series[..., :5].argmax(2)


DATA = Targets()


def mlp(out: int, *last: nn.Module) -> nn.Sequential:
    """A small network, with what comes after its last layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, out), *last)


def trained(
    model: nn.Module, loss: Any, y: torch.Tensor, x: torch.Tensor = DATA.x, **options: Any
) -> tuple[Any, Trainer]:
    """The model and its trainer; ``optimizer`` makes the optimizer of the parameters."""
    optimizer = options.pop("optimizer", lambda parameters: torch.optim.Adam(parameters, 1e-3))(model.parameters())
    batches = [(x[start : start + BATCH], y[start : start + BATCH]) for start in range(0, len(x), BATCH)]
    return model, Trainer(optimizer, loss, options.pop("batches", batches), **options)


def said(rule: str, made: tuple[Any, Trainer]) -> list[str]:
    """The causes that a rule warns of, on the first steps."""
    return warned(judged(rule, *made))


def battery(rule: str, made: tuple[Any, Trainer]) -> CheckResult:
    """What a rule comes to before training."""
    debugger = Debugger(*made, journal=None)
    try:
        report = debugger.preflight(skip=[check.name for check in checks() if check.name != rule])
    finally:
        debugger.close()
    result = next(each for each in report.results if each.name == rule)
    assert result.outcome is not CheckOutcome.BROKE, result.findings[0].detail
    return result


def picked(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The right class's entry of each row."""
    return output.gather(1, target[:, None])[:, 0]


def binary(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy as it is written by hand."""
    return -(y * (p + 1e-7).log() + (1 - y) * (1 - p + 1e-7).log()).mean()


def focal(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal loss as it is found in many repositories: a log-likelihood of weighted log-probabilities."""
    logs = output.log_softmax(1)
    return F.nll_loss((1 - logs.exp()) ** 2 * logs, target)


class PerStep(nn.Module):
    """Scores for each place of a series; ``last`` comes after them."""

    def __init__(self, out: int = 5, last: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.body = nn.GRU(WIDTH, 12, batch_first=True)
        self.head = nn.Linear(12, out)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.head(self.body(x)[0]))
