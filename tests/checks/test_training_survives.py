"""Whatever goes wrong in looking for faults, training goes on as without, and it is said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.findings import Cause
from nbdebug.records.status import State

STEPS = 30


class Uncopied:
    """Holds a tensor, and can't be copied."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __copy__(self) -> Any:
        raise RuntimeError("there is only one of these")

    def to(self, device: Any) -> Any:
        return self


class UncopiedDict(dict[str, Any]):
    def __copy__(self) -> Any:
        raise RuntimeError("there is only one of these")


class Shy(nn.Dropout):
    """A layer that answers to some of its names with an error."""

    @property
    def out_features(self) -> int:
        raise RuntimeError("ask me later")


def batches() -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 16, 8, generator=generator)
    return [(each, (each[:, 0] > 0).long()) for each in x]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), Shy(0.1), nn.Linear(16, 2))


def plain(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    x, y = batch
    optimizer.zero_grad()
    output = model(x)
    loss = F.cross_entropy(output, y)
    loss.backward()
    optimizer.step()
    return {"loss": loss, "output": output, "target": y}


def with_an_output_that_is_not_copied(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    made = plain(model, batch, loss_fn, optimizer)
    return {**made, "output": UncopiedDict(made)}


def trained(*, checks: bool, step: Any = plain, spoil: Callable[[Debugger], None] = lambda case: None) -> Debugger:
    model = network()
    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.1), None, batches(), step=step)
    case = Debugger(model, trainer, journal=None, checks=checks)
    spoil(case)
    torch.manual_seed(2)
    case.run(steps=STEPS)
    return case


def raising(*args: Any, **options: Any) -> Any:
    raise LookupError("spoilt")


SPOILT = {
    "a batch that can't be kept": "nbdebug.checks.preflight.onlooker.copied",
    "a step that can't be traced": "nbdebug.checks.preflight.onlooker.traced",
    "a model that can't be looked through": "nbdebug.checks.preflight.onlooker.can_trace_calls",
    "a result that can't be kept": "nbdebug.checks.preflight.onlooker.keep_result",
    "checks that can't be made": "nbdebug.checks.preflight.onlooker.judge_all",
    "a window that can't be put together": "nbdebug.debugger_live.window_of",
    "facts that can't be told": "nbdebug.debugger_live.facts_of",
}


@pytest.mark.parametrize("part", SPOILT)
def test_a_part_that_raises_is_left_out_and_told_once(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SPOILT[part], raising)
    case, other = trained(checks=True), trained(checks=False)
    assert case.state is State.IDLE and case.status.step == STEPS
    told = [each for each in case.findings if each.cause is Cause.CHECK_DISABLED]
    assert len(told) == 1 and "LookupError: spoilt" in told[0].detail
    for ours, theirs in zip(case._model.parameters(), other._model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    case.close()
    other.close()


def test_outputs_and_layers_of_any_kind_are_lived_with() -> None:
    case = trained(checks=True, step=with_an_output_that_is_not_copied)
    assert case.state is State.IDLE and case.status.step == STEPS
    case.close()
