"""Swapping optimizers: what is carried over is exactly what is said, and no first step leaps."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.records.optimizers import OptimizerKind
from nbdebug.training.optimizers import converted, kind_of
from tests.training.test_optimizer_options import Net, equal

O = torch.optim  # noqa: E741
K = OptimizerKind
MAKE: dict[OptimizerKind, Callable[[Any], O.Optimizer]] = {
    K.SGD: lambda p: O.SGD(p, 0.05, momentum=0.9),
    K.ADAM: lambda p: O.Adam(p, 5e-3),
    K.ADAMW: lambda p: O.AdamW(p, 5e-3),
    K.NADAM: lambda p: O.NAdam(p, 5e-3),
    K.RADAM: lambda p: O.RAdam(p, 5e-3),
    K.ADAMAX: lambda p: O.Adamax(p, 5e-3),
    K.RMSPROP: lambda p: O.RMSprop(p, 5e-3),
    K.ADAGRAD: lambda p: O.Adagrad(p, 5e-2),
}
BEFORE, AFTER = 15, 20


def with_maxima(parameters: Any) -> O.Optimizer:
    return O.Adam(parameters, 5e-3, amsgrad=True)


def step(net: Net, optimizer: O.Optimizer, k: int, scale: float = 1.0) -> float:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(32, 4, generator=generator)
    loss = F.mse_loss(net(x, late=False), x.sum(1, keepdim=True))
    optimizer.zero_grad()
    (loss * scale).backward()
    optimizer.step()
    return loss.item()


@functools.cache
def _trained(kind: OptimizerKind, steps: int, make: Callable[[Any], O.Optimizer] | None, scale: float, complex_too: bool
             ) -> tuple[Net, O.Optimizer]:  # fmt: skip
    torch.manual_seed(0)
    net = Net(complex_too=complex_too)
    optimizer = (make or MAKE[kind])(
        [
            {"params": [*net.first.parameters(), net.spin, net.late, net.frozen], "name": "body"},
            {"params": list(net.last.parameters()), "name": "head"},
        ]
    )
    for k in range(steps):
        step(net, optimizer, k, scale)
    return net, optimizer


def trained(kind: OptimizerKind, steps: int = BEFORE, make: Callable[[Any], O.Optimizer] | None = None,
            scale: float = 1.0, complex_too: bool = True) -> tuple[Net, O.Optimizer]:  # fmt: skip
    net, optimizer = _trained(kind, steps, make, scale, complex_too)
    twin, its = copy.deepcopy((net, optimizer))
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        q.grad = None if p.grad is None else p.grad.clone()
    return twin, its


@functools.cache
def untrained_loss(k: int) -> float:
    net, _ = trained(K.SGD, 0)
    return step(net, O.SGD(net.parameters(), 0.0), k)


def moved(net: nn.Module, before: list[torch.Tensor]) -> float:
    return (
        sum(float((p.detach() - q).abs().square().sum()) for p, q in zip(net.parameters(), before, strict=True)) ** 0.5
    )


EVERY_PAIR = list(itertools.product(K, K))
PAIRS = [(a, b) for a, b in EVERY_PAIR if a is not b]


@pytest.mark.parametrize("steps", [0, 1, BEFORE])
@pytest.mark.parametrize(("source", "target"), EVERY_PAIR)
def test_no_swap_blows_up(source: OptimizerKind, target: OptimizerKind, steps: int) -> None:
    stay, same = trained(source, steps)
    net, old = trained(source, steps)
    swap = converted(old, target)
    state = copy.deepcopy(old.state_dict())
    for k in range(steps, steps + AFTER):
        mine, own, none = step(net, swap.optimizer, k), step(stay, same, k), untrained_loss(k)
        assert mine < 1.1 * max(own, none)
        assert steps < BEFORE or mine < 4 * own + 0.05
    assert mine < none, "it learns"
    assert repr(old.state_dict()) == repr(state), "the old optimizer is left as it is"
    if source is target:
        assert equal(net, stay), "nothing changed, so training goes on as it would have"


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e-3])
@pytest.mark.parametrize(("source", "target"), EVERY_PAIR)
def test_the_first_updates_are_about_as_large_as_before(source: OptimizerKind, target: OptimizerKind, scale: float
                                                        ) -> None:  # fmt: skip
    """Whatever the scale of the loss. RAdam's own slow start is held against Adam's size, which it grows to."""
    if source is K.RADAM and scale > 1:
        pytest.skip("RAdam leaps by itself: its first updates are as large as the gradient")
    like = {K.RADAM: K.ADAM}.get(source, source)

    def rate(p: Any) -> O.Optimizer:
        made = MAKE[source](p)
        for group in made.param_groups:
            group["lr"] /= scale if source is K.SGD else 1.0
        return made

    net, old = trained(source, make=rate, scale=scale)
    stay, same = trained(like, make=rate if like is source else None, scale=scale)
    new = converted(old, target).optimizer
    for k in range(BEFORE, BEFORE + 3):
        before, before_stay = ([p.detach().clone() for p in n.parameters()] for n in (net, stay))
        step(net, new, k, scale)
        step(stay, same, k, scale)
        assert moved(net, before) < 5 * moved(stay, before_stay)


def part(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def root(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(part(tensor).sqrt()) if tensor.is_complex() else tensor.sqrt()


def squared(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(part(tensor).square()) if tensor.is_complex() else tensor.square()


T = BEFORE
ADAM_LIKE = (K.ADAM, K.ADAMW, K.NADAM, K.RADAM)
B1, B2 = 1 - 0.9**T, 1 - 0.999**T
Rule = Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor]


def documented(source: OptimizerKind, target: OptimizerKind) -> dict[str, Rule]:
    """The state that a swap after T updates has to give, from the old state and the parameter, written out by hand."""
    zeros: Rule = lambda s, p: torch.zeros_like(p)  # noqa: E731
    if target is K.ADAGRAD:
        return {"step": lambda s, p: torch.tensor(0.0), "sum": zeros}
    steps: Rule = lambda s, p: torch.tensor(float(T))  # noqa: E731
    one: Rule = lambda s, p: torch.tensor(1.0)  # noqa: E731
    if source is K.SGD:
        mean: Rule = lambda s, p: s["momentum_buffer"] * (1 - 0.9)  # noqa: E731
        return {
            K.RADAM: {"step": lambda s, p: torch.tensor(6.0), "exp_avg": lambda s, p: mean(s, p) * (1 - 0.9**6),
                      "exp_avg_sq": lambda s, p: squared(mean(s, p)) * (1 - 0.999**6)},
            **{k: {"step": one, "exp_avg": lambda s, p: mean(s, p) * 0.1,
                   "exp_avg_sq": lambda s, p: squared(mean(s, p)) * 0.001} for k in ADAM_LIKE if k is not K.RADAM},
            K.ADAMAX: {"step": one, "exp_avg": lambda s, p: mean(s, p) * 0.1,
                       "exp_inf": lambda s, p: root(squared(mean(s, p)))},
            K.RMSPROP: {"step": one, "momentum_buffer": zeros, "square_avg": lambda s, p: torch.maximum(
                part(squared(mean(s, p))), part(p.grad) ** 2).view(p.shape) if not p.is_complex() else
                torch.view_as_complex(torch.maximum(part(squared(mean(s, p))), part(p.grad) ** 2))},
        }[target]  # fmt: skip
    mean_avg: Rule = (lambda s, p: s["exp_avg"]) if source in (*ADAM_LIKE, K.ADAMAX) else zeros
    if target is K.SGD:
        return {"momentum_buffer": lambda s, p: s["exp_avg"] / B1 / (1 - 0.9)} if mean_avg is not zeros else {}
    square: Rule = {
        **dict.fromkeys(ADAM_LIKE, lambda s, p: s["exp_avg_sq"] / B2),
        K.ADAMAX: lambda s, p: squared(s["exp_inf"]),
        K.RMSPROP: lambda s, p: s["square_avg"] / (1 - 0.99**T),
        K.ADAGRAD: lambda s, p: s["sum"] / T,
    }[source]
    bias = (1 - 0.99**T) if source is K.RMSPROP else B2  # alpha stays on as beta2
    if target in ADAM_LIKE:
        return {"step": steps, "exp_avg": mean_avg, "exp_avg_sq": lambda s, p: square(s, p) * bias}
    if target is K.ADAMAX:
        return {"step": steps, "exp_avg": mean_avg, "exp_inf": lambda s, p: root(square(s, p))}
    return {"step": steps, "square_avg": square}


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_state_is_what_is_documented(source: OptimizerKind, target: OptimizerKind) -> None:
    net, old = trained(source)
    swap = converted(old, target)
    assert kind_of(swap.optimizer) is target
    rules = documented(source, target)
    for p in (*net.first.parameters(), net.spin, net.last.weight):
        state = swap.optimizer.state.get(p, {})
        assert state.keys() - {"mu_product"} == rules.keys()
        for name, rule in rules.items():
            assert torch.allclose(state[name], rule(old.state[p], p), rtol=1e-5, atol=1e-12), name
            assert state[name].dtype == rule(old.state[p], p).dtype
            assert all(state[name] is not kept for kept in old.state[p].values())
    if target is not K.ADAGRAD:
        assert not swap.optimizer.state.get(net.late)
        assert not swap.optimizer.state.get(net.frozen)
    assert set(swap.carried) <= set(rules) | {"mu_product"}
    for name in set(rules) - set(swap.carried) - {"step", "sum"}:
        assert any(f"{name} starts" in line for line in swap.said), name
    assert swap.said
    assert [[id(p) for p in g["params"]] for g in swap.optimizer.param_groups] == [
        [id(p) for p in g["params"]] for g in old.param_groups
    ]
    assert [g["name"] for g in swap.optimizer.param_groups] == ["body", "head"]


@pytest.mark.parametrize(("source", "target"), [(a, b) for a, b in PAIRS if {a, b} <= set(ADAM_LIKE)])
def test_among_adams_the_averages_are_copied_bit_for_bit(source: OptimizerKind, target: OptimizerKind) -> None:
    net, old = trained(source)
    new = converted(old, target).optimizer
    for name in ("exp_avg", "exp_avg_sq", "step"):
        assert torch.equal(new.state[net.spin][name], old.state[net.spin][name])


def test_nadam_continues_the_product_that_it_would_have_had() -> None:
    net, native = trained(K.NADAM)
    _, adam = trained(K.ADAM)
    new = converted(adam, "NAdam").optimizer
    mine = new.state[new.param_groups[0]["params"][0]]["mu_product"]
    assert torch.equal(mine, native.state[net.first.weight]["mu_product"])


def test_adam_without_decay_and_adamw_are_one() -> None:
    net, adam = trained(K.ADAM)
    other, again = trained(K.ADAM)
    new = converted(adam, "AdamW").optimizer
    for k in range(AFTER):
        assert step(net, new, k) == step(other, again, k)
    assert equal(net, other)


def test_momentum_and_beta_stand_for_each_other_there_and_back() -> None:
    net, sgd = trained(K.SGD, make=lambda p: O.SGD(p, 0.1, momentum=0.8, dampening=0.5))
    adam = converted(sgd, "Adam").optimizer
    assert adam.param_groups[0]["betas"] == (0.8, 0.999)
    back = converted(adam, "SGD", dampening=0.5).optimizer
    assert back.param_groups[1]["momentum"] == 0.8
    for p in net.first.parameters():
        assert torch.allclose(back.state[p]["momentum_buffer"], sgd.state[p]["momentum_buffer"], rtol=1e-5)


def test_what_is_left_behind_is_said() -> None:
    _, adam = trained(K.ADAM)
    assert "exp_avg is left behind: RMSprop keeps nothing like it." in converted(adam, "RMSprop").said
    assert "exp_avg, exp_avg_sq are left behind: SGD keeps nothing like it." not in converted(adam, "SGD").said
    assert "exp_avg_sq is left behind: SGD keeps nothing like it." in converted(adam, "SGD").said
    assert "Adagrad starts anew: nothing that Adam keeps means anything to it." in converted(adam, "Adagrad").said
    assert "SGD starts anew: there is nothing to carry over yet." in converted(trained(K.ADAM, 0)[1], "SGD").said


@pytest.mark.parametrize("target", ["AdamW", "Adam"])
def test_the_maxima_of_amsgrad_go_along(target: str) -> None:
    net, adam = trained(K.ADAM, make=with_maxima)
    old = adam.state[net.spin]["max_exp_avg_sq"]
    assert torch.equal(converted(adam, target).optimizer.state[net.spin]["max_exp_avg_sq"], old)
    plain = converted(trained(K.ADAM)[1], target, amsgrad=True).optimizer
    assert all((plain.state[p]["max_exp_avg_sq"] == 0).all() for p in plain.state)
    assert "max_exp_avg_sq is left behind: NAdam keeps nothing like it." in converted(adam, "NAdam").said


def test_other_betas_keep_the_estimates() -> None:
    net, adam = trained(K.ADAM)
    new = converted(adam, "Adam", betas=(0.5, 0.9)).optimizer
    for name, old_beta, beta in (("exp_avg", 0.9, 0.5), ("exp_avg_sq", 0.999, 0.9)):
        before = adam.state[net.spin][name] / (1 - old_beta**T)
        assert torch.allclose(new.state[net.spin][name] / (1 - beta**T), before, rtol=1e-5)
