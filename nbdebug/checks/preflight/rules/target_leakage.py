"""One feature is the target in another form: what is learnt is to copy it, and nothing of use.

Numbers are held against the target as they are; of categories, and of numbers of a few values, what each level tells.
"""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.levels import Levels
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.samples import TOKEN_CALLS, capped, floats, is_tokens, labels, target_source
from nbdebug.checks.preflight.task import Kind
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

WITHIN = "leak_spread_within_class"
RESIDUAL = "leak_residual"
COPY = "leak_copy_residual"
RANKS = "leak_rank_residual"
BANDS = "leak_band_residual"
STRAYS = "leak_band_strays"
CLASS_ERRORS = "leak_level_errors"
FEWEST_SAMPLES, FEWEST_FEATURES, FEWEST_FOR_LEVELS = 48, 3, 200
MOST_FEATURES, MOST_COLUMNS = 4_096, 256
FEWEST_BANDS, WIDEST_GAP = 4, 0.5


def judge(look: Look, say: Say) -> None:
    """Each feature by itself, against a target of one number or class for each sample."""
    judged = 0
    for name, tensor in look.data.inputs.items():
        kept = capped(tensor)
        if not tensor.dim() or len(tensor) < FEWEST_SAMPLES or tensor.is_complex():
            continue
        flat = floats(kept).reshape(len(kept), -1).double()
        every = max(1, len(tensor) // len(flat))
        if is_tokens(look, name):
            judged += _is_of_categories(look, name) and _judge_categories(look, name, flat, every, say)
        elif tensor.dim() > 1 and FEWEST_FEATURES <= flat.shape[1] <= MOST_FEATURES:
            judged += _judge_input(look, name, flat, every, say)
        if say.findings:
            return
    if not judged:
        say.skip("no table, picture or series of enough samples has one target for each")


def _judge_input(look: Look, name: str, flat: torch.Tensor, every: int, say: Say) -> bool:
    """Numbers; whether there is a target to hold them against."""
    classes, numbers = _classes(look, flat, every), _numbers(look, flat, every)
    if classes is not None:
        _judge_classes(look, name, flat, classes, say)
    elif numbers is not None:
        _judge_numbers(look, name, flat, numbers, say)
        if not say.findings and look.data.inputs[name].dim() == 2 and not _is_sequence(flat):
            _judge_bands(look, name, flat, numbers, say)
    return classes is not None or numbers is not None


def _judge_categories(look: Look, name: str, flat: torch.Tensor, every: int, say: Say) -> bool:
    """Names of things, a column each; whether there is a target to hold them against."""
    classes, numbers = _classes(look, flat, every), _numbers(look, flat, every)
    if len(flat) < FEWEST_FOR_LEVELS or flat.shape[1] > MOST_COLUMNS or (classes is None and numbers is None):
        return False
    if classes is not None:
        _judge_class_levels(look, name, flat, classes, say)
    elif numbers is not None:
        _judge_bands(look, name, flat, numbers, say)
    return True


def _is_of_categories(look: Look, name: str) -> bool:
    """Whether each column means something of its own, other than the places in a text, which share one table."""
    trace, tensor = look.trace, look.data.inputs[name]
    for call in trace.calls:
        if call.name not in TOKEN_CALLS or name not in trace.sources(call.inputs[0], call.index):
            continue
        shape = trace.values[call.inputs[0]].shape
        made = trace.origin(call.inputs[0], call.index)[1]
        moved = made is not None and made.name.strip("_") in ("add", "radd", "iadd")  # a table for each, in a row
        if len([size for size in shape[1:] if size > 1]) and not moved:
            return False
    return tensor.dim() <= 2


def _classes(look: Look, flat: torch.Tensor, every: int) -> torch.Tensor | None:
    found = labels(look)
    values = found.values[::every][: len(flat)] if found is not None else None
    return values if values is not None and len(values) == len(flat) else None


def _numbers(look: Look, flat: torch.Tensor, every: int) -> torch.Tensor | None:
    target = look.data.targets.get(target_source(look))
    if look.task.kind is not Kind.REGRESSION or target is None or not target.dim() or target[0].numel() != 1:
        return None
    values = floats(target).flatten().double()[::every][: len(flat)]
    return values if len(values) == len(flat) and float(values.std()) > 0 else None


def _judge_bands(look: Look, name: str, flat: torch.Tensor, values: torch.Tensor, say: Say) -> None:
    """A column whose levels are bands of the target, or its values under other names."""
    if len(flat) < FEWEST_FOR_LEVELS or flat.shape[1] > MOST_COLUMNS:
        return
    found = [(place, Levels.of(column)) for place, column in enumerate(flat.unbind(1))]
    order = _middle_ranks(values)
    left = {place: (levels.left(order), levels) for place, levels in found if levels is not None}
    left = {place: each for place, each in left.items() if len(each[1].counts) >= FEWEST_BANDS}
    if not left:
        return
    place = min(left, key=lambda each: left[each][0])
    share, levels = left[place]
    near = say.measure(
        "what levels of one column leave of the variance of the target's ranks", share, BANDS, above=False
    )
    if not near:
        return
    in_bands = say.measure("samples among another level's, by target", levels.strays(values), STRAYS, above=False)
    named_anew = len(torch.unique(values)) == len(levels.counts)
    if in_bands and (named_anew or levels.gap(values) < WIDEST_GAP):
        how = (
            f"is the target cut into bands: its {len(levels.counts)} levels follow each other in order of the target, "
            f"and leave {share:.1%} of the variance of its ranks"
        )
        _tell(look, say, name, place, flat[:, place], values, how)


def _judge_class_levels(look: Look, name: str, flat: torch.Tensor, classes: torch.Tensor, say: Say) -> None:
    """A category each level of which has one class, where no other tells half as much."""
    found = [(place, Levels.of(column)) for place, column in enumerate(flat.unbind(1))]
    errors = sorted((levels.errors(classes), place) for place, levels in found if levels is not None)
    if not errors or sum(tensor[0].numel() for tensor in look.data.inputs.values()) < FEWEST_FEATURES:
        return
    share, place = errors[0]
    others = errors[1][0] if len(errors) > 1 else 1.0
    near = say.measure("errors of classes told by one category's levels", share, CLASS_ERRORS, above=False)
    if near and others > 0.5:
        how = f"tells the class by itself: its levels leave {share:.1%} of the errors that are made without it"
        _tell(look, say, name, place, flat[:, place], classes.double(), how)


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


def _middle_ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks of one column; equal values share theirs."""
    _, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    middles: torch.Tensor = counts.cumsum(0) - counts / 2
    return middles[places].to(values.dtype)


def _is_sequence(flat: torch.Tensor) -> bool:
    """Whether neighbouring columns go together as values of a series do: the last is near the next by nature."""
    columns = (flat - flat.mean(0)) / flat.std(0, correction=0).clamp(min=1e-30)
    return bool((columns[:, 1:] * columns[:, :-1]).mean(0).median() > 0.8)


def _tell(look: Look, say: Say, name: str, place: int, feature: torch.Tensor, values: torch.Tensor, how: str) -> None:
    shape = look.data.inputs[name].shape[1:]
    where = f"feature {place}" if len(shape) < 2 else f"position {_unravelled(place, shape)}"
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
    if not shape:
        return ""
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
        Parameter(BANDS, 0.25, "variance of the target's ranks that levels may leave, if they are bands of it", 0.0),
        Parameter(STRAYS, 0.01, "samples among another level's, up to which levels are bands of the target", 0.0, 1.0),
        Parameter(CLASS_ERRORS, 0.01, "errors that a category by itself must leave of those made without it", 0.0, 1.0),
    ),
    source="Kaufman et al., Leakage in data mining (2012): a feature that is not legitimately known beforehand",
)
