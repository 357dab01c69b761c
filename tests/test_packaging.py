"""What an installed nbdebug consists of, and what it asks for."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FRONT = sorted(path for kind in ("js", "css") for path in (ROOT / "nbdebug" / "dashboard").glob(f"*.{kind}"))
ASKED = [*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())]


def test_it_needs_these_six_and_nothing_else() -> None:
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["dependencies"]]
    assert sorted(names) == ["anywidget", "ipywidgets", "numpy", "plotly", "safetensors", "torch"]


def test_a_requirement_has_a_lower_bound_and_no_upper_one() -> None:
    outside = [text for text in ASKED if not text.startswith("nbdebug[")]
    assert [text for text in outside if not re.fullmatch(r"[\w-]+>=[\d.]+", text)] == []


def test_what_is_asked_for_is_also_pinned_for_those_who_try_it() -> None:
    pinned = {line.partition("==")[0].replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    names = {re.match(r"[\w-]+", text)[0].replace("_", "-") for text in ASKED} - {"nbdebug"}
    assert names <= pinned


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("name", ["py.typed", *(path.relative_to(ROOT / "nbdebug").as_posix() for path in FRONT)])
def test_the_wheel_carries_what_is_not_python(wheel: set[str], name: str) -> None:
    assert f"nbdebug/{name}" in wheel


def test_the_wheel_carries_every_module_and_no_test(wheel: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nbdebug").rglob("*.py")}
    assert modules <= wheel
    assert {name.split("/")[0] for name in wheel} == {"nbdebug", f"nbdebug-{PROJECT['version']}.dist-info"}
