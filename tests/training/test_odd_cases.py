"""What people's models, data and steps also do, and what must hold all the same."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from nbdebug import CommandError, ConfigurationError, Debugger, State, Trainer
from nbdebug.records.commands import Pause
from nbdebug.training import initialization
from tests.training import zoo
from tests.training.test_do_no_harm import assert_same, states, watched

PAIRS = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(5)]


def debugged(model: nn.Module, loader=PAIRS, loss_fn=F.mse_loss, optimizer=None, **options) -> Debugger:
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 0.01)
    return Debugger(model, Trainer(optimizer, loss_fn, loader, **options), budget=None)


def assert_rerun_repeats(debugger: Debugger, start: str = "start", epochs: int = 2) -> None:
    debugger.run(epochs=2)
    first = debugger.history.of("main")["loss/train"].values
    run = debugger.rerun(epochs=epochs, start=start)
    again = debugger.history.of(run.name)["loss/train"].values
    assert again.tolist() == first[-len(again) :].tolist()
    debugger.close()


def test_a_rerun_without_an_extent_trains_as_far_as_the_parent_came() -> None:
    debugger = debugged(nn.Linear(4, 1))
    debugger.run(steps=7)
    debugger.rerun(start="start")
    assert (debugger.state, debugger.status.step) == (State.IDLE, 7)
    debugger.close()


def test_saving_and_copying_the_model_within_a_step() -> None:
    copies = []

    def step(model, batch, loss_fn, optimizer):
        torch.save(model, io.BytesIO())
        copies.append(copy.deepcopy(model))
        loss = loss_fn(model(batch[0]), batch[1])
        copies[-1](batch[0])
        return loss

    debugger = debugged(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1)), step=step)
    debugger.run(steps=3)
    assert debugger.history["activations/1"].counts[-1].sum() == 8 * 4
    assert not debugger.findings
    debugger.close()


def test_hooks_are_off_while_metrics_run() -> None:
    model = nn.Sequential(nn.Linear(4, 1))
    seen = []
    debugger = debugged(model, metrics={"hooks": lambda o, t: seen.append(len(model[0]._forward_hooks)) or 0.0})
    debugger.run(steps=2)
    assert seen == [0, 0]
    debugger.close()


def test_posting_and_closing_at_once_does_not_hang() -> None:
    for _ in range(20):
        debugger = debugged(nn.Linear(4, 1))
        debugger.step()
        debugger._post(Pause())
        began = time.monotonic()
        debugger.close()
        assert time.monotonic() - began < 5
        assert not debugger._session._thread.is_alive()


def test_first_commands_from_many_threads_start_one_training_thread() -> None:
    debugger = debugged(nn.Linear(4, 1))
    threads = [threading.Thread(target=debugger.set, kwargs={"lr": 0.1}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(debugger._session.trainer.optimizer._optimizer_step_pre_hooks) == 1
    assert len(debugger.outcomes) == 8
    debugger.close()


def test_a_step_that_never_ends_does_not_abort_the_interpreter() -> None:
    code = (
        "import torch, time; from nbdebug import Debugger, Trainer; from nbdebug.training import process_end\n"
        "process_end.EXIT_TIMEOUT_S = 0.5\n"
        "m = torch.nn.Linear(2, 2)\n"
        "def step(*args):\n    while True: m(torch.ones(1, 2))\n"
        "d = Debugger(m, Trainer(torch.optim.SGD(m.parameters()), None, [1], step=step)); d.start(); time.sleep(0.3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class LearnedLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, output, target):
        return F.mse_loss(output * self.scale, target)


class Carrying(nn.Module):
    """Keeps a buffer that starts as None, one that is replaced, and a plain tensor, from step to step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 1)
        self.register_buffer("mean", None)
        self.register_buffer("last", torch.zeros(8, 4))
        self.memory = torch.zeros(1)
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x):
        if self.mean is None:
            self.mean = x.mean(0)
        out = self.inner(x - self.mean + 0.1 * self.last) + self.memory
        self.last = x
        self.memory = out.detach().mean()
        return out + torch.rand(1, generator=self.generator)


class OwnNoise(Dataset):
    def __init__(self) -> None:
        self.noise = np.random.default_rng(0)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int):
        return torch.tensor(self.noise.normal(size=4), dtype=torch.float32), torch.ones(1)


@pytest.mark.parametrize("start", ["start", "last_epoch"])
def test_reruns_repeat_what_else_training_depends_on(start: str) -> None:
    epochs = {"start": 2, "last_epoch": 1}[start]
    torch.manual_seed(0)
    loss, model = LearnedLoss(), nn.Linear(4, 1)
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], 0.05)
    assert_rerun_repeats(debugged(model, loss_fn=loss, optimizer=optimizer), start, epochs)
    extra = nn.Parameter(torch.ones(1))
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD([*model.parameters(), extra], 0.05)
    assert_rerun_repeats(
        debugged(model, loss_fn=lambda o, t: F.mse_loss(o * extra, t), optimizer=optimizer), start, epochs
    )
    assert_rerun_repeats(debugged(Carrying()), start, epochs)
    assert_rerun_repeats(
        debugged(nn.Linear(4, 1), DataLoader(Subset(OwnNoise(), range(40)), batch_size=8)), start, epochs
    )


def test_going_back_does_not_write_into_the_users_data() -> None:
    data = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(5)]
    before = copy.deepcopy(data)
    assert_rerun_repeats(debugged(Carrying(), data))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(data, before, strict=True))


def test_lazy_layers_train_and_say_why_their_start_cannot_be_gone_back_to() -> None:
    debugger = debugged(nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 1)))
    debugger.run(epochs=2)
    with pytest.raises(CommandError, match="the model's lazy layers had no shape then"):
        debugger.rerun(epochs=1, start="start")
    debugger.rerun(epochs=1, start="last_epoch")
    debugger.close()


def test_parameter_groups_added_since_are_taken_off_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model[1].parameters(), 0.01)
    debugger = debugged(model, optimizer=optimizer)
    debugger.run(epochs=1)
    optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.001})
    debugger.run(epochs=1)
    assert "lr/1" in debugger.history
    debugger.rerun(epochs=1, start="start")
    assert len(optimizer.param_groups) == 1
    debugger.close()


def test_a_model_that_lost_a_layer_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    debugger = debugged(model)
    debugger.run(epochs=1)
    weights = copy.deepcopy(model.state_dict())
    del model[0]
    with pytest.raises(CommandError, match=r"the model no longer has '1\.weight'"):
        debugger.rerun(epochs=1, start="start")
    assert torch.equal(model[0].weight, weights["1.weight"])
    assert debugger.status.run == "main"
    debugger.close()


def test_losses_are_weighted_by_the_length_of_the_target() -> None:
    data = [(torch.ones(3, 2, 4), torch.ones(2, 1)), (torch.zeros(3, 6, 4), torch.zeros(6, 1))]
    model = nn.Linear(4, 1)
    debugger = debugged(model, data, lambda o, t: F.mse_loss(o[-1], t), val_loader=data)
    debugger.run(epochs=1)
    with torch.no_grad():
        losses = [F.mse_loss(model(x)[-1], y).item() for x, y in data]
    assert debugger.history["loss/val"].values[0] == pytest.approx((2 * losses[0] + 6 * losses[1]) / 8)
    debugger.close()


def test_a_look_while_single_steps_are_taken_keeps_their_number() -> None:
    def slow(model, batch, loss_fn, optimizer):
        time.sleep(0.01)
        return 1.0

    debugger = debugged(nn.Linear(4, 1), step=slow)
    stepping = threading.Thread(target=debugger.step, args=(30,))
    stepping.start()
    for _ in range(3):
        time.sleep(0.03)
        with debugger.paused():
            pass
    stepping.join()
    debugger._session.wait(lambda state: debugger.status.step >= 30, 10)
    time.sleep(0.1)
    assert (debugger.state, debugger.status.step) == (State.PAUSED, 30)
    debugger.close()


def test_waiting_from_within_a_step_is_refused_and_a_look_does_nothing() -> None:
    def step(model, batch, loss_fn, optimizer):
        with debugger.paused():
            pass
        for method in (lambda: debugger.run(epochs=1), debugger.wait, debugger.step, lambda: debugger.rerun(epochs=1)):
            with pytest.raises(CommandError, match="can't be called from within a step"):
                method()
        return 1.0

    debugger = debugged(nn.Linear(4, 1), step=step)
    debugger.run(steps=3)
    assert debugger.state is State.IDLE
    debugger.close()


def test_groups_that_share_one_rate_tensor() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    for schedule in (None, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 1.0)):
        optimizer = torch.optim.Adam([{"params": list(layer.parameters())} for layer in model], lr=torch.tensor(0.1))
        holder = nn.ParameterList(p for group in optimizer.param_groups for p in group["params"])
        options = {"scheduler": schedule(optimizer)} if schedule else {}
        debugger = debugged(holder, optimizer=optimizer, step=lambda *a: a[3].step() or 1.0, **options)
        debugger.set(lr=0.05)
        debugger.run(steps=1)
        assert debugger.history["lr/0"].values[-1] == pytest.approx(0.05)
        assert debugger.history["lr/1"].values[-1] == pytest.approx(0.05)
        debugger.set(lr={"1": 0.01})
        debugger.run(steps=1)
        assert debugger.history["lr/0"].values[-1] == pytest.approx(0.05)
        assert debugger.history["lr/1"].values[-1] == pytest.approx(0.01)
        debugger.close()


def test_rates_keep_their_proportion_over_zero() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.01}], 0.1)
    debugger = debugged(model, optimizer=optimizer)
    debugger.set(lr=0)
    debugger.set(lr=0.2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, pytest.approx(0.02)]
    debugger.close()


def test_one_layer_without_a_float_output_does_not_hide_the_others() -> None:
    class Choice(nn.Module):
        def forward(self, x):
            return x.argmax(1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.choice = nn.Linear(4, 1), Choice()

        def forward(self, x):
            out = self.inner(x)
            self.choice(out)
            return out

    debugger = debugged(Model())
    debugger.run(steps=2)
    assert "activations/inner" in debugger.history
    assert "activations/choice" not in debugger.history
    assert not debugger.findings
    debugger.close()


def test_a_compiled_model_trains_bit_for_bit_with_what_can_be_seen() -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), backend="eager")

    plain, model = build(), build()
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    for x, y in PAIRS:
        optimizer.zero_grad()
        F.mse_loss(plain(x), y).backward()
        optimizer.step()
    debugger = debugged(model, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    debugger.run(epochs=1)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert sum(key.startswith("grad_mean/") for key in debugger.history) == 2
    assert not debugger.findings
    debugger.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit is on its way out, but people still use it
def test_a_scripted_model_trains_with_what_can_be_seen() -> None:
    # TorchScript itself is not deterministic from model to model, so its weights are not compared
    debugger = debugged(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))))
    debugger.run(epochs=1)
    assert sum(key.startswith("grad_mean/") for key in debugger.history) == 2
    assert not debugger.findings
    debugger.close()


def test_weights_computed_from_others_are_left_and_said() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 1))
    redrawn = initialization.reinitialize(model, initialization.InitScheme.KAIMING_NORMAL, 0)
    assert redrawn.layers == ("1",)


def test_the_failing_validation_batch_is_the_one_at_hand() -> None:
    bad = (torch.full((2, 4), 7.0), torch.ones(2, 1))

    def eval_step(model, batch, loss_fn):
        if batch[0][0, 0] == 7.0:
            raise RuntimeError("seven")
        return loss_fn(model(batch[0]), batch[1])

    debugger = debugged(nn.Linear(4, 1), val_loader=[PAIRS[0], bad], eval_step=eval_step)
    with pytest.raises(RuntimeError, match="seven"):
        debugger.run(epochs=1)
    assert torch.equal(debugger.current.batch[0], bad[0])
    assert "in the validation after step 5" in debugger.findings[-1].why
    debugger.close()


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    debugger = watched(zoo.make("mlp"))
    debugger.set(lr=np.float32(0.5), clip_norm=torch.tensor(2.0), dropout={"2": np.float64(0.25)})
    debugger.run(steps=int(np.int64(2)))
    debugger.run(steps=np.int64(1))
    assert debugger.history["lr"].values[-1] == 0.5
    with pytest.raises(ConfigurationError, match="nothing to set"):
        debugger.set()
    with pytest.raises(ConfigurationError, match="no dropout layer '7'"):
        debugger.set(dropout={7: 0.1})
    with pytest.raises(ConfigurationError, match="layers=3: give names of layers"):
        debugger.reinitialize(layers=3)
    debugger.close()


def test_a_metric_that_is_not_a_number_is_named() -> None:
    debugger = debugged(nn.Linear(4, 1), metrics={"hits": lambda o, t: o == t})
    with pytest.raises(
        ConfigurationError, match=r"metric 'hits' must return one number, but returned a tensor of shape"
    ):
        debugger.run(steps=1)
    debugger.close()
    with pytest.raises(ConfigurationError, match="a metric's name must be text; got 3"):
        debugged(nn.Linear(4, 1), metrics={3: F.mse_loss})


def test_a_non_finite_loss_at_the_very_last_step_leaves_nothing_to_resume() -> None:
    debugger = debugged(nn.Linear(4, 1), step=lambda *a: float("nan"))
    debugger.run(steps=1)
    assert debugger.state is State.PAUSED
    debugger.resume()
    assert (debugger.state, debugger.status.step) == (State.IDLE, 1)
    debugger.close()


def test_another_debuggers_new_weights_do_not_disturb_a_run() -> None:
    alone = zoo.make("mlp")
    debugger = watched(alone)
    debugger.run(epochs=3)
    expected = {k: v for k, v in states(alone.model, alone.optimizer).items() if "random" not in k}
    debugger.close()
    case, other = zoo.make("mlp"), zoo.make("lstm")
    case = zoo.make("mlp")
    debugger, disturbing = watched(case), watched(other)
    debugger.start(epochs=3)
    while debugger.state is State.RUNNING:
        disturbing.reinitialize("kaiming_normal", seed=3)
    debugger.wait()
    assert_same({k: v for k, v in states(case.model, case.optimizer).items() if "random" not in k}, expected)
    debugger.close()
    disturbing.close()
