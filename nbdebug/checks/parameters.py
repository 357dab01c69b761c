"""The numbers that checks go by, in one table that can be read and changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a check goes by, ``what`` it is in words, and the range in which it means something."""

    name: str
    value: float
    what: str
    low: float = 0.0
    high: float = math.inf


class Parameters(Mapping[str, float]):
    """Parameters by name, each as shipped or as changed; prints as a table."""

    def __init__(self, known: Iterable[Parameter], changed: Mapping[str, float] | None = None) -> None:
        self.known = {parameter.name: parameter for parameter in known}
        self.changed = dict(changed or {})

    def __getitem__(self, name: str) -> float:
        return self.changed.get(name, self.known[name].value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def mistakes(self, changes: Any) -> list[str]:
        """What can't be changed that way, each as a sentence."""
        if not isinstance(changes, Mapping):
            return [f"parameters must be a mapping of name to number; got a {type(changes).__name__}"]
        return [line for name, value in changes.items() for line in self._mistakes_in(name, value)]

    def _mistakes_in(self, name: Any, value: Any) -> list[str]:
        if name not in self.known:
            near = [each for each in self.known if isinstance(name, str) and (name in each or each in name)]
            hint = f": did you mean {', '.join(near[:3])}?" if near else ": print(debugger.check_parameters) lists them"
            return [f"there is no parameter {name!r}{hint}"]
        known = self.known[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            return [f"{name} must be a number; got {value!r}"]
        if not known.low <= value <= known.high:
            return [f"{name} must lie between {known.low:g} and {known.high:g}; got {value!r}"]
        return []

    def __str__(self) -> str:
        width = max((len(name) for name in self.known), default=0)
        return "\n".join(
            f"{name:<{width}}  {self[name]:<10g} {parameter.what}" + (" (changed)" if name in self.changed else "")
            for name, parameter in sorted(self.known.items())
        )

    __repr__ = __str__
