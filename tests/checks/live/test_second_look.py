"""A second look at the batch at hand changes nothing, to the last bit, and its numbers are those of plain PyTorch."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import Debugger, Trainer, debugger_live
from nbdebug.checks.check import Say
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.confirming import Confirm
from nbdebug.checks.live.window import Window
from nbdebug.records.checks import CheckOutcome
from nbdebug.records.findings import Cause
from nbdebug.records.looks import Looked, Question
from nbdebug.training import session
from nbdebug.training.second_look import fingerprint, look
from nbdebug.training.untouched import Refused, untouched
from tests.training import zoo
from tests.training.test_do_no_harm import assert_same, reference_states, states

EVERYTHING = tuple(Question)
STEPS = 24


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Looked]:
    """Looks at everything after every step; the list of them."""
    found: list[Looked] = []

    def suspects(window: Window, say: Say) -> bool:
        return True

    def judge(window: Window, say: Say) -> None:
        assert not window.refused, window.refused
        found.extend(window.looks[-1:])

    curious = LiveCheck("curious", "a title", judge, (Cause.BATCH_TOO_SMALL,), steps=0,
                        confirm=Confirm(EVERYTHING, suspects))  # fmt: skip
    judge_plainly = debugger_live.LiveExaminer._judge

    def judged(self: Any, run: str, step: int) -> Any:
        if curious not in self.watch.checks:
            self.watch.checks += (curious,)
        return judge_plainly(self, run, step)

    monkeypatch.setattr(debugger_live.LiveExaminer, "_judge", judged)
    monkeypatch.setattr(debugger_live, "SETTLED_STEPS", 0)
    monkeypatch.setattr(debugger_live, "SHARE", 1e9)
    monkeypatch.setattr(debugger_live, "is_due", lambda step: True)
    monkeypatch.setattr(session, "MOST_STEPS", 1)
    return found


def assert_sound(debugger: Debugger) -> None:
    """Nothing was refused, nothing raised."""
    broken = [each for each in debugger.findings if each.cause is Cause.CHECK_DISABLED]
    assert not broken, broken[0].detail


# -- nothing is changed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("name", zoo.MODELS)
def test_looks_at_every_step_leave_training_as_the_plain_loop_has_it(
    name: str, optimizer: str, seen: list[Looked]
) -> None:
    theirs = reference_states(zoo.make(name, optimizer, jitter=True), steps=STEPS, epochs=9)
    case = zoo.make(name, optimizer, jitter=True)
    debugger = Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader))
    debugger.run(steps=STEPS)
    assert_same(states(case.model, case.optimizer), theirs)
    assert [each.step for each in seen][-20:] == list(range(STEPS - 19, STEPS + 1))
    assert_sound(debugger)
    debugger.close()


class Remembers(nn.Module):
    """Changes all that a module may hold by being called: lists, counters, buffers, tensors, a class's own number."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(10, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 5))
        self.drop = nn.Dropout(0.3)
        self.losses: list[torch.Tensor] = []
        self.counter = collections.Counter[str]()
        self.count = 0
        self.mean: torch.Tensor | None = None
        self.register_buffer("seen", torch.zeros(16))
        self.register_forward_hook(lambda module, args, output: self.losses.append(output.mean()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        self.count += 1
        self.counter["forward"] += 1
        x = self.norm(self.inner(x))
        self.mean = x.detach().mean(0)
        self.seen.add_(self.mean)
        self.losses.append(x.pow(2).mean())
        scale = 1 + 0.01 * (self.count % 7) + 0.01 * self.counter["forward"] + 0.001 * len(self.losses)
        return self.head(self.drop(x * scale + 0.01 * self.seen + 0.001 * type(self).calls))


SEEN: list[float] = []
COUNT = 0


def forgetful_loss() -> Callable[..., Any]:
    """A loss with a history in its closure and in its module, that weighs what is to come."""
    weights = collections.deque([1.0], maxlen=3)
    calls = 0

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        global COUNT
        nonlocal calls
        calls += 1
        COUNT += 1
        loss = F.cross_entropy(output, target) * sum(weights) * (1 + 0.01 * calls + 0.01 * COUNT + 0.01 * len(SEEN))
        weights.append(1 / (1 + float(loss.detach())))
        SEEN.append(float(loss.detach()))
        return loss

    return loss_fn


def remembering() -> tuple[nn.Module, Trainer]:
    global COUNT
    COUNT, Remembers.calls = 0, 0
    SEEN.clear()
    torch.manual_seed(4)
    model = Remembers()
    case = zoo.make("mlp", "sgd", jitter=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1]) + 0.01 * sum(model.losses)
        loss.backward()
        optimizer.step()
        model.losses.clear()
        return loss

    return model, Trainer(optimizer, forgetful_loss(), case.train_loader, step=step)


def in_bfloat16() -> tuple[nn.Module, Trainer]:
    """Under autocast for the whole of the run, which remembers weights that it rounded."""
    case = zoo.make("transformer", "adam", jitter=True)
    return case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader)


def added_up() -> tuple[nn.Module, Trainer]:
    """Gradients of three batches, and a graph that lives from one step to the next."""
    case = zoo.make("cnn, frozen norm, dropout", "sgd", jitter=True)
    waiting: list[torch.Tensor] = []

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = loss_fn(model(batch[0]), batch[1])
        waiting.append(loss)
        if len(waiting) == 3:
            optimizer.zero_grad()
            torch.stack(waiting).mean().backward()
            optimizer.step()
            waiting.clear()
        return loss

    return case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, step=step)


@pytest.mark.parametrize("make", [remembering, in_bfloat16, added_up], ids=lambda make: make.__name__)
def test_programs_that_remember_what_was_called_go_on_as_without_looks(
    make: Callable[[], tuple[nn.Module, Trainer]], seen: list[Looked], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for checks in (False, True):
        torch.manual_seed(0)
        model, trainer = make()
        debugger = Debugger(model, trainer, journal=None, checks=checks)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=make is in_bfloat16):
            debugger.run(steps=STEPS)
        found.append(states(model, trainer.optimizer) | _others(model, debugger))
        debugger.close()
    assert_same(*found)
    assert len(seen) >= STEPS - 1


def _others(model: Any, debugger: Debugger) -> dict[str, torch.Tensor]:
    if not isinstance(model, Remembers):
        return {"losses": torch.from_numpy(debugger.history["loss/train"].values)}
    counts = [model.count, model.counter["forward"], len(model.losses), Remembers.calls, COUNT, len(SEEN)]
    return {"counts": torch.tensor(counts), "seen": torch.tensor(SEEN), "mean": model.mean}


def test_a_step_that_counts_is_never_called_for_a_look(seen: list[Looked]) -> None:
    case, counted = zoo.make("mlp"), []

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        counted.append(1)
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    debugger = Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, step=step), journal=None)
    debugger.run(steps=20)
    assert len(counted) == 20 and len(seen) >= 19
    debugger.close()


def test_a_rerun_looks_and_finds_the_same(seen: list[Looked]) -> None:
    case = zoo.make("cnn, frozen norm, dropout", jitter=True)
    debugger = Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader), journal=None)
    debugger.run(steps=12)
    first = list(seen)
    debugger.rewind(4)
    seen.clear()
    debugger.rerun(steps=8, start=4)
    again = {each.step: each for each in seen}
    assert set(again) == set(range(6, 13))
    for each in first:
        if each.step in again:
            np.testing.assert_equal(_numbers(again[each.step]), _numbers(each))
    debugger.close()


def _numbers(each: Looked) -> list[Any]:
    return [each.training, each.evaluating, each.exchanged, each.zeroed, each.output_change, each.spread, each.batch,
            list(each.dealt)]  # fmt: skip


def test_a_look_at_a_model_that_raises_puts_all_back_and_is_not_tried_again(
    seen: list[Looked], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Touchy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm, self.called = nn.Linear(10, 5), nn.BatchNorm1d(5), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.called += 1
            x = self.norm(self.fc(x))
            if not torch.is_grad_enabled():
                with torch.no_grad():
                    self.fc.weight.zero_()
                raise KeyError("not without gradients")
            return x

    found = []
    for checks in (True, False):
        case = zoo.make("mlp", jitter=True)
        torch.manual_seed(3)
        model = Touchy()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        debugger = Debugger(model, Trainer(optimizer, case.loss_fn, case.train_loader), journal=None, checks=checks)
        if checks:
            monkeypatch.setattr("nbdebug.checks.live.confirming.looks", None)
        debugger.run(steps=10)
        found.append(states(model, optimizer) | {"called": torch.tensor(model.called)})
        debugger.close()
    assert_same(*found)
    assert not seen


# -- its numbers -----------------------------------------------------------------------------------------------------


def looked(model: nn.Module, batch: Any, loss_fn: Any = F.cross_entropy, **options: Any) -> Looked:
    """A look after one step at a rate of zero."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.0)
    debugger = Debugger(model, Trainer(optimizer, loss_fn, [batch], **options), journal=None, checks=False)
    try:
        debugger.run(steps=1)
        holder = debugger._session
        return holder.call("a look", lambda: look(holder, EVERYTHING))
    finally:
        debugger.close()


def data(samples: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(samples, 10, generator=generator)
    return x, (x[:, 0] > 0).long()


def test_losses_are_those_of_plain_pytorch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    x, y = data()
    seen = looked(model, (x, y))
    with torch.no_grad():
        model.eval()
        output = model(x)
        assert seen.evaluating == pytest.approx(float(F.cross_entropy(output, y)))
        assert seen.zeroed == pytest.approx(float(F.cross_entropy(model(torch.zeros_like(x)), y)))
        assert seen.spread == pytest.approx(float(output.std(0, correction=0).max() / output.abs().mean()), rel=1e-4)
        model.train()
        trained = model(x)
        assert seen.training == pytest.approx(float(F.cross_entropy(trained, y)))
        every = [float(F.cross_entropy(trained, y[torch.randperm(64)])) for _ in range(400)]
        assert np.mean(seen.dealt) == pytest.approx(np.mean(every), abs=4 * np.std(every) / np.sqrt(len(seen.dealt)))
    assert len(set(seen.dealt)) > 1
    assert seen.output_change > 0.1 and seen.exchanged != seen.evaluating
    assert seen.samples == 64 and seen.step == 1


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.says = nn.Parameter(torch.tensor([0.3, -0.2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.says.expand(len(x), 2)


def test_a_network_that_says_one_thing_shows_no_change_and_no_spread() -> None:
    seen = looked(Constant(), data())
    assert seen.output_change == 0 and seen.spread < 1e-7
    assert seen.exchanged == seen.evaluating == seen.zeroed == seen.training


@pytest.mark.parametrize(
    ("batch", "unknown"),
    [
        pytest.param((torch.randn(2, 10), torch.tensor([0, 1])), ("exchanged", "output_change"), id="two samples"),
        pytest.param((torch.randn(1, 8, 10)[0], torch.tensor([0] * 8)), (), id="eight samples"),
    ],
)
def test_what_can_not_be_had_is_nan(batch: Any, unknown: tuple[str, ...]) -> None:
    seen = looked(nn.Linear(10, 2), batch)
    for name in ("exchanged", "output_change"):
        assert np.isnan(getattr(seen, name)) == (name in unknown)
    assert bool(len(seen.dealt)) == (not unknown)


def pass_through(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    parts = batch.values() if isinstance(batch, dict) else batch
    loss = model(next(iter(parts))).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@pytest.mark.parametrize(
    ("loss_fn", "batch", "match"),
    [
        pytest.param(None, data(), "no loss function", id="a loss within the step"),
        pytest.param(F.cross_entropy, (*data(), 3), "not a pair", id="a batch of three"),
        pytest.param(F.cross_entropy, {"a": data()[0], "b": data()[1]}, "not a pair", id="a mapping of other names"),
    ],
)
def test_what_can_not_be_looked_at_is_refused(loss_fn: Any, batch: Any, match: str) -> None:
    with pytest.raises(Refused, match=match):
        looked(nn.Linear(10, 2), batch, loss_fn, step=pass_through)


def test_several_networks_are_refused() -> None:
    model = nn.ModuleDict({"a": nn.Linear(10, 2)})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    debugger = Debugger({"a": model["a"]}, Trainer(optimizer, None, [data()], step=lambda m, b, f, o: pass_through(
        m["a"], b, f, o)), journal=None)  # fmt: skip
    debugger.run(steps=1)
    holder = debugger._session
    with pytest.raises(Refused, match="several networks"):
        holder.call("a look", lambda: look(holder, EVERYTHING))
    debugger.close()


def test_batches_are_known_again() -> None:
    x, y = data()
    assert fingerprint((x, y)) == fingerprint((x.clone(), y.clone())) > 0
    other = x.clone()
    other[3, 3] += 1e-6
    assert len({fingerprint(each) for each in ((x, y), (other, y), (x, 1 - y), {"x": x}, ())}) == 5


# -- what is put back ------------------------------------------------------------------------------------------------


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Holder(nn.Module):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held


def draw(held: Any) -> None:
    held.normal()


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "a list": (lambda: [1, 2], lambda held: held.append(3), lambda held: held),
    "a list in a tuple": (lambda: ([1],), lambda held: held[0].clear(), lambda held: held),
    "a dict": (lambda: {"a": [1]}, lambda held: held["a"].append(held.pop("a")), lambda held: str(held)),
    "a set": (lambda: {1, 2}, lambda held: held.discard(1), lambda held: held),
    "a counter": (collections.Counter, lambda held: held.update("aab"), lambda held: dict(held)),
    "a tensor": (lambda: torch.zeros(3), lambda held: held.add_(1), lambda held: held.tolist()),
    "a tensor's shape": (lambda: torch.zeros(3), lambda held: setattr(held, "data", torch.ones(5)),
                         lambda held: held.tolist()),
    "an array": (lambda: np.zeros(3), lambda held: held.__setitem__(1, 5.0), lambda held: held.tolist()),
    "slots": (Slotted, lambda held: setattr(held, "count", 7), lambda held: held.count),
    "numpy's generator": (lambda: np.random.default_rng(0), lambda held: held.normal(),
                          lambda held: held.bit_generator.state),
    "torch's generator": (lambda: torch.Generator().manual_seed(1), lambda held: torch.rand(2, generator=held),
                          lambda held: held.get_state().tolist()),
    "a gradient": (lambda: nn.Parameter(torch.ones(2)), lambda held: held.sum().backward(), lambda held: held.grad),
    "whether it learns": (lambda: nn.Parameter(torch.ones(2)), lambda held: held.requires_grad_(False),
                          lambda held: held.requires_grad),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_module_holds_is_put_back(what: str) -> None:
    make, change, read = CHANGES[what]
    held = make()
    module, before = Holder(held), repr(read(make()))
    with untouched([module]):
        change(held)
        assert repr(read(held)) != before, "the change changes nothing"
        module.held, module.more = None, 3
    assert module.held is held and not hasattr(module, "more")
    assert repr(read(held)) == before


def test_put_back_keeps_a_tensors_memory_and_its_version() -> None:
    module = nn.BatchNorm1d(4)
    buffer = module.running_mean
    address, version = buffer.data_ptr(), buffer._version
    with untouched([module]), torch.no_grad():
        module(torch.randn(8, 4))
        module.running_mean = torch.ones(4)
    assert module.running_mean is buffer and buffer.data_ptr() == address and buffer._version == version
    assert torch.equal(buffer, torch.zeros(4))


@pytest.mark.parametrize(
    ("held", "match"),
    [
        (itertools.count(), "iterator"),
        (iter([1, 2]), "iterator"),
        (torch.eye(3).to_sparse(), "can't be put back"),
        ([object] * 2 + [np.zeros(10**8, dtype=np.int8)], "too much data"),
    ],
    ids=["a counter", "a list's iterator", "a sparse tensor", "a large array"],
)
def test_what_can_not_be_put_back_is_refused_before_anything_is_called(held: Any, match: str) -> None:
    with pytest.raises(Refused, match=match), untouched([Holder(held)]):
        pytest.fail("it was called")


def test_a_check_that_wants_a_look_and_can_not_have_one_is_skipped_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(debugger_live, "SHARE", 1e9)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(16, 10, generator=generator) for _ in range(5)]
    model = nn.Linear(10, 2)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        return 2 + (0 * model(batch)).sum() + 0.0 * batch.mean()

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    debugger = Debugger(model, Trainer(optimizer, None, batches, step=step), journal=None)
    debugger.run(steps=100)
    results = {each.name: each for each in debugger._session.stepper.examiner.results("main")}
    result = results["model_ignores_input_live"]
    assert result.outcome is CheckOutcome.SKIPPED
    assert "a look at the model would be needed: the step makes its loss itself" in result.why
    debugger.close()
