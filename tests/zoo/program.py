"""What a program of the zoo is, and how a module of the zoo announces its own.

A pair is written once, as ``build(faulty) -> (model, trainer)``: with the fault and, as its healthy twin, without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import torch

Made: TypeAlias = tuple[Any, Any]  # (model, trainer)


class Kind(StrEnum):
    """A planted fault, the same program without it, or a sound one that looks wrong at first sight."""

    FAULT = "fault"
    TWIN = "twin"
    SUSPICIOUS = "suspicious"


@dataclass(frozen=True)
class Program:
    """A training program, made anew from a seed by ``build``.

    ``cause`` is the catalogue's name, empty for a healthy one; ``also`` names causes that are right beside it.
    ``steps`` are how many a healthy one is given to lower its loss; ``live`` how many steps the live checks look at, 0
    where the fault is to be found before training; ``early`` says that the first steps show a live one, too. ``falls``
    is False where a sound loss need not fall (a GAN's).
    """

    name: str
    family: str
    task: str
    cause: str
    kind: Kind
    maker: Callable[[], Made] = field(repr=False, compare=False)
    also: tuple[str, ...] = ()
    steps: int = 40
    live: int = 0
    falls: bool = True
    early: bool = False

    def build(self, seed: int) -> Made:
        """The model and its trainer, untrained."""
        torch.manual_seed(seed)
        return self.maker()

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.cause


@dataclass
class Shelf:
    """The programs that one module of the zoo announces, in the order in which they are written."""

    programs: list[Program] = field(default_factory=list)

    def pair(
        self,
        cause: str,
        *,
        family: str,
        task: str,
        also: tuple[str, ...] = (),
        live: int = 0,
        steps: int = 40,
        early: bool = False,
    ) -> Any:
        """Announces ``build(faulty)`` as a faulty program and its healthy twin."""

        def announce(build: Callable[[bool], Made]) -> Callable[[bool], Made]:
            name = build.__name__
            self.programs += [
                Program(name, family, task, cause, Kind.FAULT, lambda: build(True), also, steps, live, early=early),
                Program(
                    f"{name}_healthy", family, task, "", Kind.TWIN, lambda: build(False), (), steps, live, early=early
                ),
            ]
            return build

        return announce

    def suspicious(self, *, family: str, task: str, steps: int = 40, falls: bool = True) -> Any:
        """Announces ``build()`` as a sound program that may look wrong."""

        def announce(build: Callable[[], Made]) -> Callable[[], Made]:
            self.programs.append(
                Program(build.__name__, family, task, "", Kind.SUSPICIOUS, build, steps=steps, falls=falls)
            )
            return build

        return announce
