"""Student's t distribution (1908). Pure numbers; any thread.

With t = sqrt(freedom) tan(angle) the density becomes cos(angle) ** (freedom - 1), which is integrated numerically.
"""

from __future__ import annotations

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)


def two_sided_p(t: float, freedom: float) -> float:
    """The chance of a value at least as far from 0 as ``t``; ``freedom`` 1 or more."""
    angle = math.atan2(math.sqrt(freedom), abs(t))  # counted from the far end, so that small chances keep their digits
    area = 0.5 * angle * float(_WEIGHTS @ np.sin(0.5 * angle * (_NODES + 1)) ** (freedom - 1))
    whole = 0.5 * math.sqrt(math.pi) * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return min(1.0, area / whole)


def cumulative(t: float, freedom: float) -> float:
    """The chance of a value up to ``t``."""
    tail = two_sided_p(t, freedom) / 2
    return 1 - tail if t > 0 else tail


def quantile(probability: float, freedom: float) -> float:
    """The t that a share ``probability`` (0.5 to below 1) of all values stays under, by bisection of the angle."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        under = cumulative(math.sqrt(freedom) * math.tan(middle), freedom) < probability
        low, high = (middle, high) if under else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)
