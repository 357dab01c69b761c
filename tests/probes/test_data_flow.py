"""What goes into a model and comes out, against the tensors themselves."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbdebug.probes.data_flow import MOST_NAMES, DataProbe
from nbdebug.probes.visibility import SCRIPTED
from nbdebug.records.signals import Signal
from tests.probes.looking import hooks_on, names_of, reasons, sample, values


class Passes(nn.Module):
    """Puts out whatever it is made to."""

    def __init__(self, out: Callable[..., Any]) -> None:
        super().__init__()
        self.out = out

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.out(*args, **kwargs)


X = torch.arange(6.0).view(2, 3)
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], set[str]]] = {
    "one in, one out": (lambda x: x * 2, (X,), {}, {"input", "output"}),
    "several in": (lambda x, y: x, (X, X + 1), {}, {"input", "input.1", "output"}),
    "by keyword": (lambda x, mask: x, (X,), {"mask": X > 1}, {"input", "input.mask", "output"}),
    "a batch as a dictionary": (lambda b: b["ids"], ({"ids": X.long(), "mask": X},), {},
                                {"input.ids", "input.mask", "output"}),
    "a dictionary out": (lambda x: {"logits": x, "hidden": (x, x + 1)}, (X,), {},
                         {"input", "output.logits", "output.hidden", "output.hidden.1"}),
    "a tuple out": (lambda x: (x, {"attention": x}), (X,), {}, {"input", "output", "output.1.attention"}),
    "nothing of tensors": (lambda x, n, text: None, (X, 3), {"text": "a"}, {"input"}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CALLS))
def test_names_by_place_or_key(name: str) -> None:
    out, args, kwargs, expected = CALLS[name]
    model = Passes(out)
    reading = sample(DataProbe({"": model}), lambda: model(*args, **kwargs))
    assert set(values(reading, Signal.DATA_MEAN)) == expected
    assert set(reading.histograms[0].layers) == expected


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_those_of_the_tensor(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(30, 20).abs() * 5).to(dtype)
    truth = x.double().numpy()
    model = Passes(lambda x: None)
    reading = sample(DataProbe({"": model}), lambda: model(x))
    for signal, expected in (
        (Signal.DATA_MEAN, truth.mean()),
        (Signal.DATA_STD, truth.std()),
        (Signal.DATA_MIN, truth.min()),
        (Signal.DATA_MAX, truth.max()),
        (Signal.DATA_NON_FINITE, 0),
    ):
        assert values(reading, signal) == {"input": pytest.approx(expected, rel=1e-5)}


def test_extremes_are_exact_and_one_nan_in_a_million_is_not_missed() -> None:
    x = torch.zeros(1_000_000)
    x[777_777], x[3] = 9.0, -5.0
    model = Passes(lambda x: x.clone().index_fill_(0, torch.tensor([123_456]), float("nan")))
    reading = sample(DataProbe({"": model}), lambda: model(x))
    assert values(reading, Signal.DATA_MAX)["input"] == 9
    assert values(reading, Signal.DATA_MIN)["input"] == -5
    shares = values(reading, Signal.DATA_NON_FINITE)
    assert shares["input"] == 0
    assert 0 < shares["output"] <= 1 / 4096
    assert np.isnan(values(reading, Signal.DATA_MAX)["output"])


def test_the_input_is_read_before_the_model_overwrites_it() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True))
    reading = sample(DataProbe(names_of(model)), lambda: model(torch.full((3, 4), -2.0)))
    assert values(reading, Signal.DATA_MEAN) == {"input": -2, "output": 0}


def test_networks_have_their_names_and_several_calls_count_together() -> None:
    networks = {"gen": nn.Linear(2, 3), "disc": nn.Linear(3, 1)}

    def step() -> None:
        fake = networks["gen"](torch.ones(4, 2))
        networks["disc"](fake)
        networks["disc"](torch.full((4, 3), 7.0))

    reading = sample(DataProbe(networks), step)
    assert set(values(reading, Signal.DATA_MEAN)) == {"gen.input", "gen.output", "disc.input", "disc.output"}
    assert values(reading, Signal.DATA_MAX)["disc.input"] == 7
    found = reading.histograms[0]
    assert found.elements[found.layers.index("disc.input")] == 24


def test_names_and_calls_are_bounded() -> None:
    model = Passes(lambda *args: [a * 2 for a in args])
    reading = sample(DataProbe({"": model}), lambda: [model(*(X for _ in range(30))) for _ in range(100)])
    assert len(values(reading, Signal.DATA_MEAN)) == 2 * MOST_NAMES
    assert (reading.histograms[0].elements == 8 * X.numel()).all()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.*nested tensors.*")
def test_what_cannot_be_seen_is_said() -> None:
    scripted = torch.jit.script(nn.Linear(2, 2))
    probe = DataProbe({"a": scripted, "b": nn.Linear(2, 2), "c": Passes(lambda x: x.to_sparse())})
    sample(probe, lambda: probe._networks["c"](X))
    assert reasons(probe)["a"] == SCRIPTED
    assert "not called" in reasons(probe)["b"]
    assert "not dense" in reasons(probe)["c.output"]


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_compiled_networks_are_seen_from_outside_and_not_compiled_again(how: str) -> None:
    torch._dynamo.reset()
    model: Any = Passes(lambda x: x.relu() + 1)
    compiled: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(1)
        return graph.forward

    if how == "wrapped":
        model = torch.compile(model, backend=backend)
    else:
        model.compile(backend=backend)
    call = model._compiled_call_impl
    probe = DataProbe({"": model})
    for step in range(4):
        reading = sample(probe, lambda: model(X), step=step) if step % 2 else model(X)
    assert set(values(reading, Signal.DATA_MEAN)) == {"input", "output"}
    assert len(compiled) == 1
    assert model._compiled_call_impl is call
    assert hooks_on(model) == 0


def test_nothing_is_left_of_the_step() -> None:
    model = Passes(lambda x: x * 2)
    probe = DataProbe({"": model})
    x = torch.randn(50, 50)
    alive = weakref.ref(x)
    probe.begin(1)
    model(x)
    probe.unhook()
    probe.finish()
    del x
    gc.collect()
    assert alive() is None
    assert hooks_on(model) == 0
