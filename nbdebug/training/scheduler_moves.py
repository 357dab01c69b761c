"""A user's own scheduler taken over to another optimizer, after a swap. Training thread, at a safe point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

SCALED = ("base_lrs", "max_lrs", "min_lrs", "_last_lr", "swa_lrs")


def move_scheduler(scheduler: Any, optimizer: Optimizer, ratios: Sequence[float]) -> None:
    """Let a scheduler, and those inside it, go on with an optimizer of the same groups.

    The rates that it keeps are multiplied by ``ratios``, one per group: those of a conversion, so that the schedule
    goes on in proportion. A cycled momentum becomes that of the new kind, or ends where it has none. To go back, move
    it to the old optimizer and load the state that it had before.
    """
    for inner in getattr(scheduler, "_schedulers", ()):
        move_scheduler(inner, optimizer, ratios)
    scheduler.optimizer = optimizer
    for name in SCALED:
        values = getattr(scheduler, name, None)
        if isinstance(values, (list, tuple)) and len(values) == len(ratios):
            scaled = [value if ratio == 1.0 else value * ratio for value, ratio in zip(values, ratios, strict=True)]
            setattr(scheduler, name, scaled)
    if getattr(scheduler, "cycle_momentum", False):
        scheduler.use_beta1 = "betas" in optimizer.defaults
        scheduler.cycle_momentum = scheduler.use_beta1 or "momentum" in optimizer.defaults
    watch_steps(optimizer)


def watch_steps(optimizer: Optimizer) -> None:
    """Have the optimizer note its steps, as it does for schedulers made with it; they warn where it does not."""
    kept: list[dict[str, Any]] = [
        {key: group[key] for key in ("lr", "initial_lr") if key in group} for group in optimizer.param_groups
    ]
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"])
    LambdaLR(optimizer, one)
    for group, values in zip(optimizer.param_groups, kept, strict=True):
        group.pop("initial_lr", None)
        group.update(values)


def one(position: int) -> float:
    """No change."""
    return 1.0
