"""Who may import whom, which names are public, and that every signal is both measured and used."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import nbdebug
from nbdebug.records.signals import Signal

PACKAGE = Path(__file__).resolve().parents[1] / "nbdebug"
PUBLIC = [
    "ClipMode", "ClosedError", "CommandError", "ConfigurationError", "Debugger", "FileFormatError", "InitScheme",
    "Journal", "NbdebugError", "State", "Trainer", "Verdict",
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What a package may import: of ours, and from third parties."""

    ours: frozenset[str]
    third: frozenset[str]


def row(ours: str = "", third: str = "") -> Row:
    return Row(frozenset(ours.split()), frozenset(third.split()))


# A package's modules follow the row with the longest name that fits. Every package may import itself.
TABLE = {
    "records": row("", "numpy"),
    "training": row("records", "torch numpy safetensors"),
    "probes": row("records", "torch numpy"),
    "journal": row("records", "numpy sqlite3"),
    "checks": row("records", "numpy"),
    "checks.live": row("records checks", "numpy"),
    "checks.preflight": row("records checks training probes tools", "numpy torch"),
    "breakpoints": row("records", "numpy"),
    "tools": row("records training probes", "torch numpy"),
    "dashboard": row("records", "plotly ipywidgets anywidget numpy"),
    "testing": row("records"),
    "pytest_plugin": row("records testing", "pytest"),
    "adapters": row("records training", "torch"),
    "adapters.lightning": row("records training adapters", "torch lightning pytorch_lightning"),
    "adapters.hugging_face": row("records training adapters", "torch transformers accelerate"),
}
COMPOSITION_ROOT = re.compile(r"__init__|__main__|debugger(_\w+)?")  # these modules may import everything
GUARDED_STDLIB = {"sqlite3"}


def violations(root: Path) -> list[str]:
    """Each import below the package folder ``root`` that the table does not allow, as a sentence."""
    found = []
    for path in sorted(root.rglob("*.py")):
        module = _module_name(root, path)
        if COMPOSITION_ROOT.fullmatch(module):
            continue
        name = _row_of(module)
        if name is None:
            found.append(f"{module} belongs to no package of the table")
            continue
        for line, imported in _imports(path, root, module):
            if not _allowed(imported, name):
                found.append(f"{module}:{line} imports {imported}, which {name} may not")
    return found


def _module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def _row_of(module: str) -> str | None:
    return max((name for name in TABLE if _is_within(module, name)), key=len, default=None)


def _is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _allowed(imported: str, name: str) -> bool:
    top, _, inner = imported.partition(".")
    if top == "nbdebug":
        return any(_is_within(inner, package) for package in TABLE[name].ours | {name}) and not _is_foreign_part(
            inner, name
        )
    return top in TABLE[name].third or (top in sys.stdlib_module_names and top not in GUARDED_STDLIB)


def _is_foreign_part(inner: str, name: str) -> bool:
    """Whether ``inner`` lies in a part with a row of its own, such as checks.preflight, that ``name`` is not in."""
    owner = _row_of(inner)
    return owner is not None and "." in owner and not _is_within(name, owner)


def _imports(path: Path, root: Path, module: str) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a module imports, lazily or not; of ours as ``nbdebug.…``."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(node, package)
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield node.lineno, full if _is_module(root, full) else source
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
            yield node.lineno, name


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = ["nbdebug", *package.split(".")]
    base = parts[: len(parts) - (node.level - 1)]
    return ".".join([*base, *([node.module] if node.module else [])])


def _is_module(root: Path, name: str) -> bool:
    path = root.joinpath(*name.split(".")[1:])
    return name.startswith("nbdebug.") and (path.is_dir() or path.with_suffix(".py").exists())


def _imported_by_call(node: ast.Call) -> str | None:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = node.args[0] if node.args else None
    if called in {"import_module", "__import__"} and isinstance(first, ast.Constant):
        return str(first.value)
    return None


def test_every_import_is_one_that_the_table_allows() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "line", "imported"),
    [
        ("records/planted.py", "import torch", "torch"),
        ("records/planted.py", "from nbdebug import Debugger", "nbdebug"),
        ("training/planted.py", "from nbdebug.journal import Journal", "nbdebug.journal"),
        ("training/planted.py", "def later():\n    import ipywidgets", "ipywidgets"),
        ("probes/planted.py", "from nbdebug.training import trainer", "nbdebug.training.trainer"),
        ("probes/planted.py", "import plotly.graph_objects as go", "plotly.graph_objects"),
        ("journal/planted.py", "import torch.nn", "torch.nn"),
        ("checks/planted.py", "from ..training import Trainer", "nbdebug.training"),
        ("checks/live/planted.py", "from nbdebug.checks.preflight import checks", "nbdebug.checks.preflight"),
        ("checks/live/planted.py", "import torch", "torch"),
        ("checks/preflight/planted.py", "from nbdebug.dashboard import theme", "nbdebug.dashboard.theme"),
        ("tools/planted.py", "import nbdebug.checks", "nbdebug.checks"),
        ("tools/planted.py", "import sqlite3", "sqlite3"),
        ("dashboard/planted.py", "import importlib\nimportlib.import_module('torch')", "torch"),
        ("dashboard/figures/planted.py", "from nbdebug.journal import Journal", "nbdebug.journal"),
        ("dashboard/planted.py", "from nbdebug.debugger import Debugger", "nbdebug.debugger"),
        ("adapters/planted.py", "import transformers", "transformers"),
        ("adapters/lightning.py", "import transformers", "transformers"),
        ("adapters/hugging_face.py", "from nbdebug.probes import hooks", "nbdebug.probes.hooks"),
        ("elsewhere.py", "import numpy", None),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, path: str, line: str, imported: str | None) -> None:
    root = tmp_path / "nbdebug"
    for module in PACKAGE.rglob("*.py"):  # their names only: what they import is the other test's matter
        copy = root / module.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    planted = root / path
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(line)
    [sentence] = violations(root)
    expected = f"imports {imported}," if imported else "belongs to no package"
    assert path.removesuffix(".py").replace("/", ".") in sentence and expected in sentence


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("records/planted.py", "import numpy as np\nfrom nbdebug.records import signals"),
        ("journal/planted.py", "import sqlite3"),
        ("checks/preflight/planted.py", "import torch\nfrom nbdebug.tools import finder"),
        ("adapters/lightning.py", "import lightning.pytorch"),
        ("dashboard/planted.py", "from . import theme\nimport anywidget"),
        ("debugger_view.py", "import torch, ipywidgets\nfrom nbdebug.journal import Journal"),
        ("__init__.py", "from nbdebug.debugger import Debugger"),
    ],
)
def test_an_allowed_import_is_let_through(tmp_path: Path, path: str, line: str) -> None:
    planted = tmp_path / "nbdebug" / path
    planted.parent.mkdir(parents=True)
    planted.write_text(line)
    assert violations(tmp_path / "nbdebug") == []


def test_the_public_names_are_these() -> None:
    assert list(nbdebug.__all__) == PUBLIC
    assert sorted(PUBLIC) == PUBLIC
    assert all(hasattr(nbdebug, name) for name in PUBLIC)


def _signals_used_in(*places: str) -> set[str]:
    files = [path for place in places for path in sorted(PACKAGE.glob(place))]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Signal"
    }


@pytest.mark.parametrize("name", Signal.__members__)
def test_a_signal_has_a_producer_and_a_consumer(name: str) -> None:
    assert name in _signals_used_in("probes/**/*.py", "training/**/*.py"), f"nothing measures {name}"
    consumers = ("dashboard/**/*.py", "checks/**/*.py", "journal/**/*.py", "debugger*.py")
    assert name in _signals_used_in(*consumers), f"nothing shows, judges or stores {name}"
