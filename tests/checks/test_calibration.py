"""What findings are said to be sure of: applied once, what rules said kept; the file that comes with the package."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nbdebug.checks import calibration
from nbdebug.checks.calibration import DOUBT, Calibration, Known
from nbdebug.checks.ranking import ranked
from nbdebug.records.findings import Cause, Finding, Severity

MADE = Calibration((0.0, 0.5, 1.0), (0.0, 0.4, 0.9), 0.95, {"lr_too_high": Known(12, math.log(3))})


def finding(cause: Cause, confidence: float, source: str = "somebody") -> Finding:
    return Finding(cause, Severity.WARNING, "main", 3, "title", "why", confidence=confidence, source=source)


@pytest.mark.parametrize(("stated", "said"), [(0.0, 0.0), (0.25, 0.2), (0.5, 0.4), (0.75, 0.65), (1.0, 0.9)])
def test_a_cause_never_seen_is_on_the_line_between_two_points(stated: float, said: float) -> None:
    assert MADE("never_seen", stated) == pytest.approx(said)


def test_a_known_cause_is_moved_by_its_odds_as_far_as_it_was_seen() -> None:
    odds = 3 * 0.4 / 0.6
    own = odds / (1 + odds)
    assert MADE("lr_too_high", 0.5) == pytest.approx((12 * own + DOUBT * 0.4) / (12 + DOUBT))


def test_nothing_is_surer_than_the_most() -> None:
    sure = Calibration((0.0, 1.0), (1.0, 1.0), 0.97, {"lr_too_high": Known(10**6, 9.0)})
    assert sure("lr_too_high", 1.0) <= 0.97 and sure("never_seen", 1.0) <= 0.97


def test_it_comes_back_from_its_file() -> None:
    again = Calibration.from_json(MADE.to_json())
    assert (again.stated, again.right, again.most) == (MADE.stated, MADE.right, MADE.most)
    assert again.causes["lr_too_high"].shift == pytest.approx(math.log(3), abs=1e-4)


def test_the_shipped_one_never_falls_is_never_certain_and_knows_only_causes_that_there_are() -> None:
    shipped = calibration.shipped()
    assert set(shipped.causes) <= {str(cause) for cause in Cause}
    for cause in Cause:
        values = [shipped(cause, each) for each in np.linspace(0, 1, 51)]
        assert np.all(np.diff(values) >= -1e-12) and values[0] >= 0 and values[-1] < 1, cause


def test_findings_are_calibrated_once_however_often_they_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "shipped", lambda: MADE)
    once = ranked([finding(Cause.TARGET_LEAKAGE, 0.5)])
    assert (once[0].confidence, once[0].rule_confidence) == (pytest.approx(0.4), 0.5)
    assert ranked(once) == once
    monkeypatch.setattr(calibration, "shipped", lambda: Calibration((0.0, 1.0), (0.0, 0.5), 0.9))
    assert ranked(once)[0].confidence == pytest.approx(0.25)  # from what the rule said, not from what was made of it


def test_what_merely_happened_is_left_as_it_is() -> None:
    event = finding(Cause.NAN_LOSS, 1.0, source="")
    assert ranked([event]) == (event,)


def test_order_goes_by_what_rules_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "shipped", lambda: MADE)
    causes = [Cause.LR_TOO_HIGH, Cause.TARGET_LEAKAGE]
    told = ranked([finding(Cause.LR_TOO_HIGH, 0.7), finding(Cause.TARGET_LEAKAGE, 0.75)])
    assert [each.cause for each in told] == causes[::-1] and told[0].confidence < told[1].confidence
    assert ranked(told) == told
