"""What counts as mended, and what the tables say of it; a program that is mended in earnest."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.zoo import mended, mending
from tests.zoo.collection import named
from tests.zoo.mended import Mended, Tried, load, save
from tests.zoo.mending import kinds_of, mend

GOOD, BAD = Tried("slower", "better", True), Tried("faster", "within noise")


def made(*tried: Tried, loss: float = 0.1, twin: float = 0.1, first: float = 1.0, **more: object) -> Mended:
    return replace(
        Mended(
            "p", 0, "a", "mlp", named=True, able=2, tried=tried, loss=loss, twin=twin, twin_first=first, by="training"
        ),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("loss", "twin", "first", "fixed"),
    [
        (1.04, 1.0, 1.0, True),
        (1.06, 1.0, 1.0, False),
        (1.06, 1.0, 2.0, True),  # 2 % of the fall from 2 to 1 on top
        (0.015, 0.0, 1.0, True),
        (0.025, 0.0, 1.0, False),
        (-1.02, -1.0, 1.0, True),
        (-0.90, -1.0, -0.9, False),
        (-0.96, -1.0, -0.9, True),
        (0.5, 1.0, 2.0, True),  # better than the twin
        (float("nan"), 1.0, 2.0, False),
        (1.0, float("nan"), 2.0, False),
    ],
)
def test_mended_is_as_low_as_the_twin_or_nearly(loss: float, twin: float, first: float, fixed: bool) -> None:
    assert made(GOOD, loss=loss, twin=twin, first=first).fixed is fixed
    assert not made(BAD, loss=loss, twin=twin, first=first).fixed


def test_the_tables() -> None:
    wrong = (Tried("another seed", "within noise"), Tried("nothing", "better", True), Tried("nothing", why="raised X"))
    rows = [
        made(GOOD, wrong=wrong),
        made(BAD, GOOD, program="second"),
        made(BAD, BAD, program="helpless"),
        made(GOOD, program="far", loss=0.7),
        made(program="by_hand", able=0),
        made(program="unnamed", able=0, named=False),
        made(program="late", error="took longer than 3 s"),
    ]
    text = mended.tables(rows)
    for line in (
        "| faulty programs | 7 |",
        "| cause named | 6 of 7 (85.7 %) |",
        "| … with a remedy that the debugger can do itself | 5 |",
        "| … a remedy is said to help | 3 of 5 (60.0 %) |",
        "| … mended: the loss ends near the healthy twin's | 2 of 5 (40.0 %) |",
        "| … by the first remedy alone | 1 of 5 (20.0 %) |",
        "| `a` | 5 | 3 | 2 | 1, 1, 2 |",
        "| helpless | 0 | `a` | faster within noise; faster within noise |",
        "| far | 0 | `a` | ends at 0.7, the twin at 0.1 (training) |",
        "| another seed | 1 | 0 of 1 (0.0 %) | 0 |",
        "| nothing | 1 | 1 of 1 (100.0 %) | 1 |",
        "| all | 2 | 1 of 2 (50.0 %) | 1 |",
        "| late | 0 | took longer than 3 s |",
    ):
        assert line in text, line


def test_they_come_back_from_their_file(tmp_path: Path) -> None:
    rows = [made(GOOD, BAD, wrong=(BAD,)), made(program="q")]
    save(rows, tmp_path / "mended.json")
    assert load(tmp_path / "mended.json") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["mended.json"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_that_were_drawn_too_large_are_mended() -> None:
    done = mend(named("digits_weights_from_a_unit_normal"), 0, math.inf)
    assert done.named and done.fixed and done.by == "validation"
    assert done.loss < 0.5 * done.twin_first
    assert len(done.wrong) == 2 and not any(each.helped or each.why for each in done.wrong)


def test_without_time_nothing_is_tried_and_that_is_said() -> None:
    done = mend(named("digits_weights_from_a_unit_normal"), 0, 0.0)
    assert done.named and done.tried[0].why == "was not reached in time" and not done.helped and done.wrong == ()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_only_the_user_can_mend_is_left() -> None:
    done = mend(named("waves_clipped_to_a_thousandth"), 0, 30.0)
    assert (done.named, done.able, done.tried, done.wrong) == (True, 0, (), ())


@pytest.mark.parametrize("program", ["table_rate_eight_times_too_high", "digits_decay_by_batch_meant_by_epoch"])
def test_there_are_several_kinds_of_harmless_changes(program: str) -> None:
    kinds = kinds_of(named(program).build(0)[1])
    assert len(kinds) >= 4 and {"another seed", "clipping far above every norm"} <= set(kinds)
    assert ("a rate higher by a thousandth" in kinds) is ("rate" in program)
    assert all(isinstance(command, mending.ABLE) for command in kinds.values())
