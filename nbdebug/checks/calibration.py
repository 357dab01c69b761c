"""How sure a finding is, by how often such findings turned out right on programs whose faults are known. Pure.

A rule says how sure it is; ``calibration.json`` beside this file says what that was worth. It holds one rising curve
for all rules, and for each cause by how much it was right more or less often than that. Of causes that were seen
seldom, little is made; one never seen is at most as sure as its rule. Nothing is ever certain.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("calibration.json")
DOUBT = 4.0  # how many findings of a cause weigh as much as what its rule says


@dataclass(frozen=True, slots=True)
class Known:
    """Of a cause: how many findings were judged, and by how much they were surer than others, in log odds."""

    count: int
    shift: float


@dataclass(frozen=True)
class Calibration:
    """``stated`` confidences, rising, with the share of ``right`` ones among such findings; and what sets causes apart.

    ``most`` is the highest confidence there is.
    """

    stated: tuple[float, ...]
    right: tuple[float, ...]
    most: float
    causes: Mapping[str, Known] = field(default_factory=dict)

    def __call__(self, cause: str, stated: float) -> float:
        """The share of findings of this cause and this stated confidence that are right."""
        usual = min(self.usual(stated), self.most)
        careful = min(stated, usual)
        known = self.causes.get(cause)
        if known is None:
            return careful
        own = min(probability(log_odds(usual) + known.shift), self.most)
        return (known.count * own + DOUBT * careful) / (known.count + DOUBT)

    def usual(self, stated: float) -> float:
        """The same over all causes."""
        return float(np.interp(stated, self.stated, self.right))

    def to_json(self) -> str:
        """As the file has it."""
        causes = {name: [known.count, round(known.shift, 4)] for name, known in sorted(self.causes.items())}
        numbers = {"stated": _rounded(self.stated), "right": _rounded(self.right), "most": round(self.most, 4)}
        return json.dumps({**numbers, "causes": causes}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """What :meth:`to_json` wrote."""
        read = json.loads(text)
        causes = {name: Known(int(count), float(shift)) for name, (count, shift) in read["causes"].items()}
        return cls(tuple(read["stated"]), tuple(read["right"]), float(read["most"]), causes)


@cache
def shipped() -> Calibration:
    """What comes with the package."""
    return Calibration.from_json(FILE.read_text(encoding="utf-8"))


def log_odds(probability: float) -> float:
    """Of a probability; finite, however near to 0 or 1 it is."""
    bounded = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))


def probability(log_odds: float) -> float:
    """The inverse of :func:`log_odds`."""
    return 1 / (1 + math.exp(-log_odds))


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 4) for value in values]
