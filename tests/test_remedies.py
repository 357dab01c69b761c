"""Remedies tried on a branch, held against the same steps without, and gone on with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer, debugger_live
from nbdebug.records.commands import (
    Changes,
    Clip,
    ClipMode,
    Reinitialize,
    Rerun,
    SetKnobs,
    StartPoint,
    TryRemedy,
)
from nbdebug.records.comparison import Verdict
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.findings import Cause, Finding, Remedy, Severity
from nbdebug.records.status import State

HARMLESS = SetKnobs(Changes(lr=0.1))  # as it is
BETTER = SetKnobs(Changes(clip=Clip(ClipMode.OFF)))


def program() -> tuple[nn.Module, Trainer]:
    torch.manual_seed(0)
    x = torch.randn(320, 12)
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 2))
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 32, shuffle=True)
    return model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, loader)


@pytest.fixture
def case() -> Iterator[Debugger]:
    made = Debugger(*program(), journal=None)
    made.set(clip_norm=1e-3)
    made.run(epochs=6)
    yield made
    made.close()


def finding(*remedies: Remedy) -> Finding:
    return Finding(Cause.LOSS_PLATEAU, Severity.WARNING, "main", 60, "flat", "why", remedies=remedies)


def weights(case: Debugger) -> list[torch.Tensor]:
    return [each.clone() for each in case._model.parameters()]


def test_the_right_remedy_is_better_and_leaves_the_model_where_it_was(case: Debugger) -> None:
    assert case.findings[0].cause is Cause.GRADIENT_CLIP_TOO_LOW
    before, status = weights(case), case.status
    proof = case.try_remedy("gradient_clip_too_low")
    assert proof.helped and proof.comparison.verdict is Verdict.BETTER
    assert proof.run in case.runs and proof.finding.title in str(proof)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(case), strict=True))
    assert (case.status.run, case.status.step) == (status.run, status.step)
    case.apply_remedy(proof)
    assert case.status.run == proof.run
    for _ in range(100):  # live checks are paced by time: on a slow machine they come seldom
        case.run(steps=25)
        if not any(each.cause == "gradient_clip_too_low" for each in case.findings):
            break
    assert "gradient_clip_too_low" not in [str(each.cause) for each in case.findings]


@pytest.mark.parametrize("extent", [{}, {"epochs": 90_000}, {"steps": 900_000}])
def test_where_training_runs_it_goes_on_from_the_better_branch(case: Debugger, extent: dict[str, int]) -> None:
    proof = case.try_remedy("gradient_clip_too_low")
    case.start(**extent)
    case.apply_remedy(proof)
    held = case.status
    assert case.state is State.RUNNING and held.run == proof.run and case.runs[held.run].parent == "main"
    assert held.goal_epoch == (90_006 if "epochs" in extent else None)
    assert held.goal_step == (900_060 if "steps" in extent else None)
    case.stop()


def test_where_the_branch_is_beyond_the_end_it_stands_still(case: Debugger) -> None:
    proof = case.try_remedy("gradient_clip_too_low", steps=80)
    case.start(steps=1)
    case.apply_remedy(proof)
    assert case.state is not State.RUNNING and case.status.run == proof.run


def test_a_remedy_that_does_nothing_is_no_better(case: Debugger) -> None:
    proof = case.try_remedy(finding(Remedy("nothing", HARMLESS)), steps=40)
    assert not proof.helped and proof.comparison.verdict in (Verdict.WITHIN_NOISE, Verdict.UNDECIDED)


def test_the_next_rung_is_tried_on_request(case: Debugger) -> None:
    meant = finding(Remedy("by hand"), Remedy("nothing", HARMLESS), Remedy("no clipping", BETTER))
    assert case.try_remedy(meant, rung=1, steps=40).remedy.text == "no clipping"


def test_a_change_of_parts_can_be_tried_too(case: Debugger) -> None:
    redrawn = finding(Remedy("draw anew", Reinitialize("kaiming_normal", seed=1)))
    proof = case.try_remedy(redrawn, start=0, steps=40)
    assert proof.comparison.first_step == 1 and proof.run != case.status.run


def test_without_a_proof_it_is_done_here_and_now(case: Debugger) -> None:
    case.apply_remedy("gradient_clip_too_low", rung=1)
    assert case.status.run == "main"
    case.run(steps=1)
    assert case.history["clip_norm"].values[-1] == float("inf")


@pytest.mark.parametrize(
    ("meant", "options", "words"),
    [
        ("dead_relu", {}, "there is no finding of the cause 'dead_relu'; there are: gradient_clip_too_low"),
        (finding(Remedy("sort the data")), {}, "only you can mend this. sort the data"),
        (finding(), {}, "nothing is known that would"),
        (finding(Remedy("x", HARMLESS)), {"rung": 1}, "has 1 remedies to try"),
        (finding(Remedy("x", HARMLESS)), {"start": 900}, "give a step of the run, from 0 to 60"),
    ],
)
def test_what_can_not_be_tried_is_said(
    case: Debugger, meant: Finding | str, options: dict[str, int], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        case.try_remedy(meant, **options)


def test_a_refused_change_leaves_the_model_where_it_was(case: Debugger) -> None:
    before = weights(case)
    broken = finding(Remedy("no such layer", Reinitialize("kaiming_normal", seed=0, layers=("nowhere",))))
    with pytest.raises(CommandError, match="nothing was re-initialised"):
        case.try_remedy(broken)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(case), strict=True))
    assert not case.outcomes[-1].ok and isinstance(case.outcomes[-1].command, TryRemedy)


def test_diagnose_checks_trains_and_tells_it_all() -> None:
    model, trainer = program()
    faulty = nn.Sequential(model, nn.Softmax(-1))
    case = Debugger(faulty, replace_model(trainer, faulty), journal=None)
    case.set_check_parameters(overfit_steps=20)
    report = case.diagnose(steps=30)
    assert report.causes[0] == "softmax_before_cross_entropy"
    assert case.status.step == 30 and {each.name for each in report.results} >= {"gradient_clip_too_low"}
    case.close()


def test_diagnose_is_silent_on_a_sound_program() -> None:
    case = Debugger(*program(), journal=None)
    case.set_check_parameters(overfit_steps=20)
    assert case.diagnose(steps=40).findings == ()
    case.close()


def replace_model(trainer: Trainer, model: nn.Module) -> Trainer:
    return Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, trainer.train_loader)


def test_what_the_steps_raise_is_told() -> None:
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such loss")

    model, trainer = program()
    broken = Trainer(torch.optim.SGD(model.parameters(), 0.1), loss_fn, trainer.train_loader)
    case = Debugger(model, broken, journal=None)
    report = case.diagnose(steps=3)
    assert "user_error" in report.causes
    case.close()


@pytest.mark.parametrize("steps", [0, -3, True, 2.5, None])
def test_diagnose_refuses_what_is_no_number_of_steps(case: Debugger, steps: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"whole number of at least 1|say how long"):
        case.diagnose(steps=steps)
    assert case.status.step == 60


@pytest.mark.parametrize("calls", [0, 12])
def test_diagnose_called_off_does_not_train(case: Debugger, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    asked = iter([False] * calls)
    monkeypatch.setattr(type(case._session), "is_called_off", property(lambda session: next(asked, True)))
    before = weights(case)
    report = case.diagnose(steps=5)
    assert report.was_called_off and case.status.step == 60
    assert all(torch.equal(a, b) for a, b in zip(before, weights(case), strict=True))


def test_a_remedy_that_starts_again_is_tried_from_there(case: Debugger) -> None:
    again = finding(Remedy("again without clipping", Rerun(StartPoint.START, changes=BETTER.changes)))
    before = weights(case)
    proof = case.try_remedy(again, steps=40)
    assert proof.helped and proof.comparison.first_step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, weights(case), strict=True))
    case.apply_remedy(proof)
    assert (case.status.run, case.status.step) == (proof.run, 40)


def test_done_here_and_now_one_that_starts_again_trains_a_branch(case: Debugger) -> None:
    again = finding(Remedy("again", Rerun(StartPoint.START, steps=7, changes=BETTER.changes)))
    case.apply_remedy(again)
    case.wait()
    assert case.status.run != "main" and case.status.step == 7


def test_a_diagnosis_judges_by_steps_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debugger_live, "SHARE", 1e-9)  # else: a judgement, and then hardly one ever again
    judged: list[int] = []
    judge = debugger_live.LiveExaminer._judge
    monkeypatch.setattr(
        debugger_live.LiveExaminer, "_judge", lambda self, run, step: judged.append(step) or judge(self, run, step)
    )
    case = Debugger(*program(), journal=None)
    case.set_check_parameters(overfit_steps=20)
    case.diagnose(steps=117)
    assert judged[-1] == 117 and max(b - a for a, b in pairwise(judged)) < 35
    judged.clear()
    case.run(steps=60)
    assert len(judged) == 2 and judged[-1] == 177, "paced by time, and once more as training ends"
    case.close()
