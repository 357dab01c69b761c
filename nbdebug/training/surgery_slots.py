"""The places of a live tree that can hold one thing or another. Training thread.

Equal slots are the same place; what they hold is compared by identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from torch import nn


class Nothing(Enum):
    """What a slot holds whose key does not exist."""

    ABSENT = "absent"


ABSENT = Nothing.ABSENT


class Slot(Protocol):
    """One place that holds one thing; equal to another of the same place."""

    def get(self) -> Any:
        """What it holds."""

    def set(self, value: Any) -> None:
        """Make it hold this."""


class Store(Enum):
    """Where a module keeps what it holds; an attribute hides a child or parameter of the same name."""

    CHILDREN = "_modules"
    PARAMETERS = "_parameters"
    ATTRIBUTES = ""


@dataclass(frozen=True, slots=True)
class Held:
    """What a module holds by a name: a child, a parameter or a plain attribute. Its place among others stays."""

    module: nn.Module
    key: str
    store: Store

    def get(self) -> Any:
        """The very object, or ``ABSENT``."""
        return self._kept().get(self.key, ABSENT)

    def set(self, value: Any) -> None:
        """A child without children takes over the mode of the one before it."""
        kept = self._kept()
        before = kept.get(self.key)
        if value is ABSENT:
            kept.pop(self.key, None)
            return
        kept[self.key] = value
        if isinstance(value, nn.Module) and isinstance(before, nn.Module) and not (value._modules or before._modules):
            value.training = before.training

    def _kept(self) -> dict[str, Any]:
        kept: dict[str, Any] = vars(self.module)
        return kept[self.store.value] if self.store.value else kept


@dataclass(frozen=True, slots=True)
class ClassOf:
    """The class of a module, which stays the same object."""

    module: nn.Module

    def get(self) -> Any:
        """The class."""
        return type(self.module)

    def set(self, value: Any) -> None:
        """Another class, of the same layout."""
        self.module.__class__ = value


@dataclass(frozen=True, slots=True)
class Learning:
    """Whether a parameter learns."""

    module: nn.Module
    key: str

    def get(self) -> Any:
        """Its ``requires_grad``."""
        parameter = self.module._parameters[self.key]
        return parameter is not None and parameter.requires_grad

    def set(self, value: Any) -> None:
        """In place."""
        parameter = self.module._parameters[self.key]
        if parameter is not None:
            parameter.requires_grad_(value)


@dataclass(frozen=True, slots=True)
class Mode:
    """Whether a module is in training mode; its children are left alone."""

    module: nn.Module

    def get(self) -> Any:
        """The flag."""
        return self.module.training

    def set(self, value: Any) -> None:
        """This one only."""
        self.module.training = value
