"""Remedies that several live checks offer."""

from __future__ import annotations

from nbdebug.checks.live.window import Window
from nbdebug.records.commands import Changes, SetKnobs
from nbdebug.records.findings import Remedy


def slower(window: Window) -> tuple[Remedy, ...]:
    """A tenth of the learning rate in force; nothing where that is not known, or zero."""
    rates = window.curve("lr").values
    if not len(rates) or not rates[-1] > 0:
        return ()
    lower = float(f"{rates[-1] / 10:.2g}")
    return (Remedy(f"Set the learning rate to {lower:g}.", command=SetKnobs(Changes(lr=lower))),)
