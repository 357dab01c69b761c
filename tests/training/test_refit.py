"""Other optimizers, schedules, activations, frozen layers while training: as in a plain loop, and gone back over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.schedules import Schedule
from nbdebug.training import schedules, surgery
from nbdebug.training.optimizers import converted
from nbdebug.training.surgery import Activation

Change = Callable[[Debugger], Any]
STEPS = 20


class Plain:
    """The plain loop, to be changed by hand between two steps."""

    def __init__(self) -> None:
        self.model = network()
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), 0.05, momentum=0.9)
        self.scheduler: Any = None
        self.data = data()
        self.step = 0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            x, y = self.data[self.step % len(self.data)]
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
            self.step += 1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)
    )


def data() -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator)) for _ in range(10)]


def debugger(**options: Any) -> Debugger:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    return Debugger(model, Trainer(optimizer, F.cross_entropy, data(), **options), journal=None)


def values(model: Any) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def plain_swap(plain: Plain) -> None:
    plain.optimizer = converted(plain.optimizer, "AdamW", 1e-3, weight_decay=0.1).optimizer


def plain_schedule(plain: Plain) -> None:
    schedule = Schedule.of("cosine", total=12, interval="batch", warmup_steps=3)
    plain.scheduler = schedules.build(schedule, plain.optimizer)


def plain_leaky(plain: Plain) -> None:
    plain.model[1], plain.model[5] = nn.LeakyReLU(), nn.LeakyReLU()


def plain_prelu(plain: Plain) -> None:
    plan = surgery.plan_swap(plain.model, Activation.PRELU)
    surgery.apply(plan)
    plain.optimizer.param_groups[-1]["params"].extend(plan.parameters_added.values())


def plain_freeze(plain: Plain) -> None:
    for parameter in plain.model[0].parameters():
        parameter.requires_grad_(False)
        parameter.grad = None


CHANGES: dict[str, tuple[Change, Callable[[Plain], None]]] = {
    "optimizer": (lambda d: d.swap_optimizer("AdamW", lr=1e-3, weight_decay=0.1), plain_swap),
    "schedule": (lambda d: d.set_schedule("cosine", total=12, interval="batch", warmup_steps=3), plain_schedule),
    "activation": (lambda d: d.swap_activation("leaky_relu"), plain_leaky),
    "activation with parameters": (lambda d: d.swap_activation("prelu"), plain_prelu),
    "freeze": (lambda d: d.freeze("0"), plain_freeze),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_acts_from_the_next_step_on_as_in_a_plain_loop(name: str) -> None:
    change, by_hand = CHANGES[name]
    case = debugger()
    case.run(steps=7)
    assert change(case).ok
    case.run(steps=STEPS - 7)
    plain = Plain()
    plain.run(7)
    by_hand(plain)
    plain.run(STEPS - 7)
    assert same(values(case._model), values(plain.model))
    assert not case.findings, "it is no edit by hand"
    case.close()


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("on_disk", [False, True])
def test_it_is_gone_back_over_both_ways(name: str, on_disk: bool, tmp_path: Any) -> None:
    change, _ = CHANGES[name]
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    trainer = Trainer(optimizer, F.cross_entropy, data())
    memory = {"snapshot_bytes": 0, "snapshot_folder": tmp_path} if on_disk else {}
    case = Debugger(model, trainer, journal=None, **memory)
    case.run(steps=4)
    early = values(model)
    case.run(steps=3)
    change(case)
    case.run(steps=STEPS - 7)
    late, names = values(model), list(model.state_dict())
    case.rewind(4)
    assert same(values(model), early)
    assert trainer.optimizer is optimizer and trainer.scheduler is None
    case.run(steps=6)
    case.checkout("main")
    assert list(model.state_dict()) == names and same(values(model), late)
    case.rewind(12)
    case.run(steps=STEPS - 12)
    assert same(values(model), late)
    case.close()


def test_several_after_each_other_and_a_branch_without_them() -> None:
    case = debugger()
    case.run(steps=3)
    case.swap_activation("gelu", ["1"])
    case.run(steps=2)
    case.swap_optimizer("Adam")
    case.set(betas=(0.8, 0.99))
    case.run(steps=2)
    case.set_schedule("exponential", interval="batch", gamma=0.9)
    case.run(steps=2)
    case.set_schedule(None)
    case.freeze(["0", "3"])
    case.run(steps=3)
    there = values(case._model)
    branch = case.rerun(start=4, steps=5)
    assert type(case._session.trainer.optimizer).__name__ == "SGD"
    assert type(case._model[1]).__name__ == "GELU"  # type: ignore[index]
    case.checkout("main")
    assert same(values(case._model), there) and branch.parent == "main"
    case.rewind(1)
    assert type(case._model[1]).__name__ == "ReLU"  # type: ignore[index]
    case.rewind(0)
    case.checkout("main")
    assert same(values(case._model), there)
    case.close()


def test_the_learning_rate_goes_on_under_a_schedule_and_clipping_with_another_optimizer() -> None:
    case = debugger()
    case.set(clip_norm=0.01)
    case.run(steps=2)
    case.swap_optimizer("SGD", lr=0.1, momentum=0.0)
    before = values(case._model)
    case.step()
    moved = values(case._model)[0] - before[0]
    assert 0 < float(moved.norm()) <= 0.1 * 0.01
    case.close()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.swap_optimizer("Adma"), ConfigurationError, "Adma"),
        (lambda d: d.swap_optimizer("Adam", lr=-1, betas=(2, 0.9)), ConfigurationError, "(?s)lr=-1.*beta1=2"),
        (lambda d: d.swap_optimizer("Adam", name="g"), ConfigurationError, "no optimizer 'g'"),
        (lambda d: d.set_schedule("cosine"), ConfigurationError, "needs total"),
        (lambda d: d.swap_activation("rellu"), ConfigurationError, "rellu"),
        (lambda d: d.swap_activation("gelu", ["9"]), ConfigurationError, "no layer '9'"),
        (lambda d: d.swap_activation("gelu", ["0"]), CommandError, "nothing was changed"),
        (lambda d: d.freeze("nine"), ConfigurationError, "no layer 'nine'"),
    ],
)
def test_what_can_not_be_done_is_refused_and_the_run_unharmed(change: Change, error: Any, message: str) -> None:
    case = debugger()
    case.run(steps=5)
    with pytest.raises(error, match=message):
        change(case)
    case.run(steps=5)
    plain = Plain()
    plain.run(10)
    assert same(values(case._model), values(plain.model)) and not case._journal.marks
    case.close()


@pytest.mark.parametrize(("lr", "expected"), [(None, (0.2, 2.0)), (0.03, (0.03, 1.0))])
def test_a_factor_on_a_schedule_goes_on_with_another_optimizer(lr: Any, expected: tuple[float, float]) -> None:
    case = debugger()
    case.run(steps=2)
    case.set_schedule("constant", warmup_steps=2, interval="batch")
    case.run(steps=3)
    case.set(lr=0.1)
    case.set_schedule("exponential", gamma=0.5, interval="batch")
    group = case._session.knobs.groups[0]
    assert (group.asked, group.factor) == (0.1, 1.0), "the rate that was asked for is the new schedule's highest"
    case.set(lr=0.2)
    case.swap_optimizer("SGD", lr=lr)
    group = case._session.knobs.groups[0]
    assert (group.in_force, group.factor) == expected
    case.close()


def test_an_average_of_the_weights_touches_nothing_is_evaluated_and_comes_back() -> None:
    case, other = debugger(val_loader=data()[:3]), debugger(val_loader=data()[:3])
    case.run(steps=3)
    case.average("ema", decay=0.9)
    case.run(steps=17)
    other.run(steps=20)
    assert same(values(case._model), values(other._model))
    history = case.history["loss of the average/val"]
    assert history.steps.tolist() == [10, 20] and history.values[-1] != case.history["loss/val"].values[-1]
    with case.averaged():
        averaged = values(case._model)
    assert not same(averaged, values(case._model))
    average = torch.optim.swa_utils.AveragedModel(
        (plain := Plain()).model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=False
    )
    plain.run(3)
    for _ in range(17):
        plain.run(1)
        average.update_parameters(plain.model)
    with case.averaged():
        for mine, theirs in zip(case._model.parameters(), average.module.parameters(), strict=True):  # type: ignore[union-attr]
            assert torch.equal(mine, theirs)
    case.rewind(11)
    case.run(steps=9)
    with case.averaged():
        assert same(values(case._model), averaged)
    case.rewind(2)
    with pytest.raises(CommandError, match="no average"), case.averaged():
        pass
    case.checkout("main")
    assert case.average(None).ok
    with pytest.raises(ConfigurationError, match=r"(?s)kind='mean'.*decay=2"):
        case.average("mean", decay=2)
    case.close()
    other.close()
