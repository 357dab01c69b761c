"""Accumulation in the built-in step: one update for some batches, by the mean of their losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.errors import ConfigurationError
from tests.training.by_hand import BATCHES, data, lbfgs, made, network, plainly, same, sgd


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({2: 3, 6: 2}, 15),  # in the midst of a group: it is finished first
        ({0: 4, 5: 1}, 17),
        ({1: 1000, 4: 2}, 9),
        ({0: 5}, 3 * BATCHES + 1),  # over the ends of epochs
    ],
)
def test_another_number_of_batches_counts_from_the_next_group_on(changes: dict[int, int], steps: int) -> None:
    model, case = made()
    for place in range(steps):
        if place in changes:
            case.set(accumulate=changes[place])
        case.step()
    expected = plainly(sgd, {step: {"every": every} for step, every in changes.items()}, steps)
    assert same(model, expected)
    case.rewind(steps // 2)
    case.checkout("main")
    assert same(model, expected)
    case.close()


def test_gradients_gathered_so_far_belong_to_the_run() -> None:
    """Whoever uses the model at a pause, in the midst of a group, changes the run: that is told, and gone back over."""
    model, case = made()
    case.set(accumulate=4)
    case.run(steps=6)
    assert case._session.knobs.states().accumulated == 2
    kept = [p.grad.clone() for p in model.parameters()]
    case.rewind(4)
    case.checkout("main")
    assert all(torch.equal(p.grad, old) for p, old in zip(model.parameters(), kept, strict=True))
    F.cross_entropy(model.eval()(data()[0][0]), data()[0][1]).backward()
    model.train()
    case.run(steps=3)
    changed = [p.detach().clone() for p in model.parameters()]
    assert any(
        "edited by hand" in str(made.change) for made in case._session.timeline.course(case._session.timeline.here)
    )
    case.rewind(7)
    case.run(steps=2)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), changed, strict=True))
    case.close()


def test_parameters_outside_of_the_model_are_gathered_too() -> None:
    def setup() -> tuple[nn.Module, torch.Tensor, torch.optim.Optimizer, Any]:
        torch.manual_seed(0)
        model, scale = nn.Linear(8, 3), torch.ones(1, requires_grad=True)
        optimizer = torch.optim.SGD([*model.parameters(), scale], 0.1)
        return model, scale, optimizer, lambda output, target: F.cross_entropy(output * scale, target)

    model, scale, optimizer, loss_fn = setup()
    case = Debugger(model, Trainer(optimizer, loss_fn, data()), journal=None)
    case.set(accumulate=3)
    case.run(steps=5)
    case.snapshot("within")
    case.run(steps=4)
    expected = scale.detach().clone()
    case.rewind(1)
    case.checkout("within")
    case.run(steps=4)
    assert torch.equal(scale, expected)
    case.close()
    twin, other, second, loss_of = setup()
    for step, (x, y) in enumerate((data() + data())[:9]):
        (loss_of(twin(x), y) / 3).backward()
        if step % 3 == 2:
            second.step()
            second.zero_grad()
    assert torch.equal(other, expected)
    assert same(model, twin)


def test_a_schedule_goes_on_by_batches_and_the_loss_is_the_batchs_own() -> None:
    model = network()
    optimizer = sgd(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    torch.manual_seed(5)
    trainer = Trainer(optimizer, F.cross_entropy, data(), scheduler=schedule, scheduler_interval="batch")
    case = Debugger(model, trainer, journal=None)
    case.run(steps=1)
    case.set(accumulate=2)
    case.run(steps=6)
    twin = network()
    second = sgd(twin.parameters())
    plan = torch.optim.lr_scheduler.StepLR(second, 3, 0.5)
    torch.manual_seed(5)
    losses = []
    for step, (x, y) in enumerate(data()):
        if step in (0, 1, 3, 5):
            second.zero_grad()
        loss = F.cross_entropy(twin(x), y)
        (loss if step == 0 else loss / 2).backward()
        if step in (0, 2, 4, 6):
            second.step()
        plan.step()
        losses.append(loss.item())
    assert same(model, twin)
    assert case.history["loss/train"][1].tolist() == losses
    assert case.history["updates"][1].tolist() == [1, 0, 1, 0, 1, 0, 1]
    case.close()


def test_accumulation_is_refused_where_somebody_else_steps_the_optimizer() -> None:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    _, case = made(step=step)
    with pytest.raises(ConfigurationError, match=r"your own step=\.\.\. says when the optimizer steps"):
        case.set(accumulate=2)
    assert "your own step" in case._session.knobs.states().why_not_accumulate
    case.close()
    _, case = made(lbfgs)
    with pytest.raises(ConfigurationError, match="LBFGS evaluates a batch as often as it wants"):
        case.set(accumulate=2)
    case.close()


def test_a_loss_that_is_nan_in_the_midst_of_a_group_is_stopped_before_it_is_gathered() -> None:
    batches = data()
    batches[4] = (batches[4][0] * float("nan"), batches[4][1])
    model = nn.Linear(8, 3)
    twin = nn.Linear(8, 3)
    twin.load_state_dict(model.state_dict())
    case = Debugger(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, batches), journal=None)
    case.set(accumulate=3)
    case.run(steps=7)
    assert case._session.loop.step == 4
    assert "before the update" in case.status.message
    case.skip()
    case.run(steps=2)
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    for k, index in enumerate((0, 1, 2, 3, 5, 6)):
        x, y = batches[index]
        (F.cross_entropy(twin(x), y) / 3).backward()
        if k % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
    assert same(model, twin)
    case.close()
