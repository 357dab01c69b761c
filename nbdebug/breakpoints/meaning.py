"""From the tree of a condition to what judges it: each part is a number or a truth. Pure."""

from __future__ import annotations

import numpy as np

from nbdebug.breakpoints import moment as at
from nbdebug.breakpoints.errors import ConditionError, refusal
from nbdebug.breakpoints.known import Known
from nbdebug.breakpoints.moment import ALL_LAYERS, LONGEST_WINDOW, Maybe, Moment, Reading, Verdict
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


class Meaning:
    """What the parts of one condition mean. ``windows`` gathers what was read, and how far back."""

    def __init__(self, known: Known) -> None:
        self._text = known.text
        self._known = known
        self.windows: dict[Reading, int] = {}

    def truth(self, node: Node) -> Verdict:
        """What says whether ``node`` holds; refused where it is a number."""
        match node:
            case Truth(value=value):
                return lambda moment: value
            case Not(operand=operand):
                return _negated(self.truth(operand))
            case Joined(word=word, operands=operands):
                return _joined(word, [self.truth(operand) for operand in operands])
            case Comparison():
                return self._comparison(node)
            case Call(function=function) if function in at.TESTS:
                return _tested(function, self._only_argument(node))
        self.number(node)  # first what is wrong within it
        written = node.name if isinstance(node, Name) else "loss"
        raise self._refusal(node, "this is a number, not something that holds or doesn't",
                            f"Compare it with something: {written} > 5.")  # fmt: skip

    def number(self, node: Node) -> Maybe:
        """What gives the value of ``node``; refused where it is True or False."""
        match node:
            case Number(literal=literal):
                return at.constant(float(literal))
            case Negative(operand=operand):
                return at.applied(np.negative, self.number(operand))
            case Arithmetic(sign=sign, left=left, right=right):
                return at.applied(at.ARITHMETIC[sign], self.number(left), self.number(right))
            case Name() | OfLayer():
                reading = self._reading(node, 0)
                return lambda moment: moment.present(reading)
            case Call() if node.function not in at.TESTS:
                return self._called(node)
        raise self._refusal(node, "this is True or False, not a number",
                            "Write a number or a signal here; join conditions by and, or.")  # fmt: skip

    def _comparison(self, node: Comparison) -> Verdict:
        for left, right in zip(node.operands, node.operands[1:], strict=False):
            if left == right:
                raise self._refusal(left, "this compares something with itself",
                                    "Compare two things; to find NaN write isnan(loss).")  # fmt: skip
        if all(_is_truth(operand) for operand in node.operands) and {*node.signs} <= {"==", "!="}:
            return at.compared(node.signs, [self.truth(operand) for operand in node.operands])
        numbers = [self.number(operand) for operand in node.operands]
        for operand, number in zip(node.operands, numbers, strict=True):
            value = number(at.NOTHING)
            if value is not None and np.isnan(value):
                raise self._refusal(operand, "nothing compares with NaN", "To find NaN write isnan(loss).")
        return at.compared(node.signs, numbers)

    def _called(self, node: Call) -> Maybe:
        function, count = node.function, len(node.arguments)
        if function in at.OF_ONE:
            return at.applied(at.OF_ONE[function], self._only_argument(node))
        if function in at.EARLIER:
            return self._earlier(node)
        if function not in at.OF_MANY:
            raise self._known.no_function(node)
        if count == 1:
            return self._over_layers(node)
        if count == 2 and (function not in ("min", "max") or _is_window(node)):
            length = self._whole(node, LONGEST_WINDOW)
            return at.window(at.OF_MANY[function], self._past(node, length), length)
        if count < 2 or function not in ("min", "max"):
            raise self._refusal(node, f"{function} does not take {count} arguments", _HOW[function])
        numbers = [self.number(argument) for argument in node.arguments]
        return at.applied(lambda *values: at.OF_MANY[function](values), *numbers)

    def _only_argument(self, node: Call) -> Maybe:
        if len(node.arguments) != 1:
            raise self._refusal(node, f"{node.function} takes one number", f"Write {node.function}(loss).")
        return self.number(node.arguments[0])

    def _earlier(self, node: Call) -> Maybe:
        if len(node.arguments) not in (1, 2):
            raise self._refusal(node, f"{node.function} does not take {len(node.arguments)} arguments",
                                _HOW[node.function])  # fmt: skip
        back = self._whole(node, LONGEST_WINDOW) if len(node.arguments) == 2 else 1
        reading = self._past(node, back)
        before = at.earlier(reading, back)
        return before if node.function == "previous" else at.applied(np.subtract, _present(reading), before)

    def _over_layers(self, node: Call) -> Maybe:
        (argument,) = node.arguments
        if node.function in at.OVER_LAYERS and isinstance(argument, Name) and argument.name in self._known.layer_names:
            self.windows.setdefault(Reading(argument.name, ALL_LAYERS), 0)
            return at.over_layers(at.OF_MANY[node.function], argument.name)
        if isinstance(argument, Name | OfLayer):
            self._reading(argument, 0)
        raise self._refusal(node, f"{node.function} has nothing to go over", _HOW[node.function])

    def _whole(self, node: Call, most: int) -> int:
        """The last argument, the length of a window."""
        last = node.arguments[-1]
        length = int(last.literal) if isinstance(last, Number) and last.literal.isdigit() else 0
        if not 1 <= length <= most:
            raise self._refusal(last, f"the past goes back a whole number of values, from 1 to {most:,}",
                                _HOW[node.function])  # fmt: skip
        return length

    def _past(self, node: Call, length: int) -> Reading:
        """The first argument, whose past is read."""
        first = node.arguments[0]
        if not isinstance(first, Name | OfLayer):
            self.number(first)
            raise self._refusal(first, "only the past of a single signal is kept", _HOW[node.function])
        return self._reading(first, length)

    def _reading(self, node: Name | OfLayer, back: int) -> Reading:
        reading = self._known.reading(node)
        self.windows[reading] = max(back, self.windows.get(reading, 0))
        return reading

    def _refusal(self, node: Node, problem: str, advice: str) -> ConditionError:
        return refusal(self._text, node.column, problem, advice)


_HOW = {
    **{name: f"Write {name}(loss, 20) for the 20 values before, {name}(update_ratio) over all layers."
       for name in at.OVER_LAYERS},
    **{name: f"Write {name}(loss, 20) for the 20 values before, {name}(update_ratio) over all layers, "
       f"{name}(loss, 5.0) for the {name}imum of two numbers." for name in ("max", "min")},
    "std": "Write std(loss, 20) for the 20 values before.",
    "previous": "Write previous(loss) for the value before, previous(loss, 3) for the third before.",
    "change": "Write change(loss, 3) for loss less what it was 3 values before.",
}  # fmt: skip


def _is_truth(node: Node) -> bool:
    return isinstance(node, Truth | Not | Joined | Comparison) or (isinstance(node, Call) and node.function in at.TESTS)


def _is_window(node: Call) -> bool:
    """Whether min or max of two is that of the past: of a reading, over a whole number."""
    first, last = node.arguments
    last = last.operand if isinstance(last, Negative) else last
    return isinstance(first, Name | OfLayer) and isinstance(last, Number) and last.literal.isdigit()


def _present(reading: Reading) -> Maybe:
    return lambda moment: moment.present(reading)


def _negated(operand: Verdict) -> Verdict:
    def holds(moment: Moment) -> bool | None:
        known = operand(moment)
        return None if known is None else not known

    return holds


def _joined(word: str, operands: list[Verdict]) -> Verdict:
    together = at.all_of if word == "and" else at.any_of
    return lambda moment: together(operand(moment) for operand in operands)


def _tested(function: str, operand: Maybe) -> Verdict:
    def holds(moment: Moment) -> bool | None:
        value = operand(moment)
        return None if value is None else bool(at.TESTS[function](value))

    return holds
