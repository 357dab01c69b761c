"""Cases of faults in forms that are easily missed, beside sound runs that look like them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbdebug.records.signals import Signal
from tests.checks.live.windows import Case, curve, falling, flat, noise, same, track, window

S = Signal
ROUNDED = 1e-4 * (1 + noise(200, 2e-7))  # norms that a step clips to 1e-4
QUIET = flat(200, 1.94, 0.007)
THROWN = np.r_[
    3.23, 3.57, 4.41, 4.85, 4.51, 4.11, 3.60, 3.30, 3.19, 3.08, np.linspace(3.07, 2.7, 190) + noise(190, 0.04)
]
SCATTERED = falling(200, 3.2, 2.4, 80, 0.5)
SCATTERED[5:8] = 4.2
FAR = {"lr": 0.1, "optimizers": ("AdamW",), "baseline": 2.99}
NEEDLE = {S.UPDATE_RATIO: same(1e-6)}
TINY: dict[str, Any] = {"lr": 1e-6, "optimizers": ("Adam",)}
HELD = 1.75 + 1.5 * np.exp(-np.arange(200) / 12) + noise(200, 0.05)
DECAYS: dict[str, Any] = {
    "lr": 3e-3, "optimizers": ("Adam",), "options": {"weight_decay": 0.1, "decoupled_weight_decay": 0.0},
    "baseline": 2.99,
}  # fmt: skip
SHRUNK = {S.UPDATE_RATIO: same(0.055), S.WEIGHT_GROWTH: np.linspace(1.0, 0.65, 6)[:, None] ** np.r_[[1.0] * 8]}
GROWN = {S.UPDATE_RATIO: same(0.055), S.WEIGHT_GROWTH: np.linspace(1.0, 2.0, 6)[:, None] * np.ones(8)}
FAST = {S.UPDATE_RATIO: same(0.05)}
SLEEPERS = ("drop", "norm")


def began_high(seed: int) -> np.ndarray:
    """A loss that stays, of which the first batch happened to be a hard one."""
    losses = flat(200, 1.2, 0.22)
    return np.r_[1.2 + 0.1 * seed, losses[1:]]


def asleep(*ranges: tuple[int, int]) -> dict[str, Any]:
    steps = np.concatenate([np.arange(first, last + 1) for first, last in ranges])
    return {"eval_mode": curve(np.ones(len(steps)), steps)}


MISSED = (
    # -- gradient_clip_too_low
    Case("gradient_clip_too_low", "to 1e-4 in the step, by losses that hardly differ", window(
        QUIET, curves={"grad_norm": ROUNDED}), "gradient_clip_too_low"),
    Case("gradient_clip_too_low", "in the step, below what the knob clips at", window(
        QUIET, curves={"grad_norm": ROUNDED}, clips_by="norm", clip=1.0), "gradient_clip_too_low"),
    Case("gradient_clip_too_low", "in the step, and by value besides", window(
        QUIET, curves={"grad_norm": ROUNDED}, clips_by="value", clip=1.0), "gradient_clip_too_low"),
    Case("gradient_clip_too_low", "norms nearly alike, as all batches are", window(
        QUIET, curves={"grad_norm": 1.0 + noise(200, 4e-4)})),
    Case("gradient_clip_too_low", "all of the data, and norms to seven places", window(
        1.94 - 1e-5 * np.arange(200), curves={"grad_norm": ROUNDED})),
    # -- lr_too_high
    Case("lr_too_high", "thrown far, jumped less, and crept back", window(
        THROWN, tracks={S.UPDATE_RATIO: track([[5.0] * 8] + [[0.03] * 8] * 5)}, **FAR), "lr_too_high"),
    Case("lr_too_high", "the same jump, with first updates of half the weights", window(
        THROWN, tracks={S.UPDATE_RATIO: track([[0.6] * 8] + [[0.03] * 8] * 5)}, **FAR)),
    Case("lr_too_high", "tiny first weights: large updates, no jump", window(
        falling(200, 3.2, 2.4, 80), tracks={S.UPDATE_RATIO: track([[5.0] * 8] + [[0.01] * 8] * 5)}, **FAR)),
    Case("lr_too_high", "the same, and of losses that scatter three in a row lie high", window(
        SCATTERED, tracks={S.UPDATE_RATIO: track([[5.0] * 8] + [[0.01] * 8] * 5)}, **FAR)),
    Case("lr_too_high", "tiny first weights, and hardly a jump", window(
        np.r_[3.2, 3.3, 3.4, 3.5, 3.4, falling(195, 3.2, 2.4, 80)],
        tracks={S.UPDATE_RATIO: track([[50.0] * 8] + [[0.01] * 8] * 5)}, **FAR)),
    Case("lr_too_high", "thrown far, and learnt since", window(
        np.r_[THROWN[:10], falling(190, 3.0, 0.3)],
        tracks={S.UPDATE_RATIO: track([[5.0] * 8] + [[0.01] * 8] * 5)}, **FAR)),
    # -- lr_too_low
    Case("lr_too_low", "a noisy loss that began high", window(began_high(3), tracks=NEEDLE, **TINY), "lr_too_low"),
    Case("lr_too_low", "a noisy loss that began low", window(began_high(-3), tracks=NEEDLE, **TINY), "lr_too_low"),
    Case("lr_too_low", "early, and noisy", window(began_high(2)[:45], tracks=NEEDLE, **TINY), "lr_too_low"),
    Case("lr_too_low", "noisy, and falls by a third", window(
        1.2 * np.linspace(1, 0.62, 200) + noise(200, 0.1), tracks=NEEDLE, **TINY)),
    # -- weight_decay_too_high
    Case("weight_decay_too_high", "in the gradients of Adam: fell, and is held", window(
        HELD, curves={"decay_share/0": [0.5, 0.38, 0.45, 0.39]}, tracks=SHRUNK, **DECAYS), "weight_decay_too_high"),
    Case("weight_decay_too_high", "in those of RMSprop, and it never fell", window(
        flat(), curves={"decay_share": [0.5, 0.4]}, tracks=FAST, **{**DECAYS, "optimizers": ("RMSprop",)}),
        "weight_decay_too_high"),
    Case("weight_decay_too_high", "AdamW with as much, decoupled", window(
        HELD, curves={"decay_share/0": [0.4, 0.4]}, tracks=SHRUNK,
        **{**DECAYS, "options": {"weight_decay": 0.1, "decoupled_weight_decay": 1.0}})),
    Case("weight_decay_too_high", "SGD, less than half of the update", window(
        flat(), lr=0.1, curves={"decay_share": [0.4, 0.4]}, options={"weight_decay": 0.5})),
    Case("weight_decay_too_high", "Adam, a usual penalty", window(
        HELD, curves={"decay_share": [0.05, 0.06]}, tracks=SHRUNK, **DECAYS)),
    Case("weight_decay_too_high", "Adam, stays, while weights grow", window(
        HELD, curves={"decay_share": [0.4, 0.4]}, tracks=GROWN, **DECAYS)),
    Case("weight_decay_too_high", "Adam, shrinks, and the loss still falls", window(
        falling(200, 3.0, 1.6, 90), curves={"decay_share": [0.4, 0.4]}, tracks=SHRUNK, **DECAYS)),
    Case("weight_decay_too_high", "Adam, held, and has learnt", window(
        HELD - 1.2, curves={"decay_share": [0.4, 0.4]}, tracks=SHRUNK, **DECAYS)),
    Case("weight_decay_too_high", "Adam, updates too short for decay to get anywhere", window(
        flat(), curves={"decay_share": [0.4, 0.4]}, tracks={S.UPDATE_RATIO: same(1e-3)}, **DECAYS)),
    # -- left_in_eval_mode
    Case("left_in_eval_mode", "for good, while the loss falls", window(
        falling(), curves=asleep((21, 200)), asleep=SLEEPERS), "eval_mode_in_training"),
    Case("left_in_eval_mode", "for five steps, till it broke off", window(
        flat(27), curves=asleep((23, 27)), asleep=SLEEPERS), "eval_mode_in_training"),
    Case("left_in_eval_mode", "once put back, then left", window(
        flat(), curves=asleep((21, 24), (101, 200)), asleep=SLEEPERS), "eval_mode_in_training"),
    Case("left_in_eval_mode", "a long run, of which not all points are kept", window(
        flat(3000), curves={"eval_mode": curve(np.ones(993), np.arange(21, 2998, 3))}, asleep=SLEEPERS),
        "eval_mode_in_training"),
    Case("left_in_eval_mode", "put back after some steps", window(
        flat(), curves=asleep((21, 60)), asleep=SLEEPERS)),
    Case("left_in_eval_mode", "for a step now and then", window(
        flat(), curves={"eval_mode": curve(np.ones(10), np.arange(20, 201, 20))}, asleep=SLEEPERS)),
    Case("left_in_eval_mode", "from the first step on, on purpose", window(
        flat(), curves=asleep((1, 200)), asleep=SLEEPERS)),
    Case("left_in_eval_mode", "nothing in it that would do otherwise", window(flat(), curves=asleep((21, 200)))),
    Case("left_in_eval_mode", "norms alone were put to sleep", window(flat(), asleep=SLEEPERS)),
)  # fmt: skip
