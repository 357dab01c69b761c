"""Checks that look at the model before they speak, on real runs: the fault is found, sound runs like it are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer, debugger_live
from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.confirming import Confirm, looks, wished
from nbdebug.checks.live.watch import Watch
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameters
from nbdebug.records.checks import CheckOutcome
from nbdebug.records.findings import Cause
from nbdebug.records.looks import Question
from nbdebug.training import session
from tests.checks.live.windows import flat, looked, window

Made = tuple[nn.Module, Trainer]


@pytest.fixture(autouse=True)
def judged_by_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a judgement takes, the next one is made when it is due, and after each step that is."""
    monkeypatch.setattr(debugger_live, "SHARE", 1e9)
    monkeypatch.setattr(session, "MOST_STEPS", 1)


def blobs(samples: int = 512, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(4, (samples,), generator=generator)
    centres = 1.5 * torch.randn(4, 10, generator=generator)
    return centres[y] + spread * torch.randn(samples, 10, generator=generator), y


def trainer(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, lr: float = 0.1, val: Any = None) -> Trainer:
    loader = DataLoader(TensorDataset(x, y), 32, shuffle=True)
    return Trainer(torch.optim.SGD(model.parameters(), lr, momentum=0.5), F.cross_entropy, loader, val)


def mlp(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 64), *between, nn.ReLU(), nn.Linear(64, 4))


def statistics_that_hardly_follow(faulty: bool) -> Made:
    x, y = blobs()
    model = nn.Sequential(nn.BatchNorm1d(10, momentum=1e-5 if faulty else 0.1), mlp())
    x = 8 * x + 30  # so that the statistics of the beginning won't do
    return model, trainer(model, x, y, val=[(x[:128], y[:128])])


def nearly_all_dropped(faulty: bool) -> Made:
    x, y = blobs(spread=1.5)
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.95 if faulty else 0.3), nn.Linear(64, 4))
    return model, trainer(model, x, y, lr=0.05)


class Deaf(nn.Module):
    """Hears nothing more after some steps."""

    def __init__(self, deaf_after: int) -> None:
        super().__init__()
        self.net, self.left = mlp(), deaf_after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.left -= 1
        return self.net(x if self.left > 0 else x * 0)


def input_lost_on_the_way(faulty: bool) -> Made:
    x, y = blobs()
    model = Deaf(30 if faulty else 10**6)
    return model, trainer(model, x, y)


def labels_dealt_out_anew(faulty: bool) -> Made:
    generator = torch.Generator().manual_seed(3)
    x, y = blobs(4096)
    return (model := mlp()), trainer(model, x, y[torch.randperm(4096, generator=generator)] if faulty else y, lr=0.02)


class Stuck:
    """A loader that gives one batch over and over, from its second epoch on."""

    def __init__(self, faulty: bool) -> None:
        x, y = blobs(640)
        self.batches = [(x[at : at + 32], y[at : at + 32]) for at in range(0, 640, 32)]
        self.faulty, self.epochs = faulty, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> Any:
        return self.batches[place]

    def __iter__(self) -> Any:
        self.epochs += 1
        return iter(self.batches[:1] * len(self) if self.faulty and self.epochs > 1 else self.batches)


def one_batch_over_and_over(faulty: bool) -> Made:
    model = mlp()
    loader = Stuck(faulty)
    return model, Trainer(torch.optim.SGD(model.parameters(), 0.05), F.cross_entropy, loader)


RUNS: dict[str, tuple[Callable[[bool], Made], str, str, int]] = {
    "running_statistics": (statistics_that_hardly_follow, "degenerate_normalization", "warning", 250),
    "dropout_too_high_live": (nearly_all_dropped, "dropout_too_high", "warning", 300),
    "model_ignores_input_live": (input_lost_on_the_way, "model_ignores_input", "warning", 200),
    "input_label_mismatch_live": (labels_dealt_out_anew, "input_label_mismatch", "warning", 650),
    "repeated_batch_live": (one_batch_over_and_over, "repeated_batch", "warning", 300),
}


@pytest.mark.parametrize("faulty", [True, False], ids=["faulty", "sound"])
@pytest.mark.parametrize("name", RUNS)
def test_found_in_a_real_run_and_not_in_its_sound_twin(name: str, faulty: bool) -> None:
    make, cause, severity, steps = RUNS[name]
    torch.manual_seed(0)
    model, given = make(faulty)
    debugger = Debugger(model, given, journal=None, budget=None, probes=["data", "updates", "weights"])
    torch.manual_seed(1)
    debugger.run(steps=steps)
    result = next(each for each in debugger._session.stepper.examiner.results("main") if each.name == name)
    told = [(str(each.cause), str(each.severity)) for each in result.findings]
    assert told == ([(cause, severity)] if faulty else []), result.why
    if faulty:
        assert any(str(each.cause) == cause for each in debugger.findings)
    debugger.close()


def test_a_rerun_finds_the_same_at_the_same_steps() -> None:
    torch.manual_seed(0)
    model, given = statistics_that_hardly_follow(True)
    debugger = Debugger(model, given, journal=None, budget=None, probes=["data", "updates", "weights"])
    debugger.run(steps=150)
    run = debugger.rerun(steps=150, start="start").name
    found: dict[str, list[Any]] = {"main": [], run: []}
    for each in debugger._journal.findings:
        if each.check == "running_statistics":
            found[each.run].append((each.step, each.why, each.evidence))
    assert found["main"] and found[run] == found["main"]
    debugger.close()


# -- when a look is wanted, and when it may be gone by ---------------------------------------------------------------

NONE = Parameters(())


def always(window: Window, say: Say) -> bool:
    return True


def never(window: Window, say: Say) -> bool:
    return False


def can_not_say(window: Window, say: Say) -> bool:
    raise Skip("too early")


def breaks(window: Window, say: Say) -> bool:
    raise ZeroDivisionError("by hand")


@pytest.mark.parametrize(
    ("suspicions", "expected"),
    [
        ([], set()),
        ([(never, Question.MODES)], set()),
        ([(always, Question.MODES), (never, Question.INPUTS)], {Question.MODES}),
        ([(always, Question.MODES), (always, Question.INPUTS)], {Question.MODES, Question.INPUTS}),
        ([(can_not_say, Question.MODES), (breaks, Question.MODES)], set()),
    ],
)
def test_a_look_is_wanted_where_some_check_suspects_something(suspicions: Any, expected: set[Question]) -> None:
    confirms = [Confirm((question,), suspects) for suspects, question in suspicions]
    assert wished(confirms, window(flat()), NONE) == expected


MODES = Confirm((Question.MODES,), always)


@pytest.mark.parametrize(
    ("seen", "match"),
    [
        pytest.param(window(flat()), "still to come", id="none"),
        pytest.param(window(flat(), looks=looked(times=1, training=2.0, evaluating=1.0)), "still to come", id="one"),
        pytest.param(window(flat(), looks=looked(training=2.0)), "still to come", id="of something else"),
        pytest.param(window(flat(), looks=looked(training=2.0, evaluating=float("inf"))), "still to come", id="inf"),
        pytest.param(
            window(flat(), looks=looked(training=9.0, evaluating=1.0)), "does not give the loss", id="another"
        ),
        pytest.param(window(flat(), refused="no"), "would be needed: no", id="refused"),
        pytest.param(
            window(flat(), changed=(195,), looks=looked(training=2.0, evaluating=1.0)), "still to come", id="changed"
        ),
    ],
)
def test_looks_that_can_not_be_gone_by(seen: Window, match: str) -> None:
    with pytest.raises(Skip, match=match):
        looks(seen, MODES)


def test_the_latest_looks_are_gone_by() -> None:
    made = looked(times=20, training=2.0, evaluating=1.0)
    assert looks(window(flat(), looks=made), MODES) == made[-8:]


def test_a_wrong_one_among_many_is_left_out() -> None:
    made = looked(times=4, training=lambda place: 9.0 if place == 2 else 2.0, evaluating=1.0)
    assert looks(window(flat(), looks=made), MODES) == (*made[:2], made[3])


def test_losses_still_on_their_way_from_the_device_are_waited_for() -> None:
    made = looked(times=4, every=10, training=9.0, evaluating=1.0)
    with pytest.raises(Skip, match="still to come"):
        looks(window(flat(165), looks=made), MODES)  # the last three are after step 165


def test_an_error_in_suspecting_is_told_by_the_check() -> None:
    def judge(window: Window, say: Say) -> None:
        breaks(window, say)

    watch = Watch((LiveCheck("c", "t", judge, (Cause.LR_TOO_HIGH,), confirm=Confirm((Question.MODES,), breaks)),))
    watch.judge(window(flat()), NONE)
    assert watch.results[0].outcome is CheckOutcome.BROKE
