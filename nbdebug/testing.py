"""For tests of one's own: that a model can be trained. Any thread; knows the debugger by its method only."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from nbdebug.records.checks import Report
from nbdebug.records.errors import collect
from nbdebug.records.findings import Severity


class Checked(Protocol):
    """What can be checked: a Debugger."""

    def preflight(self, *, skip: str | Collection[str] = (), seconds: float | None = None) -> Report:
        """Make all checks."""


def assert_trainable(
    debugger: Checked,
    *,
    severity: str | Severity = Severity.WARNING,
    skip: str | Collection[str] = (),
    ignore: str | Collection[str] = (),
    seconds: float | None = None,
    json: str | os.PathLike[str] | None = None,
) -> Report:
    """Make all checks before training, and fail if one finds something of this ``severity`` or a worse one.

    Args:
        debugger: the debugger of the program to check; everything in it is as before afterwards.
        severity: ``"info"``, ``"warning"`` or ``"critical"``: from where on a finding makes it fail.
        skip: checks to leave out, by name.
        ignore: causes that are no reason to fail, by name.
        seconds: how long it may take.
        json: a file to write the whole report to, whatever came of it.

    Returns:
        The report.

    Raises:
        AssertionError: says what was found, the most likely cause first.
        ConfigurationError: there is no such severity or check.
    """
    if severity not in list(Severity):
        raise collect([f"severity must be one of {', '.join(Severity)}; got {severity!r}"])
    report = debugger.preflight(skip=skip, seconds=seconds)
    if json is not None:
        Path(json).write_text(report.to_json(), encoding="utf-8")
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    found = [each for each in report.worse_than(Severity(severity)) if each.cause not in ignored]
    if found:
        raise AssertionError(f"{len(found)} of the findings stand against training\n{report}")
    return report
