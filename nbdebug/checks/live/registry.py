"""All live checks: every module of :mod:`nbdebug.checks.live.rules` that has a ``CHECK``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from nbdebug.checks.live import rules
from nbdebug.checks.live.check import LiveCheck
from nbdebug.records.signals import Signal


@cache
def live_checks() -> tuple[LiveCheck, ...]:
    """Every live check, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(rules.__path__))
    modules = [importlib.import_module(f"{rules.__name__}.{name}") for name in names]
    return tuple(module.CHECK for module in modules if hasattr(module, "CHECK"))


def wanted_curves() -> tuple[str, ...]:
    """The curves that some check needs."""
    return tuple(dict.fromkeys(key for check in live_checks() for key in check.curves))


def wanted_signals() -> tuple[Signal, ...]:
    """The signals of layers that some check needs."""
    return tuple(dict.fromkeys(signal for check in live_checks() for signal in check.signals))
