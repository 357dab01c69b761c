"""How a network starts and is built: scales, symmetry, linear pairs, norms over nothing, dropout; and look-alikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam

from nbdebug import Trainer
from nbdebug.checks.preflight.freshness import State, layer_state
from nbdebug.records.commands import Reinitialize, SetKnobs
from tests.checks.preflight.looking import judged, warned

Made = tuple[Any, Trainer]
Case = Callable[[], Made]


def rows(samples: int = 32, features: int = 16, classes: int = 4) -> list[Any]:
    return [(torch.randn(samples, features), torch.randint(classes, (samples,))) for _ in range(3)]


def images(samples: int = 16, channels: int = 3) -> list[Any]:
    return [(torch.randn(samples, channels, 8, 8), torch.randint(4, (samples,))) for _ in range(3)]


def series(samples: int = 16, length: int = 12) -> list[Any]:
    return [(torch.randn(samples, length, 5), torch.randint(4, (samples,))) for _ in range(3)]


def words() -> list[Any]:
    return [(torch.randint(20, (8, 6)), torch.randint(20, (8,))) for _ in range(3)]


def with_batches(model: Any, batches: list[Any], loss: Any = F.cross_entropy, optimizer: Any = Adam) -> Made:
    return model, Trainer(optimizer(model.parameters(), 1e-3), loss, batches)


def deep(layers: int, init: Callable[[torch.Tensor], Any] | None = None, between: Any = nn.ReLU) -> Made:
    parts: list[nn.Module] = [nn.Linear(16, 64), between()]
    for _ in range(layers - 1):
        parts += [nn.Linear(64, 64), between()]
    model = nn.Sequential(*parts, nn.Linear(64, 4))
    if init is not None:
        for module in model:
            if isinstance(module, nn.Linear):
                init(module.weight)
                nn.init.zeros_(module.bias)
    return with_batches(model, rows())


class Blocks(nn.Module):
    """Residual blocks whose last layers, or gates, start at zero."""

    def __init__(self, blocks: int = 8, norm: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 64), nn.Linear(64, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(64) if norm else nn.Identity(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
            for _ in range(blocks)
        )
        for block in self.blocks:
            nn.init.zeros_(block[3].weight)
            nn.init.zeros_(block[3].bias)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


class Adapted(nn.Module):
    """A frozen layer with a low-rank correction that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(16, 64).requires_grad_(False)
        self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, 64, bias=False)
        nn.init.zeros_(self.up.weight)
        self.head = nn.Linear(64, 4)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.base(x) + self.up(self.down(x))))


class Modulated(nn.Module):
    """Scale, shift and gate from one layer that starts at zero, as in diffusion transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.modulate, self.inner = nn.Linear(16, 32), nn.Linear(32, 96), nn.Linear(32, 32)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.last = nn.Linear(32, 4)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.first(x))
        scale, shift, gate = self.modulate(x).chunk(3, 1)
        return self.last(x + gate * self.inner(x * (1 + scale) + shift).relu())


def recurrent(bound: float = 0.0, orthogonal: bool = False) -> Made:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(5, 32, batch_first=True), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    model = Net()
    for parameter in model.rnn.parameters():
        if bound:
            nn.init.uniform_(parameter, -bound, bound)
        elif orthogonal and parameter.dim() > 1:
            nn.init.orthogonal_(parameter)
    return with_batches(model, series())


def filters(std: float, norm: bool) -> Made:
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 16), (16, 16)):
        conv = nn.Conv2d(before, after, 3, padding=1)
        nn.init.normal_(conv.weight, std=std)
        nn.init.zeros_(conv.bias)
        layers += [conv, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]
    return with_batches(nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 4)), images())


def large_logits(std: float) -> Made:
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    nn.init.normal_(model[2].weight, std=std)
    return with_batches(model, rows())


def zero_head() -> Made:
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    nn.init.zeros_(model[2].weight)
    return with_batches(model, rows())


def tiny(weight: torch.Tensor) -> None:
    nn.init.normal_(weight, std=0.003)


def unit(weight: torch.Tensor) -> None:
    nn.init.normal_(weight, std=1.0)


BADLY_DRAWN: dict[str, Case] = {
    "deep and tiny": lambda: deep(6, tiny),
    "deep and large": lambda: deep(6, unit),
    "very deep, as torch draws": lambda: deep(20),
    "deep tanh, too small": lambda: deep(10, tiny, nn.Tanh),
    "deep tanh, saturated": lambda: deep(3, unit, nn.Tanh),
    "filters near zero": lambda: filters(0.001, norm=False),
    "recurrent from -3 to 3": lambda: recurrent(3.0),
    "logits of fifty": lambda: large_logits(8.0),
}
WELL_DRAWN: dict[str, Case] = {
    "as torch draws": lambda: deep(4),
    "eight layers as torch draws": lambda: deep(8),
    "deep, by He": lambda: deep(20, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
    "deep tanh, by Glorot": lambda: deep(12, lambda w: nn.init.xavier_normal_(w, gain=5 / 3), nn.Tanh),
    "residual blocks from zero": lambda: with_batches(Blocks(), rows()),
    "low rank from zero": lambda: with_batches(Adapted(), rows()),
    "tiny filters with norms": lambda: filters(0.01, norm=True),
    "a head at zero": zero_head,
    "recurrent, orthogonal": lambda: recurrent(orthogonal=True),
    "large data": lambda: with_batches(nn.Sequential(nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 4)),
                                       [(x * 200, y) for x, y in rows()]),
}  # fmt: skip


@pytest.mark.parametrize("name", BADLY_DRAWN)
def test_a_bad_start_is_named(name: str) -> None:
    assert found("bad_initialization", BADLY_DRAWN[name]) == ["bad_initialization"]


@pytest.mark.parametrize("name", WELL_DRAWN)
def test_a_start_that_carries_the_signal_is_not(name: str) -> None:
    assert found("bad_initialization", WELL_DRAWN[name]) == []


def test_the_remedy_draws_the_layers_at_fault_anew() -> None:
    torch.manual_seed(0)
    finding = judged("bad_initialization", *deep(6, tiny)).findings[0]
    command = finding.remedies[0].command
    assert isinstance(command, Reinitialize) and "4" in command.layers
    assert finding.pictures[0].values[0, 0] > finding.pictures[0].values[0, -1] + 4


def found(rule: str, case: Case) -> list[str]:
    torch.manual_seed(0)
    return warned(judged(rule, *case()))


# -- symmetry --------------------------------------------------------------------------------------------------------


def constant(value: float, *, places: tuple[int, ...] = (0, 2, 4), dropout: float = 0.0) -> Made:
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))
    for place in places:
        nn.init.constant_(model[place].weight, value)
        nn.init.zeros_(model[place].bias)
    return with_batches(model, rows(), optimizer=SGD)


def constant_filters() -> Made:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    for place in (0, 2):
        nn.init.constant_(model[place].weight, 0.05)
        nn.init.zeros_(model[place].bias)
    nn.init.constant_(model[5].weight, 0.01)
    return with_batches(model, images())


def dict_batches_of_zeros() -> Made:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = (model(batch["x"])[:, 0] - batch["y"]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    batches = [{"x": x, "y": x[:, 0] + 1} for x, _ in rows()]
    return model, Trainer(SGD(model.parameters(), 0.1), None, batches, step=step)


def depthwise() -> Made:
    """Each channel blurred alike at the start: the same filter, another input."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    nn.init.constant_(model[0].weight, 1 / 9)
    nn.init.zeros_(model[0].bias)
    return with_batches(model, images())


SYMMETRIC: dict[str, Case] = {
    "one constant": lambda: constant(0.05),
    "zeros": lambda: constant(0.0),
    "filters": constant_filters,
    "zeros, dict batches": dict_batches_of_zeros,
}
ASYMMETRIC: dict[str, Case] = {
    "as torch draws": lambda: constant(0.0, places=()),
    "a head at zero": zero_head,
    "a linear model at zero": lambda: (lambda m: (nn.init.zeros_(m.weight), with_batches(m, rows()))[1])(
        nn.Linear(16, 4)
    ),
    "residual blocks from zero": lambda: with_batches(Blocks(), rows()),
    "low rank from zero": lambda: with_batches(Adapted(), rows()),
    "modulation from zero": lambda: with_batches(Modulated(), rows()),
    "a blur for each channel": depthwise,
    "norms of ones": lambda: filters(0.1, norm=True),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_units_that_stay_the_same_are_named(name: str) -> None:
    assert found("symmetric_initialization", SYMMETRIC[name]) == ["symmetric_initialization"]


@pytest.mark.parametrize("name", ASYMMETRIC)
def test_zeros_that_come_apart_are_not(name: str) -> None:
    assert found("symmetric_initialization", ASYMMETRIC[name]) == []


# -- linear pairs ----------------------------------------------------------------------------------------------------


def chain(*parts: nn.Module, batches: Any = None) -> Made:
    return with_batches(nn.Sequential(*parts), batches or rows())


class Forgetful(nn.Module):
    """An activation that is there, and not called."""

    def __init__(self, forget: bool) -> None:
        super().__init__()
        self.conv1, self.conv2, self.act = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.ReLU()
        self.fc, self.forget = nn.Linear(16 * 16, 4), forget

    def forward(self, x: Any) -> Any:
        x = self.conv1(x)
        x = self.act(self.conv2(x if self.forget else self.act(x)))
        return self.fc(x.flatten(1))


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(16, 32) * 0.1), nn.Parameter(torch.randn(32, 4) * 0.1)
        self.b1 = nn.Parameter(torch.zeros(32))

    def forward(self, x: Any) -> Any:
        return (x @ self.w1 + self.b1) @ self.w2


class Attention(nn.Module):
    """Written by hand: a projection in, queries, keys and values, a projection out, a residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.q, self.k, self.v, self.o = nn.Linear(5, 16), *(nn.Linear(16, 16) for _ in range(4))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        x = self.enter(x)
        weights = (self.q(x) @ self.k(x).transpose(1, 2) / 4).softmax(-1)
        x = x + self.o(weights @ self.v(x))
        return self.head(x.mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.project = nn.Embedding(20, 16), nn.GRU(16, 32, batch_first=True), nn.Linear(32, 16)
        self.out = nn.Linear(16, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, words: Any) -> Any:
        return self.out(self.project(self.body(self.embed(words))[0][:, -1]))


class Skipping(nn.Module):
    """Up, beside what was before, and on: the layer that enlarges needs nothing behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 4, 8)

    def forward(self, x: Any) -> Any:
        top = self.down(x).relu()
        middle = self.middle(F.max_pool2d(top, 2)).relu()
        return self.out(torch.cat([top, self.up(middle)], 1)).flatten(1)


class Separated(nn.Module):
    """Over time, then over channels: two axes, two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.channels, self.head = nn.Linear(12, 12), nn.Linear(5, 16), nn.Linear(16 * 12, 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.channels(self.time(x.transpose(1, 2)).transpose(1, 2)).relu().flatten(1))


class Two(nn.Module):
    """Features for a distance, given out, and a classifier on them."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.embed, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        features = self.embed(self.body(x).relu())
        return self.head(features), features


def first_part(output: Any, target: Any) -> Any:
    return F.cross_entropy(output[0], target) + 0.01 * output[1].square().mean()


LINEAR: dict[str, Case] = {
    "three in a row": lambda: chain(nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)),
    "one activation short": lambda: chain(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 4)),
    "dropout and norm between": lambda: chain(
        nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    ),
    "not called in forward": lambda: with_batches(Forgetful(True), images()),
    "products by hand": lambda: with_batches(ByHand(), rows()),
    "convolutions and means": lambda: chain(
        nn.Conv2d(3, 8, 3), nn.AvgPool2d(2), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 4), batches=images()
    ),
    "from a list of batches of lists": lambda: chain(
        nn.Linear(16, 64), nn.Identity(), nn.Linear(64, 4), batches=[[x, y] for x, y in rows()]
    ),
}
BENT: dict[str, Case] = {
    "activations between": lambda: chain(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4)),
    "called in forward": lambda: with_batches(Forgetful(False), images()),
    "a single layer": lambda: chain(nn.Flatten(), nn.Linear(16, 4)),
    "through a narrow middle": lambda: chain(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3), nn.Linear(3, 4)),
    "low rank": lambda: with_batches(Adapted(), rows()),
    "attention": lambda: with_batches(Attention(), series()),
    "tied weights": lambda: with_batches(Tied(), words()),
    "depthwise, then pointwise": lambda: chain(
        nn.Conv2d(3, 9, 3, groups=3), nn.Conv2d(9, 16, 1), nn.ReLU(), nn.Flatten(), nn.Linear(576, 4), batches=images()
    ),
    "rows, then columns": lambda: chain(
        nn.Conv2d(3, 8, (1, 3)), nn.Conv2d(8, 8, (3, 1)), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4), batches=images()
    ),
    "up beside a skip": lambda: with_batches(Skipping(), images()),
    "two axes": lambda: with_batches(Separated(), series()),
    "features that are given out": lambda: with_batches(Two(), rows(), first_part),
    "a convolution, its mean, a classifier": lambda: chain(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
        batches=images(),
    ),
    "a layer norm between": lambda: chain(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 4)),
    "a pooling of largest values": lambda: chain(
        nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 4), batches=images()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_layers_with_nothing_between_are_named(name: str) -> None:
    assert found("missing_nonlinearity", LINEAR[name]) == ["missing_nonlinearity"]


@pytest.mark.parametrize("name", BENT)
def test_maps_that_are_meant_to_follow_each_other_are_not(name: str) -> None:
    assert found("missing_nonlinearity", BENT[name]) == []


def test_a_network_that_is_linear_throughout_is_worse() -> None:
    results = [judged("missing_nonlinearity", *LINEAR[name]()) for name in ("three in a row", "one activation short")]
    assert [result.findings[0].severity for result in results] == ["critical", "warning"]


# -- norms -----------------------------------------------------------------------------------------------------------


def pooled(norm: nn.Module) -> Made:
    return chain(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), norm, nn.Flatten(), nn.Linear(16, 4), batches=images()
    )


def last_batch(samples: int, *, flat: bool = True) -> Made:
    sizes = [8, 8, samples]
    if flat:
        model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        return with_batches(model, [(torch.randn(n, 16), torch.randint(4, (n,))) for n in sizes])
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    return with_batches(model, [(torch.randn(n, 3, 8, 8), torch.randint(4, (n,))) for n in sizes])


DEGENERATE: dict[str, Case] = {
    "a layer norm over one feature": lambda: chain(
        nn.Linear(16, 4), nn.Unflatten(1, (4, 1)), nn.LayerNorm(1), nn.Flatten()
    ),
    "a layer norm over two": lambda: chain(nn.Linear(16, 2), nn.LayerNorm(2), nn.Linear(2, 4)),
    "a group for each channel": lambda: pooled(nn.GroupNorm(16, 16)),
    "instance norm without places": lambda: pooled(nn.InstanceNorm2d(16)),
    "batches of one": lambda: chain(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 4), batches=rows(1)),
    "batches of two": lambda: chain(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 4), batches=rows(2)),
    "a last batch of one": lambda: last_batch(1),
}
NORMAL: dict[str, Case] = {
    "layer norm": lambda: chain(nn.Linear(16, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 4)),
    "four groups": lambda: pooled(nn.GroupNorm(4, 16)),
    "batch norm after pooling": lambda: pooled(nn.BatchNorm2d(16)),
    "instance norm with places": lambda: chain(
        nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4), batches=images()
    ),
    "pictures one by one": lambda: chain(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4), batches=images(1)
    ),
    "a last batch of two": lambda: last_batch(2),
    "a last batch of one, with places": lambda: last_batch(1, flat=False),
    "no norm": lambda: chain(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_norms_over_nothing_are_named(name: str) -> None:
    assert found("degenerate_normalization", DEGENERATE[name]) == ["degenerate_normalization"]


@pytest.mark.parametrize("name", NORMAL)
def test_norms_over_enough_are_not(name: str) -> None:
    assert found("degenerate_normalization", NORMAL[name]) == []


# -- dropout ---------------------------------------------------------------------------------------------------------


class Functional(nn.Module):
    def __init__(self, p: float, times: int = 1) -> None:
        super().__init__()
        self.first, self.last, self.p, self.times = nn.Linear(16, 32), nn.Linear(32, 4), p, times

    def forward(self, x: Any) -> Any:
        x = self.first(x).relu()
        for _ in range(self.times):
            x = F.dropout(x, self.p, self.training)
        return self.last(x)


DROPPED: dict[str, Case] = {
    "the share to keep": lambda: chain(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.9), nn.Linear(32, 4)),
    "by a function": lambda: with_batches(Functional(0.85), rows()),
    "several in a row": lambda: with_batches(Functional(0.5, 3), rows()),
}
KEPT: dict[str, Case] = {
    "a half": lambda: chain(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4)),
    "much, but customary": lambda: chain(nn.Linear(16, 512), nn.ReLU(), nn.Dropout(0.7), nn.Linear(512, 4)),
    "a half after each of three layers": lambda: chain(
        *(p for _ in range(3) for p in (nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.5))), nn.Linear(16, 4)
    ),
    "a half twice": lambda: with_batches(Functional(0.5, 2), rows()),
    "none": lambda: chain(nn.Linear(16, 4)),
    "of nothing": lambda: chain(nn.Dropout(0.0), nn.Linear(16, 4)),
    "not at work": lambda: (lambda made: (made[0][2].eval(), made)[1])(DROPPED["the share to keep"]()),
}


@pytest.mark.parametrize("name", DROPPED)
def test_dropout_of_nearly_everything_is_named(name: str) -> None:
    assert found("dropout_too_high", DROPPED[name]) == ["dropout_too_high"]


@pytest.mark.parametrize("name", KEPT)
def test_dropout_that_leaves_enough_is_not(name: str) -> None:
    assert found("dropout_too_high", KEPT[name]) == []


def test_the_dropout_can_be_lowered_by_a_command() -> None:
    command = judged("dropout_too_high", *DROPPED["the share to keep"]()).findings[0].remedies[0].command
    assert isinstance(command, SetKnobs) and command.changes.dropout == {"2": 0.5}


# -- fresh or trained ------------------------------------------------------------------------------------------------

INITS: dict[str, Callable[[torch.Tensor], Any]] = {
    "he": nn.init.kaiming_normal_,
    "he uniform": nn.init.kaiming_uniform_,
    "glorot": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
    "cut off": lambda weight: nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "layer",
    [
        *(nn.Linear(32, 48), nn.Conv2d(8, 16, 3), nn.LSTM(16, 32), nn.Embedding(64, 32)),
        *(nn.GRUCell(2, 32), nn.LSTMCell(8, 16), nn.RNNCell(6, 20)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_torch_draws_looks_fresh(layer: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    layer.reset_parameters()
    assert layer_state(layer) is State.FRESH


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", INITS)
def test_what_is_drawn_otherwise_looks_fresh_too(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(40, 60)
    INITS[name](layer.weight)
    nn.init.zeros_(layer.bias)
    assert layer_state(layer) is State.FRESH


@pytest.mark.parametrize("steps", [50, 400])
@pytest.mark.parametrize("seed", range(3))
def test_what_learnt_a_little_looks_trained(steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        x = torch.randn(64, 16)
        optimizer.zero_grad()
        F.mse_loss(model(x)[:, 0], x[:, 0] * x[:, 1] + x[:, 2]).backward()
        optimizer.step()
    assert layer_state(model[0]) is State.TRAINED


@pytest.mark.parametrize("cell", [nn.GRUCell(2, 32), nn.RNNCell(2, 32)], ids=lambda x: type(x).__name__)
def test_a_cell_that_learnt_looks_trained(cell: nn.Module) -> None:
    torch.manual_seed(0)
    cell.reset_parameters()
    optimizer = Adam(cell.parameters(), 2e-2)
    for _ in range(300):
        x, h = torch.rand(64, 8, 2), torch.zeros(64, 32)
        for t in range(8):
            h = cell(x[:, t], h)
        optimizer.zero_grad()
        F.mse_loss(h.mean(1), 0.5 * x[..., 0].prod(1).sqrt()).backward()
        optimizer.step()
    assert layer_state(cell) is State.TRAINED
