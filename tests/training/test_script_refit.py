"""Scripts of runs in which parts were exchanged: without nbdebug, they give the run's weights bit for bit.

Each run is made by a debugger as a person would, exported, and trained again in a fresh process that can't import
nbdebug, from the same text of set-up.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nbdebug import CommandError, Debugger, Trainer
from nbdebug.records.optimizers import OptimizerKind
from nbdebug.training.optimizers import converted
from nbdebug.training.script_refit_optimizer import swap_lines
from tests.training.test_script import DRIVER, GAN, GROUPS, NAMES, REPOSITORY, zoo

Act = Callable[[Debugger], Any]
MLP = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

drawn = torch.Generator().manual_seed(5)
inputs, target = torch.randn(100, 8, generator=drawn), torch.randint(0, 3, (100,), generator=drawn)
torch.manual_seed(3)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(),
    nn.Linear(16, 3))
optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
loss_fn = F.cross_entropy
train_loader = DataLoader(TensorDataset(inputs[:80], target[:80]), 10, shuffle=True)
val_loader = DataLoader(TensorDataset(inputs[80:], target[80:]), 20)
"""
COSINE = "scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6, eta_min=1e-3)\n"
ONE_CYCLE = """
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=80)
scheduler_interval = "batch"
"""
ADAM = "optimizer = torch.optim.Adam(model.parameters(), 2e-3, amsgrad=True)\n"
LBFGS = "optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)\n"
TENSOR_RATE = "optimizer = torch.optim.Adam(model.parameters(), torch.tensor(2e-3))\n"
CNN = (
    MLP.replace("(100, 8,", "(100, 1, 8, 8,")
    + """
act = nn.SiLU(inplace=True)
model = nn.Sequential(nn.Conv2d(1, 4, 3), act, nn.ConvTranspose2d(4, 4, 2, groups=2, bias=False), nn.BatchNorm2d(4),
    act, nn.Flatten(), nn.Linear(4 * 49, 3))
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
"""
)
TRANSFORMER = zoo("transformer", "adam")
LOSS_MODULE = MLP + "loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]))\n"


@dataclass(frozen=True)
class Case:
    """A set-up and what is done in it, pairs of steps to take and something to do then."""

    setup: str
    course: list[tuple[int, Act]]
    then: int = 9
    lines: tuple[str, ...] = ()
    without: tuple[str, ...] = field(default=())


def rewound(step: int, act: Act) -> Act:
    def do(debugger: Debugger) -> None:
        debugger.rewind(step)
        act(debugger)

    return do


# fmt: off
CASES: dict[str, Case] = {
    "optimizer": Case(
        MLP, [(7, lambda d: d.swap_optimizer("AdamW", lr=1e-3, weight_decay=0.1))],
        lines=("torch.optim.AdamW(", 'state["momentum_buffer"] * '), without=("class Updates", "lr_scheduler"),
    ),
    "optimizer, rate of its own choice, then knobs of the new kind": Case(
        MLP + ADAM, [(12, lambda d: d.swap_optimizer("SGD")), (3, lambda d: d.set(momentum=0.5, lr=0.01)),
                     (2, lambda d: d.swap_optimizer("RMSprop", momentum=0.3, centered=True)),
                     (2, lambda d: d.set(alpha=0.9, clip_norm=0.2))],
    ),
    "optimizer before the first step": Case(MLP, [(0, lambda d: d.swap_optimizer("NAdam", lr=2e-3))]),
    "optimizer under a schedule, clipped, with a factor": Case(
        MLP + COSINE, [(3, lambda d: d.set(clip_norm=0.5, lr=0.1)), (9, lambda d: d.swap_optimizer("Adamax")),
                       (9, lambda d: d.set(lr=0.004)), (1, lambda d: d.swap_optimizer("SGD", lr=0.02))], 12,
        lines=("move_scheduler(", "updates.watch(", "renew_rates("),
    ),
    "optimizer under a one-cycle of momentum": Case(
        MLP + ONE_CYCLE, [(5, lambda d: d.set(lr=0.1)), (9, lambda d: d.swap_optimizer("AdamW"))], 12,
    ),
    "optimizer after some parameters were drawn anew": Case(
        MLP + ADAM, [(5, lambda d: d.reinitialize("kaiming_normal", seed=3, layers=["0"])),
                     (4, lambda d: d.set(lr=5e-3)),
                     (1, lambda d: d.swap_optimizer("Adagrad")), (5, lambda d: d.swap_optimizer("RAdam"))],
    ),
    "from LBFGS": Case(MLP + LBFGS, [(4, lambda d: d.swap_optimizer("RMSprop")), (4, lambda d: d.set(clip_value=0.1))]),
    "a rate tensor": Case(
        MLP + TENSOR_RATE, [(4, lambda d: d.set(lr=1e-3)), (3, lambda d: d.swap_optimizer("AdamW")),
                            (4, lambda d: d.set_schedule("step", every=3, gamma=0.5, interval="batch")),
                            (5, lambda d: d.set(lr=5e-3)), (4, lambda d: d.set_schedule(None))],
    ),
    "groups": Case(
        GROUPS, [(4, lambda d: d.set(lr={"head": 0.3})), (3, lambda d: d.swap_optimizer("Adam")),
                 (4, lambda d: d.set(beta1={"head": 0.5})), (2, lambda d: d.swap_activation("prelu")),
                 (4, lambda d: d.set(lr=0.05)), (1, lambda d: d.set_schedule("cosine", total=30, interval="batch"))],
    ),
    "one of several optimizers": Case(
        GAN, [(4, lambda d: d.swap_optimizer("RMSprop", name="g")),
              (5, lambda d: d.set(lr={"g": 0.003}, clip_norm=1.0)), (3, lambda d: d.swap_optimizer("SGD", lr=0.01))], 8,
    ),
    "schedule by batch, with a warm-up": Case(
        MLP, [(7, lambda d: d.set_schedule("cosine", total=12, interval="batch", warmup_steps=3))],
        lines=("LambdaLR(", "def cosine(", "factor = Factor(cosine, floor=0.0, total=12, warmup_steps=3"),
        without=("def cyclic(", "class Rate", "WarmPlateau"),
    ),
    "one schedule after another": Case(
        MLP + COSINE, [(5, lambda d: d.set(lr=0.2)), (6, lambda d: d.set_schedule("cyclic", every=6, interval="batch")),
                       (7, lambda d: d.set(lr=0.1)), (3, lambda d: d.set_schedule("exponential", gamma=0.7)),
                       (15, lambda d: d.set_schedule(None)), (3, lambda d: d.set(lr=0.02)),
                       (2, lambda d: d.set_schedule("one_cycle", total=15, interval="batch"))], 18,
    ),
    "a plateau with a warm-up, by batch": Case(
        MLP, [(4, lambda d: d.set_schedule("plateau", patience=0, threshold=0.5, gamma=0.5, warmup_steps=2,
                                           interval="batch")), (6, lambda d: d.set(lr=0.2))],
        lines=("class WarmPlateau(",),
    ),
    "a plateau by epoch": Case(MLP, [(4, lambda d: d.set_schedule("plateau", patience=0, threshold=0.9))], 30),
    "activations": Case(
        MLP, [(7, lambda d: d.swap_activation("noisy_relu")), (5, lambda d: d.swap_activation("gelu", ["1"])),
              (3, lambda d: d.swap_activation("prelu", ["5"])), (6, lambda d: d.swap_activation("leaky_relu"))],
        lines=('setattr(modules[""], "1", nn.RReLU())', "drop(optimizers, gone)"),
    ),
    "a shared activation in place": Case(
        CNN, [(4, lambda d: d.swap_activation("elu")), (4, lambda d: d.swap_activation("prelu"))], lines=("shared = ",),
    ),
    "the functions of a transformer": Case(
        TRANSFORMER, [(4, lambda d: d.swap_activation("gelu")), (4, lambda d: d.swap_activation("prelu"))], 20,
    ),
    "frozen and thawed": Case(
        MLP + ADAM, [(5, lambda d: d.freeze(["0", "3"])), (4, lambda d: d.swap_optimizer("SGD", lr=0.05)),
                     (4, lambda d: d.unfreeze("3")), (3, lambda d: d.freeze("4", hold_statistics=True)),
                     (4, lambda d: d.unfreeze())],
        lines=('for parameter in modules["0"].parameters():', "parameter.requires_grad_(False)",
               "parameter.grad = None", 'modules["4"].training = False'),
    ),
    "frozen, then drawn anew": Case(
        MLP, [(3, lambda d: d.freeze("0")), (2, lambda d: d.reinitialize("xavier_normal", seed=4)),
              (2, lambda d: d.unfreeze("0"))],
    ),
    "norms put in": Case(
        CNN, [(4, lambda d: d.insert_norms(["0"])), (5, lambda d: d.reinitialize("xavier_uniform", seed=1))],
        lines=('put_norm_after(modules["0"], nn.BatchNorm2d(4))',),
    ),
    "norms put in and taken off again": Case(
        MLP + ADAM, [(4, lambda d: d.insert_norms(["0"])), (5, lambda d: d.remove_norms(["0.inserted_norm"])),
                     (4, lambda d: d.insert_norms(["0"])),
                     (3, lambda d: d.remove_norms(["0.inserted_norm"], fold=True))],
        lines=("take_norm_off(",),
    ),
    "norms folded": Case(
        CNN, [(6, lambda d: d.remove_norms(fold=True))], lines=("fold_in(", "nn.Parameter(torch.zeros((4,))"),
    ),
    "norms taken out": Case(MLP, [(6, lambda d: d.remove_norms())]),
    "an average": Case(
        MLP, [(3, lambda d: d.average("ema", decay=0.9)), (4, lambda d: d.swap_activation("prelu"))],
        lines=("averages[:] = [Average(decay=0.9)]",),
    ),
    "an equal average, every second": Case(CNN, [(3, lambda d: d.average("swa", start=2, every=2))]),
    "an average that ended": Case(
        MLP, [(3, lambda d: d.average("swa")), (3, lambda d: d.average(None)), (2, lambda d: d.average("ema"))],
    ),
    "a loss with weights, everything": Case(
        LOSS_MODULE + COSINE,
        [(3, lambda d: d.swap_activation("prelu")), (2, lambda d: d.set(lr=0.02, clip_norm=0.5, dropout=0.4)),
         (2, lambda d: d.insert_norms(["0"])), (1, lambda d: d.swap_optimizer("AdamW")), (0, lambda d: d.freeze("6")),
         (4, lambda d: d.reinitialize("kaiming_normal", seed=7)), (0, lambda d: d.average("ema", decay=0.8)),
         (3, lambda d: d.set_schedule("cosine", total=20, interval="batch", floor=0.1)), (2, lambda d: d.unfreeze()),
         (1, lambda d: d.set(lr=0.01, weight_decay=0.2)), (2, lambda d: d.remove_norms()),
         (1, lambda d: d.set(clip_norm=None))],
    ),
    "with decay split, batches gathered, noise": Case(
        MLP + ADAM, [(3, lambda d: d.split_decay()), (2, lambda d: d.set(accumulate=2, gradient_noise=0.01)),
                     (3, lambda d: d.swap_optimizer("AdamW")), (3, lambda d: d.swap_activation("prelu")),
                     (2, lambda d: d.set(weight_decay=0.1, lr=1e-3)), (2, lambda d: d.freeze(["0", "3", "4"])),
                     (2, lambda d: d.set_schedule("step", every=1, gamma=0.5)),
                     (2, lambda d: d.set(label_smoothing=0.1, batch_size=8))],
    ),
    "after a rewind to before another change": Case(
        MLP, [(5, lambda d: d.swap_activation("gelu")), (4, lambda d: d.swap_optimizer("Adam")),
              (6, rewound(7, lambda d: d.set_schedule("step", every=4, gamma=0.5, interval="batch"))),
              (6, rewound(9, lambda d: d.swap_optimizer("RMSprop")))],
    ),
    "a run that the model does not hold": Case(
        MLP, [(5, lambda d: d.swap_activation("prelu")), (3, lambda d: d.swap_optimizer("Adam", lr=1e-3)),
              (4, lambda d: d.set(lr=5e-3))],
    ),
}
# fmt: on


def made(setup: str) -> tuple[Debugger, Any]:
    found: dict[str, Any] = {}
    exec(setup, found)
    torch.manual_seed(11)
    trainer = Trainer(**{name: found[name] for name in NAMES if name in found})
    return Debugger(found["model"], trainer, journal=None), found["model"]


def weights(model: Any) -> dict[str, torch.Tensor]:
    parts = {"": model} if isinstance(model, nn.Module) else model
    return {
        f"{prefix}.{name}" if prefix else name: tensor.detach().clone()
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }


@dataclass(frozen=True)
class Done:
    """What the scripts gave, and what was expected: weights, averages, and the texts."""

    given: dict[str, dict[str, torch.Tensor]]
    expected: dict[str, dict[str, torch.Tensor]]
    averages: dict[str, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]
    texts: dict[str, str]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def done(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("refits")
    expected, averaged, lines = {}, {}, []
    for index, (name, case) in enumerate(CASES.items()):
        debugger, model = made(case.setup)
        for steps, act in case.course:
            if steps:
                debugger.run(steps=steps)
            act(debugger)
        debugger.run(steps=case.then)
        expected[name] = weights(model)
        if debugger._session.refitter.average is not None:
            with debugger.averaged():
                averaged[name] = weights(model)
        run = debugger.status.run
        if name == "a run that the model does not hold":
            debugger.rewind(2)
            debugger.swap_optimizer("Adagrad")
            debugger.insert_norms(["0"])
            debugger.run(steps=2)
        debugger.export_script(folder / f"run{index}.py", run)
        debugger.close()
        (folder / f"setup{index}.py").write_text(case.setup)
        lines.append(f"{folder}/run{index}.py {folder}/setup{index}.py --out {folder}/weights{index}.safetensors")
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER], input="\n".join(lines), cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    given = {name: load_file(folder / f"weights{index}.safetensors") for index, name in enumerate(CASES)}
    alone = {name: load_file(folder / f"weights{list(CASES).index(name)}.average.safetensors") for name in averaged}
    texts = {name: (folder / f"run{index}.py").read_text() for index, name in enumerate(CASES)}
    return Done(given, expected, {name: (alone[name], averaged[name]) for name in averaged}, texts)


@pytest.mark.parametrize("name", CASES)
def test_the_script_gives_the_runs_weights(name: str, done: Done) -> None:
    given, expected = done.given[name], done.expected[name]
    assert given.keys() == expected.keys()
    assert all(tensor.isfinite().all() for tensor in expected.values()), "a run that diverged shows nothing"
    assert [key for key in given if not torch.equal(given[key], expected[key])] == []


def test_the_script_gives_the_average_too(done: Done) -> None:
    assert len(done.averages) == 4
    for name, (given, expected) in done.averages.items():
        assert given.keys() == expected.keys(), name
        assert [key for key in given if not torch.equal(given[key], expected[key])] == [], name
        assert any(not torch.equal(given[key], done.given[name][key]) for key in given), "the average is another"


@pytest.mark.parametrize("name", CASES)
def test_the_script_is_plain_and_short(name: str, done: Done) -> None:
    text, case = done.texts[name], CASES[name]
    for line in case.lines:
        assert line in text
    for part in case.without:
        assert part not in text
    tree = ast.parse(text)
    brought = {
        (alias.asname or alias.name).partition(".")[0]
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    } - {"annotations"}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert brought <= used, f"imported in vain: {brought - used}"
    assert "import nbdebug" not in text and "from nbdebug" not in text
    assert "#:" not in text and "noqa" not in text and "type: ignore" not in text
    assert max(map(len, text.splitlines())) <= 120


SOURCES: dict[str, tuple[Any, ...]] = {
    "SGD": (torch.optim.SGD, {"lr": 0.1}),
    "SGD, momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "SGD, dampened": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "dampening": 0.5}),
    "Adam": (torch.optim.Adam, {"lr": 1e-2, "betas": (0.8, 0.99)}),
    "Adam, amsgrad, capturable": (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True, "maximize": True}),
    "AdamW, fused": (torch.optim.AdamW, {"lr": 1e-2, "fused": True}),
    "NAdam": (torch.optim.NAdam, {"lr": 1e-2, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    "RAdam": (torch.optim.RAdam, {"lr": 1e-3}),
    "Adamax": (torch.optim.Adamax, {"lr": 1e-2}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 1e-2, "momentum": 0.5, "centered": True, "foreach": True}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 1e-2, "lr_decay": 0.01}),
    "Adadelta": (torch.optim.Adadelta, {"lr": 1.0}),
    "Adam, a rate tensor": (torch.optim.Adam, {"lr": torch.tensor(1e-2)}),
}


def trained(source: str, complex_too: bool) -> Any:
    """An optimizer after some updates, one parameter of which has had fewer, and one none."""
    kind, options = SOURCES[source]
    generator = torch.Generator().manual_seed(1)
    held = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((3, 4), (4,), (2,), (5,))]
    if complex_too:
        held.append(torch.randn(3, generator=generator, dtype=torch.complex64).requires_grad_())
    groups = [{"params": held[:2], "name": "body"}, {"params": held[2:], "lr": options["lr"] * 0.5}]
    optimizer = kind(groups, **options)
    for step in range(9):
        for index, parameter in enumerate(held):
            skipped = (index == 2 and step < 4) or index == 3
            parameter.grad = None if skipped else torch.randn_like(parameter.detach()) * 0.1
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("target", OptimizerKind)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("given", [{}, {"lr": 3e-3, "weight_decay": 0.02}], ids=["", "options"])
def test_a_printed_conversion_is_the_conversion(source: str, target: str, given: dict[str, Any]) -> None:
    made_here = []
    for _ in range(2):
        torch.manual_seed(2)
        made_here.append(trained(source, complex_too="fused" not in source and target != "RMSprop"))
    conversion = converted(made_here[0], target, given.get("lr"), **{k: v for k, v in given.items() if k != "lr"})
    names = {"optimizers": {"": made_here[1]}, "torch": torch}
    exec("\n".join(swap_lines("", made_here[0], conversion, [])), names)
    new, ours = names["optimizers"][""], conversion.optimizer
    assert type(new) is type(ours)
    assert getattr(new, "_step_supports_amp_scaling", False) == getattr(ours, "_step_supports_amp_scaling", False)
    for mine, theirs in zip(new.param_groups, ours.param_groups, strict=True):
        assert {k: v for k, v in mine.items() if k != "params"} == {k: v for k, v in theirs.items() if k != "params"}
    for optimizer in (new, ours):
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        assert [id(p) for p in held] != [], "the parameters are carried over"
    pairs = zip(*([p for g in o.param_groups for p in g["params"]] for o in (new, ours)), strict=True)
    for mine, theirs in pairs:
        assert torch.equal(mine, theirs)
        state, expected = new.state.get(mine, {}), ours.state.get(theirs, {})
        assert state.keys() == expected.keys()
        for entry, value in expected.items():
            assert state[entry].dtype is value.dtype and torch.equal(state[entry], value), entry


def test_what_can_not_be_printed_is_refused_by_its_name(tmp_path: Path) -> None:
    debugger, model = made(MLP)
    debugger.button("shake", lambda: model[0].weight.data.mul_(1.01))
    debugger.knob("temperature", 1.0, low=0.1, high=10)
    debugger.run(steps=3)
    debugger.press("shake")
    debugger.set(temperature=0.5)
    debugger.run(steps=2)
    with pytest.raises(
        CommandError, match=r"(?s)temperature after step 3.*the button 'shake' was pressed after step 3"
    ):
        debugger.export_script(tmp_path / "run.py")
    debugger.close()


def test_a_run_that_began_with_other_parts_from_a_file_is_refused(tmp_path: Path) -> None:
    debugger, _ = made(MLP)
    debugger.run(steps=3)
    debugger.swap_activation("prelu", ["1"])
    debugger.swap_optimizer("Adam")
    debugger.average("ema")
    debugger.snapshot("here", path=tmp_path / "here.safetensors")
    debugger.checkout(tmp_path / "here.safetensors")
    debugger.run(steps=2)
    with pytest.raises(
        CommandError, match=r"began with other parts.*1: PReLU, was ReLU; another optimizer, Adam; an av"
    ):
        debugger.export_script(tmp_path / "run.py")
    debugger.export_script(tmp_path / "main.py", "main")
    debugger.close()
