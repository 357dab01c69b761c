"""Batch size, label smoothing and the weights of a loss's parts, as lines and features of an exported script. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbdebug.records.commands import Changes
from nbdebug.training.data_knobs import NAMES
from nbdebug.training.script_words import number, quoted, wrapped
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.trainer import Trainer


def lines_of(changes: Changes, smoothed: str) -> list[str]:
    """Lines that make these changes; ``smoothed`` is the expression of the loss that has a label smoothing."""
    lines = [] if changes.batch_size is None else [f"batches.regrouping.asked = {changes.batch_size}"]
    if changes.label_smoothing is not None:
        lines.append(f"{smoothed}.label_smoothing = {number(changes.label_smoothing)}")
    return lines + [
        f"loss_fn.weights[{quoted(name)}] = {number(weight)}" for name, weight in (changes.loss_weights or {}).items()
    ]


def plain_of(changes: Changes) -> dict[str, Any]:
    """The same as JSON has it."""
    given = {name: getattr(changes, name) for name in NAMES if getattr(changes, name) is not None}
    return {name: value if isinstance(value, (int, float)) else dict(value) for name, value in given.items()}


def smoothed(trainer: Trainer) -> str:
    """The expression of the loss that has a label smoothing."""
    return "loss_fn" if trainer.loss_parts is None else f"loss_fn.parts[{quoted(trainer.smoothing.name)}]"


def features(trainer: Trainer, start: Snapshot, made: Sequence[Changes]) -> set[str]:
    """What of this a script needs."""
    sizes = {size for _, size in start.data.sizes} | {start.knobs.data.batch_size} - {None}
    resized = any(changes.batch_size is not None for changes in made) or bool(sizes - {_own_size(trainer)})
    return ({"sizes", "restart"} if resized else set()) | ({"parts"} if trainer.loss_parts is not None else set())


def initial(trainer: Trainer, start: Snapshot, made: Sequence[Changes]) -> list[str]:
    """Lines that put the start's values in force."""
    kept, parts = start.knobs.data, trainer.loss_parts
    smoothes = kept.label_smoothing or any(changes.label_smoothing is not None for changes in made)
    wraps = bool(smoothes) and trainer.smoothing.of_module is None and not trainer.smoothing.fixed
    lines = []
    if parts is not None:
        name = quoted(trainer.smoothing.name)
        called = f"{{**loss_fn, {name}: Smoothed(loss_fn[{name}])}}" if wraps else "loss_fn"
        weights = (f"{quoted(part)}: {number(weight)}" for part, weight in kept.loss_weights)
        lines += wrapped(f"loss_fn = LossParts({called}, {{", weights, "})")
    elif wraps:
        lines.append("loss_fn = Smoothed(loss_fn)")
    if wraps and kept.label_smoothing:
        lines.append(f"{smoothed(trainer)}.label_smoothing = {number(kept.label_smoothing)}")
    if kept.batch_size not in (None, _own_size(trainer)):
        lines.append(f"batches.regrouping.asked = {kept.batch_size}")
    return lines


def _own_size(trainer: Trainer) -> Any:
    return getattr(trainer.train_loader, "batch_size", None)
