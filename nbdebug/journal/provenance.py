"""Provenance: versions, git, and the source text that made an object. Reads only; without torch, from any thread."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

GIT_TIMEOUT_S = 2.0
MAX_DIFF_BYTES = 1 << 20
PACKAGES = ("nbdebug", "torch", "numpy", "ipykernel", "jupyterlab")


def versions() -> dict[str, str]:
    """Python, the platform, and those of our packages that are installed; none of them is imported."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_facts(folder: str | Path) -> dict[str, str]:
    """``commit``, ``branch``, ``dirty`` (yes or no) and ``diff`` of the tracked files; empty outside a repository.

    A diff of more than 1 MB is cut, and says so at its end. Whatever git does not say within 2 s is left out.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    facts = {
        "commit": commit.strip(),
        "branch": (_git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "dirty": "" if status is None else "yes" if status.strip() else "no",
        "diff": (_git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color") or "") if status else "",
    }
    return {name: value for name, value in facts.items() if value}


def cell_sources(names_of: Mapping[str, object]) -> dict[str, str]:
    """The source text of the cells that made these objects, by the names given here.

    In a notebook: the latest cell that assigns a variable which holds the object, else the cell that runs now. Outside
    IPython: the path of the main script, or nothing in an interactive interpreter.
    """
    shell = _shell()
    if shell is None:
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        return {name: os.path.abspath(script) for name in names_of} if script else {}
    namespace: Mapping[str, Any] = shell.user_ns
    cells = [cell for cell in namespace.get("In", ()) if isinstance(cell, str)]
    trees = [_parsed(cell) for cell in cells]
    found = {}
    for name, wanted in names_of.items():
        bound = {variable for variable, value in list(namespace.items()) if value is wanted and _is_theirs(variable)}
        source = _latest_assigning(bound, cells, trees)
        if source:
            found[name] = source
    return found


def _shell() -> Any:
    """IPython's shell, if this is one: looked up, since importing IPython to ask would be slow and change things."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _is_theirs(variable: str) -> bool:
    """Not one of IPython's own names for results, such as ``_`` and ``_12``."""
    return bool(variable.strip("_0123456789"))


def _latest_assigning(names: set[str], cells: Sequence[str], trees: Sequence[ast.Module | None]) -> str:
    for cell, tree in zip(reversed(cells), reversed(trees), strict=True):
        if tree is not None and names & set(_assigned(tree)):
            return cell
    return cells[-1] if cells else ""


def _parsed(cell: str) -> ast.Module | None:
    """A cell without its magics; ``None`` for one that is not Python, such as after a syntax error."""
    lines = ["" if line.lstrip().startswith(("%", "!", "?")) else line for line in cell.splitlines()]
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError):
        return None


def _assigned(tree: ast.Module) -> Iterator[str]:
    """Names that a cell binds outside of functions and classes."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            waiting.extend(ast.iter_child_nodes(node))


def _git(folder: str | Path, *arguments: str) -> str | None:
    """What git prints, ``None`` when there is no git, no repository, or no answer in time."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "--no-pager", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    text = done.stdout[:MAX_DIFF_BYTES].decode("utf-8", "replace")
    cut = len(done.stdout) - MAX_DIFF_BYTES
    return f"{text}\n[cut: {cut:,} bytes more]\n" if cut > 0 else text
