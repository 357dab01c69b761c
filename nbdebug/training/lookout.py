"""Keeps the watcher looking at the model as it is, and says when somebody edited it. Training thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdebug.records.commands import Watch
from nbdebug.records.findings import Cause, Severity
from nbdebug.records.runs import Mark
from nbdebug.training.inventory import MOST_NAMED, Inventory, edit_since
from nbdebug.training.modules import named_modules, roots
from nbdebug.training.reach import calls_compiled_code

if TYPE_CHECKING:
    from nbdebug.training.session import Session


class Lookout:
    """Knows what a session's model and optimizers were made of when it last looked."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._inventory: Inventory | None = None

    def watch(self, command: Watch) -> str:
        """Measure something else from the next step on; what that is, in words."""
        session = self._session
        session.watcher.choose(command.probes, command.layers)
        session.pacer.budget = command.budget
        self.look_anew()
        probes = command.probes if isinstance(command.probes, str) else ", ".join(command.probes)
        layers = "" if command.layers is None else f" of {', '.join(command.layers)}"
        budget = "at every step" if command.budget is None else f"within {100 * command.budget:g} % of the time"
        return f"watching: {probes}{layers}, {budget}"

    def look_anew(self) -> None:
        """Let the watcher look at the modules and parameter groups that there are now."""
        session = self._session
        groups = [(group.name, group.options) for group in session.knobs.groups]
        compiled = calls_compiled_code(session.trainer)
        modules = named_modules(session.model)
        session.watcher.watch(modules, groups, roots(session.model), compiled_step=compiled)

    def accept(self) -> None:
        """What was just exchanged at somebody's wish is no edit by hand."""
        session = self._session
        self.look_anew()
        if self._inventory is not None:
            self._inventory = Inventory.of(session.model, session.trainer)

    def mind_growth(self) -> None:
        """Before a step is looked into: a step before it may have added to the model or its optimizer."""
        session = self._session
        if self._inventory is not None and self._inventory.differs_from(session.model, session.trainer):
            session.knobs.refresh()
            self.look_anew()
            self.mind_edits()

    def mind_edits(self) -> None:
        """Say what somebody made of the model, or the optimizer, since it was last looked at."""
        session = self._session
        before, self._inventory = self._inventory, Inventory.of(session.model, session.trainer)
        edit = edit_since(before, session.model, session.trainer) if before is not None else None
        if edit is None:
            return
        why = f"Since it was last looked at: {edit.text}. What is measured follows the model as it is now."
        severity = Severity.INFO
        if edit.orphans:
            severity = Severity.WARNING
            names = ", ".join(edit.orphans[:MOST_NAMED])
            why += f" In no optimizer, so never trained: {names}. Add them with optimizer.add_param_group(...)."
        session.find(Cause.MODEL_EDITED, severity, "The model was edited", why)
        session.recorder.mark(Mark(session.timeline.current, session.loop.step, "model edited"))
