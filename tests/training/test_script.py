"""Exported scripts: run on their own, without nbdebug, they give the run's weights bit for bit.

The runs are made of Loop, Knobs and UpdateHooks by hand; the scripts run in a fresh process in which nbdebug can't be
imported. What is trained is made from the same text on both sides, then given other weights here, so that a script that
did not read its start file could not succeed.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import dis
import errno
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nbdebug.records.commands import Changes, Clip, ClipMode, InitScheme, Reinitialize, SetKnobs, Skip
from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Change, Intervention, OutsideEdit, Reseed
from nbdebug.training import initialization, rng, script, snapshots
from nbdebug.training.guard import Guard
from nbdebug.training.knobs import Knobs
from nbdebug.training.loop import Loop
from nbdebug.training.modules import roots
from nbdebug.training.rng import RandomState
from nbdebug.training.script_changes import words
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.trainer import Trainer
from nbdebug.training.update import UpdateHooks

REPOSITORY = Path(__file__).parents[2]
NAMES = (
    *("optimizer", "loss_fn", "train_loader", "val_loader", "scheduler", "scheduler_interval", "metrics", "step"),
    *("eval_step", "state", "device"),
)
NORM, VALUE, OFF = (Clip(mode, 0.3) for mode in (ClipMode.NORM, ClipMode.VALUE, ClipMode.OFF))
Due = tuple[int, int, Change]


def lr(value: Any) -> SetKnobs:
    return SetKnobs(Changes(lr=value))


def clip(value: Clip) -> SetKnobs:
    return SetKnobs(Changes(clip=value))


def options(**values: Any) -> SetKnobs:
    return SetKnobs(Changes(options=values))


def update(**values: Any) -> SetKnobs:
    return SetKnobs(Changes(**values))


def dropout(value: Any) -> SetKnobs:
    return SetKnobs(Changes(dropout=value))


def init(scheme: str, *layers: str, keep: bool = False) -> Reinitialize:
    return Reinitialize(InitScheme(scheme), 5, layers, keep)


def zoo(name: str, optimizer: str, **options: Any) -> str:
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    return f"""
from tests.training import zoo
import torch
case = zoo.make({name!r}, {optimizer!r}{given})
model, optimizer, loss_fn = case.model, case.optimizer, case.loss_fn
train_loader, val_loader = case.train_loader, case.val_loader
"""


def schedule(made: str, interval: str = "epoch") -> str:
    return f"scheduler, scheduler_interval = torch.optim.lr_scheduler.{made}, {interval!r}\n"


class Silent:
    """Watches nothing."""

    looking = False


@dataclass
class Case:
    """A run: how it is set up, its changes, its start and its end as (steps, whole epochs)."""

    setup: str
    history: Sequence[Due] = ()
    end: tuple[int, int] = (45, 2)
    start: tuple[int, int] = (0, 0)
    before: Sequence[Change] = ()
    reseeded: dict[int, int] = field(default_factory=dict)


class Player:
    """Trains a case as a session does, without threads."""

    def __init__(self, case: Case) -> None:
        found: dict[str, Any] = {}
        exec(case.setup, found)
        self.model = found["model"]
        self.trainer = Trainer(**{name: found[name] for name in NAMES if name in found})
        self.case = case
        torch.manual_seed(77)
        with torch.no_grad():
            for root in roots(self.model).values():
                for parameter in root.parameters():
                    if not isinstance(parameter, torch.nn.UninitializedParameter):
                        parameter.mul_(0.9)
        self.knobs = Knobs(self.model, self.trainer)
        self.loop = Loop(self.model, self.trainer, nullcontext, accumulation=self.knobs.update.accumulation)
        self.hooks = UpdateHooks(
            self.trainer.optimizers, self.knobs, Silent(), Guard(self.model, self.trainer), busy=lambda: False
        )
        self.hooks.attach()
        self.random: dict[int, RandomState] = {}
        for change in case.before:
            self.make(change)

    @property
    def place(self) -> tuple[int, int]:
        return self.loop.step, self.loop.epoch

    def play(self, due: list[tuple[int, Due]], end: tuple[int, int]) -> None:
        while True:
            while due and due[0][1][:2] == self.place:
                index, (_, _, change) = due.pop(0)
                self.make(change, index)
            if self.place == end:
                return
            if self.loop.take_batch():
                with self.hooks:
                    result = self.loop.train_batch()
                self.loop.batch_metrics(result)
                loss = result.loss.detach() if isinstance(result.loss, torch.Tensor) else result.loss
                self.loop.keep_loss(float(loss), result)
                if not self.loop.cursor.at_end():
                    continue
            self.loop.finish_epoch()

    def make(self, change: Change, index: int = -1) -> None:
        match change:
            case SetKnobs(changes):
                self.knobs.refresh()
                assert not self.knobs.mistakes(changes)
                self.knobs.apply(changes)
            case Reinitialize():
                redrawn = initialization.reinitialize(self.model, change.scheme, change.seed, change.layers)
                for optimizer in self.trainer.optimizers.values() if not change.keep_optimizer_state else ():
                    if isinstance(optimizer, torch.optim.LBFGS):
                        optimizer.state.clear()
                    for parameter in redrawn.parameters:
                        optimizer.state.pop(parameter, None)
            case Skip():
                self.loop.cursor.take()
            case Reseed(seed) if index in self.case.reseeded:
                torch.manual_seed(seed)
                self.random[index] = RandomState.capture()
            case Reseed(seed):
                self.knobs.update.noise.reseed(seed)
                rng.reseed(seed)
                self.loop.cursor.reshuffle(seed)
                rng.reseed(seed)

    def snapshot(self) -> Snapshot:
        return snapshots.capture(
            self.model, self.trainer, self.knobs, self.loop.cursor,
            run="main", step=self.loop.step, epoch=self.loop.epoch, epoch_losses=tuple(self.loop.epoch_losses),
        )  # fmt: skip

    def export(self, path: Path, start: Snapshot, **changed: Any) -> Path:
        options: dict[str, Any] = {
            "model": self.model,
            "trainer": self.trainer,
            "start": start,
            "interventions": history_of(self.case),
            "end_step": self.case.end[0],
            "end_epoch": self.case.end[1],
            "reseeded": self.random,
            "run": "main",
        }
        return script.export(path, **{**options, **changed})[0]

    def weights(self) -> dict[str, torch.Tensor]:
        return {
            f"{prefix}.{name}" if prefix else name: tensor.clone()
            for prefix, root in roots(self.model).items()
            for name, tensor in root.state_dict().items()
            if isinstance(tensor, torch.Tensor)
        }


def history_of(case: Case) -> list[Intervention]:
    return [Intervention("main", step, epoch, change) for step, epoch, change in case.history]


GAN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
model = {"g": nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 3)), "d": nn.Linear(3, 1)}
optimizer = {name: torch.optim.Adam(part.parameters(), 0.01) for name, part in model.items()}
scheduler = {name: torch.optim.lr_scheduler.ExponentialLR(o, 0.8) for name, o in optimizer.items()}
loss_fn = nn.BCEWithLogitsLoss()
own = torch.Generator().manual_seed(3)
train_loader = DataLoader(TensorDataset(torch.randn(60, 3)), 10, shuffle=True, generator=own)

def step(model, batch, loss_fn, optimizer):
    [real] = batch
    fake = model["g"](torch.randn(len(real), 4))
    for name in ("d", "d", "g"):
        optimizer[name].zero_grad()
        made = model["d"](fake if name == "g" else fake.detach())
        loss = loss_fn(made, torch.ones_like(made) if name == "g" else torch.zeros_like(made))
        loss = loss + (loss_fn(model["d"](real), torch.ones(len(real), 1)) if name == "d" else 0)
        loss.backward()
        optimizer[name].step()
    return {"loss": loss}
"""
AVERAGED = (
    zoo("mlp", "adam")
    + """
from torch.nn import functional as F
ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
scaler = torch.amp.GradScaler("cpu")
state = {"ema": ema, "scaler": scaler}

def step(model, batch, loss_fn, optimizer):
    inputs, target = batch
    optimizer.zero_grad()
    output = model(inputs)
    loss = loss_fn(output, target) + 0.1 * F.mse_loss(output, ema(inputs).detach())
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    ema.update_parameters(model)
    return {"loss": loss, "output": output, "target": target}

def eval_step(model, batch, loss_fn):
    output = ema(batch[0])
    return {"loss": loss_fn(output, batch[1]), "output": output, "target": batch[1]}

metrics = {"accuracy": lambda output, target: (output.argmax(1) == target).float().mean() + 0 * torch.rand(())}
"""
)
GROUPS = (
    zoo("mlp", "sgd")
    + """
optimizer = torch.optim.SGD([{"params": model[0].parameters(), "name": "body"}, {"params": model[3].parameters(),
    "lr": 0.01, "name": "head"}], lr=0.1)
"""
)
TIED = """
import torch
from torch import nn
torch.manual_seed(0)
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Embedding(20, 12, sparse=False), nn.MultiheadAttention(12, 2, batch_first=True)
        self.norm, self.up, self.head = nn.LayerNorm(12), nn.ConvTranspose1d(12, 12, 1), nn.Linear(12, 20)
        self.head.weight = self.embed.weight
        self.norm.bias.requires_grad_(False)
        self.attend.out_proj.weight.requires_grad_(False)
    def forward(self, x):
        x = self.embed(x)
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.head(self.up(x.transpose(1, 2)).mean(2))
model = Tied()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.01)
loss_fn = nn.CrossEntropyLoss(weight=torch.rand(20))
train_loader = [{"x": torch.randint(0, 20, (6, 5)), "y": torch.randint(0, 20, (6,))} for _ in range(20)]
"""
NUMPY = """
import numpy, random, torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
class Augmented(Dataset):
    def __init__(self):
        self.draws, self.inner = numpy.random.default_rng(1), torch.Generator().manual_seed(1)
        self.plain = random.Random(1)
    def __len__(self):
        return 60
    def __getitem__(self, index):
        noise = self.draws.normal() + numpy.random.rand() + random.random() + self.plain.random()
        return torch.full((4,), float(index)) / 30 + noise * torch.randn(4, generator=self.inner), torch.tensor([1.0])
model, loss_fn = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)), nn.MSELoss()
optimizer = torch.optim.RMSprop(model.parameters(), 0.01)
train_loader = DataLoader(Augmented(), 5, shuffle=True)
"""
SPARSE = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Embedding(20, 4, sparse=True), nn.Flatten(), nn.Linear(12, 3))
optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.5)), nn.CrossEntropyLoss()
train_loader = [(torch.randint(0, 20, (6, 3)), torch.randint(0, 3, (6,))) for _ in range(20)]
"""
UNSIZED = (
    zoo("mlp", "sgd")
    + """
class Unsized(torch.utils.data.IterableDataset):
    def __iter__(self):
        for index in range(200):
            yield case.train_loader.dataset[index][0] + torch.rand(()), case.train_loader.dataset[index][1]
        torch.rand(3)  # what a peek at the end draws
train_loader = torch.utils.data.DataLoader(Unsized(), batch_size=10)
"""
)
ODD = """
import torch
from torch import nn
torch.manual_seed(0)
class Carrying(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.carried, self.calls = nn.Linear(4, 4), torch.zeros(4), 0
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("late", None)
    def get_extra_state(self):
        return {"calls": self.calls, "words": ("a", {1, 2}, float("nan"))}
    def set_extra_state(self, state):
        self.calls = state["calls"]
    def forward(self, x):
        self.calls += 1
        self.carried = torch.tanh(self.carried + x.mean(0)).detach()
        self.mean = self.mean * 0.9 + x.mean(0)
        self.late = self.mean * self.calls / 100
        return self.inner(x) * self.carried + self.late
class OwnOptimizer(torch.optim.SGD):
    def state_dict(self):
        return {"inside": super().state_dict(), "when": (1, 2)}
    def load_state_dict(self, state):
        super().load_state_dict(state["inside"])
class Reader(torch.utils.data.Dataset):
    at = 0
    def __len__(self):
        return 20
    def __getitem__(self, index):
        self.at += 1
        return torch.full((4,), (index + 0.1 * self.at) / 20), torch.ones(4)
    def state_dict(self):
        return {"at": self.at}
    def load_state_dict(self, state):
        self.at = state["at"]
model, outside = nn.Sequential(Carrying(), nn.Linear(4, 4)), torch.ones(4, requires_grad=True)
optimizer = OwnOptimizer([*model.parameters(), outside], lr=1e-3, momentum=0.9)
loss_fn = lambda output, target: ((output - target * outside) ** 2).mean()
train_loader = torch.utils.data.DataLoader(Reader(), 4, shuffle=True)
scheduler, scheduler_interval, device = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.9), "manual", "cpu"
def step(model, batch, loss_fn, optimizer):
    optimizer.zero_grad()
    loss = loss_fn(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    scheduler.step()
    return loss
"""
COUNTING = """
import torch
from torch import nn
torch.manual_seed(0)
class Counting(nn.Linear):
    def __init__(self):
        super().__init__(4, 1)
        self.calls, self.scale, self.mood = 0, 1.0, None
    def forward(self, x):
        self.calls += 1
        self.scale, self.mood = self.scale * 0.9, "odd" if self.calls % 2 else None
        return super().forward(x) * self.scale * (1 + self.calls % 3) + (0.5 if self.mood else 0)
model, loss_fn = nn.Sequential(Counting()), nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), 0.01)
train_loader = [(torch.randn(5, 4), torch.randn(5, 1)) for _ in range(8)]
"""
# fmt: off
CASES: dict[str, Case] = {
    "untouched": Case(zoo("mlp", "sgd")),
    "momentum, all knobs": Case(
        zoo("cnn, frozen norm, dropout", "sgd"),
        [(3, 0, lr(0.02)), (7, 0, clip(NORM)), (20, 1, dropout(0.5)), (25, 1, clip(VALUE)), (31, 1, clip(OFF)),
         (33, 1, init("xavier_normal", "conv2")), (40, 2, lr(1e-3)), (45, 2, init("orthogonal", "head"))],
    ),
    "adam, cosine": Case(
        zoo("mlp", "adam") + schedule("CosineAnnealingLR(optimizer, 3, eta_min=1e-4)"),
        [(3, 0, lr(0.02)), (20, 1, clip(NORM)), (20, 1, lr(0.005)), (40, 2, init("default", keep=True))],
    ),
    "fused, one cycle, workers, augmentation": Case(
        zoo("mlp", "adamw fused", workers=2, jitter=True)
        + schedule("OneCycleLR(optimizer, 0.01, total_steps=100)", "batch"),
        [(5, 0, lr(0.02)), (27, 1, dropout({"2": 0.6}))],
    ),
    "lbfgs": Case(
        zoo("lstm", "lbfgs"), [(4, 0, clip(NORM)), (9, 0, lr(0.05)), (20, 1, init("lecun_uniform", "head"))], (25, 1)
    ),
    "rmsprop, plateau": Case(
        zoo("mlp", "rmsprop") + schedule("ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)"),
        [(2, 0, lr(0.05)), (22, 1, clip(VALUE))], (61, 3),
    ),
    "plateau without validation": Case(
        zoo("transformer", "adam") + "del val_loader\n"
        + schedule("ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)"),
        [(20, 1, dropout(0.3)), (30, 1, init("xavier_uniform"))], (65, 3),
    ),
    "seeds": Case(
        zoo("lstm", "adam"), [(0, 0, Reseed(3)), (7, 0, Reseed(4)), (20, 1, Reseed(5)), (33, 1, Reseed(6))],
        reseeded={0: 3, 1: 4},
    ),
    "a gan": Case(
        GAN,
        [(4, 0, clip(VALUE)), (6, 1, lr({"g": 0.002})), (9, 1, lr(0.001)), (12, 2, init("kaiming_normal")),
         (14, 2, Reseed(3)), (15, 2, clip(NORM))], (21, 3),
    ),
    "averaged weights, a scaler, metrics": Case(
        AVERAGED, [(26, 1, clip(NORM)), (30, 1, lr(0.01)), (43, 2, clip(VALUE))], start=(20, 1)
    ),
    "groups": Case(GROUPS, [(4, 0, lr(0.2)), (6, 0, lr({"head": 0.3})), (8, 0, lr(0.0)), (9, 0, lr(0.05))]),
    "groups, a schedule": Case(
        GROUPS + schedule("CyclicLR(optimizer, 0.01, 0.1, step_size_up=5)", "batch"),
        [(4, 0, lr(0.2)), (6, 0, lr({"head": 0.3})), (9, 0, lr(0.05))],
    ),
    "tied, attention, frozen parts, a loss with weights": Case(
        TIED,
        [(5, 0, init("orthogonal")), (6, 0, init("kaiming_uniform", "up")), (7, 0, init("default", "embed", "attend")),
         (8, 0, init("lecun_normal", "attend", keep=True)), (9, 0, init("xavier_uniform", "head", "norm"))],
    ),
    "generators everywhere": Case(NUMPY, [(5, 0, Reseed(1)), (12, 1, Reseed(2))], (20, 1)),
    "sparse gradients, a rate tensor": Case(SPARSE, [(3, 0, clip(NORM)), (5, 0, lr(0.1)), (9, 0, clip(VALUE))]),
    "no length": Case(UNSIZED, [(20, 0, lr(0.02)), (20, 1, Reseed(4)), (25, 1, Reseed(5))], (40, 2)),
    "from within an epoch": Case(
        NUMPY, [(17, 1, lr(0.001)), (19, 1, Reseed(2))], (30, 2), start=(14, 1),
    ),
    "odd in every way": Case(ODD, [(12, 2, lr(2e-3)), (15, 3, init("default", "1"))], (20, 4), start=(10, 2)),
    "modules that count": Case(COUNTING, [(12, 1, lr(0.02))], (20, 2), start=(9, 1)),
    "options of adam": Case(
        zoo("mlp", "adam"), [(3, 0, options(beta1=0.7)), (5, 0, options(weight_decay=0.1, eps=1e-6)),
                             (9, 0, options(beta2=0.9)), (12, 0, options(amsgrad=True))], (25, 1),
    ),
    "options of momentum, by group": Case(
        GROUPS, [(4, 0, options(momentum={"head": 0.8})), (6, 0, options(weight_decay=0.05)), (8, 0, lr(0.05))],
    ),
    "options of rmsprop": Case(
        zoo("mlp", "rmsprop"), [(2, 0, options(momentum=0.5)), (6, 0, options(centered=True, alpha=0.9))], (15, 0),
    ),
    "batches left out": Case(
        zoo("cnn, frozen norm, dropout", "adam", jitter=True),
        [(0, 0, Skip()), (7, 0, Skip()), (7, 0, lr(0.02)), (17, 0, Skip()), (17, 1, Skip()), (17, 1, Skip())], (30, 1),
    ),
    "batches left out, generators everywhere": Case(NUMPY, [(5, 0, Skip()), (6, 0, Reseed(2)), (7, 0, Skip())], (9, 0)),
    "layers clipped, noise, accumulation": Case(
        zoo("mlp", "adam"),
        [(3, 0, update(layer_clips={"0": Clip(ClipMode.VALUE, 0.001), "*": Clip(ClipMode.NORM, 0.01)})),
         (5, 0, update(gradient_noise=0.01, accumulate=3)),
         (14, 0, clip(NORM)), (17, 0, update(layer_clips={"*": OFF}, accumulate=4)), (33, 1, Reseed(3)),
         (41, 2, update(gradient_noise=0.0))], (45, 2),
    ),
    "layers clipped and noise in a closure": Case(
        zoo("lstm", "lbfgs"), [(3, 0, update(layer_clips={"head": NORM})), (5, 0, update(gradient_noise=0.02))],
        (15, 0),
    ),
    "layers clipped and noise under a scaler": Case(
        AVERAGED,
        [(26, 1, update(layer_clips={"*": NORM}, gradient_noise=0.01)), (30, 1, lr(0.01)), (33, 1, clip(VALUE))],
        start=(20, 1),
    ),
    "noise on sparse gradients": Case(SPARSE, [(3, 0, update(gradient_noise=0.01, layer_clips={"*": VALUE}))], (20, 1)),
    "from within a group of batches": Case(
        zoo("mlp", "adam"), [(9, 0, update(accumulate=1)), (15, 0, update(accumulate=2))], (25, 1), start=(7, 0),
        before=[update(accumulate=4, gradient_noise=0.01, layer_clips={"0": NORM})],
    ),
    "knobs set before the start": Case(
        zoo("transformer", "adam") + schedule("ExponentialLR(optimizer, 0.9)"),
        [(2, 0, clip(VALUE))], (25, 1), before=[lr(0.01), clip(NORM), dropout(0.3)],
    ),
}
# fmt: on
DRIVER = """
import runpy, sys, warnings
sys.modules["nbdebug"] = None
for line in sys.stdin:
    sys.argv = line.split()
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Done:
    """What all scripts gave, by the name of their case: the weights, the expected ones, and the text."""

    given: dict[str, dict[str, torch.Tensor]]
    expected: dict[str, dict[str, torch.Tensor]]
    texts: dict[str, str]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """The scripts take over the number; small models are fastest with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def done(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("scripts")
    expected, lines = {}, {}
    for index, (name, case) in enumerate(CASES.items()):
        player = Player(case)
        player.play([], case.start)
        start = player.snapshot()
        player.play(list(enumerate(case.history)), case.end)
        expected[name] = player.weights()
        player.export(folder / f"run{index}.py", start)
        (folder / f"setup{index}.py").write_text(case.setup)
        lines[name] = f"{folder}/run{index}.py {folder}/setup{index}.py --out {folder}/weights{index}"
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER], input="\n".join(lines.values()), cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    given = {name: load_file(folder / f"weights{index}") for index, name in enumerate(CASES)}
    texts = {name: (folder / f"run{index}.py").read_text() for index, name in enumerate(CASES)}
    return Done(given, expected, texts)


@pytest.mark.parametrize("name", CASES)
def test_the_script_gives_the_runs_weights(name: str, done: Done) -> None:
    given, expected = done.given[name], done.expected[name]
    assert given.keys() == expected.keys()
    different = [key for key in given if not torch.equal(given[key], expected[key])]
    assert all(tensor.isfinite().all() for tensor in expected.values()), "a run that diverged shows nothing"
    assert not different, f"not bit-identical: {different}"


def test_only_what_the_run_needs_is_in_its_script(done: Done) -> None:
    parts = {
        "intervene(": ["momentum, all knobs", "lbfgs"],
        "class Updates": ["momentum, all knobs", "adam, cosine", "lbfgs"],
        "clip_norm": ["momentum, all knobs", "a gan", "lbfgs"],
        "class Rate": ["adam, cosine", "groups"],
        "factor": ["adam, cosine", "a gan"],
        "class Batches": ["seeds", "from within an epoch"],
        "def evaluate(": ["lbfgs", "a gan"],
        "def generators_in(": ["a gan", "generators everywhere"],
        "ReduceLROnPlateau": ["rmsprop, plateau"],
        "is_sparse": ["sparse gradients, a rate tensor", "a gan", "averaged weights, a scaler, metrics"],
        "dataclasses": list(CASES),
    }
    for part, names in parts.items():
        assert part == "dataclasses" or part not in done.texts["untouched"], part
        for name in names:
            assert part in done.texts[name], (part, name)
    assert "class Rate" not in done.texts["momentum, all knobs"]
    assert "clip" not in done.texts["seeds"]
    assert "self.factor" not in done.texts["groups"]


@pytest.mark.parametrize("name", CASES)
def test_a_script_needs_nothing_but_torch_numpy_and_safetensors(name: str, done: Done) -> None:
    tree = ast.parse(done.texts[name])
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module.partition(".")[0] for module in imported} - sys.stdlib_module_names
    assert foreign <= {"torch", "numpy", "safetensors"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    brought = {
        (alias.asname or alias.name).partition(".")[0]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    } - {"annotations"}
    assert brought <= names, f"imported in vain: {brought - names}"
    assert "#:" not in done.texts[name] and "noqa" not in done.texts[name]
    assert max(map(len, done.texts[name].splitlines())) <= 120


@pytest.mark.parametrize("name", CASES)
def test_a_script_uses_no_name_that_is_not_defined(name: str, done: Done) -> None:
    defined = {*vars(builtins), "__file__", "__name__"}
    codes = [compile(done.texts[name], name, "exec")]
    defined |= {each.argval for each in dis.get_instructions(codes[0]) if each.opname == "STORE_NAME"}
    used: set[str] = set()
    while codes:
        code = codes.pop()
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        steps = list(dis.get_instructions(code))
        local = {each.argval for each in steps if each.opname == "STORE_NAME"} | {"__module__", "__qualname__"}
        used |= {each.argval for each in steps if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")} - local
    assert used <= defined, f"not defined: {used - defined}"


def test_a_loader_that_is_not_the_runs_is_told(one_thread: None, tmp_path: Path) -> None:
    path, player = tmp_path / "run.py", Player(Case(zoo("mlp", "sgd")))
    player.export(path, player.snapshot())
    found: dict[str, Any] = {"__name__": "script", "__file__": str(path)}
    exec(path.read_text(), found)
    assert found["split"]((1, 2)) == (1, 2)
    assert found["split"]({"images": 1, "labels": 2}) == (1, 2)
    for batch, kind in ((1, "int"), ((1, 2, 3), "tuple"), ({"a": 1}, "dict")):
        with pytest.raises(TypeError, match=f"yielded a {kind} that is not"):
            found["split"](batch)


def test_a_change_that_names_nothing_is_none(tmp_path: Path) -> None:
    player = Player(Case(zoo("mlp", "sgd")))
    both = SetKnobs(Changes(lr={}, clip=NORM, dropout={}))
    texts = []
    for change in (lr({}), dropout({}), both, clip(NORM)):
        made = Intervention("main", 3, 0, change)
        texts.append(player.export(tmp_path / "run.py", player.snapshot(), interventions=[made]).read_text())
    assert texts[0] == texts[1] and "Nothing was changed by hand." in texts[0] and "intervene" not in texts[0]
    assert texts[2] == texts[3] and "clip norm 0.3\n" in texts[2]


def test_both_files_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player(Case(zoo("mlp", "sgd")))
    start, folder = player.snapshot(), tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(CommandError, match=r"folder', which is a folder: give a file's name, such as '.*run\.py'"):
        player.export(folder, start)
    (folder / "taken.start.safetensors").mkdir()
    with pytest.raises(CommandError, match=r"taken\.start\.safetensors', which is a folder"):
        player.export(folder / "taken.py", start)
    (folder / "taken.start.safetensors").rmdir()
    assert list(tmp_path.iterdir()) == [folder] and not list(folder.iterdir())
    player.export(folder / "run.py", start)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before.keys() == {"run.py", "run.start.safetensors"}

    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    real, synced = os.fsync, []

    def full_at_the_script(file: int) -> None:
        synced.append(file)
        full() if len(synced) > 1 else real(file)

    later = dataclasses.replace(start, step=7)
    for place, name, fails in ((script, "assemble", full), (os, "fsync", full_at_the_script)):
        with monkeypatch.context() as patch, pytest.raises((OSError, CommandError), match="No space left"):
            patch.setattr(place, name, fails)
            player.export(folder / "run.py", later)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, name
    player.export(folder / "run.py", later)
    assert {path.name for path in folder.iterdir()} == set(before)


def test_the_script_tells_its_history(done: Done) -> None:
    text = done.texts["momentum, all knobs"]
    assert "bits of run" not in text
    assert "weights of run 'main', bit for bit" in text
    assert "7           0      main  clip norm 0.3\n" in text
    assert "33          1      main  init xavier_normal of conv2, seed 5\n" in text
    assert '        optimizer.param_groups[0]["lr"] = 0.02\n' in text
    assert "        updates.clip_norm = None\n        updates.clip_value = 0.3\n" in text
    assert '            nn.init.orthogonal_(modules["head"].weight)\n' in text
    assert (
        'for block in modules["attend"].in_proj_weight.chunk(3):'
        in done.texts["tied, attention, frozen parts, a loss with weights"]
    )


def test_it_runs_from_the_command_line_and_says_what_is_missing(one_thread: None, tmp_path: Path) -> None:
    case = Case(zoo("mlp", "sgd"), [(2, 0, lr(0.2))], (4, 0))
    player = Player(case)
    start = player.snapshot()
    player.play(list(enumerate(case.history)), case.end)
    path = player.export(tmp_path / "again.py", start)
    (tmp_path / "mine.py").write_text("model = optimizer = 1")

    def run(setup: str, folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, path, folder / setup, "--out", tmp_path / "out.safetensors"]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env={"PYTHONPATH": "."})

    ran = run("mine.py", tmp_path)
    assert ran.returncode == 2
    assert "mine.py does not define loss_fn, train_loader, val_loader, which the run was made with" in ran.stderr
    (tmp_path / "whole.py").write_text(case.setup)
    ran = run("whole.py", tmp_path)
    assert ran.returncode == 0, ran.stderr
    expected = player.weights()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(tmp_path / "out.safetensors").items())


def test_what_can_not_be_exported_is_refused_with_every_reason(tmp_path: Path) -> None:
    player = Player(Case(zoo("mlp", "sgd")))
    history = [
        Intervention("main", 3, 0, OutsideEdit("something was edited by hand")),
        Intervention("main", 1200, 4, OutsideEdit("a step broke off with an error")),
        Intervention("main", 4, 0, lr({"head": 1.0})),
        Intervention("main", 4, 0, dropout({"7": 0.5})),
        Intervention("main", 4, 0, init("default", "8")),
    ]
    with pytest.raises(CommandError) as caught:
        player.export(tmp_path / "run.py", player.snapshot(), interventions=history)
    for line in (
        "'main' can't be exported: something was edited by hand after step 3, which can't be written as a line",
        "a step broke off with an error after step 1,200",
        "there is no parameter group 'head' any more",
        "there is no dropout layer '7' any more",
        "there is no layer '8' any more",
    ):
        assert line in str(caught.value)
    with torch.autocast("cpu"), pytest.raises(CommandError, match=r"under torch\.autocast"):
        player.export(tmp_path / "run.py", player.snapshot())
    lazy = Player(Case(zoo("mlp", "sgd") + "model = torch.nn.Sequential(model, torch.nn.LazyLinear(3))\n"))
    with pytest.raises(CommandError, match="lazy layers had no shape"):
        lazy.export(tmp_path / "run.py", lazy.snapshot())
    odd = Player(Case(ODD, start=(7, 1)))
    odd.play([], (7, 1))
    with pytest.raises(CommandError, match="a loader that keeps its place by itself"):
        odd.export(tmp_path / "run.py", odd.snapshot())
    with pytest.raises(CommandError, match="there is no folder"):
        player.export(tmp_path / "none" / "run.py", player.snapshot())
    assert list(tmp_path.iterdir()) == []


AWKWARD = 'a """quoted""" \\n run\u2028\n# with ☃ and \x00 \ud800'


def test_names_of_any_kind_stay_text(tmp_path: Path) -> None:
    setup = """
import torch
model = torch.nn.ModuleDict({'say "hi"\\\\': torch.nn.Linear(2, 2), "nö 🎉": torch.nn.Dropout(0.5)})
optimizer = torch.optim.SGD([{"params": list(model.parameters()), "name": "x"}, {"params": [torch.ones(1)],
    "name": 'print("?")\\n'}], 0.1)
loss_fn, train_loader = torch.nn.MSELoss(), [(torch.ones(2, 2), torch.ones(2, 2))]
"""
    player = Player(Case(setup))
    [odd, drop] = [name for name, module in player.model.named_modules() if name]
    history = [
        Intervention(AWKWARD, 1, 1, change)
        for change in (init("default", odd), dropout({drop: 0.1}), lr({'print("?")\n': 0.2}))
    ]
    path = player.export(tmp_path / 'it\'s "it".py', player.snapshot(), interventions=history, run=AWKWARD)
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert 'a """quoted' in ast.get_docstring(tree)
    names = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert {odd, drop, 'it\'s "it".start.safetensors'} <= names
    lines = [line.strip() for line in text.splitlines()]
    assert 'rates[1].ask(0.2)  # print("?")' in lines


def test_the_history_as_json() -> None:
    history = [
        Intervention("main", 3, 0, lr({"head": 0.5})),
        Intervention("main", 4, 0, SetKnobs(Changes(clip=NORM, dropout=0.1))),
        Intervention("lr 1", 4, 0, clip(OFF)),
        Intervention("lr 1", 5, 1, init("default", "a", keep=True)),
        Intervention("lr 1", 6, 1, Reseed(2**63)),
        Intervention("lr 1", 7, 1, OutsideEdit("by hand")),
    ]
    assert json.loads(script.interventions_json(history)) == [
        {"run": "main", "step": 3, "epoch": 0, "kind": "set", "lr": {"head": 0.5}},
        {"run": "main", "step": 4, "epoch": 0, "kind": "set", "clip": {"mode": "norm", "threshold": 0.3},
         "dropout": 0.1},
        {"run": "lr 1", "step": 4, "epoch": 0, "kind": "set", "clip": {"mode": "off"}},
        {"run": "lr 1", "step": 5, "epoch": 1, "kind": "reinitialize", "scheme": "default", "seed": 5, "layers": ["a"],
         "keep_optimizer_state": True},
        {"run": "lr 1", "step": 6, "epoch": 1, "kind": "seed", "seed": 2**63},
        {"run": "lr 1", "step": 7, "epoch": 1, "kind": "edited by hand", "what": "by hand"},
    ]  # fmt: skip


def test_a_group_without_a_name_leaves_no_gap_in_the_words() -> None:
    assert words(lr({"": 0.05, "b": 1.0})) == "lr 0.05, b 1"
