"""nbdebug: a debugger for neural-network training, in the notebook.

The names are imported when they are first used, so that ``from nbdebug import Journal`` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbdebug.debugger import Debugger
    from nbdebug.debugger_journal import Journal
    from nbdebug.records.commands import ClipMode, InitScheme
    from nbdebug.records.comparison import Verdict
    from nbdebug.records.errors import ClosedError, CommandError, ConfigurationError, FileFormatError, NbdebugError
    from nbdebug.records.status import State
    from nbdebug.training.trainer import Trainer

__version__ = "0.1.0"

_HOMES = {
    "ClipMode": "records.commands",
    "ClosedError": "records.errors",
    "CommandError": "records.errors",
    "ConfigurationError": "records.errors",
    "Debugger": "debugger",
    "FileFormatError": "records.errors",
    "InitScheme": "records.commands",
    "Journal": "debugger_journal",
    "NbdebugError": "records.errors",
    "State": "records.status",
    "Trainer": "training.trainer",
    "Verdict": "records.comparison",
}

__all__ = [
    "ClipMode",
    "ClosedError",
    "CommandError",
    "ConfigurationError",
    "Debugger",
    "FileFormatError",
    "InitScheme",
    "Journal",
    "NbdebugError",
    "State",
    "Trainer",
    "Verdict",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
