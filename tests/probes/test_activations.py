"""Activations against what a copy of the model puts out; nothing is disturbed, nothing is left behind."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbdebug.probes.activations import MAX_CALLS, NOT_CALLED, ActivationsProbe
from nbdebug.probes.sample_rows import Pool
from nbdebug.records.layers import BINS, edges
from nbdebug.records.signals import Signal
from tests.probes.looking import MODELS, captured, hooks_on, moments, names_of, reasons, sample, total, values

CASES = pytest.mark.parametrize("name", list(MODELS))


def made(name: str) -> tuple[nn.Module, torch.Tensor, set[str]]:
    torch.manual_seed(0)
    build, data, layers = MODELS[name]
    return build(), data(), layers


@CASES
def test_numbers_are_those_of_the_outputs(name: str) -> None:
    model, x, layers = made(name)
    state = torch.get_rng_state()
    truth = captured(model, lambda twin: total(twin(x.clone())).backward())
    torch.set_rng_state(state)
    reading = sample(ActivationsProbe(names_of(model)), lambda: total(model(x.clone())).backward())
    mean, std, zero = (
        values(reading, signal) for signal in (Signal.ACTIVATION_MEAN, Signal.ACTIVATION_STD, Signal.ACTIVATION_ZERO)
    )
    assert set(mean) == layers
    for layer in layers:
        assert (mean[layer], std[layer], zero[layer]) == pytest.approx(moments(truth[layer]), rel=1e-5, abs=1e-6)
        assert values(reading, Signal.ACTIVATION_NON_FINITE)[layer] == 0


@CASES
def test_histograms_hold_every_value_in_its_bin(name: str) -> None:
    model, x, layers = made(name)
    state = torch.get_rng_state()
    truth = captured(model, lambda twin: total(twin(x.clone())).backward())
    torch.set_rng_state(state)
    (found,) = sample(ActivationsProbe(names_of(model)), lambda: total(model(x.clone())).backward()).histograms
    assert set(found.layers) == layers
    for row, layer in enumerate(found.layers):
        numbers = truth[layer].float().double().numpy()
        assert found.sampled[row] == found.elements[row] == found.counts[row].sum() == len(numbers)
        assert found.limit[row] / 2 <= np.abs(numbers).max() < found.limit[row]
        places = np.clip(np.searchsorted(edges() * found.limit[row], numbers), 1, BINS) - 1
        assert np.abs(np.bincount(places, minlength=BINS) - found.counts[row]).sum() <= 2, "but for values on borders"


@CASES
def test_nothing_is_disturbed(name: str) -> None:
    model, x, _ = made(name)
    twin = copy.deepcopy(model)
    probe = ActivationsProbe(names_of(model))
    results = []
    for one, watched in ((twin, False), (model, True)):
        torch.manual_seed(1)
        inputs = x.clone()
        for step in range(3):
            if watched:
                probe.begin(step)
            loss = total(one(inputs * 1))
            loss.backward()
            if watched:
                probe.unhook()
                probe.finish()
        results.append((loss.detach(), [p.grad for p in one.parameters()], list(one.buffers()), torch.get_rng_state()))
    (loss, grads, buffers, state), (loss_2, grads_2, buffers_2, state_2) = results
    assert torch.equal(loss, loss_2)
    assert torch.equal(state, state_2)
    assert all(torch.equal(a, b) for a, b in zip(buffers, buffers_2, strict=True))
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(grads, grads_2, strict=True))
    assert hooks_on(model) == hooks_on(twin)
    assert probe.hook_s > 0


@CASES
def test_no_tensor_of_the_user_outlives_the_step(name: str) -> None:
    model, x, _ = made(name)
    probe = ActivationsProbe(names_of(model))
    alive: list[weakref.ref[torch.Tensor]] = []
    model.register_forward_hook(lambda module, args, output: alive.append(weakref.ref(args[0])))

    def step() -> None:
        inputs = x.clone().requires_grad_()
        output = model(inputs)
        alive.append(weakref.ref(output[0] if isinstance(output, (tuple, list)) else inputs))
        total(output).backward()

    probe.begin(1)
    step()
    probe.unhook()
    probe.finish()
    gc.collect()
    assert len(alive) == 2
    assert all(ref() is None for ref in alive)


LAYOUTS = {
    "one hot column": ((64, 4, 32, 32), (slice(None), slice(None), slice(None), 7)),
    "one hot channel": ((64, 32, 16, 16), (slice(None), 5)),
    "one hot unit": ((256, 512), (slice(None), 100)),
    "one hot row of the batch": ((100, 1000), (3,)),
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_shares_of_a_sample_are_within_their_stated_error(layout: str) -> None:
    shape, hot = LAYOUTS[layout]

    class Hot(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1

    x = torch.zeros(shape)
    x[hot] = 1
    share = float(x.mean())
    probe = ActivationsProbe(names_of(nn.Sequential(Hot())))
    error = math.sqrt(share * (1 - share) / 4096)
    found = [
        values(sample(probe, lambda: next(iter(probe._survey.telling.values()))(x), step=step), Signal.ACTIVATION_ZERO)
        for step in range(8)
    ]
    shares = [1 - each["0"] for each in found]
    assert all(abs(each - share) <= 5 * error + 1 / 4096 for each in shares)


def test_memory_is_that_of_all_output_tensors_but_those_in_place() -> None:
    model = nn.Sequential(nn.LSTM(6, 5, batch_first=True))
    memory = values(
        sample(ActivationsProbe(names_of(model)), lambda: model(torch.randn(3, 4, 6))), Signal.MEMORY_ACTIVATIONS
    )
    assert memory == {"0": 4 * (3 * 4 * 5 + 2 * 3 * 5)}
    in_place = nn.Sequential(nn.Linear(4, 4).bfloat16(), nn.ReLU(inplace=True))
    reading = sample(ActivationsProbe(names_of(in_place)), lambda: in_place(torch.randn(2, 4).bfloat16()))
    assert values(reading, Signal.MEMORY_ACTIVATIONS) == {"0": 16, "1": 0}


def test_only_the_first_calls_are_looked_at_but_memory_counts_all() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer)
    reading = sample(ActivationsProbe(names_of(model)), lambda: [model(torch.randn(2, 4)) for _ in range(20)])
    assert reading.histograms[0].elements[0] == MAX_CALLS * 8
    assert values(reading, Signal.MEMORY_ACTIVATIONS) == {"0": 20 * 32}


def test_not_finite_values_are_counted_and_the_rest_is_measured() -> None:
    class Bad(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, torch.full((4,), float("nan")), torch.full((4,), -float("inf"))])

    model = nn.Sequential(Bad())
    reading = sample(ActivationsProbe(names_of(model)), lambda: model(torch.ones(8)))
    assert values(reading, Signal.ACTIVATION_NON_FINITE) == {"0": 0.5}
    assert values(reading, Signal.ACTIVATION_MEAN) == {"0": 1.0}
    assert reading.histograms[0].counts.sum() == 8


UNREADABLE: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "integers": (lambda y: y.long(), "integers"),
    "booleans": (lambda y: y > 0, "integers"),
    "sparse": (lambda y: y.to_sparse(), "not dense"),
    "csr": (lambda y: y.relu().to_sparse_csr(), "not dense"),
    "nested": (lambda y: torch.nested.as_nested_tensor([y, y[:2]]), "nested"),
    "jagged": (lambda y: torch.nested.as_nested_tensor([y, y[:2]], layout=torch.jagged), "nested"),
    "quantized": (lambda y: torch.quantize_per_tensor(y, 0.1, 0, torch.qint8), "quantized"),
    "float8": (lambda y: y.to(torch.float8_e4m3fn), "quantized"),
    "empty": (lambda y: y[:0], "empty"),
    "meta": (lambda y: y.to("meta"), "meta"),
    "no tensor": (lambda y: {"a": "text", "b": [3, None]}, "no tensor"),
    "itself within": (lambda y: (lambda a: a.append(a) or a)([]), "no tensor"),
}


@pytest.mark.filterwarnings("ignore:.*(nested tensors|Sparse|torch.ao|quantize).*")
@pytest.mark.parametrize("kind", list(UNREADABLE))
def test_outputs_that_cannot_be_read_are_said_with_a_reason(kind: str) -> None:
    wrap, word = UNREADABLE[kind]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 4)
            self.odd = Odd()

        def forward(self, x: torch.Tensor) -> Any:
            return self.odd(self.first(x))

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return wrap(x.detach())

    model = Model()
    probe = ActivationsProbe(names_of(model))
    reading = sample(probe, lambda: model(torch.randn(5, 6)))
    assert set(values(reading, Signal.ACTIVATION_MEAN)) == {"first"}
    assert list(reasons(probe)) == ["odd"]
    assert word in reasons(probe)["odd"]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_outputs_are_pairs_of_numbers(dtype: torch.dtype) -> None:
    layer = nn.Linear(4, 3, dtype=dtype)
    model = nn.Sequential(layer, nn.Linear(3, 2, dtype=dtype))
    x = torch.randn(5, 4, dtype=dtype)
    reading = sample(ActivationsProbe(names_of(model)), lambda: model(x))
    truth = torch.view_as_real(layer(x).detach())
    assert values(reading, Signal.ACTIVATION_STD)["0"] == pytest.approx(float(truth.std(correction=0)), rel=1e-5)


def test_a_layer_that_is_not_called_is_said_until_it_is() -> None:
    model = nn.Sequential(nn.MultiheadAttention(6, 2), nn.Linear(6, 6))
    probe = ActivationsProbe(names_of(model))
    x = torch.randn(3, 2, 6)
    assert not probe.unseen(), "nothing is known yet"
    sample(probe, lambda: model[0](x, x, x))
    assert reasons(probe) == {"0.out_proj": NOT_CALLED, "1": NOT_CALLED}
    sample(probe, lambda: model[1](x))
    assert reasons(probe) == {"0.out_proj": NOT_CALLED}


def test_lazy_modules_are_seen_from_their_first_forward() -> None:
    model = nn.Sequential(nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    probe = ActivationsProbe(names_of(model))
    reading = sample(probe, lambda: model(torch.randn(2, 1, 5, 5)))
    assert set(values(reading, Signal.ACTIVATION_MEAN)) == {"0", "1", "2", "4"}
    assert not probe.unseen()


def test_parametrizations_are_no_layers_and_are_not_computed_again() -> None:
    class Counts(nn.Module):
        calls = 0

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            Counts.calls += 1
            return weight * 2

    layer = nn.Linear(4, 4, bias=False)
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Counts())
    model = nn.Sequential(layer)
    Counts.calls = 0
    probe = ActivationsProbe(names_of(model))
    reading = sample(probe, lambda: model(torch.randn(2, 4)))
    assert Counts.calls == 1
    assert set(values(reading, Signal.ACTIVATION_MEAN)) == {"0"}
    assert not probe.unseen()


def test_samples_may_be_kept_in_a_shared_pool() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), 5 * torch.randn(30, 4)
    alone = sample(ActivationsProbe(names_of(model)), lambda: model(x))
    pool = Pool()
    probe = ActivationsProbe(names_of(model), pool=pool)
    probe.begin(1)
    model(x)
    probe.unhook()
    units = [tensor.to(torch.float64).numpy() for tensor in probe.finish()]
    pool.read([tensor.to(torch.float64).numpy() for tensor in pool.reduce()])
    shared = probe.read(units)
    for signal in set(probe.signals) - {Signal.ACTIVATIONS}:
        assert values(shared, signal) == values(alone, signal)
    assert np.array_equal(shared.histograms[0].counts, alone.histograms[0].counts)


def test_only_what_is_wanted_is_measured() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    probe = ActivationsProbe(names_of(model), values=False, saturation=False)
    reading = sample(probe, lambda: model(torch.randn(3, 4)))
    assert (
        {column.signal for column in reading.columns}
        <= set(probe.signals)
        == {
            Signal.UNITS_SILENT,
            Signal.UNITS_DEAD,
            Signal.INPUT_UNITS_DEAD,
        }
    )
    assert not reading.histograms
