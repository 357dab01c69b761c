"""What is read from a range test, on curves whose right answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nbdebug.records.finder import LrCurve
from nbdebug.tools import lr_finder
from nbdebug.tools.lr_finder import HALF, STEEPEST, TENTH, VALLEY
from tests.benchmarks import find_lr as benchmark

STEPS = 100


def curve(
    *, high: float = 2.3, low: float = 0.6, middle: float = 1e-2, end: float = 1.0, noise: float = 0.0, seed: int = 0,
    steps: int = STEPS,
) -> tuple[Any, Any]:  # fmt: skip
    """A fall of half its height at ``middle``, lowest about where it runs away, from ``end`` on."""
    rates = lr_finder.rates(1e-7, 10.0, steps)
    x = np.log10(rates)
    losses = high - (high - low) / (1 + np.exp(-4 * (x - math.log10(middle)))) + (rates / end) ** 3 * (high - low)
    return rates, losses + np.random.default_rng(seed).normal(0, noise, steps)


def as_tested(rates: Any, losses: Any) -> tuple[Any, Any, float | None]:
    """As far as a test would have gone."""
    watch = lr_finder.Watch(rates.size)
    for index, loss in enumerate(losses):
        if watch.has_diverged(float(loss)):
            return rates[: index + 1], losses[: index + 1], float(rates[index])
    return rates, losses, None


def suggested(rates: Any, losses: Any) -> dict[str, float]:
    shown, found, diverged_at = as_tested(rates, losses)
    return dict(lr_finder.suggestions(shown, found, rates.size, diverged_at))


def test_the_mean_has_no_bias_and_begins_at_the_first_loss() -> None:
    assert lr_finder.smoothed(np.full(50, 3.25), 0.9) == pytest.approx(3.25)
    values = np.random.default_rng(0).normal(0, 1, 40)
    smooth = lr_finder.smoothed(values, 0.9)
    weights = 0.1 * 0.9 ** np.arange(39, -1, -1)
    assert smooth[0] == pytest.approx(values[0])
    assert smooth[-1] == pytest.approx((weights * values).sum() / (1 - 0.9**40))


def test_after_a_loss_that_is_not_finite_the_mean_is_unknown() -> None:
    smooth = lr_finder.smoothed(np.array([1.0, 2.0, math.inf, 1.0]), 0.5)
    assert np.isfinite(smooth).tolist() == [True, True, False, False]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
@pytest.mark.parametrize(("middle", "end"), [(1e-4, 1e-2), (1e-3, 0.3), (1e-2, 2.0)])
def test_suggestions_lie_in_the_fall(middle: float, end: float, noise: float, seed: int) -> None:
    found = suggested(*curve(middle=middle, end=end, noise=noise, seed=seed))
    assert next(iter(found)) in (VALLEY, TENTH) and set(found) == {VALLEY, TENTH, STEEPEST, HALF}
    assert found[next(iter(found))] == min(found[VALLEY], found[TENTH])
    assert middle / 4 < found[VALLEY] < end and middle / 4 < found[STEEPEST] < end
    assert middle / 8 < next(iter(found.values())) < end / 2
    assert found[HALF] > 0.3 * end


def test_suggestions_have_two_digits() -> None:
    assert all(rate == float(f"{rate:.1e}") for rate in suggested(*curve(noise=0.1)).values())


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (1e-8, 0.0), (1e8, 0.0), (1.0, -1.5), (1.0, -20.0), (1.0, 30.0)]
)
def test_scale_and_sign_of_the_loss_do_not_matter(scale: float, shift: float) -> None:
    rates, losses = curve(noise=0.05, end=0.5)
    found, other = suggested(rates, losses), suggested(rates, losses * scale + shift)
    for name in (VALLEY, TENTH, STEEPEST):
        assert other[name] == pytest.approx(found[name], rel=0.03)


def test_noise_alone_hardly_ever_suggests_anything() -> None:
    rates = lr_finder.rates(1e-7, 10.0, STEPS)
    told = sure = 0
    for seed in range(400):
        losses = 2.3 + 0.1 * np.random.default_rng(seed).normal(size=STEPS)
        found = lr_finder.suggestions(rates, losses, STEPS, None)
        told += bool(found)
        sure += bool(found) and "more than its noise" not in lr_finder.note(
            rates, losses, STEPS, diverged=False, found=found
        )
    assert told <= 80 and sure <= 12


@pytest.mark.parametrize("losses", [np.full(STEPS, 2.0), np.zeros(STEPS), np.linspace(1, 3, STEPS)])
def test_a_loss_that_never_falls_suggests_nothing(losses: Any) -> None:
    rates = lr_finder.rates(1e-7, 10.0, STEPS)
    assert not suggested(rates, losses)
    assert "did not fall" in lr_finder.note(rates, losses, STEPS, diverged=False, found=())


def test_a_fall_from_the_very_beginning_is_found() -> None:
    rates = lr_finder.rates(1e-3, 10.0, STEPS)
    losses = 2.3 - 0.6 * np.log10(rates / 1e-3) + (rates / 2) ** 3
    found = suggested(rates, losses)
    assert 1e-3 < next(iter(found.values())) < 0.5


def test_where_it_still_falls_at_the_end_that_is_said() -> None:
    rates, losses = curve(end=1e9, middle=5.0)
    found = lr_finder.suggestions(rates, losses, STEPS, None)
    assert HALF not in dict(found)
    assert "test higher" in lr_finder.note(rates, losses, STEPS, diverged=False, found=found)


@pytest.mark.parametrize("steps", [10, 11, 15, 25, 400, 5_000])
def test_few_and_many_steps(steps: int) -> None:
    found = suggested(*curve(steps=steps, noise=0.02))
    assert steps < 15 or 1e-3 < next(iter(found.values())) < 1


def test_a_single_loss_is_no_curve() -> None:
    assert lr_finder.suggestions(np.array([1e-7]), np.array([math.nan]), STEPS, 1e-7) == ()
    assert lr_finder.suggestions(np.empty(0), np.empty(0), STEPS, None) == ()


@pytest.mark.parametrize(
    ("losses", "at"),
    [
        ([2.0, 1.0, math.nan], 2), ([math.inf], 0), ([2.0] * 20 + [60.0], 20), ([2.0] * 20 + [7.0] * 20, None),
        ([2.0] * 20 + [9.0] * 20, 34), ([-1.0] * 20 + [1.9] * 40, None), ([-1.0] * 20 + [2.1] * 60, 46),
        ([2.0] * 10 + [1e-4] * 50 + [0.3] * 30, None), ([2.0, 1e-4] * 40 + [1e3], 80), ([0.0] * 30 + [1e-9], 30),
    ],
)  # fmt: skip
def test_running_away_is_four_times_the_best_or_far_above_a_best_near_zero(losses: list[float], at: int | None) -> None:
    watch = lr_finder.Watch(100)
    found = next((index for index, loss in enumerate(losses) if watch.has_diverged(loss)), None)
    assert found == at


@pytest.mark.parametrize("seed", range(10))
def test_a_noisy_loss_around_zero_has_not_run_away(seed: int) -> None:
    watch = lr_finder.Watch(100)
    assert not any(watch.has_diverged(float(loss)) for loss in np.random.default_rng(seed).normal(0, 1, 100))


def test_rates_grow_by_the_same_factor() -> None:
    rates = lr_finder.rates(1e-5, 1.0, 6)
    assert rates == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_a_curve_is_told_in_words() -> None:
    rates, losses, at = as_tested(*curve(noise=0.05))
    made = LrCurve(
        rates,
        losses,
        lr_finder.smoothed(losses, 0.88),
        (("minimum / 10", 3.2e-3),),
        at,
        "main",
        1200,
        100,
        1e-3,
        "a note",
    )
    lines = str(made).splitlines()
    assert lines[0].startswith("learning-rate range test after step 1,200 of main: ")
    assert "diverged at" in lines[1] and lines[2].split() == ["minimum", "/", "10", "3.2e-03"]
    assert lines[3].strip() == "a note" and "debugger.set(lr=curve.suggestion)" in lines[4]
    assert made.sentence == "learning rate 3.2e-03 suggested (minimum / 10)" and repr(made) == str(made)
    empty = LrCurve(note="the loss ran away at once")
    assert empty.suggestion is None and "ran away at once" in empty.sentence and str(empty)


@pytest.mark.parametrize("name", ["linear regression", "MLP classification", "embedding bag"])
def test_the_best_suggestion_trains_about_as_well_as_the_best_of_a_grid(name: str) -> None:
    problem = next(each for each in benchmark.PROBLEMS if each.name == name)
    made = benchmark.make(problem, seed=17)
    assert made.missed(made.curve.suggestion) <= benchmark.GOOD
