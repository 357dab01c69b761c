"""A few targets far out carry most of a squared error: the network learns these, and little else."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import DIFFERENCES, compares_with_data, meetings
from nbdebug.checks.preflight.trace import LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

FAR = "outlier_distance"
WEIGHT = "outlier_weight"
FEWEST = 64
MOST_SHARE = 0.05
NORMAL = 1.4826  # a normal distribution's deviation, of its median absolute deviation


def judge(look: Look, say: Say) -> None:
    """The targets of squared errors, over all batches seen."""
    trace = look.called
    for meeting in meetings(trace):
        loss = meeting.loss
        squared = loss.name == "mse_loss" or (meeting.by_hand and loss.name in DIFFERENCES and _is_squared(trace, loss))
        if squared and compares_with_data(trace, loss) and loss.target is not None and loss.target.is_floating_point():
            _judge(look, loss, say)
            return
    say.skip("no squared error with targets of the batch")


def _is_squared(trace: StepTrace, loss: LossCall) -> bool:
    results = set(loss.call.outputs)
    after = [call for call in trace.calls[loss.call.index :] if results & set(call.inputs)]
    return any(
        call.name.rstrip("_") in ("square", "norm")
        or (call.name in ("pow", "__pow__") and call.option("exponent", 0) == 2)
        for call in after
    )


def _judge(look: Look, loss: LossCall, say: Say) -> None:
    target = _all_targets(look, loss).double().flatten()
    target = target[torch.isfinite(target)]
    if target.numel() < FEWEST:
        say.skip(f"fewer than {FEWEST} targets were seen")
    middle = target.median()
    off = (target - middle).abs()
    usual = float(off.median()) * NORMAL
    if not usual:
        say.skip("more than half of the targets are equal")
    far = off > say.limit(FAR) * usual
    share, weight = float(far.double().mean()), float(off[far].square().sum() / off.square().sum())
    most = float(off.max()) / usual
    say.measure("farthest target, in usual deviations from the median", most, FAR)
    if not say.measure("share of the squared deviation that outliers carry", weight, WEIGHT) or share > MOST_SHARE:
        return
    say.find(
        Cause.TARGET_OUTLIERS,
        Severity.WARNING,
        "A few far targets carry the squared error",
        f"{int(far.sum())} of {target.numel():,} targets ({share:.1%}) lie more than {say.limit(FAR):g} usual "
        f"deviations from the median ({float(middle):.3g}; the farthest {most:.0f}), and carry {weight:.0%} of the "
        "squared deviation. A squared error follows these few.",
        confidence=0.8,
        remedies=(
            Remedy("Take a loss that grows less with distance.", code="loss_fn = torch.nn.HuberLoss()"),
            Remedy("Or look at these samples: clip, take logarithms, or leave out what is wrong."),
        ),
        line=loss.call.line,
    )


def _all_targets(look: Look, loss: LossCall) -> torch.Tensor:
    """Of all batches, if the loss compares a tensor of the batch as it is; else of the first step."""
    assert loss.target is not None
    for target in look.data.targets.values():
        rows = target[: len(loss.target)] if loss.target.dim() and target.dim() else target
        if rows.numel() == loss.target.numel() and torch.equal(rows.double().flatten(), loss.target.double().flatten()):
            return target
    return loss.target


CHECK = Check(
    "target_outliers",
    "no few targets carry the squared error",
    judge,
    (Cause.TARGET_OUTLIERS,),
    parameters=(
        Parameter(FAR, 15.0, "usual deviations from the median from which on a target is an outlier", 1.0),
        Parameter(WEIGHT, 0.5, "share of the squared deviation that outliers may carry", 0.0, 1.0),
    ),
    source="Huber 1964, Robust estimation of a location parameter",
)
