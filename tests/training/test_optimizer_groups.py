"""Norm layers and biases in groups of their own: in place, with the state left alone, and undone exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from nbdebug.records.errors import CommandError
from nbdebug.training.optimizer_groups import decay_groups, split_decay, split_mistakes

O = torch.optim  # noqa: E741
S = O.lr_scheduler


class ScaleNorm(nn.Module):
    """A norm layer of somebody's own; its matrix is no part of the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(8))
        self.mix = nn.Parameter(torch.eye(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.g * (x @ self.mix) / (1 + x.norm(dim=-1, keepdim=True))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    wrapped = parametrizations.weight_norm(nn.Linear(8, 8))
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), ScaleNorm(), nn.Tanh(), nn.LayerNorm(8), wrapped, nn.Linear(8, 1)
    )


DECAYED = [
    "0.weight",
    "2.mix",
    "5.parametrizations.weight.original0",
    "5.parametrizations.weight.original1",
    "6.weight",
]
EXEMPT = ["0.bias", "1.weight", "1.bias", "2.g", "4.weight", "4.bias", "5.bias", "6.bias"]
OPTIMIZERS: dict[str, Callable[[Any, float], O.Optimizer]] = {
    "sgd": lambda p, d: O.SGD(p, 0.05, momentum=0.9, weight_decay=d),
    "adam": lambda p, d: O.Adam(p, 1e-2, weight_decay=d),
    "adamw fused": lambda p, d: O.AdamW(p, 1e-2, weight_decay=d, fused=True),
    "adamw tensor": lambda p, d: O.AdamW(p, torch.tensor(1e-2), weight_decay=d),
    "rmsprop": lambda p, d: O.RMSprop(p, 1e-3, weight_decay=d),
    "adagrad": lambda p, d: O.Adagrad(p, 1e-2, weight_decay=d),
}


def train(model: nn.Module, optimizer: O.Optimizer, steps: range, scheduler: Any = None) -> None:
    for k in steps:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(k))
        optimizer.zero_grad()
        F.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
        optimizer.step()
        if isinstance(scheduler, S.ReduceLROnPlateau):
            scheduler.step(1.0)
        elif scheduler is not None:
            scheduler.step()


def alike(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def by_hand(model: nn.Module, make: Callable[[Any, float], O.Optimizer], decay: float) -> O.Optimizer:
    named = dict(model.named_parameters())
    return make([{"params": [named[n] for n in DECAYED]},
                 {"params": [named[n] for n in EXEMPT], "weight_decay": 0.0}], decay)  # fmt: skip


def test_what_is_exempt() -> None:
    model = net()
    (plan,) = decay_groups(model, O.SGD(model.parameters(), 0.1))
    assert list(plan.decayed_names) == DECAYED
    assert list(plan.exempt_names) == EXEMPT
    attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    (plan,) = decay_groups(attention, O.SGD(attention.parameters(), 0.1))
    assert set(plan.decayed_names) == {"in_proj_weight", "out_proj.weight"} | {"bias_k", "bias_v"} - {
        "bias_k",
        "bias_v",
    }
    lstm = nn.LSTM(3, 4)
    (plan,) = decay_groups({"a": lstm}, O.SGD([*lstm.parameters(), stray := nn.Parameter(torch.ones(2))], 0.1))
    assert plan.exempt_names == ("a.bias_ih_l0", "a.bias_hh_l0")
    assert plan.decayed_names[-1] == "0.4"
    assert stray.requires_grad


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_split_at_the_start_is_the_one_made_by_hand(name: str) -> None:
    (model, other), make = (net(), net()), OPTIMIZERS[name]
    optimizer = make(model.parameters(), 0.1)
    split_decay(optimizer, decay_groups(model, optimizer))
    train(model, optimizer, range(15))
    train(other, by_hand(other, make, 0.1), range(15))
    assert alike(model, other)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]
    assert optimizer.param_groups[1]["name"] == "0, no decay"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_split_in_the_middle_and_undone(name: str) -> None:
    (model, other), make = (net(), net()), OPTIMIZERS[name]
    optimizer, plain = make(model.parameters(), 0.0), make(other.parameters(), 0.0)
    train(model, optimizer, range(5))
    train(other, plain, range(5))
    states = {id(p): optimizer.state[p] for p in model.parameters()}
    params = optimizer.param_groups[0]["params"]
    before, kept = list(params), repr(optimizer.state_dict())
    split = split_decay(optimizer, decay_groups(model, optimizer))
    assert all(optimizer.state[p] is states[id(p)] for p in model.parameters())
    train(model, optimizer, range(5, 10))
    train(other, plain, range(5, 10))
    assert alike(model, other), "without decay, a split changes nothing"
    split.undo()
    assert optimizer.param_groups[0]["params"] is params
    assert all(p is q for p, q in zip(params, before, strict=True))
    train(model, optimizer, range(10, 15))
    train(other, plain, range(10, 15))
    assert alike(model, other)
    assert repr(optimizer.state_dict()) == repr(plain.state_dict())
    fresh = make(net().parameters(), 0.0)
    train(twin := net(), fresh := make(twin.parameters(), 0.0), range(5))
    split_decay(fresh, decay_groups(twin, fresh)).undo()
    assert repr(fresh.state_dict()) == kept


def test_several_groups_keep_their_options_and_order() -> None:
    model = net()
    optimizer = O.SGD(
        [
            {"params": list(model[0].named_parameters()), "name": "body", "lr": 0.5, "weight_decay": 0.3},
            {"params": list(model[1].named_parameters()), "weight_decay": 0.2},
            {"params": [("w", model[6].weight)], "weight_decay": 0.1},
            {"params": list(model[4:6].named_parameters()), "weight_decay": 0.4, "note": 7},
        ],
        0.1,
    )
    before = copy.deepcopy(optimizer.state_dict())
    split = split_decay(optimizer, decay_groups(model, optimizer))
    groups = optimizer.param_groups
    assert [g.get("name") for g in groups] == ["body", None, None, None, "body, no decay", "3, no decay"]
    assert [g["weight_decay"] for g in groups] == [0.3, 0.0, 0.1, 0.4, 0.0, 0.0]
    assert [g["lr"] for g in groups] == [0.5, 0.1, 0.1, 0.1, 0.5, 0.1]
    assert groups[4]["param_names"] == ["bias"]
    assert groups[0]["param_names"] == ["weight"]
    assert groups[5]["note"] == 7
    split.undo()
    assert optimizer.state_dict() == before


@pytest.mark.parametrize("make", [
    lambda o: S.StepLR(o, 3),
    lambda o: S.LambdaLR(o, lambda k: 0.9**k),
    lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=5), S.ExponentialLR(o, 0.9)], [5]),
    lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.5, 4), S.ExponentialLR(o, 0.9)]),
    lambda o: S.OneCycleLR(o, 0.1, total_steps=40),
    lambda o: S.CyclicLR(o, 0.01, 0.1, 4),
    lambda o: S.ReduceLROnPlateau(o, patience=0),
])  # fmt: skip
def test_schedulers_go_on(make: Callable[[Any], Any]) -> None:
    model, other = net(), net()
    optimizer, plain = (O.SGD(m.parameters(), 0.05, momentum=0.9) for m in (model, other))
    ours, theirs = make(optimizer), make(plain)
    for steps, split in ((range(4), True), (range(4, 10), False), (range(10, 15), None)):
        train(model, optimizer, steps, ours)
        train(other, plain, steps, theirs)
        assert alike(model, other)
        assert {g["lr"] for g in optimizer.param_groups} == {plain.param_groups[0]["lr"]}
        if split:
            made = split_decay(optimizer, decay_groups(model, optimizer), [ours])
        elif split is False:
            made.undo()
    assert repr(ours.state_dict()) == repr(theirs.state_dict()) or isinstance(ours, S.LambdaLR | S.CyclicLR)


def test_mistakes() -> None:
    model = net()
    optimizer = O.SGD(model.parameters(), 0.1)
    plan = decay_groups(model, optimizer)
    assert not split_mistakes(optimizer, plan)
    split = split_decay(optimizer, plan)
    assert split_mistakes(optimizer, decay_groups(model, optimizer)) == ["SGD is split already"]
    assert "the plan is not of these" in split_mistakes(optimizer, plan)[0]
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(CommandError, match="can't undo the split"):
        split.undo()
    lbfgs = O.LBFGS(model.parameters())
    assert "one parameter group only" in split_mistakes(lbfgs, decay_groups(model, lbfgs))[0]
    rprop = O.Rprop(model.parameters())
    assert split_mistakes(rprop, decay_groups(model, rprop)) == ["Rprop has no weight_decay to leave out"]
    bare = O.SGD([model[0].weight], 0.1)
    assert "holds no bias" in split_mistakes(bare, decay_groups(model, bare))[0]
