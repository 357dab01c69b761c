"""What the tests' conditions may read, and moments to judge them at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nbdebug.breakpoints.condition import Condition, Reading, compile_condition

NAMES = ("loss", "grad_norm", "lr", "step", "epoch", "val_loss", "accuracy")
LAYER_NAMES = ("update_ratio", "grad_mean", "grad_norm")
LAYERS = ("fc1", "fc2", "blocks.2.attn", "größe")

Past = Mapping[Reading, Sequence[float]]


def compiled(text: str) -> Condition:
    return compile_condition(text, NAMES, LAYERS, LAYER_NAMES)


def of(**scalars: float) -> dict[Reading, float]:
    return {Reading(name): value for name, value in scalars.items()}


def before(**scalars: Sequence[float]) -> dict[Reading, Sequence[float]]:
    return {Reading(name): values for name, values in scalars.items()}


def ratios(*values: float) -> dict[Reading, float]:
    """The update ratios of the first layers."""
    return {Reading("update_ratio", layer): value for layer, value in zip(LAYERS, values, strict=False)}
