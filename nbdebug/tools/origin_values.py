"""What the values of a tensor are: whether all are finite, their range, which samples are bad. Training thread only."""

from __future__ import annotations

import math

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from nbdebug.records.stops import Range

MOST_SAMPLES = 64
Span = tuple[int, int]  # bytes of a storage, the last one excluded


def dense(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor that has its values' memory; ``None`` without any that could be read."""
    if tensor.is_meta or tensor.is_nested or tensor.is_quantized or is_traceable_wrapper_subclass(tensor):
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return None
    if tensor.layout is torch.sparse_coo:
        tensor = tensor._values()
    return tensor if tensor.layout is torch.strided and tensor.numel() else None


def readable(tensor: torch.Tensor) -> torch.Tensor | None:
    """Its values as a dense real tensor; ``None`` where they are integers, empty, elsewhere or of too few bits."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.itemsize < 2:
        return None
    values = dense(tensor)
    if values is None:
        return None
    return torch.view_as_real(values.detach().resolve_conj()) if values.is_complex() else values.detach()


def storage_key(tensor: torch.Tensor) -> int:
    """Tells one piece of memory from another as long as something holds it."""
    return int(tensor.untyped_storage()._cdata)


def badness(values: torch.Tensor) -> str:
    """``"nan"`` where any is, else ``"inf"`` where any is, else empty."""
    low, high = (float(extreme) for extreme in torch.aminmax(values))
    if math.isnan(low) or math.isnan(high):
        return "nan"
    return "inf" if math.isinf(low) or math.isinf(high) else ""


def count_bad(tensor: torch.Tensor) -> int:
    """How many values are not finite."""
    values = readable(tensor)
    return 0 if values is None or not badness(values) else int((~torch.isfinite(values)).sum())


def value_range(name: str, tensor: torch.Tensor) -> Range:
    """What the values of a tensor are; those of a complex one are its real and imaginary parts."""
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    values = readable(tensor)
    if values is None:
        return Range(name, shape, dtype, math.nan, math.nan, 0, 0, 0)
    zeros, nans, infs = int((values == 0).sum()), int(values.isnan().sum()), int(values.isinf().sum())
    finite = values[values.isfinite()] if nans or infs else values
    low, high = (float(extreme) for extreme in torch.aminmax(finite)) if finite.numel() else (math.nan, math.nan)
    return Range(name, shape, dtype, low, high, zeros, nans, infs)


def looks_like_mask(values: torch.Tensor) -> bool:
    """Whether it holds one finite value at most besides its infinities, as a mask to be added does."""
    if badness(values) != "inf":
        return False
    finite = values[values.isfinite()]
    return not finite.numel() or bool((finite == finite.flatten()[0]).all())


def only_minus_inf(values: torch.Tensor) -> bool:
    """Whether all that is not finite is −inf."""
    return badness(values) == "inf" and not bool((values == math.inf).any())


def newly_bad(output: torch.Tensor, inputs: list[torch.Tensor]) -> torch.Tensor | None:
    """Which values are not finite, but for those infinite where an input is; ``None`` where shapes do not say which."""
    carried = torch.zeros_like(output, dtype=torch.bool)
    for values in inputs:
        try:
            carried |= values.isinf().to(carried.device)
        except RuntimeError:
            return None
    return ~torch.isfinite(output) & ~(output.isinf() & carried)


def bad_samples(bad: torch.Tensor, size: int, *, rows_first: bool = True, folded: bool = False) -> tuple[int, ...]:
    """The indices along the batch where some value is ``bad``, at most ``MOST_SAMPLES``; none if no dimension fits.

    The batch is the first dimension, else the second of three. Where it is ``folded`` into the first with another one,
    ``rows_first`` says that the batch came before that.
    """
    if size < 1 or not bad.dim():
        return ()
    if bad.shape[0] == size:
        kept = bad.reshape(size, -1)
    elif bad.dim() == 3 and bad.shape[1] == size:
        kept = bad.transpose(0, 1).reshape(size, -1)
    elif folded and bad.shape[0] % size == 0:
        kept = bad.reshape(size, -1) if rows_first else bad.reshape(-1, size, bad[0].numel()).transpose(0, 1)
    else:
        return ()
    return tuple(int(index) for index in kept.flatten(1).any(dim=1).nonzero().flatten()[:MOST_SAMPLES])


def span(tensor: torch.Tensor) -> Span:
    """The bytes of its storage from its first value to its last."""
    start = int(tensor.storage_offset())
    reach = sum((int(size) - 1) * int(stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start * tensor.itemsize, (start + reach + 1) * tensor.itemsize


def fills(tensor: torch.Tensor, extent: Span) -> bool:
    """Whether every byte there is its own."""
    return tensor.numel() * tensor.itemsize == extent[1] - extent[0]
