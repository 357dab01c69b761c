"""Options changed live: the next update is that of a plain loop with the same assignment, bit for bit."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.training.optimizer_options import option_cautions, option_mistakes, options_of, set_options

O = torch.optim  # noqa: E741
OPTIMIZERS: dict[str, Callable[[Any], O.Optimizer]] = {
    "SGD": lambda p: O.SGD(p, 0.05),
    "SGD momentum": lambda p: O.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3),
    "SGD fused": lambda p: O.SGD(p, 0.05, momentum=0.9, fused=True),
    "SGD maximize": lambda p: O.SGD(p, 1e-3, momentum=0.9, maximize=True),
    "Adam": lambda p: O.Adam(p, 1e-3),
    "Adam amsgrad": lambda p: O.Adam(p, 1e-3, amsgrad=True),
    "Adam fused": lambda p: O.Adam(p, 1e-3, fused=True),
    "Adam foreach": lambda p: O.Adam(p, 1e-3, foreach=True),
    "Adam tensors": lambda p: O.Adam(p, torch.tensor(1e-3), betas=(torch.tensor(0.9), torch.tensor(0.99))),
    "AdamW": lambda p: O.AdamW(p, 1e-3),
    "NAdam": lambda p: O.NAdam(p, 1e-3),
    "RAdam": lambda p: O.RAdam(p, 1e-3),
    "Adamax": lambda p: O.Adamax(p, 1e-3),
    "RMSprop": lambda p: O.RMSprop(p, 1e-3),
    "RMSprop momentum": lambda p: O.RMSprop(p, 1e-3, momentum=0.5, centered=True),
    "Adagrad": lambda p: O.Adagrad(p, 1e-2),
    "Adadelta": lambda p: O.Adadelta(p, 1.0),
    "ASGD": lambda p: O.ASGD(p, 1e-2),
    "Rprop": lambda p: O.Rprop(p, 1e-3),
    "LBFGS": lambda p: O.LBFGS(p, 0.1, max_iter=2),
}
KEYS = {"beta1": ("betas", 0), "beta2": ("betas", 1), "eta_minus": ("etas", 0), "eta_plus": ("etas", 1),
        "smallest_step": ("step_sizes", 0), "largest_step": ("step_sizes", 1)}  # fmt: skip


class Net(nn.Module):
    """Two layers, one of them complex, a frozen parameter, and one that gets its first gradient late."""

    def __init__(self, *, complex_too: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.spin = nn.Parameter(torch.randn(6, dtype=torch.complex64 if complex_too else torch.float32))
        self.last = nn.Linear(6, 1)
        self.late = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x: torch.Tensor, *, late: bool) -> torch.Tensor:
        h = self.last(torch.tanh((self.first(x) * self.spin).abs()))
        return h + self.late if late else h


def case(name: str, seed: int = 0, groups: int = 2) -> tuple[Net, O.Optimizer]:
    torch.manual_seed(seed)
    net = Net(complex_too="fused" not in name and name != "LBFGS")
    rest = [net.spin, net.late, net.frozen]
    params = [{"params": [*net.first.parameters(), *rest]}, {"params": list(net.last.parameters())}]
    if groups == 1 or name == "LBFGS":
        params = [{"params": list(net.parameters())}]
    return net, OPTIMIZERS[name](params)


def step(net: Net, optimizer: O.Optimizer, k: int) -> float:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(8, 4, generator=generator)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(net(x, late=k > 6 and not optimizer.defaults.get("fused")), x.sum(1, keepdim=True))
        loss.backward()
        return loss

    if isinstance(optimizer, O.LBFGS):
        return optimizer.step(closure).item()
    loss = closure()
    optimizer.step()
    return loss.item()


def assign(optimizer: O.Optimizer, group: dict[str, Any], name: str, value: Any) -> None:
    """What a person writes in a loop of their own, and has to do by hand where torch would fail."""
    if name == "centered" and value and not group["centered"]:
        for p in group["params"]:
            optimizer.state[p].pop("grad_avg", None)
    if name in KEYS:
        key, index = KEYS[name]
        pair = list(group[key])
        pair[index] = torch.tensor(value) if isinstance(pair[index], torch.Tensor) else value
        group[key] = tuple(pair)
    else:
        group[name] = torch.tensor(value) if isinstance(group[name], torch.Tensor) else value
    entry = {"momentum": "momentum_buffer", "centered": "grad_avg", "amsgrad": "max_exp_avg_sq"}.get(name)
    if entry and value and not isinstance(optimizer, O.SGD):
        for p in group["params"]:
            if optimizer.state[p] and entry not in optimizer.state[p]:
                optimizer.state[p][entry] = torch.zeros_like(p)


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(
        torch.equal(x, y) and torch.isfinite(torch.view_as_real(x) if x.is_complex() else x).all() for x, y in pairs
    )


def drawn(rng: random.Random, state: Any) -> Any:
    option = state.option
    if option.type == "switch":
        return rng.random() < 0.5
    if option.type == "count":
        return rng.randint(int(option.low), 5)
    bounds = {"eps": (1e-9, 1e-6), "lr": (1e-4, 1e-2), "eta_plus": (1.1, 1.5), "smallest_step": (1e-7, 1e-6),
              "alpha": (0.8, 0.99), "largest_step": (1.0, 50.0), "beta2_decay": (-0.9, -0.7)}  # fmt: skip
    low, high = bounds.get(option.name, (0.0, 0.95))
    return rng.uniform(low, high)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_random_changes_equal_a_plain_loop(name: str, seed: int) -> None:
    rng = random.Random(seed)
    (net, ours), (plain_net, theirs) = case(name, seed), case(name, seed)
    made = 0
    for k in range(30):
        if rng.random() < 0.6:
            group = rng.randrange(len(ours.param_groups))
            free = [s for s in options_of(ours, group) if not s.fixed]
            changes = {s.option.name: drawn(rng, s) for s in rng.sample(free, min(2, len(free)))}
            if not option_mistakes(ours, group, changes):
                made += 1
                set_options(ours, group, changes)
                for option, value in changes.items():
                    assign(theirs, theirs.param_groups[group], option, value)
        assert step(net, ours, k) == step(plain_net, theirs, k)
        assert equal(net, plain_net), f"step {k}"
    assert made > 3


def test_momentum_switched_on_starts_from_the_next_gradient() -> None:
    net, optimizer = case("SGD")
    step(net, optimizer, 0)
    set_options(optimizer, None, {"momentum": 0.9})
    step(net, optimizer, 1)
    for p in net.first.parameters():
        assert torch.equal(optimizer.state[p]["momentum_buffer"], p.grad)


@pytest.mark.parametrize("name, change, entry", [
    ("RMSprop", {"momentum": 0.9}, "momentum_buffer"),
    ("RMSprop", {"centered": True}, "grad_avg"),
    ("Adam", {"amsgrad": True}, "max_exp_avg_sq"),
    ("AdamW", {"amsgrad": True}, "max_exp_avg_sq"),
    ("Adam fused", {"amsgrad": True}, "max_exp_avg_sq"),
])  # fmt: skip
def test_a_buffer_that_torch_would_miss_is_made(name: str, change: dict[str, Any], entry: str) -> None:
    net, optimizer = case(name)
    step(net, optimizer, 0)
    plain_net, theirs = case(name)
    step(plain_net, theirs, 0)
    theirs.param_groups[0].update(change)
    with pytest.raises((KeyError, RuntimeError)):
        step(plain_net, theirs, 1)
    set_options(optimizer, 0, change)
    assert net.late not in optimizer.state, "a parameter without state gets none"
    for k in range(1, 10):
        step(net, optimizer, k)
    assert entry in optimizer.state.get(net.late, {}) or optimizer.defaults.get("fused")
    assert entry not in optimizer.state[net.last.weight], "the other group is left alone"


def test_amsgrad_switched_on_takes_the_present_average() -> None:
    net, optimizer = case("Adam")
    for k in range(5):
        step(net, optimizer, k)
    set_options(optimizer, None, {"amsgrad": True})
    step(net, optimizer, 5)
    state = optimizer.state[net.first.weight]
    assert torch.equal(state["max_exp_avg_sq"], state["exp_avg_sq"])


def test_tensors_are_filled_in_place_and_shared_ones_parted() -> None:
    _, optimizer = case("Adam tensors")
    first, second = optimizer.param_groups
    assert first["lr"] is second["lr"]
    held = second["lr"]
    set_options(optimizer, 0, {"lr": 0.5, "betas": (0.5, 0.6)})
    assert first["lr"].item() == 0.5
    assert second["lr"] is held
    assert held.item() == pytest.approx(1e-3)
    assert [b.item() for b in first["betas"]] == pytest.approx([0.5, 0.6])
    assert [b.item() for b in second["betas"]] == pytest.approx([0.9, 0.99])
    held = first["lr"]
    set_options(optimizer, 0, {"lr": np.float64(0.25)})
    assert first["lr"] is held, "what a captured graph reads"
    assert held.item() == 0.25


def test_what_there_is_and_why_some_is_fixed() -> None:
    def named(name: str) -> dict[str, Any]:
        return {s.option.name: s for s in options_of(case(name)[1])}

    sgd = named("SGD momentum")
    assert [name for name, s in sgd.items() if not s.fixed] == [
        "lr",
        "momentum",
        "dampening",
        "nesterov",
        "weight_decay",
    ]
    assert (sgd["momentum"].value, sgd["nesterov"].value, sgd["momentum"].option.high) == (0.9, False, 1.0)
    assert "how an update is computed" in sgd["fused"].fixed
    assert "turns training around" in sgd["maximize"].fixed
    adamw = named("AdamW")
    assert (adamw["beta1"].value, adamw["beta2"].value) == (0.9, 0.999)
    assert "what makes AdamW" in adamw["decoupled_weight_decay"].fixed
    assert not named("NAdam")["decoupled_weight_decay"].fixed
    assert "times the learning rate" in adamw["weight_decay"].option.text
    assert "only counts when" in named("Adagrad")["initial_accumulator_value"].fixed
    assert named("ASGD")["alpha"].option.high > 1 == named("RMSprop")["alpha"].option.high
    net, lbfgs = case("LBFGS")
    assert not {s.option.name: s for s in options_of(lbfgs)}["history_size"].fixed
    for k in range(3):
        step(net, lbfgs, k)
    assert "memory of LBFGS" in {s.option.name: s for s in options_of(lbfgs)}["history_size"].fixed


MISTAKES = [
    ("SGD", {"momentun": 0.9, "weight_decay": -1}, "SGD has no option 'momentun': did you mean 'momentum'?"),
    ("SGD", {"momentun": 0.9, "weight_decay": -1}, "weight_decay=-1 is out of range: it must be at least 0 and finite"),
    ("SGD", {"wd": 0.1}, "did you mean 'weight_decay'?"),
    ("SGD", {"nesterov": True}, "nesterov needs momentum above 0"),
    ("SGD momentum", {"nesterov": True, "dampening": 0.5}, "nesterov needs dampening 0"),
    ("SGD momentum", {"nesterov": 1}, "nesterov must be True or False, not 1"),
    ("SGD momentum", {"momentum": 1.0}, "momentum=1.0 is out of range: it must be at least 0 and below 1"),
    ("SGD momentum", {"fused": True}, "fused can't be changed in the middle of a run: it says how"),
    ("Adam", {"beta1": 1.0}, "beta1=1.0 is out of range"),
    ("Adam", {"betas": (0.5, 2.0)}, "beta2=2.0 is out of range"),
    ("Adam", {"betas": 0.5}, "Adam has no option 'betas': did you mean 'beta1'?"),
    ("Adam", {"eps": float("nan")}, "eps=nan is out of range"),
    ("Adam", {"eps": True}, "eps must be a number, not True"),
    ("Adam", {"momentum": 0.9}, "Adam has no option 'momentum'"),
    ("Adam", {}, "no option is named"),
    ("AdamW", {"decoupled_weight_decay": False}, "swap to Adam for decay through the gradient"),
    ("Rprop", {"smallest_step": 60.0}, "smallest_step=60.0 is above largest_step=50"),
    ("LBFGS", {"max_iter": 2.5}, "max_iter must be a whole number, not 2.5"),
]


@pytest.mark.parametrize(("name", "changes", "message"), MISTAKES)
def test_mistakes(name: str, changes: dict[str, Any], message: str) -> None:
    _, optimizer = case(name)
    assert re.search(re.escape(message), "\n".join(option_mistakes(optimizer, None, changes)))


def test_a_group_that_is_not_there() -> None:
    assert option_mistakes(case("SGD")[1], 2, {"momentum": 0.5}) == [
        "no parameter group 2: there are 2, counted from 0"
    ]


def test_nesterov_together_with_what_it_needs() -> None:
    _, optimizer = case("SGD")
    assert not option_mistakes(optimizer, None, {"nesterov": True, "momentum": 0.9})


def test_decay_of_sparse_gradients_is_refused() -> None:
    net = nn.Embedding(5, 2, sparse=True)
    optimizer = O.SGD(net.parameters(), 0.1, momentum=0.5)
    net(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    for clear in (False, True):
        if clear:
            optimizer.zero_grad()
        assert "sparse gradients" in option_mistakes(optimizer, 0, {"weight_decay": 0.1})[0]
        assert not option_mistakes(optimizer, 0, {"weight_decay": 0.0, "momentum": 0.9})


def test_cautions() -> None:
    net, adam = case("Adam")
    assert not option_cautions(adam, None, {"beta1": 0.99})
    for k in range(5):
        step(net, adam, k)
    growth = (1 - 0.9**6) / (1 - 0.99**6)
    assert f"about {growth:.2g} times as large" in option_cautions(adam, None, {"beta1": 0.99})[0]
    assert not option_cautions(adam, None, {"beta1": 0.89})
    assert "divides 0 by 0" in option_cautions(adam, None, {"eps": 0.0})[0]
    _, adamw = case("AdamW")
    assert "sign around" in option_cautions(adamw, None, {"weight_decay": 1000.0})[0]
