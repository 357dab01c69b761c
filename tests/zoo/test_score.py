"""What the tables say of rows made by hand, and that rows come back from their file as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.zoo import score
from tests.zoo.made_rows import check, row
from tests.zoo.rows import Found, Row, load, save
from tests.zoo.score import Tally


@pytest.mark.parametrize(
    ("named", "also", "place"),
    [
        ((), (), None),
        (("a",), (), 1),
        (("b", "a"), (), 2),
        (("b", "c", "d", "a"), (), 4),
        (("b", "a"), ("b",), 1),  # what is right beside it takes no place
        (("b", "b", "a"), (), 2),  # named twice, counted once
        (("b",), ("b",), None),
    ],
)
def test_the_place_of_the_planted_cause(named: tuple[str, ...], also: tuple[str, ...], place: int | None) -> None:
    assert row("p", "a", *named, also=also).place == place


def test_information_neither_finds_nor_accuses() -> None:
    assert row("p", "a", "a", severity="info").place is None
    assert score.accused([row("q", "", "a", severity="info")]) == []


def test_what_is_only_ever_information_is_found_as_such() -> None:
    assert row("p", "too_few_samples", "too_few_samples", severity="info").place == 1
    assert row("p", "a", "too_few_samples", severity="info").loud == ()


def test_a_tally_counts_found_first_and_among_three() -> None:
    rows = [row("1", "a", "a"), row("2", "a", "b", "c", "a"), row("3", "a", "b", "c", "d", "a"), row("4", "a")]
    assert Tally.of(rows) == Tally(planted=4, found=3, first=1, in_three=2)


def test_the_table_of_causes_names_the_accused() -> None:
    rows = [row("f", "a", "a"), row("healthy_one", "", "a"), row("odd", "", "b", kind="suspicious"), row("fine")]
    lines = score.by_cause(rows).splitlines()
    assert lines[2:] == ["| `a` | 1 | 1 | 1 | 1 | healthy_one |", "| `b` | 0 | 0 | 0 | 0 | odd |"]


def test_totals() -> None:
    rows = [
        row("f", "a", "a", "x", seconds=1.0),
        row("g", "a", seconds=3.0),
        row("t", "", "b", seconds=2.0),
        row("s", "", "b", kind="suspicious", severity="critical", seconds=4.0),
        row("u", "", seconds=9.0, error="took longer"),
    ]
    said = dict(line.strip("| ").split(" | ") for line in score.totals(rows).splitlines()[2:])
    assert said["cause found"] == "1 of 2 (50.0 %)"
    assert said["other causes named beside it, per faulty run"] == "0.50"
    assert said["… with any warning"] == "2 of 3 (66.7 %)"
    assert said["… with a critical one"] == "1 of 3 (33.3 %)"
    assert said["… suspicious, with any warning"] == "1 of 1 (100.0 %)"
    assert said["could not be judged"] == "1"
    assert said["preflight: seconds, median and longest"] == "2.5, 4.0"


def test_misses_say_what_was_named_instead() -> None:
    text = score.misses(
        [row("good", "a", "a"), row("bad", "a", "b"), row("silent", "a"), row("broken", "a", error="x")]
    )
    assert text.splitlines()[2:] == ["| bad | 0 | `a` | – | b |", "| silent | 0 | `a` | – | nothing |"]


def test_errors_are_told_by_their_last_line() -> None:
    assert "| broken | 0 | ValueError: no |" in score.errors(
        [row("broken", "a", error="Traceback\n  …\nValueError: no\n")]
    )


def test_rows_come_back_from_their_file(tmp_path: Path) -> None:
    rows = [
        row("p", "a", "b", "a", also=("b",), checks=(check("c", "a", limit=(3.0, 1.5)), check("d"))),
        Row("q", 2, "twin", "", "cnn", found=(Found("x", "info", 0.5, "title", live=True),), live_steps=9, sources="z"),
    ]
    save(rows, tmp_path / "rows.json")
    assert load(tmp_path / "rows.json") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]
