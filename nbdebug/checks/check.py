"""What a check is, and how it says what it measured and found. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from nbdebug.checks.parameters import Parameter, Parameters
from nbdebug.records.findings import Cause, Evidence, Finding, Picture, Remedy, Severity
from nbdebug.records.stops import CodeLine


class Skip(Exception):
    """A check can't be made here; says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """A rule: ``judge(look, say)`` looks and says. Pure reading, unless it asks the look's bench for experiments.

    ``causes`` are those that it can name, ``source`` whose advice it follows. ``passive`` says that the user's own
    first steps suffice to judge; what is not is left to the battery. ``late`` checks are made after all others.
    """

    name: str
    title: str
    judge: Callable[[Any, Say], None]
    causes: tuple[Cause, ...]
    parameters: tuple[Parameter, ...] = ()
    source: str = ""
    passive: bool = True
    late: bool = False


@dataclass(slots=True)
class Say:
    """Takes down what one check measured and found."""

    parameters: Parameters
    run: str
    step: int
    source: str = ""
    measured: list[Evidence] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _since: int = 0

    def limit(self, parameter: str) -> float:
        """A parameter's value."""
        return self.parameters[parameter]

    def measure(self, name: str, value: float, parameter: str = "", *, above: bool = True) -> bool:
        """Take down a value; whether it is on the wrong side (``above`` or below) of the parameter."""
        threshold = self.parameters[parameter] if parameter else None
        evidence = Evidence(name, float(value), parameter, threshold, above)
        self.measured.append(evidence)
        return evidence.speaks_for_a_fault

    def note(self, text: str) -> None:
        """Something worth reading beside the check, whatever it came to."""
        self.notes.append(text)

    def find(
        self,
        cause: Cause,
        severity: Severity,
        title: str,
        why: str,
        *,
        confidence: float = 1.0,
        layers: tuple[str, ...] = (),
        evidence: tuple[Evidence, ...] | None = None,
        pictures: tuple[Picture, ...] = (),
        remedies: tuple[Remedy, ...] = (),
        line: CodeLine | None = None,
        detail: str = "",
    ) -> None:
        """Something is wrong. Without ``evidence``, what was measured since the last finding is its evidence."""
        taken = tuple(self.measured[self._since :]) if evidence is None else evidence
        self._since = len(self.measured)
        self.findings.append(
            Finding(
                cause, severity, self.run, self.step, title, why, detail,
                confidence=confidence, layers=layers, evidence=taken, pictures=pictures, remedies=remedies, line=line,
                source=self.source,
            )
        )  # fmt: skip

    def skip(self, why: str) -> NoReturn:
        """This can't be judged here.

        Raises:
            Skip: always.
        """
        raise Skip(why)
