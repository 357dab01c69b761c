"""What is wrong with a number, in words. Pure."""

from __future__ import annotations

import math
from typing import Any


def number_mistakes(name: str, value: Any, low: float, high: float) -> list[str]:
    """Why a value is no number from ``low`` to below ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return [f"{name} must be a number, not {value!r}"]
    if not (low <= value < high):
        end = f" and below {high:g}" if math.isfinite(high) else ", finite"
        return [f"{name}={value!r} is out of range: it must be at least {low:g}{end}"]
    return []
