"""Gradients, weights and updates against plain autograd: a twin is trained by a plain loop and read by hand.

Nothing of the package computes what is expected here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from nbdebug.probes import reductions
from nbdebug.probes.gradients import GradientsProbe
from nbdebug.probes.sample_rows import Pool
from nbdebug.records.commands import Clip, ClipMode, Start
from nbdebug.records.layers import GradientState
from nbdebug.records.signals import Series, Signal
from nbdebug.training.trainer import Trainer
from tests.probes.watched import Watched, close, mlp, watched

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Truth:
    """By layer, in one step: parameters before, gradients as they came and as the optimizer got them, the change."""

    weights: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    biases: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    raw: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    clipped: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    change: dict[str, list[torch.Tensor]] = field(default_factory=dict)


def layer_of(name: str) -> str:
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]


def is_bias(name: str) -> bool:
    return "bias" in name.partition(".parametrizations.")[2] or name.rpartition(".")[2].startswith("bias")


def flat(tensors: list[torch.Tensor]) -> np.ndarray:
    parts = [torch.view_as_real(t) if t.is_complex() else t for t in tensors]
    return np.concatenate([part.detach().double().numpy().ravel() for part in parts])


def plain_step(model: nn.Module, optimizer: Any, loss_fn: Any, batch: Any, clip: Clip) -> Truth:
    truth = Truth()
    optimizer.zero_grad()
    loss_fn(model(batch[0]), batch[1]).backward()
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        into = truth.biases if is_bias(name) else truth.weights
        into.setdefault(layer_of(name), []).append(parameter.detach().clone())
        if parameter.grad is not None:
            truth.raw.setdefault(layer_of(name), []).append(parameter.grad.detach().to_dense().clone())
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    if clip.mode is ClipMode.NORM:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip.threshold)
    elif clip.mode is ClipMode.VALUE:
        torch.nn.utils.clip_grad_value_(model.parameters(), clip.threshold)
    for name, parameter in named.items():
        if parameter.grad is not None:
            truth.clipped.setdefault(layer_of(name), []).append(parameter.grad.detach().to_dense().clone())
    optimizer.step()
    for name, parameter in named.items():
        if parameter.requires_grad:
            truth.change.setdefault(layer_of(name), []).append(parameter.detach() - before[name])
    return truth


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 16, sparse=True)
        self.head = nn.Linear(16, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x).mean(1))


class ComplexNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 7, dtype=torch.complex64)
        self.head = nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(x.to(torch.complex64)).abs())


def frozen() -> nn.Module:
    model = mlp()
    model[0].requires_grad_(False)
    return model


def parametrised() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(12, 30)), nn.Tanh(), nn.Linear(30, 5))


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(12, 12, bias=False), nn.Tanh(), nn.Linear(12, 12, bias=False), nn.Linear(12, 5))
    model[2].weight = model[0].weight
    return model


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 40, 2, padding=1), nn.BatchNorm2d(40), nn.ReLU(), nn.Flatten(),
        nn.Linear(360, 5),
    ).to(memory_format=torch.channels_last)  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "float64": lambda: mlp().double(),
    "bfloat16": lambda: mlp().to(torch.bfloat16),
    "convolution, channels last": convolutional,
    "frozen layer": frozen,
    "weight norm": parametrised,
    "tied weights": tied,
    "complex": ComplexNet,
    "sparse embedding": Embedder,
    "lstm": lambda: nn.Sequential(nn.LSTM(12, 9), Pick(), nn.Linear(9, 5)),
}


class Pick(nn.Module):
    def forward(self, found: Any) -> torch.Tensor:
        return found[0]


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1),
}
CLIPS = {"off": Clip(), "norm": Clip(ClipMode.NORM, 0.05), "value": Clip(ClipMode.VALUE, 1e-3)}


def data(model: nn.Module) -> Batches:
    if isinstance(model, Embedder):
        return [(torch.randint(0, 300, (8, 4)), torch.randint(0, 5, (8,))) for _ in range(3)]
    dtype = next(model.parameters()).dtype
    dtype = torch.float32 if dtype.is_complex else dtype
    return [(torch.randn(8, 12, dtype=dtype), torch.randint(0, 5, (8,))) for _ in range(3)]


def both(name: str, optimizer: str, clip: str) -> tuple[Watched, list[Truth]]:
    torch.manual_seed(0)
    model = MODELS[name]()
    twin = copy.deepcopy(model)
    batches = data(model)
    make = OPTIMIZERS[optimizer] if name != "sparse embedding" else lambda p: torch.optim.SGD(p, 0.1)
    theirs = make(twin.parameters())
    truths = [plain_step(twin, theirs, F.cross_entropy, batch, CLIPS[clip]) for batch in batches]
    case = watched(model, Trainer(make(model.parameters()), F.cross_entropy, batches))
    case.session.knobs.clip = CLIPS[clip]
    case.run(3)
    assert not case.broken, case.broken
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    case.session.close()
    return case, truths


CASES = [(name, "sgd", "off") for name in MODELS]
CASES += [("mlp", "adamw", clip) for clip in CLIPS] + [("convolution, channels last", "sgd", "norm")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(case))
def test_exact_statistics_equal_plain_autograd(case: tuple[str, str, str]) -> None:
    found, truths = both(*case)
    # a bfloat16 norm is accumulated in float32 here, and compared with float64 of the same values
    tolerance = 2e-5
    for step, truth in enumerate(truths, 1):
        for layer, raw in truth.raw.items():
            g, c = flat(raw), flat(truth.clipped[layer])
            for values, signals in (
                (g, (Signal.GRADIENT_NORM, Signal.GRADIENT_MEAN, Signal.GRADIENT_MAX)),
                (c, (Signal.GRADIENT_NORM_CLIPPED, Signal.GRADIENT_MEAN_CLIPPED, Signal.GRADIENT_MAX_CLIPPED)),
            ):
                if case[0] == "complex":
                    values = np.abs(values) if layer == "head" else np.abs(values.view(complex))
                measured = [found.recorder.layer(signal, layer)[step] for signal in signals]
                mean = np.abs(values).sum() / g.size
                close(measured, [np.linalg.norm(values), mean, np.abs(values).max()], tolerance)
        for layer, weights in truth.weights.items():
            close(found.recorder.layer(Signal.WEIGHT_NORM, layer)[step], np.linalg.norm(flat(weights)), tolerance)
            first = np.linalg.norm(flat(truths[0].weights[layer]))
            grown = found.recorder.layer(Signal.WEIGHT_GROWTH, layer)[step]
            close(grown, np.linalg.norm(flat(weights)) / first, tolerance)
        for layer, biases in truth.biases.items():
            close(found.recorder.layer(Signal.BIAS_NORM, layer)[step], np.linalg.norm(flat(biases)), tolerance)
            largest = max(float(bias.abs().max()) for bias in biases)
            close(found.recorder.layer(Signal.BIAS_MAX, layer)[step], largest, tolerance)
        for layer, change in truth.change.items():
            whole = np.linalg.norm(flat(truth.weights.get(layer, []) + truth.biases.get(layer, [])))
            moved = np.linalg.norm(flat(change))
            close(found.recorder.layer(Signal.UPDATE_NORM, layer)[step], moved, 3e-3 if case[0] == "bfloat16" else 1e-4)
            ratio = found.recorder.layer(Signal.UPDATE_RATIO, layer)[step]
            close(ratio, moved / whole, 3e-3 if case[0] == "bfloat16" else 1e-4)


def test_histograms_of_small_layers_are_exact() -> None:
    found, truths = both("mlp", "sgd", "off")
    for signal, part in ((Signal.GRADIENTS, "raw"), (Signal.CHANGES, "change")):
        histogram = found.recorder.histogram(signal)
        at = histogram.layers.index("0")
        values = flat(getattr(truths[-1], part)["0"])
        assert histogram.counts[at].sum() == histogram.sampled[at] == values.size
        assert histogram.limit[at] / 2 <= np.abs(values).max() < histogram.limit[at]
        assert histogram.counts[at][: histogram.counts.shape[1] // 2].sum() == (values < 0).sum(), "signs"
    assert set(found.recorder.histogram(Signal.WEIGHTS).layers) == {"0", "2", "4"}
    assert found.recorder.histogram(Signal.BIASES).sampled.tolist() == [96, 96, 5]


def test_a_layer_too_large_to_look_at_whole_is_sampled_in_proportion() -> None:
    found, _ = both("mlp", "sgd", "off")
    histogram = found.recorder.histogram(Signal.GRADIENTS)
    at = histogram.layers.index("2")
    assert histogram.elements[at] == 96 * 96 + 96
    assert abs(histogram.sampled[at] - 4096) <= 2


def test_states_say_missing_and_frozen() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.fixed = nn.Linear(12, 5), nn.Linear(12, 5), nn.Linear(12, 12)
            self.fixed.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(self.fixed(x))

    model = Part()
    case = watched(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data(mlp())))
    case.run(2)
    states = {layer: case.recorder.layer(Signal.GRADIENT_STATE, layer)[2] for layer in ("used", "unused", "fixed")}
    assert states == {"used": GradientState.PRESENT, "unused": GradientState.MISSING, "fixed": GradientState.FROZEN}
    assert case.recorder.layer(Signal.GRADIENT_NORM, "unused") == {}
    case.session.close()


def test_zero_gradients_and_what_is_not_finite_are_shares() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)  # no unit is ever active: the first layer's gradient is zero
    batches = [(torch.randn(6, 4), torch.randn(6, 1)) for _ in range(2)]
    case = watched(model, Trainer(torch.optim.SGD(model.parameters(), 1e-3), F.mse_loss, batches))
    case.run(1)
    assert case.recorder.layer(Signal.GRADIENT_ZERO, "0")[1] == 1.0
    with torch.no_grad():
        model[2].weight[0, :4] = math.nan
    case.run(1)
    assert case.session.state == "paused", "before its update"
    case.run(1)
    assert case.recorder.layer(Signal.GRADIENT_NON_FINITE, "2")[2] == 1.0
    assert math.isnan(case.recorder.layer(Signal.GRADIENT_MAX, "2")[2])
    case.session.close()


@pytest.mark.parametrize("decoupled", [False, True])
def test_effective_rate_and_decay_share_by_group(decoupled: bool) -> None:
    torch.manual_seed(1)
    model = mlp()
    kind = torch.optim.AdamW if decoupled else torch.optim.SGD
    groups = [{"params": model[0].parameters()}, {"params": model[2:].parameters(), "lr": 0.02, "weight_decay": 0.1}]
    optimizer = kind(groups, lr=0.01, weight_decay=0.0)
    twin = copy.deepcopy(model)
    batches = data(model)
    F.cross_entropy(twin(batches[0][0]), batches[0][1]).backward()
    case = watched(model, Trainer(optimizer, F.cross_entropy, batches))
    case.run(1)
    names = [group.name for group in case.session.knobs.groups]
    late = list(twin[2:].parameters())
    gradient = math.sqrt(sum(float(p.grad.square().sum()) for p in late))
    weight = math.sqrt(sum(float(p.detach().square().sum()) for p in late))
    moved = [(p - q).detach() for p, q in zip(list(model[2:].parameters()), late, strict=True)]
    change = math.sqrt(sum(float(m.square().sum()) for m in moved))
    scalars = dict(case.recorder.frames[0].scalars)
    close(scalars[Series(Signal.EFFECTIVE_RATE, names[1])], change / gradient, 1e-4)
    share = 0.02 * 0.1 * weight / change if decoupled else 0.1 * weight / (0.1 * weight + gradient)
    close(scalars[Series(Signal.DECAY_SHARE, names[1])], share, 1e-4)
    assert Series(Signal.DECAY_SHARE, names[0]) not in scalars
    case.session.close()


def test_a_gaussian_is_near_a_gaussian_and_others_are_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200), nn.Linear(200, 200), nn.Linear(200, 5))
    with torch.no_grad():
        model[0].weight.normal_(0.3, 0.02)
        model[1].weight.uniform_(-1, 1)
        model[2].weight.copy_((torch.rand(200, 200) < 0.05).float())
    batches = [(torch.randn(4, 200), torch.randint(0, 5, (4,)))]
    case = watched(model, Trainer(torch.optim.SGD(model.parameters(), 1e-9), F.cross_entropy, batches))
    case.run(1)
    normal, uniform, sparse = (case.recorder.layer(Signal.WEIGHT_NON_GAUSSIAN, name)[1] for name in "012")
    assert normal < 0.03 < 0.045 < uniform < 0.08 < 0.4 < sparse
    case.session.close()


def test_clip_rate_is_the_share_of_the_last_steps() -> None:
    torch.manual_seed(0)
    model = mlp()
    batches = [(torch.randn(8, 12) * (1 + i % 2 * 50), torch.randint(0, 5, (8,))) for i in range(10)]
    case = watched(model, Trainer(torch.optim.SGD(model.parameters(), 1e-6), F.cross_entropy, batches))
    case.run(10)
    norms = list(case.recorder.series(Signal.GRADIENT_NORM).values())
    threshold = float(np.median(norms))
    case.session.knobs.clip = Clip(ClipMode.NORM, threshold)
    case.run(10)
    flags = [norm > threshold for norm in list(case.recorder.series(Signal.GRADIENT_NORM).values())[10:]]
    rates = case.recorder.series(Signal.CLIP_RATE)
    assert list(rates) == list(range(11, 21))
    close(list(rates.values()), np.cumsum(flags) / np.arange(1, 11))
    case.session.close()


def test_under_accumulation_parameters_are_looked_at_when_they_are_updated() -> None:
    torch.manual_seed(0)
    model, taken = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
        taken.append(1)
        loss = loss_fn(model(batch[0]), batch[1]) / 4
        loss.backward()
        if len(taken) % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    case = watched(model, Trainer(optimizer, F.cross_entropy, data(model), step=step))
    case.run(16)
    assert list(case.recorder.layer(Signal.UPDATE_RATIO, "0")) == [4, 8, 12, 16]
    assert list(case.recorder.layer(Signal.GRADIENT_NORM, "0"))[-3:] == [8, 12, 16]
    assert list(case.recorder.layer(Signal.ACTIVATION_STD, "0")) == list(range(1, 17))
    case.session.close()


def test_a_second_update_in_a_step_counts_last() -> None:
    torch.manual_seed(0)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
        for factor in (1.0, 3.0):
            optimizer.zero_grad()
            loss = factor * loss_fn(model(batch[0]), batch[1])
            loss.backward()
            optimizer.step()
        return loss

    case = watched(model, Trainer(optimizer, F.cross_entropy, data(model), step=step))
    case.run(1)
    norm = case.recorder.layer(Signal.GRADIENT_NORM, "0")[1]
    close(case.recorder.layer(Signal.UPDATE_NORM, "0")[1], 0.1 * norm, 1e-4)
    close(norm, float(torch.cat([p.grad.flatten() for p in model[0].parameters()]).norm()))
    case.session.close()


def test_a_choice_of_layers_and_of_probes() -> None:
    model = mlp()
    case = watched(
        model,
        Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data(model)),
        probes=("gradients", "time"),
        layers=("0", "4"),
    )
    case.run(2)
    table = case.recorder.frames[-1].layers
    assert table is not None and table.layers == ("0", "4")
    assert not case.recorder.frames[-1].histograms
    assert Signal.WEIGHT_NORM not in table.signals
    case.session.close()


def test_running_out_of_memory_drops_the_probe_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    model = mlp()
    case = watched(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data(model)))
    monkeypatch.setattr(reductions.Magnitudes, "of", full)
    case.run(3)
    assert len(case.broken) == 2 and "out of memory" in case.broken[0]
    assert len(case.recorder.series(Signal.LOSS, split="train")) == 3
    assert list(case.recorder.layer(Signal.UPDATE_NORM, "0")) == [1, 2, 3]
    case.session.close()


@pytest.mark.parametrize("where", ["reduce", "read"])
def test_a_fault_in_what_all_share_ends_watching_and_not_the_run(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("planted")

    model = mlp()
    case = watched(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data(model)))
    case.run(1)
    monkeypatch.setattr(Pool, where, broken)
    case.run(3)
    assert len(case.broken) == 1 and "planted" in case.broken[0]
    assert len(case.recorder.series(Signal.LOSS, split="train")) == 4
    assert not any(module._forward_hooks for module in model.modules())
    case.session.close()


def test_a_step_that_breaks_off_while_an_update_is_awaited_leaves_no_tensor() -> None:
    torch.manual_seed(0)
    model, taken = mlp(), []

    def step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
        taken.append(1)
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        if len(taken) in (1, 3):
            optimizer.step()
        if len(taken) == 3:
            raise ValueError("planted, after the update")
        return loss

    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data(model), step=step)
    case = watched(model, trainer)
    case.run(2)
    case.governor.budget, case.governor._is_first = 1e-9, False
    case.session.post(Start(None, 1)).wait()
    case.session.wait(lambda _: case.session.at_rest, 60)
    assert case.session.failure is not None
    probe = case.instruments._probes["gradients"]
    assert isinstance(probe, GradientsProbe) and not probe._batches
    case.session.close()
