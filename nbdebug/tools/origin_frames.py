"""Where in the code, and in which module, an operation runs: read off Python's own frames. Training thread only.

Frames need no hooks, are right when a forward breaks off, and know what runs again for activation checkpointing.
"""

from __future__ import annotations

import linecache
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

import torch
from torch import nn
from torch.autograd.graph import _engine_run_backward

from nbdebug.records.stops import CodeLine
from nbdebug.training.clipping import clip_gradients

Result = TypeVar("Result")
Spot = tuple[CodeType, int]  # a line of somebody's code that was running

MODES = frozenset({"__torch_function__", "__torch_dispatch__"})  # they pass on what others call
_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).resolve().parents[1])
_STDLIB = sysconfig.get_paths()["stdlib"]
_FUNCTIONAL = str(Path(_TORCH, "nn", "functional.py"))
_CALLED = nn.Module._call_impl.__code__
_APPLIED = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]  # a classmethod
_ENGINE = _engine_run_backward.__code__
_CLIPPED = clip_gradients.__code__


class Owner(Enum):
    """Whose code a file is."""

    USER = auto()
    LIBRARY = auto()
    TORCH = auto()
    NOBODY = auto()


@dataclass(frozen=True, slots=True)
class Site:
    """Where an operation ran.

    ``spot`` is the innermost line of the user's, else of a library's. ``modules`` are those at work, innermost first,
    and ``given`` is the shape of what that was called with.
    ``functional`` is the function of ``torch.nn.functional`` that the user called, ``function`` the custom autograd
    function, called at ``called_at``. Within autograd ``inner`` is the user's line of what autograd called, and
    ``recomputes`` says that it is a forward, run again.
    """

    spot: Spot | None = None
    modules: tuple[nn.Module, ...] = ()
    given: tuple[int, ...] = ()
    functional: str = ""
    function: str = ""
    called_at: Spot | None = None
    inner: Spot | None = None
    clips: bool = False
    recomputes: bool = False


def fenced(run: Callable[[], Result]) -> Result:
    """Call it; :func:`look_around` sees nothing of who called this."""
    return run()


_FENCE = fenced.__code__


class _Walk:
    """What a walk from an operation's frame outwards has come across."""

    def __init__(self) -> None:
        self.users: list[Spot] = []
        self.libraries: list[Spot] = []
        self.modules: list[nn.Module] = []
        self.given: tuple[int, ...] = ()
        self.functional = self.function = ""
        self.called_at: Spot | None = None
        self.inner: Spot | None = None
        self.clips = self.recomputes = False
        self._applied = self._left_autograd = False

    def take(self, frame: FrameType) -> None:
        code = frame.f_code
        owner = owner_of(code.co_filename)
        if owner is Owner.TORCH:
            self._take_torch(frame, code)
        elif code.co_name in MODES:
            return
        elif owner is Owner.USER:
            self._meet((code, frame.f_lineno), self.users)
        elif owner is Owner.LIBRARY:
            self._meet((code, frame.f_lineno), self.libraries)
        elif code is _CLIPPED:
            self.clips = True

    def _meet(self, spot: Spot, known: list[Spot]) -> None:
        known.append(spot)
        if self._applied and known is self.users and self.called_at is None:
            self.called_at = spot

    def _take_torch(self, frame: FrameType, code: CodeType) -> None:
        if code is _CALLED:
            self.given = self.given if self.modules else _first_shape(frame.f_locals["args"])
            self.modules.append(frame.f_locals["self"])
        elif code is _ENGINE:
            if not self._left_autograd:
                self.inner = self.users[0] if self.users else None
            self._left_autograd = True
        elif code is _APPLIED:
            self.function, self._applied, self.called_at = frame.f_locals["cls"].__name__, True, None
        elif code.co_filename.endswith("clip_grad.py"):
            self.clips = True
        elif code.co_filename.endswith("checkpoint.py"):
            again = code.co_name in ("recompute_fn", "backward") and not self._left_autograd
            self.recomputes = self.recomputes or again
        elif code.co_filename == _FUNCTIONAL and not self.users and not code.co_name.startswith("_"):
            self.functional = code.co_name


def look_around(*, inside_autograd: bool) -> Site:
    """The site of whatever called the caller."""
    walk = _Walk()
    frames = list(_frames(sys._getframe(1)))
    for frame in frames:
        walk.take(frame)
    spot = walk.users[0] if walk.users else walk.libraries[0] if walk.libraries else None
    inner = walk.inner
    if inside_autograd and frames[-1].f_code is not _FENCE:  # autograd's own thread, as for other devices
        inner = walk.users[0] if walk.users else None
    return Site(
        spot=spot,
        modules=tuple(walk.modules),
        given=walk.given,
        functional=walk.functional,
        function=walk.function,
        called_at=walk.called_at,
        inner=inner,
        clips=walk.clips,
        recomputes=walk.recomputes,
    )


def callers() -> Iterator[CodeType]:
    """The user's functions that are at work outside of autograd."""
    codes = [frame.f_code for frame in _frames(sys._getframe(1))]
    if _ENGINE in codes:
        codes = codes[codes.index(_ENGINE) :]
    return (code for code in codes if owner_of(code.co_filename) is Owner.USER)


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        if frame.f_code is _FENCE:
            return
        frame = frame.f_back


def code_line(spot: Spot | None) -> CodeLine | None:
    """The line with its text, as far as Python can still find it."""
    if spot is None:
        return None
    code, line = spot
    text = linecache.getline(code.co_filename, line).strip()
    return CodeLine(code.co_filename, line, code.co_name, text)


@cache
def owner_of(file: str) -> Owner:
    """Whose code a file is, by its path; cells of notebooks are the user's."""
    if file.startswith(_TORCH):
        return Owner.TORCH
    if file.startswith(_OURS):
        return Owner.NOBODY
    if "site-packages" in file or "dist-packages" in file or file == "<string>":
        return Owner.LIBRARY
    if file.startswith((_STDLIB, "<frozen", "<eval_with_key", "<__array")):
        return Owner.NOBODY
    return Owner.USER


def _first_shape(args: Any) -> tuple[int, ...]:
    first = args[0] if args else None
    return tuple(first.shape) if isinstance(first, torch.Tensor) and not first.is_nested else ()
