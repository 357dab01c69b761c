"""Going back, branching, coming back: exact, and always said."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch.optim import lr_scheduler

from nbdebug import CommandError, Debugger, State, Trainer
from nbdebug.records.commands import Rerun, StartPoint
from tests.training import zoo
from tests.training.test_do_no_harm import assert_same, states, watched


def until(condition, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw fused", "lbfgs"])
@pytest.mark.parametrize("start", ["start", "last_epoch"])
def test_an_unchanged_rerun_repeats_weights_and_curve(start: str, optimizer: str) -> None:
    case = zoo.make("cnn, frozen norm, dropout", optimizer)
    debugger = watched(case)
    debugger.run(epochs=3)
    first = states(case.model, case.optimizer)
    epochs = {"start": 3, "last_epoch": 1}[start]
    branch = debugger.rerun(epochs=epochs, start=start)
    assert_same(states(case.model, case.optimizer), first)
    main, again = debugger.history.of("main"), debugger.history.of(branch.name)
    for key in ("loss/train", "loss/val", "grad_norm"):
        repeated = main[key].steps > branch.step
        assert main[key].steps[repeated].tolist() == again[key].steps.tolist()
        assert main[key].values[repeated].tolist() == again[key].values.tolist()
    debugger.close()


def test_rerun_is_exact_with_shuffling_dropout_augmentation_and_two_workers() -> None:
    case = zoo.make("mlp", workers=2, jitter=True)
    debugger = watched(case)
    debugger.run(epochs=2)
    first = states(case.model, case.optimizer)
    debugger.rerun(epochs=2, start="start")
    assert_same(states(case.model, case.optimizer), first)
    debugger.close()


def test_rerun_with_a_generator_of_the_loaders_own() -> None:
    case = zoo.make("mlp")
    case.train_loader = torch.utils.data.DataLoader(
        case.train_loader.dataset, batch_size=10, shuffle=True, generator=torch.Generator().manual_seed(3)
    )
    debugger = watched(case)
    debugger.run(epochs=2)
    first = states(case.model, case.optimizer)
    debugger.rerun(epochs=2, start="start")
    assert_same(states(case.model, case.optimizer), first)
    debugger.close()


def test_rerun_restores_schedulers_and_extra_state() -> None:
    case = zoo.make("mlp")
    average = torch.optim.swa_utils.AveragedModel(case.model)

    def step(model, batch, loss_fn, optimizer):
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        return loss

    scheduler = lr_scheduler.OneCycleLR(case.optimizer, 0.01, total_steps=200)
    trainer = Trainer(
        case.optimizer, case.loss_fn, case.train_loader, case.val_loader,
        scheduler=scheduler, scheduler_interval="batch", step=step, state={"average": average},
    )  # fmt: skip
    debugger = Debugger(case.model, trainer)
    debugger.run(epochs=2)
    weights = copy.deepcopy(average.state_dict())
    lr = scheduler.get_last_lr()
    debugger.rerun(epochs=2, start="start")
    assert scheduler.get_last_lr() == lr
    assert all(torch.equal(average.state_dict()[k], weights[k]) for k in weights)
    debugger.close()


def test_checkout_brings_back_a_run_left_in_mid_epoch() -> None:
    alone = zoo.make("cnn, frozen norm, dropout", jitter=True)
    debugger = watched(alone)
    debugger.run(steps=47)
    expected = states(alone.model, alone.optimizer)
    debugger.close()

    case = zoo.make("cnn, frozen norm, dropout", jitter=True)
    debugger = watched(case)
    debugger.run(steps=27)
    debugger.rerun(epochs=1, start="start", lr=0.1, dropout=0.0)
    assert debugger.status.run == "lr 0.1, dropout 0"
    debugger.checkout("main")
    assert (debugger.status.run, debugger.status.step, debugger.status.batch) == ("main", 27, 7)
    assert debugger.history["dropout"].values[-1] == pytest.approx(0.3)
    debugger.run(steps=20)
    assert_same(states(case.model, case.optimizer), expected)
    debugger.close()


def test_branches_make_a_tree_and_history_follows_it() -> None:
    case = zoo.make("mlp")
    debugger = watched(case)
    debugger.run(epochs=2)
    branch = debugger.rerun(epochs=1, lr=0.05)
    assert (branch.parent, branch.step, branch.change) == ("main", 20, "lr 0.05")
    assert debugger.history["loss/train"].steps.tolist() == list(range(1, 41))
    assert debugger.history["lr"].values[20:].tolist() == [0.05] * 20
    assert debugger.history.of("main")["lr"].values.tolist() == [0.001] * 40
    twig = debugger.rerun(epochs=1, start="last_epoch", lr=0.05)
    assert twig.name == "lr 0.05 (2)"
    assert (twig.parent, twig.step) == ("main", 20), "the last epoch run began where the branch did, on its parent"
    debugger.close()


def test_the_rerun_button_takes_the_present_knobs_along() -> None:
    case = zoo.make("mlp")
    debugger = watched(case)
    debugger.run(epochs=2)
    again = Rerun(StartPoint.START, epochs=1, keep_knobs=True)
    debugger._ask(again)
    debugger.wait()
    assert debugger.status.run == "rerun", "nothing was changed"
    debugger.set(lr=0.02, clip_norm=0.5, dropout=0.4)
    debugger._ask(again)
    debugger.wait()
    assert debugger.status.run == "lr 0.02, clip norm 0.5, dropout 0.4"
    own = debugger.history.of(debugger.status.run)
    assert own["lr"].values.tolist() == [0.02] * 20
    assert own["clip_norm"].values.tolist() == [0.5] * 20
    assert own["dropout"].values.tolist() == [0.4] * 20
    debugger.close()


def test_nothing_to_go_back_to() -> None:
    debugger = watched(zoo.make("mlp"))
    with pytest.raises(CommandError, match="nothing to rerun yet: no step has been taken; call run"):
        debugger.rerun(epochs=1)
    with pytest.raises(CommandError, match="no run 'other': there are 'main'"):
        debugger.checkout("other")
    assert debugger.state is State.IDLE
    debugger.close()


def test_a_rerun_from_within_a_running_session_leaves_the_parent_on_record() -> None:
    case = zoo.make("mlp")
    debugger = watched(case)
    debugger.start()
    until(lambda: debugger.status.step > 30)
    debugger.rerun(epochs=1, start="start")
    assert debugger.runs.keys() == {"main", "rerun"}
    debugger.checkout("main")
    assert debugger.status.step == debugger.history["loss/train"].steps[-1]
    debugger.close()
