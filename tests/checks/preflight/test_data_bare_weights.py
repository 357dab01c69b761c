"""Data far from unit scale are named where they meet bare weights, in networks without torch's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from nbdebug.checks.preflight import arrivals
from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Make, Program, judged, look_at, told_apart

N = 192
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


class Bare(nn.Module):
    """Weights of a hidden layer and an output without a layer around them; ``hidden`` says how they are used."""

    def __init__(self, hidden: Forward, *shape: int, scale: float = 1.0) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight = nn.Parameter(torch.randn(shape) * scale / shape[0] ** 0.5)
        self.bias = nn.Parameter(torch.zeros(24))
        self.norm = nn.LayerNorm(24)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("deviation", torch.ones(6))
        self.out = nn.Parameter(torch.randn(24, 3) / 24**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.hidden(self, x)) @ self.out


def trained(model: Any, x: torch.Tensor, **options: Any) -> Program:
    parameters = list(model.parameters())
    loader = DataLoader(TensorDataset(x, torch.randint(3, (N,))), 32, shuffle=True)
    return model, Trainer(SGD(parameters, 1e-3), options.pop("loss", nn.CrossEntropyLoss()), loader, **options)


def table() -> torch.Tensor:
    """A share, an age, an income …"""
    return torch.rand(N, 6) * torch.tensor([1.0, 90.0, 80_000.0, 1.0, 12.0, 300.0])


def through(hidden: Forward, *shape: int, x: torch.Tensor | None = None, scale: float = 1.0) -> Make:
    return lambda: trained(Bare(hidden, *shape, scale=scale), table() if x is None else x)


def named(make: Make, name: str) -> Make:
    make.__name__ = name
    return make


def dictionary_of_weights() -> Program:
    """No module at all but a dictionary, and a step that is the forward, too."""
    model = nn.ParameterDict({"first": torch.randn(24, 6) / 6**0.5, "last": torch.randn(3, 24) / 24**0.5})

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        x, y = batch
        loss = F.cross_entropy(F.linear(F.linear(x, model["first"]).tanh(), model["last"]), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return trained(model, table(), loss=None, step=step)


def a_layer_of_ones_own_in_a_network() -> Program:
    class Dense(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.kernel

    return trained(nn.Sequential(Dense(6, 24), nn.ReLU(), Dense(24, 3)), table())


class Gained(nn.Module):
    """Each feature times a weight of its own, then an ordinary network."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6))
        self.rest = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(x * self.gain)


def a_kernel_over_bytes() -> Program:
    class Filters(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernels = nn.Parameter(torch.randn(8, 3, 3, 3) / 27**0.5)
            self.read = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.read(F.conv2d(x, self.kernels).relu().mean((2, 3)))

    return trained(Filters(), torch.randint(256, (N, 3, 8, 8)).float())


def attention_over_measurements() -> Program:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(6, 2, batch_first=True)
            self.read = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.read(self.attend(x, x, x)[0].mean(1))

    return trained(Attending(), table()[:, None].expand(N, 5, 6) * torch.rand(N, 5, 1))


def product(net: Any, x: torch.Tensor) -> torch.Tensor:
    return x @ net.weight + net.bias


def standardised(net: Any, x: torch.Tensor) -> torch.Tensor:
    if net.training and not bool(net.mean.any()):
        net.mean, net.deviation = x.mean(0), x.std(0)
    return ((x - net.mean) / net.deviation) @ net.weight + net.bias


def normed(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.norm(x @ net.weight + net.bias)


def logarithms(net: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.addmm(net.bias, x.log1p() / 8, net.weight)


def fixed_features(net: Any, x: torch.Tensor) -> torch.Tensor:
    """Random directions that do not learn, then sines: where weights are met, all is within -1 and 1."""
    directions = torch.linspace(-1, 1, 6 * 6).view(6, 6).sin()
    return (x @ directions).sin() @ net.weight + net.bias


FAULTS = {
    "unnormalized_input": (
        *(dictionary_of_weights, a_layer_of_ones_own_in_a_network, a_kernel_over_bytes, attention_over_measurements),
        named(lambda: trained(Gained(), table()), "gains_first"),
        named(through(product, 6, 24), "product"),
        named(through(lambda net, x: (net.weight @ x.T).T, 24, 6), "weights_on_the_left"),
        named(through(lambda net, x: torch.einsum("oi,bi->bo", net.weight, x), 24, 6), "einsum"),
        named(through(lambda net, x: torch.einsum("...i,io->...o", x, net.weight), 6, 24), "einsum_with_dots"),
        named(through(lambda net, x: torch.tensordot(x, net.weight, dims=1), 6, 24), "tensordot"),
        named(through(lambda net, x: (x[:, None] * net.weight).sum(-1), 24, 6), "products_added_up"),
        named(through(lambda net, x: torch.baddbmm(net.bias, x[None], net.weight[None])[0], 6, 24), "in_a_stack"),
    )
}
HEALTHY = {
    "unnormalized_input": (
        named(through(product, 6, 24, x=torch.randn(N, 6)), "unit_scale"),
        named(through(standardised, 6, 24), "standardised_in_forward"),
        named(through(normed, 6, 24, x=200 * torch.randn(N, 6)), "norm_after_the_product"),
        named(through(logarithms, 6, 24), "logarithms_in_forward"),
        named(through(fixed_features, 6, 24), "fixed_directions_and_sines"),
        named(through(product, 6, 24, x=255 * torch.rand(N, 6), scale=1 / 255), "weights_made_for_bytes"),
        named(lambda: trained(Gained(), torch.randn(N, 6)), "gains_at_unit_scale"),
    )
}
test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


def test_the_call_and_the_weight_are_named() -> None:
    torch.manual_seed(0)
    finding = judged("unnormalized_input", *through(product, 6, 24)()).findings[0]
    assert "of what matmul with model.weight gets" in finding.why
    assert "feature 0 of 0.5" in finding.why or "feature 3 of 0.5" in finding.why


def test_targets_that_a_loss_multiplies_are_no_inputs() -> None:
    """A cross entropy by hand: the targets meet what learns, and that depends on the batch."""
    torch.manual_seed(0)
    x, y = torch.randn(N, 6), 300 * F.one_hot(torch.randint(3, (N,)), 3) + 40 * torch.rand(N, 3)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return -(target * output.log_softmax(1)).sum(1).mean()

    loader = DataLoader(TensorDataset(x, y), 32)
    look = look_at(model, Trainer(SGD(model.parameters(), 1e-4), loss, loader))
    assert [each.layer for each in look.trace.arrivals] == ["0"]


@pytest.mark.parametrize(
    ("equation", "shapes", "axes"),
    [
        ("bi,io->bo", ((4, 3), (3, 5)), [(1,)]),
        ("nsc,rs->nrc", ((4, 3, 2), (5, 3)), [(1,)]),
        ("bij,ijo->bo", ((4, 3, 2), (3, 2, 5)), [(1, 2)]),
        ("...i,io->...o", ((4, 3), (3, 5)), [(1,)]),
        ("i...,io->...o", ((3, 4), (3, 5)), [(0,)]),
        ("bi,bi->b", ((4, 3), (4, 3)), [(1,)]),
        ("bi,bi->bi", ((4, 3), (4, 3)), []),
        ("bi,io", ((4, 3), (3, 5)), []),
    ],
)
def test_the_axes_that_an_einsum_sums_over(equation: str, shapes: Any, axes: list[tuple[int, ...]]) -> None:
    first, second = (torch.zeros(shape) for shape in shapes)
    sides = arrivals.WEIGHINGS["einsum"](equation, first, second)
    found = [tuple(axis % first.dim() for axis in side[2]) for side in sides if side[0] is first]
    assert found == axes


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize(("unit", "told"), [(80_000.0, ["unnormalized_input"]), (1.0, [])])
def test_small_batches_are_judged_by_several(batch: int, unit: float, told: list[str]) -> None:
    torch.manual_seed(0)
    x = torch.randn(N, 6) * torch.tensor([1.0, 1.0, unit, 1.0, 1.0, 1.0])
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    loader = DataLoader(TensorDataset(x, torch.randint(3, (N,))), batch, shuffle=True)
    result = judged("unnormalized_input", model, Trainer(SGD(model.parameters(), 1e-3), nn.CrossEntropyLoss(), loader))
    assert [str(finding.cause) for finding in result.findings] == told
