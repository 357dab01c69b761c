"""When a live finding is told: after it was found some times in a row, once, and again when it was gone meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from nbdebug.checks.check import Say
from nbdebug.checks.check import Skip as Pass
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.watch import Watch, is_due
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameters
from nbdebug.records.checks import CheckOutcome
from nbdebug.records.findings import Cause, Finding, Gone, Severity

NONE = Parameters(())
FOUND, NOT, SKIPPED, RAISES, SURE, MINOR = "found", "not", "skipped", "raises", "sure", "minor"


def scripted(script: Iterable[str], *, name: str = "scripted", persistence: int = 2, steps: int = 0) -> LiveCheck:
    """A check that comes to what the script says, one word a judgement."""
    words = iter(script)

    def judge(window: Window, say: Say) -> None:
        word = next(words)
        if word == SKIPPED:
            raise Pass("not yet")
        if word == RAISES:
            raise ZeroDivisionError("by hand")
        if word in (FOUND, SURE, MINOR):
            severity = {SURE: Severity.CRITICAL, FOUND: Severity.WARNING, MINOR: Severity.INFO}[word]
            say.find(Cause.LR_TOO_HIGH, severity, "too high", "because")

    return LiveCheck(name, "a title", judge, (Cause.LR_TOO_HIGH,), persistence=persistence, steps=steps)


def at(step: int, run: str = "run", changed: tuple[int, ...] = ()) -> Window:
    return Window(run, step, 0, {}, {}, changed=changed)


def told(script: list[str], **options: int) -> list[int]:
    """The judgements, counted from 1, at which it was told."""
    watch = Watch((scripted(script, **options),))
    return [place for place in range(1, len(script) + 1) if watch.judge(at(10 * place), NONE)]


@pytest.mark.parametrize(
    ("script", "options", "expected"),
    [
        pytest.param([FOUND], {}, [], id="once is not enough"),
        pytest.param([FOUND, FOUND], {}, [2], id="twice in a row"),
        pytest.param([FOUND, FOUND, FOUND, FOUND], {}, [2], id="told once"),
        pytest.param([FOUND, NOT, FOUND, NOT, FOUND], {}, [], id="never twice in a row"),
        pytest.param([FOUND, SKIPPED, FOUND], {}, [3], id="what can't be judged counts neither way"),
        pytest.param([FOUND, FOUND, NOT, FOUND, FOUND], {}, [2], id="one miss is not gone"),
        pytest.param([FOUND, FOUND, NOT, NOT, FOUND, FOUND], {}, [2, 6], id="gone, and back"),
        pytest.param([FOUND, FOUND, NOT, SKIPPED, NOT, FOUND, FOUND], {}, [2, 7], id="gone across a skip"),
        pytest.param([MINOR, MINOR, FOUND, FOUND, FOUND], {}, [2, 4], id="told again once it is worse for as long"),
        pytest.param([MINOR, MINOR, FOUND, MINOR, FOUND, MINOR], {}, [2], id="worse now and then"),
        pytest.param([FOUND, FOUND, MINOR, MINOR, FOUND, FOUND], {}, [2], id="milder, and back, is no news"),
        pytest.param([MINOR, MINOR, SURE], {}, [2, 3], id="beyond doubt at once"),
        pytest.param([FOUND] * 3, {"persistence": 3}, [3], id="a check that wants three"),
        pytest.param([FOUND], {"persistence": 1}, [1], id="a check that wants one"),
        pytest.param([SURE], {}, [1], id="critical and beyond doubt is told at once"),
    ],
)
def test_told_when_it_lasts(script: list[str], options: dict[str, int], expected: list[int]) -> None:
    assert told(script, **options) == expected


def test_a_critical_one_that_may_be_wrong_waits() -> None:
    def judge(window: Window, say: Say) -> None:
        say.find(Cause.LR_TOO_HIGH, Severity.CRITICAL, "too high", "because", confidence=0.9)

    watch = Watch((LiveCheck("unsure", "a title", judge, (Cause.LR_TOO_HIGH,), steps=0),))
    assert not watch.judge(at(10), NONE)
    assert watch.judge(at(20), NONE)


def test_gone_names_the_cause_once() -> None:
    watch = Watch((scripted([FOUND, FOUND, NOT, NOT, NOT]),))
    gone = []
    for step in range(1, 6):
        watch.judge(at(step), NONE)
        gone.append(watch.gone)
    assert gone == [(), (), (), (Gone("run", 4, Cause.LR_TOO_HIGH, "scripted", last_step=2),), ()]


def test_what_is_told_says_where_and_since_when() -> None:
    watch = Watch((scripted([FOUND, NOT, FOUND, FOUND]),))
    for step in (10, 25, 40):
        watch.judge(at(step), NONE)
    (finding,) = watch.judge(at(55), NONE)
    assert (finding.run, finding.step, finding.first_step, finding.since) == ("run", 55, 40, 40)
    assert (finding.check, finding.by) == ("scripted", "scripted")


def stood(step: int = 30) -> Finding:
    """What was told of the parent."""
    return Finding(Cause.LR_TOO_HIGH, Severity.WARNING, "parent", step, "too high", "because", check="scripted")


def test_a_branch_begins_with_what_stood_where_it_left_its_parent() -> None:
    watch = Watch((scripted([FOUND, FOUND, NOT, NOT, FOUND, FOUND]),))
    watch.begin("branch", [stood()], step=50)
    said = [[each.first_step for each in watch.judge(at(step, "branch"), NONE)] for step in range(60, 120, 10)]
    assert said == [[], [], [], [], [], [100]], "it is known already; and told when it comes back"


def test_what_a_branch_inherited_may_go_and_was_there_till_it_left() -> None:
    watch = Watch((scripted([NOT, NOT]),))
    watch.begin("branch", [stood()], step=50)
    assert [watch.judge(at(step, "branch"), NONE) or watch.gone for step in (60, 70)] == [
        (), (Gone("branch", 70, Cause.LR_TOO_HIGH, "scripted", last_step=50),)
    ]  # fmt: skip


def test_a_run_that_is_come_back_to_goes_on_as_it_stood() -> None:
    watch = Watch((scripted([FOUND, FOUND, NOT, FOUND, NOT, NOT]),))
    places = [("main", 10), ("main", 20), ("aside", 10), ("main", 30), ("main", 40), ("main", 50)]
    said = [(len(watch.judge(at(step, run), NONE)), len(watch.gone)) for run, step in places]
    assert said == [(0, 0), (1, 0), (0, 0), (0, 0), (0, 0), (0, 1)]


def test_the_same_step_again_says_nothing_new() -> None:
    watch = Watch((scripted([FOUND] * 4),))
    assert [len(watch.judge(at(10), NONE)) for _ in range(3)] == [0, 0, 0]
    assert len(watch.judge(at(11), NONE)) == 1


def test_another_run_begins_anew() -> None:
    watch = Watch((scripted([FOUND] * 6),))
    said = [len(watch.judge(at(step, run), NONE)) for run in ("one", "two") for step in (10, 20, 30)]
    assert said == [0, 1, 0, 0, 1, 0]


def test_a_rule_that_raises_is_left_out_and_said_once() -> None:
    sound = scripted([FOUND] * 4, name="sound")
    watch = Watch((scripted([RAISES]), sound))
    news = [watch.judge(at(step), NONE) for step in range(1, 5)]
    assert [[finding.cause for finding in each] for each in news] == [
        [Cause.CHECK_DISABLED], [Cause.LR_TOO_HIGH], [], []
    ]  # fmt: skip
    broken: Finding = news[0][0]
    assert "scripted" in broken.title
    assert "ZeroDivisionError: by hand" in broken.detail
    assert broken.severity is Severity.INFO
    assert [result.name for result in watch.results] == ["sound"]


@pytest.mark.parametrize(
    ("step", "changed", "outcome"),
    [
        (9, (), CheckOutcome.SKIPPED),
        (10, (), CheckOutcome.PASSED),
        (30, (25,), CheckOutcome.SKIPPED),
        (35, (3, 25), CheckOutcome.PASSED),
    ],
)
def test_judged_from_so_many_steps_after_the_last_change(
    step: int, changed: tuple[int, ...], outcome: CheckOutcome
) -> None:
    watch = Watch((scripted([NOT], steps=10),))
    watch.judge(at(step, changed=changed), NONE)
    assert watch.results[0].outcome is outcome


def test_judgements_come_soon_at_first_and_then_every_25_steps() -> None:
    assert [step for step in range(1, 130) if is_due(step)] == [5, 10, 20, 30, 45, 50, 75, 100, 125]
