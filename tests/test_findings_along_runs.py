"""What became of findings on real runs: told, gone, back; on branches; by the checks before training; from disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Journal, Trainer
from nbdebug.checks.check import Say
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.watch import Watch
from nbdebug.checks.live.window import Window
from nbdebug.debugger_live import LiveExaminer
from nbdebug.records.commands import Changes, SetKnobs
from nbdebug.records.findings import Cause, Finding, Remedy, Severity

TOLD = (*range(10, 33), *range(75, 200))  # steps at which the check below finds something


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Debugger]:
    """Steps are judged at 5, 10, 20, 30, 45, 50, 75, and so on; not at an epoch's end, nor where training rests."""
    monkeypatch.setattr("nbdebug.debugger_live.FEWEST_STEPS", 10**9)
    torch.manual_seed(0)
    x = torch.randn(320, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 32, shuffle=True)
    made = Debugger(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, loader), journal=tmp_path)
    watch_by(made, TOLD)
    yield made
    made.close()


def watch_by(case: Debugger, steps: Collection[int]) -> None:
    """The one live check finds something at these steps."""

    def judge(window: Window, say: Say) -> None:
        if window.step in steps:
            remedies = (Remedy("slower", SetKnobs(Changes(lr=0.01))),)
            say.find(Cause.LR_TOO_HIGH, Severity.WARNING, "too high", "why", layers=("0",), remedies=remedies)

    examiner = case._session.stepper.examiner
    assert isinstance(examiner, LiveExaminer)
    examiner.watch = Watch((LiveCheck("planned", "a title", judge, (Cause.LR_TOO_HIGH,), source="advice", steps=0),))


def walk(case: Debugger, to: int) -> None:
    """Train step by step as far as this; each that is due is judged, however busy the machine is."""
    examiner = case._session.stepper.examiner
    assert isinstance(examiner, LiveExaminer)
    while case.status.step < to:
        examiner._next_s = 0.0
        case.run(steps=1)


def words(told: Debugger | Journal) -> list[str]:
    return [str(each) for each in told.courses if each.finding.cause is Cause.LR_TOO_HIGH]


def stands(told: Debugger) -> bool:
    return any(each.cause is Cause.LR_TOO_HIGH for each in told.findings)


def test_since_when_gone_and_back_is_kept_and_read_again(case: Debugger, tmp_path: Path) -> None:
    seen = []
    for step in (10, 20, 30, 45, 50, 75, 100):
        walk(case, step)
        seen.append((step, words(case), stands(case)))
    since, gone = "since step 10", "since step 10 · gone at 50"
    back = f"{gone} · back at 75"
    assert seen == [
        (10, [], False), (20, [since], True), (30, [since], True), (45, [since], True), (50, [gone], False),
        (75, [gone], False), (100, [back], True),
    ]  # fmt: skip
    [course] = [each for each in case.courses if each.finding.cause is Cause.LR_TOO_HIGH]
    assert [(each.first, each.last) for each in course.spells] == [(10, 30), (75, None)]
    case.close()
    stored = Journal.open(tmp_path)
    assert stored.courses == case.courses
    assert stored._view(100).findings == case.findings


@pytest.mark.parametrize(("start", "had"), [(40, ["since step 10"]), (15, []), (55, ["since step 10 · gone at 50"])])
def test_a_branch_has_what_stood_where_it_began(case: Debugger, start: int, had: list[str]) -> None:
    walk(case, 60)
    assert words(case) == ["since step 10 · gone at 50"]
    watch = case._session.stepper.examiner.watch  # type: ignore[attr-defined]
    before = dict(watch._of_runs)
    case.rewind(start)
    assert words(case) == ["since step 10 · gone at 50"], "the model is elsewhere on the same run"
    case.run(steps=1)
    assert case.status.run != "main" and words(case) == had
    assert watch._of_runs["main"] == before["main"]
    case.checkout("main")
    assert words(case) == ["since step 10 · gone at 50"]


def test_what_a_branch_inherited_goes_there_and_stands_on_the_parent(case: Debugger, tmp_path: Path) -> None:
    walk(case, 32)
    case.rewind(31)
    watch_by(case, ())
    walk(case, 80)
    branch = case.status.run
    assert branch != "main" and words(case) == ["since step 10 · gone at 50"]
    case.checkout("main")
    assert words(case) == ["since step 10"] and stands(case)
    case.checkout(branch)
    assert not stands(case)
    case.close()
    stored = Journal.open(tmp_path)
    assert (stored.run, words(stored)) == (branch, ["since step 10 · gone at 50"])


def test_what_is_tried_elsewhere_changes_nothing_at_home(case: Debugger, tmp_path: Path) -> None:
    walk(case, 32)
    home = (words(case), case.findings)
    proof = case.try_remedy("lr_too_high", steps=40)
    assert (words(case), case.findings) == home and case.proofs == (proof,)
    case.close()
    stored = Journal.open(tmp_path)
    assert (stored.run, words(stored)) == ("main", home[0])
    [again] = stored.proofs
    assert (again.finding, again.remedy, again.rung, again.run) == (proof.finding, proof.remedy, 0, proof.run)
    assert again.comparison.sentence == proof.comparison.sentence and again.helped == proof.helped


def test_while_it_is_tried_the_findings_are_those_of_home(case: Debugger) -> None:
    """Cards would come and go otherwise, with the branches that are made."""
    walk(case, 32)
    seen: list[tuple[str, list[str], str]] = []
    comparer, ask = case._comparer, case._comparer.compare

    def spy(*given: object, **more: object) -> object:
        tell = lambda _: seen.append((case.status.run, words(case), case._trial.cause if case._trial else ""))  # noqa: E731
        return ask(*given, tell=tell, **more)  # type: ignore[arg-type]

    comparer.compare = spy  # type: ignore[method-assign,assignment]
    case.try_remedy("lr_too_high", start=0, steps=40)
    assert len(seen) > 2 and {run for run, *_ in seen} != {"main"}
    assert {(*had, cause) for _, had, cause in seen} == {("since step 10", "lr_too_high")}
    assert case._trial is None


def test_the_price_of_a_trial_is_what_it_takes(case: Debugger) -> None:
    walk(case, 32)
    priced = case.remedy_cost("lr_too_high", steps=40)
    runs = len(case._journal.runs)
    case.try_remedy("lr_too_high", steps=40)
    made = list(case._journal.runs.values())[runs:]
    probed = 1  # whether the branch comes out alike, over a few steps
    assert len(made) - probed == priced.reruns and priced.steps == 40


def test_a_trial_that_is_refused_leaves_nothing_under_way(case: Debugger) -> None:
    walk(case, 32)
    broken = replace(case.findings[0], remedies=(Remedy("no such group", SetKnobs(Changes(lr={"nowhere": 1.0}))),))
    with pytest.raises(Exception, match="nowhere"):
        case.try_remedy(broken)
    assert case._trial is None and case.proofs == ()


def checked(case: Debugger) -> dict[str, str]:
    return {str(each.finding.cause): str(each) for each in case.courses}


def test_what_the_checks_before_training_find_no_more_is_gone(make: Callable[[bool], Debugger]) -> None:
    case = make(True)
    case.preflight()
    assert checked(case)["softmax_before_cross_entropy"] == "since step 0"
    case.preflight(skip="softmax_before_cross_entropy")
    assert checked(case)["softmax_before_cross_entropy"] == "since step 0", "who does not look finds nothing gone"
    case._session.model[-1] = nn.Identity()
    case.preflight()
    assert checked(case)["softmax_before_cross_entropy"] == "since step 0 · gone at 0"
    assert not any(each.cause == "softmax_before_cross_entropy" for each in case.findings)
    assert case._view(100).courses == case.courses


@pytest.fixture
def make() -> Iterator[Callable[[bool], Debugger]]:
    made: list[Debugger] = []

    def program(faulty: bool) -> Debugger:
        torch.manual_seed(0)
        x = torch.randn(160, 4)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1) if faulty else nn.Identity())
        loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 16, shuffle=True)
        made.append(
            Debugger(model, Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, loader), journal=None)
        )
        made[-1].set_check_parameters(overfit_steps=20)
        return made[-1]

    yield program
    for case in made:
        case.close()


def test_the_first_steps_are_told_since_then_and_what_is_ignored_is_not(make: Callable[[bool], Debugger]) -> None:
    case = make(True)
    case.run(steps=3)
    assert checked(case)["softmax_before_cross_entropy"] == "since step 1"
    case.ignore("softmax_before_cross_entropy")
    assert "softmax_before_cross_entropy" not in checked(case)


def test_the_same_objects_until_something_is_told(make: Callable[[bool], Debugger]) -> None:
    """They are asked for ten times a second."""
    case = make(True)
    case.run(steps=3)
    assert case.findings is case.findings and case.courses is case.courses
    kept = case.findings
    made = Finding(Cause.DEAD_RELU, Severity.WARNING, "main", 3, "dead", "why", source="x", check="dead_relu")
    case._journal.record_finding(made)
    assert case.findings is not kept and made.cause in {each.cause for each in case.findings}
