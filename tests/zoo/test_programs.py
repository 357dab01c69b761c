"""The zoo is what it says: healthy programs learn under the plain loop, and each planted fault is really there."""

from __future__ import annotations

from collections import Counter

import pytest

from nbdebug.records.findings import Cause
from tests.zoo import planted, planted_live
from tests.zoo.collection import named, programs
from tests.zoo.plain import learns, losses
from tests.zoo.program import Kind, Program

CONDITIONS = {**planted.CONDITIONS, **planted_live.LIVE_CONDITIONS}
TUNED = programs()
ALL = (*TUNED, *programs(held_out=True))
FAULTS = [program for program in ALL if program.kind is Kind.FAULT]
SEED = 0

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # faults rouse torch's own


def names(chosen: list[Program]) -> list[object]:
    return [pytest.param(program.name, id=program.name) for program in chosen]


@pytest.mark.parametrize("name", names([program for program in ALL if program.healthy and program.falls]))
def test_a_healthy_program_learns(name: str) -> None:
    program = named(name)
    model, trainer = program.build(SEED)
    assert learns(model, trainer, program.steps), f"{name} does not lower its loss in {program.steps} steps"


@pytest.mark.parametrize("name", names([program for program in ALL if program.healthy and not program.falls]))
def test_a_healthy_program_without_a_falling_loss_trains(name: str) -> None:
    model, trainer = named(name).build(SEED)
    seen = [loss for loss, _ in zip(losses(model, trainer), range(10), strict=False)]
    assert all(abs(loss) < 100 for loss in seen)


@pytest.mark.parametrize("name", names(FAULTS))
def test_a_fault_is_planted_and_its_twin_lacks_it(name: str) -> None:
    program = named(name)
    holds = CONDITIONS[program.cause]
    assert holds(program), f"{name} lacks what makes it {program.cause}"
    assert not holds(named(f"{name}_healthy")), f"{name}_healthy has what makes {program.cause}"


def test_every_cause_has_a_condition_of_its_own() -> None:
    assert {program.cause for program in FAULTS} == CONDITIONS.keys()


def test_the_same_seed_makes_the_same_program() -> None:
    for name in ("digits_softmax_as_last_layer", "generator_and_discriminator", "texts_off_by_one_line"):
        first, second = (
            [loss for loss, _ in zip(losses(*named(name).build(3)), range(4), strict=False)] for _ in range(2)
        )
        assert first == second


def test_names_are_unique_and_causes_are_of_the_catalogue() -> None:
    counted = Counter(program.name for program in ALL)
    assert [name for name, count in counted.items() if count > 1] == []
    assert {program.cause for program in FAULTS} <= {str(cause) for cause in Cause}


def test_every_cause_is_planted_in_two_programs_of_differing_kinds() -> None:
    for cause in {program.cause for program in TUNED if program.cause}:
        mine = [program for program in TUNED if program.cause == cause]
        assert len(mine) >= 2, cause
        assert len({(program.family, program.task) for program in mine}) >= 2, cause


def test_there_are_many_sound_programs_that_look_wrong() -> None:
    assert sum(program.kind is Kind.SUSPICIOUS for program in TUNED) >= 45
