"""Which kernel thread hears our widget while a cell runs. Called on the thread that makes the widget.

JupyterLab sends comm messages over a subshell, a second thread of the kernel, so that widgets work while a cell
blocks the main thread. From 7.4 on, ipykernel overrides that: a comm remembers the shell it last published from, and
messages to it are sent there; for a widget made in a cell, that is the busy main thread. Our comm opts out, by itself.
"""

from __future__ import annotations

import sys
from typing import Any


def hear_while_busy(comm: Any) -> None:
    """Let messages to this comm arrive where the browser addressed them. Does nothing where nothing is overridden."""
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = _as_addressed


def _as_addressed(data: object, default: object) -> object:
    """ipykernel asks for the subshell of a message: the one in its header, given as ``default``."""
    return default


def blocking_note() -> str | None:
    """What to know where a running cell blocks the controls; ``None`` where it does not, or outside of a kernel."""
    ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    kernel = getattr(ipython, "kernel", None)
    if kernel is None:
        return None
    if "kernel subshells" in _supported_features(kernel):
        return None
    return (
        "this kernel cannot hear the dashboard while a cell runs (it has no subshells; ipykernel 7 has): use "
        "debugger.start(), which returns at once, instead of debugger.run()"
    )


def _supported_features(kernel: Any) -> list[str]:
    """The kernel's own list, as in the Jupyter protocol's kernel_info_reply."""
    info = getattr(kernel, "kernel_info", None)
    return list(info.get("supported_features", ())) if isinstance(info, dict) else []
