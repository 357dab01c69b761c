"""Looks into compiled modules: the layers are seen, and the training is that without them, to the bit."""

from __future__ import annotations

import copy
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from nbdebug.probes.activations import ActivationsProbe
from nbdebug.probes.eager_look import OPAQUE
from nbdebug.records.signals import Signal
from tests.probes.looking import hooks_on, names_of, reasons, sample, undisturbed, values

pytestmark = pytest.mark.filterwarnings(  # torch's own doing
    "ignore:The .grad attribute of a Tensor that is not a leaf", "ignore:.torch.jit.*:DeprecationWarning"
)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Counting(nn.Module):
    """Carries all that a forward can change: drawn numbers, running statistics, a tensor and a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm, self.act = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True)
        self.drop, self.fc2 = nn.Dropout(0.3), nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.fc2(self.drop(self.act(self.norm(self.fc1(x)))))


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.before, self.inner = nn.Linear(6, 6), inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.before(x))


class CompiledForward(Counting):
    def __init__(self, backend: Any) -> None:
        super().__init__()
        self.forward = torch.compile(self.forward, backend=backend)  # type: ignore[method-assign]


def in_place(model: nn.Module, backend: Any) -> nn.Module:
    model.compile(backend=backend)
    return model


KINDS: dict[str, tuple[Callable[[Any], nn.Module], str]] = {
    "wrapped": (lambda b: torch.compile(Counting(), backend=b), "_orig_mod."),  # type: ignore[dict-item, return-value]
    "in place": (lambda b: in_place(Counting(), b), ""),
    "wrapped submodule": (lambda b: Outer(torch.compile(Counting(), backend=b)), "inner._orig_mod."),  # type: ignore[arg-type]
    "submodule in place": (lambda b: Outer(in_place(Counting(), b)), "inner."),
    "compiled within compiled": (lambda b: in_place(Outer(in_place(Counting(), b)), b), "inner."),
    "forward": (CompiledForward, ""),
}


def train(model: nn.Module, probe: ActivationsProbe | None, steps: int) -> tuple[list[torch.Tensor], list[Any], Any]:
    """Every other step is sampled; all that training leaves behind."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    readings = []

    def step() -> None:
        loss = model(torch.randn(16, 6)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for number in range(steps):
        if probe is not None and number % 2 == 0:
            readings.append(sample(probe, step, step=number))
        else:
            step()
    state = [*model.state_dict().values(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return [tensor.clone().detach() for tensor in state] + [torch.get_rng_state()], readings, dict(counters["stats"])


def compared(kind: str, backend: Any, steps: int) -> tuple[ActivationsProbe, list[Any], nn.Module]:
    """Train with and without looks: the same weights, buffers, gradients, random state, and as much compiled."""
    build, _ = KINDS[kind]
    torch.manual_seed(0)
    plain, _, compiled = train(build(backend), None, steps)
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = build(backend)
    probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)
    watched, readings, compiled_too = train(model, probe, steps)
    assert len(plain) == len(watched)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    assert compiled_too == compiled
    assert hooks_on(model) == 0
    return probe, readings, model


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_layers_are_seen_and_nothing_else_differs(kind: str, backend: str) -> None:
    probe, readings, model = compared(kind, backend, 6)
    prefix = KINDS[kind][1]
    expected = {f"{prefix}{layer}" for layer in ("fc1", "norm", "act", "fc2")}
    for reading in readings:
        assert expected <= set(values(reading, Signal.ACTIVATION_MEAN))
    assert not [each for each in probe.unseen() if each.layer in expected]
    assert not isinstance(vars(model).get("_compiled_call_impl"), type(None)) or kind != "in place"


def test_with_the_default_backend_and_many_steps() -> None:
    backend = "inductor" if shutil.which("g++") else "aot_eager"
    probe, readings, _ = compared("wrapped", backend, 30)
    assert not probe.unseen()
    assert all("_orig_mod.fc2" in values(reading, Signal.ACTIVATION_MEAN) for reading in readings)


def test_numbers_are_those_of_an_eager_forward() -> None:
    torch.manual_seed(0)
    model: Any = torch.compile(Counting(), backend="eager")
    twin, x = copy.deepcopy(model._orig_mod), torch.randn(16, 6)
    state = torch.get_rng_state()
    truth = float(twin(x).detach().mean())
    torch.set_rng_state(state)
    probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)
    reading = sample(probe, lambda: model(x))
    assert values(reading, Signal.ACTIVATION_MEAN)["_orig_mod.fc2"] == pytest.approx(truth, rel=1e-5)
    assert probe.hook_s > 0


def test_inputs_that_a_forward_overwrites_are_overwritten_once() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            batch["x"].add_(1)
            return self.fc(batch["x"])

    model: Any = torch.compile(Overwrites(), backend="eager")
    x = torch.zeros(2, 3)
    reading = sample(ActivationsProbe(names_of(model), undisturbed=undisturbed), lambda: model({"x": x}))
    assert torch.equal(x, torch.ones(2, 3))
    assert "_orig_mod.fc" in values(reading, Signal.ACTIVATION_MEAN)


def test_weights_keep_their_gradients_under_autocast() -> None:
    """A low-precision copy made without a graph must not stay in autocast's cache."""
    model: Any = torch.compile(Counting(), backend="eager")
    probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.randn(16, 6)).float().sum().backward()

    sample(probe, step)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (model.fc2.weight, model.fc1.weight))


def test_a_look_that_fails_is_said_and_not_tried_again() -> None:
    class Refuses(nn.Module):
        eager_calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling():
                Refuses.eager_calls += 1
                raise ValueError("only compiled\nand more")
            return self.fc(x)

    model: Any = torch.compile(Refuses(), backend="eager")
    probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)
    for step in range(3):
        sample(probe, lambda: model(torch.ones(2, 3)), step=step)
    assert Refuses.eager_calls == 1
    assert reasons(probe) == {
        "_orig_mod.fc": "an eager look into this compiled module failed: ValueError: only compiled"
    }
    assert hooks_on(model) == 0


def test_a_compiled_module_is_looked_into_once_a_step() -> None:
    model: Any = torch.compile(Counting(), backend="eager")
    probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)
    reading = sample(probe, lambda: [model(torch.randn(4, 6)) for _ in range(5)])
    found = reading.histograms[0]
    assert found.elements[found.layers.index("_orig_mod.fc2")] == 12


def test_lazy_modules_take_their_values_from_the_real_call() -> None:
    results = []
    for watched in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model: Any = torch.compile(nn.Sequential(nn.LazyLinear(40), nn.Dropout(0.5)), backend="eager")
        probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)
        for step in range(3):
            run = lambda: results.append(model(torch.randn(3, 5)).detach())  # noqa: B023, E731
            sample(probe, run, step=step) if watched else run()
    assert all(torch.equal(a, b) for a, b in zip(results[:3], results[3:], strict=True))
    assert not probe.unseen()


def test_iterators_are_not_used_up() -> None:
    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, parts: Any) -> torch.Tensor:
            return self.fc(next(parts))

    model: Any = torch.compile(Takes(), backend="eager")
    probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)
    sample(probe, lambda: model(iter([torch.ones(2, 3)])))
    assert "iterator" in reasons(probe)["_orig_mod.fc"]


def test_without_a_way_to_undo_there_is_no_look() -> None:
    model: Any = torch.compile(Counting(), backend="eager")
    probe = ActivationsProbe(names_of(model))
    sample(probe, lambda: model(torch.randn(4, 6)))
    assert set(reasons(probe).values()) == {OPAQUE}


def test_a_function_that_compiles_the_model_traces_no_hook() -> None:
    """The model is not known as compiled; the hooks must not be part of what is compiled."""
    torch.manual_seed(0)
    model = Counting()
    call = torch.compile(lambda x: model(x).sum(), backend="eager", fullgraph=True)
    probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)
    random.seed(0)
    for step in range(3):
        sample(probe, lambda: call(torch.randn(4, 6)), step=step)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert set(reasons(probe)) == {"fc1", "norm", "act", "fc2"}


def test_a_compiled_call_in_another_thread_works_meanwhile() -> None:
    other = torch.compile(nn.Linear(3, 3), backend="eager")
    x = torch.ones(2, 3)
    plain = other(x)
    results: list[torch.Tensor] = []

    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling():
                thread = threading.Thread(target=lambda: results.append(other(x)))
                thread.start()
                thread.join()
            return self.fc(x)

    model: Any = torch.compile(Waits(), backend="eager")
    probe = ActivationsProbe(names_of(model), undisturbed=undisturbed)
    sample(probe, lambda: model(x))
    assert torch.equal(results[0], plain)
    assert torch.compiler.is_compiling() is False
    before = counters["stats"]["unique_graphs"]
    other(x)
    assert counters["stats"]["unique_graphs"] == before
