"""Options, rates, flags and schedulers in a swap of optimizers; what can't be swapped."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from nbdebug.records.errors import ConfigurationError
from nbdebug.records.optimizers import OptimizerKind
from nbdebug.training.optimizers import conversion_mistakes, converted
from nbdebug.training.scheduler_moves import move_scheduler
from tests.training.test_optimizer_options import Net
from tests.training.test_optimizers import AFTER, B1, B2, part, step, trained

O = torch.optim  # noqa: E741
K = OptimizerKind


@pytest.mark.parametrize(("source", "target", "chosen", "wanted"), [
    (O.SGD, "Adam", {}, {"betas": (0.9, 0.999), "weight_decay": 0.2}),
    (O.SGD, "AdamW", {}, {"weight_decay": 0.01, "decoupled_weight_decay": True}),
    (O.AdamW, "NAdam", {}, {"weight_decay": 0.2, "decoupled_weight_decay": True, "eps": 1e-6}),
    (O.AdamW, "Adam", {}, {"weight_decay": 0, "decoupled_weight_decay": False, "amsgrad": True}),
    (O.AdamW, "Adam", {"weight_decay": 0.3}, {"weight_decay": 0.3}),
    (O.Adam, "RMSprop", {"centered": True}, {"alpha": 0.95, "eps": 1e-6, "momentum": 0, "weight_decay": 0.2}),
    (O.Adam, "Adagrad", {}, {"eps": 1e-10, "weight_decay": 0.2}),
    (O.Adam, "SGD", {"nesterov": True}, {"momentum": 0.8, "nesterov": True, "dampening": 0}),
    (O.RMSprop, "Adam", {}, {"betas": (0.9, 0.95), "eps": 1e-6}),
])  # fmt: skip
def test_options_of_one_meaning_are_kept(
    source: Any, target: str, chosen: dict[str, Any], wanted: dict[str, Any]
) -> None:
    given = {"weight_decay": 0.2, "maximize": True, "foreach": False}
    given |= {O.SGD: {"momentum": 0.9}, O.RMSprop: {"alpha": 0.95, "eps": 1e-6}}.get(
        source, {"betas": (0.8, 0.95), "eps": 1e-6, "amsgrad": True}
    )
    old = source([nn.Parameter(torch.ones(2))], 0.01, **given)
    swap = converted(old, target, **chosen)
    group = swap.optimizer.param_groups[0]
    assert {name: group[name] for name in wanted} == wanted
    assert (group["maximize"], group["foreach"]) == (True, False)
    decays = [line for line in swap.said if line.startswith("weight_decay is")]
    assert bool(decays) is (wanted.get("weight_decay", 0.2) not in (0.2, 0.3))


def test_rates_given_kept_and_scaled() -> None:
    net, old = trained(K.ADAM)
    old.param_groups[1]["lr"] = 1e-3
    old.param_groups[0]["initial_lr"] = 0.5
    assert converted(old, "NAdam").ratios == (1.0, 1.0)
    given = converted(old, "SGD", lr=0.3).optimizer.param_groups
    assert [g["lr"] for g in given] == [0.3, pytest.approx(0.06)]
    each = converted(old, "SGD", lr=[0.3, 0.4])
    assert [g["lr"] for g in each.optimizer.param_groups] == [0.3, 0.4]
    assert each.optimizer.param_groups[0]["initial_lr"] == pytest.approx(0.5 * 60)
    scaled = converted(old, "SGD", lr=None, momentum=0.9)
    bodies = [*net.first.parameters(), net.spin], list(net.last.parameters())
    means = [[part(old.state[p]["exp_avg"] / B1).flatten() for p in ps] for ps in bodies]
    roots = [[part(old.state[p]["exp_avg_sq"] / B2).sqrt().flatten() for p in ps] for ps in bodies]
    mean = [torch.cat(each) for each in means]
    size = [m / (torch.cat(r) + 1e-8) for m, r in zip(mean, roots, strict=True)]
    for group, before, m, u in zip(scaled.optimizer.param_groups, (5e-3, 1e-3), mean, size, strict=True):
        assert group["lr"] == float(f"{before * u.norm() / m.norm() / 10:.1e}")
    assert "scaled so that updates stay" in scaled.said[0]
    _, new = trained(K.ADAM, 0)
    fallback = converted(new, "SGD")
    assert [g["lr"] for g in fallback.optimizer.param_groups] == [1e-3, 1e-3]
    assert "own default" in fallback.said[0]


@pytest.mark.parametrize("target", K)
def test_a_tensor_rate_and_fused(target: OptimizerKind) -> None:
    def make(p: Any) -> O.Optimizer:
        return O.AdamW(p, torch.tensor(5e-3), fused=True)

    net, old = trained(K.ADAMW, make=make, complex_too=False)
    swap = converted(old, target)
    group = swap.optimizer.param_groups[0]
    assert isinstance(group["lr"], torch.Tensor)
    assert group["lr"] is not old.param_groups[0]["lr"]
    has_fused = target in (K.SGD, K.ADAM, K.ADAMW, K.ADAGRAD)
    assert group.get("fused", "none") == (True if has_fused else "none")
    assert any("fused, capturable" in line or "fused is dropped" in line for line in swap.said) is not has_fused
    assert getattr(swap.optimizer, "_step_supports_amp_scaling", False) is has_fused
    losses = [step(net, swap.optimizer, k) for k in range(AFTER)]
    assert losses[-1] < 2 * losses[0]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's own, of its Adagrad
def test_sparse_gradients() -> None:
    net = nn.Embedding(5, 2, sparse=True)
    sgd = O.SGD(net.parameters(), 0.1, momentum=0.9)

    def one_step(optimizer: O.Optimizer) -> None:
        optimizer.zero_grad()
        net(torch.tensor([1, 2, 2])).square().sum().backward()
        optimizer.step()

    one_step(sgd)
    with pytest.raises(ConfigurationError, match="Adam takes no sparse gradients"):
        converted(sgd, "Adam")
    adagrad = converted(sgd, "Adagrad")
    one_step(adagrad.optimizer)
    one_step(converted(adagrad.optimizer, "SGD", momentum=0.5).optimizer)
    sparse = O.SparseAdam(net.parameters(), 0.01)
    one_step(sparse)
    swap = converted(sparse, "Adagrad")
    assert "nothing that SparseAdam keeps means anything to it" in " ".join(swap.said)
    one_step(swap.optimizer)


class Mine(O.Adam):
    pass


MISTAKES = [
    (O.SGD, "Adm", {}, "has no kind of optimizer 'Adm': did you mean 'Adam'?"),
    (Mine, "SGD", {}, "Mine can't be swapped: it is not one of torch's own"),
    (O.Adam, "SGD", {"momentun": 0.9, "weight_decay": -1.0}, "SGD has no option 'momentun': did you mean 'momentum'?"),
    (O.Adam, "SGD", {"momentun": 0.9, "weight_decay": -1.0}, "weight_decay=-1.0 is out of range"),
    (O.Adam, "SGD", {"nesterov": True, "momentum": 0.0}, "nesterov needs momentum above 0"),
    (O.SGD, "Adam", {"betas": (0.9, 1.0)}, "beta2=1.0 is out of range"),
    (O.SGD, "Adam", {"betas": 0.9}, "betas must be two numbers, not 0.9"),
    (O.SGD, "Adam", {"lr": -1.0}, "lr=-1.0 is out of range"),
    (O.SGD, "Adam", {"lr": "high"}, "lr must be a number, not 'high'"),
    (O.SGD, "Adam", {"lr": [0.1, 0.2]}, "lr has 2 rates, but there are 1 parameter groups"),
    (O.SGD, "AdamW", {"decoupled_weight_decay": False}, "AdamW has no option 'decoupled_weight_decay'"),
    (O.SGD, "Adam", {"fused": True, "foreach": True}, "cannot be `True` together"),
]


@pytest.mark.parametrize(("source", "target", "options", "message"), MISTAKES)
def test_mistakes(source: Any, target: str, options: dict[str, Any], message: str) -> None:
    old = source([nn.Parameter(torch.ones(2))], 0.1)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        converted(old, target, **options)


def test_mistakes_can_be_asked_for() -> None:
    old = O.SGD([nn.Parameter(torch.ones(2))], 0.1)
    assert not conversion_mistakes(old, "Adam", 0.1, {"betas": (0.5, 0.9)})
    assert len(conversion_mistakes(old, "Adam", -1.0, {"eps": -1.0})) == 2


def test_named_parameters_and_entries_of_the_users_own_are_kept() -> None:
    net = nn.Linear(2, 1)
    old = O.SGD([{"params": list(net.named_parameters()), "note": [1]}], 0.1)
    group = converted(old, "Adam").optimizer.param_groups[0]
    assert (group["param_names"], group["note"]) == (["weight", "bias"], [1])
    assert group["params"][0] is net.weight


S = O.lr_scheduler


@pytest.mark.parametrize("make", [
    lambda o: S.StepLR(o, 3),
    lambda o: S.LambdaLR(o, lambda k: 0.9**k),
    lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=5), S.ExponentialLR(o, 0.9)], [5]),
    lambda o: S.OneCycleLR(o, [0.1, 0.2], total_steps=40),
    lambda o: S.CyclicLR(o, 0.01, 0.1, 4),
    lambda o: S.ReduceLROnPlateau(o, patience=0),
])  # fmt: skip
@pytest.mark.parametrize("steps", [0, 4])
def test_a_scheduler_goes_on_in_proportion(make: Callable[[Any], Any], steps: int) -> None:
    def advance(net: Net, optimizer: O.Optimizer, scheduler: Any, k: int) -> list[float]:
        rates = [float(g["lr"]) for g in optimizer.param_groups]
        step(net, optimizer, k)
        scheduler.step(1.0) if isinstance(scheduler, S.ReduceLROnPlateau) else scheduler.step()
        return rates

    (stay, same), (net, old) = trained(K.SGD, 0), trained(K.SGD, 0)
    theirs, ours = make(same), make(old)
    for k in range(steps):
        assert advance(stay, same, theirs, k) == advance(net, old, ours, k)
    swap = converted(old, "Adam", lr=[0.5 * g["lr"] for g in old.param_groups])
    move_scheduler(ours, swap.optimizer, swap.ratios)
    for k in range(steps, steps + 12):
        want = advance(stay, same, theirs, k)
        assert advance(net, swap.optimizer, ours, k) == pytest.approx([0.5 * rate for rate in want])
