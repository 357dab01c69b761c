"""Precedence and meaning against Python's own, on random conditions; and where each mistake is pointed at."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from nbdebug.breakpoints.condition import ConditionError, Reading
from nbdebug.breakpoints.errors import refusal
from nbdebug.breakpoints.language import MOST_NESTED, MOST_NODES, parse
from tests.breakpoints.cases import LAYER_NAMES, LAYERS, NAMES, compiled, of
from tests.breakpoints.writer import MANY, ONE, Writer

SPECIAL = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 1e-3, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan, 3.0, 7.25)
REDUCE = {name: getattr(np, name) for name in MANY}


def python_says(text: str, values: dict[Reading, float], past: dict[Reading, list[float]]) -> bool:
    names: dict[str, Any] = {
        "F": np.float64,
        "inf": math.inf,
        "now": lambda name, layer="": np.float64(values[Reading(name, layer)]),
        "window": lambda function, name, n: REDUCE[function](past[Reading(name)][-n:]),
        "over": lambda function, name: REDUCE[function]([values[Reading(name, layer)] for layer in LAYERS]),
        "of": lambda function, *numbers: REDUCE[function](numbers),
        "previous": lambda name, k: np.float64(past[Reading(name)][-k]),
        "change": lambda name, k: np.float64(values[Reading(name)]) - past[Reading(name)][-k],
        **{name: getattr(np, name) for name in (*ONE, "isnan", "isinf", "isfinite")},
    }
    return bool(eval(text, {"__builtins__": {}}, names))


def moment(chance: random.Random) -> tuple[dict[Reading, float], dict[Reading, list[float]]]:
    readings = [Reading(name) for name in NAMES] + [Reading(name, layer) for name in LAYER_NAMES for layer in LAYERS]

    def some() -> float:
        return chance.choice(SPECIAL) if chance.random() < 0.4 else chance.gauss(0, 3)

    return {reading: some() for reading in readings}, {reading: [some() for _ in range(11)] for reading in readings}


@pytest.mark.parametrize("seed", range(4))
def test_random_conditions_mean_what_python_makes_of_them(seed: int) -> None:
    writer, chance, judged, verdicts = Writer(seed), random.Random(seed), 0, set()
    for _ in range(600):
        ours, python = writer.truth(writer.random.randint(0, 5))
        try:
            condition = compiled(ours)
        except ConditionError as error:
            assert any(why in str(error) for why in ("always", "itself", "NaN", "too long", "too many", "too deep")), (
                ours
            )
            continue
        for _ in range(3):
            values, past = moment(chance)
            with np.errstate(all="ignore"):
                expected = python_says(python, values, past)
            assert condition.judge(values, past) is expected, (ours, values, past)
            verdicts.add(expected)
            judged += 1
    assert judged > 800 and verdicts == {True, False}


def test_what_is_missing_never_changes_a_verdict_but_to_unknown() -> None:
    writer, chance, unknown, known = Writer(9), random.Random(9), 0, 0
    for _ in range(400):
        ours, _ = writer.truth(4)
        try:
            condition = compiled(ours)
        except ConditionError:
            continue
        values, past = moment(chance)
        whole = condition.judge(values, past)
        lacking = chance.choice(sorted(condition.readings, key=repr))
        part = condition.judge({key: value for key, value in values.items() if key.name != lacking.name}, past)
        assert part in (None, whole), ours
        unknown, known = unknown + (part is None), known + (part is not None)
    assert unknown > 50 and known > 50


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("-loss ** 2 < 1", "(-(loss ** 2)) < 1"),
        ("2 ** -loss ** 2 < 1", "(2 ** (-(loss ** 2))) < 1"),
        ("loss ** 2 ** 3 < 1", "(loss ** (2 ** 3)) < 1"),
        ("1 - loss - 2 < 1", "((1 - loss) - 2) < 1"),
        ("1 + loss * 2 % 3 / 4 < 1", "(1 + (((loss * 2) % 3) / 4)) < 1"),
        ("not loss > 1 and lr > 2 or step > 3", "((not (loss > 1)) and (lr > 2)) or (step > 3)"),
        ("not not loss > 1", "not (not (loss > 1))"),
        ("loss\t>\n1", "loss > 1"),
        ("max(loss, 20,) > 1", "max(loss, 20) > 1"),
        ("update_ratio [ 'fc1' ] > 1", 'update_ratio["fc1"] > 1'),
    ],
)
def test_precedence_as_parentheses_would_say_it(text: str, same: str) -> None:
    assert parse(text) == parse(same)


def test_parentheses_end_a_chain() -> None:
    assert parse("1 < loss < 3") != parse("(1 < loss) < 3")


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "empty"),
        (" \t", 1, "empty"),
        ("loss >", 7, "breaks off"),
        ("loss > > 1", 8, "no number or signal before >"),
        ("loss & lr", 6, "Write and instead"),
        ("loss > 1 && lr > 2", 10, "Write and instead"),
        ("loss > 1 || lr > 2", 10, "Write or instead"),
        ("!(loss > 1)", 1, "Write not instead"),
        ("loss = 1", 6, "Write == instead"),
        ("loss := 1", 6, "Write == instead|no Python"),
        ("loss ≥ 1", 6, "Write >= instead"),
        ("loss // 2 > 1", 6, "Write / instead"),
        ("loss ^ 2 > 1", 6, r"Write \*\* instead"),
        ("loss.item() > 1", 5, "by name alone"),
        ("(loss > 1", 1, "never closed"),
        ("abs(loss > 1", 4, "never closed"),
        ('update_ratio["fc1" > 1', 20, "does not follow"),
        ("loss > 1)", 9, "closes nothing"),
        ("loss > 1 lr", 10, "Join conditions"),
        ("loss > (1)(2)", 11, "no name"),
        ('update_ratio["fc1"]["fc2"] > 1', 20, "no name"),
        ("update_ratio[0] > 1", 14, "in quotes"),
        ("update_ratio[fc1] > 1", 14, "in quotes"),
        ("loss > 'a'", 8, "only as a layer's name"),
        ("'inf' > loss", 1, "only as a layer's name"),
        ("loss > 'a", 8, "no end"),
        ('update_ratio["fc\\1"] > 1', 14, "backslash"),
        ("update_ratio['fc\t1'] > 1", 14, "backslash or control"),
        ("loss > 1_000", 9, "goes on with _"),
        ("loss > 0x10", 9, "goes on with x"),
        ("loss > 1.2.3", 11, r"goes on with \."),
        ("loss > 1, lr > 2", 9, "comma"),
        ("loss > not lr", 8, "parentheses"),
        ("loss is nan", 6, "isnan"),
        ("loss > 1 if lr else 2", 10, "no Python code"),
        ("loss > None", 8, "isnan"),
        ("loss > 1 AND lr > 2", 10, "Write and"),
        ("lambda: loss", 1, "no Python code"),
        ("loss > １", 8, r"U\+FF11"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, column: int, says: str) -> None:
    with pytest.raises(ConditionError, match=says) as caught:
        compiled(text)
    assert caught.value.column == column
    lines = str(caught.value).splitlines()
    assert lines[2].index("^") == 4 + column - 1
    assert len(lines) == 4 and lines[3]


def test_a_long_text_is_shown_around_the_caret() -> None:
    text = "loss > 1 and " * 20 + "lr > $ and " + "loss > 1 and " * 20
    with pytest.raises(ConditionError, match="means nothing") as caught:
        compiled(text)
    shown, caret = str(caught.value).splitlines()[1:3]
    assert shown[caret.index("^")] == "$" and text[caught.value.column - 1] == "$"
    assert shown.strip().startswith("…") and shown.endswith("…") and len(shown) < 90


def test_each_character_is_shown_in_its_place() -> None:
    lines = str(refusal("a\tb\nc\ud800\x00\u05d0d", 9, "what", "instead")).splitlines()
    assert lines[1] == "    a b c���d" and lines[2] == " " * 12 + "^"


def test_nesting_and_parts_are_bounded() -> None:
    assert compiled("(" * (MOST_NESTED - 2) + "loss" + ")" * (MOST_NESTED - 2) + " > 1").judge(of(loss=2), {})
    for deep in (
        "(" * MOST_NESTED + "loss" + ")" * MOST_NESTED,
        "-" * 60 + "loss",
        "not " * 60 + "a",
        "2**" * 60 + "2",
    ):
        with pytest.raises(ConditionError, match="nested too deeply"):
            compiled(deep)
    half = MOST_NODES // 2
    assert compiled("+".join(["1"] * (half - 1)) + "<loss").judge(of(loss=half), {})
    with pytest.raises(ConditionError, match=f"at most {MOST_NODES}"):
        compiled("+".join(["1"] * half) + "<loss")
