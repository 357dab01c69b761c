"""Cases for the rules that take many steps, or a look at the model, before they speak."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdebug.records.findings import Severity
from nbdebug.records.signals import Signal
from tests.checks.live.windows import Case, curve, falling, flat, looked, noise, same, window

S = Signal
STUCK: dict[str, Any] = {"baseline": 2.0, "lr": 0.1}
LONG: dict[str, Any] = {"baseline": 2.0, "lr": 0.1, "tracks": {S.UPDATE_RATIO: same(1e-3)}}
DROPS: dict[str, Any] = {"baseline": 2.0, "dropout": {"four": 0.8, "two": 0.1}}
NORMS: dict[str, Any] = {"kinds": {"two": "BatchNorm1d"}, "baseline": 2.0}
SAME_INPUT = {
    f"data_{end}/input": curve([value] * 4, [120, 141, 167, 199]) for end, value in (("min", -2.5), ("max", 3))
}
VARIED = {f"data_{end}/input": curve([value, value + 0.1] * 2, [120, 141, 167, 199])
          for end, value in (("min", -2.5), ("max", 3))}  # fmt: skip
GRADIENT_GOES = 10.0 ** -np.linspace(0, 7, 200)


def related(by: float) -> Any:
    """Losses with targets dealt anew about 2.0 + ``by``, with a scatter of a tenth."""
    return lambda place: 2.0 + by + noise(12, 0.1, place)


def by_pairs(by: float, change: float = 1.0, training: float = 2.0, count: int = 300) -> Any:
    return looked(count, training=training, evaluating=training, output_change=change, dealt=related(by))


def descent(count: int, rate: float, signal: float, noise_length: float) -> dict[str, Any]:
    """Plain steps along a gradient of this length with noise on it: losses and norms as they must come out."""
    losses = 2.0 - rate * signal**2 * np.arange(count) + noise(count, 0.01)
    return {"loss": losses, "lr": rate, "curves": {"grad_norm": np.full(count, np.hypot(signal, noise_length))},
            "baseline": 2.0}  # fmt: skip


LATE = (
    # -- no_better_than_baseline
    Case("no_better_than_baseline", "for long", window(flat(600), **STUCK), "no_better_than_baseline"),
    Case("no_better_than_baseline", "not yet for long", window(flat(200), **STUCK), "no_better_than_baseline",
         Severity.INFO),
    Case("no_better_than_baseline", "for long, of a single epoch", window(flat(600), epoch_length=1000, **STUCK),
         "no_better_than_baseline", Severity.INFO),
    Case("no_better_than_baseline", "for long, and a trifle below: nearly all is noise", window(
        flat(600, 1.97, 0.02), **STUCK), "no_better_than_baseline", Severity.INFO),
    Case("no_better_than_baseline", "far above it", window(flat(600, 3.0), **STUCK), "no_better_than_baseline"),
    Case("no_better_than_baseline", "slightly below", window(flat(600, 1.94), **STUCK)),
    Case("no_better_than_baseline", "falls at last", window(np.r_[flat(400), falling(200, 2.0, 1.0)], **STUCK)),
    Case("no_better_than_baseline", "so noisy that its level is not known", window(flat(600, 2.0, 2.5), **STUCK)),
    Case("no_better_than_baseline", "early", window(flat(100), **STUCK)),
    Case("no_better_than_baseline", "no baseline", window(flat(600))),
    Case("no_better_than_baseline", "a GAN", window(flat(600), optimizers=("Adam", "Adam"), **STUCK)),
    # -- batch_too_small
    Case("batch_too_small", "a thousandth is signal", window(**descent(400, 0.05, 0.02, 1.0)), "batch_too_small",
         Severity.INFO),
    Case("batch_too_small", "a tenth is signal", window(**descent(400, 0.01, 0.3, 1.0))),
    Case("batch_too_small", "all of it is signal", window(**descent(400, 0.01, 0.3, 0.01))),
    Case("batch_too_small", "too noisy a loss to say", window(
        flat(400, 2.0, 1.0), lr=1e-3, curves={"grad_norm": np.ones(400)}, baseline=2.0)),
    Case("batch_too_small", "Adam", window(optimizers=("Adam",), **descent(400, 0.05, 0.02, 1.0))),
    Case("batch_too_small", "near the minimum", window(
        falling(400), lr=1e-3, curves={"grad_norm": np.ones(400)}, baseline=2.0)),
    Case("batch_too_small", "a schedule", window(
        **{**descent(400, 0.05, 0.02, 1.0), "lr": np.geomspace(1, 1e-4, 400)})),
    # -- model_ignores_input
    Case("model_ignores_input_live", "no output changes", window(
        flat(), looks=looked(training=2.0, evaluating=2.0, zeroed=2.0, output_change=1e-7), **STUCK),
        "model_ignores_input"),
    Case("model_ignores_input_live", "no baseline, and flat", window(
        flat(), lr=0.1, looks=looked(training=2.0, evaluating=2.0, zeroed=2.0, output_change=0.0)),
        "model_ignores_input"),
    Case("model_ignores_input_live", "at one look of four", window(flat(), looks=looked(
        training=2.0, evaluating=2.0, zeroed=2.0, output_change=lambda place: [0.0, 0.0, 0.01, 0.0][place]), **STUCK)),
    Case("model_ignores_input_live", "a single look", window(flat(), looks=looked(
        times=1, training=2.0, evaluating=2.0, zeroed=2.0, output_change=0.0), **STUCK)),
    Case("model_ignores_input_live", "outputs hardly change yet", window(
        flat(), looks=looked(training=2.0, evaluating=2.0, zeroed=2.0, output_change=1e-3), **STUCK)),
    Case("model_ignores_input_live", "learns: nobody looks", window(
        falling(), looks=looked(training=0.1, evaluating=0.1, zeroed=2.0, output_change=0.0), **STUCK)),
    Case("model_ignores_input_live", "a warm-up at a rate of zero", window(
        flat(), baseline=2.0, lr=0.0, looks=looked(training=2.0, evaluating=2.0, zeroed=2.0, output_change=0.0))),
    Case("model_ignores_input_live", "another loss than the step's", window(
        flat(), looks=looked(training=9.0, evaluating=9.0, zeroed=9.0, output_change=0.0), **STUCK)),
    Case("model_ignores_input_live", "can't be looked at", window(flat(), refused="it is not one network", **STUCK)),
    # -- input_label_mismatch
    Case("input_label_mismatch_live", "no relation, after long training", window(
        flat(600), looks=by_pairs(0.0, count=600), **LONG), "input_label_mismatch"),
    Case("input_label_mismatch_live", "no relation so far", window(
        flat(300), looks=by_pairs(0.0), **LONG), "input_label_mismatch", Severity.INFO),
    Case("input_label_mismatch_live", "no relation, but updates are tiny", window(
        flat(600), looks=by_pairs(0.0, count=600), **{**LONG, "tracks": {S.UPDATE_RATIO: same(1e-8)}}),
        "input_label_mismatch", Severity.INFO),
    Case("input_label_mismatch_live", "a weak relation is found", window(
        flat(600), looks=by_pairs(0.3, count=600), **LONG)),
    Case("input_label_mismatch_live", "outputs are constant: another story", window(
        flat(600), looks=by_pairs(0.0, change=1e-6, count=600), **LONG)),
    Case("input_label_mismatch_live", "a loss that does not go by pairs", window(flat(600), looks=looked(
        600, training=2.0, evaluating=2.0, output_change=1.0, dealt=np.full(12, 2.0)), **LONG)),
    Case("input_label_mismatch_live", "learns", window(falling(600), looks=by_pairs(0.0, count=600), **LONG)),
    # -- dropout_too_high
    Case("dropout_too_high_live", "hides what is known", window(
        flat(), looks=looked(training=2.0, evaluating=0.3), **DROPS), "dropout_too_high"),
    Case("dropout_too_high_live", "one half does", window(
        flat(), looks=looked(training=2.0, evaluating=0.3), **{**DROPS, "dropout": {"four": 0.5}}),
        "dropout_too_high", Severity.INFO),
    Case("dropout_too_high_live", "the same without", window(
        flat(), looks=looked(training=2.0, evaluating=1.8), **DROPS)),
    Case("dropout_too_high_live", "learns", window(
        falling(), looks=looked(training=0.1, evaluating=0.01), **DROPS)),
    Case("dropout_too_high_live", "still falls", window(
        falling(rate=150, end=1.0), looks=looked(training=1.3, evaluating=0.3), **DROPS)),
    Case("dropout_too_high_live", "no dropout", window(
        flat(), looks=looked(training=2.0, evaluating=0.3), baseline=2.0)),
    # -- running statistics
    Case("running_statistics", "bad in evaluation mode on the same batch", window(
        falling(), val=flat(10, 3.0), looks=looked(training=0.1, evaluating=3.0), **NORMS), "degenerate_normalization"),
    Case("running_statistics", "overfitting: the batch itself is fine", window(
        falling(), val=flat(10, 3.0), looks=looked(training=0.1, evaluating=0.1), **NORMS)),
    Case("running_statistics", "a spike at one look", window(falling(), val=flat(10, 3.0), looks=looked(
        training=0.1, evaluating=lambda place: 3.0 if place == 1 else 0.15), **NORMS)),
    Case("running_statistics", "many times, of nearly nothing", window(
        falling(end=0.001, scatter=1e-4), val=flat(10, 0.1), looks=looked(training=0.001, evaluating=0.1), **NORMS)),
    Case("running_statistics", "validation is fine: nobody looks", window(
        falling(), val=flat(10, 0.12, 0.01), looks=looked(training=0.1, evaluating=3.0), **NORMS)),
    Case("running_statistics", "no such norm", window(
        falling(), val=flat(10, 3.0), looks=looked(training=0.1, evaluating=3.0), baseline=2.0)),
    # -- repeated_batch
    Case("repeated_batch_live", "the same at four places", window(
        falling(), curves=SAME_INPUT, looks=looked(batch=5)), "repeated_batch"),
    Case("repeated_batch_live", "extremes are the same, batches are not", window(
        falling(), curves=SAME_INPUT, looks=looked(batch=lambda place: place + 1))),
    Case("repeated_batch_live", "inputs differ: nobody looks", window(falling(), curves=VARIED, looks=looked(batch=5))),
    Case("repeated_batch_live", "in order: the same place of each epoch", window(
        falling(), curves=SAME_INPUT, looks=looked(batch=5, every=20))),
    Case("repeated_batch_live", "all of the data in each batch", window(
        falling(), curves=SAME_INPUT, looks=looked(batch=5), epoch_length=1)),
    # -- vanished_gradient
    Case("vanished_gradient", "gone, with nothing learnt", window(
        flat(), curves={"grad_norm": GRADIENT_GOES}, **STUCK), "vanishing_gradient"),
    Case("vanished_gradient", "the same without a baseline", window(
        flat(), curves={"grad_norm": GRADIENT_GOES}), "vanishing_gradient"),
    Case("vanished_gradient", "at a minimum", window(falling(), curves={"grad_norm": GRADIENT_GOES}, **STUCK)),
    Case("vanished_gradient", "at a poor minimum", window(
        flat(level=1.7), curves={"grad_norm": GRADIENT_GOES}, **STUCK)),
    Case("vanished_gradient", "stuck, with a gradient", window(flat(), curves={"grad_norm": np.ones(200)}, **STUCK)),
    Case("vanished_gradient", "still falls", window(
        2.4 - 0.002 * np.arange(200) + noise(200, 0.001), curves={"grad_norm": GRADIENT_GOES}, baseline=1.0)),
)  # fmt: skip
