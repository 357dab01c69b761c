"""A dashboard on a page without a kernel, whose view a test changes, and the commands that are asked for on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from playwright.sync_api import Browser, Locator

from nbdebug.records.commands import Command, Outcome
from nbdebug.records.status import State
from nbdebug.records.view import View
from tests.browser.bare_page import BarePage
from tests.dashboard import views


class Scene:
    """A page whose view can be changed; ``tab`` is opened on it."""

    def __init__(self, browser: Browser, *, tab: str = "", **options: Any) -> None:
        base = views.forest()
        self.view: View = replace(base, status=replace(base.status, state=State.PAUSED))
        self.page = BarePage(browser, lambda _: self.view, **options)
        self._tab = tab

    def open(self) -> None:
        """Put it on the screen."""
        self.page.__enter__()
        if self._tab:
            self.get("tab", self._tab).click()
        self.page.pump(0.5)

    def show(self, **changes: Any) -> None:
        self.view = replace(self.view, **changes)
        self.page.pump(0.7)

    def answer(self, command: Command, text: str, *, ok: bool) -> None:
        """What became of a command."""
        self.show(outcomes=(*self.view.outcomes, Outcome(command, "main", 400, ok, text)))

    def get(self, role: Any, name: str) -> Locator:
        return self.page.root.get_by_role(role, name=name, exact=True)

    def asked(self) -> object:
        """The latest command."""
        self.page.pump(0.3)
        return self.page.commands[-1] if self.page.commands else None


@contextmanager
def closing(opened: Sequence[Scene]) -> Iterator[None]:
    """Afterwards these are closed, and none must have had an error."""
    yield
    for each in opened:
        each.page.__exit__(None, None, None)
    assert [error for each in opened for error in each.page.errors] == []
