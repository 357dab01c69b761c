"""What the user's code raised during a step: the error, its traceback from their own frame on, the batch at hand."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from nbdebug.records.errors import NbdebugError

OWN_CODE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Failure:
    """An error that ended the run. ``exception`` is the original; ``batch`` was worked on, after ``step`` steps.

    ``where`` says in words what was going on, such as "in step 413".
    """

    exception: BaseException
    traceback: str
    batch: Any
    step: int
    where: str

    @classmethod
    def of(cls, error: BaseException, *, batch: Any, step: int, where: str) -> Failure:
        """Keep an error with the frames of ours cut off its front."""
        error.with_traceback(_from_user_frame(error.__traceback__))
        text = "".join(traceback.format_exception(error))
        return cls(error, text, batch, step, where)

    @property
    def title(self) -> str:
        """One line."""
        return f"{type(self.exception).__name__}: {next(iter(str(self.exception).splitlines()), '')}".rstrip(": ")

    @property
    def why(self) -> str:
        """Where it happened and what can be done."""
        whose = "Training could not go on" if isinstance(self.exception, NbdebugError) else "Your code raised this"
        return f"{whose} {self.where}. The model and debugger.current.batch are as the step left them."

    def let_go(self) -> None:
        """Drop what the error's frames still hold, such as activations."""
        traceback.clear_frames(self.exception.__traceback__)


def _from_user_frame(found: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not ours; all of it when every frame is."""
    at = found
    while at is not None and OWN_CODE in Path(at.tb_frame.f_code.co_filename).resolve().parents:
        at = at.tb_next
    return at if at is not None else found
