"""Looking for faults changes nothing: on any model and set-up, training goes as if nobody had looked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nbdebug import Debugger, Trainer
from nbdebug.records.checks import CheckOutcome, Report
from nbdebug.records.errors import CommandError
from tests.instruments import zoo
from tests.instruments.test_do_no_harm import differences, states
from tests.training.setups import SETUPS
from tests.training.test_find_lr import WORKERS, at_a_stop, at_the_start, differing, everything, made

QUICK: dict[str, float] = {"overfit_steps": 20, "overfit_seconds_share": 0.5}
Course = Callable[[Debugger, Callable[[Debugger], Any]], None]
COURSES: dict[str, Course] = {"at the start": at_the_start, "at a stop": at_a_stop}


def preflight(case: Debugger) -> Report:
    case.set_check_parameters(**QUICK)
    report = case.preflight(seconds=20)
    assert not report.of(CheckOutcome.BROKE), report
    return report


@WORKERS
@pytest.mark.parametrize("name", SETUPS)
def test_nothing_is_changed_and_the_run_goes_on_as_without(name: str) -> None:
    case, setup = made(name)
    case.run(steps=3)
    before = everything(case, setup)
    preflight(case)
    assert differing(before, everything(case, setup)) == []
    case.run(steps=12)
    other, plain = made(name)
    other.run(steps=3)
    other.run(steps=12)
    assert differing(everything(case, setup), everything(other, plain)) == []
    case.close()
    other.close()


@WORKERS
@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("name", ["OneCycleLR by batch", "accumulation", "two networks", "3 workers"])
def test_at_the_start_and_at_a_stop_too(name: str, course: str) -> None:
    ends = []
    for look in (preflight, lambda case: None):
        case, setup = made(name)
        COURSES[course](case, look)
        ends.append(everything(case, setup))
        case.close()
    assert differing(*ends) == []


@pytest.mark.parametrize("name", [name for name in zoo.KINDS if name != "lazy modules"])
def test_any_model_is_as_before(name: str) -> None:
    case = zoo.KINDS[name].make()
    trainer = Trainer(case.optimizer, case.loss_fn, case.batches, step=case.step, state=case.state)
    debugger = Debugger(case.model, trainer, journal=None)
    before = states(case)
    preflight(debugger)
    debugger.close()
    assert differences(states(case), before) == []


def test_lazy_layers_are_refused_in_words() -> None:
    case = zoo.KINDS["lazy modules"].make()
    debugger = Debugger(case.model, Trainer(case.optimizer, case.loss_fn, case.batches, step=case.step), journal=None)
    before = states(case)
    with pytest.raises(CommandError, match="run it once on a batch before"):
        debugger.preflight()
    debugger.close()
    assert differences(states(case), before) == []
