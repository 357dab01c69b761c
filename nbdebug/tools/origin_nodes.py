"""Which forward call a node of autograd stands for. Training thread only.

Autograd numbers its nodes as it makes them, and makes one right before its operation runs. So the number tells, during
the backward, where in the user's forward a derivative belongs; nothing has to be attached to the graph.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._autograd import _get_sequence_nr

from nbdebug.tools.origin_frames import Site


@dataclass(frozen=True, slots=True)
class Node:
    """The node at work: the ``operation`` that it is the derivative of, and where that was called.

    ``function`` is the class's name of a custom autograd function. ``variable`` is what a gradient is added up for.
    """

    operation: str
    site: Site
    function: str = ""
    variable: torch.Tensor | None = None


class Nodes:
    """The sites of all operations that may have a node."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[str, Site]] = {}
        self._numbers: list[int] = []

    def is_new(self) -> bool:
        """Whether a node was made since the last operation that was noted."""
        return _newest() not in self._made

    def note(self, operation: str, site: Site) -> None:
        """This runs for the newest node."""
        number = _newest()
        if number not in self._made:
            self._made[number] = (operation, site)
            bisect.insort(self._numbers, number)

    def look(self) -> Node | None:
        """The node at work; ``None`` outside of autograd."""
        node = _at_work()
        if node is None:
            return None
        variable = getattr(node, "variable", None)
        if variable is not None:
            return Node("", Site(), variable=variable)
        operation, site = self._nearest(int(node._sequence_nr()), after="CopySlices" not in node.name())
        function = getattr(type(node), "_forward_cls", None)
        if function is not None:
            return Node(function.__name__, site, function=function.__name__)
        return Node(operation or str(node.name()), site)

    def _nearest(self, number: int, *, after: bool) -> tuple[str, Site]:
        """Transforms of functions make several nodes before an operation runs, one for each level.

        An operation in place on a view makes its node afterwards instead, not ``after`` but before what was noted.
        """
        if not self._numbers:
            return "", Site()
        if after:
            place = min(bisect.bisect_left(self._numbers, number), len(self._numbers) - 1)
        else:
            place = max(bisect.bisect_right(self._numbers, number) - 1, 0)
        return self._made[self._numbers[place]]


def _newest() -> int:
    return int(_get_sequence_nr()) - 1


def _at_work() -> Any:
    return torch._C._current_autograd_node() if torch._C._current_graph_task_id() != -1 else None
