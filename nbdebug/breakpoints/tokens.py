"""A condition's text cut into numbers, names, quoted layer names and signs; whatever else is in it is refused."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from enum import Enum, auto

from nbdebug.breakpoints.errors import ConditionError, refusal

MOST_CHARACTERS = 1000


class Kind(Enum):
    """What a token is."""

    NUMBER = auto()
    NAME = auto()
    QUOTED = auto()
    SIGN = auto()  # the words and, or, not included
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text, as it stands there; of quoted text what is between the quotes. ``column`` counts from 1."""

    kind: Kind
    text: str
    column: int


_PATTERN = re.compile(
    r"""
      (?P<blank>    [ \t\r\n]+)
    | (?P<NUMBER>   (?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<NAME>     [A-Za-z_][A-Za-z0-9_]*)
    | (?P<QUOTED>   "[^"\\\x00-\x1f]*"|'[^'\\\x00-\x1f]*')
    | (?P<mistaken> ===|!==|&&|\|\||//|<>|=>|=<|->|:=|<<|>>|[-+*/%]=|=(?!=)|!(?!=))
    | (?P<SIGN>     \*\*|<=|>=|==|!=|[-+*/%<>()\[\],])
    """,
    re.VERBOSE,
)

_INSTEAD = {
    "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "~": "not", "=": "==", "===": "==", "!==": "!=",
    "<>": "!=", "=>": ">=", "=<": "<=", "//": "/", "^": "**",
    "≥": ">=", "≤": "<=", "≠": "!=", "−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "∧": "and", "∨": "or",
    "¬": "not", "∞": "inf", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "\xa0": "an ordinary blank",
}  # fmt: skip

_WORDS = {
    "is": "Write == to compare numbers, isnan(x) for NaN.",
    "None": "A value that is not there yet leaves the condition unjudged; for one that is not a number write isnan(x).",
    "true": "Write True.",
    "false": "Write False.",
    "AND": "Write and.",
    "OR": "Write or.",
    "NOT": "Write not.",
    "xor": "Write (a) != (b).",
}
_NO_CODE = "A condition is no Python code: it compares signals, as in loss > 2 * median(loss, 20)."
_OPERATORS = frozenset({"and", "or", "not"})
_STATEMENTS = frozenset(keyword.kwlist) - _OPERATORS - {"True", "False"}


def tokens(text: str) -> list[Token]:
    """The tokens of a condition, an ``END`` behind them; :class:`ConditionError` where there can be none."""
    if len(text) > MOST_CHARACTERS:
        raise refusal(
            text,
            MOST_CHARACTERS + 1,
            f"a condition of {len(text):,} characters is too long",
            f"Write at most {MOST_CHARACTERS:,} characters, or make a breakpoint of each part.",
        )
    found = []
    place = 0
    while place < len(text):
        match = _PATTERN.match(text, place)
        if match is None or match.lastgroup == "mistaken":
            raise _no_token(text, place, match[0] if match else text[place])
        if match.lastgroup != "blank":
            found.append(_token(text, place, match))
        place = match.end()
    return [*found, Token(Kind.END, "", len(text) + 1)]


def _token(text: str, place: int, match: re.Match[str]) -> Token:
    kind, piece = Kind[match.lastgroup or ""], match[0]
    if kind is Kind.NAME:
        _refuse_word(text, place, piece)
        kind = Kind.SIGN if piece in _OPERATORS else kind
    if kind is Kind.NUMBER and re.match(r"[\w.]", text[match.end() :]):
        problem = f"the number {piece} goes on with {_shown(text[match.end()])}"
        raise refusal(text, match.end() + 1, problem, "Write numbers as 5, 0.5, .5 or 1e-3.")
    return Token(kind, piece[1:-1] if kind is Kind.QUOTED else piece, place + 1)


def _refuse_word(text: str, place: int, word: str) -> None:
    if word in _WORDS:
        raise refusal(text, place + 1, f"{word} is no word of conditions", _WORDS[word])
    if word in _STATEMENTS:
        raise refusal(text, place + 1, f"{word} is no word of conditions", _NO_CODE)


def _no_token(text: str, place: int, piece: str) -> ConditionError:
    problem = f"{_shown(piece)} means nothing in a condition"
    advice = _NO_CODE
    if piece in _INSTEAD:
        advice = f"Write {_INSTEAD[piece]} instead."
    elif piece in ("'", '"'):
        problem = "a text in quotes has no end, or has a backslash or control character in it"
        advice = 'Write a layer\'s name plainly, between two quotes of one kind: update_ratio["fc1"].'
    elif piece == ".":
        problem = "a dot reaches into something"
        advice = 'Write signals and functions by name alone: loss, log(loss), update_ratio["fc1"].'
    return refusal(text, place + 1, problem, advice)


def _shown(piece: str) -> str:
    return piece if piece.isascii() and piece.isprintable() else f"the character U+{ord(piece[0]):04X}"
