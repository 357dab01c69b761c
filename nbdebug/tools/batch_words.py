"""A batch in words: a line per tensor in it, and what each sample's target is. Copies only what it says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch

from nbdebug.probes.outputs import plain, why_unreadable

DEPTH = 4
MOST_PARTS = 64
MOST_LISTED = 8
LONGEST_WORD = 40


def tensors(value: Any, name: str, depth: int = DEPTH) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a batch, named as one would write them: ``batch[0]``, ``batch["x"]``, ``batch.x``."""
    if isinstance(value, torch.Tensor):
        yield name, bare(value)
    elif depth:
        for part_name, part in islice(_parts(value), MOST_PARTS):
            yield from tensors(part, name + part_name, depth - 1)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f'["{shortened(str(key))}"]', part) for key, part in value.items())
    elif isinstance(value, (tuple, list)):
        yield from ((f"[{place}]", part) for place, part in enumerate(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{field.name}", getattr(value, field.name, None)) for field in dataclasses.fields(value))
    elif hasattr(value, "__dict__") and not isinstance(value, (type, torch.nn.Module)):
        yield from ((f".{key}", part) for key, part in vars(value).items())


def bare(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without graph, and of torch's own class where it has values."""
    found = plain(tensor)
    return found.as_subclass(torch.Tensor) if type(found) is not torch.Tensor and is_readable(found) else found


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether it has values, in memory, one for each place."""
    return not why_unreadable(tensor, integers=True)


def numeric(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in a type that can be computed with."""
    is_whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.uint8)
    return tensor.to(torch.int64) if is_whole else tensor


@torch.no_grad()
def summary_line(name: str, tensor: torch.Tensor) -> str:
    """Name, shape, type and extremes of a tensor, and what is odd about it: NaN, infinities, constant columns."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_nested:
        return f"{name} nested {kind}"
    head = f"{name} {tuple(tensor.shape)} {kind}"
    if not is_readable(tensor):
        return f"{head}, {'empty' if not tensor.numel() else f'{_layout(tensor)}: values not shown'}"
    return ", ".join([head, *_facts(numeric(tensor))])


def _layout(tensor: torch.Tensor) -> str:
    if tensor.is_quantized or tensor.itemsize < 2:
        return "quantized"
    if tensor.layout is not torch.strided:
        return str(tensor.layout).removeprefix("torch.").replace("_", " ")
    return "on the meta device" if tensor.is_meta else type(tensor).__name__


def _facts(values: torch.Tensor) -> list[str]:
    if values.is_complex():
        return [f"sizes {fact}" if place == 0 else fact for place, fact in enumerate(_span(abs(values)))]
    if values.is_floating_point():
        return [*_span(values), *_constant_columns(values)]
    low, high = torch.aminmax(values)
    return [f"{number(int(low))} to {number(int(high))}", *_constant_columns(values)]


def _span(values: torch.Tensor) -> list[str]:
    finite = torch.isfinite(values)
    low = float(torch.where(finite, values, math.inf).amin())
    high = float(torch.where(finite, values, -math.inf).amax())
    nans, some = int(values.isnan().sum()), int(finite.sum())
    infs = values.numel() - some - nans
    span = [f"{number(low)} to {number(high)}"] if some else []
    return [*span, *(f"{count:,} {word}" for count, word in ((nans, "NaN"), (infs, "inf")) if count)]


def _constant_columns(values: torch.Tensor) -> list[str]:
    if values.dim() != 2 or len(values) < 2:
        return []
    columns = (values == values[0]).all(dim=0).nonzero()[:, 0].tolist()
    if not columns:
        return []
    more = f" and {len(columns) - MOST_LISTED} more" if len(columns) > MOST_LISTED else ""
    listed = ", ".join(map(str, columns[:MOST_LISTED])) + more
    return [f"constant column{'s' if len(columns) > 1 else ''} {listed}"]


def target_words(target: Any, samples: Sequence[int], count: int) -> tuple[str, ...]:
    """What the target is of each of ``samples``, of ``count`` in the batch; none where there is no target."""
    if target is None:
        return ()
    return tuple(_words_of_all(target, samples, count, DEPTH))


def _words_of_all(target: Any, samples: Sequence[int], count: int, depth: int) -> list[str]:
    nothing = [""] * len(samples)
    if isinstance(target, torch.Tensor):
        return _tensor_words(bare(target), samples, count) or nothing
    is_sequence = isinstance(target, (tuple, list))
    if is_sequence and len(target) == count and not any(isinstance(part, torch.Tensor) for part in target[:1]):
        return [_item_word(target[sample]) for sample in samples]
    if not depth or not (is_sequence or isinstance(target, Mapping)):
        return nothing
    parts = target.items() if isinstance(target, Mapping) else (("", part) for part in target)
    rows = nothing
    for key, part in islice(parts, MOST_LISTED):
        words = _words_of_all(part, samples, count, depth - 1)
        added = [f"{shortened(str(key))}: {word}" if key and word else word for word in words]
        rows = ["; ".join(filter(None, pair)) for pair in zip(rows, added, strict=True)]
    return rows


@torch.no_grad()
def _tensor_words(target: torch.Tensor, samples: Sequence[int], count: int) -> list[str]:
    if target.is_nested or not is_readable(target) or not target.dim() or len(target) != count or not samples:
        return []
    if target.dim() > 2:
        return [f"{tuple(target.shape[1:])} map"] * len(samples)
    index = torch.tensor(samples, device=target.device)
    rows = numeric(target)[index].cpu().reshape(len(samples), -1)
    if rows.shape[1] > 1 and bool(((rows == 0) | (rows == 1)).all()):
        return [_listed(row.nonzero()[:, 0].tolist()) or "none" for row in rows]
    if target.dtype is torch.bool:
        rows = rows.bool()
    return [_listed(row.tolist()) for row in rows]


def _listed(values: list[Any]) -> str:
    more = f", … ({len(values)})" if len(values) > MOST_LISTED else ""
    return ", ".join(number(value) for value in values[:MOST_LISTED]) + more


def _item_word(item: Any) -> str:
    if isinstance(item, (str, bool, int, float)):
        return shortened(item if isinstance(item, str) else number(item))
    if isinstance(item, (Mapping, tuple, list)):
        return f"{type(item).__name__} of {len(item)}"
    return "" if item is None else type(item).__name__


def number(value: Any) -> str:
    """As on screen: rounded to four digits, with a real minus sign."""
    if isinstance(value, (bool, complex)):
        return f"{value:.4g}" if isinstance(value, complex) else str(value)
    return (f"{value:,}" if isinstance(value, int) else f"{value:.4g}").replace("-", "−")


def shortened(text: str) -> str:
    """Its first characters, if it is long."""
    return text if len(text) <= LONGEST_WORD else text[: LONGEST_WORD - 1] + "…"
