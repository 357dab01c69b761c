"""Looks at the model that live checks ask for before they speak: made, kept, and handed on. Training thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.confirming import MOST_LOOKS, wished
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameters
from nbdebug.records.looks import Looked, Question
from nbdebug.training.second_look import look
from nbdebug.training.session import Session
from nbdebug.training.untouched import Refused


class Looks:
    """The latest looks on one run. One that can't be made says why, and none is tried on that run again."""

    def __init__(self, session: Callable[[], Session]) -> None:
        self._session = session
        self._made: list[Looked] = []
        self._refused = ""
        self._run = ""

    def confirmed(self, checks: Sequence[LiveCheck], window: Window, parameters: Parameters) -> Window:
        """The window with what was seen so far, and with a look of now where some check asks for one."""
        if window.run != self._run:
            self._run, self._made, self._refused = window.run, [], ""
        self._made = [each for each in self._made if each.step <= window.step]
        if not self._refused:
            window = replace(window, looks=tuple(self._made))
            wanted = wished([each.confirm for each in checks if each.confirm is not None], window, parameters)
            if wanted and not any(each.step == window.step for each in self._made):
                self._look(wanted)
        return replace(window, looks=tuple(self._made), refused=self._refused)

    def _look(self, wanted: frozenset[Question]) -> None:
        try:
            self._made = [*self._made, look(self._session(), wanted)][-2 * MOST_LOOKS :]
        except Refused as why:
            self._refused = str(why)
        except Exception as error:  # the user's model may raise anything when it is called once more
            self._refused = f"calling the model or the loss once more raised {type(error).__name__}: {error}"
