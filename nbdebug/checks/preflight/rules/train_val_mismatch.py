"""Training and validation data differ in scale, form or classes, or share samples: what is measured means little."""

from __future__ import annotations

import numpy as np
import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import (
    Labels,
    Order,
    capped,
    fingerprints,
    floats,
    is_blank,
    is_rich,
    is_tokens,
    labels,
    order_of,
    target_source,
)
from nbdebug.checks.preflight.task import Kind
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity
from nbdebug.training.trainer import length

SCALE = "split_scale_ratio"
SHIFT = "split_shift"
APART = "split_samples_apart"
SHARED = "split_shared_samples"
MISSING = "split_missing_class"
FEWEST = 16


def judge(look: Look, say: Say) -> None:
    """Inputs, targets, classes, and the samples themselves."""
    if not look.validation:
        say.skip("there is no validation loader")
    for name, tensor in look.data.inputs.items():
        beside = look.data.val_inputs.get(name)
        if beside is not None and tensor.dim() and beside.dim() and not say.findings:
            _judge_form(name, tensor, beside, say)
            if not is_tokens(look, name):
                _judge_numbers(f"the input {name}", tensor, beside, say)
    if not say.findings:
        _judge_targets(look, say)
    if not say.findings:
        _judge_shared(look, say)


def _judge_form(name: str, train: torch.Tensor, val: torch.Tensor, say: Say) -> None:
    """The same sizes in another order."""
    ours, theirs = tuple(train.shape[1:]), tuple(val.shape[1:])
    if len(ours) >= 2 and ours != theirs and sorted(ours) == sorted(theirs):
        _tell(
            say, "Validation inputs lie another way round",
            f"A training sample of {name} has the shape {ours}, a validation sample {theirs}: dimensions are swapped "
            "in one of them.",
            Remedy("Bring both into one form, in the dataset.", code="x = x.permute(...)"), 0.9,
        )  # fmt: skip


def _judge_numbers(what: str, train: torch.Tensor, val: torch.Tensor, say: Say) -> None:
    """All values together, then features by themselves: how far they spread, and where they lie."""
    if len(train) < FEWEST or len(val) < FEWEST:
        return
    ours, theirs = floats(capped(train)).double(), floats(capped(val)).double()
    ratio = float(_times_apart(ours.reshape(-1, 1), theirs.reshape(-1, 1)))
    if say.measure(f"times by which the scales of {what} differ", ratio, SCALE):
        _tell_numbers(what, ours, theirs, "their scales differ", say)
        return
    pooled = float(torch.cat([ours.flatten(), theirs.flatten()]).std())
    shift = abs(float(ours.mean() - theirs.mean())) / max(pooled, 1e-12)
    apart = _apart(ours, theirs)
    shifted = say.measure(f"distance of the means of {what}, in deviations of values", shift, SHIFT)
    separate = say.measure(f"distance of the samples' means of {what}, in their deviations", apart, APART)
    if (shifted and separate) or (separate and _is_other_feature(ours, theirs, say, what)):
        _tell_numbers(what, ours, theirs, "they lie elsewhere", say)
    elif _is_other_feature(ours, theirs, say, what):
        _tell_numbers(what, ours, theirs, "single features are of another scale", say)


def _times_apart(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """For each column, how many times one spread is the other: by deviation and by the middle nine tenths, the lesser.

    Some outliers sway the one, many zeros the other.
    """
    times = _times(ours.std(0), theirs.std(0))
    middles = [_middle(each) for each in (ours, theirs)]
    both = (middles[0] > 0) & (middles[1] > 0)
    return torch.where(both, torch.minimum(times, _times(*middles)), times)


def _middle(columns: torch.Tensor) -> torch.Tensor:
    some = columns[:: max(1, len(columns) * columns.shape[1] // 400_000)]
    low, high = torch.quantile(some, some.new_tensor([0.05, 0.95]), dim=0).unbind(0)
    return torch.sub(high, low)


def _times(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    least, most = torch.minimum(one, other), torch.maximum(one, other)
    return torch.where(least > 0, most / least.clamp(min=1e-300), torch.where(most > 0, torch.inf, 1.0))


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """How far the splits are apart by their samples' means, over the larger deviation of these."""
    means = [values.reshape(len(values), -1).mean(1) for values in (ours, theirs)]
    spread = max(float(each.std()) for each in means)
    return abs(float(means[0].mean() - means[1].mean())) / max(spread, 1e-12)


def _is_other_feature(ours: torch.Tensor, theirs: torch.Tensor, say: Say, what: str) -> bool:
    """Of a table, whether features in most columns are of another scale or lie elsewhere than all of ours."""
    if ours.dim() != 2 or theirs.shape[1:] != ours.shape[1:] or ours.shape[1] < 2 or ours.shape[1] > 4_096:
        return False
    ours, theirs = (each[:, :: max(1, each.shape[1] // 256)] for each in (ours, theirs))
    one, other = ours.std(0), theirs.std(0)
    varied = (one > 1e-12) & (other > 1e-12) & ~_two_values(ours)
    if int(varied.sum()) < 2:
        return False
    times = _times_apart(ours, theirs)[varied]
    distance = ((ours.mean(0) - theirs.mean(0)).abs() / torch.maximum(one, other))[varied]
    off = ((times > say.limit(SCALE)) | (distance > 0.5 * say.limit(APART))).double().mean()
    return say.measure(f"share of features of {what} that differ", float(off), "split_features_off")


def _two_values(values: torch.Tensor) -> torch.Tensor:
    return ((values == values.amin(0)) | (values == values.amax(0))).all(0)


def _tell_numbers(what: str, ours: torch.Tensor, theirs: torch.Tensor, how: str, say: Say) -> None:
    numbers = [[float(each.mean()), float(each.std()), float(each.min()), float(each.max())] for each in (ours, theirs)]
    first, second = ("mean {:.3g}, deviation {:.3g}, from {:.3g} to {:.3g}".format(*row) for row in numbers)
    picture = Picture(
        PictureKind.BARS,
        f"Mean, deviation, least and largest of {what}",
        np.array(numbers, dtype=np.float64),
        ("training", "validation"),
        ("mean", "deviation", "least", "largest"),
    )
    _tell(
        say, "Validation data are prepared otherwise",
        f"Of {what}, {how}: {first} in training; {second} in validation. What the network learns does not hold for "
        "such data, and the validation loss says nothing about it.",
        Remedy("Prepare both splits alike, with the training split's mean and deviation.",
               code="x_val = (x_val - train_mean) / train_std"), 0.93, picture,
    )  # fmt: skip


def _judge_targets(look: Look, say: Say) -> None:
    found = labels(look)
    if found is not None:
        _judge_classes(look, found, say)
        return
    source = target_source(look)
    target, beside = look.data.targets.get(source), look.data.val_targets.get(source)
    if look.task.kind is Kind.REGRESSION and target is not None and beside is not None and target.dim():
        _judge_numbers(f"the targets {source}", target, beside, say)


def _judge_classes(look: Look, found: Labels, say: Say) -> None:
    """A class that is common in one split and never comes in the other."""
    theirs = found.validation
    if theirs is None or (look.task.loss is None and look.task.by_hand is None):
        return
    mixed = look.whole_epoch or order_of(look.trainer.train_loader) is Order.RANDOM
    val_loader = look.trainer.val_loader
    mixed_too = len(look.validation) == length(val_loader) or order_of(val_loader) is Order.RANDOM
    if not mixed or not mixed_too:
        return
    ours, val = found.counts, found.count(theirs)
    expected = torch.zeros(())
    for one, other in ((ours, val), (val, ours)):
        missing = torch.where(other == 0, one / one.sum().clamp(min=1) * other.sum(), 0.0)
        expected = torch.maximum(expected, missing.max().cpu())
    if say.measure("samples to be expected of a class that is missing in a split", float(expected), MISSING):
        _tell_classes(ours, val, say)


def _tell_classes(ours: torch.Tensor, val: torch.Tensor, say: Say) -> None:
    shares = torch.stack([ours / ours.sum().clamp(min=1), val / val.sum().clamp(min=1)]).cpu()
    absent = [index for index, pair in enumerate(shares.T.tolist()) if min(pair) == 0 < max(pair)]
    words = [
        f"{index} ({shares[0, index]:.0%} in training, {shares[1, index]:.0%} in validation)" for index in absent[:4]
    ]
    picture = Picture(
        PictureKind.BARS,
        "Share of each class",
        shares[:, :40].numpy().astype(np.float64),
        ("training", "validation"),
        tuple(str(index) for index in range(min(40, shares.shape[1]))),
    )
    _tell(
        say, "Classes differ between the splits",
        f"Class {', '.join(words)}: common in one split, it never comes in the other. The data were sorted when they "
        "were split, perhaps. What is not in training can't be learnt; what is not in validation is not measured.",
        Remedy("Split at random, class by class.", code="train_test_split(x, y, stratify=y)"), 0.93, picture,
    )  # fmt: skip


def _judge_shared(look: Look, say: Say) -> None:
    """Validation samples that are training samples to the bit."""
    names = [name for name, each in look.data.inputs.items() if name in look.data.val_inputs and each.dim()]
    ours = [look.data.inputs[name] for name in names]
    theirs = [look.data.val_inputs[name] for name in names]
    if not names or any(a.shape[1:] != b.shape[1:] or a.dtype != b.dtype for a, b in zip(ours, theirs, strict=True)):
        return
    samples, beside = len(ours[0]), len(theirs[0])
    alike = all(len(each) == samples for each in ours) and all(len(each) == beside for each in theirs)
    if not alike or beside < 8 or not is_rich(ours, float(samples) * beside):
        return
    kept = ~is_blank(theirs).cpu().numpy()
    marks, seen = fingerprints(theirs)[kept], fingerprints(ours)
    known = np.isin(marks, seen)
    _, counts = np.unique(seen, return_counts=True)
    by_nature = float(counts[counts > 1].sum()) / samples  # of training samples, those with a twin in training
    share = float(known.mean()) if len(known) else 0.0
    if say.measure("share of validation samples that are training samples", share, SHARED) and share > 5 * by_nature:
        same = look.trainer.val_loader is look.trainer.train_loader
        _tell(
            say, "Validation samples are training samples",
            f"{int(known.sum()):,} of {len(known):,} validation samples are among the {samples:,} training samples "
            "that were seen, to the bit: what is measured on them is memory, not how well the network does on new data."
            + (" Both loaders are one and the same." if same else ""),
            Remedy("Split once, before anything is augmented or repeated.", code="random_split(dataset, [0.8, 0.2])"),
            0.95, severity=Severity.INFO if same else Severity.WARNING,
        )  # fmt: skip


def _tell(
    say: Say,
    title: str,
    why: str,
    remedy: Remedy,
    sure: float,
    picture: Picture | None = None,
    severity: Severity = Severity.WARNING,
) -> None:
    pictures = (picture,) if picture is not None else ()
    say.find(Cause.TRAIN_VAL_MISMATCH, severity, title, why, confidence=sure, pictures=pictures, remedies=(remedy,))


CHECK = Check(
    "train_val_mismatch",
    "validation data are like training data, and not the same",
    judge,
    (Cause.TRAIN_VAL_MISMATCH,),
    parameters=(
        Parameter(SCALE, 3.0, "how many times the scales of the splits may differ", 1.0),
        Parameter(SHIFT, 0.8, "how far the means of the splits may be apart, in deviations of values", 0.0),
        Parameter(APART, 6.0, "how far the samples' means may be apart, in deviations of these", 0.0),
        Parameter(
            "split_features_off", 0.49, "share of a table's features that may differ between the splits", 0.0, 1.0
        ),
        Parameter(MISSING, 15.0, "samples that a class would have by its share in the other split, and has not", 1.0),
        Parameter(SHARED, 0.02, "share of validation samples that may be training samples", 0.0, 1.0),
    ),
    source="Slavv, 37 reasons why your neural network is not working: check the preprocessing of both splits",
)
