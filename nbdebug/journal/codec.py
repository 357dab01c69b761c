"""Records as text and bytes, for the file, and back. Pure; any thread.

A record becomes JSON in which every record class and enum is named; arrays lie beside it as raw bytes. Only the
classes listed here are ever made when reading, by calling them with plain values: nothing in a file is executed.
What a later version added is passed over where it can be: an unknown field is left out, an unknown class or enum
member makes its own record unreadable and no other.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from nbdebug.journal.record_types import refuse_wrong_types
from nbdebug.records import (
    checks,
    commands,
    comparison,
    finder,
    findings,
    layers,
    manifest,
    proofs,
    runs,
    samples,
    schedules,
    search,
    signals,
    snapshots,
    stops,
    view,
)

RECORDS: dict[str, type[Any]] = {
    record.__name__: record
    for record in (
        *get_args(commands.Command),
        *get_args(runs.Change),
        *(commands.Clip, commands.Changes, commands.Outcome, comparison.Comparison, comparison.SeriesComparison),
        *(findings.Finding, layers.LayerValues, layers.Unseen, manifest.Manifest, runs.Intervention, runs.Mark),
        *(runs.Run, signals.Series, snapshots.SnapshotInfo, view.Points),
        *(schedules.Schedule, stops.CodeLine, stops.Range, stops.Origin),
        *(findings.Evidence, findings.Picture, findings.Remedy, checks.CheckResult, checks.Report, findings.Gone),
        *(finder.LrCurve, search.SearchResult, search.Trial, proofs.Proof),
        *(stops.BatchView, samples.SampleSet, samples.SamplePass),
    )
}
ENUMS: dict[str, type[Enum]] = {
    enum.__name__: enum
    for enum in (
        *(commands.ClipMode, commands.InitScheme, commands.StartPoint, comparison.Verdict, findings.Cause),
        *(findings.Severity, runs.RunKind, signals.Split, signals.Signal, snapshots.Reason, stops.Phase),
        *(schedules.ScheduleKind, schedules.Interval, search.SearchEngine, findings.PictureKind, samples.Task),
    )
}
ARRAY_KINDS = "biuf"
LONG_TEXT = 4_096
AS_THEY_ARE = frozenset(get_args(commands.Command)) | {commands.Changes, commands.Clip}  # what a person asked for
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError)


class UnreadableRecord(ValueError):
    """A stored record that this version can't make: its class or an enum member is unknown, or it is damaged."""


def encode(record: object) -> tuple[str | bytes, bytes | None]:
    """A record as JSON, compressed when it is long, and the bytes of its arrays, ``None`` without any.

    What is neither a listed record nor plain data is kept as its ``repr``.
    """
    arrays = bytearray()
    text = json.dumps(_plain(record, arrays), allow_nan=False, separators=(",", ":"))
    body = zlib.compress(text.encode(), 1) if len(text) > LONG_TEXT else text
    return body, bytes(arrays) if arrays else None


def decode(body: str | bytes, arrays: bytes | None = None) -> Any:
    """The record that :func:`encode` was given.

    Raises:
        UnreadableRecord: this version does not know what is in it, or it is damaged.
    """
    try:
        text = body if isinstance(body, str) else zlib.decompress(body).decode()
        return _made(json.loads(text), arrays or b"")
    except (*NONSENSE, zlib.error) as error:
        raise UnreadableRecord(f"{type(error).__name__}: {error}") from error


def _plain(value: object, arrays: bytearray) -> Any:
    if type(value).__name__ in RECORDS and type(value) is RECORDS[type(value).__name__]:
        inner = {
            field.name: _plain(getattr(value, field.name), arrays) for field in fields(RECORDS[type(value).__name__])
        }
        return {"$": type(value).__name__, "of": inner}
    if isinstance(value, Enum) and ENUMS.get(type(value).__name__) is type(value):
        return {"$": "enum", "of": [type(value).__name__, value.value]}
    if isinstance(value, np.ndarray) and value.dtype.kind in ARRAY_KINDS:
        return _plain_array(value, arrays)
    if isinstance(value, np.generic):
        return _plain(value.item(), arrays)
    if isinstance(value, float) and not math.isfinite(value):
        return {"$": "float", "of": repr(float(value))}
    return _plain_container(value, arrays)


def _plain_container(value: object, arrays: bytearray) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return {"$": "tuple", "of": [_plain(item, arrays) for item in value]}
        case list():
            return [_plain(item, arrays) for item in value]
        case Mapping() if all(type(key) is str for key in value) and "$" not in value:
            return {key: _plain(item, arrays) for key, item in value.items()}
        case Mapping():
            return {"$": "pairs", "of": [[_plain(k, arrays), _plain(v, arrays)] for k, v in value.items()]}
        case _:
            return repr(value)


def _plain_array(value: NDArray[Any], arrays: bytearray) -> Any:
    little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    start = len(arrays)
    arrays += little.tobytes()
    return {"$": "array", "of": [little.dtype.str, list(value.shape), start]}


def _made(value: Any, arrays: bytes) -> Any:
    if isinstance(value, list):
        return [_made(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {key: _made(item, arrays) for key, item in value.items()}
    return _made_special(value["$"], value["of"], arrays)


def _made_special(kind: str, of: Any, arrays: bytes) -> Any:
    match kind:
        case "tuple":
            return tuple(_made(item, arrays) for item in of)
        case "float":
            return float(of)
        case "pairs":
            return {_made(key, arrays): _made(item, arrays) for key, item in of}
        case "enum":
            return ENUMS[of[0]](of[1])
        case "array":
            return _made_array(of[0], of[1], of[2], arrays)
    known = RECORDS[kind]
    names = {field.name for field in fields(known)}
    record = known(**{name: _made(item, arrays) for name, item in of.items() if name in names})
    if known not in AS_THEY_ARE:
        refuse_wrong_types(record)
    return record


def _made_array(dtype: str, shape: list[int], start: int, arrays: bytes) -> NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.kind not in ARRAY_KINDS:
        raise UnreadableRecord(f"an array of {dtype}, which no record holds")
    flat = np.frombuffer(arrays, kind, count=math.prod(shape), offset=start)
    return flat.reshape(shape).astype(kind.newbyteorder("="))
