"""Samples as rows of the file: buckets of the layer table, the latest values, histograms, what can't be seen. Pure.

A row is of a kind, and has a slot: the first step of its bucket. A fuller bucket takes the place of the one before it;
rows that it covers besides do no harm, for to take in a value twice changes nothing. So what is written once can stay.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbdebug.journal import codec
from nbdebug.journal.codec import UnreadableRecord
from nbdebug.journal.histogram_track import Packed
from nbdebug.journal.layer_cells import NAMES, Cells
from nbdebug.journal.layer_layout import Layout
from nbdebug.journal.layer_table import Bucket, LayerTable
from nbdebug.journal.layers import Known, News
from nbdebug.records.layers import BINS, LayerValues, Unseen
from nbdebug.records.signals import Signal

TABLE = "layers"
LATEST = "latest"
UNSEEN = "unseen"
HISTOGRAMS = "histograms/"
ONLY_ONE = -1  # the slot of a kind that has one row
LARGEST_BYTES = 256 << 20

Body = str | bytes
Sampler = Callable[[str, Known], News]


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row of the table ``samples``; ``step`` is the last that it says anything of."""

    kind: str
    slot: int
    step: int
    body: Body
    arrays: bytes | None


def rows_of(news: News) -> Iterator[SampleRow]:
    """The rows that hold some news."""
    for bucket in news.buckets:
        yield SampleRow(TABLE, bucket.start, bucket.last_step, *_packed(_plain_bucket(bucket)))
    if news.latest is not None:
        yield SampleRow(LATEST, ONLY_ONE, news.latest[1], *_packed(news.latest[0]))
    for signal, width, record in news.histograms:
        start = record.step // width * width
        yield SampleRow(f"{HISTOGRAMS}{signal}", start, record.step, *_packed(_plain_histograms(record, width)))


def row_of_unseen(unseen: tuple[Unseen, ...]) -> SampleRow:
    """The row of what can't be seen."""
    return SampleRow(UNSEEN, ONLY_ONE, 0, *_packed(unseen))


def read(row: SampleRow) -> News | tuple[Unseen, ...] | None:
    """What a row tells; ``None`` for a kind that this version does not know.

    Raises:
        UnreadableRecord: what is in it makes no sense.
    """
    try:
        return _read(row)
    except UnreadableRecord:
        raise
    except (*codec.NONSENSE, zlib.error) as error:
        raise UnreadableRecord(f"{type(error).__name__}: {error}") from error


def merged(rows: Iterable[SampleRow]) -> SampleRow:
    """One row of several buckets of the table, oldest first.

    Raises:
        UnreadableRecord: one of them makes no sense.
    """
    buckets = [bucket for row in rows for bucket in _bucket_news(row).buckets]
    width = max(bucket.width for bucket in buckets)
    while buckets[0].start // width != buckets[-1].start // width:
        width *= 2
    table = LayerTable(width=width)
    for bucket in buckets:
        table.absorb(bucket)
    [row] = rows_of(News(table.buckets(), None, []))
    return row


def _read(row: SampleRow) -> News | tuple[Unseen, ...] | None:
    if row.kind == TABLE:
        return _bucket_news(row)
    if row.kind == LATEST:
        latest = _decoded(row)
        _refuse(not isinstance(latest, LayerValues) or not _is_whole(latest), "values that are no table")
        return News([], (latest, row.step), [])
    if row.kind == UNSEEN:
        unseen = _decoded(row)
        _refuse(not isinstance(unseen, tuple) or not all(isinstance(one, Unseen) for one in unseen), "no words")
        return tuple(unseen)
    if row.kind.startswith(HISTOGRAMS) and row.kind.removeprefix(HISTOGRAMS) in Signal.__members__.values():
        signal = Signal(row.kind.removeprefix(HISTOGRAMS))
        return News([], None, [(signal, *_histograms_of(_decoded(row), row.step))])
    return None


# -- a bucket of the table ----------------------------------------------------------------------------------------


def _plain_bucket(bucket: Bucket) -> dict[str, Any]:
    """What is of one sample only is not written twice: neither its value, nor the step."""
    layout, cells = bucket.layout, bucket.cells
    names = list(NAMES)
    if not cells.odd.any():
        names = [name for name in names if not name.startswith("odd")]
    if np.array_equal(cells.low, cells.high, equal_nan=True):
        names = [name for name in names if not name.startswith("high")]
    if len(cells.low_at) and (cells.low_at == cells.low_at[0]).all() and "high_at" not in names:
        names.remove("low_at")
    return {
        "layers": list(layout.layers),
        "signals": [str(signal) for signal in layout.signals],
        "mask": np.packbits(layout.mask),
        "width": bucket.width,
        "number": bucket.number,
        "at": int(cells.low_at[0]) if len(cells.low_at) else 0,
        **{name: getattr(cells, name) for name in names},
    }


def _bucket_news(row: SampleRow) -> News:
    plain = _decoded(row)
    layers = tuple(plain["layers"])
    known = [name in Signal.__members__.values() for name in plain["signals"]]
    _refuse(not all(isinstance(layer, str) for layer in layers), "layers without names")
    _refuse(not all(known), "a signal of a later version")
    signals = tuple(Signal(name) for name in plain["signals"])
    _refuse(len(plain["mask"]) != (len(signals) * len(layers) + 7) // 8, "a mask of another size")
    mask = np.unpackbits(plain["mask"], count=len(signals) * len(layers)).astype(np.bool_)
    layout = Layout(layers, signals, mask.reshape(len(signals), len(layers)))
    width, number = plain["width"], plain["number"]
    _refuse(type(width) is not int or type(number) is not int or number < 0, "no bucket of steps")
    _refuse(width < 1 or width & (width - 1) != 0 or not width * number <= row.step < 1 << 62, "no bucket of steps")
    return News([Bucket(layout, width, number, row.step, _cells_of(plain, layout.cells))], None, [])


def _cells_of(plain: dict[str, Any], cells: int) -> Cells:
    empty = Cells.room(cells)
    empty.odd.fill(0)
    empty.low_at.fill(plain["at"])
    found = {name: plain.get(name, getattr(empty, name)) for name in NAMES}
    if "high" not in plain:
        found |= {"high": found["low"].copy(), "high_at": found["low_at"].copy()}
    for name in NAMES:
        fits = found[name].dtype == getattr(empty, name).dtype and found[name].shape == (cells,)
        _refuse(not fits, f"{name} of {found[name].shape}, for {cells} cells")
    _refuse(bool((found["odd"] > 3).any() or np.isinf(found["low"]).any() or np.isinf(found["high"]).any()), "codes")
    return Cells(**found)


# -- histograms ---------------------------------------------------------------------------------------------------


def _plain_histograms(record: Packed, width: int) -> dict[str, Any]:
    plain = {"width": width, "layers": list(record.layers), "counts": record.counts, "exponents": record.exponents}
    plain |= {"sampled": record.sampled, "elements": record.elements}
    return plain if record.scale is None else {**plain, "scale": record.scale}


def _histograms_of(plain: dict[str, Any], step: int) -> tuple[int, Packed]:
    width, layers = plain["width"], tuple(plain["layers"])
    _refuse(type(width) is not int or width < 1 or width & (width - 1) != 0, "no width")
    _refuse(not all(isinstance(layer, str) for layer in layers), "layers without names")
    arrays = [plain[name] for name in ("counts", "exponents", "sampled", "elements")]
    shapes = [(len(layers), BINS), *[(len(layers),)] * 3]
    kinds = [np.uint16, np.int16, np.int64, np.int64]
    for array, shape, kind in zip(arrays, shapes, kinds, strict=True):
        _refuse(array.shape != shape or array.dtype != kind, f"{array.shape} of {array.dtype}, not {shape}")
    scale = plain.get("scale")
    _refuse(scale is not None and (scale.shape != (len(layers),) or scale.dtype != np.float64), "scale")
    counts, exponents, sampled, elements = arrays
    return width, Packed(step, layers, counts, exponents, sampled, elements, scale)


# -- text and bytes -----------------------------------------------------------------------------------------------


def _packed(record: object) -> tuple[Body, bytes | None]:
    body, arrays = codec.encode(record)
    return body, zlib.compress(arrays, 1) if arrays is not None else None


def _decoded(row: SampleRow) -> Any:
    arrays = None
    if row.arrays is not None:
        unpacker = zlib.decompressobj()
        arrays = unpacker.decompress(row.arrays, LARGEST_BYTES)
        _refuse(not unpacker.eof, "arrays that are cut off")
    return codec.decode(row.body, arrays)


def _is_whole(table: LayerValues) -> bool:
    shape = (len(table.signals), len(table.layers))
    return (table.values.shape, table.values.dtype.kind) == (shape, "f") and (
        (table.present.shape, table.present.dtype.kind) == (shape, "b")
    )


def _refuse(wrong: bool, what: str) -> None:
    if wrong:
        raise UnreadableRecord(f"a layer record has {what}")
