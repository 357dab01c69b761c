"""Rows made by hand, for the tests of tables and thresholds."""

from __future__ import annotations

from tests.zoo.rows import Checked, Found, Measured, Row


def row(
    program: str = "p", cause: str = "", *named: str, family: str = "mlp", kind: str = "", severity: str = "warning",
    also: tuple[str, ...] = (), checks: tuple[Checked, ...] = (), error: str = "", seconds: float = 1.0,
) -> Row:  # fmt: skip
    """A row that names these causes, in this order."""
    found = tuple(Found(each, severity) for each in named)
    kind = kind or ("fault" if cause else "twin")
    return Row(program, 0, kind, cause, family, also, found, checks, seconds, seconds, error=error)


def check(name: str, cause: str = "", **values: tuple[float, float]) -> Checked:
    """A check with a value and a threshold for each parameter; each speaks for a fault above it."""
    measured = tuple(Measured(key, value, key, threshold) for key, (value, threshold) in values.items())
    return Checked(name, "failed" if cause else "passed", 0.1, measured, (cause,) if cause else ())


def scaled(program: str, family: str, cause: str, value: float, threshold: float = 10.0) -> Row:
    """A row with one check, ``scale``, that goes by one value: what it named is as its threshold says."""
    told = ("scale_error",) if value > threshold else ()
    made = check("scale", told[0] if told else "", scale_most=(value, threshold))
    return row(program, cause, *told, family=family, checks=(made,))
