"""The command: what it judges, what it takes from a file, and when it writes into a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nbdebug.checks import calibration
from nbdebug.checks.calibration import Calibration
from tests.zoo import __main__ as command
from tests.zoo import mending, pool
from tests.zoo.collection import chosen, named
from tests.zoo.judging import Job, judge, sources
from tests.zoo.made_rows import row
from tests.zoo.mended import Mended
from tests.zoo.mending import Mend
from tests.zoo.rows import load, save

TWO = "digits_softmax_as_last_layer*"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs that the command gave out; each is answered at once, faults by their cause."""
    given: list[Job] = []

    def run(work: Any, jobs: list[Job], **options: Any) -> Iterator[pool.Outcome]:
        for job in jobs:
            given.append(job)
            cause = named(job.program).cause
            made = row(job.program, cause, *filter(None, [cause]))
            yield pool.Outcome(job, replace(made, seed=job.seed, sources=sources()))

    monkeypatch.setattr(pool, "run", run)
    return given


def test_programs_that_show_live_are_left_out_without_live(judged: list[Job]) -> None:
    command.main(["--only", "lr_too_high"])
    assert judged == []
    command.main(["--only", "lr_too_high", "--live", "50"])
    assert {job.program for job in judged} == {p.name for p in chosen("lr_too_high")}


def test_seeds_and_patterns(judged: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", TWO, "--seeds", "1", "2"]) == 0
    assert [(job.program, job.seed) for job in judged] == [
        (name, seed) for seed in (1, 2) for name in (TWO[:-1], f"{TWO[:-1]}_healthy")
    ]
    assert "| cause first | 2 of 2 (100.0 %) |" in capsys.readouterr().out


def test_a_pattern_that_fits_nothing_is_said() -> None:
    with pytest.raises(SystemExit, match="no program fits --only 'nothing_like_it'"):
        command.main(["--only", "nothing_like_it"])


def test_rows_on_file_are_not_judged_again_but_failed_ones_are(judged: list[Job], tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    save([row(TWO[:-1], "softmax_before_cross_entropy"), row(f"{TWO[:-1]}_healthy", error="took longer")], file)
    command.main(["--only", TWO, "--resume", str(file)])
    assert [job.program for job in judged] == [f"{TWO[:-1]}_healthy"]
    assert [r.error for r in load(file)] == ["", ""]


def test_a_program_that_could_not_be_judged_is_a_row_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "run", lambda work, jobs, **_: (pool.Outcome(job, error="crashed") for job in jobs))
    assert command.main(["--only", TWO]) == 1
    assert "| could not be judged | 2 |" in capsys.readouterr().out


def test_a_page_is_written_between_its_marks_and_again(judged: list[Job], tmp_path: Path) -> None:
    page, (begin, end) = tmp_path / "zoo.md", command.MARKS[command.TUNED]
    page.write_text(f"# Before\n\n{begin}\nstale\n{end}\n\nAfter.\n", encoding="utf-8")
    command.main(["--only", TWO, "--write", str(page)])
    once = page.read_text(encoding="utf-8")
    assert once.startswith("# Before") and once.endswith("\nAfter.\n") and "stale" not in once and "### Totals" in once
    command.main(["--only", TWO, "--write", str(page)])
    assert page.read_text(encoding="utf-8") == once


def test_a_page_is_made_with_a_place_for_the_held_out_programs(judged: list[Job], tmp_path: Path) -> None:
    page = tmp_path / "zoo.md"
    command.main(["--only", "tumours_with_a_few*", "--held-out", "--write", str(page)])
    command.main(["--only", TWO, "--write", str(page)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# How well causes are named")
    assert text.index("## Programs that thresholds were set on") < text.index("## Held-out programs")
    assert text.count("| `nan_in_data` | 1 | 1 | 1 | 1 |") == text.count("| `softmax_before_cross_entropy` | 1 ") == 1


def test_rows_of_other_sources_are_not_written(judged: list[Job], tmp_path: Path) -> None:
    file, page = tmp_path / "rows.json", tmp_path / "zoo.md"
    save([replace(row(TWO[:-1], "softmax_before_cross_entropy"), sources="older")], file)
    with pytest.raises(SystemExit, match="made with other sources"):
        command.main(["--only", TWO, "--resume", str(file), "--write", str(page)])
    assert not page.exists()


def test_a_page_without_marks_is_left_alone(judged: list[Job], tmp_path: Path) -> None:
    page = tmp_path / "zoo.md"
    page.write_text("# My own\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks the marks"):
        command.main(["--only", TWO, "--write", str(page)])
    assert page.read_text(encoding="utf-8") == "# My own\n"


def test_rows_that_were_trained_otherwise_are_judged_again(judged: list[Job], tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    settled = Job("", 0, 50, True).mode
    save([row(TWO[:-1]), replace(row(f"{TWO[:-1]}_healthy"), mode=settled)], file)
    command.main(["--only", TWO, "--resume", str(file), "--live", "50", "--to-the-end"])
    assert judged == [Job(TWO[:-1], 0, 50, True)]
    assert settled not in (Job("", 0, 50).mode, Job("", 0, 60, True).mode, "")


def test_calibrating_writes_the_file_that_the_package_reads(
    judged: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "FILE", tmp_path / "calibration.json")
    command.main(["--calibrate"])
    made = Calibration.from_json((tmp_path / "calibration.json").read_text(encoding="utf-8"))
    counted = Counter(named(job.program).cause for job in judged)
    assert {cause: known.count for cause, known in made.causes.items()} == {c: n for c, n in counted.items() if c}
    assert 0.9 < made("lr_too_high", 1.0) < 1  # all of them were right


@pytest.mark.parametrize("other", [["--held-out"], ["--remedies"], ["--only", TWO]])
def test_calibrating_takes_all_that_is_tuned_on(other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--calibrate", *other])
    assert "--calibrate is for all programs" in capsys.readouterr().err


def test_remedies_are_tried_on_faulty_programs_and_those_on_file_are_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[Mend] = []

    def run(work: Any, jobs: list[Mend], **_: Any) -> Iterator[pool.Outcome]:
        assert work is mending.work
        asked.extend(jobs)
        made = (Mended(job.program, job.seed, "lr_too_high", "mlp", named=True, sources=sources()) for job in jobs)
        yield from (pool.Outcome(job, value) for job, value in zip(jobs, made, strict=True))

    monkeypatch.setattr(pool, "run", run)
    arguments = ["--only", "lr_too_high", "--remedies", "--limit", "10", "--resume", str(tmp_path / "mended.json")]
    page = tmp_path / "zoo.md"
    assert command.main([*arguments, "--write", str(page)]) == 0
    faults = [p.name for p in chosen("lr_too_high") if p.cause]
    assert asked == [Mend(name, 0, 5.0) for name in faults]
    command.main(arguments)
    assert len(asked) == len(faults)
    assert f"| faulty programs | {len(faults)} |" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert text.index(command.MARKS[command.REMEDIES][0]) < text.index("## Remedies")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_program_is_judged_by_the_debugger_itself() -> None:
    faulty, sound = (judge(named(f"digits_softmax_as_last_layer{end}"), Job("", 0, 0)) for end in ("", "_healthy"))
    assert faulty.place == 1 and sound.loud == ()
    assert {check.name for check in faulty.checks} >= {"softmax_before_cross_entropy"}
    assert any(m.parameter and m.threshold is not None for check in faulty.checks for m in check.measured)


def test_live_steps_are_trained() -> None:
    sound = judge(named("digits_softmax_as_last_layer_healthy"), Job("", 0, 12))
    assert (sound.live_steps, sound.error) == (12, "")
    gone = judge(named("digits_cross_entropy_by_hand"), Job("", 0, 1))
    assert gone.live_steps < gone.broke < 150 and gone.alarm is not None and gone.alarm.step == gone.broke
    assert any(found.live and found.cause in ("nan_loss", "numerical_instability") for found in gone.found)
