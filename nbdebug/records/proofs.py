"""What came of a remedy that was tried."""

from __future__ import annotations

from dataclasses import dataclass

from nbdebug.records.comparison import Comparison, Verdict
from nbdebug.records.findings import Finding, Remedy


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of a remedy: the branch ``run`` that has it, beside the same steps without, and the verdict.

    ``rung`` is its place among the finding's remedies that the debugger can do.
    """

    finding: Finding
    remedy: Remedy
    rung: int
    run: str
    comparison: Comparison

    @property
    def helped(self) -> bool:
        """Whether the branch is better by more than luck explains."""
        return self.comparison.verdict is Verdict.BETTER

    def __str__(self) -> str:
        return f"{self.finding.title}: {self.remedy.text}\n{self.comparison}"


@dataclass(frozen=True, slots=True)
class Trial:
    """What trying a remedy takes: ``steps`` on each side, ``reruns`` in all, about ``seconds``.

    ``cause`` and ``rung`` say which one, once it is under way, since ``began_s`` (Unix time).
    """

    steps: int
    reruns: int
    seconds: float
    cause: str = ""
    rung: int = 0
    began_s: float = 0.0

    def __str__(self) -> str:
        about = f"about {self.seconds:.0f} s" if self.seconds >= 1 else "under 1 s"
        return f"{about}: {self.reruns} reruns of {self.steps:,} steps"
