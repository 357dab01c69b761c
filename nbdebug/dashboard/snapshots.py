"""The table of snapshots, as the browser is to show it. Pure; drawing thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from nbdebug.dashboard import tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.snapshots import Reason, SnapshotInfo
from nbdebug.records.view import View

MOST_ROWS = 100


def state(view: View) -> Json:
    """How many there are and how large, and a row for each, the latest first; beyond a hundred the plain ones go."""
    listed = tree.snapshots(view)
    rows = _chosen(listed)
    hidden = len(listed) - len(rows)
    return {
        "summary": summary(listed),
        "rows": [_row(each, tree.shown(view, each.run)) for each in rows],
        "more": f"and {words.count(hidden)} more, taken along the way" if hidden else "",
    }


def summary(snapshots: Sequence[SnapshotInfo]) -> str:
    """``14 snapshots · 12 MB in memory · 3.1 MB in files``."""
    if not snapshots:
        return "none yet"
    in_memory = sum(each.size_bytes for each in snapshots if not each.path)
    in_files = sum(each.size_bytes for each in snapshots if each.path)
    parts = [words.plural(len(snapshots), "snapshot")]
    parts += [f"{words.size(in_memory)} in memory"] if in_memory else []
    return " · ".join(parts + ([f"{words.size(in_files)} in files"] if in_files else []))


def _chosen(snapshots: Sequence[SnapshotInfo]) -> list[SnapshotInfo]:
    """The latest first; of too many, those that stand out and the latest of the others."""
    latest = list(snapshots)[::-1]
    if len(latest) <= MOST_ROWS:
        return latest
    notable = [each for each in latest if _stands_out(each)][:MOST_ROWS]
    kept = {each.name for each in notable}
    kept |= {each.name for each in [each for each in latest if each.name not in kept][: MOST_ROWS - len(kept)]}
    return [each for each in latest if each.name in kept]


def _stands_out(snapshot: SnapshotInfo) -> bool:
    return snapshot.pinned or snapshot.best or bool(snapshot.path) or snapshot.reason in (Reason.START, Reason.REQUEST)


def _row(snapshot: SnapshotInfo, run: str) -> Json:
    tags = [word for word, true in (("best", snapshot.best), ("pinned", snapshot.pinned)) if true]
    return {
        "name": snapshot.name,
        "cells": [
            run,
            words.count(snapshot.step),
            str(snapshot.reason),
            words.size(snapshot.size_bytes),
            PurePath(snapshot.path).name if snapshot.path else "memory",
        ],
        "path": snapshot.path,
        "tags": tags,
    }
