"""Custom backward passes of a model in training: the wrong ones are named, with the line; others are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.checks import CheckOutcome, Report
from tests.tools.test_gradient_check import ON_PURPOSE, RIGHT, WRONG, X, made

ALONE = {name: case for name, case in {**RIGHT, **WRONG, **ON_PURPOSE}.items() if case[2] == [X]}


class Custom(nn.Module):
    """A function of one's own between two layers; one that gives a row's mean gets its column back."""

    def __init__(self, function: Any, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 5)
        self.last = nn.Linear(outputs, 3)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.function(self.first(x))
        return self.last(made if made.dim() == 2 else made[:, None])


def preflight(name: str) -> Report:
    forward, backward, _ = ALONE[name]
    function = made("Own", forward, backward)
    model = Custom(function, 1 if name == "mean" else 5)
    generator = torch.Generator().manual_seed(2)
    batches = [
        (torch.randn(16, 8, generator=generator), torch.randint(0, 3, (16,), generator=generator)) for _ in range(4)
    ]
    case = Debugger(model, Trainer(torch.optim.Adam(model.parameters()), F.cross_entropy, batches), journal=None)
    report = case.preflight(skip=("overfit_one_batch", "input_label_mismatch"))
    case.close()
    return report


@pytest.mark.parametrize("name", [name for name in ALONE if name in WRONG])
def test_a_wrong_one_is_the_first_cause(name: str) -> None:
    report = preflight(name)
    first = report.findings[0]
    assert first.cause == "wrong_gradient" and "Own" in first.title
    assert first.line is not None and "ctx" in first.line.code


@pytest.mark.parametrize("name", [name for name in ALONE if name not in WRONG])
def test_a_right_or_wished_one_is_not(name: str) -> None:
    report = preflight(name)
    assert "wrong_gradient" not in report.causes
    result = next(each for each in report.results if each.name == "wrong_gradient")
    assert result.outcome is CheckOutcome.PASSED


def test_without_custom_functions_there_is_nothing_to_check() -> None:
    model = nn.Linear(8, 3)
    batches = [(torch.randn(16, 8), torch.randint(0, 3, (16,))) for _ in range(2)]
    case = Debugger(model, Trainer(torch.optim.Adam(model.parameters()), F.cross_entropy, batches), journal=None)
    result = next(each for each in case.preflight().results if each.name == "wrong_gradient")
    assert result.outcome is CheckOutcome.SKIPPED and "nothing has a backward of its own" in result.why
    case.close()
