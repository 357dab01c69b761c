"""Norms and biases left out of the weight decay while training: as by hand in a plain loop, and gone back over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from nbdebug import Debugger, Journal, Trainer
from nbdebug.records.commands import SplitDecay
from nbdebug.records.errors import ConfigurationError
from tests.training.test_script import DRIVER

Make = Callable[[Any], torch.optim.Optimizer]
Schedule = Callable[[Any], Any]
EXEMPT = ("0.bias", "1.weight", "1.bias", "3.bias")  # by hand: all biases, and the norm's parameters
BATCHES = 6

# fmt: off
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.3),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.3),
    "rate tensor": lambda p: torch.optim.Adam(p, torch.tensor(1e-2), weight_decay=0.3),
}
SCHEDULES: dict[str, tuple[Schedule | None, str]] = {
    "none": (None, "epoch"),
    "step": (lambda o: lr_scheduler.StepLR(o, 2, 0.7), "batch"),
    "lambda": (lambda o: lr_scheduler.LambdaLR(o, lambda k: 0.95**k), "batch"),
    "multiplicative": (lambda o: lr_scheduler.MultiplicativeLR(o, lambda k: 0.95), "batch"),
    "one cycle": (lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=60), "batch"),
    "cyclic": (lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.05, 4), "batch"),
    "cosine": (lambda o: lr_scheduler.CosineAnnealingLR(o, 4), "epoch"),
    "plateau": (lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.5), "epoch"),
    "sequence": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.ExponentialLR(o, 0.9)], [5]), "batch",
    ),
    "chain": (
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.ConstantLR(o, 0.5, 4), lr_scheduler.ExponentialLR(o, 0.9)]), "batch",
    ),
}
# fmt: on


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))


def data() -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator)) for _ in range(BATCHES)
    ]


def made(make: Make, schedule: str = "none", **options: Any) -> tuple[nn.Module, Any, Debugger]:
    model = network()
    optimizer = make(model.parameters())
    kind, interval = SCHEDULES[schedule]
    scheduler = None if kind is None else kind(optimizer)
    trainer = Trainer(optimizer, F.cross_entropy, data(), scheduler=scheduler, scheduler_interval=interval)
    return model, optimizer, Debugger(model, trainer, **{"journal": None, **options})


def plainly(make: Make, schedule: str, split_after: int, steps: int, lr: tuple[int, float] | None = None) -> nn.Module:
    """What decay does to a parameter, by hand: the same optimizer on all, but those left out see no decay.

    Each parameter has an optimizer of its own from the first step on, which is the same as one for all, and a schedule
    of its own; so nothing of how groups are split is used here.
    """
    model = network()
    optimizers = {name: make([p]) for name, p in model.named_parameters()}
    kind, interval = SCHEDULES[schedule]
    schedulers = {name: kind(each) for name, each in optimizers.items()} if kind is not None else {}
    losses: list[tuple[float, int]] = []
    factor = 1.0
    for step in range(steps):
        if step == split_after:
            for name in EXEMPT:
                optimizers[name].param_groups[0]["weight_decay"] = 0.0
        if lr is not None and step == lr[0]:
            [first, *_] = optimizers.values()
            factor = lr[1] / first.param_groups[0]["initial_lr"]
        x, y = data()[step % BATCHES]
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        losses.append((loss.item(), len(x)))
        for optimizer in optimizers.values():
            [group] = optimizer.param_groups
            before = group["lr"]
            group["lr"] = before * factor if factor != 1.0 else before
            optimizer.step()
            group["lr"] = before
        if interval == "batch" or (step + 1) % BATCHES == 0:
            for scheduler in schedulers.values():
                mean = sum(value * count for value, count in losses) / sum(count for _, count in losses)
                scheduler.step(mean) if schedule == "plateau" else scheduler.step()
            losses = [] if interval == "epoch" else losses
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def decays(optimizer: Any) -> dict[str, float]:
    return {str(group.get("name", index)): group["weight_decay"] for index, group in enumerate(optimizer.param_groups)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_it_acts_from_the_next_step_on_under_every_schedule_and_is_gone_back_over(kind: str, schedule: str) -> None:
    make = OPTIMIZERS[kind]
    model, optimizer, case = made(make, schedule)
    case.run(steps=5)
    assert "4 parameters are not decayed" in case.split_decay().text
    assert decays(optimizer) == {"0": 0.3, "0, no decay": 0.0}
    case.run(steps=12)
    expected = plainly(make, schedule, 5, 17)
    assert same(model, expected)
    assert not same(model, plainly(make, schedule, 99, 17)), "the case would show nothing"
    case.rewind(3)
    assert decays(optimizer) == {"0": 0.3}
    assert same(model, plainly(make, schedule, 99, 3))
    case.rerun(steps=4, start="here")
    assert same(model, plainly(make, schedule, 99, 7))
    case.checkout("main")
    assert decays(optimizer) == {"0": 0.3, "0, no decay": 0.0}
    assert same(model, expected)
    case.rewind(11)
    case.run(steps=6)
    assert same(model, expected)
    case.rewind(4)
    case.split_decay()
    case.run(steps=8)
    assert same(model, plainly(make, schedule, 4, 12))
    case.close()


def test_a_rate_that_the_groups_share_as_a_tensor() -> None:
    make = OPTIMIZERS["rate tensor"]
    model, optimizer, case = made(make)
    case.run(steps=4)
    case.split_decay()
    case.run(steps=4)
    assert same(model, plainly(make, "none", 4, 8))
    case.rewind(2)
    case.checkout("main")
    case.set(lr={"0, no decay": 0.5})
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.01, 0.5])
    case.close()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_snapshots_that_went_to_files(kind: str, tmp_path: Path) -> None:
    model, _, case = made(OPTIMIZERS[kind], "step", snapshot_bytes=0, snapshot_folder=tmp_path)
    case.run(steps=3)
    case.snapshot("before")
    case.split_decay()
    case.run(steps=6)
    case.snapshot("after")
    case.checkout("before")
    case.checkout("after")
    case.run(steps=3)
    assert same(model, plainly(OPTIMIZERS[kind], "step", 3, 12))
    case.close()


def test_the_factor_on_a_schedule_stays_with_both_parts() -> None:
    make = OPTIMIZERS["sgd"]
    model, _, case = made(make, "step")
    case.run(steps=3)
    case.set(lr=0.02)
    case.run(steps=2)
    case.split_decay()
    assert [group.asked for group in case._session.knobs.states().groups] == pytest.approx([0.02, 0.02])
    case.run(steps=6)
    assert same(model, plainly(make, "step", 5, 11, lr=(3, 0.02)))
    case.rewind(4)
    case.checkout("main")
    assert [group.asked for group in case._session.knobs.states().groups] == pytest.approx([0.02, 0.02])
    case.close()


def test_what_is_set_for_all_leaves_them_without_decay() -> None:
    _, optimizer, case = made(OPTIMIZERS["adamw"])
    case.run(steps=2)
    case.split_decay()
    case.set(weight_decay=0.1)
    assert decays(optimizer) == {"0": 0.1, "0, no decay": 0.0}
    case.set(weight_decay={"0, no decay": 0.1})
    case.set(weight_decay={"0": 0.2, "0, no decay": 0.2})
    case.undo()
    assert decays(optimizer) == {"0": 0.1, "0, no decay": 0.1}
    case.undo()
    assert decays(optimizer) == {"0": 0.1, "0, no decay": 0.0}
    case.run(steps=2)
    case.swap_optimizer("SGD", weight_decay=0.4)
    assert decays(case._session.trainer.optimizer) == {"0": 0.4, "0, no decay": 0.0}
    case.rewind(1)
    assert decays(optimizer) == {"0": 0.3}
    case.checkout("main")
    assert decays(case._session.trainer.optimizer) == {"0": 0.4, "0, no decay": 0.0}
    case.close()


def test_of_several_optimizers_one() -> None:
    def step(models: Any, batch: Any, loss_fn: Any, optimizers: Any) -> Any:
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss = loss_fn(models["b"](models["a"](batch[0])), batch[1])
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        return loss

    torch.manual_seed(0)
    parts = {"a": nn.Linear(8, 4), "b": nn.Linear(4, 3)}
    optimizers = {name: torch.optim.AdamW(part.parameters(), 0.1) for name, part in parts.items()}
    case = Debugger(parts, Trainer(optimizers, F.cross_entropy, data(), step=step), journal=None)
    case.run(steps=2)
    with pytest.raises(ConfigurationError, match="no optimizer 'c': there are 'a', 'b'"):
        case.split_decay("c")
    assert case.split_decay("a").text.startswith("no weight decay on norms and biases of a: 1 parameter is not decayed")
    assert [len(each.param_groups) for each in optimizers.values()] == [2, 1]
    with pytest.raises(ConfigurationError, match="AdamW is split already"):
        case.split_decay()
    assert [len(each.param_groups) for each in optimizers.values()] == [2, 1]
    case.rewind(1)
    assert [len(each.param_groups) for each in optimizers.values()] == [1, 1]
    case.close()


class Odd(torch.optim.SGD):
    """Reads and writes its state by itself."""

    def state_dict(self) -> Any:
        return super().state_dict()


@pytest.mark.parametrize(
    ("model", "make", "message"),
    [
        (network, torch.optim.Rprop, "Rprop has no weight_decay to leave out"),
        (network, torch.optim.LBFGS, "LBFGS can't be split"),
        (lambda: nn.Linear(8, 3, bias=False), torch.optim.AdamW, "holds no bias and no parameter of a norm layer"),
        (network, Odd, "Odd keeps its state in a way of its own"),
    ],
)
def test_where_it_means_nothing_it_is_refused_and_the_run_unharmed(model: Any, make: Any, message: str) -> None:
    nets = []
    for attempt in (False, True):
        torch.manual_seed(0)
        net = model()
        case = Debugger(net, Trainer(make(net.parameters(), 0.01), F.cross_entropy, data()), journal=None)
        case.run(steps=2)
        if attempt:
            with pytest.raises(ConfigurationError, match=message):
                case.split_decay()
            assert not case._journal.marks
        case.run(steps=2)
        case.close()
        nets.append(net)
    assert same(*nets)


def test_it_is_on_record_and_without_a_decay_the_text_says_so(tmp_path: Path) -> None:
    model = network()
    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, data())
    case = Debugger(model, trainer, journal=tmp_path / "journal.sqlite")
    case.run(steps=2)
    assert "the decay is 0 now" in case.split_decay().text
    case.run(steps=1)
    assert '"no decay on norms and biases"' in case.export_json()
    case.close()
    stored = Journal.open(tmp_path / "journal.sqlite")
    assert [made.change for made in stored.interventions("main")] == [SplitDecay()]
    assert [mark.text for mark in stored.marks] == ["no weight decay on norms and biases"]
    stored.close()


SETUP = """
import torch
from torch import nn
from torch.nn import functional as F
torch.manual_seed(3)
model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3))
train_loader = [(torch.randn(4, 8), torch.randint(0, 3, (4,))) for _ in range(6)]
optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.2)
loss_fn = F.cross_entropy
"""
GROUPS = """
optimizer = torch.optim.SGD(
    [{"params": list(model[:2].named_parameters()), "name": "body"},
     {"params": [("head", model[4].weight)], "lr": 0.02}, {"params": [("last", model[4].bias)], "weight_decay": 0.5}],
    0.1, momentum=0.5, weight_decay=0.3)
"""
LAMBDA = "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.9**k)\n"
# fmt: off
SCRIPTS: dict[str, tuple[str, Callable[[Debugger], Any]]] = {
    "plain": (SETUP, lambda d: None),
    "decay, rate": (SETUP, lambda d: (d.set(weight_decay=0.4), d.run(steps=3), d.set(lr=0.01))),
    "groups, a schedule, a factor": (
        SETUP + GROUPS + LAMBDA, lambda d: (d.set(lr=0.01), d.run(steps=7), d.set(lr={"body, no decay": 0.3})),
    ),
    "another optimizer after it": (
        SETUP + LAMBDA, lambda d: (d.swap_optimizer("SGD", weight_decay=0.1), d.set(lr=0.02)),
    ),
    "with what acts on gradients": (
        SETUP,
        lambda d: (d.set(accumulate=2, gradient_noise=0.01, clip_norm={"0": 0.1}), d.run(steps=4), d.set(accumulate=1)),
    ),
}
# fmt: on


def test_scripts_do_it_too(tmp_path: Path) -> None:
    expected, calls = {}, []
    threads = torch.get_num_threads()
    for number, (name, (setup, then)) in enumerate(SCRIPTS.items()):
        found: dict[str, Any] = {}
        exec(setup, found)
        (tmp_path / f"setup{number}.py").write_text(setup)
        given = {key: found[key] for key in ("optimizer", "loss_fn", "train_loader", "scheduler") if key in found}
        case = Debugger(found["model"], Trainer(**given), journal=None)
        case.run(steps=4)
        if "factor" in name:
            case.set(lr=0.05)
        case.split_decay()
        case.run(steps=3)
        then(case)
        case.run(steps=5)
        case.export_script(tmp_path / f"run{number}.py")
        calls.append(f"{tmp_path}/run{number}.py {tmp_path}/setup{number}.py --out {tmp_path}/weights{number}")
        expected[name] = {key: value.clone() for key, value in found["model"].state_dict().items()}
        case.close()
    ran = subprocess.run([sys.executable, "-c", DRIVER], input="\n".join(calls), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert torch.get_num_threads() == threads
    for number, (name, weights) in enumerate(expected.items()):
        given = load_file(tmp_path / f"weights{number}")
        assert all(torch.equal(given[key], weights[key]) for key in weights), name
        assert "split_decay(optimizers" in (tmp_path / f"run{number}.py").read_text()
