"""The optimizers' options as knobs: a change acts from the next step on, as in a plain loop; undone, kept, refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer
from nbdebug.records.errors import CommandError, ConfigurationError

Make = Callable[[Any], torch.optim.Optimizer]

# fmt: off
CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "sgd momentum": (lambda p: torch.optim.SGD(p, 0.05), {"momentum": 0.8}),
    "sgd nesterov": (lambda p: torch.optim.SGD(p, 0.05, momentum=0.5), {"nesterov": True, "momentum": 0.9}),
    "sgd decay": (lambda p: torch.optim.SGD(p, 0.05, momentum=0.9), {"weight_decay": 0.1, "dampening": 0.2}),
    "adam betas": (lambda p: torch.optim.Adam(p, 1e-2), {"betas": (0.7, 0.99)}),
    "adam eps": (lambda p: torch.optim.Adam(p, 1e-2), {"eps": 1e-4, "weight_decay": 0.05}),
    "adamw decay": (lambda p: torch.optim.AdamW(p, 1e-2), {"weight_decay": 0.3, "beta1": 0.5}),
    "nadam": (lambda p: torch.optim.NAdam(p, 1e-2), {"beta2": 0.95}),
    "radam": (lambda p: torch.optim.RAdam(p, 1e-2), {"beta1": 0.8}),
    "adamax": (lambda p: torch.optim.Adamax(p, 1e-2), {"eps": 1e-3}),
    "rmsprop": (lambda p: torch.optim.RMSprop(p, 1e-3), {"alpha": 0.8, "weight_decay": 0.01}),
    "adagrad": (lambda p: torch.optim.Adagrad(p, 1e-2), {"eps": 1e-2}),
}
# fmt: on


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3))


def data() -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator)) for _ in range(12)]


def made(make: Make) -> tuple[nn.Module, torch.optim.Optimizer, Debugger]:
    model = network()
    optimizer = make(model.parameters())
    return model, optimizer, Debugger(model, Trainer(optimizer, F.cross_entropy, data()), journal=None)


def plainly(make: Make, changes: dict[int, dict[str, Any]], steps: int) -> nn.Module:
    """With the groups' options written by hand after so many steps."""
    model = network()
    optimizer = make(model.parameters())
    batches = data()
    for step in range(steps):
        for name, value in changes.get(step, {}).items():
            for group in optimizer.param_groups:
                if name in ("beta1", "beta2"):
                    index = int(name[-1]) - 1
                    group["betas"] = tuple(value if k == index else b for k, b in enumerate(group["betas"]))
                else:
                    group[name] = value
        x, y = batches[step % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_change_acts_from_the_next_step_on_at_a_pause_and_in_a_rerun(name: str) -> None:
    make, options = CASES[name]
    model, _, case = made(make)
    case.run(steps=5)
    case.set(**options)
    case.run(steps=9)
    expected = plainly(make, {5: options}, 14)
    assert same(model, expected)
    case.rewind(9)
    case.rewind(2)
    case.checkout("main")
    assert same(model, expected)
    case.rerun(steps=6, start=3, **options)
    assert same(model, plainly(make, {3: options}, 9))
    case.close()


def test_a_change_while_training_runs_is_on_record_with_its_step() -> None:
    make, options = CASES["adamw decay"]
    model, _, case = made(make)
    case.start(steps=400)
    case.set(**options)
    case.wait()
    [made_at] = [each.step for each in case._session.timeline.lines["main"].interventions]
    assert same(model, plainly(make, {made_at: options}, 400))
    assert "weight_decay 0.3" in case._journal.marks[-1].text
    case.close()


def test_groups_by_name_and_undo() -> None:
    model = network()
    groups = [{"params": model[0].parameters(), "name": "first"}, {"params": model[3].parameters(), "name": "head"}]
    optimizer = torch.optim.SGD(groups, 0.05, momentum=0.5)
    case = Debugger(model, Trainer(optimizer, F.cross_entropy, data()), journal=None)
    case.run(steps=2)
    case.set(momentum={"head": 0.9}, lr=0.1)
    case.set(weight_decay=0.2)
    assert [g["momentum"] for g in optimizer.param_groups] == [0.5, 0.9]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.2, 0.2]
    assert "weight_decay 0" in case.undo().text
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0, 0]
    case.undo()
    assert [(g["momentum"], g["lr"]) for g in optimizer.param_groups] == [(0.5, 0.05), (0.5, 0.05)]
    with pytest.raises(CommandError, match="nothing to undo"):
        case.undo()
    case.close()


def test_an_option_written_by_hand_is_a_change_of_a_knob() -> None:
    _, optimizer, case = made(CASES["adam betas"][0])
    case.run(steps=3)
    optimizer.param_groups[0]["weight_decay"] = 0.3
    case.run(steps=3)
    assert "weight_decay 0.3" in case._journal.marks[-1].text
    case.rewind(5)
    assert optimizer.param_groups[0]["weight_decay"] == 0.3
    case.rewind(2)
    assert optimizer.param_groups[0]["weight_decay"] == 0
    case.close()


def test_what_a_schedule_writes_is_no_knob() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)
    trainer = Trainer(optimizer, F.cross_entropy, data(), scheduler=schedule, scheduler_interval="batch")
    case = Debugger(model, trainer, journal=None)
    case.run(steps=3)
    with pytest.raises(ConfigurationError, match="written by the schedule"):
        case.set(momentum=0.5)
    case.run(steps=3)
    assert not case._journal.marks, "its moves are no changes by hand"
    case.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 0.9}, "Adam has no option 'momentum'"),
        ({"beta1": 1.0}, "beta1=1.0 is out of range"),
        ({"weight_decay": -1, "eps": "x"}, "weight_decay=-1.*\n.*eps must be a number"),
        ({"amsgrad": 1}, "must be True or False"),
        ({"weight_decay": {"head": 0.1}}, "no parameter group 'head'"),
        ({"weight_dekay": 0.1}, "unknown knob 'weight_dekay': did you mean 'weight_decay'"),
    ],
)
def test_what_can_not_be_set_is_refused_and_nothing_changed(options: dict[str, Any], message: str) -> None:
    _, optimizer, case = made(CASES["adam betas"][0])
    before = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        case.set(**options)
    assert {key: value for key, value in optimizer.param_groups[0].items() if key != "params"} == before
    case.close()
