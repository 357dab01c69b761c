"""All checks before training: every module of :mod:`nbdebug.checks.preflight.rules` that has a ``CHECK``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from nbdebug.checks.check import Check
from nbdebug.checks.parameters import Parameter, Parameters
from nbdebug.checks.preflight import rules

GENERAL = (
    Parameter("preflight_seconds", 10.0, "how long the battery may take, in seconds", 0.1),
    Parameter("preflight_samples", 2_048, "samples that are drawn from the training loader", 1),
)


@cache
def checks() -> tuple[Check, ...]:
    """Every check, in the order in which they are made."""
    found: list[Check] = []
    for info in sorted(pkgutil.iter_modules(rules.__path__), key=lambda each: each.name):
        module = importlib.import_module(f"{rules.__name__}.{info.name}")
        if (check := getattr(module, "CHECK", None)) is not None:
            found.append(check)
    return tuple(sorted(found, key=lambda check: (check.late, not check.passive)))


def table(changed: dict[str, float] | None = None) -> Parameters:
    """The parameters of all checks."""
    known = [*GENERAL, *(parameter for check in checks() for parameter in check.parameters)]
    names = [parameter.name for parameter in known]
    assert len(names) == len(set(names)), f"two parameters share a name: {sorted(names)}"
    return Parameters(known, changed)
