"""Short, broken and half-blind runs: no check raises, none cries wolf, and what is not judged says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer, debugger_live
from nbdebug.checks.live.registry import live_checks
from nbdebug.records.checks import CheckOutcome, CheckResult
from nbdebug.records.findings import Cause, Severity
from nbdebug.training import session


@pytest.fixture(autouse=True)
def judged_by_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugger_live, "SHARE", 1e9)
    monkeypatch.setattr(session, "MOST_STEPS", 1)


def batches(count: int = 20) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 32, 8, generator=generator)
    return [(each, (each[:, 0] + 0.3 * each[:, 1] > 0).long()) for each in x]


def mlp(*more: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), *more, nn.Linear(32, 2))


def debugged(model: nn.Module, *, lr: float = 0.05, step: Any = None, **options: Any) -> Debugger:
    loss_fn = None if step is not None else F.cross_entropy
    trainer = Trainer(torch.optim.SGD(model.parameters(), lr), loss_fn, batches(), step=step)
    return Debugger(model, trainer, journal=None, **{"budget": None, **options})


def results(debugger: Debugger) -> tuple[CheckResult, ...]:
    """What the latest judgement came to; the debugger is closed."""
    found = debugger._session.stepper.examiner.results(debugger._session.timeline.current)
    loud = [each.title for each in debugger.findings if each.severity is not Severity.INFO and each.check]
    broken = [each.detail for each in debugger.findings if each.cause is Cause.CHECK_DISABLED]
    debugger.close()
    assert not broken, broken[0]
    assert not loud
    assert len(found) == len(live_checks())
    for each in found:
        assert each.outcome is not CheckOutcome.SKIPPED or each.why, f"{each.name} is skipped and does not say why"
    return found


def skipped(found: tuple[CheckResult, ...]) -> dict[str, str]:
    return {each.name: each.why for each in found if each.outcome is CheckOutcome.SKIPPED}


@pytest.mark.parametrize("steps", [5, 10, 20])
def test_runs_of_a_few_steps(steps: int) -> None:
    debugger = debugged(mlp())
    debugger.run(steps=steps)
    reasons = skipped(results(debugger))
    early = {check.name for check in live_checks() if check.steps > steps}
    assert {name for name, why in reasons.items() if why.startswith("judged from")} == early


class Blind(nn.Module):
    """Nothing within it can be seen: it goes round its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.relu(F.linear(x, self.first.weight)), self.last.weight)


def plain(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


RUNS: dict[str, Callable[[], Debugger]] = {
    "a layer that can't be seen": lambda: debugged(Blind()),
    "a scripted part": lambda: debugged(mlp(torch.jit.script(nn.Linear(32, 32)))),
    "nothing measured but the loss": lambda: debugged(mlp(), probes=["time"]),
    "layers hardly ever looked at": lambda: debugged(mlp(), budget=1e-9),
    "a loss within the step": lambda: debugged(mlp(), step=plain),
    "a frozen layer": lambda: debugged(mlp(nn.Linear(32, 32).requires_grad_(False))),
    "dropout and norms": lambda: debugged(mlp(nn.BatchNorm1d(32), nn.Dropout(0.5))),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("what", RUNS)
def test_runs_of_which_little_is_seen(what: str) -> None:
    debugger = RUNS[what]()
    debugger.run(steps=120)
    results(debugger)


def test_without_samples_of_layers_checks_of_layers_say_so() -> None:
    debugger = debugged(mlp(), probes=["time"])
    debugger.run(steps=60)
    reasons = skipped(results(debugger))
    for name in ("dead_relu", "saturated_activations", "vanishing_gradient", "parameters_not_updating"):
        assert "measured at fewer than" in reasons[name]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_and_activations_that_are_not_finite(value: float) -> None:
    """The update goes on, by hand: the finite check is told that it is to be so."""

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.count = mlp(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return self.net(x) * (value if self.count > 20 else 1.0)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        with torch.no_grad():
            told = F.cross_entropy(model(batch[0]), batch[1])
        F.cross_entropy(model.net(batch[0]), batch[1]).backward()
        optimizer.step()
        return told

    debugger = debugged(Broken(), step=step)
    for _ in range(100):
        debugger.run(steps=1)
    found = debugger._session.stepper.examiner.results("main")
    broken = [each.detail for each in debugger.findings if each.cause is Cause.CHECK_DISABLED]
    loud = [each for result in found for each in result.findings if each.severity is not Severity.INFO]
    assert not broken, broken[0]
    assert not loud
    debugger.close()


@pytest.mark.parametrize("start", [0, 7, 60])
def test_runs_that_start_at_a_rewind(start: int) -> None:
    debugger = debugged(mlp())
    debugger.run(steps=80)
    debugger.rewind(start)
    debugger.run(steps=100)
    results(debugger)


@pytest.mark.parametrize("changes", [{"lr": 0.01}, {"clip_norm": 1.0}, {"lr": 0.0}])
def test_what_came_before_a_change_is_not_held_against_what_comes(changes: dict[str, Any]) -> None:
    debugger = debugged(mlp())
    debugger.run(steps=80)
    debugger.set(**changes)
    debugger.run(steps=60)
    results(debugger)
