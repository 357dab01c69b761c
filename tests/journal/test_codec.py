"""Records as text and bytes: what goes in comes out, and nothing in a file is more than data."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pkgutil
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
import pytest

import nbdebug.records
from nbdebug.journal import codec
from nbdebug.journal.pending import Entry
from nbdebug.records.commands import (
    Changes,
    Clip,
    ClipMode,
    Compare,
    Outcome,
    Pause,
    Reinitialize,
    Rerun,
    Search,
    SetKnobs,
    StartPoint,
)
from nbdebug.records.comparison import Comparison, SeriesComparison, Verdict
from nbdebug.records.finder import LrCurve
from nbdebug.records.findings import Cause, Finding, Gone, Remedy, Severity
from nbdebug.records.layers import Unseen
from nbdebug.records.manifest import Manifest
from nbdebug.records.proofs import Proof
from nbdebug.records.runs import Intervention, OutsideEdit, Run, RunKind
from nbdebug.records.search import SearchEngine, SearchResult, Trial
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.snapshots import Reason, SnapshotInfo
from nbdebug.records.view import Points
from tests.journal.made import layer_values

POINTS = Points(np.array([1, 2, 3]), np.array([0.1, np.nan, -np.inf]))
ROW = SeriesComparison(
    Series(Signal.LOSS, split=Split.VAL),
    True,
    0.5,
    math.inf,
    math.nan,
    (-1.0, 2.5),
    0.1,
    0.9,
    Verdict.WORSE,
    *[POINTS] * 3,
)
TRIAL = Trial(Changes(lr=0.1), "lr 0.1", 0.25, 40, "", 1, {"lr": 0.1, "clip_norm": None})
SPACE = {"lr": (1e-4, 1.0), "clip_norm": [None, 0.5], "nesterov": [True, False]}
RECORDS = [
    layer_values(3),
    layer_values(5, ()),
    Unseen("fc", "activations", "not called as a module"),
    Run("lr 0.1 (2)", "main", 12, "lr 0.1", RunKind.NOISE, 7, "mein Läufchen → \ud800", created_s=1.7e9),
    Outcome(SetKnobs(Changes(lr={"head": 0.1, "$": 1e-9}, clip=Clip(ClipMode.VALUE, math.inf))), "main", 3, True, "ok"),
    Outcome(Rerun(StartPoint.BEST, changes=Changes(dropout=0.5), seed=2**63), "main", 3, False, "no"),
    Outcome(Compare("main"), "main", 0, True, "", made="lr 0.1 (2)"),
    Finding(Cause.NAN_LOSS, Severity.CRITICAL, "main", 9, "t", "w", "Traceback\n" * 1000),
    Gone("lr 0.1", 60, Cause.DEAD_RELU, "dead_relu", 50),
    Proof(
        Finding(Cause.DEAD_RELU, Severity.INFO, "main", 9, "t", "w", first_step=5, check="dead_relu"),
        Remedy("draw anew", Reinitialize("kaiming_normal", seed=2**40, layers=("fc",)), "code"),
        1,
        "b",
        Comparison("main", "b", 1, 2, 6, (ROW,), Verdict.WORSE, "worse"),
    ),
    Intervention("main", 4, 1, OutsideEdit("weights")),
    Manifest("main", {"lr": [1, 2.5, None, True], "nested": {"a": (1, "b")}}, git={"diff": "+\n" * 5000}),
    Comparison("main", "b", 1, 2, 6, (ROW, ROW), Verdict.BETTER, "better"),
    SearchResult("loss", True, (TRIAL,), SPACE, SearchEngine.OPTUNA, 9, 40, "main", 3, 1, "ended: é"),
    Outcome(Search(SPACE, epochs=2, trials=9), "main", 3, True, "done", "lr 0.1"),
    LrCurve(np.array([1e-7, 1.0]), np.array([2.0, math.inf]), np.array([2.0, math.nan]), (("steepest", 0.1),), 1.0),
    (SnapshotInfo("s", "main", 1, 0, Reason.EPOCH, 2**40, "/tmp/ä", True),),
]


def same(a: Any, b: Any) -> bool:
    """Equality by fields and elements, where NaN equals NaN, and types count."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b or (a != a and b != b)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_goes_in_comes_out(record: object) -> None:
    assert same(codec.decode(*codec.encode(record)), record)


def test_long_text_is_compressed() -> None:
    body, _ = codec.encode(Manifest("main", git={"diff": "+ a line\n" * 50_000}))
    assert isinstance(body, bytes) and len(body) < 10_000


def test_text_is_strict_json() -> None:
    body, _ = codec.encode(Clip(ClipMode.NORM, math.nan))
    json.loads(body, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_what_is_no_plain_value_is_kept_as_its_text() -> None:
    manifest = Manifest("main", {"loss": print, "dtype": np.dtype("f4"), "count": np.int64(3)})
    back = codec.decode(*codec.encode(manifest))
    assert back.hyper_parameters == {"loss": repr(print), "dtype": "dtype('float32')", "count": 3}


def test_an_unknown_field_is_left_out_and_a_missing_one_has_its_default() -> None:
    body = '{"$":"Run","of":{"name":"main","colour":"red"}}'
    assert codec.decode(body) == Run("main")
    older = codec.encode(Outcome(Pause(), "main", 3, True, "paused", made="b"))[0].replace(',"made":"b"', "")
    assert codec.decode(older) == Outcome(Pause(), "main", 3, True, "paused")


ARRAY = '{"$":"array","of":%s}'


@pytest.mark.parametrize(
    ("body", "arrays"),
    [
        ('{"$":"Tomorrow","of":{}}', None),
        ('{"$":"Popen","of":{"args":"true"}}', None),
        ('{"$":"enum","of":["Cause","of a later version"]}', None),
        ('{"$":"enum","of":["StrEnum","x"]}', None),
        ('{"$":"Run","of":{}}', None),
        ('{"$":"Outcome","of":{"command":{"$":"Tomorrow","of":{}},"run":"main","step":1,"ok":true,"text":""}}', None),
        ('{"$":"Run","of":{"name":"main","step":1e400}}', None),
        ('{"$":"Run","of":{"name":"main","step":true}}', None),
        ('{"$":"Run","of":{"name":3}}', None),
        ('{"$":"Run","of":{"name":"main","kind":"noise"}}', None),
        ('{"$":"Outcome","of":{"command":{"$":"Pause","of":{}},"run":"main","step":"1","ok":true,"text":""}}', None),
        ('{"$":"Run"', None),
        ('{"$":"Run"}', None),
        (b"no zlib", None),
        (ARRAY % '["|O",[1],0]', b"12345678"),
        (ARRAY % '["<U2",[1],0]', b"12345678"),
        (ARRAY % '["<f8",[2],0]', b"12345678"),
        (ARRAY % '["<f8",[1],99]', b"12345678"),
        ("[" * 100_000, None),
    ],
)
def test_what_can_not_be_read_says_so(body: str | bytes, arrays: bytes | None) -> None:
    with pytest.raises(codec.UnreadableRecord):
        codec.decode(body, arrays)


def _classes() -> dict[str, type]:
    found = {}
    for module in pkgutil.iter_modules(nbdebug.records.__path__):
        for name, value in vars(importlib.import_module(f"nbdebug.records.{module.name}")).items():
            if isinstance(value, type):
                found[name] = value
    return found


def _reachable(hint: Any, names: dict[str, type], seen: set[type]) -> Iterator[type]:
    for part in typing.get_args(hint):
        yield from _reachable(part, names, seen)
    if not isinstance(hint, type) or hint in seen:
        return
    seen.add(hint)
    if dataclasses.is_dataclass(hint):
        yield hint
        for inner in typing.get_type_hints(hint, localns=names).values():
            yield from _reachable(inner, names, seen)
    elif issubclass(hint, Enum):
        yield hint


def test_every_class_that_the_journal_takes_is_listed() -> None:
    ours = [kind for kind in _reachable(Entry, _classes(), set()) if kind.__module__.startswith("nbdebug.records")]
    assert len(ours) > 25
    listed = {**codec.RECORDS, **codec.ENUMS}
    assert [kind.__name__ for kind in ours if listed.get(kind.__name__) is not kind] == []
