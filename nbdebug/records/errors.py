"""The errors that nbdebug raises on purpose.

NbdebugError
├── ConfigurationError   what was given can't work: a model, loader, loss or knob value (also a ValueError)
├── CommandError         a command was refused or could not be carried out in the present state
├── FileFormatError      a file is no snapshot or journal of ours, is damaged, or is newer than this version
└── ClosedError          the debugger was closed
"""

from __future__ import annotations


class NbdebugError(Exception):
    """Base of all errors raised by nbdebug itself; errors from the user's own code pass through unchanged."""


class ConfigurationError(NbdebugError, ValueError):
    """What was given can't work. The message lists every mistake found, and what to write instead."""


class CommandError(NbdebugError):
    """A command was refused, such as a rerun with nothing to go back to."""


class FileFormatError(NbdebugError):
    """A file can't be read: it is no snapshot or journal of nbdebug, is damaged, or was written by a newer version."""


class ClosedError(NbdebugError):
    """The debugger was closed; make a new one to go on."""


def collect(mistakes: list[str]) -> ConfigurationError:
    """One error for all mistakes, a line each."""
    return ConfigurationError(mistakes[0] if len(mistakes) == 1 else "\n".join(f"- {line}" for line in mistakes))
