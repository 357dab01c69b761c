"""Silent and dead units against brute force over everything a layer puts out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug.probes.activations import ActivationsProbe
from nbdebug.probes.units import FEWEST_VALUES, FIRST, WINDOW, extremes
from nbdebug.records.signals import Signal
from tests.probes.looking import names_of, sample, values


def silent_share(tensor: torch.Tensor, axis: int) -> float:
    """The truth: units with nothing but zeros."""
    moved = tensor.movedim(axis, 0)
    return sum(bool((unit == 0).all()) for unit in moved) / len(moved)


def killing(layer: Any, units: list[int]) -> Any:
    """Biases so low that nothing gets through the activation behind."""
    with torch.no_grad():
        layer.bias[units] = -1e4
    return layer


SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "vectors": ((40, 30), -1),
    "wide": ((3, 5000), -1),
    "narrow": ((512, 8), -1),
    "narrow, of an odd length": ((517, 8), -1),
    "one unit": ((300, 1), -1),
    "tokens": ((4, 9, 20), -1),
    "images": ((6, 5, 7, 8), -3),
    "images, many values": ((40, 5, 16, 16), -3),
    "one image": ((5, 64, 64), -3),
    "signals": ((6, 5, 50), -2),
    "volumes": ((2, 5, 3, 4, 5), -4),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_extremes_tell_silent_units_on_any_layout(shape: str, layout: str) -> None:
    size, axis = SHAPES[shape]
    torch.manual_seed(0)
    for trial in range(6):
        x = torch.randn(size)
        units = x.movedim(axis, 0)
        units[torch.rand(len(units)) < 0.4] = 0
        rare = int(torch.randint(len(units), ()))
        units[rare] = 0
        last = tuple(extent - 1 for extent in units[rare].shape)
        units[rare][last] = -1e-30  # active once, below 0, at the very end
        if layout == "channels last":
            x = x.movedim(axis, -1).contiguous().movedim(-1, axis)
        elif layout == "strided":
            x = torch.stack([x, x], dim=-1)[..., 0]
        source = x.relu() if trial % 2 else x
        for never_negative in (True, False) if trial % 2 else (False,):
            found = extremes(source, axis, never_negative=never_negative)
            assert found is not None
            assert torch.equal(
                (found.high == 0) & (found.low == 0),
                torch.stack([(unit == 0).all() for unit in source.movedim(axis, 0)]),
            )
            assert found.values == source.numel() // source.shape[axis]


class FunctionalNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = killing(nn.Linear(6, 10), [1, 2, 3])
        self.fc2 = nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class FunctionalCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = killing(nn.Conv2d(1, 8, 3), [0, 5])
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 4, 3)
        with torch.no_grad():
            self.bn.bias[[0, 5]] = -1e4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(F.relu_(self.bn(self.conv1(x))))


class ChannelsLast(nn.Module):
    """As in ConvNeXt: convolution, then a linear layer and an activation on the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.fc = killing(nn.Linear(4, 12), [3, 4, 5])
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1))))


def image() -> torch.Tensor:
    return torch.randn(8, 1, 9, 9)


OUTPUTS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], dict[str, float]]] = {
    "mlp": (lambda: nn.Sequential(killing(nn.Linear(6, 10), [0, 9]), nn.ReLU(), nn.Linear(10, 3)),
            lambda: torch.randn(50, 6), {"1": 0.2}),
    "in place": (lambda: nn.Sequential(killing(nn.Linear(6, 10), [0]), nn.ReLU(inplace=True), nn.Linear(10, 3)),
                 lambda: torch.randn(50, 6), {"1": 0.1}),
    "gelu": (lambda: nn.Sequential(killing(nn.Linear(6, 10), [0, 1, 2]), nn.GELU()), lambda: torch.randn(50, 6),
             {"1": 0.3}),
    "leaky": (lambda: nn.Sequential(killing(nn.Linear(6, 10), [0]), nn.LeakyReLU()), lambda: torch.randn(50, 6),
              {"1": 0.0}),
    "conv": (lambda: nn.Sequential(killing(nn.Conv2d(1, 8, 3), [2]), nn.ReLU()), image, {"1": 0.125}),
    "conv, flattened": (lambda: nn.Sequential(killing(nn.Conv2d(1, 8, 3), [2]), nn.Flatten(), nn.ReLU()),
                        lambda: torch.randn(99, 1, 9, 9),
                        {"2": 0.125}),
    "conv, pooled": (lambda: nn.Sequential(killing(nn.Conv2d(1, 8, 3), [2]), nn.Flatten(2), nn.ReLU()), image,
                     {"2": 0.125}),
    "conv of one image": (lambda: nn.Sequential(killing(nn.Conv2d(1, 8, 3), [2, 3]), nn.ReLU()),
                          lambda: torch.randn(1, 9, 9), {"1": 0.25}),
    "signals": (lambda: nn.Sequential(killing(nn.Conv1d(2, 8, 3), [2]), nn.ReLU()), lambda: torch.randn(5, 2, 30),
                {"1": 0.125}),
    "tokens": (lambda: nn.Sequential(killing(nn.Linear(6, 10), [4]), nn.ReLU()), lambda: torch.randn(5, 7, 6),
               {"1": 0.1}),
    "channels last": (ChannelsLast, image, {"act": 0.25}),
    "heads": (lambda: nn.Sequential(killing(nn.Linear(6, 10), [4, 9]), nn.Unflatten(1, (2, 5)), nn.ReLU()),
              lambda: torch.randn(50, 6), {"2": 0.2}),
    "softmax is not judged": (lambda: nn.Sequential(nn.Linear(6, 10), nn.Softmax(-1)), lambda: torch.randn(5, 6), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(OUTPUTS))
def test_silent_units_are_those_that_were_killed(name: str) -> None:
    torch.manual_seed(0)
    build, data, expected = OUTPUTS[name]
    model = build()
    reading = sample(ActivationsProbe(names_of(model)), lambda: model(data()))
    assert values(reading, Signal.UNITS_SILENT) == pytest.approx(expected)


INPUTS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], dict[str, float]]] = {
    "functional": (FunctionalNet, lambda: torch.randn(50, 6), {"fc1": 0.0, "fc2": 0.3}),
    "functional, in place": (FunctionalCnn, image, {"conv1": 0.0, "conv2": 0.25}),
    "a module's output is not judged twice": (
        lambda: nn.Sequential(killing(nn.Linear(6, 10), [1]), nn.ReLU(), nn.Linear(10, 3)),
        lambda: torch.randn(50, 6),
        {"0": 0.0},
    ),
    "pixels that are always black": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
        lambda: F.pad(torch.rand(50, 2, 2) + 0.1, (1, 1, 1, 1)),
        {"1": 0.75},
    ),
}


@pytest.mark.parametrize("name", list(INPUTS))
def test_dead_inputs_are_seen_behind_functions(name: str) -> None:
    torch.manual_seed(0)
    build, data, expected = INPUTS[name]
    model = build()
    probe = ActivationsProbe(names_of(model))
    for step in range(FIRST):
        reading = sample(probe, lambda: model(data()), step=step)
    assert values(reading, Signal.INPUT_UNITS_DEAD) == pytest.approx(expected)


@pytest.mark.parametrize("functional", [False, True])
def test_dropout_kills_no_unit(functional: bool) -> None:
    """With one row a step, half of the units are silenced by dropout in each, and in 5 steps some in all of them."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.drop, self.fc2 = killing(nn.Linear(6, 64), [7]), nn.Dropout(0.5), nn.Linear(64, 4)
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc2(self.drop(F.relu(self.fc1(x)) if functional else self.act(self.fc1(x))))

    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model.fc1.bias += 100
        model.fc1.bias[7] = -1e4
    probe = ActivationsProbe(names_of(model))
    for step in range(FEWEST_VALUES):
        reading = sample(probe, lambda: model(torch.randn(1, 6)), step=step)
        if step < FEWEST_VALUES - 1:
            assert not values(reading, Signal.UNITS_DEAD) | values(reading, Signal.INPUT_UNITS_DEAD)
    found = values(reading, Signal.INPUT_UNITS_DEAD if functional else Signal.UNITS_DEAD)
    assert found["fc2" if functional else "act"] == 1 / 64


def test_dropout_of_channels_kills_none() -> None:
    """Many values a step, but all of a channel go together: 5 steps are no evidence of what dropout does."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.drop, self.conv2 = nn.Conv2d(1, 64, 3), nn.Dropout2d(0.5), nn.Conv2d(64, 2, 3)
            with torch.no_grad():
                self.conv1.bias += 100
                self.conv1.bias[7] = -1e4

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv2(self.drop(F.relu(self.conv1(x))))

    torch.manual_seed(0)
    model = Net()
    probe = ActivationsProbe(names_of(model))
    for step in range(FIRST):
        reading = sample(probe, lambda: model(torch.randn(1, 1, 18, 18)), step=step)
    assert values(reading, Signal.INPUT_UNITS_DEAD)["conv2"] == 1 / 64


def test_dropout_whose_output_no_layer_takes_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.drop = nn.Linear(6, 6), nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.drop(self.fc(x) * 2)

    model = Net()
    probe = ActivationsProbe(names_of(model))
    sample(probe, lambda: model(torch.randn(3, 6)))
    calls: list[Any] = []
    monkeypatch.setattr("nbdebug.probes.units.extremes", lambda *a, **k: calls.append(a))
    sample(probe, lambda: model(torch.randn(3, 6)))
    assert len(calls) == 1, "only the input of fc"


def test_dead_means_silent_in_all_of_the_last_samples() -> None:
    """Against a list of what happened."""
    model = nn.Sequential(nn.ReLU())
    probe = ActivationsProbe(names_of(model))
    generator = torch.Generator().manual_seed(0)
    happened: list[torch.Tensor] = []
    for step in range(3 * WINDOW):
        x = torch.rand(30, 40, generator=generator) + 0.1
        silent = torch.rand(40, generator=generator) < torch.linspace(0, 1, 40) ** 0.1
        x[:, silent] = -1
        happened.append(silent)
        reading = sample(probe, lambda x=x: model(x), step=step)
        assert values(reading, Signal.UNITS_SILENT) == {"0": pytest.approx(float(silent.float().mean()))}
        dead = values(reading, Signal.UNITS_DEAD)
        if step + 1 < FIRST:
            assert not dead
        else:
            assert dead == {"0": pytest.approx(float(torch.stack(happened[-WINDOW:]).all(0).float().mean()))}


def test_not_a_number_is_not_silent() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Tanh())
    x = torch.zeros(200, 4)
    x[7, 1] = float("nan")
    reading = sample(ActivationsProbe(names_of(model)), lambda: model(x))
    assert values(reading, Signal.UNITS_SILENT) == {"0": 0.75, "1": 0.75}


def test_several_calls_count_together() -> None:
    model = nn.Sequential(nn.ReLU())
    one, other = torch.zeros(9, 4), torch.zeros(9, 4)
    one[3, 0] = other[5, 1] = 1
    reading = sample(ActivationsProbe(names_of(model)), lambda: (model(one), model(other)))
    assert values(reading, Signal.UNITS_SILENT) == {"0": 0.5}


def test_a_layer_left_out_of_some_steps_keeps_its_counters() -> None:
    model = nn.ModuleDict({"always": nn.ReLU(), "sometimes": nn.ReLU()})
    probe = ActivationsProbe(names_of(model))
    x = torch.ones(200, 4)
    x[:, 0] = -1
    for step in range(2 * FIRST):
        names = ["always", "sometimes"] if step % 2 else ["always"]
        reading = sample(probe, lambda names=names: [model[name](x) for name in names], step=step)
    assert values(reading, Signal.UNITS_DEAD) == {"always": 0.25, "sometimes": 0.25}


def test_another_width_starts_anew() -> None:
    model = nn.Sequential(nn.ReLU())
    probe = ActivationsProbe(names_of(model))
    for step in range(FIRST):
        reading = sample(probe, lambda: model(-torch.ones(200, 4)), step=step)
    assert values(reading, Signal.UNITS_DEAD) == {"0": 1.0}
    for step in range(FIRST):
        reading = sample(probe, lambda: model(-torch.ones(200, 5)), step=step)
        assert values(reading, Signal.UNITS_DEAD) == ({"0": 1.0} if step == FIRST - 1 else {})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 4, dtype=dtype), nn.ReLU(), nn.Linear(4, 4))
    x = torch.tensor([[0, 0, 1e-7, 1]], dtype=dtype).repeat(300, 1)
    reading = sample(ActivationsProbe(names_of(model)), lambda: model[1](x))
    assert values(reading, Signal.UNITS_SILENT) == {"1": 0.5}


def test_under_vmap_the_whole_batch_is_judged() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    killing(model[0], [2])
    reading = sample(ActivationsProbe(names_of(model)), lambda: torch.vmap(model)(torch.randn(100, 4)))
    assert values(reading, Signal.UNITS_SILENT)["1"] == 0.25


@pytest.mark.parametrize("kind", ["complex", "vector", "scalar"])
def test_what_has_no_units_is_left_out(kind: str) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return {"complex": torch.complex(x, x), "vector": x[0], "scalar": x.sum()}[kind]

    model = nn.Sequential(Odd())
    reading = sample(ActivationsProbe(names_of(model)), lambda: model(torch.randn(5, 4)))
    assert not values(reading, Signal.UNITS_SILENT)
    assert values(reading, Signal.ACTIVATION_MEAN)
