"""Inputs and labels that have nothing to do with each other: rows off by one, one of the two sorted or shuffled alone.

Simple learners of our own are held against the same learners on labels dealt out anew. Where they see nothing, the
data as they are stored are asked for what went wrong. That simple learners see nothing is no proof by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import floats, is_tokens, labels, target_source
from nbdebug.checks.preflight.task import Kind
from nbdebug.checks.preflight.views import View, pooled, views
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

RELATED = "label_relation_surprise"
LARGE_RELATED = "label_relation_surprise_of_large"
SHIFTED = "shifted_label_surprise"
SORTED = "stored_targets_sorted"
FEWEST, MOST, MORE = 300, 800, 2_000
FEWEST_COLUMNS, MOST_SIMPLE, FEWEST_OF_LARGE = 4, 1_024, 500
PERMUTATIONS, FEWER_PERMUTATIONS, WORDS, AT_ONCE = 40, 12, 512, 8
SHIFTS = tuple(by for by in range(-4, 5) if by)
READING_S = 1.0


@dataclass(frozen=True, slots=True)
class Learners:
    """Linear smoothers, of the first half's targets to the second half's: each ``(n / 2, n / 2)``.

    ``columns`` ``(n, d)``, standardised, are for the strongest relation of a single one.
    """

    smoothers: tuple[torch.Tensor, ...]
    half: int
    columns: torch.Tensor

    def surprise(self, target: torch.Tensor, permutations: int = PERMUTATIONS) -> float:
        """By how many deviations the best learner does better than on targets dealt out anew."""
        generator = torch.Generator().manual_seed(0)
        count = 2 * self.half
        dealt = [torch.arange(count), *(torch.randperm(count, generator=generator) for _ in range(permutations))]
        rows = torch.stack([target[order.to(target.device)] for order in dealt], 1)  # (n, dealt, outputs)
        related = torch.einsum("nc,ndo->dco", self.columns, rows - rows.mean(0)).abs().flatten(1).amax(1)
        best = _deviations(related)
        first, second = rows[: self.half], rows[self.half :]
        first, second = first - first.mean(0), second - second.mean(0)
        for smoother in self.smoothers:
            said = torch.einsum("st,tdo->sdo", smoother, first)
            score = (said * second).sum((0, 2)) / (
                said.square().sum((0, 2)) * second.square().sum((0, 2))
            ).sqrt().clamp(min=1e-30)
            best = max(best, _deviations(score))
        return best


def _deviations(score: torch.Tensor) -> float:
    """By how much the first is above the others."""
    return float((score[0] - score[1:].mean()) / score[1:].std().clamp(min=1e-6))


def judge(look: Look, say: Say) -> None:
    """Samples seen, then samples as they are stored."""
    _ = look.experiments
    target = _target(look)
    features = _features(look, look.data.inputs, MOST) if target is not None else None
    if features is None or target is None or len(features[0]) != min(len(target), MOST):
        say.skip("there is not one target for each sample, or inputs are not of one form")
    assert features is not None and target is not None
    if len(target) < FEWEST:
        say.skip(f"that inputs and labels go together can't be told from {len(target)} samples")
    count, surprise = _surprise(features, target)
    if surprise < say.limit(RELATED) and (closer := _features(look, look.data.inputs, MORE, closely=True)):
        count, seen_closely = _surprise(closer, target)
        surprise = max(surprise, seen_closely)
    unrelated = say.measure(
        "how much better simple learners do than on labels dealt anew", surprise, RELATED, above=False
    )
    if not unrelated or _tell_stored(look, say):
        return
    if look.task.kind is not Kind.REGRESSION and _is_simple(look, surprise < say.limit(LARGE_RELATED)):
        _tell_unrelated(say, count, surprise)
    else:
        say.skip("can't tell: simple learners see no relation of inputs and targets; with such data that may well be")


def _surprise(features: list[torch.Tensor], target: torch.Tensor) -> tuple[int, float]:
    """Of how many samples, and by how many deviations learners do better than on labels dealt anew."""
    count = min(len(target), len(features[0])) // 2 * 2
    return count, _learners([each[:count] for each in features]).surprise(target[:count])


def _target(look: Look) -> torch.Tensor | None:
    """``(n, outputs)``: one-hot classes, or the number to be told."""
    found = labels(look)
    if found is not None:
        return _one_hot(found.values)
    target = look.data.targets.get(target_source(look))
    if look.task.kind is Kind.REGRESSION and target is not None and target.dim() and target[0].numel() == 1:
        return floats(target).reshape(-1, 1)
    return None


def _one_hot(values: torch.Tensor) -> torch.Tensor | None:
    kinds, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    if not 2 <= len(kinds) <= 100 or int((counts >= 10).sum()) < 2:
        return None
    return torch.nn.functional.one_hot(places, len(kinds)).float()


def _features(
    look: Look, inputs: dict[str, torch.Tensor], most: int, *, closely: bool = False
) -> list[torch.Tensor] | None:
    """Inputs as rows of numbers, in several views: see :mod:`nbdebug.checks.preflight.views`."""
    found: dict[View, list[torch.Tensor]] = {}
    for name, tensor in inputs.items():
        if not tensor.dim() or len(tensor) != len(next(iter(inputs.values()))):
            return None
        if is_tokens(look, name):
            found.setdefault(View.PLAIN, []).append(_word_counts(tensor[:most]))
            continue
        for view, rows in views(floats(tensor[:most]), closely=closely).items():
            found.setdefault(view, []).append(rows)
    return [torch.cat(each, 1) for each in found.values()] or None


def _word_counts(tensor: torch.Tensor) -> torch.Tensor:
    words = tensor.reshape(len(tensor), -1).long() % WORDS
    counts = torch.zeros(len(words), WORDS, device=words.device)
    return counts.scatter_add_(1, words, torch.ones_like(words, dtype=counts.dtype)).sqrt()


def _learners(views: list[torch.Tensor]) -> Learners:
    """Ridge regression, nearest neighbours and kernel ridges of several widths, on each view."""
    half = len(views[0]) // 2
    smoothers, scaled = [], []
    for view in views:
        values = view.double()
        spread = values.std(0)
        values = ((values - values.mean(0)) / spread.clamp(min=1e-12))[:, spread > 1e-12].float()
        scaled.append(values)
        if values.shape[1]:
            smoothers += _smoothers(values[:half], values[half:])
    columns = scaled[0] if scaled[0].shape[1] else torch.zeros_like(views[0][:, :1])
    return Learners(tuple(smoothers), half, columns)


def _smoothers(train: torch.Tensor, test: torch.Tensor) -> list[torch.Tensor]:
    made = []
    scale = train.shape[1]
    for strength in (0.1, 10.0):
        made.append(_ridge(train @ train.T / scale, test @ train.T / scale, strength))
    between, within = torch.cdist(test, train), torch.cdist(train, train)
    for neighbours in (1, 5, 15):
        nearest = between.topk(neighbours, largest=False).indices
        made.append(torch.zeros_like(between).scatter_(1, nearest, 1.0 / neighbours))
    usual = within.median().clamp(min=1e-12)
    for width in (0.15, 0.4, 1.0):
        near, far = (torch.exp(-((each / (width * usual)) ** 2) / 2) for each in (within, between))
        made.append(_ridge(near, far, 0.1))
    return made


def _ridge(within: torch.Tensor, between: torch.Tensor, strength: float) -> torch.Tensor:
    eye = torch.eye(len(within), device=within.device, dtype=torch.float64)
    solved: torch.Tensor = torch.linalg.solve(within.double() + strength * eye, between.double().T)
    return solved.T.float()


def _is_simple(look: Look, nothing_at_all: bool) -> bool:
    """Data that simple learners are known to see something in: pictures and tables, not of yes and no alone.

    In large pictures they see less, so ``nothing_at_all`` must have been seen.
    """
    inputs = look.data.inputs
    if any(is_tokens(look, name) for name in inputs) or any(tensor.dim() == 3 for tensor in inputs.values()):
        return False
    flat = torch.cat([pooled(floats(tensor[:MOST])).flatten(1) for tensor in inputs.values()], 1)
    two_values = ((flat == flat.amin(0)) | (flat == flat.amax(0))).all()
    large = any(tensor[0].numel() > MOST_SIMPLE for tensor in inputs.values())
    enough = nothing_at_all and len(flat) >= FEWEST_OF_LARGE
    return FEWEST_COLUMNS <= flat.shape[1] <= MOST_SIMPLE and not bool(two_values) and (enough or not large)


# -- as stored --------------------------------------------------------------------------------------------------------


def _tell_stored(look: Look, say: Say) -> bool:
    """Whether the order in which samples are stored tells what went wrong; says so."""
    stored = _stored(look)
    if stored is None:
        return False
    inputs, target = stored
    if look.task.kind is Kind.REGRESSION and _is_sorted_alone(inputs, target, say):
        _tell(
            say, Severity.CRITICAL, "Targets are sorted, inputs are not",
            f"As they are stored, the {len(target):,} targets only rise or fall, while no input goes along: they "
            "were sorted by themselves, and belong to other inputs.", 0.97,
            "order = y.argsort(); x, y = x[order], y[order]",
        )  # fmt: skip
        return True
    features, aims = (
        _features(look, inputs, MOST, closely=True),
        _one_hot(target.long()) if look.task.kind is not Kind.REGRESSION else target[:, None],
    )
    if features is None or aims is None or len(target) < FEWEST // 2:
        return False
    count = min(len(target), MOST, len(features[0])) // 2 * 2
    learners = _learners([_by_halves(each[:count]) for each in features])
    surprises = {by: learners.surprise(_by_halves(aims.roll(by, 0)[:count]), FEWER_PERMUTATIONS) for by in SHIFTS}
    best = max(surprises, key=lambda by: surprises[by])
    if not say.measure("the same, with labels moved on by some places", surprises[best], SHIFTED):
        return False
    _tell(
        say, Severity.CRITICAL, "Labels belong to other samples",
        f"As they are stored, inputs and labels have nothing to do with each other; but moved by {abs(best)} "
        f"place{'s' if abs(best) > 1 else ''} they do ({surprises[best]:.0f} deviations better than chance). One of "
        "the two is read from the wrong line.", 0.97,
        f"y = y.roll({best})    # or mend the reading", _picture(surprises),
    )  # fmt: skip
    return True


def _by_halves(rows: torch.Tensor) -> torch.Tensor:
    """Every other row first, so that both halves are from all over the data."""
    return torch.cat([rows[::2], rows[1::2]])


def _picture(surprises: dict[int, float]) -> Picture:
    values = torch.tensor([list(surprises.values())], dtype=torch.float64).numpy()
    title = "Relation of inputs and labels, by how far labels are moved"
    return Picture(PictureKind.BARS, title, values, ("deviations above chance",), tuple(str(by) for by in surprises))


def _is_sorted_alone(inputs: dict[str, torch.Tensor], target: torch.Tensor, say: Say) -> bool:
    steps = target[1:] - target[:-1]
    steps = steps[steps != 0]
    if len(steps) < FEWEST // 4:
        return False
    up = float((steps > 0).double().mean())
    places = torch.arange(len(target), dtype=torch.float64, device=target.device)
    places = (places - places.mean()) / places.std(correction=0)
    goes_along = 0.0
    for tensor in inputs.values():
        flat = floats(tensor).double().reshape(len(tensor), -1)[:, :4_096]
        columns = (flat - flat.mean(0)) / flat.std(0, correction=0).clamp(min=1e-12)
        goes_along = max(goes_along, float((columns * places[:, None]).mean(0).abs().max()))
    is_sorted = say.measure("share of steps between stored targets in one direction", max(up, 1 - up), SORTED)
    return is_sorted and goes_along < 0.3


def _stored(look: Look) -> tuple[dict[str, torch.Tensor], torch.Tensor] | None:
    """Inputs by their way in a batch, and one target each, in the order of the dataset itself."""
    loader = look.trainer.train_loader
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:  # without, it stores whole batches
        return None
    dataset: Any = loader.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return None
    with look.experiments.fresh():
        read = _read(dataset, loader.collate_fn, say_until=time.perf_counter() + READING_S)
    source = target_source(look)
    names = [name for name in look.data.inputs if all(name in each for each in read)]
    if not read or not names or any(source not in each for each in read):
        return None
    inputs = {name: _joined([each[name] for each in read]) for name in names}
    target = _joined([each[source] for each in read])
    if target is None or any(each is None or len(each) != len(target) for each in inputs.values()):
        return None
    if len(target) < FEWEST // 2 or target[0].numel() != 1:
        return None
    return {name: each for name, each in inputs.items() if each is not None}, floats(target).flatten().float()


def _read(dataset: Any, collate: Callable[[list[Any]], Any], *, say_until: float) -> list[dict[str, torch.Tensor]]:
    """The first rows, put together a few at a time as the loader does; of each such batch its tensors by their way."""
    read: list[dict[str, torch.Tensor]] = []
    for begin in range(0, min(len(dataset), MOST), AT_ONCE):
        rows = range(begin, min(begin + AT_ONCE, len(dataset), MOST))
        try:
            found = dict(leaves(collate([dataset[index] for index in rows])))
        except Exception:  # a dataset of the user's own need not be read by numbers; what was read so far is looked at
            return read
        read.append(
            {name: tensor.detach() for name, tensor in found.items() if tensor.dim() and len(tensor) == len(rows)}
        )
        if time.perf_counter() > say_until:
            break
    return read


def _joined(parts: list[torch.Tensor]) -> torch.Tensor | None:
    """Along the samples; ``None`` where batches differ in form."""
    return torch.cat(parts) if len({part.shape[1:] for part in parts}) == 1 else None


# -- words ------------------------------------------------------------------------------------------------------------


def _tell_unrelated(say: Say, count: int, surprise: float) -> None:
    _tell(
        say, Severity.WARNING, "Inputs and labels seem unrelated",
        f"Ridge regression, nearest neighbours and kernel machines, trained on half of {count:,} samples, tell "
        f"the labels of the other half no better than if labels were dealt out at random ({surprise:.1f} deviations; "
        "related data have far more). With data of this kind some relation nearly always shows.", 0.65,
        "for i in range(5): show(x[i], y[i])    # look at some pairs",
    )  # fmt: skip


def _tell(
    say: Say, severity: Severity, title: str, why: str, sure: float, code: str, picture: Picture | None = None
) -> None:
    say.find(
        Cause.INPUT_LABEL_MISMATCH,
        severity,
        title,
        why,
        confidence=sure,
        pictures=(picture,) if picture is not None else (),
        remedies=(
            Remedy(
                "Look at pairs, and where inputs and labels are shuffled, sorted or read, do both at once.", code=code
            ),
        ),
    )


CHECK = Check(
    "input_label_mismatch",
    "inputs and labels belong together",
    judge,
    (Cause.INPUT_LABEL_MISMATCH,),
    parameters=(
        Parameter(RELATED, 3.5, "deviations by which simple learners must beat labels dealt anew, to be content", 0.0),
        Parameter(LARGE_RELATED, 3.0, "the same for pictures of more than 1,024 numbers", 0.0),
        Parameter(SHIFTED, 10.0, "the same, from which labels moved by some places are taken for the right ones", 0.0),
        Parameter(SORTED, 0.98, "share of steps between stored targets in one direction that is no alarm", 0.5, 1.0),
    ),
    source="Slavv, 37 reasons why your neural network is not working: do inputs and labels belong together?",
    passive=False,
)
