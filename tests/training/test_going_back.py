"""Rewinds, branches, snapshots: what is refused, what is called off, what changed behind the debugger's back."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from nbdebug import CommandError, ConfigurationError, Debugger, State, Trainer
from nbdebug.records.commands import Compare, Rewind
from nbdebug.records.findings import Cause
from nbdebug.records.runs import OutsideEdit, RunKind
from nbdebug.records.snapshots import Reason
from tests.training import zoo
from tests.training.setups import SETUPS, Augmented, data
from tests.training.test_time_travel import assert_same, everything, losses, made


def watched(case: zoo.Case | None = None, **options: Any) -> Debugger:
    case = case or zoo.make("mlp", samples=100)
    return Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader), **options)


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def causes(debugger: Debugger) -> list[Cause]:
    return [finding.cause for finding in debugger.findings]


# -- where one can go, and what it says -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda d: d.rewind(31), CommandError, "step 31 of 'main' was never recorded: it has steps 0 to 30"),
        (lambda d: d.rewind(-31), CommandError, "step -1 of 'main' was never recorded"),
        (lambda d: d.rewind(2.5), ConfigurationError, "step=2.5: give the number of a step, or a negative number"),
        (lambda d: d.rewind(True), ConfigurationError, "step=True: give the number of a step"),
        (lambda d: d.rewind(3, lr=-1), ConfigurationError, "lr=-1 is out of range"),
        (lambda d: d.rerun(start="bset"), ConfigurationError, "start='bset': a rerun starts at one of 'start'"),
        (lambda d: d.rerun(start=99), CommandError, "step 99 of 'main' was never recorded"),
        (lambda d: d.rerun(start="here"), CommandError, "say how long: rerun(epochs=1)"),
        (lambda d: d.rerun(start=3, seed=-1), ConfigurationError, "seed=-1: give a whole number"),
        (lambda d: d.checkout("nowhere"), CommandError, "no run 'nowhere': there are 'main'"),
        (lambda d: d.drop_snapshot("nothing"), CommandError, "no snapshot 'nothing': the latest are"),
        (lambda d: d.drop_snapshot("main@0"), CommandError, "'main@0' is the start"),
        (lambda d: d.delete_run("main"), CommandError, "'main' can't be deleted: the model holds it"),
        (lambda d: d.compare("main"), CommandError, "'main' has no parent to be compared with"),
        (lambda d: d.compare("main", "main"), CommandError, "nothing to compare"),
        (lambda d: d.compare("main", seeds=-1), ConfigurationError, "seeds=-1: give how many other seeds"),
        (lambda d: d.snapshot(path="/nowhere/at/all.safetensors"), CommandError, "/nowhere/at"),
        (lambda d: d.save_model("/nowhere/at/all.safetensors"), CommandError, "/nowhere/at"),
    ],
)
def test_refusals(ask: Callable[[Debugger], Any], error: type[Exception], words: str) -> None:
    debugger = watched()
    debugger.run(steps=30)
    end = losses(debugger)
    with pytest.raises(error, match=re.escape(words)):
        ask(debugger)
    debugger.run(steps=1)
    assert losses(debugger)[:30] == end
    assert debugger.runs.keys() == {"main"}
    debugger.close()


def test_the_outcome_says_which_knobs_are_in_force_and_why() -> None:
    debugger = watched()
    debugger.run(steps=5)
    debugger.set(lr=0.02)
    debugger.run(steps=5)
    debugger.set(clip_norm=0.5, lr=0.03)
    debugger.run(steps=5)
    text = debugger.rewind(8).text
    assert "lr 0.02 (set at step 5 of main), clip off (as at the start), dropout 0.2 (as at the start)" in text
    text = debugger.rewind(12, dropout=0.6).text
    assert "in force lr 0.03 (set at step 10 of main), clip norm 0.5 (set at step 10 of main), dropout 0.6" in text
    assert "dropout 0.6 (set at step 12 of dropout 0.6)" in text
    assert (debugger.status.run, debugger.status.step, debugger.state) == ("dropout 0.6", 12, State.PAUSED)
    debugger.close()


def test_a_change_after_a_rewind_begins_a_branch_that_is_named_by_all_its_first_changes() -> None:
    debugger = watched()
    debugger.run(steps=20)
    debugger.rewind(7)
    assert (debugger.status.run, debugger.status.step, debugger.status.last_step) == ("main", 7, 20)
    debugger.set(lr=0.5)
    debugger.set(lr=0.02)
    debugger.set(clip_norm=1.0)
    assert list(debugger.runs) == ["main", "lr 0.02, clip norm 1"]
    branch = debugger.rerun(steps=6, start="here")
    assert (branch.name, branch.parent, branch.step) == ("lr 0.02, clip norm 1", "main", 7)
    assert debugger.history["loss/train"].steps.tolist() == list(range(1, 14))
    assert debugger.history["lr"].values[6:8].tolist() == [0.001, 0.02]
    assert [(m.run, m.step) for m in debugger._journal.marks if m.run != "main"]
    debugger.rewind(7)
    assert debugger.status.run == "main", "a branch's first place is its parent's"
    debugger.run(steps=2)
    assert list(debugger.runs) == ["main", "lr 0.02, clip norm 1", "rerun"]
    debugger.close()


def test_reruns_from_a_step_a_snapshot_the_best_and_here() -> None:
    debugger = watched()
    debugger.run(epochs=4)
    val = debugger.history["loss/val"]
    best = int(val.steps[np.argmin(val.values)])
    assert debugger.rerun(steps=3, start=13, lr=0.01).step == 13
    debugger.checkout("main")
    kept = debugger.snapshot("mine")
    assert debugger.rerun(steps=2, start=-5).step == 35
    assert debugger.rerun(steps=2, start=kept).step == 40
    assert debugger.rerun(steps=2, start="mine").step == 40
    debugger.checkout("main")
    assert debugger.rerun(steps=2, start="best", lr=0.1).step == best
    debugger.checkout("main")
    run = debugger.rerun(steps=2, start="here", seed=4)
    assert (run.step, run.seed, run.name) == (40, 4, "seed 4")
    debugger.close()


def test_another_seed_draws_other_batches_also_within_an_epoch() -> None:
    seen: list[list[int]] = []

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        seen.append(batch[1].tolist())
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    case = zoo.make("mlp", samples=100)
    debugger = Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, step=step))
    debugger.run(steps=10)
    first = seen[4:10]
    for seed, same in ((None, True), (1, False), (1, False), (2, False)):
        seen.clear()
        debugger.rerun(steps=6, start=4, seed=seed)
        assert (seen[-6:] == first) is same
    again = debugger.history.of("seed 1"), debugger.history.of("seed 1 (2)"), debugger.history.of("seed 2")
    assert again[0]["loss/train"].values.tolist() == again[1]["loss/train"].values.tolist()
    assert again[0]["loss/train"].values.tolist() != again[2]["loss/train"].values.tolist()
    debugger.close()


def test_runs_get_titles_notes_and_pins_and_are_deleted() -> None:
    debugger = watched()
    debugger.run(steps=10)
    debugger.rerun(steps=4, start=5, lr=0.1)
    twig = debugger.rerun(steps=2, start=8, lr=0.2)
    debugger.edit_run("lr 0.1", title="hot", note="too hot?")
    assert (debugger.runs["lr 0.1"].shown, debugger.runs["lr 0.1"].note) == ("hot", "too hot?")
    with pytest.raises(CommandError, match="'hot' is another run's name already"):
        debugger.edit_run("main", title="hot")
    with pytest.raises(CommandError, match=r"'hot' can't be deleted|'lr 0.1' can't be deleted"):
        debugger.delete_run("hot")
    debugger.checkout("hot")
    debugger.edit_run(twig, pinned=True)
    with pytest.raises(CommandError, match="is pinned: take the pin off first"):
        debugger.delete_run(twig)
    debugger.edit_run(twig, pinned=False)
    debugger.delete_run(twig)
    assert list(debugger.runs) == ["main", "lr 0.1"]
    assert not [info for info in debugger.snapshots if info.run == twig.name]
    debugger.close()


# -- on the way -------------------------------------------------------------------------------------------------------


def slow(debugger_options: dict[str, Any] | None = None, broken_after: list[int] | None = None) -> tuple[Any, Debugger]:
    """Steps that take 20 ms, and raise from the ``broken_after[0]``-th call on."""
    case, calls = zoo.make("mlp", samples=100), [0]

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        calls[0] += 1
        if broken_after and calls[0] > broken_after[0]:
            raise RuntimeError("the user's own")
        time.sleep(0.02)
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    trainer = Trainer(case.optimizer, case.loss_fn, case.train_loader, step=step)
    return case, Debugger(case.model, trainer, **(debugger_options or {}))


def only_the_start(debugger: Debugger) -> None:
    for info in debugger.snapshots[1:]:
        debugger.drop_snapshot(info)


@pytest.mark.parametrize("end", ["pause", "stop"])
def test_a_rewind_called_off_leaves_the_model_where_it_was(end: str) -> None:
    case, debugger = slow()
    debugger.run(steps=40)
    weights = [p.clone() for p in case.model.parameters()]
    only_the_start(debugger)
    assert debugger.rewind_cost(35).steps == 35
    assert 0.5 < debugger.rewind_cost(35).seconds < 10
    ticket = debugger._session.post(Rewind(35))
    until(lambda: debugger.state is State.REWINDING and debugger.status.replay.done > 3)
    replay = debugger.status.replay
    assert (replay.step, replay.total, debugger.status.last_step) == (35, 35, 40)
    with pytest.raises(CommandError, match="not now: on the way back to step 35; pause"):
        debugger.set(lr=0.1)
    getattr(debugger, end)()
    outcome = ticket.wait(10)
    assert not outcome.ok
    assert "called off; the model is where it was, at step 40 of 'main'" in outcome.text
    assert debugger.status.step == 40
    assert_same([p.detach() for p in case.model.parameters()], weights)
    debugger.run(steps=2)
    assert debugger.runs.keys() == {"main"}
    debugger.close()


def test_an_error_of_the_users_on_the_way_back() -> None:
    limit = [60]
    case, debugger = slow(broken_after=limit)
    debugger.run(steps=30)
    weights = [p.detach().clone() for p in case.model.parameters()]
    only_the_start(debugger)
    limit[0] = 40
    with pytest.raises(CommandError, match=r"could not go back: RuntimeError: the user's own; the model is where it"):
        debugger.rewind(25)
    assert (debugger.status.step, debugger.state) == (30, State.PAUSED)
    assert_same([p.detach() for p in case.model.parameters()], weights)
    debugger.close()


def test_closing_on_the_way_back_leaves_the_model_where_it_was() -> None:
    case, debugger = slow()
    debugger.run(steps=30)
    weights = [p.detach().clone() for p in case.model.parameters()]
    only_the_start(debugger)
    debugger._session.post(Rewind(25))
    until(lambda: debugger.state is State.REWINDING and debugger.status.replay.done > 3)
    debugger.close()
    assert_same([p.detach() for p in case.model.parameters()], weights)


def test_a_rewind_while_training_runs() -> None:
    debugger = watched()
    debugger.start()
    until(lambda: debugger.status.step > 40)
    debugger.rewind(17)
    assert (debugger.status.step, debugger.state) == (17, State.PAUSED)
    debugger.run(steps=3)
    assert debugger.status.run == "rerun"
    debugger.close()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes:UserWarning")
def test_draws_and_steps_elsewhere_do_not_disturb_the_way_back() -> None:
    setup, debugger = made("adam, augmentation")
    _, other = made("3 workers")
    debugger.run(steps=9)
    torch.rand(100)
    np.random.rand(3)
    other.run(steps=3)
    torch.manual_seed(123)
    debugger.run(steps=9)
    then = everything(setup, debugger)
    debugger.run(steps=9)
    only_the_start(debugger)
    torch.rand(7)
    debugger.rewind(18)
    assert_same(everything(setup, debugger), then)
    assert [str(m.change) for m in debugger._journal.interventions("main")] == ["Reseed(seed=123)"]
    debugger.close()
    other.close()


# -- changes behind the debugger's back -------------------------------------------------------------------------------


def test_an_edit_by_hand_is_noticed_and_gone_over_only_by_its_snapshot() -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=8)
    with torch.no_grad():
        next(setup.model.parameters()).mul_(1.5)
    debugger.run(steps=8)
    then = everything(setup, debugger)
    debugger.run(steps=4)
    edits = [m for m in debugger._journal.interventions("main") if isinstance(m.change, OutsideEdit)]
    assert [(m.step, m.change.what) for m in edits] == [(8, "something was edited by hand")]
    for info in debugger.snapshots[1:]:
        if info.reason is not Reason.OUTSIDE:
            debugger.drop_snapshot(info)
    debugger.rewind(16)
    assert_same(everything(setup, debugger), then)
    with pytest.raises(CommandError, match="something was edited by hand after step 8, which can't be done again"):
        debugger.checkout("main")
        only_the_start(debugger)
        debugger.rewind(16)
    debugger.rewind(5)
    with pytest.raises(CommandError, match="something was edited by hand after step 8"):
        debugger.checkout("main")
        debugger.export_script("never.py", "main")
    debugger.close()


def test_data_written_without_torch_noticing_is_noticed() -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=4)
    next(setup.model.parameters()).data.view(-1)[0] += 0.25
    debugger.run(steps=4)
    assert [type(m.change) for m in debugger._journal.interventions("main")] == [OutsideEdit]
    debugger.close()


def test_a_learning_rate_set_by_hand_is_recorded_as_set() -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=4)
    setup.trainer.optimizer.param_groups[0]["lr"] = 0.05
    debugger.run(steps=6)
    then = everything(setup, debugger)
    debugger.run(steps=2)
    assert [str(m.change.changes) for m in debugger._journal.interventions("main")] == ["lr 0.05"]
    only_the_start(debugger)
    debugger.rewind(10)
    assert_same(everything(setup, debugger), then)
    debugger.close()


def test_a_step_that_broke_off_is_no_obstacle() -> None:
    limit = [12]
    case, debugger = slow(broken_after=limit)
    with pytest.raises(RuntimeError, match="the user's own"):
        debugger.run(steps=20)
    limit[0] = 10_000
    debugger.run(steps=8)
    weights = [p.detach().clone() for p in case.model.parameters()]
    debugger.run(steps=2)
    debugger.rewind(20)
    assert_same([p.detach() for p in case.model.parameters()], weights)
    debugger.rewind(7)
    debugger.close()


def test_what_depends_on_something_unknown_is_told() -> None:
    case, secret = zoo.make("mlp", samples=100), [0.0]

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        secret[0] += 0.1
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]) + secret[0] * batch[0].mean(), batch[1]) + secret[0]
        loss.backward()
        optimizer.step()
        return loss

    debugger = Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.train_loader, step=step))
    debugger.run(steps=20)
    only_the_start(debugger)
    debugger.rewind(15)
    assert [finding.title for finding in debugger.findings] == ["A repeated step came out otherwise"]
    assert "at step 1 the loss was" in debugger.findings[0].why
    debugger.close()


class Endless(IterableDataset[Any]):
    """Goes on where it was left, and can't say where."""

    def __init__(self) -> None:
        self.numbers = np.random.default_rng(0)
        self.held = self.__class__.__name__
        self.position = 0

    def __iter__(self) -> Any:
        for _ in range(60):
            self.position += 1
            drawn = np.random.default_rng(self.position)
            yield torch.from_numpy(drawn.standard_normal(10, dtype=np.float32)), int(drawn.integers(5))


class Repeating(IterableDataset[Any]):
    """Gives the same each time, though it has no state either."""

    def __iter__(self) -> Any:
        drawn = np.random.default_rng(1)
        for _ in range(60):
            yield torch.from_numpy(drawn.standard_normal(10, dtype=np.float32)), int(drawn.integers(5))


@pytest.mark.parametrize(
    ("loader", "caveat"),
    [
        (lambda: DataLoader(Endless(), 6), "other batches"),
        (lambda: DataLoader(Repeating(), 6), ""),
        (lambda: DataLoader(Augmented(*data().tensors), 10, num_workers=1, persistent_workers=True), "other batches"),
    ],
    ids=["iterable without state", "repeating iterable", "persistent workers"],
)
def test_a_place_in_the_data_that_may_be_lost_is_said_at_the_start(loader: Any, caveat: str) -> None:
    torch.manual_seed(0)
    model = zoo.mlp()
    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.01), F.cross_entropy, loader())
    debugger = Debugger(model, trainer)
    debugger.run(steps=1)
    assert [finding.title for finding in debugger.findings] == ["Going back may take other batches"]
    debugger.run(steps=24)
    weights = [p.detach().clone() for p in model.parameters()]
    debugger.run(steps=3)
    branch = debugger.rerun(steps=4, start=[i.step for i in debugger.snapshots if i.step < 25][-1])
    assert debugger.runs[branch.name].caveat == caveat
    debugger.checkout("main")
    kept = debugger.snapshot()
    debugger.run(steps=1)
    debugger.checkout(kept)
    assert weights
    debugger.close()


# -- room -------------------------------------------------------------------------------------------------------------


def test_snapshots_stay_within_their_budget_and_thin_out_towards_the_past(monkeypatch: Any) -> None:
    monkeypatch.setattr("nbdebug.training.course.SHARE_AT_CHANGES", 1e9)  # before each change, whatever it costs
    case = zoo.make("mlp", samples=100)
    debugger = watched(case, snapshot_bytes=600_000)
    debugger.run(steps=1)
    pinned = debugger.snapshot("pinned")
    shelf = debugger._session.course.shelf
    for _ in range(60):
        debugger.run(steps=7)
        debugger.set(lr=0.001)
        assert shelf.used_bytes <= 600_000
    infos = debugger.snapshots
    assert 5 < len(infos) < 30
    assert infos[0].reason is Reason.START
    assert pinned.name in [info.name for info in infos]
    assert any(info.best for info in infos)
    steps = sorted(info.step for info in infos if info.run == "main")
    early = sum(step < debugger.status.step / 2 for step in steps)
    assert early < len(steps) / 2, steps
    then = losses(debugger)
    debugger.rewind(100)
    debugger.run(steps=30)
    assert losses(debugger) == then[:130]
    debugger.close()


def test_snapshots_that_must_not_take_memory_go_to_files_and_that_is_said(tmp_path: Path) -> None:
    setup, debugger = made_with("adam, augmentation", snapshot_bytes=0, snapshot_folder=tmp_path)
    debugger.run(steps=12)
    then = everything(setup, debugger)
    debugger.run(steps=8)
    assert "Snapshots go to disk" in [finding.title for finding in debugger.findings]
    assert all(Path(info.path).is_file() for info in debugger.snapshots)
    assert debugger._session.course.shelf.used_bytes == 0
    debugger.rewind(12)
    assert_same(everything(setup, debugger), then)
    debugger.close()
    assert not list(tmp_path.rglob("*.safetensors")), "files that nobody can come back to"


def test_what_memory_has_no_room_for_goes_to_the_folder_that_was_given(tmp_path: Path) -> None:
    debugger = watched(snapshot_bytes=300_000, snapshot_folder=tmp_path)
    for _ in range(30):
        debugger.run(steps=3)
        debugger.set(lr=0.001)
        debugger.snapshot()
    paths = [info.path for info in debugger.snapshots if info.path]
    assert len(paths) > 5
    assert len([info for info in debugger.snapshots if info.reason is Reason.REQUEST]) == 30
    first = next(info for info in debugger.snapshots if info.path and info.reason is Reason.REQUEST)
    debugger.checkout(first)
    assert debugger.status.step == first.step
    debugger.close()


def made_with(name: str, **options: Any) -> tuple[Any, Debugger]:
    setup = SETUPS[name]()
    return setup, Debugger(setup.model, setup.trainer, **options)


@pytest.mark.parametrize("room", [0, 10_000])
def test_no_room_on_disk_is_said_once_and_training_goes_on(tmp_path: Path, monkeypatch: Any, room: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=room))
    _, debugger = made_with("adam, augmentation", snapshot_bytes=0, snapshot_folder=tmp_path)
    debugger.run(steps=20)
    titles = [finding.title for finding in debugger.findings]
    assert titles.count("A snapshot could not be kept") == 1
    with pytest.raises(CommandError, match="can't be gone back to: no snapshot before it could be kept"):
        debugger.rewind(5)
    with pytest.raises(CommandError, match="no room for a snapshot"):
        debugger.snapshot()
    debugger.run(steps=5)
    assert debugger.status.step == 25
    debugger.close()


def test_no_memory_for_a_snapshot_is_said_once_and_training_goes_on(monkeypatch: Any) -> None:
    debugger = watched()
    debugger.run(steps=5)

    def no_memory(*args: Any, **options: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("nbdebug.training.snapshots.capture", no_memory)
    debugger.set(lr=0.01)
    with pytest.raises(CommandError, match="no memory for a snapshot"):
        debugger.snapshot()
    with pytest.raises(CommandError, match="no memory for a snapshot"):
        debugger.rewind(2)
    monkeypatch.undo()
    debugger.run(steps=5)
    assert debugger.status.step == 10
    debugger.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snapshot_bytes": -1}, "snapshot_bytes=-1: give a number of bytes"),
        ({"snapshot_bytes": 1.5}, "snapshot_bytes=1.5: give a number of bytes"),
        ({"snapshot_folder": __file__}, "can't be used"),
        ({"journal": Path(__file__) / "x"}, "x"),
        ({"journal": 3}, "3"),
    ],
)
def test_places_that_can_not_be_used(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        watched(**options)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_snapshot_of_another_architecture_names_the_tensors(tmp_path: Path) -> None:
    debugger = watched()
    debugger.run(steps=3)
    debugger.snapshot(path=tmp_path / "a.safetensors")
    debugger.close()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 5), nn.BatchNorm1d(5))
    trainer = Trainer(torch.optim.Adam(model.parameters()), F.cross_entropy, DataLoader(data(), 10))
    other = Debugger(model, trainer)
    other.run(steps=2)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(CommandError, match="holds another architecture") as caught:
        other.checkout(tmp_path / "a.safetensors")
    text = str(caught.value)
    assert "0.weight is (32, 10) in the snapshot and (24, 10) here" in text
    assert "4.weight (5,) is not in the snapshot" in text
    assert "4.running_mean (5,) is not in the snapshot" in text
    assert_same([p.detach() for p in model.parameters()], before)
    other.run(steps=2)
    other.close()


def test_an_optimizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    debugger = watched()
    debugger.run(steps=3)
    debugger.snapshot(path=tmp_path / "a.safetensors")
    debugger.close()
    other = watched(zoo.make("mlp", "sgd"))
    with pytest.raises(CommandError, match="SGD has no option 'amsgrad', 'betas'"):
        other.checkout(tmp_path / "a.safetensors")
    other.close()


def test_a_rerun_from_a_file(tmp_path: Path) -> None:
    debugger = watched()
    debugger.run(steps=13)
    debugger.snapshot(path=tmp_path / "a.safetensors")
    debugger.run(steps=5)
    expected = losses(debugger)[13:]
    debugger.close()
    torch.manual_seed(99)
    other = watched()
    torch.rand(9)
    run = other.rerun(steps=5, start=tmp_path / "a.safetensors")
    assert other.history.of(run.name)["loss/train"].values.tolist() == expected
    assert other.history["loss/train"].steps.tolist() == [14, 15, 16, 17, 18]
    other.rewind(15)
    other.close()


# -- comparing --------------------------------------------------------------------------------------------------------


def test_a_comparison_leaves_everything_where_it_was() -> None:
    setup, debugger = made("adam, augmentation")
    debugger.run(steps=20)
    debugger.rerun(steps=15, start=5, lr=0.1)
    there = everything(setup, debugger)
    cost = debugger.compare_cost("lr 0.1", seeds=3)
    assert (cost.reruns, cost.steps) == (6, 15)
    made_of = debugger.compare("lr 0.1", seeds=3)
    assert (made_of.parent, made_of.run, made_of.seeds) == ("main", "lr 0.1", 3)
    assert (made_of.first_step, made_of.last_step) == (6, 20)
    assert_same(everything(setup, debugger), there)
    assert debugger.status.run == "lr 0.1"
    noise = [run for run in debugger._journal.runs.values() if run.kind is RunKind.NOISE]
    assert len(noise) == 7, "three seeds on both sides, and a look whether the branch repeats"
    debugger.compare("main", "lr 0.1", seeds=3)
    assert len([run for run in debugger._journal.runs.values() if run.kind is RunKind.NOISE]) == 7, (
        "nothing is rerun twice"
    )
    debugger.run(steps=3)
    assert debugger.status.run == "lr 0.1"
    assert debugger.status.step == 23
    debugger.close()


def test_a_comparison_can_be_called_off() -> None:
    case, debugger = slow()
    debugger.run(steps=20)
    debugger.rerun(steps=15, start=5, lr=0.1)
    weights = [p.detach().clone() for p in case.model.parameters()]
    debugger._post(Compare("lr 0.1", 6))
    until(lambda: "rerun 2 of 12" in debugger.status.activity)
    with pytest.raises(CommandError, match=r"not now: comparing lr 0\.1 with main: rerun"):
        debugger.set(lr=0.2)
    debugger.stop()
    until(lambda: not debugger.status.activity)
    assert "called off" in [outcome.text for outcome in debugger.outcomes if not outcome.ok][-1]
    assert_same([p.detach() for p in case.model.parameters()], weights)
    debugger.set(lr=0.2)
    debugger.close()


def test_a_parent_that_ended_at_the_fork_is_carried_on_for_the_comparison() -> None:
    debugger = watched()
    debugger.run(steps=10)
    branch = debugger.rerun(steps=10, start="here", lr=0.05)
    made_of = debugger.compare(branch, seeds=2)
    assert (made_of.first_step, made_of.last_step) == (11, 20)
    assert debugger.runs["main"].name == "main"
    assert debugger.history.of("main")["loss/train"].steps[-1] == 10
    debugger.close()


def test_a_branch_that_does_not_repeat_is_judged_by_its_parents_noise_alone() -> None:
    offset = [0.0]
    case = zoo.make("mlp", samples=100)
    trainer = Trainer(case.optimizer, lambda o, t: F.cross_entropy(o, t) + offset[0], case.train_loader)
    debugger = Debugger(case.model, trainer)
    debugger.run(steps=20)
    offset[0] = 1.0
    branch = debugger.rerun(steps=15, start=5)
    offset[0] = 0.0
    made_of = debugger.compare(branch, seeds=6)
    assert str(made_of.verdict) == "worse"
    assert "does not come out the same when rerun" in made_of.caveat
    debugger.close()
