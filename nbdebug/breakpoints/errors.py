"""How a condition is refused: what is wrong, a caret under the place, and what to write instead. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from nbdebug.records.errors import ConfigurationError

WIDTH = 80  # of the text shown
MOST_NAMED = 12


class ConditionError(ConfigurationError):
    """A condition can't be used. ``column`` is the place in its text, from 1; the message points at it."""

    column: int = 1


def refusal(text: str, column: int, problem: str, advice: str) -> ConditionError:
    """The error for ``problem`` at ``column`` of ``text``, followed by what to write instead."""
    start = max(0, column - 1 - WIDTH // 2) if len(text) > WIDTH else 0
    head = "…" if start else ""
    tail = "…" if start + WIDTH < len(text) else ""
    shown = head + printable(text[start : start + WIDTH]) + tail
    caret = " " * (column - 1 - start + len(head)) + "^"
    error = ConditionError(f"{problem}\n    {shown}\n    {caret}\n{advice}")
    error.column = column
    return error


def printable(text: str) -> str:
    """The same with a blank or ``�`` for each character that would not stay in its place on one line."""
    return "".join(
        letter if letter.isprintable() and not 0x0590 <= ord(letter) < 0x0900 else " " if letter.isspace() else "�"
        for letter in text
    )


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Up to three of the known names that ``word`` may be a misspelling of, the likeliest first."""
    names = sorted(set(known))
    same = [name for name in names if name.lower() == word.lower()]
    close = difflib.get_close_matches(word, names, n=3)
    return [*same, *(name for name in close if name not in same)][:3]


def listed(names: Iterable[str]) -> str:
    """The names in a row, the first dozen of many."""
    known = sorted(set(names))
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return (", ".join(printable(name) for name in known[:MOST_NAMED]) or "none") + more
