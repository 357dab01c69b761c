"""The table of layers over steps: every spike and oddity at its step, whatever layers come and go."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from nbdebug.journal.layer_cells import LARGEST
from nbdebug.journal.layer_table import MAX_BYTES, LayerTable
from nbdebug.records.layers import LayerValues
from nbdebug.records.signals import Signal
from nbdebug.records.view import Points

SIGNALS = (Signal.GRADIENT_MEAN, Signal.UPDATE_RATIO, Signal.GRADIENT_STATE, Signal.ACTIVATION_STD)
LAYERS = ("conv1", "relu", "fc")
FEW = 15 * 12 * 16  # bytes: room for 16 buckets of all cells


@dataclass
class Truth:
    """All samples of one cell, and what must be left of them in buckets of some width."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def left(self, width: int) -> dict[tuple[int, str], float]:
        found: dict[tuple[int, str], float] = {}
        by_bucket: dict[int, list[tuple[int, float]]] = {}
        for step, value in zip(self.steps, self.values, strict=True):
            by_bucket.setdefault(step // width, []).append((step, value))
        for samples in by_bucket.values():
            finite = [(float(np.float32(np.clip(v, -LARGEST, LARGEST))), s) for s, v in samples if np.isfinite(v)]
            odd = [(s, v) for s, v in samples if not np.isfinite(v)]
            for value, step in [min(finite), max(finite, key=lambda one: (one[0], -one[1]))] if finite else []:
                found[step, "finite"] = value
            for step, value in odd[:1]:
                found[step, str(value)] = value
        return found


def table_of(random: np.random.Generator, layers: tuple[str, ...], signals: tuple[Signal, ...]) -> LayerValues:
    """Values with spikes, NaN, inf and what a float32 can't hold; some absent."""
    shape = (len(signals), len(layers))
    values = random.normal(size=shape) * 10.0 ** random.choice([-45, -3, 0, 0, 0, 30, 300], shape)
    odd = random.random(shape) < 0.03
    values[odd] = random.choice([np.nan, np.inf, -np.inf], int(odd.sum()))
    present = random.random(shape) < 0.8
    return LayerValues(layers, signals, np.where(present, values, 0.0), present)


def seen(table: LayerTable, signal: Signal, layer: str) -> dict[tuple[int, str], float]:
    points = table.points(signal, layer)
    return by_step(points) if points is not None else {}


def by_step(points: Points) -> dict[tuple[int, str], float]:
    assert (np.diff(points.steps) >= 0).all()
    return {
        (step, "finite" if np.isfinite(value) else str(value)): value
        for step, value in zip(points.steps.tolist(), points.values.tolist(), strict=True)
    }


def filled(seed: int, samples: int, stride: int) -> tuple[LayerTable, dict[tuple[Signal, str], Truth], list[int]]:
    """A table, and the truth beside it; layers and signals change twice on the way."""
    random = np.random.default_rng(seed)
    table, truth, step, steps = LayerTable(max_bytes=FEW), {}, 0, []
    layers, signals = LAYERS[:2], SIGNALS[:2]
    for number in range(samples):
        if number == samples // 3:
            layers = LAYERS
        if number == samples // 2:
            layers, signals = (LAYERS[2], "head"), (SIGNALS[3], *SIGNALS[:3])
        step += int(random.integers(1, stride + 1))
        steps.append(step)
        sample = table_of(random, layers, signals)
        table.append(step, sample)
        for row, signal in enumerate(signals):
            for column, layer in enumerate(layers):
                if sample.present[row, column] and signal is not Signal.GRADIENT_STATE:
                    one = truth.setdefault((signal, layer), Truth())
                    one.steps.append(step)
                    one.values.append(float(sample.values[row, column]))
    return table, truth, steps


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("samples", "stride"), [(10, 1), (200, 1), (400, 60), (300, 2_000)])
def test_what_is_left_is_what_was_recorded(seed: int, samples: int, stride: int) -> None:
    table, truth, steps = filled(seed, samples, stride)
    assert len(table) <= table.capacity == 16
    assert sorted(table.layout.pairs()) == sorted(truth)
    for (signal, layer), one in truth.items():
        assert seen(table, signal, layer) == pytest.approx(one.left(table.width), nan_ok=True)
        few = table.points(signal, layer, max_points=10)
        wider = [one.left(table.width << times) for times in range(5)]
        assert sum(np.isfinite(few.values)) <= 10 and any(by_step(few) == pytest.approx(w, nan_ok=True) for w in wider)
        low, high = steps[len(steps) // 4], steps[len(steps) // 2]
        window = table.points(signal, layer, low, high)
        whole = table.points(signal, layer)
        inside = (whole.steps >= low) & (whole.steps <= high)
        np.testing.assert_array_equal(window.steps, whole.steps[inside])
        np.testing.assert_array_equal(window.values, whole.values[inside])


@pytest.mark.parametrize("seed", range(4))
def test_buckets_taken_in_elsewhere_make_the_same_table(seed: int) -> None:
    random = np.random.default_rng(seed)
    live, other, after = LayerTable(max_bytes=FEW), LayerTable(max_bytes=FEW), -1
    step = 0
    for number in range(400):
        step += int(random.integers(1, 9))
        layers = LAYERS[:2] if number < 150 else (*LAYERS, "head") if number < 300 else LAYERS[1:]
        live.append(step, table_of(random, layers, SIGNALS))
        if random.random() < 0.2 or number == 399:
            for bucket in live.buckets(after):  # the newest one comes again and again, fuller each time
                other.absorb(bucket)
                after = bucket.last_step
            assert other.width == live.width and other.layout.pairs() == live.layout.pairs()
            for key in live.layout.pairs():
                assert seen(other, *key) == pytest.approx(seen(live, *key), nan_ok=True)


def test_steps_in_very_wide_buckets_are_right_to_a_65536th() -> None:
    table = LayerTable(max_bytes=15 * 8)
    random = np.random.default_rng(0)
    steps = np.cumsum(random.integers(1, 2_000_000, 500)).tolist()
    for step in steps:
        value = 1e6 if step == steps[77] else -1e6 if step == steps[401] else float(random.normal())
        table.append(step, LayerValues(("a",), SIGNALS[:1], np.array([[value]]), np.ones((1, 1), dtype=np.bool_)))
    assert table.width > 1 << 20
    points = table.points(SIGNALS[0], "a")
    for spike, step in ((1e6, steps[77]), (-1e6, steps[401])):
        [found] = points.steps[points.values == spike].tolist()
        assert 0 <= step - found < table.width / 65_536


def test_two_extremes_that_share_a_rounded_step_are_both_kept() -> None:
    table = LayerTable(max_bytes=15 * 8, width=1 << 20)
    for step, value in ((16, 5.0), (17, -5.0)):
        table.append(step, LayerValues(("a",), SIGNALS[:1], np.array([[value]]), np.ones((1, 1), dtype=np.bool_)))
    assert sorted(table.points(SIGNALS[0], "a").values.tolist()) == [-5.0, 5.0]


def test_points_stay_put_while_more_come() -> None:
    table, _, steps = filled(0, 300, 5)
    before = table.points(Signal.UPDATE_RATIO, "head")
    width, last = table.width, steps[-1]
    for step in range(last + 1, last + 2 * width):
        table.append(step, table_of(np.random.default_rng(step), ("head",), SIGNALS[:2]))
        if table.width != width:
            break
        after = table.points(Signal.UPDATE_RATIO, "head")
        settled = before.steps < last // width * width
        assert set(before.steps[settled].tolist()) <= set(after.steps.tolist())


@pytest.mark.parametrize(("layers", "signals", "buckets"), [(60, 25, 512), (200, 30, 256), (1_000, 40, 32)])
def test_a_table_stays_below_its_size_however_many_layers(layers: int, signals: int, buckets: int) -> None:
    names = tuple(f"blocks.{index}.linear" for index in range(layers))
    kinds = tuple(signal for signal in Signal if signal is not Signal.GRADIENT_STATE)[:signals]
    values, present = np.ones((len(kinds), layers)), np.ones((len(kinds), layers), dtype=np.bool_)
    table = LayerTable()
    for step in range(1, 1_200):
        table.append(step, LayerValues(names, kinds, values, present))
    assert buckets // 2 < len(table) <= table.capacity == buckets
    assert table.size_bytes <= MAX_BYTES
    before = table.size_bytes
    while table.shrink():
        assert table.size_bytes <= before // 2 + 1
        before = table.size_bytes
    assert len(table) <= 8
    assert table.points(kinds[0], names[-1]).steps[0] == 1


def test_tracks_of_all_layers_say_what_was_odd() -> None:
    table, truth, steps = filled(3, 200, 3)
    for stretches in (16, 5):
        tracks = table.tracks(Signal.UPDATE_RATIO, stretches)
        assert tracks.layers == table.layout.of(Signal.UPDATE_RATIO)[1]
        assert len(tracks.steps) <= stretches and tracks.steps[-1] == steps[-1]
        begins = [0, *(tracks.steps[:-1] + 1).tolist()]
        for column, layer in enumerate(tracks.layers):
            one = truth[Signal.UPDATE_RATIO, layer]
            for row, (begin, end) in enumerate(zip(begins, tracks.steps.tolist(), strict=True)):
                inside = [v for s, v in zip(one.steps, one.values, strict=True) if begin <= s <= end]
                finite = np.clip([v for v in inside if np.isfinite(v)], -LARGEST, LARGEST).astype(np.float32)
                assert tracks.odd[row, column] == (len(finite) < len(inside))
                expected = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
                np.testing.assert_array_equal((tracks.low[row, column], tracks.high[row, column]), expected)
    assert table.tracks(Signal.GRADIENT_STATE, 16) is None and table.tracks(Signal.LOSS, 16) is None
