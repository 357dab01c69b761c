"""Tensors on their way to the host: one copy per device, started at once, read when it has arrived.

On a CUDA device the copy goes into pinned memory on the stream that made the tensors, and an event says when it is
done: nobody waits before that. On the CPU there is nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Transfer:
    """Some tensors' values; ``ready`` says whether :meth:`arrays` would wait."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._arrays: dict[int, Floats] = {}
        self._copies: list[_Copy] = []
        self._count = len(tensors)
        elsewhere: dict[torch.device, list[int]] = {}
        for index, tensor in enumerate(tensors):
            if tensor.device.type == "cpu":
                self._arrays[index] = _as_array(tensor)
            else:
                elsewhere.setdefault(tensor.device, []).append(index)
        for device, indices in elsewhere.items():
            self._copies.append(_Copy(device, indices, [tensors[index].detach() for index in indices]))

    @property
    def ready(self) -> bool:
        """Whether everything has arrived."""
        return all(copy.ready for copy in self._copies)

    def arrays(self) -> list[Floats]:
        """The values as float64 arrays of the tensors' shapes, in their order; waits where they have not arrived."""
        for copy in self._copies:
            self._arrays.update(copy.arrays())
        self._copies.clear()
        return [self._arrays[index] for index in range(self._count)]


class _Copy:
    """The tensors of one device, packed into one."""

    def __init__(self, device: torch.device, indices: list[int], tensors: list[torch.Tensor]) -> None:
        wide = torch.float32 if device.type == "mps" else torch.float64
        packed = torch.cat([tensor.reshape(-1).to(wide) for tensor in tensors])
        self._indices = indices
        self._shapes = [tuple(tensor.shape) for tensor in tensors]
        self._event = None
        if device.type == "cuda":
            self._host = torch.empty(packed.shape, dtype=wide, pin_memory=True)
            self._host.copy_(packed, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(device))
        else:
            self._host = packed.cpu()

    @property
    def ready(self) -> bool:
        return self._event is None or bool(self._event.query())

    def arrays(self) -> dict[int, Floats]:
        if self._event is not None:
            self._event.synchronize()
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in self._shapes]
        parts = np.split(self._host.numpy().astype(np.float64), np.cumsum(sizes)[:-1])
        shaped = zip(self._indices, parts, self._shapes, strict=True)
        return {index: part.reshape(shape) for index, part, shape in shaped}


def _as_array(tensor: torch.Tensor) -> Floats:
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # numpy has none
        tensor = tensor.to(torch.float32)
    return tensor.numpy().astype(np.float64)
