"""States, waiting, failing, interrupting: the session as scripts see it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import ClosedError, CommandError, Debugger, State, Trainer
from nbdebug.training.turn import PROCESS_TURN
from tests.training import zoo
from tests.training.test_do_no_harm import watched


def simple(step=None, loader=None, loss_fn=F.mse_loss, **options) -> Debugger:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    batches = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(5)] if loader is None else loader
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Debugger(model, Trainer(optimizer, loss_fn, batches, step=step, **options))


def until(condition, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.005)


def test_states_follow_the_commands() -> None:
    debugger = simple()
    assert debugger.state is State.IDLE
    debugger.start()
    assert debugger.state is State.RUNNING
    debugger.pause()
    assert debugger.state is State.PAUSED
    at = debugger.status.step
    debugger.step()
    debugger.step(2)
    assert (debugger.state, debugger.status.step) == (State.PAUSED, at + 3)
    debugger.resume()
    until(lambda: debugger.status.step > at + 20)
    debugger.stop()
    assert debugger.state is State.IDLE
    assert [type(outcome.command).__name__ for outcome in debugger.outcomes] == [
        "Start", "Pause", "Step", "Step", "Resume", "Stop",
    ]  # fmt: skip
    debugger.close()


def test_goals_in_epochs_and_steps() -> None:
    debugger = simple()
    debugger.run(epochs=2)
    assert (debugger.status.epoch, debugger.status.step) == (2, 10)
    debugger.run(steps=3)
    assert (debugger.status.epoch, debugger.status.batch) == (2, 3)
    debugger.run(epochs=1)
    assert (debugger.status.epoch, debugger.status.step) == (3, 15), "an epoch begun counts as one"
    debugger.close()


def test_a_loader_without_a_length() -> None:
    class Endless:
        def __iter__(self):
            return iter([(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(5)])

    debugger = simple(loader=Endless())
    debugger.run(epochs=2)
    assert (debugger.status.epoch, debugger.status.step, debugger.status.batches) == (2, 10, None)
    debugger.close()


def test_a_users_exception_is_raised_from_their_frame_on_with_batch_and_model_at_hand() -> None:
    def step(model, batch, loss_fn, optimizer):
        if len(calls) == 2:
            raise RuntimeError("no such <thing>")
        calls.append(batch)
        return torch.tensor(1.0)

    calls: list[object] = []
    debugger = simple(step)
    with pytest.raises(RuntimeError, match="no such <thing>"):
        debugger.run(epochs=1)
    assert debugger.state is State.FAILED
    assert debugger.failure is not None
    assert "in step" in debugger.failure.traceback.splitlines()[1].replace(", in ", " in ") or "step" in (
        debugger.failure.traceback
    )
    assert "nbdebug/training" not in debugger.failure.traceback
    assert torch.equal(debugger.current.batch[0], debugger.failure.batch[0])
    assert debugger.findings[-1].title == "RuntimeError: no such <thing>"
    calls.clear()
    debugger.run(steps=2)
    assert debugger.state is State.IDLE, "after mending, it goes on"
    debugger.close()


def test_a_non_finite_loss_pauses_once_and_can_be_resumed() -> None:
    def step(model, batch, loss_fn, optimizer):
        return torch.tensor(float("nan") if batch in (3, 4) else 1.0)

    debugger = simple(step, loader=list(range(1, 9)))
    debugger.run(steps=8)
    assert (debugger.state, debugger.status.step) == (State.PAUSED, 3)
    assert "NaN" in debugger.status.message
    assert [finding.severity for finding in debugger.findings] == ["critical"]
    debugger.resume()
    debugger.wait()
    assert (debugger.state, debugger.status.step) == (State.IDLE, 8)
    assert (
        torch.tensor(debugger.history["loss/train"].values).isnan().tolist() == [False] * 2 + [True] * 2 + [False] * 4
    )
    debugger.close()


def test_what_a_users_step_forgot_stays_observable() -> None:
    def forgets_the_update(model, batch, loss_fn, optimizer):
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        return loss

    debugger = simple(forgets_the_update)
    debugger.run(steps=4)
    assert debugger.history["updates"].values.tolist() == [0, 0, 0, 0]
    growing = debugger.history["grad_mean/Linear"].values
    assert len(growing) >= 1
    debugger.close()


def test_several_models_and_optimizers() -> None:
    torch.manual_seed(0)
    models = {"generator": nn.Linear(2, 3), "critic": nn.Linear(3, 1)}
    optimizers = {name: torch.optim.Adam(m.parameters(), 1e-3) for name, m in models.items()}

    def step(models, batch, loss_fn, optimizers):
        optimizers["critic"].zero_grad()
        critic_loss = models["critic"](models["generator"](batch).detach()).mean()
        critic_loss.backward()
        optimizers["critic"].step()
        optimizers["generator"].zero_grad()
        loss = -models["critic"](models["generator"](batch)).mean()
        loss.backward()
        optimizers["generator"].step()
        return loss

    debugger = Debugger(models, Trainer(optimizers, None, [torch.randn(4, 2)] * 3, step=step), budget=None)
    debugger.run(epochs=2)
    assert debugger.history["updates"].values.tolist() == [2.0] * 6
    assert {"grad_mean/generator", "grad_mean/critic", "lr/critic", "activations/generator"} <= set(debugger.history)
    debugger.set(lr={"critic": 0.5})
    debugger.run(steps=1)
    assert (debugger.history["lr/critic"].values[-1], debugger.history["lr/generator"].values[-1]) == (0.5, 1e-3)
    debugger.close()


def test_a_model_wholly_in_evaluation_mode_is_put_in_training_mode_and_it_is_said() -> None:
    case = zoo.make("mlp")
    case.model.eval()
    debugger = watched(case)
    debugger.run(steps=1)
    assert all(module.training for module in case.model.modules())
    assert debugger.findings[0].cause == "eval_mode_in_training"
    debugger.close()


def test_mappings_and_objects_as_batches() -> None:
    data = [{"x": torch.randn(4, 3), "y": torch.randn(4, 1)} for _ in range(3)]
    debugger = simple(loader=data)
    debugger.run(epochs=1)
    debugger.close()

    class Batch:
        def __init__(self) -> None:
            self.points, self.values = torch.randn(6, 3), torch.randn(6, 1)

    def step(model, batch, loss_fn, optimizer):
        optimizer.zero_grad()
        loss = loss_fn(model(batch.points), batch.values)
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    debugger = simple(step, loader=[Batch(), Batch()])
    debugger.run(epochs=2)
    assert debugger.status.step == 4
    debugger.close()


def test_a_closed_debugger_says_so() -> None:
    debugger = simple()
    debugger.run(steps=2)
    debugger.close()
    debugger.close()
    with pytest.raises(ClosedError, match="make a new Debugger"):
        debugger.run(steps=1)


def test_two_debuggers_cannot_train_one_optimizer_at_once() -> None:
    first = simple()
    second = Debugger(first._model, first._session.trainer)
    first.start()
    with pytest.raises(CommandError, match="another Debugger is training with this optimizer"):
        second.run(steps=1)
    first.close()
    second.run(steps=1)
    second.close()


def test_commands_from_within_the_users_step_do_not_deadlock() -> None:
    def step(model, batch, loss_fn, optimizer):
        debugger.set(lr=0.5)
        return torch.tensor(1.0)

    debugger = simple(step)
    debugger.run(steps=3)
    assert debugger.history["lr"].values.tolist() == [0.1, 0.5, 0.5]
    debugger.close()


def test_a_seed_set_right_before_the_run_counts() -> None:
    weights = []
    for _ in range(2):
        debugger = simple(
            loader=torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(torch.arange(60.0).view(20, 3), torch.ones(20, 1)), shuffle=True
            )
        )
        torch.rand(1 + len(weights))
        torch.manual_seed(9)
        debugger.run(steps=7)
        weights.append(debugger.current.batch[0])
        debugger.close()
    assert torch.equal(*weights)


def test_an_interrupt_while_run_blocks_pauses_and_leaves_everything_usable() -> None:
    def slow(model, batch, loss_fn, optimizer):
        time.sleep(0.01)
        return torch.tensor(1.0)

    debugger = simple(slow)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        debugger.run(epochs=10_000)
    assert debugger.state is State.PAUSED
    at = debugger.status.step
    debugger.step()
    assert debugger.status.step == at + 1
    debugger.close()


@pytest.mark.parametrize("attempt", range(3))
def test_the_interpreter_exits_cleanly_while_training_runs(attempt: int) -> None:
    code = (
        "import torch, time; from nbdebug import Debugger, Trainer\n"
        "m = torch.nn.Sequential(torch.nn.Linear(50, 50), torch.nn.ReLU(), torch.nn.Linear(50, 1))\n"
        "t = Trainer(torch.optim.Adam(m.parameters()), torch.nn.functional.mse_loss,"
        " [(torch.randn(32, 50), torch.randn(32, 1))] * 10)\n"
        "d = Debugger(m, t); d.start(); time.sleep(0.3); assert d.status.step > 0"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("moment_s", [0.0, 0.002, 0.005, 0.02, 0.05])
def test_closing_in_the_middle_of_a_run_gives_the_turn_back(moment_s: float) -> None:
    for _ in range(4):
        running = simple()
        running.start()
        time.sleep(moment_s)
        running.close()
        assert not PROCESS_TURN._taken, "another debugger would wait for ever"
    other = simple()
    other.run(steps=3)
    other.close()


def test_the_turn_is_given_back_even_where_recording_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = simple()
    broken.run(steps=2)
    broken._session.turns.hold()
    monkeypatch.setattr(broken._session.stepper, "settle", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken._session.come_to_rest()
    assert not PROCESS_TURN._taken
    monkeypatch.undo()
    broken.close()
