"""Five small programs in the manner of public scripts: healthy ones are left in peace, planted faults are named first.

Faults are written the way they come about: in a helper, a dataset, a group that was forgotten, a counter.
"""

from __future__ import annotations

from types import ModuleType

import pytest

from nbdebug import Debugger
from nbdebug.records.findings import Severity
from tests.scripts import autoencoder, characters, pictures, table, tagger

SECONDS = 60.0  # for the checks on the side, so that a busy machine leaves none out
MEMORISING = "overfit_one_batch"  # takes most of the time, and names no cause
HEALTHY = [(pictures, 60), (characters, 75), (tagger, 120), (table, 200)]
STEPS = {"step schedule per batch": 60}  # others show on the first steps
PLANTED = [(script, fault) for script in (pictures, characters, tagger, table, autoencoder) for fault in script.FAULTS]


def name(value: object) -> str:
    return value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else str(value)


@pytest.mark.parametrize(("script", "steps"), HEALTHY, ids=name)
def test_a_healthy_program_is_left_in_peace(script: ModuleType, steps: int) -> None:
    debugger = Debugger(*script.build(seed=1), journal=None)
    try:
        report = debugger.diagnose(steps=steps)
        losses = debugger.history["loss/train"].values
    finally:
        debugger.close()
    assert report.worse_than(Severity.WARNING) == ()
    assert losses[-10:].mean() < 0.75 * losses[:3].mean()  # it does learn


@pytest.mark.parametrize(("script", "fault"), PLANTED, ids=name)
def test_a_planted_fault_is_named_first(script: ModuleType, fault: str) -> None:
    debugger = Debugger(*script.build(fault), journal=None)
    try:
        debugger.preflight(skip=MEMORISING, seconds=SECONDS)
        debugger.run(steps=STEPS.get(fault, 26))
        told = [finding for finding in debugger.findings if finding.severity is not Severity.INFO]
    finally:
        debugger.close()
    assert [str(finding.cause) for finding in told[:1]] == [script.FAULTS[fault]]
    assert told[0].why and told[0].remedies
