"""The axis of distributions: counts stay whole, a Gaussian is a bell, and cells are where the values are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from nbdebug.dashboard.figures import symlog
from nbdebug.records.layers import edges

RANDOM = np.random.default_rng(0)


def binned(values):
    """Counts and limit of one layer, as recorded."""
    values = np.asarray(values, np.float64)
    limit = 2.0 ** (np.floor(np.log2(np.abs(values).max())) + 1) if np.abs(values).max() > 0 else 0.0
    counts, _ = np.histogram(values / (limit or 1.0), edges())
    return counts[None].astype(np.float64), np.array([limit])


SAMPLES = {
    "gaussian": RANDOM.normal(0, 0.37, 4096),
    "tiny": RANDOM.normal(0, 3e-12, 4096),
    "rectified": np.maximum(RANDOM.normal(0, 5, 4096), 0),
    "heavy tails": RANDOM.standard_cauchy(4096),
    "around one": RANDOM.normal(1, 0.01, 4096),
    "two values": np.repeat([-1e-3, 7.0], 100),
    "zeros": np.zeros(50),
}


@pytest.mark.parametrize("values", SAMPLES.values(), ids=SAMPLES)
def test_cells_hold_exactly_what_lies_in_them(values):
    counts, limit = binned(values)
    unit = symlog.units(counts, limit)
    borders = symlog.borders() * unit[0]
    clipped = np.clip(values, borders[0], np.nextafter(borders[-1], 0))
    middle = symlog.SIDE
    inner = np.abs(clipped) < borders[middle + 1]  # the cell around 0; of the rest a bin's upper border is its cell's
    expected = np.zeros(symlog.CELLS)
    expected[middle] = inner.sum()
    for index, (low, high) in enumerate(pairwise(borders)):
        if index != middle:
            inside = (clipped > low) & (clipped <= high) if index < middle else (clipped >= low) & (clipped < high)
            expected[index] = (inside & ~inner).sum()
    np.testing.assert_array_equal(symlog.cells(counts, limit, unit)[0], expected)
    assert np.log2(unit[0]) == np.round(np.log2(unit[0]))


@pytest.mark.parametrize("scale", [1e-9, 0.013, 1.0, 1.4, 2.6e5])
def test_a_gaussian_is_a_bell(scale):
    counts, limit = binned(RANDOM.normal(0, scale, 200_000))
    unit = symlog.units(counts, limit)
    assert 1.0 <= unit[0] / scale <= 3.0
    dense = symlog.density(symlog.cells(counts, limit, unit))[0]
    coarse = np.array([dense[index - 1 : index + 2].mean() for index in range(1, symlog.CELLS - 1)])
    rising, falling = coarse[: symlog.SIDE - 3], coarse[symlog.SIDE + 3 :]
    assert (np.diff(rising) >= -0.05 * dense.max()).all() and (np.diff(falling) <= 0.05 * dense.max()).all()
    assert dense.argmax() in range(symlog.SIDE - 9, symlog.SIDE + 10)


def test_density_is_a_share_over_a_width():
    counts, limit = binned(SAMPLES["heavy tails"])
    dense = symlog.density(symlog.cells(counts, limit, symlog.units(counts, limit)))
    assert (dense[0] * np.diff(symlog.position(symlog.borders()))).sum() == pytest.approx(1)
    assert symlog.heights(dense).max() == 1 and not symlog.heights(np.zeros((1, 3))).any()


def test_what_is_used_is_on_the_axis():
    counts = np.zeros((2, symlog.CELLS))
    assert symlog.reach(counts) == 2
    counts[0, symlog.SIDE + 12] = 1
    assert symlog.borders()[symlog.SIDE + 13] <= symlog.reach(counts) == 4


def test_the_spread_is_that_of_the_values():
    for name in ("gaussian", "rectified"):
        counts, limit = binned(SAMPLES[name])
        assert symlog.spread(counts, limit)[0] == pytest.approx(SAMPLES[name].std(), rel=0.06)
    assert np.isnan(symlog.spread(np.zeros((1, edges().size - 1)), np.ones(1)))[0]
