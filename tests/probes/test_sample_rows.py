"""Samples and their reductions against numpy: bins, moments, shares, on layouts made to mislead."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nbdebug.probes import sample_rows
from nbdebug.probes.sample_rows import Pool, SampleRows, Summary
from nbdebug.probes.sampling import SAMPLE_SIZE, jittered
from nbdebug.records.layers import BINS, CENTRE, edges
from nbdebug.records.signals import Signal


def summed(rows: SampleRows) -> Summary:
    return rows.read([array.to(torch.float64).numpy() for array in rows.reduce()])


def one(tensor: torch.Tensor, turn: int = 0) -> Summary:
    rows = SampleRows()
    rows.clear(turn)
    rows.add("x", tensor)
    return summed(rows)


def expected_counts(values: np.ndarray, limit: float) -> np.ndarray:
    """The documented grid, by comparing each value with each border."""
    borders, counts = edges() * limit, np.zeros(BINS)
    for value in values[np.isfinite(values)]:
        if value > 0:
            place = int(np.searchsorted(borders, value, side="right")) - 1
        elif value < 0:
            place = BINS - 1 - (int(np.searchsorted(borders, -value, side="right")) - 1)
        else:
            place = CENTRE
        counts[place] += 1
    return counts


VALUES = {
    "normal": lambda: torch.randn(3000),
    "tiny": lambda: torch.randn(500) * 1e-30,
    "huge": lambda: torch.randn(500) * 1e30,
    "wide": lambda: torch.randn(3000) * torch.exp(4 * torch.randn(3000)),
    "powers of two": lambda: torch.tensor([2.0**k for k in range(-30, 5)] * 2) * torch.tensor([1.0, -1.0] * 35),
    "bfloat16": lambda: torch.randn(700).to(torch.bfloat16),
    "float16": lambda: (torch.randn(700) * 100).to(torch.float16),
    "float64": lambda: torch.randn(700, dtype=torch.float64),
    "complex": lambda: torch.randn(300, dtype=torch.complex64),
    "zeros": lambda: torch.zeros(20),
    "one value": lambda: torch.full((40,), -3.5),
    "not all finite": lambda: torch.tensor([1.0, -2.0, math.nan, math.inf, -math.inf, 0.0, -0.0, 5.0]),
    "transposed": lambda: torch.randn(40, 70).T,
    "channels last": lambda: torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("name", VALUES)
def test_bins_and_moments_of_all_values(name: str) -> None:
    torch.manual_seed(0)
    tensor = VALUES[name]()
    found = one(tensor)
    flat = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    values = flat.to(torch.float64).numpy().ravel()
    finite = values[np.isfinite(values)]
    histograms = found.histograms(Signal.WEIGHTS)
    limit = histograms.limit[0]
    assert math.log2(limit) == round(math.log2(limit))
    if finite.any():
        assert limit / 2 <= np.abs(finite).max() < limit
    np.testing.assert_array_equal(histograms.counts[0], expected_counts(values, limit))
    np.testing.assert_allclose(found.mean[0], finite.mean(), rtol=2e-5, atol=2e-6 * finite.std())
    np.testing.assert_allclose(found.std[0], finite.std(), rtol=2e-5, atol=1e-12 * abs(finite.mean()))
    assert found.zero[0] == pytest.approx((values == 0).mean())
    assert found.non_finite[0] == pytest.approx(1 - np.isfinite(values).mean())
    assert found.sampled[0] == found.elements[0] == values.size


def test_float64_beyond_float32_stays_finite_and_not_zero() -> None:
    found = one(torch.tensor([1e300, -1e300, 1e-300, 0.0], dtype=torch.float64))
    assert found.non_finite[0] == 0
    assert found.zero[0] == 0.25


def hot(shape: tuple[int, ...], axis: int, place: int) -> torch.Tensor:
    """Ones in one column, channel or unit of zeros."""
    tensor = torch.zeros(shape)
    tensor.select(axis, place).fill_(1.0)
    return tensor


LAYOUTS = [
    *(((64, 32, 32, 32), axis, place) for axis in (1, 2, 3) for place in (0, 13, 31)),
    *(((512, 784), 0, 5), ((512, 784), 1, 256), ((256, 4096), 1, 100), ((4096, 256), 0, 77)),
    ((64, 64, 64, 16), 1, 5),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_shares_stay_within_their_stated_error(layout: tuple[tuple[int, ...], int, int], channels_last: bool) -> None:
    shape, axis, place = layout
    tensor = hot(shape, axis, place)
    if channels_last and tensor.dim() == 4:
        tensor = tensor.to(memory_format=torch.channels_last)
    share = 1 / shape[axis]
    error = math.sqrt(share * (1 - share) / SAMPLE_SIZE)
    found = np.array([1 - one(tensor, turn).zero[0] for turn in range(12)])
    assert np.abs(found - share).max() < 4 * error
    assert abs(found.mean() - share) < 3 * error


def test_a_regular_stride_would_have_been_misled() -> None:
    """The case that samples at equal distances get wrong, so that the test above can fail."""
    tensor = hot((64, 32, 32, 32), 3, 0)
    regular = tensor.view(-1)[:: tensor.numel() // SAMPLE_SIZE]
    assert regular.mean() > 0.5


@pytest.mark.parametrize("count", [4097, 5000, 8192, 100_003, 2_000_000])
def test_places_are_in_bounds_for_every_turn_and_cover_all(count: int) -> None:
    places, slack = jittered(count, SAMPLE_SIZE), count // SAMPLE_SIZE
    assert len(places) == SAMPLE_SIZE and places.min() >= 0 and np.all(np.diff(places) >= 0)
    assert places.max() + slack - 1 < count
    seen = {int(place) + shift for place in places for shift in range(slack)}
    assert len(seen) > 0.6 * count


def test_the_sample_moves_from_step_to_step() -> None:
    tensor = torch.randn(1_000_000)
    means = {one(tensor, turn).mean[0] for turn in range(10)}
    assert len(means) == 10
    assert np.std(list(means)) < 2 / math.sqrt(SAMPLE_SIZE)


def test_no_random_number_is_drawn() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one(torch.arange(100_000, dtype=torch.float32))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_a_key_added_twice_is_one_row() -> None:
    rows = SampleRows()
    first, second = torch.randn(100) + 5, torch.randn(300) - 5
    rows.add("a", first)
    rows.add("b", torch.ones(7))
    rows.add("a", second)
    found = summed(rows)
    both = torch.cat([first, second]).double().numpy()
    assert found.keys == ("a", "b")
    np.testing.assert_allclose([found.mean[0], found.std[0]], [both.mean(), both.std()], rtol=1e-5)
    assert found.sampled.tolist() == [400, 7]


def test_several_share_a_pool() -> None:
    pool = Pool()
    one_, other = SampleRows(pool=pool), SampleRows(pool=pool)
    pool.clear()
    one_.clear(1)
    other.clear(1)
    one_.add("x", torch.full((10,), 2.0))
    other.add("x", torch.full((20,), -3.0))
    one_.add("y", torch.zeros(5))
    assert one_.reduce() == other.reduce() == []
    pool.read([array.to(torch.float64).numpy() for array in pool.reduce()])
    assert one_.read([]).mean.tolist() == [2.0, 0.0]
    assert other.read([]).mean.tolist() == [-3.0]
    assert one_.read([]).keys == ("x", "y")


def test_the_device_path_finds_the_same() -> None:
    torch.manual_seed(1)
    parts = [torch.randn(500) * 3 + 1, torch.tensor([math.nan, 1.0, 2.0]), torch.zeros(9)]
    lengths = [len(part) for part in parts]
    values = torch.cat(parts)
    segments = torch.from_numpy(np.repeat(np.arange(3), lengths))
    on_host = sample_rows._reduced_on_host(values.clone(), lengths)
    on_device = sample_rows._reduced_on_device(values.clone(), segments, 3)
    for ours, theirs in zip(on_host, on_device, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=1e-4)
