"""The governor on invented times: it keeps to its share."""

from __future__ import annotations

import pytest

from nbdebug.probes.governor import Governor


def simulate(governor: Governor, *, step_s: float, fixed_s: float, sample_s: float, steps: int) -> tuple[float, int]:
    """Share of time spent watching, and samples taken."""
    watching = samples = 0.0
    for _ in range(steps):
        sampled = governor.wants_sample()
        spent = fixed_s + sample_s * sampled
        governor.step_done(training_s=step_s, watching_s=spent, sampled=sampled)
        watching += spent
        samples += sampled
    return watching / (watching + step_s * steps), int(samples)


@pytest.mark.parametrize("step_s", [0.002, 0.01, 0.2])
def test_the_share_stays_within_the_budget(step_s: float) -> None:
    share, samples = simulate(Governor(0.05), step_s=step_s, fixed_s=0.00005, sample_s=0.004, steps=5000)
    assert share < 0.055
    assert share > 0.03 or samples == 5000


def test_a_fixed_cost_above_the_budget_leaves_a_sample_every_two_seconds() -> None:
    _, samples = simulate(Governor(0.05), step_s=0.001, fixed_s=0.0002, sample_s=0.002, steps=10_000)
    assert 5 <= samples <= 8


def test_no_budget_samples_every_step() -> None:
    assert simulate(Governor(None), step_s=0.001, fixed_s=0, sample_s=1, steps=50)[1] == 50


def test_it_adapts_when_steps_become_slower() -> None:
    governor = Governor(0.05)
    simulate(governor, step_s=0.002, fixed_s=0, sample_s=0.004, steps=2000)
    share, _ = simulate(governor, step_s=0.05, fixed_s=0, sample_s=0.004, steps=1000)
    assert 0.03 < share < 0.055
    assert governor.share == pytest.approx(share, abs=0.03)


def test_the_first_step_after_setting_out_is_sampled() -> None:
    governor = Governor(0.05)
    simulate(governor, step_s=0.001, fixed_s=0.0002, sample_s=0.01, steps=100)
    assert not governor.wants_sample()
    governor.begin()
    assert governor.wants_sample()
