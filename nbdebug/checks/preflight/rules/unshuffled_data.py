"""Samples come sorted: batches are of one class, or of one stretch of the targets, and each undoes the one before."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import Labels, Order, capped, floats, labels, order_of, target_source
from nbdebug.checks.preflight.task import Kind
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

Z = "batch_mix_surprise"
SHARE = "batch_mix_share"
MONOTONE = "sorted_steps_share"
FEWEST_SAMPLES, FEWEST_BATCHES = 48, 4


def judge(look: Look, say: Say) -> None:
    """In the order of the loader, unless it draws at random."""
    order = order_of(look.trainer.train_loader)
    sizes = look.data.sizes
    if order is Order.RANDOM:
        say.skip("the loader draws samples at random")
    if len(sizes) < FEWEST_BATCHES or sum(sizes) < FEWEST_SAMPLES or len(sizes) == sum(sizes):
        say.skip("there are too few batches to tell whether they are alike")
    found = labels(look)
    if found is not None and len(found.values) == sum(sizes):
        _judge_labels(look, found, sizes, order, say)
    elif look.task.kind is Kind.REGRESSION and order is not Order.OWN:
        _judge_numbers(look, say)


def _judge_labels(look: Look, found: Labels, sizes: list[int], order: Order, say: Say) -> None:
    values = found.values.cpu()
    if len(torch.unique(values)) == 1:
        stored = _stored(look, found)
        if stored is not None and len(torch.unique(stored)) > 1:
            share = float((stored[1:] == stored[:-1]).double().mean())
            what = (
                f"All {len(values):,} samples of the first {len(sizes)} batches are of class {int(values[0])}; the "
                f"others come later ({share:.0%} of neighbours are of one class)."
            )
            _tell(say, what, _of_batches(found, sizes))
        return
    z, purity = mixed(values, sizes)
    surprising = say.measure("how much purer batches are than chance, in deviations", z, Z)
    pure = say.measure("how much purer, as a share of what is possible", purity, SHARE)
    own = order is Order.OWN and purity < 0.95  # a sampler of one's own may well mean some classes for each batch
    if surprising and pure and not own:
        alone = sum(len(torch.unique(part)) == 1 for part in values.split(sizes))
        what = (
            f"{alone} of {len(sizes)} batches are of one class only; over all, {len(torch.unique(values))} classes "
            f"come. In batches drawn at random, two samples would be of one class {_alike(values):.0%} of the time; "
            f"here it is {_alike_within(values, sizes):.0%}."
        )
        _tell(say, what, _of_batches(found, sizes))


def mixed(values: torch.Tensor, sizes: list[int]) -> tuple[float, float]:
    """How much purer batches are than random ones: in deviations of the chi-square statistic, and from 0 to 1."""
    parts = values.split(sizes)
    classes, places = torch.unique(values, return_inverse=True)
    table = torch.stack([torch.bincount(part, minlength=len(classes)) for part in places.split(sizes)]).double()
    rows, columns, total = table.sum(1, keepdim=True), table.sum(0, keepdim=True), table.sum()
    expected = rows * columns / total
    chi2 = float(((table - expected) ** 2 / expected).sum())
    freedom = (len(parts) - 1) * (len(classes) - 1)
    z = (chi2 - freedom) / math.sqrt(2 * freedom)
    base = _alike(values)
    return z, (_alike_within(values, sizes) - base) / max(1 - base, 1e-9)


def _alike(values: torch.Tensor) -> float:
    """How often two samples are of one class."""
    counts = torch.unique(values, return_counts=True)[1].double()
    total = counts.sum()
    return float((counts * (counts - 1)).sum() / (total * (total - 1)).clamp(min=1))


def _alike_within(values: torch.Tensor, sizes: list[int]) -> float:
    pairs = same = 0.0
    for part in values.split(sizes):
        counts = torch.unique(part, return_counts=True)[1].double()
        same += float((counts * (counts - 1)).sum())
        pairs += len(part) * (len(part) - 1)
    return same / max(pairs, 1.0)


def _stored(look: Look, found: Labels) -> torch.Tensor | None:
    """All labels of a dataset of tensors, if the loader gives them in that order."""
    loader = look.trainer.train_loader
    dataset = loader.dataset if isinstance(loader, DataLoader) else None
    if not isinstance(dataset, TensorDataset):
        return None
    seen = look.data.targets[found.source]
    for tensor in dataset.tensors:
        if tensor.shape[1:] == seen.shape[1:] and bool((tensor[: len(seen)] == seen.to(tensor.device)).all()):
            return tensor.flatten() if tensor.dim() < 2 or tensor.shape[1] == 1 else tensor.argmax(1)
    return None


def _judge_numbers(look: Look, say: Say) -> None:
    """Targets, or the one input there is, that only rise or only fall; a series in its order is left alone."""
    samples = sum(look.data.sizes)
    if _is_series(look):
        say.skip("samples are overlapping pieces of a series, in its order")
    rows = {"targets": look.data.targets.get(target_source(look))}
    rows |= {name: tensor for name, tensor in look.data.inputs.items() if tensor.numel() == samples}
    for name, tensor in rows.items():
        if tensor is None or tensor.numel() != samples:
            continue
        share = _monotone(floats(tensor).flatten())
        if say.measure(f"share of steps in one direction, of {name}", share, MONOTONE):
            values = floats(tensor).flatten().cpu().numpy()
            picture = Picture(
                PictureKind.LINES,
                f"{name}, sample by sample",
                values[:: max(1, len(values) // 200)][None].astype(np.float64),
            )
            _tell(
                say,
                f"The {name} only rise or fall over {samples:,} samples: each batch holds one stretch of them.",
                picture,
            )
            return


def _monotone(values: torch.Tensor) -> float:
    """Of the steps from sample to sample that lead anywhere, the share in the commoner direction."""
    steps = values[1:] - values[:-1]
    steps = steps[steps != 0]
    if len(steps) < FEWEST_SAMPLES - 1:
        return 0.0
    up = float((steps > 0).double().mean())
    return max(up, 1 - up)


def _is_series(look: Look) -> bool:
    """Whether a sample is the one before, moved on by some places."""
    for tensor in look.data.inputs.values():
        if tensor.dim() < 2 or tensor.shape[1] < 3:
            continue
        some = floats(capped(tensor))[:16]
        for by in range(1, min(8, tensor.shape[1] - 1)):
            if bool((some[:-1, by:] == some[1:, :-by]).all()) and bool((some[0] != some[1]).any()):
                return True
    return False


def _of_batches(found: Labels, sizes: list[int]) -> Picture:
    """How often each class comes in each batch."""
    table = [
        torch.bincount(part.clamp(0, found.classes - 1), minlength=found.classes) for part in found.values.split(sizes)
    ]
    values = torch.stack(table)[:64, :40].T.cpu().numpy().astype(np.float64)
    return Picture(
        PictureKind.MATRIX,
        "Samples of each class, batch by batch",
        values,
        tuple(f"class {i}" for i in range(values.shape[0])),
        tuple(str(i) for i in range(values.shape[1])),
    )


def _tell(say: Say, what: str, picture: Picture) -> None:
    say.find(
        Cause.UNSHUFFLED_DATA,
        Severity.WARNING,
        "The training data come sorted",
        f"{what} Each batch then pulls the network towards its own kind, and the next one away again.",
        confidence=0.93,
        pictures=(picture,),
        remedies=(
            Remedy("Shuffle the training data anew each epoch.", code="DataLoader(dataset, batch_size, shuffle=True)"),
            Remedy("An iterable dataset: shuffle the files' order, and keep a buffer to draw from."),
        ),
    )


CHECK = Check(
    "unshuffled_data",
    "batches are mixtures",
    judge,
    (Cause.UNSHUFFLED_DATA,),
    parameters=(
        Parameter(Z, 8.0, "deviations of a chi-square test by which batches may be purer than by chance", 2.0),
        Parameter(SHARE, 0.4, "how much purer than chance, as a share of what is possible", 0.0, 1.0),
        Parameter(MONOTONE, 0.98, "share of steps from sample to sample that may lead in one direction", 0.5, 1.0),
    ),
    source="Slavv, 37 reasons why your neural network is not working: shuffle the dataset",
)
