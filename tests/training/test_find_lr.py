"""The learning-rate range test on real training: everything is as if it had never been made."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from nbdebug import Debugger, Trainer
from nbdebug.records.commands import FindLr, Pause
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.finder import LrCurve
from nbdebug.records.status import State
from nbdebug.training.rng import reseed
from tests.training.setups import SETUPS, Setup

WORKERS = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def made(name: str) -> tuple[Debugger, Setup]:
    reseed(11)
    setup = SETUPS[name]()
    reseed(12)
    return Debugger(setup.model, setup.trainer, journal=None), setup


def everything(case: Debugger, setup: Setup) -> list[Any]:
    """All that training left behind: tensors, numbers, random states, the curve."""
    nets = setup.model.items() if isinstance(setup.model, dict) else [("", setup.model)]
    found: list[Any] = [(f"{n}.{k}", v.clone()) for n, net in nets for k, v in net.state_dict().items()]
    found += [(n, p.grad.clone()) for _, net in nets for n, p in net.named_parameters() if p.grad is not None]
    found += [o.state_dict() for o in setup.trainer.optimizers.values()]
    found += [repr(s.state_dict()) for s in setup.trainer.schedulers.values()]
    found += [(name, look()) for name, look in setup.others.items()]
    case._session.call("waiting until the turn is given back", lambda: None)
    random = case._session.random.state()
    found += [random.torch_cpu.clone(), random.numpy, random.python]
    found += [module.training for _, net in nets for module in net.modules()]
    curve = case.history["loss/train"]
    return [*found, curve.steps.tolist(), curve.values.tolist(), case.status.step, case.status.epoch, case.status.batch]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def differing(one: list[Any], other: list[Any]) -> list[Any]:
    return [pair for pair in zip(one, other, strict=True) if not same(*pair)]


def find(case: Debugger, steps: int = 14) -> LrCurve:
    return case.find_lr(1e-6, 0.3, steps)


Course = Callable[[Debugger, Callable[[Debugger], Any]], None]


def at_the_start(case: Debugger, look: Callable[[Debugger], Any]) -> None:
    look(case)
    case.run(epochs=2)


def in_the_midst(case: Debugger, look: Callable[[Debugger], Any]) -> None:
    case.run(steps=3)
    look(case)
    case.run(steps=9)
    look(case)
    case.run(epochs=1)


def at_a_stop(case: Debugger, look: Callable[[Debugger], Any]) -> None:
    case.break_when("median(loss, 5) > 1e9")
    case.break_at(step=6)
    case.start(epochs=2)
    case.wait()
    stop = case.current.stop
    assert stop is not None and stop.step == 6 and stop.before_update
    look(case)
    assert case.current.stop is stop and case.state is State.PAUSED
    case.resume()
    case.wait()
    assert case.state is State.IDLE


def at_a_stop_then_skipped(case: Debugger, look: Callable[[Debugger], Any]) -> None:
    case.break_at(step=6)
    case.start(epochs=1)
    case.wait()
    look(case)
    case.skip()
    case.resume()
    case.wait()


def on_a_branch(case: Debugger, look: Callable[[Debugger], Any]) -> None:
    case.run(epochs=1)
    case.rewind(4)
    look(case)
    case.set(clip_norm=0.5)
    look(case)
    case.run(steps=7)


ALL = (at_the_start, in_the_midst, at_a_stop, at_a_stop_then_skipped, on_a_branch)
COURSES: dict[str, Course] = {course.__name__: course for course in ALL}


@WORKERS
@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("name", SETUPS)
def test_going_on_equals_never_having_tested(name: str, course: str) -> None:
    ends = []
    for look in (find, lambda case: None):
        case, setup = made(name)
        COURSES[course](case, look)
        ends.append(everything(case, setup))
        ends.append(
            [
                list(case.runs),
                [f.title for f in case.findings],
                [i.change for line in case._session.timeline.lines.values() for i in line.interventions],
            ]
        )
        case.close()
    assert differing(ends[0], ends[2]) == []
    assert ends[1] == ends[3]


# -- a small case, looked at closely ------------------------------------------------------------------------------


def batches(count: int = 12) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(8, 3, generator=generator)
    xs = [torch.randn(16, 8, generator=generator) for _ in range(count)]
    return [(x, (x @ truth).argmax(1)) for x in xs]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))


def debugger(loader: Any = None, *, lr: float = 1e-2, loss_fn: Any = F.cross_entropy, **options: Any) -> Debugger:
    model = options.pop("model", None) or network()
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    trainer = Trainer(optimizer, loss_fn, batches() if loader is None else loader, **options)
    return Debugger(model, trainer, journal=None)


def weights(case: Debugger) -> list[torch.Tensor]:
    model = case._model
    assert isinstance(model, nn.Module)
    return [tensor.clone() for tensor in model.state_dict().values()]


@pytest.fixture
def case() -> Iterator[Debugger]:
    made = debugger()
    yield made
    made.close()


def test_the_curve_says_what_was_tested_and_one_press_takes_it(case: Debugger) -> None:
    case.run(steps=5)
    curve = case.find_lr()
    assert (curve.run, curve.step, curve.planned, curve.present) == ("main", 5, 100, 1e-2)
    assert curve.rates.size == curve.losses.size == curve.smooth.size <= 100
    assert curve.rates[0] == pytest.approx(1e-7) and (np.diff(np.log(curve.rates)).std() < 1e-9)
    assert curve.suggestion is not None and 1e-4 < curve.suggestion < 1
    assert curve.suggestion == curve.suggestions[0][1]
    assert "range test after step 5 of main" in str(curve) and "minimum / 10" in repr(curve)
    case.set(lr=curve.suggestion)
    assert case._session.knobs.groups[0].in_force == curve.suggestion
    assert case.lr_curve is curve and case._view(100).lr_curve is curve


def test_the_losses_are_those_of_a_plain_loop() -> None:
    case, model = debugger(), network()
    curve = case.find_lr(1e-5, 1.0, 30)
    optimizer = torch.optim.SGD(model.parameters(), 1.0, momentum=0.9)
    torch.set_rng_state(case._session.random.state().torch_cpu)
    data = batches()
    expected = []
    for index, rate in enumerate(curve.rates):
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data[index % 12][0]), data[index % 12][1])
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert curve.losses.tolist() == expected and curve.rates.size == 30
    case.close()


def test_only_the_outcome_is_on_record(case: Debugger) -> None:
    case.run(steps=3)
    before = (case.status.step, len(case.outcomes), case.snapshots, len(case._journal.marks))
    case.find_lr(steps=12)
    after = (case.status.step, len(case.outcomes) - 1, case.snapshots, len(case._journal.marks))
    assert before == after
    told = case.outcomes[-1]
    assert told.command == FindLr(1e-7, 10.0, 12) and told.ok


def test_groups_keep_their_ratio_and_schedules_stand_still() -> None:
    seen, model = [], network()
    groups = [{"params": model[0].parameters(), "lr": 1e-2}, {"params": model[4].parameters(), "lr": 1e-3}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [1e-2, 1e-3], total_steps=30)

    def step(net: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = loss_fn(net(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        optimizer.step()
        seen.append([group["lr"] for group in optimizer.param_groups])
        schedule.step()
        return loss

    case = debugger(model=model, optimizer=optimizer, step=step, scheduler=schedule, scheduler_interval="manual")
    case.run(steps=25)
    state, taken = repr(schedule.state_dict()), len(seen)
    curve = case.find_lr(1e-5, 1e-2, 40)
    rates = np.array(seen[taken:])
    assert rates[:, 0] == pytest.approx(curve.rates) and rates[:, 1] / rates[:, 0] == pytest.approx(0.1, rel=0.05)
    assert repr(schedule.state_dict()) == state and "step" not in vars(schedule)
    case.run(steps=5)
    case.close()


def test_a_factor_on_a_schedule_is_no_part_of_the_rates() -> None:
    model, seen = network(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.register_step_post_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    case = debugger(model=model, optimizer=optimizer, scheduler=schedule, scheduler_interval="batch")
    case.set(lr=0.05)
    case.run(steps=4)
    rate = case._session.knobs.groups[0].in_force
    moved: list[torch.Tensor] = []
    curve = case.find_lr(1e-4, 1e-2, 10)
    assert case._session.knobs.groups[0].in_force == rate == curve.present
    assert not moved and case._session.knobs.groups[0].factor == 0.5
    case.close()


def test_clipping_stays_in_force() -> None:
    steps = []

    def step(net: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.zero_grad()
        loss = loss_fn(net(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        moved = [(p.detach() - b).norm() for p, b in zip(net.parameters(), before, strict=True)]
        steps.append(float(torch.stack(moved).norm()))
        return loss

    model = network()
    case = debugger(model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1), step=step)
    case.set(clip_norm=1e-3)
    curve = case.find_lr(1e-2, 1.0, 20)
    assert (np.array(steps) <= 1.01e-3 * curve.rates).all()
    case.close()


def test_while_training_runs_it_is_done_in_between_and_training_goes_on() -> None:
    ends = []
    for test in (True, False):
        case = debugger([(x, y) for x, y in batches(40)])
        case.start(epochs=25)
        if test:
            case.find_lr(1e-6, 1.0, 20)
            assert case.state in (State.RUNNING, State.IDLE)
        case.wait()
        assert case.status.epoch == 25
        ends.append(weights(case))
        case.close()
    assert same(*ends)


def test_a_seed_that_was_just_set_still_counts_and_so_does_an_edit() -> None:
    ends = []
    for test in (True, False):
        case = debugger()
        model = case._model
        assert isinstance(model, nn.Module)
        torch.manual_seed(5)
        if test:
            case.find_lr(1e-5, 1.0, 12)
        case.run(steps=5)
        with torch.no_grad():
            model[0].weight.mul_(0.5)
        torch.manual_seed(7)
        if test:
            case.find_lr(1e-5, 1.0, 12)
        case.run(steps=5)
        made = [made.change for made in case._session.timeline.lines["main"].interventions]
        ends.append([weights(case), [type(each).__name__ for each in made]])
        case.close()
    assert same(ends[0][0], ends[1][0])
    assert sorted(ends[0][1]) == sorted(ends[1][1]) == ["OutsideEdit", "Reseed"]


# -- ending early -------------------------------------------------------------------------------------------------


class Slow:
    """A step that takes a while, and tells how many were taken."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.taken, self.seconds = 0, seconds

    def __call__(self, net: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        self.taken += 1
        time.sleep(self.seconds)
        optimizer.zero_grad()
        loss = loss_fn(net(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss


def after(slow: Slow, steps: int, do: Callable[[], Any]) -> threading.Thread:
    """Do something once so many steps were taken."""

    def wait() -> None:
        while slow.taken < steps:
            time.sleep(0.002)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_a_pause_or_stop_ends_it_with_what_there_is(how: str) -> None:
    slow = Slow()
    case = debugger(step=slow)
    case.run(steps=4)
    before = weights(case)
    thread = after(slow, 4 + 30, getattr(case, how))
    curve = case.find_lr()
    thread.join(10)
    assert 30 <= curve.rates.size < 60 and curve.diverged_at is None
    assert "ended after" in curve.note and "of 100 rates" in curve.note
    assert same(weights(case), before)
    case.close()


def test_ended_too_soon_it_is_refused_and_everything_is_as_it_was() -> None:
    slow = Slow()
    case = debugger(step=slow)
    before = weights(case)
    thread = after(slow, 3, case.pause)
    with pytest.raises(CommandError, match=r"called off after \d of 100 rates, too few to tell anything"):
        case.find_lr()
    thread.join(10)
    assert same(weights(case), before) and case.status.activity == ""
    assert not case.outcomes[-2 if isinstance(case.outcomes[-1].command, Pause) else -1].ok
    case.close()


@pytest.mark.parametrize(("steps", "raises"), [(30, False), (3, True)])
def test_an_interrupt_ends_it(steps: int, raises: bool) -> None:
    slow = Slow()
    case = debugger(step=slow)
    before = weights(case)
    thread = after(slow, steps, lambda: os.kill(os.getpid(), signal.SIGINT))
    if raises:
        with pytest.raises(KeyboardInterrupt):
            case.find_lr()
    else:
        assert case.find_lr().rates.size >= 30
    thread.join(10)
    assert same(weights(case), before)
    case.run(steps=2)
    case.close()


def test_close_ends_it() -> None:
    slow = Slow()
    case = debugger(step=slow)
    before = weights(case)
    thread = after(slow, 20, case.close)
    assert case.find_lr().rates.size < 100
    thread.join(10)
    assert same(weights(case), before)


def test_its_progress_is_told_and_nothing_else_is_heard_meanwhile() -> None:
    slow = Slow()
    case = debugger(step=slow)
    seen: list[str] = []

    def look() -> None:
        seen.append(case.status.activity)
        with pytest.raises(CommandError, match=r"testing learning rates: step \d+ of 40"):
            case.set(lr=0.5)

    thread = after(slow, 10, look)
    curve = case.find_lr(steps=40)
    thread.join(10)
    assert re.fullmatch(r"testing learning rates: step 1\d of 40, at \d\.\de-0\d", seen[0])
    assert case._session.knobs.groups[0].in_force == curve.present == 1e-2
    case.close()


# -- odd cases ----------------------------------------------------------------------------------------------------


def test_what_the_step_raises_is_raised_and_everything_is_as_it_was() -> None:
    calls = []

    def loss_fn(output: Any, target: Any) -> Any:
        calls.append(1)
        if len(calls) == 20:
            raise RuntimeError("mine")
        return F.cross_entropy(output, target)

    case, other = debugger(loss_fn=loss_fn), debugger()
    case.run(steps=7)
    with pytest.raises(RuntimeError, match="mine"):
        case.find_lr()
    assert case.state is State.IDLE and case.failure is None
    assert not case.outcomes[-1].ok and case.outcomes[-1].text == "mine"
    case.run(steps=5)
    other.run(steps=12)
    assert same(weights(case), weights(other)) and not case.findings
    case.close()
    other.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 0.0}, "low=0.0"), ({"low": -1e-3}, "low=-0.001"), ({"high": math.inf}, "high=inf"),
        ({"low": "1e-3"}, "low='1e-3'"), ({"low": 0.1, "high": 0.1}, "is not below"),
        ({"low": 1, "high": 0.1}, "low=1"),
        ({"steps": 5}, "from 10 to 10,000"), ({"steps": 10.0}, "steps=10.0"), ({"steps": True}, "steps=True"),
        ({"low": math.nan, "steps": 0}, "(?s)low=nan.*steps=0"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_all_named(case: Debugger, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        case.find_lr(**options)


class Returns(nn.Module):
    """A loss with a gradient, of a size that is chosen."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, output: Any, target: Any) -> Any:
        return F.cross_entropy(output, target) * self.scale + self.shift


@pytest.mark.parametrize(("scale", "shift"), [(1e-9, 0.0), (1.0, -3.0), (1.0, -1.1), (1e6, 0.0)])
def test_losses_of_any_size_and_sign(scale: float, shift: float) -> None:
    case = debugger(loss_fn=Returns(scale, shift))
    rates = (1e-12, 1e-5) if scale == 1e6 else (1e-7, 10.0)
    curve = case.find_lr(*rates)
    assert curve.rates.size > 60 and np.isfinite(curve.smooth[:-1]).all()
    assert bool(curve.suggestions) == (scale != 1e-9), str(curve)
    case.close()


def test_a_loss_that_is_bad_at_once_gives_no_suggestion() -> None:
    case = debugger([(torch.full((4, 8), math.nan), torch.zeros(4, dtype=torch.long))])
    before = weights(case)
    curve = case.find_lr()
    assert (curve.rates.size, curve.suggestion) == (1, None) and "at once" in curve.note
    assert curve.diverged_at == pytest.approx(1e-7) and same(weights(case), before) and not case.findings
    assert "no rate to suggest" in case.outcomes[-1].text
    case.close()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_short_loader_is_gone_through_again(count: int) -> None:
    case = debugger(batches(count))
    assert case.find_lr().rates.size > 50
    case.close()


class Empty:
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def test_an_empty_loader_is_refused_in_words() -> None:
    case = debugger(Empty())
    with pytest.raises(ConfigurationError, match="train_loader is empty"):
        case.find_lr()
    case.close()


def test_lazy_layers_are_refused_before_anything_is_done() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 3))
    case = debugger(model=model, optimizer=torch.optim.SGD(model[1].parameters(), 0.1))
    with pytest.raises(CommandError, match="lazy layers"):
        case.find_lr()
    case.close()


class Fixed(torch.optim.Optimizer):
    """An optimizer without a learning rate."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.data.sub_(parameter.grad, alpha=0.01)


def test_without_a_learning_rate_there_is_nothing_to_test() -> None:
    model = network()
    case = debugger(model=model, optimizer=Fixed(model.parameters()))
    with pytest.raises(CommandError, match="no learning rate to test"):
        case.find_lr()
    case.close()


def test_a_model_in_evaluation_is_trained_on_and_comes_back_so() -> None:
    case = debugger()
    model = case._model
    assert isinstance(model, nn.Module)
    model.eval()
    case.find_lr(steps=12)
    assert not any(module.training for module in model.modules()) and not case.findings
    case.close()


class Doubtful:
    """A loader that can't say where it is, and that goes on where it was left."""

    def __init__(self, count: int) -> None:
        self.data, self.given = batches(count), 0

    def __iter__(self) -> Iterator[Any]:
        for _ in range(len(self.data)):
            self.given += 1
            yield self.data[(self.given - 1) % len(self.data)]


def test_at_the_end_of_such_a_loader_it_is_refused() -> None:
    case, other = debugger(Doubtful(10)), debugger(Doubtful(10))
    case.run(steps=10)
    with pytest.raises(CommandError, match="take a step first"):
        case.find_lr()
    case.run(steps=7)
    other.run(steps=17)
    assert same(weights(case), weights(other))
    case.close()
    other.close()


@pytest.mark.parametrize("steps", [1, 5, 9, 13])
def test_no_batch_is_lost_of_a_loader_that_cannot_say_where_it_is(steps: int) -> None:
    ends = []
    for test in (True, False):
        case = debugger(Doubtful(10))
        case.run(steps=steps)
        if test:
            case.find_lr(1e-6, 1.0, 16)
            case.find_lr(1e-6, 1.0, 16)
        case.run(steps=17)
        ends.append([weights(case), case.history["loss/train"].values.tolist(), case.status.batch, case.status.epoch])
        case.close()
    assert same(*ends)


@pytest.mark.parametrize("steps", [3, 13])
def test_persistent_workers_are_left_alone(steps: int) -> None:
    ends = []
    for test in (True, False):
        torch.manual_seed(3)
        loader = DataLoader(batches(10), batch_size=None, shuffle=True, num_workers=1, persistent_workers=True)
        case = debugger(loader)
        case.run(steps=steps)
        if test:
            case.find_lr(1e-6, 1.0, 16)
        case.run(steps=9)
        ends.append([weights(case), case.history["loss/train"].values.tolist()])
        case.close()
    assert same(*ends)


def test_batches_that_a_step_works_on_in_place_are_its_own() -> None:
    data = batches()
    kept = [(x.clone(), y.clone()) for x, y in data]

    def step(net: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        batch[0].mul_(2.0)
        optimizer.zero_grad()
        loss = loss_fn(net(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    case = debugger(data, step=step)
    case.find_lr(steps=30)
    assert same(data, kept)
    case.close()


def test_after_an_error_it_can_be_asked_for_and_post_mortem_still_works() -> None:
    calls = []

    def loss_fn(output: Any, target: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("mine")
        return F.cross_entropy(output, target)

    case = debugger(loss_fn=loss_fn)
    with pytest.raises(RuntimeError, match="mine"):
        case.run(epochs=1)
    assert case.find_lr(steps=20).rates.size
    assert case.state is State.FAILED
    case.post_mortem()
    assert case.current.stop is not None and case.current.step == 6
    case.close()


def test_from_within_a_step_it_is_refused() -> None:
    raised = []

    def step(net: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        try:
            case.find_lr()
        except CommandError as error:
            raised.append(str(error))
        return loss_fn(net(batch[0]), batch[1])

    case = debugger(step=step)
    case.run(steps=1)
    assert "from within a step" in raised[0]
    case.close()


def test_the_dashboards_command_makes_a_curve() -> None:
    case = debugger()
    case._post(FindLr(1e-6, 1.0, 15))
    end = time.monotonic() + 20
    while case.lr_curve is None and time.monotonic() < end:
        time.sleep(0.01)
    assert case.lr_curve is not None and case.lr_curve.planned == 15
    case._post(FindLr(1.0, 0.1, 15))
    while (not case.outcomes or case.outcomes[-1].ok) and time.monotonic() < end:
        time.sleep(0.01)
    assert "is not below" in case.outcomes[-1].text
    case.close()
