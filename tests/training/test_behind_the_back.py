"""What happens between two commands, or goes wrong within one, is on record or put right before anything else."""

from __future__ import annotations

import _thread
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbdebug import CommandError, ConfigurationError, Debugger, State, Trainer
from nbdebug.records.commands import SetKnobs
from nbdebug.records.runs import OutsideEdit, RunKind
from nbdebug.records.snapshots import Reason
from nbdebug.training import snapshots
from tests.training import zoo
from tests.training.setups import SETUPS, Setup
from tests.training.test_going_back import made_with, only_the_start, slow, until, watched
from tests.training.test_time_travel import assert_same, everything, losses, made


def edit(setup: Setup) -> None:
    with torch.no_grad():
        next(setup.model.parameters()).add_(1.0)


def scheduled() -> tuple[Setup, Debugger]:
    setup = SETUPS["cosine by epoch"]()
    return setup, Debugger(setup.model, setup.trainer)


def batch_norm(setup: Setup) -> nn.BatchNorm2d:
    return next(m for m in setup.model.modules() if isinstance(m, nn.BatchNorm2d))


EDITS: dict[str, Callable[[Setup], Any]] = {
    "a weight": edit,
    "a weight, through .data": lambda s: next(s.model.parameters()).data.neg_(),
    "a frozen layer": lambda s: next(s.model.parameters()).requires_grad_(False),
    "a mode": lambda s: batch_norm(s).train(not batch_norm(s).training),
    "a batch norm's momentum": lambda s: setattr(batch_norm(s), "momentum", 0.5),
    "a buffer": lambda s: batch_norm(s).running_mean.add_(1),
    "the optimizer's state": lambda s: next(iter(s.trainer.optimizer.state.values()))["exp_avg"].mul_(2),
    "the optimizer's options": lambda s: s.trainer.optimizer.param_groups[0].update(betas=(0.5, 0.9)),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_by_hand_are_noticed(name: str) -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=4)
    debugger.run(steps=2)
    assert not debugger._journal.interventions("main")
    EDITS[name](setup)
    debugger.run(steps=4)
    then = everything(setup, debugger)
    debugger.run(steps=2)
    kind = SetKnobs if name == "the optimizer's options" else OutsideEdit  # those are knobs
    assert [(type(m.change), m.step) for m in debugger._journal.interventions("main")] == [(kind, 6)]
    debugger.rewind(10)
    assert_same(everything(setup, debugger), then)
    assert not debugger.findings
    debugger.close()


def test_a_rate_written_over_a_schedules_is_noticed() -> None:
    setup, debugger = scheduled()
    debugger.run(steps=4)
    setup.trainer.optimizer.param_groups[0]["lr"] = 0.33
    debugger.run(steps=3)
    then = everything(setup, debugger)
    debugger.run(steps=2)
    assert [type(m.change) for m in debugger._journal.interventions("main")] == [OutsideEdit]
    debugger.rewind(7)
    assert_same(everything(setup, debugger), then)
    debugger.close()


def test_a_look_at_the_model_is_no_edit() -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=4)
    with debugger.paused(), torch.no_grad():
        modes = {m: m.training for m in setup.model.modules()}
        setup.model.eval()(torch.randn(3, 1, 8, 8))
        for module, mode in modes.items():
            module.training = mode
    debugger.pause()
    debugger.step()
    debugger.snapshot()
    debugger.edit_run("main", note="a look")
    debugger.run(steps=3)
    assert not debugger._journal.interventions("main")
    debugger.close()


def test_a_snapshot_after_an_edit_holds_the_edit() -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=5)
    debugger.snapshot("clean")
    clean = everything(setup, debugger)
    edit(setup)
    debugger.snapshot("edited")
    edited = everything(setup, debugger)
    debugger.rewind(2)
    debugger.checkout("edited")
    assert_same(everything(setup, debugger), edited)
    debugger.checkout("clean")
    assert_same(everything(setup, debugger), clean)
    debugger.rewind(5)
    assert_same(everything(setup, debugger), clean)
    debugger.close()


def test_a_comparison_does_not_lose_an_edit() -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=20)
    branch = debugger.rerun(steps=10, start=8, lr=0.05)
    edit(setup)
    there = everything(setup, debugger)
    debugger.compare(branch, seeds=2)
    assert_same(everything(setup, debugger), there)
    debugger.close()


def test_an_edit_after_a_file_or_a_refusal_is_noticed(tmp_path: Path) -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=5)
    debugger.snapshot(path=tmp_path / "kept.safetensors")
    debugger.checkout(tmp_path / "kept.safetensors")
    edit(setup)
    debugger.run(steps=2)
    changes = debugger._journal.interventions(debugger.status.run)
    assert [type(m.change) for m in changes] == [OutsideEdit]
    with pytest.raises(CommandError):
        debugger.rewind(999)
    edit(setup)
    debugger.run(steps=1)
    assert len(debugger._journal.interventions(debugger.status.run)) == 2
    debugger.close()


@pytest.mark.parametrize("command", ["set", "reinitialize", "snapshot", "step", "resume"])
def test_a_seed_set_before_any_command_counts(command: str) -> None:
    setup, debugger = made("adam, augmentation")
    debugger.start()
    until(lambda: debugger.status.step > 4)
    debugger.pause()
    torch.manual_seed(77)
    {
        "set": lambda: debugger.set(clip_norm=1.0),
        "reinitialize": lambda: debugger.reinitialize("default", seed=1),
        "snapshot": lambda: debugger.snapshot(),
        "step": debugger.step,
        "resume": debugger.resume,
    }[command]()
    debugger.pause()
    assert [str(m.change) for m in debugger._journal.interventions("main")].count("Reseed(seed=77)") == 1
    debugger.run(steps=3)
    at = debugger.status.step
    then = everything(setup, debugger)
    debugger.run(steps=1)
    only_the_start(debugger)
    debugger.rewind(at)
    assert_same(everything(setup, debugger), then)
    debugger.close()


def test_a_metric_that_raises_does_not_shift_the_record() -> None:
    broken = [False]

    def metric(output: torch.Tensor, target: torch.Tensor) -> float:
        if broken[0]:
            raise ValueError("the user's own")
        return 1.0

    case = zoo.make("mlp", samples=100)
    trainer = Trainer(case.optimizer, case.loss_fn, case.train_loader, metrics={"m": metric})
    debugger = Debugger(case.model, trainer)
    debugger.run(steps=6)
    broken[0] = True
    with pytest.raises(ValueError, match="the user's own"):
        debugger.run(steps=2)
    broken[0] = False
    debugger.run(steps=8)
    assert debugger.history["loss/train"].steps.tolist() == list(range(1, 15))
    debugger.rewind(12)
    debugger.rewind(3)
    assert [finding.cause.value for finding in debugger.findings] == ["user_error"]
    debugger.close()


def test_a_branch_that_others_come_from_keeps_its_name() -> None:
    debugger = watched()
    debugger.run(steps=10)
    debugger.rewind(5, lr=0.1)
    child = debugger.rerun(steps=3, start="here", seed=4)
    debugger.checkout("lr 0.1")
    debugger.set(lr=0.2)
    debugger.checkout(child)
    assert debugger.status.run == child.name
    debugger.compare(child, seeds=2)
    with pytest.raises(CommandError, match="came from it"):
        debugger.delete_run("lr 0.1")
    debugger.close()


def test_before_a_change_is_before_it() -> None:
    debugger = watched()
    debugger.run(steps=5)
    debugger.set(lr=0.02)
    debugger.run(steps=5)
    debugger.set(lr=0.03, clip_norm=0.5)
    debugger.run(steps=5)
    assert "lr 0.02 (set at step 5 of main), clip off (as at the start)" in debugger.rewind(10).text
    only_the_start(debugger)
    debugger.checkout("main")
    only_the_start(debugger)
    assert "lr 0.02 (set at step 5 of main), clip off (as at the start)" in debugger.rewind(10).text
    debugger.close()


def test_a_number_that_a_module_carries_comes_back() -> None:
    class Annealed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(10, 5)
            self.calls = 0
            self.last = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            mixed = x if self.last is None else x + 0.1 * self.last
            self.last = x.mean(0, keepdim=True).detach()
            return self.linear(mixed) / (1 + 0.1 * self.calls)

    torch.manual_seed(0)
    case = zoo.make("mlp", samples=100)
    model = Annealed()
    debugger = Debugger(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, case.train_loader))
    debugger.run(steps=30)
    curve = losses(debugger)
    only_the_start(debugger)
    debugger.rewind(17)
    assert model.calls == 17
    debugger.run(steps=13)
    assert losses(debugger) == curve
    assert not debugger.findings
    debugger.close()


# -- room -------------------------------------------------------------------------------------------------------------


def test_the_budget_holds_at_every_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbdebug.training.course.SHARE_AT_CHANGES", 1e9)
    debugger = watched(snapshot_bytes=400_000)
    shelf, most, capture = debugger._session.course.shelf, [0], snapshots.capture

    def captured(*args: Any, **options: Any) -> Any:
        snapshot = capture(*args, **options)
        most[0] = max(most[0], shelf.used_bytes + snapshot.size_bytes)
        return snapshot

    monkeypatch.setattr(snapshots, "capture", captured)
    for _ in range(40):
        debugger.run(steps=2)
        debugger.set(lr=0.001)
    assert len(debugger.snapshots) > 8
    assert most[0] <= 400_000
    debugger.close()


class Unstorable:
    def state_dict(self) -> dict[str, Any]:
        return {"fn": lambda: 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


def test_what_can_not_be_stored_stays_in_memory_as_long_as_there_is_room(tmp_path: Path) -> None:
    case = zoo.make("mlp", samples=100)
    trainer = Trainer(case.optimizer, case.loss_fn, case.train_loader, state={"odd": Unstorable()})
    debugger = Debugger(case.model, trainer, snapshot_bytes=70_000, snapshot_folder=tmp_path)
    debugger.run(steps=5)
    debugger.snapshot("a")
    debugger.run(steps=5)
    with pytest.raises(CommandError, match="no room for a snapshot"):
        debugger.snapshot("b")
    assert "A snapshot could not be kept" in [finding.title for finding in debugger.findings]
    with pytest.raises(CommandError, match="no room for a snapshot"):
        debugger.rewind(3)
    assert debugger.status.step == 10
    debugger.drop_snapshot("a")
    debugger.rewind(3)
    debugger.close()


def test_a_full_disk_takes_nothing_that_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, debugger = made_with("adam, augmentation", snapshot_bytes=300_000, snapshot_folder=tmp_path)
    debugger.run(steps=6)
    debugger.snapshot("mine")
    monkeypatch.setattr("nbdebug.training.shelf.shutil.disk_usage", lambda path: type("Usage", (), {"free": 0}))
    for _ in range(30):
        debugger.run(steps=2)
        debugger.set(lr=0.001)
        debugger.rerun(steps=1, start="here", seed=1) if debugger.status.step % 10 == 0 else None
    kept = debugger.snapshots
    assert kept[0].reason is Reason.START
    assert "mine" in [info.name for info in kept]
    assert setup.model is not None
    debugger.rewind(2)
    debugger.close()


# -- names and words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda d: d.delete_run(""), "no run ''"),
        (lambda d: d.checkout(""), "no run ''"),
        (lambda d: d.checkout(None), "what=None: give a name or text or a run or a snapshot or a path"),
        (lambda d: d.compare(None), "one=None: give a name or text or a run"),
        (lambda d: d.edit_run("main", title=3), "title=3: give a name or text or None"),
        (lambda d: d.edit_run("main", pinned="yes"), "pinned='yes': give True or False or None"),
        (lambda d: d.snapshot(3), "name=3: give a name or text"),
        (lambda d: d.set(lr={}), "lr={} names no parameter group"),
        (lambda d: d.reinitialize(layers="1"), "no layer '1'"),
    ],
)
def test_words_on_what_was_given(ask: Callable[[Debugger], Any], words: str) -> None:
    debugger = watched()
    debugger.run(steps=10)
    debugger.rerun(steps=2, start=5, lr=0.1)
    debugger.checkout("main")
    with pytest.raises((CommandError, ConfigurationError), match=re.escape(words)):
        ask(debugger)
    assert list(debugger.runs) == ["main", "lr 0.1"]
    debugger.close()


def test_a_fresh_debugger_has_nothing_to_go_back_to() -> None:
    debugger = watched()
    with pytest.raises(CommandError, match="nothing to go back to yet"):
        debugger.rewind(0)
    debugger.close()


def test_the_best_epoch_is_the_best_of_those_that_led_here() -> None:
    debugger = watched(zoo.make("mlp", samples=100))
    debugger.run(epochs=5)
    val = debugger.history["loss/val"]
    second = int(val.steps[val.values[:2].argmin()])
    debugger.rewind(int(val.steps[1]) + 3)
    assert debugger.rerun(steps=1, start="best", lr=0.01).step == second
    debugger.close()


def test_a_rerun_without_a_length_goes_as_far_as_its_parent() -> None:
    debugger = watched()
    debugger.run(steps=30)
    debugger.rewind(10)
    debugger.rerun(start=5, lr=0.1)
    assert debugger.status.step == 30
    debugger.close()


# -- comparisons ------------------------------------------------------------------------------------------------------


def test_an_interrupted_comparison_leaves_everything_where_it_was() -> None:
    case, debugger = slow()
    debugger.run(steps=12)
    branch = debugger.rerun(steps=8, start=3, lr=0.1)
    weights = [p.detach().clone() for p in case.model.parameters()]
    threading.Timer(1.0, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        debugger.compare(branch, seeds=6)
    assert_same([p.detach() for p in case.model.parameters()], weights)
    assert (debugger.status.run, debugger.status.step) == (branch.name, 11)
    assert not debugger.status.activity
    assert not [info for info in debugger.snapshots if "before comparing" in info.name]
    debugger.run(steps=2)
    assert debugger.status.run == branch.name
    debugger.close()


def test_what_comparisons_leave_behind_takes_no_room_and_blocks_nothing() -> None:
    debugger = watched()
    debugger.run(steps=20)
    first = debugger.rerun(steps=8, start=3, lr=0.1)
    debugger.rerun(steps=8, start=3, lr=0.2)
    debugger.compare(first, seeds=3)
    noise = {run.name for run in debugger._journal.runs.values() if run.kind is RunKind.NOISE}
    assert noise
    assert not [info for info in debugger.snapshots if info.run in noise]
    assert debugger.compare_cost(first, seeds=3).reruns == 0
    debugger.delete_run(first)
    assert list(debugger.runs) == ["main", "lr 0.2"]
    assert debugger.state is State.IDLE
    debugger.close()


def test_other_seeds_draw_other_weights_too() -> None:
    debugger = watched()
    debugger.run(steps=1)
    debugger.rewind(0)
    debugger.reinitialize("default", seed=1)
    one = debugger.rerun(steps=30, start="here").name
    debugger.checkout("main")
    debugger.rewind(0)
    debugger.reinitialize("default", seed=2)
    other = debugger.rerun(steps=30, start="here").name
    made_of = debugger.compare(one, other, seeds=4)
    assert str(made_of.verdict) == "within noise"
    debugger.close()
