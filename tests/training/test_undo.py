"""Exchanges taken back: the change reversed as a new change; weights and steps stay; exact over rewinds, scriptable."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from nbdebug import CommandError, Debugger
from nbdebug.records.commands import (
    EditNorms,
    Freeze,
    SetAverage,
    SetKnobs,
    SetSchedule,
    SwapActivations,
    SwapOptimizer,
)
from nbdebug.records.schedules import Schedule
from nbdebug.training.optimizers import converted
from tests.training.test_script import DRIVER, GROUPS, REPOSITORY, zoo
from tests.training.test_script_refit import ADAM, CNN, COSINE, LBFGS, MLP, ONE_CYCLE, made, weights

Act = Callable[[Debugger], Any]
LEAKY = MLP.replace("nn.ReLU()", "nn.LeakyReLU(0.2, inplace=True)", 1).replace("nn.ReLU()", "nn.GELU('tanh')", 1)
TRANSFORMER = zoo("transformer", "adam")
MISH = MLP.replace("nn.ReLU()", "nn.Mish()", 1)


@dataclass(frozen=True)
class Case:
    """A change, perhaps after others, and the commands by which it is taken back."""

    setup: str
    change: Act
    back: tuple[Any, ...]
    before: tuple[Act, ...] = ()


# fmt: off
CASES: dict[str, Case] = {
    "optimizer": Case(
        MLP, lambda d: d.swap_optimizer("AdamW", lr=1e-3, weight_decay=0.1), (SwapOptimizer("SGD", (0.05,)),),
    ),
    "optimizer with options that the new kind has not": Case(
        MLP + ADAM, lambda d: d.swap_optimizer("SGD"), (SwapOptimizer("Adam", (2e-3,), {"amsgrad": True}),),
    ),
    "optimizer with a rate of its own under a schedule": Case(
        MLP + COSINE, lambda d: d.swap_optimizer("Adam", lr=1e-3), (SwapOptimizer("SGD", (0.05,)),
                                                                    SetKnobs),
        (lambda d: d.set(lr=0.1),),
    ),
    "optimizer, groups": Case(
        GROUPS, lambda d: d.swap_optimizer("RMSprop", lr=1e-3, momentum=0.0), (SwapOptimizer, SetKnobs),
        (lambda d: d.set(momentum={"head": 0.7, "body": 0.3}),),
    ),
    "a schedule where there was none": Case(
        MLP, lambda d: d.set_schedule("cosine", total=40, interval="batch"), (SetSchedule(None),),
    ),
    "a schedule after another": Case(
        MLP, lambda d: d.set_schedule(None), (SetSchedule(Schedule.of("exponential", gamma=0.9, interval="batch"), 4),),
        (lambda d: d.set_schedule("exponential", gamma=0.9, interval="batch"),),
    ),
    "a schedule after the one that was given": Case(
        MLP + ONE_CYCLE, lambda d: d.set_schedule("step", every=2, gamma=0.5, interval="batch"),
        (SetSchedule(None, given=True),), (lambda d: d.set(lr=0.1),),
    ),
    "the schedule that was given taken away, by epoch": Case(
        MLP + COSINE, lambda d: d.set_schedule(None), (SetSchedule(None, given=True),),
    ),
    "activations": Case(
        LEAKY, lambda d: d.swap_activation("tanh"), (
            SwapActivations("leaky_relu", ("1",), {"inplace": True, "negative_slope": 0.2}),
            SwapActivations("gelu", ("5",), {"approximate": "tanh"})),
    ),
    "the same activation with another slope": Case(
        MLP, lambda d: d.swap_activation("leaky_relu", ["1"], negative_slope=0.3),
        (SwapActivations("leaky_relu", ("1",), {"inplace": False, "negative_slope": 0.01}),),
        (lambda d: d.swap_activation("leaky_relu", ["1"]),),
    ),
    "new parameters": Case(MLP, lambda d: d.swap_activation("prelu"), (SwapActivations("relu", ("1", "5")),)),
    "a shared activation": Case(CNN, lambda d: d.swap_activation("elu"), (SwapActivations("silu", ("1",), {
        "inplace": True}),)),
    "functions of a transformer": Case(TRANSFORMER, lambda d: d.swap_activation("tanh"), (SwapActivations,)),
    "frozen": Case(MLP, lambda d: d.freeze("0"), (Freeze(False, ("0",)),)),
    "frozen, some of it before": Case(
        MLP, lambda d: d.freeze(["0", "3", "4"], hold_statistics=True),
        (Freeze(False, only=("0.weight", "0.bias", "4.weight", "4.bias", "4.training")),), (lambda d: d.freeze("3"),),
    ),
    "thawed": Case(MLP, lambda d: d.unfreeze(), (Freeze(True, only=("3.weight", "3.bias", "4.weight", "4.bias",
                   "4.training")),), (lambda d: d.freeze(["3", "4"], hold_statistics=True),)),
    "norms put in": Case(CNN, lambda d: d.insert_norms(["0"]), (EditNorms(False, ("0.inserted_norm",)),)),
    "an average": Case(MLP, lambda d: d.average("ema"), (SetAverage(""),)),
    "an average after another": Case(
        MLP, lambda d: d.average("ema", decay=0.5), (SetAverage("swa", start=2, every=3),),
        (lambda d: d.average("swa", start=2, every=3),),
    ),
}
# fmt: on


def in_words(debugger: Debugger) -> list[Any]:
    """What is in use, without what was learnt: kinds, options, names, modes, schedule."""
    trainer = debugger._session.trainer
    model: Any = debugger._model
    roots = {"": model} if isinstance(model, nn.Module) else model
    modules = {f"{k}.{n}": m for k, root in roots.items() for n, m in root.named_modules()}
    sizes = [[len(group["params"]) for group in each.param_groups] for each in trainer.optimizers.values()]
    knobs = debugger._session.knobs
    average = debugger._session.refitter.average
    return [
        [type(each).__name__ for each in trainer.optimizers.values()],
        sizes,
        [(group.name, group.asked, group.scheduled) for group in knobs.groups],
        knobs.all_asked().options,
        {name: (repr(m).split("\n")[0], m.training) for name, m in modules.items() if not _was_a_function(name, m)},
        {n: p.requires_grad for root in roots.values() for n, p in root.named_parameters()},
        sorted(key for root in roots.values() for key in root.state_dict()),
        [type(each).__name__ for each in trainer.schedulers.values()],
        trainer.scheduler_interval if trainer.schedulers else "",
        None if average is None else average.rule,
    ]


def _was_a_function(name: str, module: nn.Module) -> bool:
    """A transformer's ``F.relu`` comes back as a module."""
    return name.endswith(".activation") and type(module) is nn.ReLU


def undone(case: Case, steps: int = 6) -> tuple[Debugger, Any, list[Any], list[Any]]:
    """A run in which something was changed and taken back; how things were before and after."""
    debugger, model = made(case.setup)
    debugger.run(steps=3)
    for each in case.before:
        each(debugger)
    debugger.run(steps=4)
    before = in_words(debugger)
    case.change(debugger)
    debugger.run(steps=steps)
    held = weights(model)
    debugger.undo()
    after = in_words(debugger)
    names = held.keys() & weights(model).keys()
    assert debugger.status.step == 7 + steps and names
    assert all(torch.equal(held[name], weights(model)[name]) for name in names), "weights stay"
    return debugger, model, before, after


def assert_alike(found: Any, expected: Any) -> None:
    """Equal, but for the last bits of rates that a schedule went on with."""
    if isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12)
    else:
        assert found == expected


@pytest.mark.parametrize("name", CASES)
def test_what_was_exchanged_is_as_before_and_is_on_record_as_a_change(name: str) -> None:
    case = CASES[name]
    debugger, _, before, after = undone(case)
    assert_alike(after, before)
    recorded = [each.change for each in debugger._session.timeline.course(debugger._session.timeline.here)]
    back = recorded[len(case.before) + 1 :]
    assert len(back) == len(case.back)
    for change, expected in zip(back, case.back, strict=True):
        assert isinstance(change, expected) if isinstance(expected, type) else change == expected
    assert not debugger.findings
    debugger.close()


@pytest.mark.parametrize("on_disk", [False, True], ids=["", "on disk"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_gone_back_over(name: str, on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_disk:
        real = Debugger.__init__

        def small(self: Debugger, *given: Any, **options: Any) -> None:
            real(self, *given, **options, snapshot_bytes=0, snapshot_folder=tmp_path)

        monkeypatch.setattr(Debugger, "__init__", small)
    debugger, model, _, _ = undone(CASES[name])
    debugger.run(steps=7)
    late, words = weights(model), in_words(debugger)
    debugger.rewind(9)
    debugger.run(steps=2)
    debugger.checkout("main")
    assert in_words(debugger) == words
    assert all(torch.equal(tensor, late[key]) for key, tensor in weights(model).items())
    debugger.rewind(2)
    debugger.rerun(steps=3, start="here")
    debugger.rewind(15) if debugger.status.last_step >= 15 else debugger.checkout("main")
    debugger.checkout("main")
    debugger.rewind(15)
    debugger.run(steps=5)
    assert weights(model).keys() == late.keys()
    assert all(torch.equal(tensor, late[key]) for key, tensor in weights(model).items())
    debugger.close()


def test_it_can_be_written_into_a_script(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    expected, lines = {}, []
    for index, (name, case) in enumerate(CASES.items()):
        debugger, model, _, _ = undone(case)
        debugger.run(steps=9)
        expected[name] = weights(model)
        debugger.export_script(tmp_path / f"run{index}.py")
        debugger.close()
        (tmp_path / f"setup{index}.py").write_text(case.setup)
        lines.append(f"{tmp_path}/run{index}.py {tmp_path}/setup{index}.py --out {tmp_path}/weights{index}.safetensors")
    torch.set_num_threads(before)
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER], input="\n".join(lines), cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    for index, (name, held) in enumerate(expected.items()):
        given = load_file(tmp_path / f"weights{index}.safetensors")
        assert given.keys() == held.keys(), name
        assert [key for key in given if not torch.equal(given[key], held[key])] == [], name


def test_the_optimizer_comes_back_with_what_was_learnt_meanwhile() -> None:
    debugger, model = made(MLP)
    debugger.run(steps=5)
    debugger.swap_optimizer("Adam", lr=1e-3)
    debugger.run(steps=5)
    by_hand = converted(debugger._session.trainer.optimizer, "SGD", 0.05, momentum=0.9).optimizer  # type: ignore[arg-type]
    debugger.undo()
    optimizer: Any = debugger._session.trainer.optimizer
    for parameter in model.parameters():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], by_hand.state[parameter]["momentum_buffer"])
    debugger.close()


def test_a_schedule_that_was_given_goes_on_where_it_stood() -> None:
    """As in a plain loop in which the given scheduler simply rests for a while."""
    found: dict[str, Any] = {}
    exec(MLP + ONE_CYCLE + "train_loader = list(train_loader)\ndel val_loader\nmodel[2].p = 0.0\n", found)
    debugger, model = made(MLP + ONE_CYCLE + "train_loader = list(train_loader)\ndel val_loader\nmodel[2].p = 0.0\n")
    debugger.run(steps=5)
    debugger.set_schedule("constant", warmup_steps=3, interval="batch")
    debugger.run(steps=6)
    debugger.undo()
    debugger.run(steps=5)
    optimizer, scheduler, other = found["optimizer"], found["scheduler"], None
    for step in range(16):
        if step == 5:
            kept = {key: optimizer.param_groups[0][key] for key in ("lr", "initial_lr", "max_lr", "min_lr")}
            top = kept["max_lr"]
            optimizer.param_groups[0]["initial_lr"] = top
            other = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.01 + 0.99 * k / 3 if k < 3 else 1.0)
        if step == 11:
            optimizer.param_groups[0].update(kept)
        inputs, target = found["train_loader"][step % 8]
        optimizer.zero_grad()
        F.cross_entropy(found["model"](inputs), target).backward()
        optimizer.step()
        (other if other is not None and step < 11 else scheduler).step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), found["model"].parameters(), strict=True))
    debugger.close()


def test_a_split_of_the_decay_is_undone_in_effect() -> None:
    """The groups stay apart, and decay alike again: as without a split."""
    decaying = MLP + "optimizer = torch.optim.SGD(model.parameters(), 0.05, weight_decay=0.1)\n"
    (debugger, model), (other, plain) = made(decaying), made(decaying)
    debugger.run(steps=4)
    debugger.split_decay()
    debugger.undo()
    debugger.run(steps=8)
    other.run(steps=12)
    assert all(torch.equal(tensor, weights(plain)[name]) for name, tensor in weights(model).items())
    debugger.close()
    other.close()


def test_one_after_another_the_latest_first() -> None:
    debugger, _ = made(MLP)
    debugger.run(steps=3)
    first = in_words(debugger)
    debugger.set(lr=0.01)
    debugger.swap_optimizer("Adam")
    debugger.set(beta1=0.5)
    debugger.run(steps=2)
    debugger.freeze("0")
    debugger.swap_activation("elu")
    debugger.run(steps=2)
    assert "activation relu" in debugger.undo().text
    assert "unfreeze 0" in debugger.undo().text
    assert "beta1 0.9" in debugger.undo().text
    assert "SGD" in debugger.undo().text
    assert "lr 0.05" in debugger.undo().text
    assert in_words(debugger) == first
    with pytest.raises(CommandError, match="nothing to undo"):
        debugger.undo()
    debugger.close()


def test_what_was_taken_back_is_so_only_from_there_on() -> None:
    debugger, model = made(MLP)
    debugger.run(steps=3)
    debugger.set(lr=0.01)
    debugger.run(steps=2)
    debugger.swap_activation("elu")
    debugger.run(steps=3)
    debugger.undo()
    debugger.run(steps=2)
    debugger.rewind(8)
    assert type(model[1]) is nn.ELU, "the very step, before it was taken back"
    assert "activation relu" in debugger.undo().text, "here it was not taken back yet"
    assert "lr 0.05" in debugger.undo().text
    debugger.checkout("main")
    assert type(model[1]) is nn.ReLU
    assert "lr 0.05" in debugger.undo().text
    debugger.rewind(4)
    assert "lr 0.05" in debugger.undo().text
    debugger.close()


@pytest.mark.parametrize(
    ("setup", "change", "message"),
    [
        (MLP + LBFGS, lambda d: d.swap_optimizer("Adam"), "Adam can't be taken back: .* to LBFGS; rewind.3. goes back"),
        (MISH, lambda d: d.swap_activation("elu"), "1 was Mish, which is none of"),
        (MLP, lambda d: d.remove_norms(), r"gone on without the norms.*rewind\(3\)"),
        (MLP, lambda d: (d.average("ema"), d.average(None)), "average that was ended is gone"),
    ],
)
def test_where_there_is_no_way_back_it_says_so_and_what_else(setup: str, change: Act, message: str) -> None:
    debugger, model = made(setup)
    debugger.run(steps=2)
    debugger.set(clip_norm=1.0)
    debugger.run(steps=1)
    change(debugger)
    held = weights(model)
    with pytest.raises(CommandError, match=message):
        debugger.undo()
    assert all(torch.equal(tensor, held[name]) for name, tensor in weights(model).items())
    texts = [debugger.undo().text for _ in range(2 if "average" in message else 1)]
    assert "clip off" in texts[-1], "the change before it"
    debugger.close()
