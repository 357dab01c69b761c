"""Random conditions, each written once for us and once for Python's eval."""

from __future__ import annotations

import random

from tests.breakpoints.cases import LAYER_NAMES, LAYERS, NAMES

Pair = tuple[str, str]  # a condition, and the same for Python's eval
ONE = ("abs", "log", "log10", "log2", "sqrt", "exp")
MANY = ("max", "min", "mean", "median", "sum", "std")


class Writer:
    """Writes a random condition twice; parentheses only now and then, so that precedence decides."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def truth(self, depth: int) -> Pair:
        choice = self.random.random()
        if depth <= 0 or choice < 0.35:
            return self.chain([self.number(depth - 1) for _ in range(self.random.choice((2, 2, 2, 3, 4)))], 6)
        if choice < 0.45:
            name, (ours, python) = self.random.choice(("isnan", "isinf", "isfinite")), self.number(depth - 1)
            return f"{name}({ours})", f"{name}({python})"
        if choice < 0.55:
            return self.chain([wrapped(self.truth(depth - 1)) for _ in range(self.random.choice((2, 3)))], 2)
        if choice < 0.65:
            return joined("not ", self.truth(depth - 1))
        if choice < 0.9:
            word = self.random.choice((" and ", " or "))
            return joined(word.join(["{}"] * 2), self.truth(depth - 1), self.truth(depth - 1))
        return wrapped(self.truth(depth - 1))

    def chain(self, operands: list[Pair], signs: int) -> Pair:
        ours, python = operands[0]
        for other, same in operands[1:]:
            sign = self.random.choice(("==", "!=", "<", "<=", ">", ">=")[:signs])
            ours, python = f"{ours} {sign} {other}", f"{python} {sign} {same}"
        return ours, python

    def number(self, depth: int) -> Pair:
        choice = self.random.random()
        if depth <= 0 or choice < 0.3:
            return self.leaf()
        if choice < 0.45:
            return joined(self.random.choice(("-", "- ", "+")), self.number(depth - 1))
        if choice < 0.8:
            sign = self.random.choice(("+", "-", "*", "/", "%", "**", " ** -"))
            return joined("{}" + sign + "{}", self.number(depth - 1), self.number(depth - 1))
        if choice < 0.9:
            name = self.random.choice(ONE)
            ours, python = self.number(depth - 1)
            return f"{name}({ours})", f"{name}({python})"
        return wrapped(self.number(depth - 1))

    def leaf(self) -> Pair:
        choice, name = self.random.random(), self.random.choice(NAMES)
        length = self.random.choice((1, 2, 5, 10, 11))
        if choice < 0.3:
            literal = self.random.choice(("0", "1", "2", "3.", ".5", "1e-3", "1E+2", "1e400", "inf"))
            return literal, f"F({literal})"
        if choice < 0.6:
            return name, f"now({name!r})"
        if choice < 0.7:
            signal, layer = self.random.choice(LAYER_NAMES), self.random.choice(LAYERS)
            return f"{signal}['{layer}']", f"now({signal!r}, {layer!r})"
        if choice < 0.8:
            function = self.random.choice(MANY)
            return f"{function}({name}, {length})", f"window({function!r}, {name!r}, {length})"
        if choice < 0.85:
            function = self.random.choice(("max", "min", "mean", "median", "sum"))
            return f"{function}(update_ratio)", f"over({function!r}, 'update_ratio')"
        if choice < 0.9:
            function, (ours, python) = self.random.choice(("max", "min")), self.number(1)
            return f"{function}({name}, 1.5, {ours})", f"of({function!r}, now({name!r}), F(1.5), {python})"
        function = self.random.choice(("previous", "change"))
        return f"{function}({name}, {length})", f"{function}({name!r}, {length})"


def joined(form: str, *parts: Pair) -> Pair:
    form = form if "{}" in form else form + "{}"
    return form.format(*(ours for ours, _ in parts)), form.format(*(python for _, python in parts))


def wrapped(pair: Pair) -> Pair:
    return f"({pair[0]})", f"({pair[1]})"
