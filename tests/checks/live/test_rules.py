"""Each live rule on windows made by hand: the fault, and sound runs that look like it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.registry import live_checks
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameters
from nbdebug.checks.preflight import registry
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.signals import Signal
from tests.checks.live.late_cases import LATE
from tests.checks.live.missed_cases import MISSED
from tests.checks.live.windows import LAYERS, Case, curve, falling, flat, looked, noise, same, track, window

S = Signal
PARAMETERS = Parameters([parameter for check in live_checks() for parameter in check.parameters])
CHECKS = {check.name: check for check in live_checks()}


def judged(check: LiveCheck, seen: Window) -> list[Finding]:
    """What the rule finds; whatever numpy warns of is an error."""
    say = Say(PARAMETERS, seen.run, seen.step, check.source)
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        try:
            check.judge(seen, say)
        except Skip as reason:
            assert str(reason)
    return say.findings


def rising(count: int = 60, start: float = 2.0, rate: float = 8.0) -> np.ndarray:
    return start * np.exp(np.arange(count) / rate)


def jumping() -> np.ndarray:
    """Blown up by the first update, and slowly on its way back."""
    return np.concatenate([[2.3], 25 * np.exp(-np.arange(29) / 4) + 2.6 + noise(29, 0.1)])


def bends(down: float, up: float, count: int = 12, scatter: float = 0.005) -> np.ndarray:
    """Validation losses that fall for a third of the time and then rise."""
    at = np.arange(count)
    low = count // 3
    return np.where(at < low, 1 - (1 - down) * at / low, down + (up - down) * (at - low) / (count - low)) + noise(
        count, scatter
    )


def by_layer(*values: float, rows: int = 6) -> np.ndarray:
    return np.tile(np.array(values), (rows, 1))


IN_PERIOD = np.tile(np.repeat([0.5, 1.5, 0.6, 1.4], 5), 8)  # epochs of 20 batches, in runs of one kind
STAIRS = np.repeat(0.1 ** np.arange(8), 20)  # of a tenth, each 20 steps: by batch, meant by epoch
WARM = np.minimum(np.arange(1, 201) / 100, 1.0)
SOUND_UPDATES = {S.UPDATE_RATIO: same(1e-3)}
VANISHED = 10.0 ** -np.arange(0, 12, 1.5)[::-1]  # from the first layer to the last
DEAD = {
    S.UNITS_DEAD: track(by_layer(0.85, 0.1), layers=("act1", "act2")),
    S.GRADIENT_ZERO: track(by_layer(0.86, 0.05), layers=("fc1", "fc2")),
}
RELUS: dict[str, Any] = {"layers": ("fc1", "act1", "fc2", "act2"), "kinds": {"act1": "ReLU", "act2": "ReLU"}}
NARROW = {"fc1": 1, "fc2": 10}
WIDE = {"fc1": 64, "fc2": 10}
TINY_STEPS = {S.UPDATE_RATIO: same(1e-7)}


CASES = (
    # -- lr_too_high
    Case("lr_too_high", "blows up", window(rising(), lr=0.5, tracks={S.UPDATE_RATIO: same(0.2)}, baseline=2.0),
         "lr_too_high", Severity.CRITICAL),
    Case("lr_too_high", "blown up by the first update", window(jumping(), lr=0.5, tracks={S.UPDATE_RATIO: same(2.0)}),
         "lr_too_high"),
    Case("lr_too_high", "stays high, large updates", window(
        np.r_[1.0, flat(59, 3.0, 0.3)], lr=0.5, tracks={S.UPDATE_RATIO: same(0.1)}), "lr_too_high"),
    Case("lr_too_high", "first updates of Adam are large", window(
        falling(), lr=1e-2, tracks={S.UPDATE_RATIO: same(0.3, rows=1)})),
    Case("lr_too_high", "a noisy loss that falls", window(
        falling(scatter=0.5), lr=0.1, tracks={S.UPDATE_RATIO: same(0.05)})),
    Case("lr_too_high", "rises, with sound updates: no matter of the rate", window(
        np.r_[1.0, flat(99, 2.0)], lr=1e-3, tracks=SOUND_UPDATES)),
    Case("lr_too_high", "one spike", window(
        np.r_[falling(150), 20.0, flat(49, 0.1, 0.01)], lr=0.1, tracks={S.UPDATE_RATIO: same(0.05)})),
    Case("lr_too_high", "a GAN", window(
        np.r_[1.0, flat(99, 4.0)], lr=1e-3, tracks={S.UPDATE_RATIO: same(0.1)}, optimizers=("Adam", "Adam"))),
    Case("lr_too_high", "a policy's loss about zero", window(
        noise(100), lr=1e-3, tracks={S.UPDATE_RATIO: same(0.1)})),
    Case("lr_too_high", "LBFGS takes long steps", window(
        np.r_[1.0, flat(59, 3.0, 0.3)], lr=1.0, tracks={S.UPDATE_RATIO: same(1.0)}, optimizers=("LBFGS",))),
    # -- lr_too_low
    Case("lr_too_low", "nothing moves", window(flat(), lr=1e-7, tracks=TINY_STEPS, baseline=1.9), "lr_too_low"),
    Case("lr_too_low", "the same for Adam", window(flat(), lr=1e-7, tracks=TINY_STEPS, optimizers=("AdamW",)),
         "lr_too_low"),
    Case("lr_too_low", "fine-tuning, already good", window(flat(level=0.2), lr=1e-7, tracks=TINY_STEPS, baseline=2.0)),
    Case("lr_too_low", "one layer learns", window(
        flat(), lr=1e-7, tracks={S.UPDATE_RATIO: by_layer(*[1e-8] * 7, 1e-3)})),
    Case("lr_too_low", "warm-up", window(flat(), lr=1e-7 * WARM[:200] ** 2 + np.arange(200) * 1e-9, tracks=TINY_STEPS)),
    Case("lr_too_low", "a schedule at its end", window(
        flat(), lr=np.geomspace(0.1, 1e-9, 200), tracks=TINY_STEPS)),
    Case("lr_too_low", "gradients vanish at a usual rate", window(flat(), lr=0.1, tracks=TINY_STEPS)),
    Case("lr_too_low", "falls all the same", window(falling(), lr=1e-7, tracks=TINY_STEPS)),
    # -- lr_schedule_collapse
    Case("lr_schedule_collapse", "per batch, meant per epoch", window(
        flat(160), lr=STAIRS, goal=400, schedule="StepLR"), "lr_schedule_collapse"),
    Case("lr_schedule_collapse", "when it no longer matters", window(
        falling(160, end=0.01, rate=10, scatter=0.001), lr=STAIRS, goal=400), "lr_schedule_collapse", Severity.INFO),
    Case("lr_schedule_collapse", "near the end of the run", window(flat(160), lr=STAIRS, goal=70 + 30)),
    Case("lr_schedule_collapse", "cosine to the end", window(
        flat(), lr=0.05 * (1 + np.cos(np.pi * np.arange(200) / 200)), goal=201)),
    Case("lr_schedule_collapse", "warm-up from nothing", window(flat(), lr=1e-5 + WARM * 0.1, goal=1000)),
    Case("lr_schedule_collapse", "the trough of a restart", window(
        flat(), lr=0.05 * (1 + np.cos(np.pi * (np.arange(200) % 50) / 50)), goal=1000)),
    Case("lr_schedule_collapse", "waits for a plateau", window(
        flat(160), lr=STAIRS, goal=400, schedule="ReduceLROnPlateau")),
    Case("lr_schedule_collapse", "a single huge rate at first", window(
        flat(100), lr=np.r_[12.0, 12.0, np.full(98, 0.1)], goal=400)),
    Case("lr_schedule_collapse", "no end known", window(flat(160), lr=STAIRS, goal=0)),
    # -- gradient_clip_too_low
    Case("gradient_clip_too_low", "by the knob", window(
        flat(), curves={"grad_norm": flat(200, 5.0)}, clips_by="norm", clip=1e-2), "gradient_clip_too_low"),
    Case("gradient_clip_too_low", "by hand, in the step", window(
        flat(), curves={"grad_norm": np.full(200, 1e-3)}), "gradient_clip_too_low"),
    Case("gradient_clip_too_low", "usual clipping", window(
        flat(), curves={"grad_norm": flat(200, 1.5)}, clips_by="norm", clip=1.0)),
    Case("gradient_clip_too_low", "always clipped by hand, and learns", window(
        falling(), curves={"grad_norm": np.full(200, 1.0)})),
    Case("gradient_clip_too_low", "all of the data in each step", window(
        2.0 - 1e-5 * np.arange(200), curves={"grad_norm": np.full(200, 1.0)})),
    Case("gradient_clip_too_low", "Adam makes up for it", window(
        flat(), curves={"grad_norm": np.full(200, 1.0)}, optimizers=("Adam",))),
    # -- weight_decay_too_high
    Case("weight_decay_too_high", "pulls all to zero", window(
        flat(), lr=0.1, curves={"decay_share": [0.9, 0.8]}, options={"weight_decay": 0.5}), "weight_decay_too_high"),
    Case("weight_decay_too_high", "in one of several groups", window(
        flat(), lr=0.1, curves={"decay_share/body": [0.9]}, options={"weight_decay": 0.5}), "weight_decay_too_high"),
    Case("weight_decay_too_high", "converged: gradients are small", window(
        falling(end=0.01, scatter=0.001), lr=0.1, curves={"decay_share": [0.9]}, options={"weight_decay": 0.5})),
    Case("weight_decay_too_high", "slow, whatever its share", window(
        flat(), lr=1e-3, curves={"decay_share": [0.9]}, options={"weight_decay": 0.01})),
    Case("weight_decay_too_high", "a small share", window(
        flat(), lr=0.1, curves={"decay_share": [0.1]}, options={"weight_decay": 0.5})),
    # -- parameters_not_updating
    Case("parameters_not_updating", "a gradient, and no change", window(flat(), lr=0.1, tracks={
        S.UPDATE_NORM: by_layer(0.0, 1e-3), S.GRADIENT_NORM: by_layer(1.0, 1.0)}), "parameters_not_updating"),
    Case("parameters_not_updating", "once only", window(flat(), lr=0.1, tracks={
        S.UPDATE_NORM: np.r_[by_layer(0.0, rows=1), by_layer(1e-3)], S.GRADIENT_NORM: by_layer(1.0, rows=7)})),
    Case("parameters_not_updating", "frozen, no gradient", window(flat(), lr=0.1, tracks={
        S.UPDATE_NORM: by_layer(0.0, 1e-3), S.GRADIENT_NORM: by_layer(np.nan, 1.0)})),
    Case("parameters_not_updating", "rate of zero in a warm-up", window(flat(), lr=np.r_[np.zeros(199), 0.1], tracks={
        S.UPDATE_NORM: by_layer(0.0), S.GRADIENT_NORM: by_layer(1.0)})),
    Case("parameters_not_updating", "a branch that is not used", window(flat(), lr=0.1, tracks={
        S.UPDATE_NORM: by_layer(0.0, 1e-3), S.GRADIENT_NORM: by_layer(0.0, 1.0)})),
    # -- dead_relu
    Case("dead_relu", "nearly all, without gradient", window(falling(end=0.5), tracks=DEAD, **RELUS), "dead_relu"),
    Case("dead_relu", "half, and the loss stays", window(flat(), tracks={
        **DEAD, S.UNITS_DEAD: track(by_layer(0.5, 0.1), layers=("act1", "act2"))}, **RELUS), "dead_relu"),
    Case("dead_relu", "seen as dead inputs of the next layer", window(flat(), tracks={
        S.INPUT_UNITS_DEAD: track(by_layer(0.0, 0.85), layers=("fc1", "fc2")),
        S.GRADIENT_ZERO: DEAD[S.GRADIENT_ZERO]}, layers=("fc1", "fc2")), "dead_relu"),
    Case("dead_relu", "half, and it learns", window(falling(), tracks={
        **DEAD, S.UNITS_DEAD: track(by_layer(0.5, 0.1), layers=("act1", "act2"))}, **RELUS),
        "dead_relu", Severity.INFO),
    Case("dead_relu", "ordinary sparsity", window(flat(), tracks={
        **DEAD, S.UNITS_DEAD: track(by_layer(0.3, 0.1), layers=("act1", "act2"))}, **RELUS)),
    Case("dead_relu", "silent, but with a gradient", window(flat(), tracks={
        **DEAD, S.GRADIENT_ZERO: track(by_layer(0.1, 0.1), layers=("fc1", "fc2"))}, **RELUS)),
    Case("dead_relu", "pixels that are always black", window(flat(), tracks={
        S.INPUT_UNITS_DEAD: track(by_layer(0.9, 0.0), layers=("fc1", "fc2")),
        S.GRADIENT_ZERO: track(by_layer(0.9, 0.0), layers=("fc1", "fc2"))}, layers=("fc1", "fc2"))),
    Case("dead_relu", "dead at one look of three", window(flat(), tracks={
        **DEAD, S.UNITS_DEAD: track([[0.1, 0.1], [0.9, 0.1], [0.1, 0.1]], layers=("act1", "act2"))}, **RELUS)),
    # -- saturated_activations
    Case("saturated_activations", "flat, and the loss stays", window(
        flat(), tracks={S.SATURATED: by_layer(0.95, 0.9)}), "saturated_activations"),
    Case("saturated_activations", "while the loss falls", window(
        falling(end=1.3), tracks={S.SATURATED: by_layer(0.95, 0.9)}), "saturated_activations", Severity.INFO),
    Case("saturated_activations", "a sure classifier's last sigmoid", window(
        flat(), tracks={S.SATURATED: track(by_layer(0.99), layers=("eight",))})),
    Case("saturated_activations", "learnt", window(falling(), tracks={S.SATURATED: by_layer(0.95, 0.9)})),
    Case("saturated_activations", "half", window(flat(), tracks={S.SATURATED: by_layer(0.5, 0.6)})),
    # -- vanishing_gradient
    Case("vanishing_gradient", "over depth", window(
        flat(), tracks={S.GRADIENT_RATIO: by_layer(*VANISHED), S.UPDATE_RATIO: by_layer(*VANISHED * 0.1)}),
        "vanishing_gradient"),
    Case("vanishing_gradient", "Adam makes up for it", window(
        flat(), tracks={S.GRADIENT_RATIO: by_layer(*VANISHED), S.UPDATE_RATIO: same(1e-3)})),
    Case("vanishing_gradient", "small in all layers alike", window(
        flat(), tracks={S.GRADIENT_RATIO: same(1e-9), S.UPDATE_RATIO: same(1e-10)})),
    Case("vanishing_gradient", "converged", window(
        falling(), tracks={S.GRADIENT_RATIO: by_layer(*VANISHED), S.UPDATE_RATIO: by_layer(*VANISHED * 0.1)})),
    Case("vanishing_gradient", "at first only: gates at zero", window(
        flat(), tracks={S.GRADIENT_RATIO: np.r_[by_layer(*VANISHED, rows=1), same(0.1)],
                        S.UPDATE_RATIO: np.r_[by_layer(*VANISHED, rows=1), same(1e-3)]})),
    # -- exploding_gradient
    Case("exploding_gradient", "grows and grows, and the loss", window(
        rising(200, rate=40), curves={"grad_norm": rising(200, 1.0, 20)}, baseline=2.0), "exploding_gradient"),
    Case("exploding_gradient", "leaps", window(
        flat(), curves={"grad_norm": np.where(np.arange(200) % 30 == 29, 50.0, 1.0)}),
        "exploding_gradient", Severity.INFO),
    Case("exploding_gradient", "a single leap", window(
        flat(), curves={"grad_norm": np.where(np.arange(200) == 150, 50.0, 1.0)})),
    Case("exploding_gradient", "converged, odd samples leap", window(
        falling(), curves={"grad_norm": np.where(np.arange(200) % 30 == 29, 1.0, 1e-3)})),
    Case("exploding_gradient", "noise", window(flat(), curves={"grad_norm": np.exp(noise(200, 0.5))})),
    # -- loss_course
    Case("loss_course", "climbs", window(rising(rate=20), lr=0.1), "loss_divergence"),
    Case("loss_course", "does not fall", window(flat(), lr=0.1), "loss_plateau", Severity.INFO),
    Case("loss_course", "to and fro", window(
        2.0 + 1.0 * (-1.0) ** np.arange(90) + noise(90, 0.1), lr=0.1), "loss_oscillation", Severity.INFO),
    Case("loss_course", "falls", window(falling(), lr=0.1)),
    Case("loss_course", "plateau after it learnt", window(falling(400), lr=0.1)),
    Case("loss_course", "a GAN's climbs", window(rising(rate=20), optimizers=("Adam", "Adam"))),
    Case("loss_course", "below zero", window(falling() - 1.0)),
    Case("loss_course", "warm-up: slow, but it falls", window(2.0 - 0.0004 * np.arange(120) + noise(120, 0.001))),
    # -- overfitting
    Case("overfitting", "validation turns", window(falling(240), val=bends(0.5, 0.9), baseline=2.0), "overfitting"),
    Case("overfitting", "by heart from the start", window(
        falling(240, end=0.01, scatter=0.002), val=flat(12, 1.9), baseline=2.0), "overfitting"),
    Case("overfitting", "both fall", window(falling(240), val=falling(12, rate=3), baseline=2.0)),
    Case("overfitting", "converged, validation flat", window(falling(240), val=bends(0.3, 0.31), baseline=2.0)),
    Case("overfitting", "tiny losses drift", window(
        falling(240, end=0.001, scatter=0.0), val=bends(0.001, 0.003, scatter=0.0) / 10, baseline=2.0)),
    Case("overfitting", "noisy validation", window(
        falling(240), val=0.5 + noise(12, 0.1), baseline=2.0)),
    Case("overfitting", "four evaluations", window(falling(80), val=[0.5, 0.7, 0.9, 1.2], baseline=2.0)),
    Case("overfitting", "a bump that it gets over", window(
        falling(240), val=np.r_[bends(0.5, 0.8, 8), 0.6, 0.5, 0.4, 0.35], baseline=2.0)),
    Case("overfitting", "nothing learnt, validation worsens", window(flat(240), val=bends(1.9, 2.6), baseline=2.0)),
    Case("overfitting", "likelihoods below zero", window(falling(240) - 5, val=bends(0.5, 0.9) - 5)),
    # -- underfitting
    Case("underfitting", "through one unit", window(flat(300, 1.8), val=flat(15, 1.8), baseline=2.0, widths=NARROW),
         "underfitting"),
    Case("underfitting", "may be noise", window(flat(300, 1.8), val=flat(15, 1.8), baseline=2.0, widths=WIDE),
         "underfitting", Severity.INFO),
    Case("underfitting", "still falling", window(
        2.0 - 0.003 * np.arange(300), val=2.0 - 0.06 * np.arange(15), baseline=2.0, widths=NARROW)),
    Case("underfitting", "a bottleneck by design, and it learns", window(
        falling(300), val=falling(15, rate=2), baseline=2.0, widths=NARROW)),
    Case("underfitting", "early", window(flat(100, 1.8), val=flat(5, 1.8), baseline=2.0, widths=NARROW)),
    Case("underfitting", "another constant would do better: no matter of size", window(
        flat(300, 1.8), val=flat(15, 3.5), baseline=2.0, widths=NARROW)),
    # -- loss_sign_error
    Case("loss_sign_error_live", "ever faster", window(-rising(100, 1.0, 20)), "loss_sign_error",
         Severity.CRITICAL),
    Case("loss_sign_error_live", "from above zero", window(1.0 - 0.01 * np.arange(100.0) ** 2), "loss_sign_error"),
    Case("loss_sign_error_live", "a density, ever slower", window(falling(200, 0.5, -9.0))),
    Case("loss_sign_error_live", "a policy about zero", window(noise(200))),
    Case("loss_sign_error_live", "falls", window(falling())),
    # -- unshuffled_data
    Case("unshuffled_data_live", "runs of one kind", window(IN_PERIOD + noise(160, 0.05)), "unshuffled_data"),
    Case("unshuffled_data_live", "learnt, little left of it", window(
        falling(160, scatter=0) + 0.05 * (IN_PERIOD - 1), baseline=2.0), "unshuffled_data", Severity.INFO),
    Case("unshuffled_data_live", "smooth fall", window(falling(160, rate=60, scatter=0.0))),
    Case("unshuffled_data_live", "noise", window(flat(160, 1.0, 0.3))),
    Case("unshuffled_data_live", "the same batches in any order", window(
        1.0 + np.tile(noise(20, 0.3, 1), 8) + noise(160, 0.05))),
    Case("unshuffled_data_live", "another period", window(
        1.0 + 0.4 * np.sin(2 * np.pi * np.arange(160) / 27) + noise(160, 0.05))),
    # -- half precision
    Case("half_precision_scale", "down to nothing", window(flat(), curves={
        "loss_scale": 65536.0 / 2.0 ** np.minimum(np.arange(200) // 5, 20)}), "half_precision_overflow"),
    Case("half_precision_scale", "every other update is left out", window(flat(), curves={
        "loss_scale": np.full(200, 128.0), "skipped_updates": np.arange(200) % 2}), "half_precision_overflow"),
    Case("half_precision_scale", "finds its scale at first", window(flat(), curves={
        "loss_scale": np.r_[65536.0 / 2.0 ** np.arange(8), np.full(192, 512.0)],
        "skipped_updates": np.r_[np.ones(8), np.zeros(192)]})),
    Case("half_precision_scale", "tries a larger one now and then", window(flat(), curves={
        "loss_scale": np.full(200, 512.0), "skipped_updates": (np.arange(200) % 50 == 0)})),
    Case("half_precision_scale", "no scaler", window(flat())),
    # -- constant_output
    Case("constant_output", "one number", window(flat(), curves={
        "data_min/output": np.full(200, 0.3), "data_max/output": np.full(200, 0.3)}), "constant_output"),
    Case("constant_output", "begins at zero", window(flat(30), curves={
        "data_min/output": curve([0.0, -0.1, -0.5], [1, 15, 25]),
        "data_max/output": curve([0.0, 0.1, 0.4], [1, 15, 25])})),
    Case("constant_output", "some range", window(flat(), curves={
        "data_min/output": np.full(200, 0.3), "data_max/output": np.full(200, 0.301)})),
    Case("constant_output", "only the input is", window(flat(), curves={
        "data_min/input": np.full(200, 0.3), "data_max/input": np.full(200, 0.3)})),
    # -- layer_scales
    Case("layer_scales", "activations leave their scale", window(flat(), tracks={
        S.ACTIVATION_STD: np.geomspace(1, 1e6, 6)[:, None] * np.ones(8)}), "activation_scale", Severity.INFO),
    Case("layer_scales", "weights grow", window(flat(), tracks={
        S.WEIGHT_GROWTH: np.geomspace(1, 1e3, 6)[:, None] * np.ones(8)}), "weight_growth", Severity.INFO),
    Case("layer_scales", "weights shrink", window(flat(), tracks={
        S.WEIGHT_GROWTH: np.geomspace(1, 1e-3, 6)[:, None] * np.ones(8)}), "weight_collapse", Severity.INFO),
    Case("layer_scales", "large updates", window(flat(), tracks={S.UPDATE_RATIO: same(0.1)}), "update_ratio",
         Severity.INFO),
    Case("layer_scales", "a gate that opens", window(flat(), tracks={
        S.ACTIVATION_STD: np.linspace(0, 1, 6)[:, None] * np.ones(8)})),
    Case("layer_scales", "learnt, and large since", window(falling(), tracks={
        S.ACTIVATION_STD: np.geomspace(1, 1e6, 6)[:, None] * np.ones(8), S.UPDATE_RATIO: same(0.1)})),
    Case("layer_scales", "all in order", window(flat(), tracks={
        S.ACTIVATION_STD: same(1.0), S.WEIGHT_GROWTH: same(1.1), S.UPDATE_RATIO: same(1e-3)})),
    *LATE,
    *MISSED,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}: {case.what}")
def test_rule(case: Case) -> None:
    found = judged(CHECKS[case.check], case.window)
    expected = [(case.cause, case.severity)] if case.cause else []
    assert [(str(finding.cause), finding.severity) for finding in found] == expected


def test_every_rule_is_tried_on_a_fault_and_on_sound_runs() -> None:
    kinds = {(case.check, bool(case.cause)) for case in CASES}
    assert kinds == {(name, faulty) for name in CHECKS for faulty in (True, False)}


def test_every_cause_that_a_rule_can_name_is_tried() -> None:
    named = {(check.name, str(cause)) for check in live_checks() for cause in check.causes}
    assert {(case.check, case.cause) for case in CASES if case.cause} == named


FAULTS = [case for case in CASES if case.cause]


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: f"{case.check}: {case.what}")
def test_a_finding_says_why_and_what_to_do(case: Case) -> None:
    (finding,) = judged(CHECKS[case.check], case.window)
    assert finding.title and finding.why and finding.source and finding.evidence
    assert 0 < finding.confidence <= 1
    assert any(each.speaks_for_a_fault for each in finding.evidence)
    assert finding.remedies or finding.severity is Severity.INFO
    assert "nan" not in finding.why and "inf" not in finding.why.split()


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: f"{case.check}: {case.what}")
def test_what_came_before_a_change_by_hand_is_another_story(case: Case) -> None:
    """Right after a change at the last step, there is nothing to judge by."""
    after = replace(case.window, changed=(case.window.step,))
    assert not judged(CHECKS[case.check], after)


ODD = {
    "nothing": window(),
    "one step": window([1.0], lr=0.1),
    "zeros": window(np.zeros(200), val=np.zeros(12), lr=0.0, curves={"grad_norm": np.zeros(200)}),
    "not finite": window(
        np.full(200, np.nan), val=np.full(12, np.nan), lr=0.1, curves={"grad_norm": np.full(200, np.inf)}
    ),
    "becomes infinite": window(np.r_[falling(150), np.full(50, np.inf)], lr=0.1),
    "constant": window(np.ones(200), val=np.ones(12), lr=0.1, curves={"grad_norm": np.ones(200)}, baseline=1.0),
    "no baseline to speak of": window(falling(), val=falling(10), lr=0.1, baseline=0.0),
    "infinite baseline": window(falling(), val=falling(10), lr=0.1, baseline=float("inf")),
}
FEW = {"not measured": np.full((6, 8), np.nan), "infinite": np.full((6, 8), np.inf), "zero": same(0.0)}
USED = {signal for check in live_checks() for signal in check.signals}
ODD |= {
    f"layers {what}": window(flat(), val=flat(10), lr=0.1, tracks=dict.fromkeys(USED, rows))
    for what, rows in FEW.items()
}
ODD["no layers"] = window(flat(), lr=0.1, tracks=dict.fromkeys(USED, np.zeros((6, 0))), layers=())
ODD["one layer"] = window(flat(), lr=0.1, tracks=dict.fromkeys(USED, same(0.1, layers=1)), layers=LAYERS[:1])
ODD |= {
    f"looks {what}": window(
        flat(600), val=flat(30, 3.0), lr=0.1, baseline=2.0, dropout={"one": 0.9}, kinds={"two": "BatchNorm1d"},
        looks=looked(600, training=value, evaluating=value, output_change=value, exchanged=value, zeroed=value,
                     spread=value, dealt=np.full(12, value)),
    )
    for what, value in (("not finite", np.nan), ("infinite", np.inf), ("zero", 0.0), ("below zero", -2.0))
}  # fmt: skip
ALLOWED = {
    "no_better_than_baseline",
    "loss_plateau",
    "update_ratio",
    "underfitting",
}  # as symptoms, where a loss really stays


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", CHECKS)
def test_odd_windows_break_no_rule(name: str, what: str) -> None:
    loud = [each for each in judged(CHECKS[name], ODD[what]) if each.severity is not Severity.INFO]
    assert not loud or {str(each.cause) for each in loud} <= ALLOWED | {"parameters_not_updating"}


def test_names_of_checks_and_parameters_are_unique() -> None:
    names = [parameter.name for check in live_checks() for parameter in check.parameters]
    assert len(set(names)) == len(names) and not set(names) & set(registry.table().known)
    assert len(CHECKS) == len(live_checks())


@pytest.mark.parametrize("check", live_checks(), ids=lambda check: check.name)
def test_a_rule_says_who_says_so_and_what_it_needs(check: LiveCheck) -> None:
    assert check.source and check.title and check.causes and (check.curves or check.signals)
    assert set(check.causes) <= set(Cause)
