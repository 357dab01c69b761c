"""A report and a finding in words: causes in full, what they explain with them, the rest by name."""

from __future__ import annotations

from nbdebug.records.checks import CheckOutcome, CheckResult, Report
from nbdebug.records.findings import Cause, Evidence, Finding, Remedy, Severity
from nbdebug.records.stops import CodeLine


def finding(title: str, **more: object) -> Finding:
    return Finding(Cause.DEAD_RELU, Severity.WARNING, "main", 7, title, f"why {title}", **more)  # type: ignore[arg-type]


def test_a_finding_prints_as_text() -> None:
    text = str(
        finding(
            "Units are dead",
            confidence=0.8,
            evidence=(Evidence("share", 0.623456, "dead", 0.4),),
            remedies=(Remedy("Go slower."), Remedy("Swap it.", code="model.act = nn.LeakyReLU()")),
            line=CodeLine("train.py", 12, "forward", "x = self.act(x)"),
            source="He 2015",
            folded=("It is flat",),
        )
    )
    assert text.splitlines() == [
        "WARNING  Units are dead  [dead_relu, 80% sure]",
        "  why Units are dead",
        "  train.py:12  x = self.act(x)",
        "  share: 0.6235 (at most 0.4 would be fine)",
        "  1. Go slower.",
        "  2. Swap it.  model.act = nn.LeakyReLU()",
        "  This explains: It is flat.",
    ]


def test_symptoms_are_told_with_their_cause_and_the_fourth_cause_by_name() -> None:
    roots = [finding("a", folded=("symptom",)), finding("b"), finding("c"), finding("d")]
    passed = CheckResult("x", "all is well", CheckOutcome.PASSED)
    report = Report((passed,), (*roots, finding("symptom")))
    for told in (str(report), report._repr_html_()):
        assert told.count("why a") == told.count("why c") == 1 and "why symptom" not in told
        assert "This explains: symptom." in told and "1 more" in told
    assert "1 more in .findings: d [dead_relu]" in str(report) and "why d" not in str(report)
    assert "why d" in report._repr_html_() and report.findings[-1].title == "symptom"


def test_html_of_a_finding_is_escaped() -> None:
    shown = finding("<b>", remedies=(Remedy("x", code="a < b"),))._repr_html_()
    assert "&lt;b&gt;" in shown and "a &lt; b" in shown and "<b><b>" not in shown
