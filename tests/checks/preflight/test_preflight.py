"""The battery as a whole: what it gives, what can be asked of it, what it does with odd programs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.checks.check import Check, Say
from nbdebug.checks.preflight import registry
from nbdebug.dashboard import checks as tab
from nbdebug.dashboard import findings as cards
from nbdebug.records.checks import CheckOutcome, Report
from nbdebug.records.commands import RunPreflight
from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.findings import Cause, Severity

QUICK: dict[str, float] = {"overfit_steps": 20}


def data(size: int = 96) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 8, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long())


def network(*, faulty: bool = False) -> nn.Module:
    torch.manual_seed(1)
    last = [nn.Softmax(-1)] if faulty else []
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2), *last)


def debugger(*, faulty: bool = False, loader: Any = None, loss_fn: Any = F.cross_entropy, **options: Any) -> Debugger:
    model = network(faulty=faulty)
    batches = loader if loader is not None else DataLoader(data(), 16, shuffle=True)
    checks = options.pop("checks", True)
    trainer = Trainer(torch.optim.Adam(model.parameters(), 1e-2), loss_fn, batches, **options)
    made = Debugger(model, trainer, journal=None, checks=checks)
    made.set_check_parameters(**QUICK)
    return made


@pytest.fixture
def case() -> Iterator[Debugger]:
    made = debugger(faulty=True)
    yield made
    made.close()


@pytest.fixture
def sound() -> Iterator[Debugger]:
    made = debugger()
    yield made
    made.close()


def test_a_sound_program_has_no_finding_and_every_check_is_listed(sound: Debugger) -> None:
    report = sound.preflight()
    assert report.findings == () and sound.findings == ()
    assert {result.name for result in report.results} == {check.name for check in registry.checks()}
    assert all(result.why for result in report.of(CheckOutcome.SKIPPED)), "whatever is skipped says why"
    assert sound.report is report
    assert report.batch is not None and report.batch.kind == "table"
    _, y = data().tensors
    about = "\n".join(report.batch.summary)
    assert f"batch[1]: 0 × {int((y == 0).sum())}, 1 × {int((y == 1).sum())} of 96" in about
    assert "over 96 samples" in about and "model[0] gets (16, 8) of mean" in about


def test_a_fault_is_named_with_evidence_remedy_and_source(case: Debugger) -> None:
    report = case.preflight()
    first = report.findings[0]
    assert report.causes[0] == "softmax_before_cross_entropy" and first.severity is Severity.CRITICAL
    assert first.evidence and first.remedies and first.source and first.layers == ("3",)
    assert case.findings[0].cause is first.cause
    assert "softmax" in str(report) and first.title in report._repr_html_()
    assert json.loads(report.to_json())["findings"][0]["cause"] == "softmax_before_cross_entropy"


def test_the_first_steps_tell_it_by_themselves_before_the_epoch_ends(case: Debugger) -> None:
    case.run(steps=1)
    assert case.findings[0].cause is Cause.SOFTMAX_BEFORE_CROSS_ENTROPY
    case.run(steps=8)
    assert sum(each.cause is Cause.SOFTMAX_BEFORE_CROSS_ENTROPY for each in case.findings) == 1
    case.preflight()
    assert sum(each.cause is Cause.SOFTMAX_BEFORE_CROSS_ENTROPY for each in case.findings) == 1


def test_the_passive_part_can_be_switched_off() -> None:
    case = debugger(faulty=True, checks=False)
    case.run(steps=8)
    assert case.findings == ()
    assert case.preflight().causes[0] == "softmax_before_cross_entropy"
    case.close()


def test_checks_are_left_out_by_name_and_causes_ignored_with_a_reason(case: Debugger) -> None:
    report = case.preflight(skip="softmax_before_cross_entropy")
    assert "softmax_before_cross_entropy" not in report.causes
    left_out = next(each for each in report.results if each.name == "softmax_before_cross_entropy")
    assert left_out.outcome is CheckOutcome.SKIPPED and "you asked" in left_out.why
    case.ignore("softmax_before_cross_entropy", reason="a temperature is applied later")
    case.preflight()
    case.run(steps=2)
    assert case.findings == ()
    assert case.ignored == {"softmax_before_cross_entropy": "a temperature is applied later"}


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda case: case.preflight(skip="no_such"), "there is no check 'no_such'"),
        (lambda case: case.preflight(seconds=0), "seconds must be a positive number; got 0"),
        (lambda case: case.preflight(seconds="long"), "seconds must be a positive number; got 'long'"),
        (lambda case: case.ignore("imbalance"), "did you mean class_imbalance"),
        (lambda case: case.set_check_parameters(row_sums=1), "did you mean softmax_row_sums"),
        (lambda case: case.set_check_parameters(softmax_row_sums="x"), "must be a number; got 'x'"),
        (lambda case: case.set_check_parameters(softmax_row_sums=7), "must lie between 0 and 0.1; got 7"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(case: Debugger, ask: Callable[[Debugger], Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ask(case)


def test_parameters_are_one_table_and_can_be_changed(case: Debugger) -> None:
    assert "softmax_row_sums" in str(case.check_parameters)
    case.set_check_parameters(softmax_row_sums=0.0)
    assert case.check_parameters["softmax_row_sums"] == 0.0
    measured = [each for result in case.preflight().results for each in result.measured]
    used = next(each for each in measured if each.parameter == "softmax_row_sums")
    assert used.threshold == 0.0


def test_one_batch_is_enough() -> None:
    case = debugger(loader=[(torch.randn(4, 8), torch.tensor([0, 1, 0, 1]))])
    report = case.preflight()
    assert not report.of(CheckOutcome.BROKE)
    case.close()


class Empty:
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def test_no_batch_is_said_and_nothing_is_lost() -> None:
    case = debugger(loader=Empty())
    with pytest.raises(ConfigurationError, match="yielded no batch"):
        case.preflight()
    assert case.status.activity == ""
    case.close()


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 16)
        self.two = nn.Linear(16, 2)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.one(features))
        return {"logits": self.two(hidden), "hidden": hidden}


def test_dict_outputs_dict_batches_and_a_step_that_counts() -> None:
    counted = 0
    model = Two()

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        nonlocal counted
        counted += 1
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch["features"])["logits"], batch["label"])
        loss.backward()
        optimizer.step()
        return loss

    batches = [{"features": x, "label": y} for x, y in DataLoader(data(), 16)]
    case = Debugger(model, Trainer(torch.optim.Adam(model.parameters()), None, batches, step=step), journal=None)
    case.set_check_parameters(**QUICK)
    report = case.preflight()
    assert not report.of(CheckOutcome.BROKE) and report.findings == ()
    assert any("counted was changed by your step" in note for note in report.notes)
    assert any("your step ran" in note for note in report.notes)
    case.close()


def test_a_step_that_raises_is_told_and_the_data_are_checked_all_the_same() -> None:
    def loss_fn(output: Any, target: Any) -> Any:
        raise RuntimeError("no such loss")

    loader = [(x.index_fill(0, torch.tensor([3]), float("nan")), y) for x, y in DataLoader(data(), 16)]
    case = debugger(loss_fn=loss_fn, loader=loader)
    report = case.preflight()
    assert "nan_in_data" in report.causes and "user_error" in report.causes
    raised = next(each for each in report.findings if each.cause is Cause.USER_ERROR)
    assert raised.line is not None and raised.line.code == 'raise RuntimeError("no such loss")'
    assert not report.of(CheckOutcome.BROKE)
    case.close()


def breaking(look: Any, say: Say) -> None:
    raise LookupError("not made for this")


def test_a_check_that_raises_becomes_a_finding_with_its_traceback(
    sound: Debugger, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Check("broken", "a check that breaks", breaking, (Cause.METRIC_ERROR,), source="nobody")
    others = registry.checks()
    monkeypatch.setattr("nbdebug.checks.preflight.battery.checks", lambda: (broken, *others))
    report = sound.preflight()
    assert [each.name for each in report.of(CheckOutcome.BROKE)] == ["broken"]
    found = next(each for each in report.findings if each.cause is Cause.CHECK_DISABLED)
    assert found.severity is Severity.INFO and "LookupError: not made for this" in found.detail
    assert len(report.of(CheckOutcome.PASSED)) > 5
    sound.run(steps=2)


def test_it_can_be_called_off_from_another_thread(sound: Debugger) -> None:
    sound.set_check_parameters(overfit_steps=100_000, overfit_seconds_share=0.5)
    began = threading.Event()
    reports: list[Report] = []

    def check() -> None:
        began.set()
        reports.append(sound.preflight(seconds=300))

    thread = threading.Thread(target=check)
    thread.start()
    began.wait()
    while "one batch can be learnt by heart" not in sound.status.activity and thread.is_alive():
        thread.join(0.01)
    sound.pause()
    thread.join(60)
    last = next(each for each in reports[0].results if each.name == "overfit_one_batch")
    assert last.outcome is CheckOutcome.SKIPPED and "called off" in last.why


def test_within_a_step_it_is_refused() -> None:
    asked: list[Exception] = []

    def loss_fn(output: Any, target: Any) -> Any:
        if not asked:
            try:
                case.preflight()
            except CommandError as error:
                asked.append(error)
        return F.cross_entropy(output, target)

    case = debugger(loss_fn=loss_fn, checks=False)
    case.run(steps=1)
    assert len(asked) == 1
    case.close()


def test_the_dashboard_shows_the_checklist_and_the_cards(case: Debugger) -> None:
    case._post(RunPreflight())
    for _ in range(6000):
        if case.report is not None and not case.status.activity:
            break
        threading.Event().wait(0.01)
    view = case._view(100)
    shown: Any = tab.state(view)
    assert shown["rows"][0]["outcome"] == "failed" and shown["sentence"].startswith(f"{len(registry.checks())} checks")
    assert {row["name"] for row in shown["rows"]} == {check.name for check in registry.checks()}
    card: Any = cards.state(view.findings)
    first = card["cards"][0]
    assert first["title"] == "A softmax before cross entropy" and first["layers"] == "layer 3"
    assert first["remedies"] and first["evidence"] and first["source"]
    json.dumps([shown, card], allow_nan=False)


def test_the_fixture_for_tests_of_ones_own(
    case: Debugger, sound: Debugger, assert_trainable: Callable[..., Report], tmp_path: Path
) -> None:
    assert assert_trainable(sound, severity="info").findings == ()
    with pytest.raises(AssertionError, match="softmax_before_cross_entropy"):
        assert_trainable(case, severity="critical", json=tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["findings"]
    assert_trainable(case, severity="warning", ignore="softmax_before_cross_entropy")
    with pytest.raises(ConfigurationError, match="severity must be one of info, warning, critical"):
        assert_trainable(case, severity="bad")
