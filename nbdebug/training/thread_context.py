"""What torch keeps per thread, carried from the thread that calls ``start`` into the training thread."""

from __future__ import annotations

from dataclasses import dataclass

import torch

AUTOCAST_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class ThreadContext:
    """Grad mode, autocast, default device, CUDA device and number of threads of one thread."""

    grad: bool
    autocast: tuple[tuple[str, bool, torch.dtype], ...]
    autocast_cache: bool
    default_device: torch.device
    cuda_device: int | None
    threads: int

    @classmethod
    def capture(cls) -> ThreadContext:
        """Of the calling thread."""
        return cls(
            grad=torch.is_grad_enabled(),
            autocast=tuple((d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in AUTOCAST_DEVICES),
            autocast_cache=torch.is_autocast_cache_enabled(),
            default_device=torch.get_default_device(),
            cuda_device=torch.cuda.current_device() if torch.cuda.is_initialized() else None,
            threads=torch.get_num_threads(),
        )

    def apply(self) -> None:
        """To the calling thread, for good; only the training thread, which is nobody else's, does this."""
        torch.set_grad_enabled(self.grad)
        for device, enabled, dtype in self.autocast:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(self.autocast_cache)
        if torch.get_default_device() != self.default_device:
            torch.set_default_device(self.default_device)
        if self.cuda_device is not None:
            torch.cuda.set_device(self.cuda_device)
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
