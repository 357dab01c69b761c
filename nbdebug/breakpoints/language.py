"""The grammar of conditions: from text to a tree, with Python's precedence and chained comparisons. Pure.

    condition   and, or, not, True, False, parentheses; a < b <= c, also > >= == !=; isnan(x), isinf(x), isfinite(x)
    number      5, 1e-3, inf, nan; + - * / % **; abs, log, log10, log2, sqrt, exp; min(x, y, …), max(x, y, …)
    reading     loss; update_ratio["blocks.2"]
    all layers  max(update_ratio); also min, mean, median, sum
    the past    median(loss, 20): of the 20 values before this one; also mean, min, max, std, sum;
                previous(loss), previous(loss, 3): the one before, the third before; change(loss, 3): the gain since

``max(loss, 5)``, a reading and a whole number, is a window; the greater of the two is ``max(loss, 5.0)``.
The parser goes at most ``MOST_NESTED`` calls deep and makes at most ``MOST_NODES`` nodes, so no text costs much.
"""

from __future__ import annotations

from nbdebug.breakpoints.errors import ConditionError, refusal
from nbdebug.breakpoints.tokens import Kind, Token, tokens
from nbdebug.breakpoints.tree import (
    Arithmetic,
    Call,
    Comparison,
    Joined,
    Name,
    Negative,
    Node,
    Not,
    Number,
    OfLayer,
    Truth,
)

MOST_NESTED = 50
MOST_NODES = 200
COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _SIGN, _POWER = range(1, 9)
_STRENGTH = {
    "or": _OR, "and": _AND, **dict.fromkeys(COMPARISONS, _COMPARISON), "+": _SUM, "-": _SUM,
    "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT, "**": _POWER,
}  # fmt: skip


def parse(text: str) -> Node:
    """The tree of a condition; :class:`ConditionError` where it is none."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._place = 0
        self._nested = 0
        self._nodes = 0

    def whole(self) -> Node:
        if self._tokens[0].kind is Kind.END:
            raise refusal(self._text, 1, "the condition is empty", "Write what training should stop at: loss > 5.")
        node = self._expression(_OR)
        if self._next.kind is not Kind.END:
            raise self._left_over(self._next)
        return node

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _take(self) -> Token:
        token = self._next
        self._place += token.kind is not Kind.END
        return token

    def _is(self, *signs: str) -> bool:
        return self._next.kind is Kind.SIGN and self._next.text in signs

    def _expression(self, weakest: int) -> Node:
        """All that is joined by signs at least as strong as ``weakest``."""
        self._nested += 1
        if self._nested > MOST_NESTED:
            advice = f"Nest at most {MOST_NESTED} deep, or make a breakpoint of each part."
            raise refusal(self._text, self._next.column, "the condition is nested too deeply", advice)
        node = self._prefixed(weakest)
        while self._next.kind is Kind.SIGN and _STRENGTH.get(self._next.text, 0) >= weakest:
            node = self._counted(self._joined(node))
        self._nested -= 1
        return node

    def _counted(self, node: Node) -> Node:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            advice = f"Write at most {MOST_NODES} numbers, names and signs, or make a breakpoint of each part."
            raise refusal(self._text, node.column, "the condition has too many parts", advice)
        return node

    def _joined(self, left: Node) -> Node:
        sign = self._next.text
        strength = _STRENGTH[sign]
        if strength == _POWER:
            return Arithmetic(left.column, self._take().text, left, self._expression(_SIGN))
        if strength > _COMPARISON:
            return Arithmetic(left.column, self._take().text, left, self._expression(strength + 1))
        among = COMPARISONS if strength == _COMPARISON else (sign,)
        signs, operands = [], [left]
        while self._is(*among):
            signs.append(self._take().text)
            operands.append(self._expression(strength + 1))
        if strength == _COMPARISON:
            return Comparison(left.column, tuple(operands), tuple(signs))
        return Joined(left.column, sign, tuple(operands))

    def _prefixed(self, weakest: int) -> Node:
        if self._is("not"):
            if weakest > _NOT:
                raise refusal(
                    self._text, self._next.column, "not stands behind a sign", "Write (not …) in parentheses."
                )
            return self._counted(Not(self._take().column, self._expression(_NOT)))
        if self._is("-"):
            return self._counted(Negative(self._take().column, self._expression(_SIGN)))
        if self._is("+"):
            self._take()
            return self._expression(_SIGN)
        return self._single()

    def _single(self) -> Node:
        token = self._take()
        if token.kind is Kind.NUMBER:
            return self._counted(Number(token.column, token.text))
        if token.kind is Kind.NAME:
            return self._counted(self._named(token))
        if token.kind is Kind.SIGN and token.text == "(":
            node = self._expression(_OR)
            self._close(")", token)
            return node
        raise self._no_value(token)

    def _named(self, token: Token) -> Node:
        if token.text in ("True", "False"):
            return Truth(token.column, token.text == "True")
        if token.text in ("inf", "nan"):
            return Number(token.column, token.text)
        if self._is("("):
            return Call(token.column, token.text, self._arguments(self._take()))
        return self._of_layer(token, self._take()) if self._is("[") else Name(token.column, token.text)

    def _arguments(self, opening: Token) -> tuple[Node, ...]:
        found = []
        while not self._is(")"):
            found.append(self._expression(_OR))
            if not self._is(","):
                break
            self._take()
        self._close(")", opening)
        return tuple(found)

    def _of_layer(self, name: Token, opening: Token) -> Node:
        if self._next.kind is not Kind.QUOTED:
            advice = f'Write a layer\'s name in quotes between the brackets: {name.text}["fc1"].'
            raise refusal(self._text, self._next.column, "there is no layer's name here", advice)
        layer = self._take()
        self._close("]", opening)
        return OfLayer(name.column, name.text, layer.text, layer.column)

    def _close(self, sign: str, opening: Token) -> None:
        if self._next.kind is Kind.END:
            raise refusal(
                self._text, opening.column, f"this {opening.text} is never closed", f"Write {sign} behind it."
            )
        if not self._is(sign):
            raise self._left_over(self._next)
        self._take()

    def _no_value(self, token: Token) -> ConditionError:
        problem = f"there is no number or signal before {token.text}" if token.text else "the condition breaks off"
        advice = "Write a number or a signal here, as in loss > 5."
        if token.kind is Kind.QUOTED:
            problem = "a text in quotes stands where a number or a signal should"
            advice = 'Write text only as a layer\'s name: update_ratio["fc1"].'
        return refusal(self._text, token.column, problem, advice)

    def _left_over(self, token: Token) -> ConditionError:
        problem, advice = f"{token.text} does not follow from what is before it", "Join conditions by and, or."
        if token.kind is Kind.QUOTED:
            return self._no_value(token)
        if token.text in (")", "]"):
            problem, advice = f"this {token.text} closes nothing", "Take it away, or write what opens it."
        elif token.text in ("[", "("):
            problem = f"{token.text} stands behind something that is no name"
            advice = 'Brackets follow a signal, update_ratio["fc1"]; parentheses a function, abs(loss).'
        elif token.text == ",":
            problem, advice = "a comma separates nothing here", "Write commas only within a function: max(loss, 20)."
        return refusal(self._text, token.column, problem, advice)
