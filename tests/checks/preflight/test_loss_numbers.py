"""What is added to the loss as a number counts for nothing; what is read, weighs or shifts the loss is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.checks.preflight.numbers_added import numbers_added
from tests.checks.preflight.looking import judged, look_at, told_apart
from tests.checks.preflight.losses import DATA, mlp, trained

Program = tuple[Any, Any]
Step = Callable[[nn.Module, torch.Tensor, torch.Tensor], Any]


def training(name: str, loss_of: Step) -> Callable[[], Program]:
    """A program whose own step minimises what a function makes of model, inputs and targets."""

    def made() -> Program:
        def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(model, *batch)
            loss.backward()
            optimizer.step()
            return loss

        return trained(mlp(4), None, DATA.kind, step=step)

    made.__name__ = name.replace(" ", "_")
    return made


def error(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output, y)


def with_output(part: Callable[[torch.Tensor, torch.Tensor], Any]) -> Step:
    """The usual loss, and a part made of it and the output."""

    def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        output = model(x)
        return part(error(output, y), output)

    return loss_of


def weights_as_numbers(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
    loss = error(model(x), y)
    return loss + 1e-2 * sum(each.norm().item() for each in model.parameters())


def hidden_sparsity(model: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
    hidden = model[1](model[0](x))
    loss = error(model[2](hidden), y)
    loss += 0.1 * float(hidden.abs().mean().detach())
    return loss


def by_hand(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
    logs = model(x).log_softmax(1)
    entropy = -(logs.exp() * logs).sum(1).mean().item()
    return -logs.gather(1, y[:, None]).mean() - 0.2 * entropy


def running() -> Step:
    """A coefficient from the mean of losses so far."""
    mean = [1.0]

    def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        output = model(x)
        part = output.square().mean()
        mean[0] = 0.9 * mean[0] + 0.1 * part.item()
        return error(output, y) + part / mean[0]

    return loss_of


def counting() -> Step:
    """A term of its own that grows from step to step, beside numbers that are only read."""
    count, log = [0], []

    def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Any:
        output = model(x)
        count[0] += 1
        log.append(output.mean().item())
        return error(output, y) + 0.01 * count[0]

    return loss_of


FAULTS = {
    "loss_part_dropped": [
        training("a mean of the output", with_output(lambda loss, o: loss + 0.1 * o.mean().item())),
        training("squares by float", with_output(lambda loss, o: float(o.square().mean().detach()) + loss)),
        training("a number in a tensor", with_output(lambda loss, o: loss + torch.tensor(o.square().mean().item()))),
        training("as numpy has it", with_output(lambda loss, o: loss + 0.1 * o.detach().square().mean().item())),
        training("the whole loss scaled after it", with_output(lambda loss, o: (loss + o.norm().item()) / 2)),
        training("norms of all weights", weights_as_numbers),
        training("sparsity of what is hidden", hidden_sparsity),
        training("an entropy beside a loss by hand", by_hand),
    ]
}
HEALTHY = {
    "loss_part_dropped": [
        training("the penalty itself", with_output(lambda loss, o: loss + 0.1 * o.square().mean())),
        training("a number only read", with_output(lambda loss, o: loss + 0 * o.mean().item())),
        training("a constant", with_output(lambda loss, o: loss + 0.7)),
        training("flooding", with_output(lambda loss, o: (loss - 0.5).abs() + 0.5)),
        training("a scale from its own size", with_output(lambda loss, o: loss / loss.item() + 0.1 * o.norm())),
        training("a weight that is read", with_output(lambda loss, o: loss + o.square().mean() * o.std().item())),
        training("the loss shifted by itself", with_output(lambda loss, o: loss - loss.item())),
        training("a share of the loss's size", with_output(lambda loss, o: loss + 0.5 * loss.item())),
        training("a coefficient from a mean", running()),
        training("a term that counts steps", counting()),
    ]
}  # fmt: skip

test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


def test_the_line_and_the_value_are_told() -> None:
    torch.manual_seed(0)
    model, trainer = training("", hidden_sparsity)()
    x, _ = next(iter(trainer.train_loader))
    with torch.no_grad():
        value = 0.1 * float(model[1](model[0](x)).abs().mean())
    finding = judged("loss_part_dropped", model, trainer).findings[0]
    assert f"{value:.3g} is added to the loss" in finding.why
    assert finding.line is not None and "hidden.abs().mean()" in finding.line.code


@pytest.mark.parametrize(("steps", "found"), [(1, 0), (2, 1)])
def test_one_step_alone_can_not_tell(steps: int, found: int) -> None:
    look = look_at(*FAULTS["loss_part_dropped"][0]())
    assert len(numbers_added(look.traces[:steps])) == found
