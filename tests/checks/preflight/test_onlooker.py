"""What the passive part takes for the first steps: no batch twice, and none of another epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from nbdebug import Debugger
from nbdebug.checks.preflight import onlooker
from nbdebug.records.findings import Severity
from nbdebug.training.trainer import Trainer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))


def debugger(loader: Any) -> Debugger:
    model = network()
    return Debugger(model, Trainer(SGD(model.parameters(), 0.01), F.mse_loss, loader), journal=None)


def causes(case: Debugger) -> list[str]:
    return [str(each.cause) for each in case.findings if each.severity is not Severity.INFO]


def test_steps_taken_again_from_before_bring_no_batch_twice() -> None:
    torch.manual_seed(1)
    x = torch.randn(640, 6)
    case = debugger(DataLoader(TensorDataset(x, x[:, :1] * x[:, 1:2]), 16))
    for _ in range(onlooker.MOST_BATCHES // 3 - 1):
        case.run(steps=3)
        case.rewind(0)
    case.run(steps=3)
    assert "repeated_batch" not in causes(case)
    case.close()


class Stream(IterableDataset):  # type: ignore[type-arg]
    """``length`` examples an epoch, of which ``different`` differ."""

    def __init__(self, length: int, different: int) -> None:
        self.x = torch.randn(different, 6)
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        for place in range(self.length):
            x = self.x[place % len(self.x)]
            yield x, x[:1] * x[1:2]


@pytest.mark.parametrize(
    ("length", "different", "is_fault"),
    [
        (192, 16, True),  # twelve batches in an epoch, all one
        (192, 40, True),  # each sample nearly five times
        (64, 64, False),  # each once, again in each epoch
        (16, 16, False),  # an epoch of one batch
    ],
)
@pytest.mark.parametrize("by_battery", [True, False])
def test_an_epoch_without_a_length_is_judged_by_its_end(
    length: int, different: int, is_fault: bool, by_battery: bool
) -> None:
    torch.manual_seed(1)
    case = debugger(DataLoader(Stream(length, different), 16))
    if by_battery:
        case.preflight(skip=["overfit_one_batch", "input_label_mismatch"])
    else:
        case.run(steps=30)
    assert ("repeated_batch" in causes(case)) is is_fault
    case.close()
