"""Exact return: whatever training depends on comes back bit for bit, from any step, however one gets there."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nbdebug import Debugger
from tests.training.setups import SETUPS, Setup

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes:UserWarning")
FIRST, LATER = 13, 37  # in mid-epoch, with epochs of 5 to 10 batches


def everything(setup: Setup, debugger: Debugger) -> dict[str, Any]:
    """Weights, buffers, gradients, optimizers, modes, random states, and what else the set-up names."""
    model = setup.model
    found: dict[str, Any] = {f"weight {n}": t.detach().clone() for n, t in model.named_parameters()}
    found |= {f"gradient {n}": None if t.grad is None else t.grad.clone() for n, t in model.named_parameters()}
    found |= {f"buffer {n}": t.clone() for n, t in model.named_buffers()}
    found |= {f"mode {n}": m.training for n, m in model.named_modules()}
    for name, optimizer in setup.trainer.optimizers.items():
        found[f"optimizer {name}"] = copy.deepcopy(optimizer.state_dict())
    random = debugger._session.random.state()
    found |= {"torch": random.torch_cpu, "numpy": [*map(str, random.numpy)], "python": random.python}
    found |= {name: copy.deepcopy(read()) for name, read in setup.others.items()}
    return found


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours.view(-1).view(torch.uint8), theirs.view(-1).view(torch.uint8)), f"{where} is different"
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where} {key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where} {index}")
    else:
        assert ours == theirs, f"{where} is different"


def made(name: str) -> tuple[Setup, Debugger]:
    setup = SETUPS[name]()
    return setup, Debugger(setup.model, setup.trainer)


def losses(debugger: Debugger) -> list[float]:
    return debugger.history["loss/train"].values.tolist()


@pytest.mark.parametrize("name", SETUPS)
def test_any_step_comes_back_and_leads_to_the_same_end(name: str) -> None:
    setup, debugger = made(name)
    debugger.run(steps=FIRST)
    then = everything(setup, debugger)
    debugger.run(steps=LATER - FIRST)
    end, curve = everything(setup, debugger), losses(debugger)
    debugger.rewind(FIRST)
    assert debugger.status.step == FIRST
    assert_same(everything(setup, debugger), then)
    debugger.run(steps=LATER - FIRST)
    assert_same(everything(setup, debugger), end)
    assert losses(debugger) == curve
    debugger.rewind(4)
    debugger.run(steps=LATER - 4)
    assert_same(everything(setup, debugger), end)
    debugger.checkout("main")
    assert_same(everything(setup, debugger), end)
    assert not debugger.findings, "a step that is repeated came out otherwise"
    debugger.close()


@pytest.mark.parametrize("name", ["sgd, momentum, batch norm, dropout", "adamw fused", "lbfgs", "3 workers"])
def test_a_way_over_interventions_is_gone_again(name: str) -> None:
    """Only the first snapshot is left, so all that was changed on the way has to be changed again."""
    setup, debugger = made(name)
    debugger.run(steps=6)
    debugger.set(lr=0.003, clip_norm=0.7)
    debugger.run(steps=5)
    debugger.reinitialize("kaiming_normal", seed=4)
    debugger.set(clip_value=0.05)
    torch.manual_seed(77)
    debugger.run(steps=6)
    then = everything(setup, debugger)
    if debugger.status.run == "main" and name != "lbfgs":
        debugger.set(dropout=0.6)
    debugger.run(steps=9)
    end = everything(setup, debugger)
    for info in debugger.snapshots[1:]:
        debugger.drop_snapshot(info)
    cost = debugger.rewind_cost(17)
    assert (cost.snapshot_step, cost.steps) == (0, 17)
    debugger.rewind(17)
    assert_same(everything(setup, debugger), then)
    debugger.checkout("main")
    assert_same(everything(setup, debugger), end)
    assert not debugger.findings
    debugger.close()


def test_files_go_on_in_a_fresh_process(tmp_path: Path) -> None:
    """Every set-up, through a file each, in one process, since making one takes seconds."""
    folders = []
    for index, name in enumerate(SETUPS):
        folders.append(tmp_path / str(index))
        leave_behind(name, folders[-1])
    command = [sys.executable, "-m", "tests.training.fresh_process", *map(str, folders)]
    run = subprocess.run(command, text=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("the same") == len(SETUPS)


def leave_behind(name: str, folder: Path) -> None:
    """A snapshot in a file, and where training went from there."""
    folder.mkdir()
    setup, debugger = made(name)
    debugger.run(steps=FIRST)
    debugger.set(lr=0.004)
    debugger.snapshot(path=folder / "kept.safetensors")
    debugger.run(steps=11)
    torch.save({**everything(setup, debugger), "losses": losses(debugger)[FIRST:]}, folder / "end.pt")
    debugger.close()
    (folder / "name").write_text(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["sgd, momentum, batch norm, dropout", "adam, augmentation", "adamw fused"])
def test_on_a_gpu_too(name: str, tmp_path: Path) -> None:
    """With deterministic kernels; the device's own generator draws the dropout masks."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        setup = SETUPS[name]()
        setup.trainer.device = torch.device("cuda")
        debugger = Debugger(setup.model, setup.trainer)
        debugger.run(steps=FIRST)
        then = everything(setup, debugger)
        kept = debugger.snapshot(path=tmp_path / "kept.safetensors")
        debugger.run(steps=LATER - FIRST)
        end = everything(setup, debugger)
        debugger.rewind(FIRST)
        assert_same(everything(setup, debugger), then)
        debugger.checkout(kept)
        debugger.run(steps=LATER - FIRST)
        assert_same(everything(setup, debugger), end)
        debugger.checkout(tmp_path / "kept.safetensors")
        debugger.run(steps=LATER - FIRST)
        assert_same(everything(setup, debugger), end)
        debugger.close()
    finally:
        torch.use_deterministic_algorithms(False)
