"""The origin of a value that is not finite, as its finding's card shows it. Pure; drawing thread.

All texts are finished, and plain: names and code are the user's, and the browser writes them as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nbdebug.dashboard import words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.stops import CodeLine, Origin, Phase, Range

MOST_ROWS = 12
MOST_SAMPLES = 12
LONGEST_CODE = 400
BACKSLASH = "\\"
PHASES = {
    Phase.BEFORE: "there before the step, in",
    Phase.FORWARD: "in the forward of",
    Phase.BACKWARD: "in the backward of",
    Phase.CLIPPING: "in the clipping of",
    Phase.OPTIMIZER: "in the optimizer's update of",
}
NOWHERE = {
    Phase.BEFORE: "there before the step",
    Phase.FORWARD: "in the forward, outside of the model",
    Phase.BACKWARD: "in the backward, outside of the model",
    Phase.CLIPPING: "in the clipping",
    Phase.OPTIMIZER: "in the optimizer's update",
}
_CELL = re.compile(r"[/\\]ipykernel_\d+[/\\]\d+\.py$|^<ipython-input-")


def state(origin: Origin | None) -> Json:
    """What the card shows; ``None`` without an origin."""
    if origin is None:
        return None
    crumbs = path(origin)
    return {
        "phase": (PHASES if crumbs or origin.source else NOWHERE)[origin.phase],
        "path": crumbs,
        "type": origin.module_type,
        "source": origin.source,
        "operation": origin.operation,
        "lines": [line for line in (_line(origin.line, ""), _line(origin.inner_line, "in your backward")) if line],
        "tables": [
            {"title": title, "rows": [_row(each) for each in ranges[:MOST_ROWS]], "more": _more(ranges)}
            for title, ranges in (("inputs", origin.inputs), ("parameters", origin.parameters))
            if ranges
        ],
        "samples": samples(origin.samples),
        "advice": origin.advice,
    }


def path(origin: Origin) -> list[list[str]]:
    """The modules from the outermost on, each as a short name and the whole one: what it adds to the one before.

    ``blocks.3`` within ``blocks`` keeps both parts, as a number alone says nothing.
    """
    names = origin.path or ((origin.module,) if origin.module or origin.module_type else ())
    if not names:
        return []
    crumbs, before = [["model", "the model itself"]], ""
    for name in names:
        if not name:
            continue
        added = name[len(before) + 1 :] if before and name.startswith(f"{before}.") else name
        if added.isdigit() and before:
            added = f"{before.rpartition('.')[2]}.{added}"
        crumbs.append([added, name])
        before = name
    return crumbs


def place(line: CodeLine) -> str:
    """``train.py:12``, or ``notebook cell, line 12``."""
    if _CELL.search(line.file):
        return f"notebook cell, line {line.line}"
    return f"{line.file.replace(BACKSLASH, '/').rpartition('/')[2]}:{line.line}"


def samples(indices: Sequence[int]) -> str:
    """``samples 3, 17 of the batch``."""
    if not indices:
        return ""
    shown = ", ".join(words.count(index) for index in indices[:MOST_SAMPLES])
    more = f" and {words.count(len(indices) - MOST_SAMPLES)} more" if len(indices) > MOST_SAMPLES else ""
    return f"sample{'s' if len(indices) > 1 else ''} {shown}{more} of the batch"


def _line(line: CodeLine | None, label: str) -> Json:
    if line is None:
        return None
    code = line.code if len(line.code) <= LONGEST_CODE else line.code[:LONGEST_CODE] + "…"
    return {
        "label": label,
        "where": place(line),
        "function": "" if line.function in ("", "<module>") else line.function,
        "file": line.file,
        "code": code,
    }


def _row(each: Range) -> Json:
    """A tensor: its name, shape, range, how much of it is special, and whether any of that is bad."""
    counts = ((each.nans, "NaN"), (each.infs, "inf"), (each.zeros, "0"))
    return {
        "name": each.name,
        "shape": "×".join(map(str, each.shape)) or "scalar",
        "dtype": each.dtype,
        "range": spread(each.low, each.high),
        "special": [
            [f"{words.count(amount)} {_zeros(amount) if word == '0' else word}", word != "0"]
            for amount, word in counts
            if amount
        ],
        "bad": bool(each.nans or each.infs),
    }


def spread(low: float, high: float) -> str:
    """``-2.1 … 2.6``; one number where both are the same, a dash where nothing was finite."""
    texts = [words.number(value) for value in (low, high)]
    if "NaN" in texts:
        return "–"
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} … {texts[1]}"


def _zeros(amount: int) -> str:
    return "zero" if amount == 1 else "zeros"


def _more(ranges: Sequence[Range]) -> str:
    return f"and {words.count(len(ranges) - MOST_ROWS)} more" if len(ranges) > MOST_ROWS else ""
