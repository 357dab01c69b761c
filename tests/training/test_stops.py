"""Stops within a step: the finite check, the way back to before a bad step, what is at hand there, going on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.status import State
from nbdebug.training.loop import Loop
from nbdebug.training.rng import reseed
from tests.training.setups import SETUPS, Setup
from tests.training.test_ledger import batches, late_device, train

__all__ = ["late_device"]  # a fixture

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def data(count: int = 12) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator)) for _ in range(count)
    ]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))


def debugger(loader: Any, model: nn.Module | None = None, optimizer: Any = None, **options: Any) -> Debugger:
    model = network() if model is None else model
    optimizer = torch.optim.Adam(model.parameters(), 1e-2) if optimizer is None else optimizer(model.parameters())
    journal = options.pop("journal", None)
    trainer = Trainer(optimizer, options.pop("loss_fn", F.cross_entropy), loader, **options)
    return Debugger(model, trainer, journal=journal, checks=False)


def poisoned(*places: int, count: int = 12) -> Batches:
    found = data(count)
    for place in places:
        x = found[place][0].clone()
        x[2, 3] = math.nan
        found[place] = (x, found[place][1])
    return found


def state_of(case: Debugger) -> list[torch.Tensor]:
    model, trainer = case._model, case._session.trainer
    assert isinstance(model, nn.Module)
    held = [value for o in trainer.optimizers.values() for s in o.state.values() for value in s.values()]
    return [t.clone() for t in (*model.state_dict().values(), *held) if isinstance(t, torch.Tensor)]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Leaving:
    """A loader without some of its batches, given as (epoch, index)."""

    def __init__(self, loader: Any, left_out: set[tuple[int, int]]) -> None:
        self.loader, self.left_out, self.epoch = loader, left_out, -1

    def __iter__(self) -> Iterator[Any]:
        self.epoch += 1
        for index, batch in enumerate(self.loader):
            if (self.epoch, index) not in self.left_out:
                yield batch


def plainly(setup: Setup, left_out: set[tuple[int, int]], epochs: int) -> None:
    """Train without a session, these batches left out."""
    setup.trainer.train_loader = Leaving(setup.trainer.train_loader, left_out)
    loop = Loop(setup.model, setup.trainer, nullcontext)
    while loop.epoch < epochs:
        if loop.take_batch():
            result = loop.train_batch()
            loop.batch_metrics(result)
            loop.keep_loss(result.loss.item(), result)
        else:
            loop.finish_epoch()


def weights(setup: Setup) -> dict[str, torch.Tensor]:
    nets = setup.model.items() if isinstance(setup.model, dict) else [("", setup.model)]
    return {f"{name}.{key}": value.clone() for name, net in nets for key, value in net.state_dict().items()}


# -- the finite check ---------------------------------------------------------------------------------------------


def test_a_bad_batch_stops_training_with_the_weights_still_good() -> None:
    case = debugger(poisoned(7))
    case.run(epochs=1)
    assert (case.state, case.status.step) == (State.PAUSED, 7)
    stop = case.current.stop
    assert stop is not None and stop.before_update and stop.step == 8
    assert all(tensor.isfinite().all() for tensor in state_of(case))
    [finding] = case.findings
    assert (finding.cause, finding.severity, finding.step) == ("nan_in_data", "critical", 8)
    assert finding.origin is not None and finding.origin.source == "batch[0]" and finding.origin.samples == (2,)
    assert "stopped" in case.status.message
    case.close()


def test_the_state_at_the_stop_is_that_before_the_step() -> None:
    case, other = debugger(poisoned(7)), debugger(data())
    case.run(epochs=1)
    other.run(steps=7)
    assert same(state_of(case), state_of(other))
    assert torch.equal(case._session.random.state().torch_cpu, other._session.random.state().torch_cpu)
    case.close()
    other.close()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("name", SETUPS)
def test_a_run_without_a_batch_is_that_of_a_loader_that_never_gave_it(name: str) -> None:
    left_out = {(0, 0), (0, 4), (1, 2)}
    reseed(11)
    expected = SETUPS[name]()
    reseed(12)
    plainly(expected, left_out, 2)
    reseed(11)
    setup = SETUPS[name]()
    reseed(12)
    case = Debugger(setup.model, setup.trainer, journal=None, checks=False)
    case.break_when(lambda values: False)
    for step in (1, 4):
        made = case.break_at(step=step)
        case.start(epochs=2) if step == 1 else case.resume()
        case.wait()
        assert case.current.stop is not None and case.current.step == step, case.status.message
        case.skip()
        case.remove_breakpoint(made)
        assert case.status.step == step - 1
    end = case.break_at(epoch=1)
    case.resume()
    case.wait()
    third = case.break_at(step=case.status.step + 3)
    case.remove_breakpoint(end)
    case.resume()
    case.wait()
    case.skip()
    case.remove_breakpoint(third)
    case.resume()
    case.wait()
    assert case.status.epoch == 2, case.status.message
    got, wanted = weights(setup), weights(expected)
    assert got.keys() == wanted.keys() and all(torch.equal(got[key], wanted[key]) for key in got)
    assert {k: f() for k, f in setup.others.items()} == {k: f() for k, f in expected.others.items()}
    case.close()


@pytest.mark.parametrize("places", [(0,), (11,), (5, 6), (0, 11)])
def test_first_last_and_neighbouring_batches_are_left_out(places: tuple[int, ...]) -> None:
    case, other = debugger(poisoned(*places)), debugger([b for i, b in enumerate(data()) if i not in places])
    case.start(epochs=2)
    case.wait()
    for _ in range(2 * len(places)):
        assert case.state is State.PAUSED
        case.skip()
        case.resume()
        case.wait()
    other.run(epochs=2)
    assert case.state is State.IDLE and case.status.step == other.status.step
    assert same(state_of(case), state_of(other))
    assert list(case.runs) == ["main"]
    case.close()
    other.close()


def test_a_skip_is_kept_by_rewind_rerun_and_the_exported_script(tmp_path: Path) -> None:
    case = debugger(poisoned(4))
    case.start(steps=20)
    for _ in range(2):
        case.wait()
        case.skip()
        case.resume()
    case.wait()
    there = state_of(case)
    case.rewind(2)
    case.rewind(15)
    case.checkout("main")
    assert same(state_of(case), there)
    case.rerun(start="start", lr=1e-2)
    assert case.state is State.PAUSED, "a branch from before the skip meets the batch again"
    case.checkout("main")
    text = case.export_script(tmp_path / "script.py").read_text()
    assert text.count("next(batches)") == 2
    case.close()


def test_a_weight_that_the_update_ruins_is_found_and_the_model_is_before_it() -> None:
    class Ruinous(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            steps.append(1)
            if len(steps) >= 6:
                with torch.no_grad():
                    self.param_groups[0]["params"][0][3, 2] = math.inf

    steps: list[int] = []
    case = debugger(data(), optimizer=lambda p: Ruinous(p, 0.1))
    case.run(epochs=1)
    assert case.state is State.PAUSED
    assert all(tensor.isfinite().all() for tensor in state_of(case))
    [finding] = case.findings
    assert finding.severity == "critical"
    case.close()


def test_adam_with_eps_zero_is_caught_before_the_bad_update() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[:, 1] = 0.0
    found = data()
    for x, _ in found:
        x[:, 1] = 0.0
    case = debugger(found, model, lambda p: torch.optim.Adam(p, 1e-2, eps=0.0))
    case.run(epochs=1)
    assert case.state is State.PAUSED and case.status.step == 0
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    [finding] = case.findings
    assert finding.origin is not None and finding.origin.phase == "optimizer"
    case.close()


def test_what_is_noticed_late_is_traced_back_by_replay(late_device: None) -> None:
    bad = batches(60)
    bad[10] = (torch.full((6, 12), math.nan), bad[10][1])
    case, model = train(bad, budget=0.05)
    case.run(60)
    assert case.session.state is State.PAUSED
    assert case.session.loop.step == 10
    assert all(p.isfinite().all() for p in model.parameters())
    [finding] = case.recorder.findings
    assert finding.step == 11 and finding.cause == "nan_in_data"
    case.session.close()


@pytest.mark.parametrize("size", [1e15, 1e19, 1e25])
def test_large_but_finite_gradients_are_no_fault(size: float) -> None:
    def scaled(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output, target) * size

    case = debugger(data(), optimizer=lambda p: torch.optim.SGD(p, 1e-30), loss_fn=scaled)
    case.run(epochs=2)
    assert (case.state, case.findings) == (State.IDLE, ())
    case.close()


def test_masked_logits_are_no_fault() -> None:
    mask = torch.zeros(3).index_fill_(0, torch.tensor([2]), -math.inf)

    def masked(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output + mask, target.clamp(max=1))

    case = debugger(data(), loss_fn=masked)
    case.run(epochs=2)
    assert (case.state, case.findings) == (State.IDLE, ())
    case.close()


def scaled_step(scaler: Any, bad: set[int], count: list[int]) -> Callable[..., torch.Tensor]:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
        count.append(1)
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        if len(count) in bad:
            loss = loss * math.inf
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return step


def test_updates_that_a_scaler_skips_are_no_fault_but_many_in_a_row_are() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    case = debugger(data(60), step=scaled_step(scaler, {3, 4, 5, 9}, []), state={"scaler": scaler})
    case.run(epochs=1)
    assert (case.state, case.findings) == (State.IDLE, ())
    case.close()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    case = debugger(data(60), step=scaled_step(scaler, set(range(10, 99)), []), state={"scaler": scaler})
    case.run(epochs=1)
    assert case.state is State.PAUSED and case.status.step == 29
    assert case.findings[-1].cause in ("half_precision_overflow", "numerical_instability")
    case.close()


def test_a_scaler_in_the_midst_of_a_step_does_not_hinder_the_next() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    case = debugger(data(), step=scaled_step(scaler, set(), []), state={"scaler": scaler})
    case.break_at(step=3)
    case.start(epochs=1)
    case.wait()
    assert case.current.grad("0").isfinite().all()
    case.resume()
    case.wait()
    assert (case.state, case.status.step) == (State.IDLE, 12)
    case.close()


def test_going_on_as_it_is_takes_the_bad_step_and_stops_no_more() -> None:
    case = debugger(poisoned(3), nn.Linear(8, 3), lambda p: torch.optim.SGD(p, 0.1))
    case.start(epochs=1)
    case.wait()
    assert case.status.step == 3
    case.resume()
    case.wait()
    assert (case.state, case.status.step) == (State.IDLE, 12)
    values = case.history["loss/train"].values
    assert [math.isfinite(value) for value in values] == [True] * 3 + [False] * 9
    assert len(case.findings) == 1
    case.close()


def test_a_step_that_catches_everything_is_stopped_all_the_same() -> None:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        try:
            optimizer.step()
        except:  # noqa: E722
            caught.append(1)
        return loss

    caught: list[int] = []
    case = debugger(poisoned(5), step=step)
    case.run(epochs=1)
    assert caught and (case.state, case.status.step) == (State.PAUSED, 5)
    assert all(tensor.isfinite().all() for tensor in state_of(case))
    case.close()


def test_a_stream_that_can_not_be_repeated_stops_with_good_weights() -> None:
    class Once:
        def __iter__(self) -> Iterator[Any]:
            yield from poisoned(5)

    case = debugger(Once())
    case.run(epochs=1)
    assert (case.state, case.status.step) == (State.PAUSED, 5)
    assert all(p.isfinite().all() for p in case._model.parameters())  # type: ignore[union-attr]
    case.skip()
    case.resume()
    case.wait()
    assert (case.state, case.status.step) == (State.IDLE, 11)
    case.close()


def test_a_weight_that_is_bad_from_the_start_is_named() -> None:
    model = network()
    with torch.no_grad():
        model[4].weight[1, 2] = math.nan
    case = debugger(data(), model)
    case.run(epochs=1)
    assert case.state is State.PAUSED and case.status.step == 0
    origin = case.findings[-1].origin
    assert origin is not None and origin.source == "4.weight"
    case.close()


def test_measuring_noise_is_not_held_up() -> None:
    case = debugger(data(), optimizer=lambda p: torch.optim.SGD(p, 0.1))
    case.break_when("loss > 1000")
    case.run(epochs=1)
    branch = case.rerun(epochs=1, start="start", lr=0.2)
    case.break_when("loss > 0")
    case.compare(branch, seeds=3)
    assert case.findings == ()
    case.close()


# -- what is at hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_activation_gradient_and_loss_are_those_of_the_step_and_looking_changes_nothing(when: str) -> None:
    dataset = TensorDataset(torch.cat([x for x, _ in data()]), torch.cat([y for _, y in data()]))
    model = network()
    seen: dict[int, list[torch.Tensor]] = {}
    case = debugger(DataLoader(dataset, 6, shuffle=True), model)
    case.set(clip_norm=0.01)
    if when == "before":
        case.break_at(step=9)
    else:
        case.break_when("loss > 0 and step == 9")
    losses: list[float] = []

    def keep(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        if module.training and torch.is_grad_enabled():
            seen.setdefault(len(seen), []).append(output.detach().clone())

    handle = model[3].register_forward_hook(keep)
    case.start(epochs=1)
    case.wait()
    handle.remove()
    assert case.current.step == 9
    before, random = state_of(case), case._session.random.state()
    activation, gradient, loss = case.current.activation("3"), case.current.grad("0"), case.current.loss
    assert case.current.module("3") is model[3]
    assert any(torch.equal(activation, each[0]) for each in seen.values())
    assert same(state_of(case), before)
    assert torch.equal(case._session.random.state().torch_cpu, random.torch_cpu)
    assert case.current.stop is not None and case.current.step == 9
    case.resume()
    case.wait()
    history = case.history["loss/train"]
    losses = history.values.tolist()
    assert losses[8] == loss and gradient.norm() > 0.01, "before clipping"
    reference = debugger(DataLoader(dataset, 6, shuffle=True), network())
    reference.set(clip_norm=0.01)
    reference.run(epochs=1)
    assert same(state_of(case), state_of(reference))
    assert reference.history["loss/train"].values.tolist() == losses
    case.close()
    reference.close()


def test_names_that_are_not_there_are_met_with_the_nearest() -> None:
    case = debugger(data())
    case.break_at(step=2)
    case.start(epochs=1)
    case.wait()
    with pytest.raises(ConfigurationError, match="no layer '44'"):
        case.current.activation("44")
    with pytest.raises(ConfigurationError, match="no parameter of its own"):
        case.current.grad("2")
    with pytest.raises(CommandError, match="called 1 times"):
        case.current.activation("0", call=1)
    case.close()


def test_looking_while_training_runs_is_refused() -> None:
    case = debugger(data())
    case.start()
    with pytest.raises(CommandError, match="pause it"):
        case.current.grad("0")
    case.close()


def test_after_an_error_one_can_look_and_leave_the_batch_out() -> None:
    class Picky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x[0, 0] > 1e5:
                raise ValueError("too large")
            return x

    found = data()
    found[6] = (found[6][0] + 1e7, found[6][1])
    model = nn.Sequential(nn.Linear(8, 16), nn.Sequential(nn.Dropout(0.1), Picky()), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    torch.manual_seed(3)
    case = debugger(found, model)
    with pytest.raises(ValueError, match="too large"):
        case.run(epochs=1)
    current = case.post_mortem()
    assert case.state is State.PAUSED and current.step == 7
    assert current.stack == ("1", "1.1")
    assert current.activation("0").shape == (6, 16)
    assert torch.equal(current.batch[0], found[6][0])
    with pytest.raises(CommandError, match="no gradient"):
        current.grad("0")
    case.skip()
    case.resume()
    case.wait()
    assert (case.state, case.status.step) == (State.IDLE, 11)
    with pytest.raises(CommandError, match="nothing to look at"):
        case.post_mortem()
    with pytest.raises(CommandError, match="no batch is at hand"):
        case.skip()
    case.close()


def test_a_step_that_is_over_can_be_looked_into_wherever_training_stands() -> None:
    case, other = debugger(data()), debugger(data())
    case.run(epochs=1)
    other.run(steps=11)
    assert case.current.activation("4").shape == (6, 3) and case.current.step == 12
    other.break_at(step=12)
    other.start(steps=5)
    other.wait()
    for layer in ("0", "1.bias", "4"):
        assert torch.equal(case.current.grad(layer), other.current.grad(layer))
    assert torch.equal(case.current.activation("3"), other.current.activation("3"))
    assert case.current.loss == case.history["loss/train"].values[-1]
    case.run(epochs=1)
    other.resume()
    other.wait()
    other.run(steps=8)
    assert same(state_of(case), state_of(other))
    assert not case._journal.interventions("main"), "a look is no edit by hand"
    case.close()
    other.close()


def test_a_pause_on_the_way_to_a_stop_does_not_call_it_off() -> None:
    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.01)
            return x

    model = nn.Sequential(*network(), Slow())
    case = debugger(poisoned(30, count=40), model)
    case.start(epochs=1)
    while case.state is not State.REWINDING:
        time.sleep(0.001)
    case.pause()
    case.wait()
    assert (case.state, case.status.step, case.current.step) == (State.PAUSED, 30, 31)
    case.resume()
    case.wait()
    assert case.status.step == 40 and list(case.runs) == ["main"]
    case.close()


def test_after_a_stop_one_can_rewind_change_and_step() -> None:
    case = debugger(data(), optimizer=lambda p: torch.optim.SGD(p, 0.1))
    case.break_at(step=6)
    case.start(epochs=1)
    case.wait()
    case.set(lr=0.01)
    assert case.current.stop is not None
    case.step()
    assert (case.status.step, case.current.stop) == (6, None)
    case.rewind(3)
    assert case.current.stop is None
    case.resume()
    case.wait()
    assert case.current.step == 6, "a branch meets the breakpoint again"
    case.snapshot("here")
    case.checkout("main")
    assert case.current.stop is None and case.status.step == 6
    case.checkout("here")
    case.run(steps=3)
    assert case.current.step == 6 and case.current.stop is not None
    case.close()
