"""Hooks count what they should, keep to themselves, and come off."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from nbdebug.probes.activations import ActivationsProbe
from nbdebug.records.signals import Signal
from tests.probes.looking import captured, hooks_on, names_of, reasons, sample, total, values


def test_under_torch_func_the_whole_batch_is_seen_and_the_gradients_are_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.Tanh())
    model[0].bias.data[3] = -5
    x = torch.randn(7, 4)
    weights = dict(model.named_parameters())

    def loss(w: dict[str, torch.Tensor], one: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, w, (one,)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))
    plain = per_sample(weights, x)
    results: list[Any] = []
    reading = sample(ActivationsProbe(names_of(model)), lambda: results.append(per_sample(weights, x)))
    assert all(torch.equal(results[0][key], plain[key]) for key in plain)
    truth = captured(model, lambda twin: twin(x))
    for layer, mean in values(reading, Signal.ACTIVATION_MEAN).items():
        assert mean == pytest.approx(float(truth[layer].mean()), abs=1e-6)
        assert reading.histograms[0].elements[int(layer)] == truth[layer].numel()
    silent = (truth["1"].view(7, 5) == 0).all(0).float().mean()
    assert values(reading, Signal.UNITS_SILENT) == pytest.approx({"1": float(silent), "3": 0.0})
    assert silent > 0


def test_functionalize_shows_the_values() -> None:
    model = nn.Sequential(nn.Linear(4, 2000), nn.ReLU())
    x = torch.randn(2, 4)
    reading = sample(ActivationsProbe(names_of(model)), lambda: torch.func.functionalize(model)(x))
    truth = captured(model, lambda twin: twin(x))
    assert values(reading, Signal.ACTIVATION_MEAN) == pytest.approx({k: float(truth[k].mean()) for k in "01"})
    assert values(reading, Signal.ACTIVATION_STD)["1"] == pytest.approx(float(truth["1"].std(correction=0)), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own use of it
def test_forward_mode_gradients_are_undisturbed() -> None:
    model = nn.Sequential(nn.Linear(4, 2000), nn.Tanh())
    x = torch.randn(3, 4)
    plain = torch.func.jvp(model, (x,), (x,))
    results: list[Any] = []

    def step() -> None:
        results.extend(torch.func.jvp(model, (x,), (x,)))
        with torch.autograd.forward_ad.dual_level():
            dual = model(torch.autograd.forward_ad.make_dual(x, x))
            results.append(torch.autograd.forward_ad.unpack_dual(dual).tangent.clone())

    reading = sample(ActivationsProbe(names_of(model)), step)
    assert torch.equal(results[0], plain[0])
    assert torch.equal(results[1], plain[1])
    assert torch.allclose(results[2], plain[1])
    assert reading.histograms[0].elements[0] == 2 * 6000


def test_selective_checkpointing_keeps_what_it_kept() -> None:
    """It counts operations: ours must not be among them."""

    def policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE

    class Reduces(nn.Module):
        """Uses an operation that a probe uses too, another way."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.amax(1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(70, 70), Reduces(), nn.Tanh(), Reduces())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(
                self.body,
                x,
                use_reentrant=False,
                context_fn=lambda: create_selective_checkpoint_contexts(policy),
            )

    torch.manual_seed(0)
    model, x = Model(), torch.randn(70, 70)
    total(model(x)).backward()
    plain = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    reading = sample(ActivationsProbe(names_of(model)), lambda: total(model(x)).backward())
    assert all(torch.equal(a, b.grad) for a, b in zip(plain, model.parameters(), strict=True))
    assert (reading.histograms[0].elements == 70 * 70).all()


def test_calls_from_another_thread_are_not_counted_and_that_is_said() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    probe = ActivationsProbe(names_of(model))

    def step() -> None:
        model[0](torch.randn(3, 4))
        thread = threading.Thread(target=lambda: model(torch.randn(50, 4)))
        thread.start()
        thread.join()

    reading = sample(probe, step)
    assert reading.histograms[0].elements.tolist() == [12]
    assert "another thread" in reasons(probe)["1"]


@pytest.mark.parametrize("error", [ValueError("odd"), torch.OutOfMemoryError("full"), MemoryError("full")])
def test_a_hook_that_raises_does_not_reach_the_forward(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(output: Any) -> Any:
        raise error

    monkeypatch.setattr("nbdebug.probes.activations.first_readable", breaks)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    probe = ActivationsProbe(names_of(model))
    probe.begin(1)
    assert model(torch.randn(2, 4)).shape == (2, 4)
    probe.unhook()
    with pytest.raises(type(error), match=str(error)):
        probe.finish()
    probe.drop()
    assert hooks_on(model) == 0
    assert probe._hooks.error is None, "its traceback would hold the user's tensors"


def test_users_own_tensor_types_do_not_run_their_code_in_hooks() -> None:
    class Strange(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") in {"detach", "view", "index_select", "amax"}:
                raise TypeError("not here")
            return super().__torch_function__(func, types, args, kwargs)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.weight).as_subclass(Strange)

    model = nn.Sequential(Model())
    reading = sample(ActivationsProbe(names_of(model)), lambda: model(torch.ones(2, 3)))
    assert values(reading, Signal.ACTIVATION_MEAN) == {"0": 1.0}


def test_two_probes_on_one_model_and_a_copy_made_within_the_step() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    one, other = (ActivationsProbe(names_of(model)) for _ in range(2))
    one.begin(1)
    other.begin(1)
    twin = copy.deepcopy(model)
    model(torch.ones(2, 4))
    twin(torch.ones(50, 4))
    for probe in (one, other):
        probe.unhook()
        arrays = [t.to(torch.float64).numpy() for t in probe.finish()]
        assert probe.read(arrays).histograms[0].elements.tolist() == [8]
    assert hooks_on(model) == 0


def test_dropping_a_step_leaves_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU6(inplace=True), nn.Dropout(0.1))
    probe = ActivationsProbe(names_of(model))
    probe.begin(1)
    model(torch.ones(2, 4))
    probe.drop()
    assert hooks_on(model) == 0
    assert not sample(probe, lambda: None).columns
