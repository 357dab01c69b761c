"""The forecast: its update ratios are those that the next step then has, and making it changes no bit."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.records.commands import Foretell
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.tools.forecast_memory import Kept, first_of
from nbdebug.training.rng import reseed
from tests.training.setups import SETUPS
from tests.training.test_stops import weights

CHANGES: list[dict[str, Any]] = [{}, {"lr": 0.2}, {"clip_norm": 0.05}, {"lr": 0.01, "weight_decay": 0.3}]


def made(name: str, **options: Any) -> tuple[Any, Debugger]:
    reseed(3)
    setup = SETUPS[name]()
    reseed(4)
    return setup, Debugger(setup.model, setup.trainer, journal=None, budget=None, **options)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("name", ["sgd, momentum, batch norm, dropout", "adam, augmentation", "cosine by epoch"])
def test_the_ratios_are_those_that_the_next_step_then_has(name: str, changes: dict[str, Any]) -> None:
    _, case = made(name)
    case.run(steps=7)
    told = case.forecast(**changes)
    if changes:
        case.set(**changes)
    case.run(steps=1)
    for layer, ratio in zip(told.layers, told.ratios.tolist(), strict=True):
        if f"update_ratio/{layer}" in case.history and not np.isnan(ratio):
            steps, values = case.history[f"update_ratio/{layer}"][:2]
            assert steps[-1] == 8
            np.testing.assert_allclose(ratio, values[-1], rtol=2e-3)
    assert case.history["loss/train"].values[-1] == pytest.approx(told.loss, rel=1e-6)
    assert case.history["grad_norm"].values[-1] == pytest.approx(told.grad_norm, rel=1e-5)
    case.close()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("name", SETUPS)
def test_it_changes_no_bit(name: str) -> None:
    setup, case = made(name)
    case.run(steps=4)
    case.forecast(lr=0.3, clip_norm=0.1)
    case.run(steps=3)
    case.forecast()
    case.forecast(lr=0.1)
    case.run(epochs=1)
    expected, other = made(name)
    other.run(steps=4)
    other.run(steps=3)
    other.run(epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(weights(setup).values(), weights(expected).values(), strict=True))
    assert {k: f() for k, f in setup.others.items()} == {k: f() for k, f in expected.others.items()}
    case.close()
    other.close()


def test_it_tells_what_would_have_been_clipped_and_refuses_what_can_not_be() -> None:
    _, case = made("adam, augmentation")
    case.run(steps=9)
    norms = case.history["grad_norm"].values
    threshold = float(np.median(norms))
    told = case.forecast(clip_norm=threshold)
    assert told.clipped == np.mean(norms > threshold) and told.recent == 9
    assert "would have been clipped" in str(told) and all(layer in str(told) for layer in told.layers)
    with pytest.raises(ConfigurationError, match="unknown knob 'learning_rate'"):
        case.forecast(learning_rate=1)
    case.close()


@pytest.mark.parametrize("name", ["sgd, momentum, batch norm, dropout", "adam, augmentation", "cosine by epoch"])
@pytest.mark.parametrize("options", [{}, {"lr": 3e-3, "weight_decay": 0.2}], ids=str)
def test_with_another_optimizer_the_ratios_are_those_after_the_swap(name: str, options: dict[str, Any]) -> None:
    _, case = made(name)
    case.run(steps=7)
    told = case.forecast(optimizer="AdamW", **options)
    assert told.swap.startswith("AdamW") and "next step under AdamW" in str(told)
    case.swap_optimizer("AdamW", **options)
    after = case.forecast()
    np.testing.assert_array_equal(told.ratios, after.ratios)
    assert told.loss == after.loss
    assert not options or told.ratios.tolist() != told.ratios_now.tolist()
    with pytest.raises(ConfigurationError, match="kind of optimizer 'Lion'"):
        case.forecast(optimizer="Lion")
    case.close()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("name", SETUPS)
def test_a_swap_foretold_changes_no_bit_and_no_object(name: str) -> None:
    setup, case = made(name)
    case.run(steps=4)
    parts = (case._session.trainer.optimizer, case._session.trainer.scheduler)
    try:
        case.forecast(optimizer="NAdam", lr=0.05)
    except (ConfigurationError, CommandError) as error:  # such as one of the user's own kind
        assert "can't be swapped" in str(error) or "takes no" in str(error) or "no batch left" in str(error)
    assert parts == (case._session.trainer.optimizer, case._session.trainer.scheduler)
    case.run(steps=3)
    case.run(epochs=1)
    expected, other = made(name)
    other.run(steps=4)
    other.run(steps=3)
    other.run(epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(weights(setup).values(), weights(expected).values(), strict=True))
    assert {k: f() for k, f in setup.others.items()} == {k: f() for k, f in expected.others.items()}
    case.close()
    other.close()


# --- memory


def perceptron(batch_size: int) -> Debugger:
    reseed(3)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 3))
    data = TensorDataset(torch.randn(120, 6), torch.randint(0, 3, (120,)))
    trainer = Trainer(torch.optim.Adam(model.parameters()), F.cross_entropy, DataLoader(data, batch_size))
    return Debugger(model, trainer, journal=None)


def test_the_memory_of_another_batch_size_is_what_it_then_takes() -> None:
    case, larger = perceptron(20), perceptron(60)
    case.run(steps=2)
    larger.run(steps=1)
    told, there = case.forecast(batch_size=60).memory, larger.forecast(batch_size=120).memory
    assert told is not None and there is not None
    assert (told.batch_size, told.now, there.now) == (60, 20, 60)
    assert told.size_bytes == there.now_bytes, "it grows in a straight line"
    per_sample = 4 * 6 + 4 * 24 + 4 * 3 + 8  # the input, what tanh gave, log-softmax, the target
    assert abs(told.now_bytes - 20 * per_sample) <= 16, told.now_bytes
    assert "memory with batches of 60: about" in str(case.forecast(batch_size=60)) and "CPU" in told.measured
    assert case.forecast(lr=0.1).memory is None
    case.close()
    larger.close()


def test_a_forecast_of_memory_changes_no_bit() -> None:
    case, other = perceptron(20), perceptron(20)
    for each in (case, other):
        each.run(steps=2)
    case.forecast(batch_size=64)
    for each in (case, other):
        each.run(steps=5)
    ours, theirs = (each._model.state_dict().values() for each in (case, other))  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert case.status.batches == other.status.batches
    case.close()
    other.close()


def test_what_autograd_keeps_is_counted_once_and_forgotten_when_it_goes() -> None:
    kept = Kept(set())
    x = torch.randn(10, 8, requires_grad=True)
    with saved_tensors_hooks(kept.pack, kept.unpack):
        y = x.exp()  # keeps its result: 320 bytes
        z = y.exp() + y.sin()  # another result, and y again
        assert kept.peak == 640
        z.sum().backward()
        del y, z
        assert kept.peak == 640 and kept._now == 0
        again = x.exp()
        assert (kept.peak, kept._now) == (640, 320) and again.requires_grad
    expected = (x.detach().exp().exp() + x.detach().exp().cos()) * x.detach().exp()
    torch.testing.assert_close(x.grad, expected)


class Pair(NamedTuple):
    x: torch.Tensor
    names: list[str]


@pytest.mark.parametrize(
    "batch",
    [
        (torch.ones(6, 2), torch.ones(6)),
        [torch.ones(6, 2), {"y": torch.ones(6), "scale": torch.ones(3)}],
        Pair(torch.ones(6, 1), list("abcdef")),
        torch.ones(6),
    ],
    ids=["pair", "mapping", "named", "tensor"],
)
def test_a_batch_is_cut_wherever_it_is_as_long_as_its_samples(batch: Any) -> None:
    half = first_of(batch, 3, 6)
    assert type(half) is type(batch)
    flat = torch.utils._pytree.tree_flatten(half)[0]
    assert all(len(each) == 3 for each in flat if isinstance(each, torch.Tensor))
    assert torch.utils._pytree.tree_flatten(half)[1] is not None
    if isinstance(half, Pair):
        assert half.names == ["a", "b", "c"]


def test_what_can_not_be_cut_is_said() -> None:
    with pytest.raises(CommandError, match="can't be cut in half"):
        first_of({"x": torch.ones(5)}, 3, 6)
    case = perceptron(3)
    case.run(steps=1)
    with pytest.raises(CommandError, match="from a batch of 3"):
        case.forecast(batch_size=64)
    case.close()


# --- on the dashboard


def told_of(case: Debugger) -> Any:
    """Asks as the dashboard does, and waits for what is then shown."""
    count, end = len(case.outcomes), time.monotonic() + 60
    case._post(Foretell())
    while len(case.outcomes) == count:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return case._view(100).forecast


def test_what_was_set_since_the_last_step_is_held_against_what_was_before() -> None:
    _, case = made("sgd, momentum, batch norm, dropout")
    case.run(steps=5)
    plain, changed = case.forecast(), case.forecast(lr=0.5, clip_norm=0.01)
    case.set(lr=0.3)
    case.set(lr=0.5, clip_norm=0.01)
    told = told_of(case)
    np.testing.assert_array_equal(told.ratios_now, plain.ratios)
    np.testing.assert_array_equal(told.ratios, changed.ratios)
    assert (told.run, told.step, told.now) == ("main", 5, "before") and "(before " in told.sentence
    assert told.clipped == changed.clipped
    case.set(lr=0.4)
    assert case._view(100).forecast is None, "it is of other knobs"
    case.set(lr=0.5)
    assert case._view(100).forecast is told
    case.run(steps=1)
    assert case._view(100).forecast is None, "it is of another step"
    told = told_of(case)
    np.testing.assert_array_equal(told.ratios, told.ratios_now)
    assert "(" not in told.sentence.partition(",")[0]
    case.start()
    shown = told_of(case)
    case.stop()
    refused = next(outcome for outcome in reversed(case.outcomes) if isinstance(outcome.command, Foretell))
    assert not refused.ok and "training is running" in refused.text
    assert shown is None or shown is told, "nothing new is told"
    case.run(steps=1)
    assert case._view(100).forecast is None
    case.close()
