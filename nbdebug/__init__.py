"""nbdebug: a debugger for neural-network training, in the notebook."""

from nbdebug.debugger import Debugger
from nbdebug.records.commands import ClipMode, InitScheme
from nbdebug.records.errors import ClosedError, CommandError, ConfigurationError, NbdebugError
from nbdebug.records.status import State
from nbdebug.training.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "ClipMode",
    "ClosedError",
    "CommandError",
    "ConfigurationError",
    "Debugger",
    "InitScheme",
    "NbdebugError",
    "State",
    "Trainer",
]
