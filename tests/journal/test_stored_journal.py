"""The journal opened from its file: elsewhere, later, without torch, read-only."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nbdebug.debugger_journal import Journal as StoredJournal
from nbdebug.journal.journal import Journal
from nbdebug.journal.schema import FILE_NAME
from nbdebug.journal.store import Store
from nbdebug.records.commands import Stop
from nbdebug.records.errors import ClosedError, ConfigurationError, FileFormatError
from nbdebug.records.runs import Mark, Run, RunKind
from nbdebug.records.signals import Signal
from nbdebug.records.status import State
from tests.journal.made import fill, frame
from tests.journal.test_store import tell_all

REPOSITORY = Path(__file__).resolve().parents[2]

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # an import of it raises
from nbdebug import Journal
journal = Journal.open(sys.argv[1])
assert journal.history["loss/train"].steps[-1] == 900
bundle, _ = journal._repr_mimebundle_()
assert "application/vnd.jupyter.widget-view+json" in bundle, bundle
print(bundle["text/plain"])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder .nbdebug with a journal in it, whose debugger is over."""
    live = Journal(Store(tmp_path / ".nbdebug"))
    tell_all(live)
    live.close()
    return tmp_path / ".nbdebug"


def test_it_shows_itself_without_torch(folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, folder]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "from disk" in text and "faster" in text and "step 900" in text and "critical: t. w" in text


@pytest.mark.parametrize("where", ["", FILE_NAME])
def test_the_file_or_its_folder(folder: Path, where: str) -> None:
    stored = StoredJournal.open(folder / where)
    assert stored.path == folder / FILE_NAME
    assert repr(stored) == (
        f"<Journal {folder / FILE_NAME}, session {stored.session}: 2 runs, 3 findings; "
        "run 'lr 0.5' came to epoch 9, step 900>"
    )


def test_a_view_as_of_a_debugger_that_rests(folder: Path) -> None:
    view = StoredJournal.open(folder)._view(400)
    assert view.stored and view.status.state is State.IDLE
    assert (view.status.run, view.status.step, view.status.last_step, view.status.epoch) == ("lr 0.5", 900, 900, 9)
    assert view.layers.step == 896
    assert [(kept.signal, step) for kept, step in view.layers.histograms] == [
        (Signal.ACTIVATIONS, 896),
        (Signal.WEIGHTS, 875),
    ]
    assert view.layers.tracks == () and view.layers.story is None
    assert [run.run.shown for run in view.runs] == ["main", "faster"]
    assert view.comparison is not None and view.comparison.run == "lr 0.5"


def test_commands_are_refused_and_say_so(folder: Path) -> None:
    stored = StoredJournal.open(folder)
    stored._refuse(Stop())
    outcome = stored._view(400).outcomes[-1]
    assert not outcome.ok and "journal from disk" in outcome.text
    assert outcome not in stored.outcomes


def test_histories_of_runs(folder: Path) -> None:
    stored = StoredJournal.open(folder)
    assert stored.history["loss/train"].steps.tolist() == list(range(1, 901))
    assert stored.history.of("lr 0.5")["loss/train"].steps.tolist() == list(range(701, 901))
    assert stored.history.of("main")["loss/val"].steps.tolist() == list(range(100, 2_501, 100))
    with pytest.raises(KeyError, match="no run 'mian': did you mean 'main'"):
        stored.history.of("mian")
    with pytest.raises(KeyError, match=r"no run 'b': there are main, lr 0\.5"):
        stored.interventions("b")


def test_a_measurement_of_noise_is_not_the_run_shown(tmp_path: Path) -> None:
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    fill(live, 1, 20)
    live.begin_run(Run("seed 1", "main", 10, kind=RunKind.NOISE))
    fill(live, 11, 40, "seed 1")
    live.close()
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    assert stored.run == "main" and list(stored.runs) == ["main"]
    assert ": 1 run, " in repr(stored)
    assert [(session.runs, session.steps) for session in stored.sessions] == [(1, 20)]
    assert stored.history.of("seed 1")["loss/train"].steps.tolist() == list(range(11, 41))
    assert stored.interventions("seed 1") == ()
    with pytest.raises(KeyError, match=r"no run 'b': there are main\b"):
        stored.interventions("b")


def test_a_run_is_there_as_soon_as_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbdebug.journal.store.FLUSH_S", 60.0)
    monkeypatch.setattr("nbdebug.debugger_journal.FRESH_S", 60.0)
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    live.record(frame(1))
    end = time.monotonic() + 5
    while "loss/train" not in stored.history and time.monotonic() < end:
        time.sleep(0.005)
    assert stored.history["loss/train"].steps.tolist() == [1]
    live.close()


def test_who_opens_it_in_the_moment_of_the_first_step_sees_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbdebug.debugger_journal.FIRST_LOOK_S", 5.0)
    live = Journal(Store(tmp_path / "j.sqlite"))
    live.begin_run(Run("main"))
    later = threading.Timer(0.1, lambda: live.record(frame(1)))
    later.start()
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    stored.close()
    assert stored.history["loss/train"].steps.tolist() == [1]
    later.join()
    live.close()


@pytest.mark.parametrize("path", [None, 3, True, b"j.sqlite", "a\0b"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    for use in (StoredJournal.open, Store):
        with pytest.raises(ConfigurationError, match="is no path of a journal: give its file or folder"):
            use(path)


def test_a_file_held_by_another_can_be_read_later(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbdebug.journal.schema.BUSY_S", 0.01)
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigurationError, match="can't be read now: database is locked; try again"):
            StoredJournal.open(folder)


def look_at_all(path: Path) -> None:
    """All that can be asked of a stored journal."""
    stored = StoredJournal.open(path)
    try:
        assert repr(stored) and repr(stored.history) and [str(session) for session in stored.sessions]
        assert all(stored.runs[name].shown for name in stored.runs)
        for name in stored._memory.runs:
            history = stored.history.of(name, inherited=True)
            assert repr(history) and [history[key] for key in history]
            stored.interventions(name)
        assert [str(comparison) for comparison in stored.comparisons] or not stored.comparisons
        assert stored._view(400).stored
    finally:
        stored.close()


def test_flipped_bytes_give_a_good_read_or_say_that_the_file_is_damaged(tmp_path: Path) -> None:
    live = Journal(Store(tmp_path / "j.sqlite"))
    tell_all(live)
    live.close()
    whole, draws, refused = (tmp_path / "j.sqlite").read_bytes(), random.Random(0), 0
    path = tmp_path / "flipped.sqlite"
    for _ in range(100):
        flipped = bytearray(whole)
        for at in draws.sample(range(len(whole)), draws.choice((1, 100, 2_000))):
            flipped[at] ^= draws.randrange(1, 256)
        path.write_bytes(flipped)
        try:
            look_at_all(path)
        except FileFormatError as error:
            assert str(path) in str(error)
            refused += 1
    assert 20 < refused < 90


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("UPDATE sessions SET started_s = 4e18", "is no time"),
        ("UPDATE sessions SET host = x'00'", "in place of a number or text"),
        ("UPDATE runs SET last_step = 'x'", "unsupported|'x'"),
        ("UPDATE runs SET last_epoch = 0.5 WHERE name = 'main'", "run 'main' came to step 2701, epoch 0.5"),
        ("UPDATE points SET first_step = 9223372036854775807", "is damaged"),
        ("UPDATE points SET \"values\" = 'text'", "is damaged"),
    ],
)
def test_values_that_make_no_sense_are_damage(folder: Path, sql: str, message: str) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        file.execute(sql)
        file.commit()
    with pytest.raises(FileFormatError, match=message):
        look_at_all(folder / FILE_NAME)


@pytest.mark.parametrize(
    "sql",
    [
        """UPDATE runs SET body = replace(body, '"lr 0.5"', '"other"') WHERE name = 'lr 0.5'""",
        """UPDATE runs SET body = replace(body, '"main"', '"lr 0.5"') WHERE name = 'lr 0.5'""",
        """UPDATE runs SET body = replace(body, '"step":700', '"step":7e900') WHERE name = 'lr 0.5'""",
    ],
    ids=["another name", "its own parent", "no step"],
)
def test_a_run_that_can_not_be_is_left_out(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        assert file.execute(sql).rowcount == 1
        file.commit()
    look_at_all(folder)
    stored = StoredJournal.open(folder)
    assert list(stored.runs) == ["main"] and "1 record could not be read" in repr(stored)


@pytest.mark.parametrize(
    ("kind", "key", "pattern", "new"),
    [
        ("layers", "grad_max/fc", r"<f4\",\[\d+", '<f4",[77'),
        ("layers", "grad_max/fc", r"<f4\",\[\d+", '<f8",[4'),
        ("layers", "grad_max/fc", r'"width":\d+', '"width":3'),
        ("layers", "grad_max/fc", r'"number":', '"number":9'),
        ("layers", "grad_max/fc", r'"layers":\["conv1"', '"layers":["conv1","a","b","c","d"'),
        ("layers", "grad_max/fc", r'"grad_max"', '"of a later version"'),
        ("histograms/activations", "activations/fc", r"2,81", "2,80"),
        ("histograms/activations", "activations/fc", r'"layers":\["conv1"', '"layers":[1'),
        ("histograms/activations", "activations/fc", r'"width":\d+', '"width":-1'),
    ],
)
def test_a_layer_record_that_makes_no_sense_is_left_out(
    folder: Path, kind: str, key: str, pattern: str, new: str
) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        for number, body in file.execute("SELECT id, body FROM samples WHERE kind = ?", (kind,)).fetchall():
            changed, count = re.subn(pattern, new, body)
            assert count
            file.execute("UPDATE samples SET body = ? WHERE id = ?", (changed, number))
        file.commit()
    look_at_all(folder)
    stored = StoredJournal.open(folder)
    assert key not in stored.history and "records could not be read" in repr(stored)
    assert stored.history["loss/train"].steps[-1] == 900


def test_text_that_is_no_text_is_damage(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        file.execute("UPDATE runs SET name = CAST(x'ff6d' AS TEXT) WHERE name = 'main'")
        file.commit()
    with pytest.raises(FileFormatError, match=r"is damaged .*UTF-8"):
        StoredJournal.open(folder)


def test_the_run_trained_last_is_shown(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.sqlite")
    live = Journal(store)
    live.begin_run(Run("main"))
    live.begin_run(Run("branch", "main"))
    fill(live, 1, 20, "branch")
    store.sync()
    fill(live, 1, 5, "main")
    live.close()
    assert StoredJournal.open(tmp_path / "j.sqlite").run == "main"


def test_sessions(tmp_path: Path) -> None:
    for steps in (30, 50, 0):
        live = Journal(Store(tmp_path / "j.sqlite"))
        live.begin_run(Run("main"))
        fill(live, 1, steps)
        live.close()
    latest = StoredJournal.open(tmp_path / "j.sqlite")
    first, second, empty = latest.sessions
    assert (first.steps, second.steps, empty.steps, first.runs) == (30, 50, 0, 1)
    assert first.process == os.getpid() and first.folder == os.getcwd() and first.started_s <= first.last_s
    assert latest.session == second.id, "the latest in which something was trained"
    assert StoredJournal.open(tmp_path / "j.sqlite", first.id).history["loss/train"].steps[-1] == 30
    with pytest.raises(ConfigurationError, match=rf"no session 'x' in .*there are\n- {first.id}: started .*, 30 steps"):
        StoredJournal.open(tmp_path / "j.sqlite", "x")


def test_no_file_and_no_session(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no journal in .*\.nbdebug"):
        StoredJournal.open(tmp_path / ".nbdebug")
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(FileFormatError, match="is empty"):
        StoredJournal.open(tmp_path / "empty.sqlite")


def test_what_can_not_be_read_is_left_out_and_counted(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as file:
        file.execute("""INSERT INTO findings (session, run, body) VALUES (1, 'main', '{"$":"Tomorrow","of":{}}')""")
        file.execute("UPDATE marks SET body = 'rubbish'")
        file.execute("INSERT INTO lines VALUES (999, 1, 'main', 'a later signal', '', '', 0)")
        file.execute('INSERT INTO points SELECT NULL, 999, start, span, width, first_step, steps, "values" FROM points')
        file.execute("UPDATE samples SET kind = 'histograms/of tomorrow' WHERE kind = 'histograms/activations'")
        file.commit()
    stored = StoredJournal.open(folder)
    assert len(stored.findings) == 3 and stored.marks == ()
    assert "2 records could not be read" in repr(stored)
    assert stored.history["loss/train"].steps[-1] == 900
    assert not [key for key in stored.history if key.startswith("activations")]


def test_damage_in_the_middle_is_a_format_error(folder: Path) -> None:
    data = bytearray((folder / FILE_NAME).read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    (folder / FILE_NAME).write_bytes(data)
    with pytest.raises(FileFormatError, match="is damaged"):
        StoredJournal.open(folder)


def test_it_follows_by_itself_and_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbdebug.debugger_journal.FRESH_S", 0.0)
    store = Store(tmp_path / "j.sqlite")
    live = Journal(store)
    live.begin_run(Run("main"))
    stored = StoredJournal.open(tmp_path / "j.sqlite")
    history = stored.history
    assert "nothing recorded yet" in repr(history)
    for last in (10, 20):
        fill(live, last - 9, last)
        live.mark(Mark("main", last, "here"))
        store.sync()
        assert history["loss/train"].steps.tolist() == list(range(1, last + 1))
        assert len(stored.marks) == last // 10
    stored.close()
    stored.close()
    fill(live, 21, 30)
    live.close()
    assert history["loss/train"].steps[-1] == 20
    with pytest.raises(ClosedError, match="open it again"):
        _ = stored.sessions


READ = """
import os, sys
from nbdebug.debugger_journal import Journal
if os.getuid() == 0:
    os.setuid(65534)  # permissions do not bind root
print(Journal.open(sys.argv[1]).history["loss/train"].steps[-1])
"""


@pytest.mark.parametrize("killed", [False, True], ids=["over", "killed, with a -wal file"])
def test_in_a_folder_that_can_not_be_written(tmp_path: Path, killed: bool) -> None:
    folder = tmp_path / "journals"
    _written_by_a_child(folder / "j.sqlite", killed)
    assert (folder / "j.sqlite-wal").exists() == killed
    (folder / "j.sqlite-shm").unlink(missing_ok=True)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o001:
            path.chmod(0o755)
    folder.chmod(0o555)
    command = [sys.executable, "-c", READ, folder / "j.sqlite"]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    finally:
        folder.chmod(0o755)
    assert done.stdout == "40\n", done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def _written_by_a_child(path: Path, killed: bool) -> None:
    code = f"""
        import os, sys
        from nbdebug.journal.journal import Journal
        from nbdebug.journal.store import Store
        from nbdebug.records.runs import Run
        from tests.journal.made import fill
        live = Journal(Store(sys.argv[1]))
        live.begin_run(Run("main"))
        fill(live, 1, 40)
        live.record_manifest(__import__("nbdebug.records.manifest").records.manifest.Manifest("main"))
        {"os._exit(0)" if killed else "live.close()"}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), path], check=True, cwd=REPOSITORY)
