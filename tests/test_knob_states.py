"""What the dashboard is told of parts in use: schedules in words, averages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.debugger_knobs import schedule_of
from nbdebug.records.schedules import Schedule
from nbdebug.records.status import AverageTaken

KINDS: dict[str, dict[str, Any]] = {
    "step": {"every": 3, "gamma": 0.5, "warmup_steps": 2},
    "cosine": {"total": 20, "floor": 0.1, "warmup_steps": 2, "interval": "batch"},
    "one_cycle": {"total": 30, "peak_at": 0.4},
    "cyclic": {"every": 8, "gamma": 0.9, "interval": "batch"},
    "exponential": {"gamma": 0.9},
    "plateau": {"gamma": 0.5, "patience": 3, "floor": 0.125, "warmup_steps": 2, "threshold": 1e-3, "cooldown": 1},
    "constant": {"warmup_steps": 4},
}


def made(scheduler: Any = None) -> Debugger:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    loader = [(torch.randn(6, 4), torch.randint(0, 2, (6,))) for _ in range(5)]
    trainer = Trainer(optimizer, F.cross_entropy, loader, loader, scheduler=scheduler and scheduler(optimizer))
    return Debugger(model, trainer, journal=None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_of_ours_is_told_in_full_and_gone_back_over(kind: str) -> None:
    case, wanted = made(), Schedule.of(kind, **KINDS[kind])
    case.run(steps=2)
    case.set_schedule(kind, **KINDS[kind])
    case.run(steps=4)
    trainer = case._session.trainer
    assert schedule_of(trainer.scheduler, trainer.scheduler_interval) == wanted
    states = case._view(100).knobs
    assert (states.schedule, states.schedule_text) == (kind.replace("_", " "), str(wanted))
    case.rewind(1)
    assert case._view(100).knobs.schedule_text == case._view(100).knobs.schedule == ""
    case.close()


def test_a_schedule_of_torchs_keeps_its_name() -> None:
    case = made(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3))
    states = case._view(100).knobs
    assert (states.schedule, states.schedule_text) == ("StepLR", "")
    case.close()
    case = made(lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch))
    assert (case._view(100).knobs.schedule, case._view(100).knobs.schedule_text) == ("LambdaLR", "")
    case.close()


def test_an_average_is_told_with_how_much_went_into_it() -> None:
    case = made()
    assert case._view(100).knobs.average is None
    case.run(steps=2)
    case.average("ema", decay=0.9)
    case.run(steps=3)
    assert case._view(100).knobs.average == AverageTaken("ema", 3, decay=0.9)
    case.average("swa", start=2, every=2)
    case.run(steps=5)
    assert case._view(100).knobs.average == AverageTaken("swa", 2, start=2, every=2)
    case.average(None)
    assert case._view(100).knobs.average is None
    case.close()
