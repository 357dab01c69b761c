"""A batch as the model sees it: its worst samples as pictures, rows or sequences. Training thread; changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nbdebug.records.errors import ConfigurationError
from nbdebug.records.frames import Floats
from nbdebug.records.stops import BatchView
from nbdebug.tools.batch_words import is_readable, number, numeric, summary_line, target_words, tensors
from nbdebug.training.batches import split
from nbdebug.training.loss_parts import LossParts
from nbdebug.training.rng import preserved
from nbdebug.training.undisturbed import undisturbed

LARGEST_PICTURE = 64  # pixels, height and width
SMALLEST_MAP = 8  # what has no channels is a picture from this height and width on
SMALLEST_PICTURE = 4
MOST_COLUMNS = 64
MAGENTA = (255, 0, 255)  # NaN


@dataclass(frozen=True, slots=True)
class _Look:
    """How the shown samples look: pictures or rows."""

    kind: str
    note: str = ""
    pictures: NDArray[np.uint8] | None = None
    rows: Floats | None = None


def batch_view(batch: Any, *, losses: Sequence[float] | None = None, most: int = 16) -> BatchView:
    """At most ``most`` samples of a batch, those with the highest of the ``losses`` first (NaN above all).

    Shown is the first tensor of the input: floats or bytes ``(N, C, H, W)``, ``(N, H, W, C)`` or ``(N, H, W)`` as
    pictures; floats ``(N, F)`` as a table; integers ``(N, T)`` as a sequence, and floats ``(N, T, F)`` by the first
    of their features. Anything else is only summed up. ``losses`` may be those of the first samples only.
    """
    summary = tuple(summary_line(name, tensor) for name, tensor in tensors(batch, "batch"))
    shown, target = shown_tensor(batch), _halves(batch)[1]
    if shown is None:
        return BatchView("other", summary, (), (), note="" if summary else "there is no tensor in it")
    known = None if losses is None or not 0 < len(losses) <= len(shown) else np.asarray(losses, dtype=np.float64)
    samples = _worst(known, most) if known is not None else tuple(range(min(len(shown), max(most, 0))))
    look = _look(shown, samples)
    notes = [
        look.note,
        f"losses are known of the first {len(known)}" if known is not None and len(known) < len(shown) else "",
    ]
    return BatchView(
        look.kind,
        summary,
        samples,
        target_words(target, samples, len(shown)),
        losses=None if known is None else known[list(samples)],
        pictures=look.pictures,
        rows=look.rows,
        columns=() if look.rows is None else tuple(map(str, range(look.rows.shape[1]))),
        note="; ".join(filter(None, notes)),
    )


def shown_tensor(batch: Any) -> torch.Tensor | None:
    """The first tensor of a batch's input, ``None`` without any."""
    source = _halves(batch)[0]
    return next((tensor for _, tensor in tensors(source, "") if not tensor.is_nested and tensor.dim()), None)


def sample_losses(
    loss_fn: Callable[[Any, Any], Any], output: Any, target: Any, *, most: int = 256
) -> list[float] | None:
    """The loss of each of the first ``most`` samples alone; ``None`` where it can't be taken of one.

    That is where output and target are no tensors of the same length, or the loss fails on one sample or gives
    no single number. Random states, and whatever a loss module keeps, are left as they were; so are the tensors.
    """
    if not _have_samples(output, target):
        return None
    with _aside(loss_fn):
        try:
            found = [_loss_of_one(loss_fn, output, target, place) for place in range(min(len(output), most))]
        except Exception:  # the user's loss, in a way that it was not made for
            return None
    numbers = [loss for loss in found if loss is not None]
    return [float(loss) for loss in torch.stack(numbers).tolist()] if found and len(numbers) == len(found) else None


def _have_samples(output: Any, target: Any) -> bool:
    both = (output, target)
    return all(isinstance(part, torch.Tensor) and not part.is_nested and part.dim() for part in both) and (
        len(output) == len(target) > 0
    )


@contextmanager
def _aside(loss_fn: Any) -> Iterator[None]:
    parts = loss_fn.parts.values() if isinstance(loss_fn, LossParts) else [loss_fn]
    with preserved(), torch.no_grad(), ExitStack() as modules:
        for part in parts:
            if isinstance(part, torch.nn.Module):
                modules.enter_context(undisturbed(part))
        yield


def _loss_of_one(loss_fn: Callable[[Any, Any], Any], output: Any, target: Any, place: int) -> torch.Tensor | None:
    one = slice(place, place + 1)
    loss = loss_fn(output.detach()[one].clone(), target.detach()[one].clone())
    if isinstance(loss, (int, float)):
        return torch.tensor(float(loss), device="cpu", dtype=torch.float64)
    is_number = isinstance(loss, torch.Tensor) and loss.numel() == 1 and not loss.is_complex()
    return loss.detach().reshape(()) if is_number else None


def _halves(batch: Any) -> tuple[Any, Any]:
    try:
        return split(batch)
    except ConfigurationError:
        return batch, None


def _worst(losses: Floats, most: int) -> tuple[int, ...]:
    order = np.lexsort((-losses, ~np.isnan(losses)))
    return tuple(order[: max(most, 0)].tolist())


@torch.no_grad()
def _look(tensor: torch.Tensor, samples: Sequence[int]) -> _Look:
    if not samples or not is_readable(tensor) or tensor.is_complex():
        return _Look("other")
    values = numeric(tensor)
    if tensor.is_floating_point() or tensor.dtype is torch.uint8:
        images = _images(values)
        if images is not None:
            return _pictures(images, samples)
    if tensor.dim() > 3 or (tensor.dim() == 3 and not tensor.is_floating_point()):
        return _Look("other")
    kind = "table" if tensor.dim() < 3 and (tensor.is_floating_point() or tensor.dtype is torch.bool) else "sequence"
    flat = values[..., 0] if values.dim() == 3 else values.reshape(len(values), -1)
    features = f"the first of {values.shape[2]} features" if values.dim() == 3 else ""
    cut = f"the first {MOST_COLUMNS} of {flat.shape[1]:,} columns" if flat.shape[1] > MOST_COLUMNS else ""
    rows = _taken(flat[:, :MOST_COLUMNS], samples)
    return _Look(kind, "; ".join(filter(None, (features, cut))), rows=rows)


def _images(values: torch.Tensor) -> torch.Tensor | None:
    """The same as ``(N, channels, height, width)``, if it looks like pictures."""
    shape = values.shape
    if values.dim() == 3 and min(shape[1:]) >= SMALLEST_MAP:
        return values[:, None]
    if values.dim() == 4 and shape[1] in (1, 3, 4) and min(shape[2:]) >= SMALLEST_PICTURE:
        return values
    if values.dim() == 4 and shape[3] in (1, 3) and min(shape[1:3]) >= SMALLEST_PICTURE:
        return values.permute(0, 3, 1, 2)
    return None


def _pictures(images: torch.Tensor, samples: Sequence[int]) -> _Look:
    every = math.ceil(max(images.shape[2:]) / LARGEST_PICTURE)
    colours = images[:, :3, ::every, ::every]
    values = _taken(colours, samples).transpose(0, 2, 3, 1)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    notes = [f"{number(low)} is drawn black, {number(high)} white" if high > low else ""]
    notes += [f"every {every}. pixel" if every > 1 else ""]
    notes += [f"the first 3 of {images.shape[1]} channels" if images.shape[1] > 3 else ""]
    return _Look("pictures", "; ".join(filter(None, notes)), pictures=_painted(values, low, high))


def _painted(values: Floats, low: float, high: float) -> NDArray[np.uint8]:
    """Bytes of ``(n, height, width, 3)``; grey where all is the same, magenta where NaN."""
    nan = np.isnan(values)
    clipped = np.clip(np.where(nan, low, values), low, high)
    scaled = (clipped / 2 - low / 2) / (high / 2 - low / 2) if high > low else np.full(values.shape, 0.5)
    painted = np.broadcast_to(np.rint(scaled * 255).astype(np.uint8), (*values.shape[:3], 3)).copy()
    painted[nan.any(axis=3)] = MAGENTA
    return painted


def _taken(values: torch.Tensor, samples: Sequence[int]) -> Floats:
    """These samples as float64, and only they copied from the device."""
    taken = values[torch.tensor(samples, device=values.device)]
    return np.asarray(taken.cpu().to(torch.float64).numpy())
