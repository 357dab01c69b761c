"""The governor on invented times: it keeps to its share."""

from __future__ import annotations

import pytest

from nbdebug.probes.governor import Governor


def simulate(
    governor: Governor, *, step_s: float, fixed_s: float, sample_s: float, steps: int, norm_s: float = 0.0
) -> tuple[float, int]:
    """Share of time spent watching, and samples taken."""
    watching = samples = 0.0
    since_norm = 0
    for _ in range(steps):
        sampled = governor.wants_sample()
        since_norm += 1
        norm = sampled or since_norm >= governor.norm_every()
        since_norm = 0 if norm else since_norm
        spent = fixed_s + sample_s * sampled + norm_s * norm
        governor.steps_done(
            1, training_s=step_s, watching_s=spent, norms=int(norm), norm_s=norm_s * norm, sampled=sampled
        )
        watching += spent
        samples += sampled
    return watching / (watching + step_s * steps), int(samples)


@pytest.mark.parametrize("step_s", [0.002, 0.01, 0.2])
def test_the_share_stays_within_the_budget(step_s: float) -> None:
    share, samples = simulate(Governor(0.05), step_s=step_s, fixed_s=0.00005, sample_s=0.004, steps=5000)
    assert share < 0.05
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
    assert 0.03 < share < 0.05
    assert governor.share == pytest.approx(share, abs=0.02)


def test_it_adapts_when_samples_become_dearer() -> None:
    governor = Governor(0.05)
    simulate(governor, step_s=0.01, fixed_s=0, sample_s=0.002, steps=2000)
    share, _ = simulate(governor, step_s=0.01, fixed_s=0, sample_s=0.02, steps=4000)
    assert share < 0.055


def test_the_first_step_after_setting_out_is_sampled() -> None:
    governor = Governor(0.05)
    simulate(governor, step_s=0.001, fixed_s=0.0002, sample_s=0.01, steps=100)
    assert not governor.wants_sample()
    governor.begin()
    assert governor.wants_sample()


@pytest.mark.parametrize(("step_s", "every"), [(0.1, 1), (0.0003, 8)])
def test_the_norm_is_taken_as_often_as_it_is_cheap(step_s: float, every: int) -> None:
    governor = Governor(0.05)
    simulate(governor, step_s=step_s, fixed_s=0, sample_s=0.001, steps=3000, norm_s=0.000029)
    assert governor.norm_every() == every


def test_several_steps_at_once_count_as_so_many() -> None:
    one, many = Governor(0.05), Governor(0.05)
    for governor, at_once in ((one, 1), (many, 10)):
        for _ in range(400 // at_once):
            governor.steps_done(
                at_once, training_s=0.001 * at_once, watching_s=0.0001 * at_once, norms=0, norm_s=0.0, sampled=False
            )
    assert many.step_s == pytest.approx(one.step_s) and many.fixed_s == pytest.approx(one.fixed_s)
    assert many.share == pytest.approx(one.share, rel=0.05)


def test_the_cost_says_it_in_words() -> None:
    governor = Governor(0.05)
    simulate(governor, step_s=0.01, fixed_s=0.0001, sample_s=0.002, steps=500)
    cost = governor.cost((("gradients", 0.001),), 0.004)
    assert cost.share == governor.share and cost.samples == governor.samples > 10
    text = str(cost)
    assert "5 % allowed" in text and "gradients: 1 ms a sample" in text
    assert "no limit" in str(Governor(None).cost())
