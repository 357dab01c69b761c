"""The one widget that draws the dashboard, and what is said over its comm.

From the browser, each with ``view``: ``ready`` (``tab``: the one that is open), ``ack`` (``number``), ``bye`` (gone or
hidden), ``plotly`` (send plotly.js), ``command`` (see :func:`messages.decode`), ``overlay`` (``run``, ``drawn``: what
the loss chart shows), ``tab`` (another was opened), ``focus`` (see :meth:`Lens.choose`). To the browser: ``frame``
(``to``, ``number``, ``whole``; two buffers, JSON and float64 values), ``plotly`` (one gzip buffer), ``closed``. Nothing
of it is a synced trait, so a saved notebook holds this module and its stylesheet, and no data. Sends on the drawing
thread; hears on a kernel thread.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
from plotly.offline import get_plotlyjs

from nbdebug.dashboard import routing, theme

_HERE = Path(__file__).parent
_SCRIPTS = (  # one module together
    "board_basics.js",
    "board_chart.js",
    "board_bar.js",
    "board_controls.js",
    "board_runs.js",
    "board_layers.js",
    "board_table.js",
    "board_aim.js",
    "board_stops.js",
    "board_origin.js",
    "board_batch.js",
    "board_samples.js",
    "board_checks.js",
    "board_lit.js",
    "board_trials.js",
    "board_findings.js",
    "board_finder.js",
    "board_fields.js",
    "board_options.js",
    "board_schedule.js",
    "board_search.js",
    "board_surgery.js",
    "board_more.js",
    "board_own.js",
    "board_change.js",
    "board.js",
)
_STYLES = tuple(
    f"board{part}.css"
    for part in ("", "_layers", "_stops", "_checks", "_findings", "_finder", "_search", "_change", "_samples")
)


@cache
def plotly_gzip() -> bytes:
    """plotly.js as its Python package ships it, compressed once per process (about 1.4 MB of 4.8)."""
    return gzip.compress(get_plotlyjs().encode(), compresslevel=6)


class Board(anywidget.AnyWidget):
    """The widget. ``hear`` gets every message's content, on whichever kernel thread it arrives."""

    _esm = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    _css = "\n".join([theme.stylesheet(), *((_HERE / name).read_text(encoding="utf-8") for name in _STYLES)])

    def __init__(self, hear: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__()
        routing.hear_while_busy(self.comm)
        self.hear = hear
        self.on_msg(self._on_message)

    def _on_message(self, _: object, content: object, __: object) -> None:
        if isinstance(content, Mapping) and isinstance(content.get("view"), str):
            self.hear(content)

    def send_frame(self, views: list[str], number: int, *, whole: bool, head: bytes, values: bytes) -> int:
        """One frame to these views; the bytes sent."""
        self.send({"type": "frame", "to": views, "number": number, "whole": whole}, [head, values])
        return len(head) + len(values)

    def send_plotly(self, view: str) -> int:
        """plotly.js to the page of this view; the bytes sent."""
        self.send({"type": "plotly", "to": [view]}, [plotly_gzip()])
        return len(plotly_gzip())

    def send_closed(self) -> None:
        """Tell every view that there is nobody to listen any more."""
        self.send({"type": "closed"})
