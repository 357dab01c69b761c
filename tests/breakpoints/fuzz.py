"""A fuzzer for conditions: ``python -m tests.breakpoints.fuzz --seconds 600``. Prints what it found; exit code 1 if so.

Guided by coverage: an input that takes a new way from line to line in ``nbdebug/breakpoints``, or one more often by
a power of two, is kept and bred from. Each must give a condition or a ConditionError that points into its text; each
condition, at every moment, a verdict. All in ``MOST_S`` of processor time.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import nbdebug.breakpoints
from nbdebug.breakpoints.condition import Condition, ConditionError, Reading
from tests.breakpoints.cases import LAYER_NAMES, LAYERS, NAMES, compiled
from tests.breakpoints.writer import Writer

MOST_S = 0.1
FOLDER = str(Path(nbdebug.breakpoints.__file__).parent)
SEEDS = (
    "loss > 2 * median(loss, 20)",
    "not isnan(loss) and 1 < max(update_ratio) <= 5 or lr == 1e-3",
    'update_ratio["blocks.2.attn"] / previous(grad_mean["fc1"], 3) > -.5 ** 2 % 3',
    "(change(loss, 1) + std(loss, 5)) != max(loss, lr, 1.0)",
    "isnan(loss) == True",
    "__import__('os').system('true') > 1",
    "9**9**9**9 > loss",
)
TOKENS = (
    *NAMES, *LAYER_NAMES, *(f'["{layer}"]' for layer in LAYERS), " and ", " or ", " not ", "True", "False", "inf",
    "nan", "<", "<=", ">", ">=", "==", "!=", "+", "-", "*", "/", "%", "**", "(", ")", "[", "]", ",", '"', "'", ".", "=",
    "&", "|", "!", ":=", "\\", "\x00", "\n", " ", "0", "1", "10", "10000", "10001", "1e400", "1e-400", ".5", "9" * 50,
    "abs(", "log(", "exp(", "isnan(", "max(", "min(", "mean(", "median(", "std(", "sum(", "previous(", "change(",
    "count(", "loss, 20)", "__class__", "lambda ", "eval(", "_", "{", "}", "#", ";", "é", "\ud800", "\u202e", "１",
    "𝐥𝐨𝐬𝐬", "≥", "\xa0", "((((((((", "-------",
)  # fmt: skip
PIECE = re.compile(r"\s+|\w+|\*\*|[<>=!]=|.", re.DOTALL)
SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan, 2.5)
Edges = Counter[tuple[str, int, int]]


@dataclass
class Found:
    """What a run of the fuzzer made of it."""

    inputs: int = 0
    conditions: int = 0
    edges: int = 0
    slowest_s: float = 0.0
    slowest: str = ""
    corpus: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)  # by where they come from: the input and what happened


def moments(chance: random.Random) -> list[tuple[dict[Reading, float], dict[Reading, list[float]]]]:
    """Nothing, everything, and part of it."""
    readings = [Reading(name) for name in NAMES] + [Reading(name, layer) for name in LAYER_NAMES for layer in LAYERS]
    whole: dict[Reading, float] = {reading: chance.choice(SPECIAL) for reading in readings}
    past = {reading: [chance.choice(SPECIAL) for _ in range(chance.choice((1, 9, 10, 60)))] for reading in readings}
    lacking = set(chance.sample([*NAMES, *LAYER_NAMES], 5))  # in all layers: what goes over those goes over fewer else
    some = {reading: value for reading, value in whole.items() if reading.name not in lacking}
    return [({}, {}), (whole, past), (some, past), (whole, {})]


def tried(text: str, chance: random.Random) -> Condition | None:
    """The condition of ``text``, judged, if it is one; raises where anything is not as it should be."""
    try:
        condition = compiled(text)
    except ConditionError as error:
        assert 1 <= error.column <= len(text) + 1, f"column {error.column}"
        assert len(str(error).splitlines()) == 4 and str(error).isprintable() is False
        str(error).encode()
        return None
    verdicts = [condition.judge(values, past) for values, past in moments(chance)]
    assert verdicts[0] is None, "a verdict on nothing"
    assert all(verdict in (True, False, None) for verdict in verdicts), verdicts
    assert verdicts[2] in (None, verdicts[1]), "a missing value turned the verdict"
    return condition


class Tracer:
    """Counts the ways from line to line in the package while it is switched on."""

    def __init__(self) -> None:
        self.edges: Edges = Counter()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(FOLDER):
            return None
        last = frame.f_lineno
        edges = self.edges

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            edges[name, last, frame.f_lineno] += 1
            last = frame.f_lineno
            return line

        return line


def traced(text: str, seed: int) -> set[tuple[str, int, int, int]]:
    """The ways that an input took, each with how often as a power of two."""
    tracer, before = Tracer(), sys.gettrace()
    sys.settrace(tracer)
    try:
        tried(text, random.Random(seed))
    finally:
        sys.settrace(before)
    return {(*edge, count.bit_length()) for edge, count in tracer.edges.items()}


def mutated(text: str, corpus: list[str], writer: Writer) -> str:
    """One to eight changes of it, some of them a new start."""
    chance = writer.random
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        start = chance.randint(0, len(text))  # what follows may be cut, doubled or replaced
        end = min(len(text), start + chance.choice((0, 0, 1, 1, 2, 5, 20)))
        match chance.randrange(10):
            case 0:
                text = _flipped(text, chance)
            case 1 | 2 | 3:
                text = text[:start] + chance.choice(TOKENS) + text[end:]
            case 4:
                other = chance.choice(corpus)
                text = text[:start] + other[chance.randint(0, len(other)) :]
            case 5:
                text = text[:start] + text[start:end] * chance.choice((2, 3, 60)) + text[end:]
            case 6:
                text = text[:start] + text[end:]
            case 7 | 8:
                text = _exchanged(text, chance)
            case _:
                text = writer.truth(chance.randint(0, 5))[0]
    return text[: chance.choice((300, 300, 300, 1000, 1001, 5000))]


def _exchanged(text: str, chance: random.Random) -> str:
    """One piece put in the place of another, or of one from the dictionary."""
    pieces = PIECE.findall(text)
    if pieces:
        pieces[chance.randrange(len(pieces))] = chance.choice([*pieces, *TOKENS])
    return "".join(pieces)


def _flipped(text: str, chance: random.Random) -> str:
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data.decode("utf-8", "surrogateescape")


def fuzz(seconds: float, seed: int = 0) -> Found:
    """Look for that long."""
    writer, found = Writer(seed), Found(corpus=list(SEEDS))
    chance, seen = writer.random, set[tuple[str, int, int, int]]()
    for text in SEEDS:
        seen |= _tried_and_timed(text, found, seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        parent = found.corpus[-1 - int(len(found.corpus) * chance.random() ** 2)]  # rather the latest
        text = mutated(parent, found.corpus, writer)
        ways = _tried_and_timed(text, found, chance.randrange(1000))
        if ways - seen:
            seen |= ways
            found.corpus.append(text)
    found.edges = len({way[:3] for way in seen})
    return found


def _tried_and_timed(text: str, found: Found, seed: int) -> set[tuple[str, int, int, int]]:
    found.inputs += 1
    try:
        took = _time(text, found, seed)
        if took > MOST_S:
            took = min(took, *(_time(text, found, seed) for _ in range(3)))  # once more: another process may disturb
        if took > found.slowest_s:
            found.slowest_s, found.slowest = took, text
        if took > MOST_S:
            found.faults.setdefault("slow", f"{text!r} takes {took:.3f} s")
        return traced(text, seed)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        key = f"{type(error).__name__} at {place.filename}:{place.lineno}"
        found.faults.setdefault(key, f"{text!r}\n{traceback.format_exc()}")
        return set()


def _time(text: str, found: Found, seed: int) -> float:
    chance, start = random.Random(seed), time.thread_time()
    condition = tried(text, chance)
    took = time.thread_time() - start
    found.conditions += condition is not None
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the conditions of breakpoints.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = fuzz(arguments.seconds, arguments.seed)
    print(
        f"{found.inputs} inputs, {found.conditions} of them conditions; {found.edges} edges, {len(found.corpus)} kept; "
        f"the slowest took {found.slowest_s * 1000:.1f} ms: {found.slowest[:200]!r}"
    )
    for place, fault in found.faults.items():
        print(f"\n{place}\n{fault}")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
