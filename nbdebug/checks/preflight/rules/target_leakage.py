"""One feature is the target in another form: what is learnt is to copy it, and nothing of use."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import capped, floats, is_tokens, labels, target_source
from nbdebug.checks.preflight.task import Kind
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

WITHIN = "leak_spread_within_class"
RESIDUAL = "leak_residual"
COPY = "leak_copy_residual"
RANKS = "leak_rank_residual"
FEWEST_SAMPLES, FEWEST_FEATURES = 48, 3
MOST_FEATURES = 4_096


def judge(look: Look, say: Say) -> None:
    """Each feature by itself, against a target of one number or class for each sample."""
    for name, tensor in look.data.inputs.items():
        if tensor.dim() < 2 or len(tensor) < FEWEST_SAMPLES or is_tokens(look, name):
            continue
        flat = floats(capped(tensor)).reshape(len(capped(tensor)), -1)
        if not FEWEST_FEATURES <= flat.shape[1] <= MOST_FEATURES:
            continue
        every = len(tensor) // len(flat) if len(flat) != len(tensor) else 1
        _judge_input(look, name, flat.double(), max(1, every), say)
        if say.findings:
            return


def _judge_input(look: Look, name: str, flat: torch.Tensor, every: int, say: Say) -> None:
    found = labels(look)
    if found is not None:
        values = found.values[::every][: len(flat)]
        if len(values) == len(flat):
            _judge_classes(look, name, flat, values, say)
        return
    target = look.data.targets.get(target_source(look))
    if look.task.kind is Kind.REGRESSION and target is not None and target.dim() and target[0].numel() == 1:
        values = floats(target).flatten().double()[::every][: len(flat)]
        if len(values) == len(flat) and float(values.std()) > 0:
            _judge_numbers(look, name, flat, values, say)


def _judge_classes(look: Look, name: str, flat: torch.Tensor, classes: torch.Tensor, say: Say) -> None:
    """A feature that stands still within each class, at another value for each."""
    kinds, places, counts = torch.unique(classes, return_inverse=True, return_counts=True)
    if not 2 <= len(kinds) <= 64 or int(counts.min()) < 4:
        return
    sums = torch.zeros(len(kinds), flat.shape[1], dtype=flat.dtype, device=flat.device).index_add_(0, places, flat)
    means = sums / counts[:, None]
    within = (flat - means[places]).square().mean(0).sqrt()
    ordered = means.sort(0).values
    gap = (ordered[1:] - ordered[:-1]).amin(0)
    spread = torch.where(gap > 0, within / gap.clamp(min=1e-30), torch.inf)
    best = int(spread.argmin())
    leaks = int((spread < say.limit(WITHIN)).sum())
    what = "spread within classes over the gap between them, least of all features"
    near = say.measure(what, float(spread[best]), WITHIN, above=False)
    if near and leaks <= max(1, flat.shape[1] // 4):
        how = f"takes one value for each class: it varies by {float(spread[best]):.1e} of the gap between classes"
        _tell(look, say, name, best, flat[:, best], classes.double(), how)


def _judge_numbers(look: Look, name: str, flat: torch.Tensor, values: torch.Tensor, say: Say) -> None:
    """A feature that is the target times a number, or in a table any rising or falling function of it."""
    target = (values - values.mean()) / values.std(correction=0)
    spread = flat.std(0, correction=0)
    columns = (flat - flat.mean(0)) / spread.clamp(min=1e-30)
    related = torch.where(spread > 1e-12, (columns * target[:, None]).mean(0), 0.0)
    residual = (1 - related.square()).clamp(min=0).sqrt()
    best = int(residual.argmin())
    leaks = int((residual < say.limit(RESIDUAL)).sum())
    is_table = look.data.inputs[name].dim() == 2 and not _is_sequence(flat)
    near = say.measure("what a straight line through one feature leaves of the target", float(residual[best]),
                       RESIDUAL if is_table else COPY, above=False)  # fmt: skip
    if near and leaks <= max(1, flat.shape[1] // 4):
        how = f"is the target but for scale: a straight line through it leaves {float(residual[best]):.1e} of it"
        _tell(look, say, name, best, flat[:, best], values, how)
    elif is_table and flat.shape[1] <= 256:
        _judge_ranks(look, name, flat, values, say)


def _judge_ranks(look: Look, name: str, flat: torch.Tensor, values: torch.Tensor, say: Say) -> None:
    target = _ranks(values[:, None])
    columns = _ranks(flat)
    varied = torch.tensor([len(torch.unique(column)) for column in flat.unbind(1)], device=flat.device) > len(flat) // 2
    related = torch.where(varied, (columns * target).mean(0).abs(), 0.0)
    best = int(related.argmax())
    left = float((1 - related[best] ** 2).clamp(min=0).sqrt())
    near = say.measure("what one feature's ranks leave of the target's", left, RANKS, above=False)
    if near:
        _tell(look, say, name, best, flat[:, best], values, "rises or falls with the target without exception")


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks of each column, standardised."""
    ranks = values.argsort(0).argsort(0).double()
    return (ranks - ranks.mean(0)) / ranks.std(0, correction=0).clamp(min=1e-30)


def _is_sequence(flat: torch.Tensor) -> bool:
    """Whether neighbouring columns go together as values of a series do: the last is near the next by nature."""
    columns = (flat - flat.mean(0)) / flat.std(0, correction=0).clamp(min=1e-30)
    return bool((columns[:, 1:] * columns[:, :-1]).mean(0).median() > 0.8)


def _tell(look: Look, say: Say, name: str, place: int, feature: torch.Tensor, values: torch.Tensor, how: str) -> None:
    shape = look.data.inputs[name].shape[1:]
    where = f"feature {place}" if len(shape) == 1 else f"position {_unravelled(place, shape)}"
    order = values.argsort()[:: max(1, len(values) // 200)]
    pair = torch.stack([(part - part.mean()) / part.std().clamp(min=1e-12) for part in (feature[order], values[order])])
    say.find(
        Cause.TARGET_LEAKAGE,
        Severity.WARNING,
        "A feature gives the target away",
        f"In {name}, {where} {how}, over {len(values):,} samples. The network will copy it, look perfect, and fail "
        "where the target is not known beforehand.",
        confidence=0.9,
        pictures=(
            Picture(PictureKind.LINES, "The feature beside the target", pair.cpu().numpy(), ("feature", "target")),
        ),
        remedies=(
            Remedy("Leave it out, unless it is known at the time of prediction.", code=_without(place, shape)),
            Remedy("Windows of a series: let the target be one step after the window's end."),
        ),
    )


def _unravelled(place: int, shape: torch.Size) -> list[int]:
    indices = []
    for size in reversed(shape):
        indices.append(place % size)
        place //= size
    return indices[::-1]


def _without(place: int, shape: torch.Size) -> str:
    if len(shape) == 1:
        return f"x = torch.cat([x[:, :{place}], x[:, {place + 1}:]], 1)"
    return f"x = x[:, :{_unravelled(place, shape)[0]}]"


CHECK = Check(
    "target_leakage",
    "no single feature is the target",
    judge,
    (Cause.TARGET_LEAKAGE,),
    parameters=(
        Parameter(WITHIN, 0.03, "least spread of a feature within classes, over the gap between them", 0.0, 1.0),
        Parameter(RESIDUAL, 0.02, "what one feature must leave of the target, in deviations", 0.0, 1.0),
        Parameter(COPY, 1e-5, "the same for pictures and series, where neighbours go together by nature", 0.0, 1.0),
        Parameter(RANKS, 0.02, "what one feature's ranks must leave of the target's", 0.0, 1.0),
    ),
    source="Kaufman et al., Leakage in data mining (2012): a feature that is not legitimately known beforehand",
)
