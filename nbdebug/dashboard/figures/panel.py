"""What a chart is: a skeleton authored as a plotly figure, and the numbers put into it on every tick.

Pure; called on the drawing thread. Making a plotly figure takes milliseconds, so it happens only when
``structure`` changes; ``arrays`` and ``patch`` are cheap, because training pays for them (the interpreter lock).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from nbdebug.records.view import View

Floats = NDArray[np.float64]
Array = NDArray[np.float64] | NDArray[np.int64]
Json = Any  # what json.dumps takes; checked there


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart's content at one moment.

    ``arrays`` maps (trace name, plotly attribute) to values of one or two dimensions, which travel as float64.
    ``layout`` and ``traces`` (by trace name) are small patches laid over the skeleton. ``readout`` says it in a line.
    ``empty`` is the hint shown instead of the chart while there is nothing to draw. ``title`` replaces the panel's.
    """

    readout: str
    structure: Hashable = None
    arrays: Mapping[tuple[str, str], Array] = field(default_factory=dict)
    layout: Mapping[str, Json] = field(default_factory=dict)
    traces: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    empty: str = ""
    title: str = ""


class Panel(Protocol):
    """One chart or table. All methods are functions of the view, and of the legend or the lens where it has one.

    ``tab`` is the tab it is in, empty for none: what nobody looks at is not drawn. ``period_s`` is how long a drawing
    stays at least, in seconds, 0 for no such limit.
    """

    name: str
    title: str
    tab: str
    period_s: float

    def inputs(self, view: View) -> tuple[object, ...]:
        """What the drawing depends on; while these are the same objects, or equal numbers, the last drawing is kept."""
        ...

    def draw(self, view: View) -> Drawing:
        """The chart's present content; well under a millisecond."""
        ...

    def skeleton(self, view: View) -> go.Figure | Json:
        """Template, traces and layout without numbers; traces have unique names. Of a table, what its columns are."""
        ...


def cover(text: str) -> Drawing:
    """No chart yet, and why."""
    return Drawing(readout="", empty=text)
