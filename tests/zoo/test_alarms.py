"""When faults were told: rows made by hand say what must come out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.zoo import alarms
from tests.zoo.made_rows import row
from tests.zoo.rows import Found, Row


def told(*found: Found, cause: str = "a", broke: int = 0, also: tuple[str, ...] = (), program: str = "p") -> Row:
    return replace(row(program, cause, also=also), found=found, broke=broke, live_steps=100, mode="100")


def live(cause: str, step: int, severity: str = "warning", *, gone: bool = False) -> Found:
    return Found(cause, severity, live=True, step=step, gone=gone)


@pytest.mark.parametrize(
    ("made", "steps"),
    [
        (told(), None),
        (told(live("b", 5)), None),
        (told(live("b", 5), live("a", 30)), 30),
        (told(Found("a", "warning", step=7)), 0),  # before training, whatever step that was
        (told(live("a", 30), live("b", 10), also=("b",)), 10),
        (told(live("a", 10, "info"), live("b", 20), also=("b",)), 20),
        (told(live("a", 10, "info")), None),
        (told(live("too_few_samples", 10, "info"), cause="too_few_samples"), 10),
        (told(live("b", 3), cause=""), None),
    ],
)
def test_steps_to_the_alarm(made: Row, steps: int | None) -> None:
    assert alarms.steps_to_alarm(made) == steps


@pytest.mark.parametrize(
    ("made", "hard", "delay"),
    [
        (told(live("a", 40)), False, 40),
        (told(live("a", 40, "critical")), True, 40),
        (told(live("a", 40, "critical"), broke=41), True, 0),
        (told(live("a", 50, "critical"), broke=41), True, 9),
        (told(live("b", 3, "critical"), live("a", 40)), False, 40),
        (told(broke=41), True, None),
    ],
)
def test_hard_faults_are_held_against_the_step_where_they_break_the_run(
    made: Row, hard: bool, delay: int | None
) -> None:
    assert (alarms.is_hard(made), alarms.delay(made)) == (hard, delay)


def test_the_tables() -> None:
    rows = [
        told(Found("a", "critical"), program="early"),
        told(live("a", 60), program="soft"),
        told(live("a", 47, "critical"), broke=41, program="tardy"),
        told(live("b", 20, gone=True), cause="", program="accused"),
        told(Found("c", "critical"), cause="", program="accused_early"),
        told(cause="", program="fine"),
    ]
    text = alarms.report([*rows, row("failed", "a", error="x")])
    assert "| hard faults told within 5 steps | 1 of 2 (50.0 %) |" in text
    assert "| … accused before training | 1 of 3 (33.3 %) |" in text
    assert "| … accused as training went | 1 of 3 (33.3 %) |" in text
    assert "| `a` | 3 | 47 | 60 |" in text
    assert "| tardy | `a` | 41 | 47 |" in text and "| soft |" not in text
    assert "| accused | `b` | warning | step 20 | yes |" in text
    assert "| accused_early | `c` | critical | before training |  |" in text
