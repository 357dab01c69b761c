"""Numbers, durations and names as the dashboard words them. Pure; any thread."""

from __future__ import annotations

import html
import math


def number(value: float) -> str:
    """A measured value in three significant digits: ``0.142``, ``3.0e-3``, ``NaN``, ``inf``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    if 1e-2 <= abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return rate(value)


def rate(value: float) -> str:
    """A quantity on a log scale, one decimal more than its power: ``3.0e-3``."""
    if not math.isfinite(value) or value == 0:
        return "0" if value == 0 else number(value)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def count(value: int) -> str:
    """A whole number with thousands separated: ``2,412``."""
    return f"{value:,}"


def percent(share: float) -> str:
    """A share in per cent: ``3.1 %``."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "–"


def duration(seconds: float) -> str:
    """A clock: ``0:07``, ``1:12``, ``2:03:20``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def about(seconds: float) -> str:
    """A prediction, rounded as one would say it: ``about 21 s``, ``about 4 min``."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def size(size_bytes: int) -> str:
    """Memory or disk space in decimal units: ``812 kB``, ``1.2 MB``, ``14 GB``."""
    value, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:.0f} {unit}"


def plural(amount: int, noun: str) -> str:
    """``1 layer``, ``4 layers``."""
    return f"{count(amount)} {noun}" if amount == 1 else f"{count(amount)} {noun}s"


def plain(text: str) -> str:
    """The text as plotly must be given it to show it literally: plotly reads ``<b>`` and ``&amp;`` as markup."""
    return html.escape(text, quote=False)


def shorten(name: str, width: int = 20) -> str:
    """A long layer name with its middle left out; the ends tell layers apart."""
    if len(name) <= width:
        return name
    head = (width - 1) // 3
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"
