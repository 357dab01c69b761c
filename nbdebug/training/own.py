"""What the user adds of their own: buttons, and functions for the end of an epoch. Their knobs: :mod:`.own_knob`."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nbdebug.records.errors import CommandError
from nbdebug.records.findings import Cause, Severity
from nbdebug.records.frames import Frame
from nbdebug.records.runs import OutsideEdit
from nbdebug.records.signals import Series, Signal
from nbdebug.records.snapshots import Reason
from nbdebug.records.view import OwnPanel
from nbdebug.training.modules import modes, restore_modes
from nbdebug.training.rng import preserved

if TYPE_CHECKING:
    from nbdebug.training.session import Session

LONGEST_TEXT = 20_000


class Own:
    """Buttons and functions of one session, by name. Added on any thread, run on the training thread."""

    def __init__(self, session: Session) -> None:
        self.buttons: dict[str, Callable[[], Any]] = {}
        self.functions: dict[str, Callable[[], Any]] = {}
        self.panels: dict[str, OwnPanel] = {}
        self._session = session

    def press(self, name: str) -> str:
        """Run what is behind a button, at a safe point; what it did can't be repeated, so its outcome is kept.

        Raises:
            CommandError: there is no such button.
        """
        session = self._session
        if name not in self.buttons:
            raise CommandError(f"no button {name!r}: there are {', '.join(map(repr, self.buttons)) or 'none'}")
        session.ensure_started()
        session.course.make_ready(name)
        try:
            with session.turns:
                result = self.buttons[name]()
        finally:  # it may have changed something before it raised an error
            session.knobs.refresh()
            session.lookout.accept()
            session.course.intervene(OutsideEdit(f"the button {name!r} was pressed"), name)
            session.course.take(Reason.OUTSIDE)
        return f"{name}: {result}" if result is not None else f"{name}: done"

    def epoch_ended(self) -> None:
        """Run every function; random states and modes are as before, and one that raises is taken out."""
        session = self._session
        for name, function in list(self.functions.items()):
            try:
                with session.turns:
                    result = self._undisturbed(function)
                self._show(name, result)
            except Exception:  # the user's function may raise anything; training goes on without it
                del self.functions[name]
                why = (
                    f"{name!r} raised an error at the end of epoch {session.loop.epoch:,} and will not be called again."
                )
                title = f"{name} is off"
                session.find(Cause.WATCHING_DISABLED, Severity.WARNING, title, why, traceback.format_exc())

    def _undisturbed(self, function: Callable[[], Any]) -> Any:
        flags, cursor = modes(self._session.model), self._session.loop.cursor
        generators = cursor.generator_states()
        try:
            with preserved(), torch.no_grad():
                return function()
        finally:
            cursor.set_generators(generators)
            restore_modes(flags)

    def _show(self, name: str, result: Any) -> None:
        session = self._session
        number = _number(result)
        if number is not None:
            scalars = ((Series(Signal.METRIC, name), number),)
            session.recorder.record(Frame(session.timeline.current, session.loop.step, session.loop.epoch, scalars))
        picture = _picture(result)
        text = "" if picture or result is None else str(result)[:LONGEST_TEXT]
        if picture or text:
            self.panels[name] = OwnPanel(name, session.loop.epoch, text, picture)


def _number(result: Any) -> float | None:
    if isinstance(result, (torch.Tensor, np.ndarray)) and np.prod(tuple(result.shape)) == 1:
        return float(result)
    is_number = isinstance(result, (int, float, np.number)) and not isinstance(result, bool)
    return float(result) if is_number else None


def _picture(result: Any) -> bytes:
    """A figure, an image or an array of one as PNG; empty for anything else."""
    if isinstance(result, bytes) and result.startswith(b"\x89PNG"):
        return result
    file = io.BytesIO()
    if callable(getattr(result, "savefig", None)):
        result.savefig(file, format="png", bbox_inches="tight")
    elif callable(getattr(result, "save", None)) and hasattr(result, "mode"):
        result.save(file, format="PNG")
    return file.getvalue()
