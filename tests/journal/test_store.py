"""The file: what is written can be read back, whatever else happens training does not feel it."""

from __future__ import annotations

import gc
import json
import math
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbdebug.debugger_journal import Journal as StoredJournal
from nbdebug.journal import histogram_track, layer_table, limit, pending, schema, tables
from nbdebug.journal.history import History
from nbdebug.journal.journal import Journal
from nbdebug.journal.store import Store
from nbdebug.records.commands import Changes, Outcome, Pause, SetKnobs
from nbdebug.records.errors import ConfigurationError, FileFormatError
from nbdebug.records.finder import LrCurve
from nbdebug.records.findings import Cause, Finding, Gone, Remedy, Severity
from nbdebug.records.frames import Frame, Rows
from nbdebug.records.layers import Unseen
from nbdebug.records.manifest import Manifest
from nbdebug.records.proofs import Proof
from nbdebug.records.runs import Intervention, Mark, Reseed, Run, RunKind
from nbdebug.records.search import SearchEngine, SearchResult
from nbdebug.records.signals import Series, Signal
from nbdebug.records.snapshots import Reason, SnapshotInfo
from nbdebug.records.view import Focus, Points
from tests.journal.made import SERIES, TRAIN, fill, frame, histograms, layer_values, rows
from tests.journal.test_codec import ROW, TRIAL, same

FINDING = Finding(Cause.NAN_LOSS, Severity.CRITICAL, "main", 9, "t", "w")
OUTCOME = Outcome(Pause(), "main", 3, True, "paused")


FOCUS = Focus("fc", Signal.WEIGHTS, (Signal.UPDATE_RATIO, Signal.GRADIENT_MEAN), (Signal.GRADIENT_MEAN,))


def assert_same_record(live: Journal, stored: StoredJournal) -> None:
    """All that the stored journal offers is what the live one holds, bit for bit."""
    assert list(stored.runs.items()) == list(live.runs.items())
    for name in live.runs:
        ours, theirs = History(live, lambda name=name: name), stored.history.of(name, inherited=True)
        assert list(ours) == list(theirs)
        assert all(same(tuple(ours[key]), tuple(theirs[key])) for key in ours)
        assert stored.interventions(name) == live.interventions(name)
    for view, seen in zip(live.run_views(500), stored._view(500).runs, strict=True):
        assert same(view, seen)
        assert same(live.layers_view(name, FOCUS), stored._memory.layers_view(name, FOCUS))
    for what in ("outcomes", "findings", "marks", "manifests", "snapshots"):
        assert getattr(stored, what) == getattr(live, what), what
    for what in ("comparisons", "searches", "lr_curves", "proofs"):
        assert same(getattr(stored, what), getattr(live, what)), what
    assert stored._memory.told == live.told, "what came and went, in the order in which it did"


def tell_all(journal: Journal) -> None:
    """One of everything."""
    from nbdebug.records.comparison import Comparison, Verdict

    journal.begin_run(Run("main", created_s=1.0))
    journal.record_manifest(Manifest("main", {"lr": 0.1}))
    fill(journal, 1, 2_500)
    journal.record_rows(rows(2_501, 2_700))
    journal.record_rows(rows(2_701, 2_701))
    journal.record_rows(rows(2_650, 2_660, series=(Series(Signal.CLIP_RATE),)))
    journal.begin_run(Run("draft", "main", 700))
    journal.mark(Mark("draft", 700, "goes with its run"))
    journal.begin_run(Run("lr 0.5", "main", 700, "lr 0.5"))
    journal.delete_run("draft")
    journal.mark(Mark("lr 0.5", 700, "lr 0.5"))
    journal.record_intervention(Intervention("lr 0.5", 700, 7, Reseed(5)))
    fill(journal, 701, 900, "lr 0.5")
    journal.edit_run(Run("lr 0.5", "main", 700, "lr 0.5", title="faster", pinned=True))
    journal.begin_run(Run("gone", "main", 100))
    journal.record_manifest(Manifest("gone"))
    fill(journal, 101, 300, "gone")
    journal.delete_run("gone")
    journal.record_unseen("main", (Unseen("fc", "activations", "never called"),))
    journal.record_unseen("main", (Unseen("fc", "activations", "not called as a module"),))
    journal.record_snapshots((SnapshotInfo("a", "main", 0, 0, Reason.START, 5),))
    journal.record_snapshots((SnapshotInfo("b", "main", 9, 0, Reason.EPOCH, 5, pinned=True),))
    rate = Finding(Cause.LR_TOO_HIGH, Severity.WARNING, "main", 40, "t", "w", first_step=30, check="lr_too_high")
    journal.record_finding(rate)
    journal.record_gone(Gone("main", 60, rate.cause, rate.check, 50))
    journal.record_finding(FINDING)
    journal.record_finding(replace(rate, step=90))
    journal.record_outcome(OUTCOME)
    journal.record_comparison(Comparison("main", "lr 0.5", 701, 900, 6, (ROW,), Verdict.BETTER, "better"))
    proven = Comparison("main", "lr 0.5", 701, 900, 6, (ROW,), Verdict.BETTER, "better")
    journal.record_proof(Proof(rate, Remedy("slower", SetKnobs(Changes(lr=0.5))), 1, "lr 0.5", proven))
    lost = replace(TRIAL, number=2, score=math.nan)
    for number, trials in ((1, ()), (1, (TRIAL,)), (2, (TRIAL, lost))):
        space = {"lr": (1e-4, 1.0), "clip_norm": [None, 0.5]}
        search = SearchResult("val_loss", True, trials, space, SearchEngine.OPTUNA, 2, 40, "main", 2_701, number)
        journal.record_search(search)
    journal.record_lr_curve(LrCurve(np.array([1e-7, 1.0]), np.array([2.0, math.inf]), np.array([2.0, math.nan])))
    assert [len(search.trials) for search in journal.searches] == [1, 2]


def test_what_is_read_back_is_what_was_live(tmp_path: Path) -> None:
    live = Journal(Store(tmp_path / "j.sqlite"))
    tell_all(live)
    live.close()
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as file:
        assert file.execute("SELECT number FROM searches").fetchall() == [(1,), (2,)], "a search has one row"
    assert_same_record(live, StoredJournal.open(tmp_path / "j.sqlite"))


def test_what_is_followed_is_what_was_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FANOUT", 3)
    monkeypatch.setattr(tables, "MAX_POINTS", 300)
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("long"))
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    for first in range(1, 1_200, 17):
        fill(live, first, first + 16, "long")
        live._store.sync()
        if first % 3:
            stored.refresh()
            assert_same_record(live, stored)
    tell_all(live)
    live._store.sync()
    stored.refresh()
    assert_same_record(live, stored)
    live.close()
    stored.refresh()
    assert_same_record(live, stored)


@pytest.mark.parametrize("every", [2, 40])
def test_layers_merged_in_memory_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    monkeypatch.setattr(layer_table, "MAX_BUCKETS", 16)
    monkeypatch.setattr(histogram_track, "MAX_RECORDS", 10)
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    for number, step in enumerate(range(1, 900, 3)):
        layers = ("conv1", "fc") if step < 400 else ("conv1", "conv2", "fc") if step < 700 else ("conv2", "head")
        scalars = frame(step).scalars
        live.record(Frame("main", step, 0, scalars, 1, layer_values(step, layers), histograms(step, layers)))
        if number % every == 0:
            live._store.sync()
            stored.refresh()
            assert_same_record(live, stored)
    live.close()
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as file:
        counts = dict(file.execute("SELECT kind, count(*) FROM samples GROUP BY kind"))
    held = live.read(
        "main", lambda kept: len(kept.layers.table) + 1 + sum(len(t.records) for t in kept.layers.tracks.values())
    )
    assert sum(counts.values()) <= 2.5 * held + 16 < 120, "few are left of the time when buckets were narrow"
    assert counts.pop("layers") >= 8 and counts.pop("histograms/activations") >= 5 and counts.pop("histograms/weights")
    assert counts == {"latest": 1}
    assert_same_record(live, StoredJournal.open(tmp_path / "j.sqlite"))


def test_runs_that_measure_noise_keep_no_layers(tmp_path: Path) -> None:
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    fill(live, 1, 20)
    live.begin_run(Run("seed 1", "main", 20, kind=RunKind.NOISE))
    fill(live, 21, 60, "seed 1")
    assert live.layers_view("seed 1").step == 14, "what it began with"
    assert "grad_max/fc" not in History(live, lambda: "seed 1", inherited=False)
    live.close()
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    assert [key for key in stored.history.of("seed 1")] == [series.text for series in SERIES]
    assert "grad_max/fc" in stored.history.of("seed 1", inherited=True)


def test_a_run_that_a_reader_has_seen_goes(tmp_path: Path) -> None:
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    live.begin_run(Run("branch", "main", 10))
    live.mark(Mark("branch", 10, "here"))
    fill(live, 11, 300, "branch")
    live._store.sync()
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    assert_same_record(live, stored)
    live.delete_run("branch")
    live.begin_run(Run("branch", "main", 20))
    fill(live, 21, 30, "branch")
    live._store.sync()
    stored.refresh()
    assert_same_record(live, stored)
    live.close()


def test_the_number_of_rows_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FANOUT", 4)
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    for step in range(1, 300):
        live.record(frame(step, series=(TRAIN,)))
        live._store.sync()
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as file:
        [most] = file.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM points GROUP BY line)").fetchone()
    assert 1 < most <= 3 * 5
    live.close()


def test_runs_and_manifests_are_in_the_file_when_the_method_returns(tmp_path: Path) -> None:
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    live.record_manifest(Manifest("main", device="cpu"))
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as file:
        assert file.execute("SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM manifests)").fetchone() == (1, 1)
    live.edit_run(Run("main", note="a note"))
    assert StoredJournal.open(tmp_path / "j.sqlite").runs["main"].note == "a note"
    live.close()


# -- where it can't be written ----------------------------------------------------------------------------------


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        ConfigurationError, match=r"can't be written to .*file/\.nbdebug.*another folder, or journal=None"
    ):
        Store(tmp_path / "file" / ".nbdebug" / "j.sqlite")


def _foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE theirs (x)")
        file.commit()


def _foreign_database_left_open(path: Path) -> None:
    """Most of it still lies in its -wal file; whoever opens and closes it to write would move that over."""
    code = """if True:
        import os, sqlite3, sys
        file = sqlite3.connect(sys.argv[1], isolation_level=None)
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("CREATE TABLE theirs (x)")
        os._exit(0)"""
    subprocess.run([sys.executable, "-c", code, path], check=True)


def _newer_journal(path: Path) -> None:
    Store(path).close()
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        file.commit()


def _cut_journal(path: Path) -> None:
    tell = Journal(Store(path))
    tell_all(tell)
    tell.close()
    path.write_bytes(path.read_bytes()[:5_000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"a picture"), "no journal of nbdebug, nor an SQLite database"),
        (_foreign_database, "a database of another program"),
        (_foreign_database_left_open, "a database of another program"),
        (_newer_journal, f"version {schema.VERSION + 1} .* knows up to {schema.VERSION}: update nbdebug"),
        (_cut_journal, "is damaged .* was left as it is"),
    ],
    ids=["no database", "foreign", "foreign, left open", "newer", "damaged"],
)
def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "j.sqlite"
    make(path)
    before = path.read_bytes()
    with pytest.raises(FileFormatError, match=message):
        Store(path)
    with pytest.raises(FileFormatError, match=message):
        StoredJournal.open(path)
    assert path.read_bytes() == before


class FullDisk(sqlite3.Connection):
    """A connection whose disk is full from a moment on."""

    full = False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.full and sql.startswith("INSERT"):
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *values)


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path: Path) -> None:
    connections: list[FullDisk] = []
    told: list[str] = []

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        connections.append(sqlite3.connect(*args, factory=FullDisk, **options))
        return connections[-1]

    store = Store(tmp_path / "j.sqlite", on_error=told.append, connect=connect)
    live = Journal(store)
    live.begin_run(Run("main"))
    fill(live, 1, 10)
    assert store.sync()
    connections[0].full = True
    for first in range(11, 41, 10):
        fill(live, first, first + 9)
        assert not store.sync()
    live.begin_run(Run("branch", "main", 10))
    live.close()
    assert len(told) == 1
    assert "j.sqlite any more: database or disk is full" in told[0] == store.failed
    assert History(live, lambda: "main")["loss/train"].steps.tolist() == list(range(1, 41))
    assert StoredJournal.open(tmp_path / "j.sqlite").history["loss/train"].steps.tolist() == list(range(1, 11))


def test_a_deleted_file_is_noticed(tmp_path: Path) -> None:
    told: list[str] = []
    store = Store(tmp_path / "j.sqlite", on_error=told.append)
    live = Journal(store)
    live.begin_run(Run("main"))
    (tmp_path / "j.sqlite").unlink()
    fill(live, 1, 10)
    assert not store.sync()
    live.close()
    assert len(told) == 1 and "No such file" in told[0]


def test_a_record_that_can_not_be_encoded_does_not_reach_training(tmp_path: Path) -> None:
    told: list[str] = []
    live = Journal(Store(tmp_path / "j.sqlite", on_error=told.append))
    live.begin_run(Run("main\ud800"))
    live.close()
    assert len(told) == 1 and "surrogates" in told[0]


# -- a disk that is slow or held by others ----------------------------------------------------------------------


def test_recording_never_waits_and_what_is_pending_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MAX_FRAMES", 200)
    monkeypatch.setattr(pending, "BACKLOG_CAPACITY", 64)
    store = Store(tmp_path / "j.sqlite")
    live = Journal(store)
    live.begin_run(Run("main"))
    with closing(sqlite3.connect(tmp_path / "j.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        slowest = 0.0
        for step in range(1, 5_001):
            began = time.perf_counter()
            live.record(frame(step, series=(TRAIN,)) if step != 2_345 else spike(step))
            slowest = max(slowest, time.perf_counter() - began)
        batch = store._writer.pending._batch
        assert len(batch.log) <= 200
        assert sum(len(curve) for curve in batch.backlog.values()) <= 2 * 64
        other.execute("COMMIT")
    assert slowest < schema.BUSY_S / 2, "the file is held all the time: to wait for it takes twice that"
    live.close()
    steps, values = StoredJournal.open(tmp_path / "j.sqlite").history["loss/train"]
    assert 1e9 in values and steps[-1] == 5_000
    others = [(step, value) for step, value in zip(steps.tolist(), values.tolist(), strict=True) if value != 1e9]
    assert all(same(frame(step, series=(TRAIN,)).scalars[0][1], value) for step, value in others)


def spike(step: int) -> Any:
    from dataclasses import replace

    return replace(frame(step, series=(TRAIN,)), scalars=((TRAIN, 1e9),))


def test_entries_keep_their_order_with_a_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_FRAMES", 10)
    waiting = pending.Pending()
    for step in range(1, 31):
        waiting.add(pending.Taken.of(frame(step)))
    waiting.put(pending.RunDeleted("main"))
    waiting.put(pending.RunBegun(Run("main")))
    waiting.add(pending.Taken.of(frame(1)))
    batch = waiting.take()
    assert [type(entry).__name__ for entry in batch.log][10:] == ["RunDeleted", "RunBegun"]
    assert all(curve.points().steps.tolist() == [1] for curve in batch.backlog.values())
    assert not waiting


def test_blocks_beyond_what_may_wait_keep_their_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_ROWS", 1_000)
    waiting, spikes = pending.Pending(), {70, 1_500, 7_999}
    for first in range(1, 8_001, 100):
        steps = np.arange(first, first + 100)
        column = np.array([[1e6 if step in spikes else np.sin(step) for step in steps.tolist()]])
        waiting.add(pending.TakenRows(Rows("main", 3, (TRAIN,), steps, column.T), column, Points(steps, column[0])))
    batch = waiting.take()
    assert len(batch.log) == 10 and batch.frames == 10 and batch.places == {"main": (8_000, 3)}
    assert {line.smooth for line in batch.backlog} == {False, True}
    for curve in batch.backlog.values():
        assert len(curve) <= pending.BACKLOG_CAPACITY
        points = curve.points()
        assert points.steps[points.values == 1e6].tolist() == [1_500, 7_999]


def test_a_run_is_never_set_back_by_what_comes_later(tmp_path: Path) -> None:
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    for block in (rows(1, 250), rows(101, 150, series=(Series(Signal.CLIP_RATE),))):
        live.record_rows(block)
        live._store.sync()
    live.close()
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    assert (stored._view(9).status.step, stored._view(9).status.epoch, stored._view(9).runs[0].steps) == (250, 2, 250)


def test_a_file_held_by_another_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "BUSY_S", 0.05)
    store = Store(tmp_path / "j.sqlite")
    live = Journal(store)
    live.begin_run(Run("main"))
    with closing(sqlite3.connect(tmp_path / "j.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        fill(live, 1, 50)
        assert not store.sync(0.6)
        assert not store.failed
        other.execute("COMMIT")
    assert store.sync()
    fill(live, 51, 100)
    live.close()
    assert_same_record(live, StoredJournal.open(tmp_path / "j.sqlite"))


# -- several ----------------------------------------------------------------------------------------------------

CHILD = """
import sys
from nbdebug.journal.journal import Journal
from nbdebug.journal.store import Store
from nbdebug.records.runs import Run
from tests.journal.made import fill
live = Journal(Store(sys.argv[1]))
live.begin_run(Run("main"))
fill(live, 1, int(sys.argv[2]))
live.close()
"""


def test_several_write_to_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    children = [subprocess.Popen([sys.executable, "-c", CHILD, path, str(steps)]) for steps in (700, 900)]
    mine = [Journal(Store(path)) for _ in range(2)]
    for number, journal in enumerate(mine):
        journal.begin_run(Run("main"))
        fill(journal, 1, 300 + number)
    for journal in mine:
        journal.close()
    assert [child.wait(60) for child in children] == [0, 0]
    opened = StoredJournal.open(path)
    assert sorted(session.steps for session in opened.sessions) == [300, 301, 700, 900]
    for session in opened.sessions:
        steps, values = StoredJournal.open(path, session.id).history["loss/train"]
        assert steps.tolist() == list(range(1, session.steps + 1))
        assert values.tolist() == [frame(step).scalars[0][1] for step in steps.tolist()]


def test_many_make_the_file_at_once(tmp_path: Path) -> None:
    stores: list[Store] = []
    threads = [threading.Thread(target=lambda: stores.append(Store(tmp_path / "j.sqlite"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({store.session for store in stores}) == 8
    for store in stores:
        store.close()


def test_the_change_to_wal_waits_for_its_turn() -> None:
    class Busy:
        tries = 0

        def execute(self, sql: str) -> None:
            self.tries += 1
            if self.tries < 3:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error

    busy: Any = Busy()
    schema._use_wal(busy)
    assert busy.tries == 3


def test_closing_twice_and_letting_go(tmp_path: Path) -> None:
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    fill(live, 1, 5, sample_every=1_000)
    live.close()
    live.close()
    live.record(frame(6))
    other = Journal(Store(tmp_path / "j.sqlite"))
    other.begin_run(Run("main"))
    fill(other, 1, 7, sample_every=1_000)
    del other
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "nbdebug journal"]
    assert [session.steps for session in StoredJournal.open(tmp_path / "j.sqlite").sessions] == [5, 7]


def test_an_interpreter_that_ends_writes_all(tmp_path: Path) -> None:
    child = CHILD.replace("live.close()", "")
    subprocess.run([sys.executable, "-c", child, tmp_path / "j.sqlite", "123"], check=True)
    [session] = StoredJournal.open(tmp_path / "j.sqlite").sessions
    assert session.steps == 123 and session.ended_s is not None


# -- versions ---------------------------------------------------------------------------------------------------


def _version_1(path: Path) -> None:
    """A file as version 1 wrote it, made here by hand: it had no comparisons."""
    with closing(sqlite3.connect(path)) as file:
        file.executescript(schema.TABLES_1)
        file.execute("INSERT INTO sessions VALUES (1, 'old', 1, 2, 2, 3, 'host', '/there', 0)")
        run = json.dumps({"$": "Run", "of": {"name": "main"}})
        file.execute("INSERT INTO runs VALUES (1, 1, 'main', 0, 3, 0, 2, ?)", (run,))
        file.execute("INSERT INTO lines VALUES (1, 1, 'main', 'loss', '', 'train', 0)")
        values = np.array([3.0, 2.0, 1.0]).tobytes()
        file.execute("INSERT INTO points VALUES (1, 1, 0, 3, 1, 1, NULL, ?)", (values,))
        file.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        file.execute("PRAGMA user_version = 1")
        file.commit()


def _old_layer_records(path: Path) -> None:
    """Those of a time when they were whole records of two kinds."""
    array = {"$": "array", "of": ["<f8", [1], 0]}
    flow = {"layers": {"$": "tuple", "of": ["fc"]}, "mean": array, "max": array, "state": array}
    with closing(sqlite3.connect(path)) as file:
        for kind, name in (("gradients", "GradientFlow"), ("activations", "Activations")):
            body = json.dumps({"$": name, "of": flow})
            for slot in range(-1, 8):
                row = (kind, slot, 7 * slot + 7, body, bytes(8))
                file.execute("INSERT INTO samples VALUES (NULL, 1, 'main', ?, ?, ?, ?, ?)", row)
        file.commit()


def test_layer_records_of_older_kinds_are_passed_over_and_thinned(tmp_path: Path) -> None:
    _version_1(tmp_path / "j.sqlite")
    _old_layer_records(tmp_path / "j.sqlite")
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    assert list(stored.history) == ["loss/train"] and "could not be read" not in repr(stored)
    assert stored._view(400).layers.latest is None
    with closing(sqlite3.connect(tmp_path / "j.sqlite", isolation_level=None)) as file:
        thinner = limit.Limit(file, 1, 99)
        assert thinner._thin_samples(()) and thinner._thin_samples(()) and not thinner._thin_samples(())
        assert file.execute("SELECT kind, count(*), max(step) FROM samples GROUP BY kind").fetchall() == [
            ("activations", 5, 56), ("gradients", 5, 56),
        ]  # fmt: skip
    live = Journal(Store(tmp_path / "j.sqlite"))
    tell_all(live)
    live.close()
    assert_same_record(live, StoredJournal.open(tmp_path / "j.sqlite"))


def test_a_file_of_version_1_is_read_as_it_is(tmp_path: Path) -> None:
    _version_1(tmp_path / "j.sqlite")
    before = (tmp_path / "j.sqlite").read_bytes()
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    assert stored.history["loss/train"].values.tolist() == [3, 2, 1]
    assert stored.comparisons == stored.proofs == stored.courses == ()
    assert (tmp_path / "j.sqlite").read_bytes() == before


def test_a_file_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    _version_1(tmp_path / "j.sqlite")
    live = Journal(Store(tmp_path / "j.sqlite"))
    tell_all(live)
    live.close()
    assert_same_record(live, StoredJournal.open(tmp_path / "j.sqlite"))
    old = StoredJournal.open(tmp_path / "j.sqlite", "old")
    assert old.history["loss/train"].values.tolist() == [3, 2, 1]
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
