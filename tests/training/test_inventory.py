"""A model that somebody edits between two runs: it is noticed, said, and measured as it is then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.records.findings import Cause, Severity
from nbdebug.records.signals import Signal
from nbdebug.training.trainer import Trainer
from tests.probes.watched import mlp, watched


def replace_head(model: nn.Sequential, optimizer: Any) -> None:
    model[4] = nn.Linear(96, 5)


def replace_head_and_tell(model: nn.Sequential, optimizer: Any) -> None:
    model[4] = nn.Linear(96, 5)
    optimizer.add_param_group({"params": model[4].parameters()})


def append(model: nn.Sequential, optimizer: Any) -> None:
    model.append(nn.Linear(5, 5))


def remove(model: nn.Sequential, optimizer: Any) -> None:
    del model[1]


def exchange_a_parameter(model: nn.Sequential, optimizer: Any) -> None:
    model[2].weight = nn.Parameter(torch.randn(96, 96))


EDITS: dict[str, tuple[Callable[..., None], str, str, Severity]] = {
    "a head": (replace_head, "4 was replaced by a Linear with weights (5, 96)", "4.weight, 4.bias", Severity.WARNING),
    "a head in a group": (replace_head_and_tell, "2 parameter groups", "", Severity.INFO),
    "a layer more": (append, "added: 5", "5.weight", Severity.WARNING),
    "a layer less": (remove, "removed: 4", "", Severity.INFO),
    "a parameter": (exchange_a_parameter, "new parameters: 2.weight", "2.weight", Severity.WARNING),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_noticed(name: str) -> None:
    edit, text, orphans, severity = EDITS[name]
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    batches = [(torch.randn(6, 12), torch.randint(0, 5, (6,))) for _ in range(4)]
    case = watched(model, Trainer(optimizer, F.cross_entropy, batches))
    case.run(2)
    case.run(2)
    assert not case.recorder.findings, "nothing was edited yet"
    edit(model, optimizer)
    case.run(3)
    [finding] = [each for each in case.recorder.findings if each.cause is Cause.MODEL_EDITED]
    assert text in finding.why and finding.severity is severity
    assert (orphans in finding.why) if orphans else ("In no optimizer" not in finding.why)
    case.run(1)
    assert len([each for each in case.recorder.findings if each.cause is Cause.MODEL_EDITED]) == 1, "said once"
    last = case.recorder.frames[-1].layers
    owners = [n for n, m in model.named_modules() if list(m.parameters(recurse=False))]
    assert last is not None and set(owners) <= set(last.layers)
    assert not case.broken
    case.session.close()


def test_a_new_layer_is_measured_from_then_on() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    batches = [(torch.randn(6, 12), torch.randint(0, 5, (6,))) for _ in range(4)]
    case = watched(model, Trainer(optimizer, F.cross_entropy, batches))
    case.run(2)
    replace_head_and_tell(model, optimizer)
    case.run(2)
    assert list(case.recorder.layer(Signal.UPDATE_NORM, "4")) == [1, 2, 3, 4]
    case.session.close()
