"""The file's size: it stays under its limit, spikes stay, and readers follow."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from nbdebug.debugger_journal import Journal as StoredJournal
from nbdebug.journal import limit
from nbdebug.journal.journal import Journal
from nbdebug.journal.store import Store
from nbdebug.records.frames import Frame
from nbdebug.records.manifest import Manifest
from nbdebug.records.runs import Run
from nbdebug.records.signals import Signal
from tests.journal.made import SERIES, TRAIN, fill, histograms, layer_values

LIMIT = 600_000


@pytest.fixture(autouse=True)
def _checked_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "CHECK_EVERY", 1)


def test_curves_are_thinned_and_keep_their_spikes(tmp_path: Path) -> None:
    path, spikes = tmp_path / "j.sqlite", {777: 1e6, 30_001: -1e6, 59_990: 2e6}
    live = Journal(Store(path, size_limit_bytes=LIMIT))
    live.begin_run(Run("main"))
    stored = StoredJournal.open(path)
    numbers = np.random.default_rng(0).normal(size=60_001)
    for step in range(1, 60_001):
        value = spikes.get(step, float(numbers[step]))
        live.record(Frame("main", step, 0, tuple((series, value) for series in SERIES)))
        if step % 500 == 0:
            live._store.sync()
        if step % 7_000 == 0:
            stored.refresh()
            steps, values = stored.history["loss/train"]
            assert {number for at, number in spikes.items() if at <= step} <= set(values)
            assert steps[-1] == step
    live.close()
    assert path.stat().st_size <= LIMIT
    stored.refresh()
    for series in SERIES:
        steps, values = stored.history[series.text]
        assert set(spikes.values()) <= set(values) and len(steps) > 500
        assert all(spikes.get(step, numbers[step]) == value for step, value in zip(steps, values, strict=True))
    assert stored._view(400).runs[0].metrics == live.run_views(400)[0].metrics
    with closing(sqlite3.connect(path)) as file:
        [widths] = zip(*file.execute("SELECT width FROM points ORDER BY id").fetchall(), strict=True)
    assert max(widths) > 1 and min(widths) < max(widths)


def test_layer_records_are_halved_and_keep_their_peaks(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    layers = tuple(f"layer{index}" for index in range(40))
    store = Store(path, size_limit_bytes=3 * LIMIT)
    live = Journal(store)
    for name in ("a", "b", "c"):
        live.begin_run(Run(name))
        for step in range(1, 101):
            live.record(Frame(name, step, 0, ((TRAIN, 1.0),), 0, layer_values(step, layers), histograms(step, layers)))
        store.sync()
    live.close()
    assert not store.failed
    assert path.stat().st_size <= 3 * LIMIT
    stored = StoredJournal.open(path)
    peak = max(np.float32(layer_values(step, layers).of(Signal.GRADIENT_MAX)[0][0]) for step in range(1, 101))
    for name in ("a", "b", "c"):
        steps, values = stored.history.of(name)["grad_max/layer0"]
        assert len(steps) >= 1 and max(values) == peak
        assert stored._memory.layers_view(name).step == 100
    counts = [len(stored.history.of(name)["grad_max/layer0"].steps) for name in ("a", "b", "c")]
    assert counts == sorted(counts) and counts[0] < 100


def test_a_run_whose_records_were_thinned_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    store = Store(path)
    live = Journal(store)
    live.begin_run(Run("main"))
    fill(live, 1, 700)
    store.sync()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        [session] = other.execute("SELECT id FROM sessions").fetchone()
        thinner = limit.Limit(other, 1, session + 1)
        assert thinner._thin_samples(())
    fill(live, 701, 800)
    live.close()
    history = StoredJournal.open(path).history
    assert history["grad_max/fc"].steps.tolist() == list(range(7, 800, 7))
    assert history["update_ratio/fc"].steps.tolist() == list(range(7, 800, 7))
    assert history["activations/fc"].steps.tolist() == list(range(7, 800, 7))


def test_old_sessions_go_when_nothing_else_helps(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    random = np.random.default_rng(0)
    for number in range(12):
        store = Store(path, size_limit_bytes=LIMIT)
        live = Journal(store)
        live.begin_run(Run("main"))
        live.record_manifest(Manifest("main", git={"diff": random.bytes(60_000).hex()}))
        live.record(Frame("main", 1, 0, ((TRAIN, float(number)),)))
        live.close()
        assert not store.failed
    assert path.stat().st_size <= LIMIT
    sessions = StoredJournal.open(path).sessions
    assert 3 <= len(sessions) < 12
    assert StoredJournal.open(path).history["loss/train"].values.tolist() == [11.0]
