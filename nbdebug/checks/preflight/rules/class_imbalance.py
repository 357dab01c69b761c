"""Nearly all samples are of one class, and nothing in the loss or the sampler makes up for it; and classes of a few."""

from __future__ import annotations

import math

import numpy as np
import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import Labels, Order, labels, order_of
from nbdebug.checks.preflight.task import Kind
from nbdebug.checks.preflight.trace import LossCall
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

EVENNESS = "class_evenness_least"
RAREST = "rarest_class_share"
FEW = "samples_of_a_class"
FEWEST_SAMPLES = 100
AWARE = 0.25  # of the distance from an even guess to the prior, that first outputs may be from the prior
METRICS = ("f1", "auc", "auroc", "recall", "precision", "average_precision", "mcc", "balanced", "kappa")


def judge(look: Look, say: Say) -> None:
    """The classes of all samples seen, if they stand for the whole."""
    found = labels(look)
    if found is None:
        say.skip("there is not one class for each sample")
    assert found is not None
    counts = found.counts.double()
    present = counts[counts > 0]
    mixed = look.whole_epoch or order_of(look.trainer.train_loader) is Order.RANDOM
    if len(present) < 2 or not mixed or float(counts.sum()) < FEWEST_SAMPLES:
        if len(present) > 1 and _are_few(look, present, say):
            _tell_few(counts, say)
            return
        say.skip("there are too few samples, or they come in an order, so that shares of classes can't be told")
    shares = (present + 1) / (present + 1).sum()
    evenness = float(-(shares * shares.log()).sum() / math.log(len(shares)))
    uneven = say.measure("evenness of the classes (entropy over its most)", evenness, EVENNESS, above=False)
    rare = say.measure("share of the rarest class", float(shares.min()), RAREST, above=False)
    if uneven and rare:
        _tell(look, found, counts, say)
    elif _are_few(look, present, say):
        _tell_few(counts, say)


def _are_few(look: Look, present: torch.Tensor, say: Say) -> bool:
    return look.whole_epoch and say.measure("samples of the rarest class", float(present.min()), FEW, above=False)


def _tell(look: Look, found: Labels, counts: torch.Tensor, say: Say) -> None:
    made_up_for = _made_up_for(look, look.task.loss, counts)
    most, total = int(counts.argmax()), float(counts.sum())
    present = counts > 0
    rarest = int(torch.where(present, counts, math.inf).argmin())
    shares = (counts / total).cpu().numpy()
    picture = Picture(
        PictureKind.BARS,
        "Share of each class",
        shares.astype(np.float64)[None, :40],
        ("share",),
        tuple(str(i) for i in range(min(40, len(shares)))),
    )
    weights = (total / (int(present.sum()) * counts.clamp(min=1))).cpu().numpy().round(2).tolist()
    say.find(
        Cause.CLASS_IMBALANCE,
        Severity.INFO if made_up_for else Severity.WARNING,
        "Nearly all samples are of one class",
        f"{shares[most]:.1%} of {int(total):,} samples are of class {most}, {shares[rarest]:.1%} of class {rarest}. A "
        f"network that always says {most} is right as often, and nothing in the loss or the sampler makes the others "
        "count for more. Accuracy tells nothing here." + (f" You seem to know: {made_up_for}." if made_up_for else ""),
        confidence=0.85,
        pictures=(picture,),
        line=look.task.loss.call.line if look.task.loss is not None else None,
        remedies=_remedies(look, weights),
    )


def _remedies(look: Look, weights: list[float]) -> tuple[Remedy, ...]:
    binary = look.task.kind is Kind.BINARY
    code = (
        f"nn.BCEWithLogitsLoss(pos_weight=torch.tensor({weights[1] / max(weights[0], 1e-6):.3g}))"
        if binary and len(weights) == 2
        else f"nn.CrossEntropyLoss(weight=torch.tensor({weights[:20]}))"
    )
    return (
        Remedy("Weigh the classes in the loss.", code=code),
        Remedy("Or draw rare classes more often.", code="WeightedRandomSampler(weights[y], len(y))"),
        Remedy("Measure what matters: recall, F1 or the area under the precision-recall curve."),
    )


def _made_up_for(look: Look, loss: LossCall | None, counts: torch.Tensor) -> str:
    """By what the program shows that classes are known to be uneven; empty if by nothing."""
    if loss is None:
        return "the loss is your own"
    if loss.weight is not None and (loss.weight.numel() == 1 or bool((loss.weight != loss.weight.flatten()[0]).any())):
        return "the loss weighs its parts"
    if loss.reduction == "none":
        return "the loss is weighed sample by sample"
    if any(mark in name.lower() for name in look.trainer.metrics for mark in METRICS):
        return "a metric of yours minds rare classes"
    return "first outputs are at the classes' shares" if _begins_at_prior(look, counts) else ""


def _begins_at_prior(look: Look, counts: torch.Tensor) -> bool:
    output = look.task.output
    if output is None or look.task.loss is None:
        return False
    prior = (counts / counts.sum()).to(output.device)
    if look.task.kind is Kind.BINARY:
        said = torch.sigmoid(output.double()).mean()
        logit = "logits" in look.task.loss.name
        mean = (
            torch.stack([1 - said, said])
            if logit
            else torch.stack([1 - output.double().mean(), output.double().mean()])
        )
    elif look.task.loss.name == "cross_entropy":
        mean = torch.softmax(output.double(), -1).mean(0)
    else:
        mean = output.double().exp().mean(0)
    if mean.shape != prior.shape:
        return False
    return bool((mean - prior).abs().sum() < AWARE * (1 / len(prior) - prior).abs().sum())


def _tell_few(counts: torch.Tensor, say: Say) -> None:
    few = [index for index, count in enumerate(counts.tolist()) if 0 < count < say.limit(FEW)]
    listed = ", ".join(f"class {index} ({int(counts[index])})" for index in few[:6])
    say.find(
        Cause.TOO_FEW_SAMPLES,
        Severity.INFO,
        "Classes of a handful of samples",
        f"Of {int(counts.sum()):,} samples in the epoch, {listed} {'has' if len(few) == 1 else 'have'} next to none: "
        "how well such a class is told can neither be learnt nor measured.",
        confidence=0.9,
        remedies=(Remedy("Collect more of them, merge classes, or augment; start from a pretrained network."),),
    )


CHECK = Check(
    "class_imbalance",
    "classes come often enough",
    judge,
    (Cause.CLASS_IMBALANCE, Cause.TOO_FEW_SAMPLES),
    parameters=(
        Parameter(EVENNESS, 0.35, "least entropy of the classes' shares, over its most", 0.0, 1.0),
        Parameter(RAREST, 0.05, "share of the rarest class that is no alarm", 0.0, 1.0),
        Parameter(FEW, 5.0, "samples of a class in the whole epoch that are enough to say nothing", 0.0),
    ),
    source="Slavv, 37 reasons why your neural network is not working: too much class imbalance",
)
