"""With and without nbdebug, the same seed gives the same weights and random states, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler

from nbdebug import Debugger, Journal, Trainer
from nbdebug.training import course
from tests.training import reference, zoo


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


def states(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """All that must be equal: weights, buffers, gradients, optimizer state, modes, random states."""
    found: dict[str, Any] = {f"weight {n}": t.clone() for n, t in model.named_parameters()}
    found.update({f"buffer {n}": t.clone() for n, t in model.named_buffers()})
    found.update({f"gradient {n}": t.grad.clone() for n, t in model.named_parameters() if t.grad is not None})
    for index, state in enumerate(optimizer.state.values()):
        found.update({f"state {index} {k}": v.clone() for k, v in state.items() if isinstance(v, torch.Tensor)})
    found.update({f"mode {n}": torch.tensor(m.training) for n, m in model.named_modules()})
    found["torch random state"] = torch.get_rng_state()
    found["numpy random state"] = torch.from_numpy(np.random.get_state()[1].astype(np.int64))
    found["python random state"] = torch.tensor(random.getstate()[1])
    return found


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different, f"not bit-identical: {different}"


def reference_states(case: zoo.Case, **options: Any) -> dict[str, Any]:
    reference.train(case.model, case.optimizer, case.loss_fn, case.train_loader, case.val_loader, **options)
    return states(case.model, case.optimizer)


def watched(case: zoo.Case, **options: Any) -> Debugger:
    trainer = Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader, **options)
    return Debugger(case.model, trainer, budget=None)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", zoo.MODELS)
def test_fifty_steps_equal_the_reference_loop(name: str, optimizer: str) -> None:
    theirs = reference_states(zoo.make(name, optimizer), steps=50, epochs=9, metrics={"accuracy": accuracy})
    case = zoo.make(name, optimizer)
    debugger = watched(case, metrics={"accuracy": accuracy})
    debugger.run(steps=50)
    assert_same(states(case.model, case.optimizer), theirs)
    assert len(debugger.history["loss/val"].steps) == 2
    sampled = next(key for key in debugger.history if key.startswith("activations/"))
    assert list(debugger.history[sampled].steps) == list(range(1, 51)), "not every step was looked into"
    debugger.close()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_snapshot_after_every_step_and_the_journal_on_disk_change_nothing(
    name: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, value in (("SHARE", 1e9), ("SHARE_AT_CHANGES", 1e9), ("WANTED_EVERY_STEPS", 1)):
        monkeypatch.setattr(course, setting, value)
    theirs = reference_states(zoo.make(name, optimizer, jitter=True), steps=50, epochs=9)
    case = zoo.make(name, optimizer, jitter=True)
    trainer = Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader)
    debugger = Debugger(case.model, trainer, budget=None, journal=tmp_path)
    debugger.run(steps=20)
    debugger.step(3)
    debugger.snapshot(path=tmp_path / "kept.safetensors")
    debugger.rewind(9)
    debugger.checkout("main")
    debugger.run(steps=27)
    assert_same(states(case.model, case.optimizer), theirs)
    assert len({info.step for info in debugger.snapshots if info.run == "main"}) > 45
    debugger.close()
    assert len(Journal.open(tmp_path).history["loss/train"].steps) == 50


@pytest.mark.parametrize("optimizer", ["adamw fused", "rmsprop"])
def test_other_optimizers_and_augmented_data(optimizer: str) -> None:
    theirs = reference_states(zoo.make("mlp", optimizer, jitter=True), epochs=3)
    case = zoo.make("mlp", optimizer, jitter=True)
    debugger = watched(case)
    debugger.run(epochs=3)
    assert_same(states(case.model, case.optimizer), theirs)
    debugger.close()


def test_two_workers_with_augmentation() -> None:
    theirs = reference_states(zoo.make("mlp", workers=2, jitter=True), epochs=2)
    case = zoo.make("mlp", workers=2, jitter=True)
    debugger = watched(case)
    debugger.run(epochs=2)
    assert_same(states(case.model, case.optimizer), theirs)
    debugger.close()


SCHEDULES = {
    "one-cycle by batch": ("batch", lambda o: lr_scheduler.OneCycleLR(o, 0.01, total_steps=80)),
    "cosine by epoch": ("epoch", lambda o: lr_scheduler.CosineAnnealingLR(o, 4)),
    "plateau": ("epoch", lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.5)),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_are_stepped_as_in_the_reference_loop(schedule: str) -> None:
    interval, build = SCHEDULES[schedule]
    case = zoo.make("mlp")
    theirs = reference_states(case, epochs=4, scheduler=build(case.optimizer), scheduler_interval=interval)
    case = zoo.make("mlp")
    debugger = watched(case, scheduler=build(case.optimizer), scheduler_interval=interval)
    debugger.run(epochs=4)
    assert_same(states(case.model, case.optimizer), theirs)
    debugger.close()


def test_pausing_stepping_and_looking_change_nothing() -> None:
    theirs = reference_states(zoo.make("cnn, frozen norm, dropout"), epochs=3)
    case = zoo.make("cnn, frozen norm, dropout")
    debugger = watched(case)
    debugger.step(3)
    debugger.start(epochs=2)
    with debugger.paused():
        torch.randn(7)
        case.model(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    debugger.wait()
    torch.rand(3)
    np.random.rand(3)
    random.random()
    debugger.run(epochs=1)
    # looking moved the running statistics of the norm that trains: that is the user's own doing, in a plain loop too
    ours = states(case.model, case.optimizer)
    moved = {name for name in ours if name.startswith("buffer bn2")}
    assert_same({k: v for k, v in ours.items() if k not in moved}, {k: v for k, v in theirs.items() if k not in moved})
    debugger.close()


def test_a_foreign_forward_is_not_recorded() -> None:
    case = zoo.make("mlp")
    debugger = watched(case)
    debugger.step(2)
    debugger.set(clip_norm=1e-6)
    before = debugger.history["activations/1"].steps
    case.model(torch.randn(4, 10))
    F.cross_entropy(case.model(torch.randn(4, 10)), torch.tensor([0, 1, 2, 3])).backward()
    case.optimizer.step()
    assert case.model[0].weight.grad.norm() > 1e-3, "a step of the user's own is not clipped by us"
    assert list(debugger.history["activations/1"].steps) == list(before)
    assert debugger.history["updates"].values.tolist() == [1, 1]
    debugger.close()


def test_nothing_is_left_behind() -> None:
    case = zoo.make("transformer")
    debugger = watched(case)
    debugger.run(steps=5)
    assert not any(module._forward_hooks for module in case.model.modules())
    assert case.optimizer._optimizer_step_pre_hooks
    debugger.close()
    assert not case.optimizer._optimizer_step_pre_hooks
    assert not case.optimizer._optimizer_step_post_hooks
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in case.model.modules())


def test_two_debuggers_at_once_each_train_as_if_alone() -> None:
    alone = []
    for seed in (1, 2):
        case = zoo.make("transformer", seed=seed)
        debugger = watched(case)
        debugger.run(epochs=2)
        alone.append({n: p.clone() for n, p in case.model.named_parameters()})
        debugger.close()
    cases = [zoo.make("transformer", seed=seed) for seed in (1, 2)]
    torch.manual_seed(1)
    zoo.make("transformer", seed=1)
    first = watched(cases[0])
    cases[1] = zoo.make("transformer", seed=2)
    second = watched(cases[1])
    first.start(epochs=2)
    second.start(epochs=2)
    first.wait()
    second.wait()
    for case, expected in zip(cases, alone, strict=True):
        for name, parameter in case.model.named_parameters():
            assert torch.equal(parameter, expected[name]), name
    first.close()
    second.close()
