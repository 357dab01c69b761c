"""Exported scripts of runs whose batch size or loss was changed: they give the run's weights bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nbdebug import Debugger, Trainer

SETUP = """
import random, torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

class Augmented(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * random.random() + 0.01 * torch.randn_like(x), y

def size(output, target):
    return (output ** 2).mean()

class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, output, target):
        self.mean = 0.9 * self.mean + 0.1 * output.detach().mean(0)
        return ((output - self.mean) * self.scale).pow(2).mean()

generator = torch.Generator().manual_seed(5)
data = (torch.randn(50, 8, generator=generator), torch.randint(0, 3, (50,), generator=generator))
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3))
"""
END = "\noptimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)\n"
SHUFFLED = "train_loader = DataLoader(Augmented(*data), 8, shuffle=True, drop_last=True)\n"
CASES = {
    "sizes": "loss_fn = F.cross_entropy\n" + SHUFFLED,
    "sizes, own generator": "loss_fn = F.cross_entropy\n"
    "train_loader = DataLoader(Augmented(*data), 8, shuffle=True, generator=torch.Generator().manual_seed(3))\n",
    "sizes, workers": "loss_fn = F.cross_entropy\n"
    "train_loader = DataLoader(TensorDataset(*data), 8, shuffle=True, num_workers=1)\n",
    "smoothing, function": "loss_fn = F.cross_entropy\n" + SHUFFLED,
    "smoothing, module": "loss_fn = nn.CrossEntropyLoss()\n" + SHUFFLED,
    "smoothing, parts": "loss_fn = {'ce': F.cross_entropy, 'si\"ze': size}\nloss_weights = {'ce': 0.7}\n" + SHUFFLED,
    "parts": "loss_fn = {'ce': nn.CrossEntropyLoss(), 'mean': Mean()}\n"
    "val_loader = DataLoader(TensorDataset(*data), 9)\n" + SHUFFLED,
    "parts, one module": "loss_fn = nn.ModuleDict({'ce': nn.CrossEntropyLoss(), 'mean': Mean()})\n" + SHUFFLED,
}
NAMES = ("optimizer", "loss_fn", "train_loader", "val_loader", "loss_weights")


def set_up(text: str) -> dict[str, Any]:
    torch.manual_seed(1)
    found: dict[str, Any] = {}
    exec(SETUP + text + END, found)
    return found


def made(found: dict[str, Any]) -> Debugger:
    trainer = Trainer(**{name: found[name] for name in NAMES if name in found})
    return Debugger(found["model"], trainer, journal=None)


def again(path: Path, text: str) -> list[torch.Tensor]:
    """The weights that the script makes, from a set-up with other weights and random numbers."""
    source = path.read_text()
    assert "import nbdebug" not in source and "from nbdebug" not in source
    script: dict[str, Any] = {"__name__": "script", "__file__": str(path)}
    exec(compile(source, str(path), "exec"), script)
    found = set_up(text)
    torch.manual_seed(99)
    with torch.no_grad():
        for value in found["model"].parameters():
            value.mul_(0.5)
    script["train"](**{name: found[name] for name in script["NEEDED"]})
    return list(found["model"].state_dict().values())


def change(case: Debugger, name: str, number: int) -> None:
    if "sizes" in name:
        case.set(batch_size=(5, 11)[number])
    elif "smoothing" in name:
        case.set(label_smoothing=(0.1, 0.3)[number])
    if "parts" in name:
        part = list(case._session.knobs.data.weights)[number]
        case.set(loss_weights={part: (0.2, 1.7)[number]})


@pytest.mark.parametrize("name", CASES)
def test_the_script_makes_the_weights_of_the_run(name: str, tmp_path: Path) -> None:
    found = set_up(CASES[name])
    case = made(found)
    case.run(steps=3)
    change(case, name, 0)
    case.run(steps=4)
    change(case, name, 1)
    case.run(steps=14)
    expected = [value.clone() for value in found["model"].state_dict().values()]
    path = case.export_script(tmp_path / "run.py")
    for mine, theirs in zip(again(path, CASES[name]), expected, strict=True):
        assert torch.equal(mine, theirs)
    case.close()


@pytest.mark.parametrize("name", ["sizes", "sizes, own generator", "smoothing, parts"])
def test_a_run_that_begins_within_an_epoch_and_draws_anew(name: str, tmp_path: Path) -> None:
    found = set_up(CASES[name])
    case = made(found)
    case.run(steps=2)
    change(case, name, 0)
    case.run(steps=2)
    case.snapshot(path=tmp_path / "kept.safetensors")
    case.close()
    case = made(found := set_up(CASES[name]))
    case.checkout(tmp_path / "kept.safetensors")
    case.run(steps=2)
    change(case, name, 1)
    case.run(steps=1)
    case.rerun(steps=3, start="here", seed=12)
    case.break_at(step=case.status.step + 1)
    case.start(steps=9)
    case._session.wait(lambda state: state == "paused")
    case.skip()
    case.resume()
    case.wait()
    expected = [value.clone() for value in found["model"].state_dict().values()]
    path = case.export_script(tmp_path / "run.py")
    for mine, theirs in zip(again(path, CASES[name]), expected, strict=True):
        assert torch.equal(mine, theirs)
    case.close()


def test_the_changes_as_json_and_as_lines(tmp_path: Path) -> None:
    case = made(set_up(CASES["smoothing, parts"]))
    case.run(steps=2)
    case.set(batch_size=4, label_smoothing=0.1, loss_weights={"ce": 2.0})
    case.run(steps=1)
    [made_there] = json.loads(case.export_json())
    assert made_there | {"run": "", "epoch": 0} == {
        "run": "", "step": 2, "epoch": 0, "kind": "set", "batch_size": 4, "label_smoothing": 0.1,
        "loss_weights": {"ce": 2.0},
    }  # fmt: skip
    text = case.export_script(tmp_path / "run.py").read_text()
    for line in (
        "batches.regrouping.asked = 4",
        'loss_fn.parts["ce"].label_smoothing = 0.1',
        'loss_fn.weights["ce"] = 2.0',
        'loss_fn = LossParts({**loss_fn, "ce": Smoothed(loss_fn["ce"])}, {"ce": 0.7, "si\\"ze": 1.0})',
        "batch size 4, label smoothing 0.1, weight of ce 2",
    ):
        assert line in text
    case.close()
    plain = made(set_up(CASES["sizes"]))
    plain.run(steps=2)
    text = plain.export_script(tmp_path / "plain.py").read_text()
    assert not any(word in text for word in ("Regrouping", "Smoothed", "LossParts", "self.sizes"))
    plain.close()
