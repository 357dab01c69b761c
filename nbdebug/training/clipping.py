"""Clipping gradients in place, as torch does it bit for bit, but without reading anything to the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nbdebug.records.commands import Clip, ClipMode


def total_norm(gradients: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Sequence[torch.Tensor] | None]:
    """The 2-norm of all gradients, a 0-d tensor, as ``torch.nn.utils.clip_grad_norm_`` computes it, and those of each.

    Those of each are left out where gradients are of several types or devices, or norms too coarse (half precision).
    """
    values = [_values(gradient) for gradient in gradients]
    first = values[0]
    if all(value.dtype is first.dtype and value.device == first.device for value in values):
        norms = torch._foreach_norm(values, 2.0)
        joined: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms), 2.0)
        return joined, norms if first.dtype in (torch.float32, torch.float64) else None
    return torch.nn.utils.get_total_norm(values), None


def clip_gradients(
    gradients: Sequence[torch.Tensor], norm: torch.Tensor | None, clip: Clip, scale: torch.Tensor | None = None
) -> torch.Tensor | None:
    """Clip in place, by norm or by value, without reading anything to the host.

    By norm, non-finite gradients are left as they are: ``clip_grad_norm_`` would spread one inf over all as NaN or 0.
    Returns the factor that all gradients were multiplied by, or ``None`` by value. The factor is bit for bit that of
    ``torch.nn.utils.clip_grad_norm_``: threshold / (norm + 1e-6), at most 1.
    """
    if clip.mode is ClipMode.VALUE or norm is None:
        for gradient in gradients:
            _clamp_(merged_in_place(gradient), clip.threshold, scale)
        return None
    limit = clip.threshold if scale is None else clip.threshold * scale
    factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
    factor = torch.where(torch.isfinite(norm), factor, torch.ones_like(factor))
    for gradient in gradients:
        held = gradient._values() if gradient.is_sparse else gradient
        held.mul_(factor.to(held.device))
    return factor


def _values(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient's numbers to read: itself, or the values of a sparse one with its repeated rows summed."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def merged_in_place(gradient: torch.Tensor) -> torch.Tensor:
    """A gradient's numbers to write; the repeated rows of a sparse one are summed in the gradient itself."""
    if not gradient.is_sparse:
        return gradient
    gradient.data = gradient.coalesce()
    return gradient._values()


def _clamp_(values: torch.Tensor, threshold: float, scale: torch.Tensor | None) -> None:
    """To ±threshold times the scale, which stays on its device."""
    if scale is None:
        values.clamp_(-threshold, threshold)
    else:
        limit = (threshold * scale).to(values)
        values.clamp_(-limit, limit)
