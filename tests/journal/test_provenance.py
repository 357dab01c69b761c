"""Where things came from: versions, git, the cells that made an object."""

from __future__ import annotations

import platform
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from nbdebug.journal import provenance


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-b", "trunk")
    (tmp_path / "train.py").write_text("lr = 0.1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_versions_name_what_is_installed() -> None:
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert {"nbdebug", "torch", "numpy", "platform"} <= found.keys()


def test_a_clean_repository(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert provenance.git_facts(repository) == {"commit": commit, "branch": "trunk", "dirty": "no"}


def test_a_changed_file_is_told_with_its_diff(repository: Path) -> None:
    (repository / "train.py").write_text("lr = 0.2\n")
    facts = provenance.git_facts(repository)
    assert facts["dirty"] == "yes" and "-lr = 0.1\n+lr = 0.2\n" in facts["diff"]


def test_a_long_diff_is_cut_and_says_so(repository: Path) -> None:
    (repository / "train.py").write_text("x = 1\n" * 300_000)
    diff = provenance.git_facts(repository)["diff"]
    assert len(diff) < provenance.MAX_DIFF_BYTES + 100
    assert diff.endswith("bytes more]\n") and "[cut: " in diff


def test_no_repository_no_git_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_facts(tmp_path) == {}
    assert provenance.git_facts(tmp_path / "missing") == {}
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(provenance, "GIT_TIMEOUT_S", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert provenance.git_facts(tmp_path) == {}
    monkeypatch.setenv("PATH", str(tmp_path / "missing"))
    assert provenance.git_facts(tmp_path) == {}


MODEL, TRAINER, OTHER = object(), object(), object()


@pytest.mark.parametrize(
    ("cells", "names", "model", "trainer"),
    [
        (["model = 1", "trainer = 2", "watch()"], {"model": MODEL, "trainer": TRAINER}, 0, 1),
        (["model = 1", "model = 2", "watch()"], {"model": MODEL}, 1, 2),
        (["net = 1", "x = net", "watch()"], {"net": MODEL, "_": MODEL, "_2": MODEL}, 0, 2),
        (["net = 1", "for _ in range(2): pass", "watch()"], {"net": MODEL, "_": MODEL}, 0, 2),
        (["def f():\n    net = 1", "watch(net)"], {"net": MODEL}, 1, 1),
        (["%time net = 1\nnet: int = 2", "oops (", "watch()"], {"net": MODEL}, 0, 2),
        (["net, trainer = make()", "with a as t: pass", "w()"], {"net": MODEL, "t": TRAINER}, 0, 1),
        (["if True:\n    net = 1", "from lib import t", "w()"], {"net": MODEL, "t": TRAINER}, 0, 1),
        (["watch(make(), other)"], {"other": OTHER}, 0, 0),
    ],
)
def test_the_cell_that_made_it(
    monkeypatch: pytest.MonkeyPatch, cells: list[str], names: dict[str, object], model: int, trainer: int
) -> None:
    shell = types.SimpleNamespace(user_ns={"In": ["", *cells], **names})
    monkeypatch.setitem(sys.modules, "IPython", _ipython(shell))
    found = provenance.cell_sources({"model": MODEL, "trainer": TRAINER})
    assert found == {"model": cells[model], "trainer": cells[trainer]}


def test_outside_ipython_it_is_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", _ipython(None))
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__file__="/there/train.py"))
    assert provenance.cell_sources({"model": MODEL}) == {"model": "/there/train.py"}
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace())
    assert provenance.cell_sources({"model": MODEL}) == {}


def _ipython(shell: Any) -> Any:
    return types.SimpleNamespace(get_ipython=lambda: shell)
