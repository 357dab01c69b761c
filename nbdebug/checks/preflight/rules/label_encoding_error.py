"""Labels that don't fit the loss: off its range, from 1 on, a class that never comes, rows that are no distribution."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import Labels, Order, labels, order_of, target_source
from nbdebug.checks.preflight.task import CLASS_LOSSES, Kind
from nbdebug.checks.preflight.trace import LossCall
from nbdebug.records.findings import Cause, Remedy, Severity

OFF_RANGE = "labels_off_range"
EXPECTED, ALONE = "absent_class_expected", "single_class_samples"
ROWS = "label_rows_off_one"
FEWEST_SAMPLES = 64
BETWEEN_0_AND_1 = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits"})
SIGNS = frozenset({"soft_margin_loss", "hinge_embedding_loss"})


def judge(look: Look, say: Say) -> None:
    """What the main loss compares with; where it gets it as it is in the batch, over all batches."""
    loss = look.task.loss
    if loss is not None and loss.target is not None:
        target = _all_targets(look, loss)
        if loss.name in CLASS_LOSSES and not target.is_floating_point():
            _judge_classes(look, loss, target, say)
        elif loss.name == "cross_entropy" and target.dim() == 2 and target.shape[1] == loss.input.shape[-1] > 1:
            _judge_rows(target, loss, say)
        elif loss.name in BETWEEN_0_AND_1:
            _judge_yes_or_no(target, loss, say)
        elif loss.name in SIGNS:
            _judge_signs(target, loss, say)
    elif loss is None:
        _judge_hand_written(look, say)
    if not say.findings:
        _judge_absent(look, loss, say)


def _all_targets(look: Look, loss: LossCall) -> torch.Tensor:
    """Over all batches, if the loss gets them as they are; else those of the first step."""
    assert loss.target is not None
    source = target_source(look)
    whole = look.data.targets.get(source)
    return whole.to(loss.target.dtype) if whole is not None else loss.target


def _judge_classes(look: Look, loss: LossCall, target: torch.Tensor, say: Say) -> None:
    classes = look.task.classes
    ignored = loss.call.option("ignore_index", 0, -100)
    kept = target[target != ignored] if isinstance(ignored, int) else target
    if not kept.numel():
        return
    off = ((kept < 0) | (kept >= classes)).double().mean()
    low, high = int(kept.min()), int(kept.max())
    if say.measure("share of labels off the range", float(off), OFF_RANGE):
        start = low == 1 and high == classes
        why = (
            f"Labels run from {low} to {high}, and the network has {classes} outputs, for 0 … {classes - 1}. "
            + ("They start at 1: each is one too high. " if start else "")
            + "PyTorch stops at such a label, on a GPU with a device-side assert."
        )
        remedy = (
            Remedy("Let labels start at 0.", code="target = target - 1")
            if start
            else Remedy(f"Number the classes 0 … {classes - 1}; or give the last layer as many outputs as there are.")
        )
        title = "Labels start at 1" if start else "Labels are off the range"
        _tell(say, Severity.CRITICAL, title, why, (remedy,), loss, 0.99)
    elif low == high and len(kept) >= FEWEST_SAMPLES and target.numel() > kept.numel() and _comes_mixed(look):
        share = 1 - kept.numel() / target.numel()
        _tell(
            say, Severity.CRITICAL, "All labels but one are ignored",
            f"{share:.0%} of the labels are {ignored}, which the loss passes over, and all others are {low}, though "
            f"the network has {classes} outputs: always saying {low} is perfect.",
            (Remedy("Look how labels are encoded: the table of classes lacks most of them, or ignore_index is one."),),
            loss, 0.9,
        )  # fmt: skip


def _judge_rows(target: torch.Tensor, loss: LossCall, say: Say) -> None:
    sums = target.double().sum(1)
    off = float(((sums - 1).abs() > 1e-2).double().mean())
    if not say.measure("share of label rows that don't sum to one", off, ROWS):
        return
    zeros, most = float((sums.abs() < 1e-6).double().mean()), float(sums.max())
    what = (
        f"{zeros:.0%} of the rows are all zeros: such a sample counts in the mean, and teaches nothing."
        if zeros > 0
        else f"Rows sum to up to {most:.3g}."
    )
    many = bool(((target == 0) | (target == 1)).all()) and most > 1.5
    remedies = (
        (Remedy("For several classes at once use binary cross entropy.", code="loss_fn = nn.BCEWithLogitsLoss()"),)
        if many
        else (Remedy("Give class numbers instead: y.argmax(1); and look at which classes the encoder knew."),)
    )
    title = "Label rows hold several classes" if many else "Label rows are no distributions"
    why = f"cross_entropy takes rows of {target.shape[1]} probabilities as targets. {off:.0%} don't sum to one. {what}"
    _tell(say, Severity.WARNING, title, why, remedies, loss, 0.9)


def _judge_yes_or_no(target: torch.Tensor, loss: LossCall, say: Say) -> None:
    values = target.double()
    low, high = float(values.min()), float(values.max())
    off = float(((values < -1e-6) | (values > 1 + 1e-6)).double().mean())
    if say.measure("share of labels outside 0 … 1", off, OFF_RANGE):
        _tell(
            say, Severity.CRITICAL, "Labels lie outside 0 … 1",
            f"{loss.name} takes labels from 0 to 1; they run from {low:g} to {high:g}. The loss then has no lower "
            "bound, and falls by driving outputs to infinity.",
            (Remedy("Map them to 0 and 1.", code=_mapping(low, high)),), loss, 0.99,
        )  # fmt: skip
    elif (
        low == 0 < high < 0.5 and bool(((values == low) | (values == high)).all()) and values.numel() >= FEWEST_SAMPLES
    ):
        _tell(
            say, Severity.WARNING, "Labels are 0 and nearly 0",
            f"Labels are 0 and {high:.3g}, where {loss.name} takes 1 for a yes: as if divided once too often.",
            (Remedy("Map them to 0 and 1.", code="target = (target > 0).float()"),), loss, 0.9,
        )  # fmt: skip


def _mapping(low: float, high: float) -> str:
    if (low, high) == (-1.0, 1.0):
        return "target = (target + 1) / 2"
    return f"target = target / {high:g}" if low == 0 else f"target = (target - {low:g}) / {high - low:g}"


def _judge_signs(target: torch.Tensor, loss: LossCall, say: Say) -> None:
    off = float(((target != 1) & (target != -1)).double().mean())
    if say.measure("share of labels that are not -1 or 1", off, OFF_RANGE):
        _tell(
            say, Severity.CRITICAL, "Labels must be -1 and 1",
            f"{loss.name} takes -1 and 1; {off:.0%} of the labels are something else, and with a label of 0 nothing is "
            "learnt from a sample.",
            (Remedy("Map them.", code="target = 2 * target - 1"),), loss, 0.95,
        )  # fmt: skip


def _judge_hand_written(look: Look, say: Say) -> None:
    """Class numbers below 0 are taken from the end when they pick an output, without any error."""
    target = look.data.targets.get(target_source(look))
    outputs = look.task.output
    if target is None or target.is_floating_point() or target.dtype in (torch.bool, torch.uint8) or outputs is None:
        return
    trace = look.trace
    picked = [call for call in trace.calls if call.name in ("__getitem__", "gather", "take_along_dim")]
    source = target_source(look)
    is_index = any(source in trace.sources(number, call.index) for call in picked for number in call.inputs[1:])
    if not is_index or outputs.shape[-1] < 2:
        return
    off = float((target < 0).double().mean())
    if say.measure("share of labels below 0", off, OFF_RANGE) and not _is_compared(look, source):
        _tell(
            say, Severity.WARNING, "Labels below 0 pick from the end",
            f"{off:.0%} of the labels are negative, and your loss picks outputs by them: -1 means the last one.",
            (Remedy("Number the classes from 0, or leave such samples out of the loss."),), None, 0.8,
        )  # fmt: skip


def _is_compared(look: Look, source: str) -> bool:
    """Whether the step asks where labels are below or unlike something, as a mask does."""
    asked = look.trace.named("ge", "gt", "ne", "__ge__", "__gt__", "__ne__", "lt", "__lt__", "eq", "__eq__", "clamp")
    return any(source in look.trace.sources(number, call.index) for call in asked for number in call.inputs)


def _judge_absent(look: Look, loss: LossCall | None, say: Say) -> None:
    """A class that never comes although it would have been expected by now, by how often the rarest one does."""
    found = labels(look)
    if found is None or loss is None or not _comes_mixed(look):
        return
    counts = found.counts
    absent = (counts == 0).nonzero().flatten().tolist()
    present = counts[counts > 0]
    if not absent or not len(present) or len(found.values) < FEWEST_SAMPLES:
        return
    rarest = float(present.min())
    if not say.measure("samples of the rarest class that does come", rarest, EXPECTED):
        return
    if len(present) > 1 and (len(absent) > len(present) or look.task.kind is not Kind.CLASSES):
        return
    if len(present) == 1 and not look.whole_epoch and rarest < say.limit(ALONE):  # the other class may be rare
        return
    _tell_absent(found, absent, loss, say)


def _tell_absent(found: Labels, absent: list[int], loss: LossCall | None, say: Say) -> None:
    only_spare = min(absent) == found.classes - len(absent)
    from_one = absent == [0]
    one_class = found.classes - len(absent) == 1
    listed = ", ".join(map(str, absent[:6])) + (" …" if len(absent) > 6 else "")
    why = (
        f"The network has {found.classes} outputs, and of {len(found.values):,} samples none is of class {listed}, "
        "though all others come often. "
        + ("Labels start at 1, and an output was added for it: a class is missing, or each is one too high."
           if from_one else "All samples are of one class: there is nothing to tell apart."
           if one_class else "Either these outputs are spare, or an encoding lost these classes.")
    )  # fmt: skip
    _tell(
        say,
        Severity.CRITICAL if one_class else Severity.INFO if only_spare else Severity.WARNING,
        "Labels start at 1" if from_one else "All labels are the same" if one_class else "A class never comes",
        why,
        (
            Remedy(
                "Compare the labels' values with what the encoder was to make of them.",
                code="y.unique(return_counts=True)",
            ),
        ),
        loss,
        0.85 if from_one or one_class else 0.7,
    )


def _comes_mixed(look: Look) -> bool:
    """Whether what was seen stands for the whole: the whole epoch, or samples drawn at random."""
    return look.whole_epoch or order_of(look.trainer.train_loader) is Order.RANDOM


def _tell(
    say: Say, severity: Severity, title: str, why: str, remedies: tuple[Remedy, ...], loss: LossCall | None, sure: float
) -> None:
    line = loss.call.line if loss is not None else None
    say.find(Cause.LABEL_ENCODING_ERROR, severity, title, why, confidence=sure, remedies=remedies, line=line)


CHECK = Check(
    "label_encoding_error",
    "labels are what the loss takes",
    judge,
    (Cause.LABEL_ENCODING_ERROR,),
    parameters=(
        Parameter(OFF_RANGE, 0.0, "share of labels that may be off the loss's range", 0.0, 1.0),
        Parameter(ALONE, 1_000.0, "samples, if not a whole epoch, from which it is no chance that all have one label"),
        Parameter(EXPECTED, 20.0, "samples of every other class from which a class that never comes is missed", 1.0),
        Parameter(ROWS, 0.0, "share of label rows that may not sum to one", 0.0, 1.0),
    ),
    source="torch.nn: the shapes and values that each loss takes as target",
)
