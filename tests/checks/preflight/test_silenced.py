"""ReLUs that biases keep at zero are named as that; other silence, and biases that are meant so, are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.checks.preflight.looking import judged, told_apart
from tests.checks.preflight.test_structure import Blocks, Made, images, rows, with_batches


class Called(nn.Module):
    """Layers with a function between them, which is no module."""

    def __init__(self, parts: list[nn.Module], between: Callable[[torch.Tensor], torch.Tensor] = F.relu) -> None:
        super().__init__()
        self.parts, self.between = nn.ModuleList(parts), between

    def forward(self, x: Any) -> Any:
        for part in self.parts[:-1]:
            x = self.between(part(x))
        return self.parts[-1](x)


def biased(model: Any, value: float, which: Callable[[str], bool] = lambda name: True) -> Any:
    """With all biases of hidden layers at this value."""
    layers = [(name, each) for name, each in model.named_modules() if isinstance(each, (nn.Linear, nn.Conv2d))]
    for name, layer in layers[:-1]:
        if which(name):
            nn.init.constant_(layer.bias, value)
    return model


def mlp(between: Any = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), between(), nn.Linear(32, 32), between(), nn.Linear(32, 4))


def filters() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)
    )


def all_minus_two() -> Made:
    return with_batches(biased(mlp(), -2.0), rows())


def one_layer_alone() -> Made:
    return with_batches(biased(mlp(), -20.0, lambda name: name == "2"), rows())


def a_small_network() -> Made:
    return with_batches(biased(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), -9.0), rows())


def relu_as_a_function() -> Made:
    return with_batches(biased(Called([nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)]), -9.0), rows())


def filters_pooled() -> Made:
    return with_batches(biased(filters(), -9.0), images())


def torchs_own_biases() -> Made:
    return with_batches(mlp(), rows())


def biases_a_little_below() -> Made:
    return with_batches(biased(mlp(), -0.1), rows())


def few_units_alive() -> Made:
    """Sparse on purpose: with normed inputs and weights of one, a bias of -1 leaves every sixth."""
    model = mlp()
    for layer in (model[0], model[2]):
        nn.init.orthogonal_(layer.weight, 2.0)
    return with_batches(biased(model, -1.0, lambda name: name == "0"), rows())


def negative_biases_before_leaky() -> Made:
    return with_batches(biased(mlp(nn.LeakyReLU), -2.0), rows())


def a_gate_that_starts_shut() -> Made:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.gate, self.head = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 4)
            nn.init.constant_(self.gate.bias, -3.0)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x).relu() * self.gate(x).sigmoid() + self.body(x))

    return with_batches(Gated(), rows())


def rare_classes() -> Made:
    """The last layer's bias says that classes are rare."""
    model = mlp()
    nn.init.constant_(model[4].bias, -4.6)
    return with_batches(model, rows())


def blocks_from_zero() -> Made:
    return with_batches(Blocks(), rows())


FAULTS = {"bad_initialization": [all_minus_two, one_layer_alone, a_small_network, relu_as_a_function, filters_pooled]}
HEALTHY = {
    "bad_initialization": [
        torchs_own_biases, biases_a_little_below, few_units_alive, negative_biases_before_leaky,
        a_gate_that_starts_shut, rare_classes, blocks_from_zero,
    ]
}  # fmt: skip

test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(
    FAULTS, HEALTHY, causes={"bad_initialization": "dead_relu"}
)


def test_the_layers_and_what_mends_them_are_told() -> None:
    torch.manual_seed(0)
    finding = judged("bad_initialization", *one_layer_alone()).findings[0]
    assert finding.layers == ("2",) and "-20 in the mean at 2" in finding.why
    assert finding.remedies[0].code == "nn.init.zeros_(model[2].bias)"
    command = finding.remedies[1].command
    assert command is not None and command.layers == ("2",)  # type: ignore[union-attr]


def test_silence_that_is_not_the_biases_is_told_without_numbers_that_are_none() -> None:
    """Weights that are all negative behind a ReLU: nothing arrives, whatever the biases are."""
    torch.manual_seed(0)
    model = mlp()
    with torch.no_grad():
        model[2].weight.copy_(-model[2].weight.abs())
        model[2].bias.zero_()
    finding = judged("bad_initialization", *with_batches(model, rows())).findings[0]
    assert finding.cause == "bad_initialization" and "does not arrive at 4 at all" in finding.why
    assert "nan" not in finding.why.split() and "4 nan" not in finding.why and "4" not in finding.layers, finding.why


def test_what_the_remedy_says_brings_it_back() -> None:
    torch.manual_seed(0)
    model, trainer = all_minus_two()
    finding = judged("bad_initialization", model, trainer).findings[0]
    exec(finding.remedies[0].code, {"nn": nn, "model": model})
    assert judged("bad_initialization", model, trainer).findings == ()
