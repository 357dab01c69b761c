"""The last activation can't give what the loss asks for: targets, or logits, beyond its range."""

from __future__ import annotations

import math

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.dropping import layers, place, without
from nbdebug.checks.preflight.intervals import Interval, bounds
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import (
    DIFFERENCES,
    SOFTMAXES,
    Meeting,
    compares_with_data,
    last_shaping,
    meetings,
)
from nbdebug.checks.preflight.task import REGRESSIONS
from nbdebug.checks.preflight.trace import Call, LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

REACH = "target_variance_out_of_reach"
FLOOR = "loss_floor_by_activation"
ZEROS = "logits_cut_to_zero"
SEVERAL = "samples_of_several_labels"
CRITICAL_REACH = 0.2
UNBOUNDED = frozenset({"linear", "conv1d", "conv2d", "conv3d", "relu", "tanh", "leaky_relu", "elu", "gelu", "softplus"})


def judge(look: Look, say: Say) -> None:
    """Every loss with targets of the batch, by the range that its input can have."""
    trace = look.called
    failed = trace.failed_loss
    if failed is not None and failed.name == "binary_cross_entropy":
        _judge_probability(look, trace, failed, say)
    for meeting in meetings(trace):
        loss = meeting.loss
        if say.findings or not compares_with_data(trace, loss) or not loss.input.numel():
            continue
        if loss.name in REGRESSIONS or _is_difference(meeting):
            _judge_targets(look, trace, loss, say)
        elif loss.name == "cross_entropy":
            _judge_scores(look, trace, loss, say)
        elif loss.name == "binary_cross_entropy_with_logits":
            _judge_logits(look, trace, loss, say)
        elif loss.name == "binary_cross_entropy":
            _judge_probability(look, trace, loss, say)


def _is_difference(meeting: Meeting) -> bool:
    target = meeting.loss.target
    return (
        meeting.by_hand
        and meeting.loss.name in DIFFERENCES
        and target is not None
        and target.numel() == meeting.loss.input.numel()
    )


def _judge_targets(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    """How much of the targets' variance lies where no output can be."""
    low, high = bounds(trace, loss.input_number, loss.call.index)
    target = loss.target.double() if loss.target is not None else torch.empty(0)
    target = target[torch.isfinite(target)]
    made = last_shaping(trace, loss.input_number, loss.call.index)
    if made is None or target.numel() < 2 or (math.isinf(low) and math.isinf(high)):
        return
    beyond = target - target.clamp(low if math.isfinite(low) else None, high if math.isfinite(high) else None)
    share = float(beyond.square().mean() / target.var(correction=0).clamp(min=1e-12))
    if not say.measure("share of the targets' variance that no output can reach", share, REACH):
        return
    outside = float((beyond != 0).double().mean())
    _tell(
        look,
        say,
        made,
        Severity.CRITICAL if share > CRITICAL_REACH else Severity.WARNING,
        f"The output comes from {made.name}{place(made)} and lies {_between((low, high))}, but targets go from "
        f"{float(target.min()):.3g} to {float(target.max()):.3g}: {outside:.0%} of them can't be reached.",
        (low, high),
    )


def _judge_scores(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    """Cross entropy: how low it can fall with scores in this range; and scores cut off at zero."""
    classes = loss.input.shape[1] if loss.input.dim() > 1 else loss.input.shape[0]
    low, high = bounds(trace, loss.input_number, loss.call.index)
    made = last_shaping(trace, loss.input_number, loss.call.index)
    if made is None or made.name in SOFTMAXES or classes < 2 or loss.target is None or _is_soft(loss.target):
        return
    smoothing = loss.call.options.get("label_smoothing", 0.0)
    if math.isfinite(low) and math.isfinite(high):
        floor = _least(high - low, classes, float(smoothing) if isinstance(smoothing, (int, float)) else 0.0)
        if say.measure("the least loss in this range, of that of guessing", floor / math.log(classes), FLOOR):
            why = (
                f"cross_entropy gets scores from {made.name}{place(made)}, which lie {_between((low, high))}: with "
                f"{classes} classes the loss can't fall below {floor:.2f}, and gradients shrink before it gets there."
            )
            _tell(look, say, made, Severity.CRITICAL, why, (low, high))
    elif made.name.rstrip("_") == "relu":
        zeros = float((loss.input == 0).float().mean())
        if say.measure("share of scores that the ReLU cuts to zero", zeros, ZEROS):
            why = (
                f"cross_entropy gets scores through {made.name}{place(made)}: {zeros:.0%} of them are cut to zero, and "
                "where the right class's score is, no gradient raises it. Below zero scores can't differ."
            )
            _tell(look, say, made, Severity.WARNING, why, (low, high))


def _judge_logits(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    """Binary cross entropy of logits: how low it can fall with logits in this range."""
    low, high = bounds(trace, loss.input_number, loss.call.index)
    made = last_shaping(trace, loss.input_number, loss.call.index)
    target = loss.target.double() if loss.target is not None else None
    squashed = low >= 0 and high <= 1.001  # told of as a sigmoid before a loss of logits
    if made is None or target is None or squashed or not bool(((target == 0) | (target == 1)).all()):
        return
    prior = float(target.mean())
    if not 0 < prior < 1:
        return
    floor = (1 - prior) * _softplus(low) + prior * _softplus(-high)
    guess = -prior * math.log(prior) - (1 - prior) * math.log(1 - prior)
    if say.measure("the least loss in this range, of that of guessing", floor / guess, FLOOR):
        why = (
            f"The loss takes logits, and gets values from {made.name}{place(made)}, which lie {_between((low, high))}: "
            f"it can't fall below {floor:.2f}, where always giving the share of positives costs {guess:.2f}."
        )
        _tell(look, say, made, Severity.CRITICAL, why, (low, high))


def _judge_probability(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    """Binary cross entropy wants probabilities; and one for each label where a sample may have several."""
    made = last_shaping(trace, loss.input_number, loss.call.index)
    low, high = bounds(trace, loss.input_number, loss.call.index)
    if made is None:
        return
    if (low < 0 or high > 1) and made.name.rstrip("_") in UNBOUNDED:
        least, most = float(loss.input.min()), float(loss.input.max())
        why = (
            f"binary_cross_entropy takes probabilities, and gets the output of {made.name}{place(made)}, which may "
            f"leave 0 to 1 (here it goes from {least:.3g} to {most:.3g}): it raises an error as soon as one does."
        )
        code = "loss_fn = torch.nn.BCEWithLogitsLoss()"
        remedy = Remedy("Take the loss of logits, without an activation before it.", code=code)
        _tell(look, say, made, Severity.CRITICAL, why, (low, high), remedy)
    elif made.name in SOFTMAXES and loss.target is not None and loss.target.dim() > 1:
        several = float((loss.target.sum(-1) > 1.001).double().mean())
        if loss.target.shape[-1] > 1 and say.measure("share of samples with several labels", several, SEVERAL):
            why = (
                f"{several:.0%} of the samples have more than one label, but {made.name}{place(made)} gives outputs "
                "that sum to one: they can't all be near 1."
            )
            _tell(
                look, say, made, Severity.CRITICAL, why, (low, high), Remedy("Take a sigmoid for each label instead.")
            )


def _tell(
    look: Look, say: Say, made: Call, severity: Severity, why: str, reach: Interval, remedy: Remedy | None = None
) -> None:
    say.find(
        Cause.OUTPUT_ACTIVATION_MISMATCH,
        severity,
        "The last activation does not fit the targets",
        why,
        confidence=0.97 if severity is Severity.CRITICAL else 0.8,
        layers=layers(made),
        remedies=(remedy or without(look, made, f"Let the last layer's output be: leave {made.name} out."),),
        line=made.line,
    )


def _least(width: float, classes: int, smoothing: float) -> float:
    """The least cross entropy of scores within ``width``, beyond the least of any scores."""
    if smoothing <= 0:
        return math.log1p((classes - 1) * math.exp(-width))
    best = math.log((1 - smoothing + smoothing / classes) / (smoothing / classes))

    def value(width: float) -> float:
        total = width + math.log1p((classes - 1) * math.exp(-width))
        return total - (1 - smoothing + smoothing / classes) * width

    return value(min(width, best)) - value(best)


def _is_soft(target: torch.Tensor) -> bool:
    return target.is_floating_point() and not bool(((target == 0) | (target == 1)).all())


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def _between(reach: Interval) -> str:
    low, high = reach
    if math.isinf(high):
        return f"at {low:.3g} or above"
    return f"at {high:.3g} or below" if math.isinf(low) else f"between {low:.3g} and {high:.3g}"


CHECK = Check(
    "output_activation_mismatch",
    "the last activation's range holds the targets",
    judge,
    (Cause.OUTPUT_ACTIVATION_MISMATCH,),
    parameters=(
        Parameter(REACH, 0.02, "share of the targets' variance that may lie beyond the output's range", 0.0, 1.0),
        Parameter(FLOOR, 0.1, "how much of a guess's loss may remain by the range of the scores", 0.0, 1.0),
        Parameter(ZEROS, 0.1, "share of class scores that a ReLU may cut to zero", 0.0, 1.0),
        Parameter(SEVERAL, 0.01, "share of samples with several labels that outputs summing to one may have", 0.0, 1.0),
    ),
    source="Goodfellow, Bengio, Courville: Deep Learning, 6.2.2: output units by the distribution of the targets",
)
