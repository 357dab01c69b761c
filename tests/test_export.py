"""A run exported from a debugger comes out the same without it, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nbdebug import CommandError, Debugger, Trainer

SETUP = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

drawn = torch.Generator().manual_seed(5)
inputs, target = torch.randn(120, 1, 8, 8, generator=drawn), torch.randint(0, 5, (120,), generator=drawn)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2),
    nn.Linear(128, 5),
)
optimizer = {optimizer}
scheduler = {scheduler}
loss_fn = F.cross_entropy
train_loader = DataLoader(TensorDataset(inputs[:90], target[:90]), 10, shuffle=True)
val_loader = DataLoader(TensorDataset(inputs[90:], target[90:]), 30)
"""
ADAM = "torch.optim.Adam(model.parameters(), 1e-3)"
SGD = "torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)"
COSINE = "torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8, eta_min=1e-4)"


def debugger_of(text: str) -> Debugger:
    names: dict[str, Any] = {}
    exec(text, names)
    parts = [names[name] for name in ("optimizer", "loss_fn", "train_loader", "val_loader")]
    return Debugger(names["model"], Trainer(*parts, scheduler=names["scheduler"]))


def run_alone(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that the script in a folder ends with; nbdebug can't be imported there."""
    (folder / "nbdebug.py").write_text("raise ImportError('the script must do without')")
    command = [sys.executable, "run.py", "setup.py", "--out", "alone.safetensors"]
    run = subprocess.run(command, cwd=folder, text=True, capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return load_file(folder / "alone.safetensors")


@pytest.mark.parametrize(("optimizer", "scheduler"), [(ADAM, "None"), (SGD, COSINE)], ids=["adam", "sgd, cosine"])
def test_a_run_with_every_intervention_and_a_rewind(tmp_path: Path, optimizer: str, scheduler: str) -> None:
    text = SETUP.format(optimizer=optimizer, scheduler=scheduler)
    torch.manual_seed(11)
    debugger = debugger_of(text)
    debugger.run(epochs=2)
    debugger.set(lr=0.01, clip_norm=0.4)
    debugger.run(steps=7)
    debugger.reinitialize("kaiming_normal", seed=3, layers=["6"])
    debugger.set(dropout=0.5)
    debugger.run(epochs=2)
    debugger.set(lr=0.5)
    debugger.run(steps=5)
    debugger.rewind(31)
    debugger.set(lr=0.003, clip_value=0.05)
    debugger.run(steps=9)
    torch.manual_seed(5)
    debugger.run(steps=6)
    (tmp_path / "setup.py").write_text(text)
    debugger.export_script(tmp_path / "run.py")
    debugger.save_model(tmp_path / "ours.safetensors")
    course = json.loads(debugger.export_json())
    debugger.close()
    ours, alone = load_file(tmp_path / "ours.safetensors"), run_alone(tmp_path)
    assert ours.keys() == alone.keys()
    assert [name for name in ours if not torch.equal(ours[name], alone[name])] == []
    assert [each["step"] for each in course] == [18, 25, 25, 31, 40]
    assert "rewind" not in (tmp_path / "run.py").read_text(), "what was rewound is not part of the run's course"


def test_any_run_can_be_exported_not_only_the_one_in_the_model(tmp_path: Path) -> None:
    text = SETUP.format(optimizer=ADAM, scheduler="None")
    torch.manual_seed(1)
    debugger = debugger_of(text)
    debugger.run(steps=20)
    debugger.save_model(tmp_path / "ours.safetensors")
    debugger.rerun(steps=5, start=10, lr=0.1)
    (tmp_path / "setup.py").write_text(text)
    debugger.export_script(tmp_path / "run.py", run="main")
    debugger.close()
    ours, alone = load_file(tmp_path / "ours.safetensors"), run_alone(tmp_path)
    assert [name for name in ours if not torch.equal(ours[name], alone[name])] == []


def test_nothing_to_export() -> None:
    debugger = debugger_of(SETUP.format(optimizer=ADAM, scheduler="None"))
    with pytest.raises(CommandError, match="nothing to export yet"):
        debugger.export_script("never.py")
    with pytest.raises(CommandError, match="no run 'other'"):
        debugger.export_script("never.py", "other")
    debugger.close()
