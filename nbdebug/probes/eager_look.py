"""A look into compiled modules: one eager forward on the side, undone afterwards. Training thread only.

Hooks within compiled code do not fire, or have it compiled again. So before a compiled module is called in a sampled
step, its original runs once on copies of the arguments, without gradients and with hooks; all that this changed is put
back, and the compiled call finds everything as it was. A forward that does something besides (prints, appends to a
list) does it twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from nbdebug.probes.hooks import HookSet
from nbdebug.probes.visibility import Compiled, compiled_original

Undisturbed = Callable[[nn.Module], AbstractContextManager[Any]]

OPAQUE = "it is compiled, and can't be looked into"


class EagerLook:
    """One compiled module. ``why_not`` says why it can't be looked into, empty as long as it can.

    ``undisturbed(module)`` is a context after which generators, buffers, attributes and modes are as before.
    """

    def __init__(self, compiled: Compiled, undisturbed: Undisturbed | None) -> None:
        self.compiled = compiled
        self.why_not = "" if undisturbed is not None else OPAQUE
        self._undisturbed = undisturbed
        self._looked = False

    def begin(self) -> None:
        """A step begins; its first call will be looked into."""
        self._looked = False

    def look(self, put_on: Callable[[HookSet], None], args: Any, kwargs: Any) -> None:
        """Run the original once with what ``put_on`` hooks; errors of the run go into ``why_not``, once for all."""
        module = self.compiled.module
        if self.why_not or self._looked or self._undisturbed is None or _is_lazy(module):
            return
        self._looked = True
        self.why_not = _reason_against(args, kwargs)
        if self.why_not:
            return
        hooks = HookSet()
        hooks.begin()
        try:
            with self._undisturbed(module), _eagerly():
                put_on(hooks)
                copied_args, copied_kwargs = _copied((args, kwargs))
                compiled_original(module)(*copied_args, **copied_kwargs)
        except Exception as error:  # the user's forward may do anything; the compiled call itself goes on
            self.why_not = f"an eager look into this compiled module failed: {_first_line(error)}"
        finally:
            hooks.remove()
        if hooks.error is not None:
            raise hooks.error


@contextmanager
def _eagerly() -> Iterator[None]:
    """No compiling, no graph, and no low-precision copy of a weight left in autocast's cache without its graph."""
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.compiler.set_stance("force_eager"), torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)


def _reason_against(args: Any, kwargs: Any) -> str:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return "it is compiled, and looking into it would call the other processes"
    if any(isinstance(leaf, Iterator) for leaf in pytree.tree_leaves((args, kwargs))):
        return "it is compiled, and looking into it would use up an iterator that it is called with"
    return ""


def _is_lazy(module: nn.Module) -> bool:
    """Whether some parameter has no shape yet: then the real call must be the one that draws its values."""
    return any(
        torch.nn.parameter.is_lazy(p)
        for inside in module.modules()
        for p in inside._parameters.values()
        if p is not None
    )


def _copied(value: Any) -> Any:
    """Copies of all tensors, as a forward may work in place on its inputs; one given twice stays one."""
    copies: dict[int, torch.Tensor] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.detach().clone()
        return copies[id(tensor)]

    return pytree.tree_map_only(torch.Tensor, copy, value)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
