"""What the debugger has to say about a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nbdebug.records.stops import Origin


class Severity(StrEnum):
    """How much a finding matters: told for completeness, worth a look, or the run is broken."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Cause(StrEnum):
    """Why a finding was made."""

    NAN_LOSS = "nan_loss"
    NUMERICAL_INSTABILITY = "numerical_instability"
    HALF_PRECISION_OVERFLOW = "half_precision_overflow"
    NAN_IN_DATA = "nan_in_data"
    EARLY_STOP = "early_stop"
    BREAKPOINT_DISABLED = "breakpoint_disabled"
    EVAL_MODE_IN_TRAINING = "eval_mode_in_training"
    MODEL_EDITED = "model_edited"
    USER_ERROR = "user_error"
    WATCHING_DISABLED = "watching_disabled"
    NOT_REPRODUCIBLE = "not_reproducible"
    SNAPSHOTS = "snapshots"
    JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause, found at a step of a run, with the evidence in words; ``detail`` may hold a traceback.

    ``origin`` says where a value that is not finite came from.
    """

    cause: Cause
    severity: Severity
    run: str
    step: int
    title: str
    why: str
    detail: str = ""
    origin: Origin | None = None
