"""Label smoothing of a cross entropy, changed while training: a module's attribute, or an argument of the function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn import functional as F

LOST = "only torch.nn.CrossEntropyLoss and torch.nn.functional.cross_entropy have it; with another, read debugger.knob"


class Smoothed:
    """``cross_entropy`` with a label smoothing, called like the function itself; what a call names wins."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.label_smoothing = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The loss."""
        return self.function(*args, **{"label_smoothing": self.label_smoothing, **kwargs})


class Smoothing:
    """The label smoothing of the one cross entropy among some losses, that of this ``name``.

    ``fixed`` says why it can't be set, if so.
    """

    def __init__(self, losses: Mapping[str, Any]) -> None:
        held = {name: loss for name, loss in losses.items() if _is_cross_entropy(loss)}
        self.name = next(iter(held), "")
        self._held: Any = held[self.name] if len(held) == 1 else None
        if self._held is F.cross_entropy:
            self._held = Smoothed(F.cross_entropy)
        self.fixed = "" if self._held is not None else _why_fixed(losses, len(held))

    @property
    def value(self) -> float | None:
        """The label smoothing in force; ``None`` where it can't be set."""
        return None if self._held is None else float(self._held.label_smoothing)

    @property
    def of_module(self) -> nn.Module | None:
        """The module whose attribute it is, if so."""
        return self._held if isinstance(self._held, nn.Module) else None

    def set(self, value: float | None) -> None:
        """Another value; ``None`` leaves it."""
        if value is not None and self._held is not None:
            self._held.label_smoothing = float(value)

    def of(self, loss: Any) -> Any:
        """This loss as it has to be called for the label smoothing to act."""
        return self._held if loss is F.cross_entropy and isinstance(self._held, Smoothed) else loss

    def mistakes(self, value: Any) -> list[str]:
        """Why this can't be the label smoothing."""
        if self.fixed:
            return [f"label_smoothing can't be set: {self.fixed}"]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return [f"label_smoothing must be a number, not {value!r}"]
        if not 0.0 <= value <= 1.0:
            return [f"label_smoothing={value!r} is out of range: it must be from 0 to 1"]
        return []


def _is_cross_entropy(loss: Any) -> bool:
    is_module = isinstance(loss, nn.CrossEntropyLoss) and type(loss).forward is nn.CrossEntropyLoss.forward
    return is_module or loss is F.cross_entropy


def _why_fixed(losses: Mapping[str, Any], count: int) -> str:
    if count > 1:
        return f"{count} of the loss's parts are cross entropies, and it is not clear which is meant"
    kinds = ", ".join(dict.fromkeys(_kind(loss) for loss in losses.values()))
    return f"the loss is {kinds}, and {LOST}"


def _kind(loss: Any) -> str:
    return getattr(loss, "__qualname__", None) or type(loss).__name__
