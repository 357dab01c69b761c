"""Stops, changes and excursions together: what one does must not undo what another promised."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.status import State
from tests.training.test_stops import data, debugger, network, poisoned, same, state_of


def test_a_branch_from_a_bad_step_stops_there_again() -> None:
    case = debugger(poisoned(4))
    case.run(steps=1)
    case.set(lr=0.02)
    case.start(epochs=1)
    case.wait()
    case.rerun(steps=3, start="here", lr=0.1)
    assert (case.state, case.current.step) == (State.PAUSED, 5)
    assert all(tensor.isfinite().all() for tensor in state_of(case))
    case.close()


@pytest.mark.parametrize("bad", [True, False])
def test_a_search_and_a_comparison_at_a_stop_leave_it_there(bad: bool) -> None:
    case = debugger(poisoned(6) if bad else data(), optimizer=lambda p: torch.optim.SGD(p, 0.1))
    if not bad:
        case.break_at(step=7)
    case.start(epochs=1)
    case.wait()
    stop = case.current.stop
    case.search({"lr": [0.1, 0.2]}, steps=5)
    assert case.current.stop == stop is not None
    case.skip()
    case.resume()
    case.wait()
    assert (case.state, case.status.step) == (State.IDLE, 11)
    assert all(tensor.isfinite().all() for tensor in state_of(case))
    case.close()


def test_a_stop_at_a_step_is_had_once_its_batch_is_left_out() -> None:
    case = debugger(data())
    told = case.break_at(step=3)
    case.start(epochs=1)
    case.wait()
    case.skip()
    case.resume()
    case.wait()
    assert case.status.step == 11 and case.breakpoints[0].hits == 1
    case.run(epochs=1)
    case.rewind(1)
    case.resume()
    case.wait()
    assert case.current.step == 3 and case.breakpoints[0].number == told.number
    case.close()


def test_a_single_step_into_a_stop_waits_for_it() -> None:
    case = debugger(poisoned(2))
    case.run(steps=2)
    case.step()
    assert case.state is State.PAUSED and case.current.stop is not None
    case.skip()
    case.close()


def test_generators_of_loaders_are_left_alone_at_an_epochs_end() -> None:
    def made() -> Debugger:
        torch.manual_seed(0)
        xs, ys = zip(*data(), strict=True)
        dataset = TensorDataset(torch.cat(xs), torch.cat(ys))
        loader = DataLoader(dataset, 6, shuffle=True, generator=torch.Generator().manual_seed(3))
        return debugger(loader)

    case, other = made(), made()
    case.on_epoch_end(lambda: len(list(case._session.trainer.train_loader)), name="batches")
    case.run(epochs=3)
    other.run(epochs=3)
    assert same(state_of(case), state_of(other))
    case.close()
    other.close()


def test_the_best_epoch_of_all_runs_is_kept() -> None:
    case = debugger(data(), optimizer=lambda p: torch.optim.SGD(p, 0.05), val_loader=data())
    case.stop_early("val_loss", patience=5)
    case.run(epochs=3)
    best = case.history["loss/val"].values.min()
    case.rerun(epochs=1, start=12, lr=50.0)
    case.go_to_best()
    assert case.status.run == "main" and case.history["loss/val"].values.min() == best
    case.close()


def test_nothing_is_done_while_the_model_holds_an_average() -> None:
    case = debugger(data())
    case.average("ema", decay=0.9)
    case.run(steps=5)
    before = state_of(case)
    with case.averaged():
        for refused in (lambda: case.run(steps=1), lambda: case.rewind(2), lambda: case.set(lr=0.1), case.forecast):
            with pytest.raises(CommandError, match="average of its weights"):
                refused()
    assert same(state_of(case), before)
    case.run(steps=1)
    assert not case._journal.interventions("main")[1:]
    case.close()


def test_a_button_that_raises_after_a_change_is_on_record() -> None:
    model = network()

    def half_done() -> None:
        model[0].weight.data.mul_(1.5)
        raise ValueError("half done")

    case = debugger(data(), model)
    case.button("half", half_done)
    case.run(steps=3)
    with pytest.raises(CommandError, match="half done"):
        case.press("half")
    case.run(steps=4)
    there = state_of(case)
    case.rewind(2)
    case.checkout("main")
    assert same(state_of(case), there)
    case.rewind(5)
    case.run(steps=2)
    assert same(state_of(case), there) and not case.findings
    case.close()


def test_options_are_those_of_the_optimizer_at_the_place() -> None:
    case = debugger(data())
    case.run(steps=4)
    case.set(betas=(0.8, 0.9))
    case.swap_optimizer("SGD")
    case.run(steps=3)
    with pytest.raises(CommandError, match="Adam has no option 'momentum'"):
        case.rewind(2, momentum=0.9)
    case.checkout("main")
    run = case.rerun(steps=2, start=2, betas=(0.5, 0.9))
    assert run.parent == "main"
    case.checkout("main")
    assert "Adam" in case.undo().text
    assert "beta1 0.9" in case.undo().text
    assert case._session.trainer.optimizer.param_groups[0]["betas"] == (0.9, 0.999)  # type: ignore[union-attr]
    with pytest.raises(CommandError, match="nothing to undo"):
        case.undo()
    case.close()


def test_norms_that_are_taken_out_leave_nothing_behind() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))
    case = debugger(data(), model)
    case.run(steps=5)
    before = state_of(case)
    case.remove_norms(fold=True)
    assert case._session.trainer.optimizer.state_dict()["state"]
    case.run(steps=3)
    case.rewind(5)
    assert same(state_of(case), before)
    case.close()


def test_waiting_from_within_is_refused_clearly() -> None:
    case = debugger(data())
    told: list[str] = []

    def snapshot() -> None:
        with pytest.raises(CommandError) as error:
            case.snapshot("inside")
        told.append(str(error.value))

    case.on_epoch_end(snapshot)
    case.run(epochs=1)
    assert "can't be called from within" in told[0] and not case.findings
    case.close()


def test_what_was_added_is_said_to_be_in_the_optimizer() -> None:
    case = debugger(data(), nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)))
    case.run(steps=2)
    assert "no optimizer" not in case.swap_activation("prelu").text
    case.close()


def test_a_stop_goes_on_in_another_process_by_file(tmp_path: Path) -> None:
    case = debugger(poisoned(5))
    case.run(epochs=1)
    case.snapshot("stop", path=tmp_path / "stop.safetensors")
    case.skip()
    case.resume()
    case.wait()
    other = Debugger(
        model := network(), Trainer(torch.optim.Adam(model.parameters(), 1e-2), F.cross_entropy, poisoned(5))
    )
    other.checkout(tmp_path / "stop.safetensors")
    other.run(steps=1)
    assert other.current.step == 6 and math.isnan(other.current.loss)
    other.skip()
    other.run(steps=6)
    assert same(state_of(other), state_of(case))
    with pytest.raises(ConfigurationError):
        other.break_at(step=0)
    case.close()
    other.close()
