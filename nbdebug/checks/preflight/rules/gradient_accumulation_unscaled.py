"""Gradients of several batches are added up for one update, each at full weight: the update grows with their number.

Seen in the user's own steps: which backward passes an update used, and by what each loss was multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import PICKS, SCALES, shares
from nbdebug.checks.preflight.trace import Backward, Call, LossCall, StepTrace, Update
from nbdebug.records.findings import Cause, Remedy, Severity

TIMES = "accumulated_times"
LONGEST = 40  # steps on the side until an update comes
BY_SCALE = ("SGD", "ASGD", "LBFGS")  # a gradient twice as large makes a step twice as large
MEANS, SUMS = frozenset({"mean", "nanmean"}), frozenset({"sum", "nansum"})
BY_NUMBERS = SCALES | {"itruediv", "truediv", "imul", "foreach_div", "foreach_mul"}


@dataclass(frozen=True, slots=True)
class Part:
    """One backward pass: where its loss was reduced, and by what the mean over its samples is multiplied after that."""

    trace: StepTrace
    backward: Backward
    reduced: Call
    factor: float
    samples: int
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class Group:
    """The backward passes that one update used. ``is_open`` says that the update came later than was looked."""

    passes: tuple[tuple[StepTrace, Backward], ...]
    optimizer: str
    update: tuple[StepTrace, Update] | None

    @property
    def is_open(self) -> bool:
        """Whether more passes than these may be added up."""
        return self.update is None


def judge(look: Look, say: Say) -> None:
    """The first update that uses several passes of one kind, each on samples of its own."""
    trace = look.called
    if any(each.error is not None for each in look.traces) or trace.truncated:
        say.skip("the step raises an error, or is too long to be followed")
    group = next((each for each in _groups(look) if len(each.passes) > 1), None) or _later(look)
    if group is None:
        say.note("each update uses one backward pass, as far as was seen")
        return
    parts = [part for trace, backward in group.passes if (part := _part(look, trace, backward)) is not None]
    if len(parts) < len(group.passes) or not _are_alike(parts) or not _are_shares_of_the_data(look, parts):
        say.note("several backward passes make one update, by different losses or on the same samples")
        return
    count = len(parts)
    times = count * min(part.factor for part in parts)
    if say.measure("means that are added up in one update, by their weights", times, TIMES):
        if group.update is not None and _is_averaged_by_hand(*group.update, parts[-1].backward, count):
            say.note("gradients are averaged by hand before the update")
            return
        _tell(look, group, parts, say)


def _groups(look: Look) -> Iterator[Group]:
    """For each update, the passes since gradients were last zero."""
    running: dict[str, list[tuple[StepTrace, Backward]]] = {}
    for trace, event in _events(look):
        if isinstance(event, Update):
            yield Group(tuple(running.pop(event.optimizer, ())), event.optimizer, (trace, event))
            continue
        for name in look.optimizers:
            names = event.reached & _held(look, name)
            if names and not any(event.stale.get(each, 0.0) > 0 for each in names):
                running[name] = [(trace, event)]
            elif names and name in running:
                running[name].append((trace, event))


def _events(look: Look) -> Iterator[tuple[StepTrace, Backward | Update]]:
    for trace in look.traces:
        events: list[Backward | Update] = [*trace.backwards, *trace.updates]
        for event in sorted(events, key=lambda each: each.order):
            yield trace, event


def _held(look: Look, optimizer: str) -> set[str]:
    held = {id(each) for group in look.optimizers[optimizer].param_groups for each in group["params"]}
    return {name for name, parameter in look.parameters.items() if id(parameter) in held}


def _later(look: Look) -> Group | None:
    """All that was looked into only adds up, and the weights moved at a later step: then more passes than these do."""
    passes = [(trace, backward) for trace in look.traces for backward in trace.backwards]
    grows = all(any(norm > 0 for norm in backward.stale.values()) for _, backward in passes[1:])
    if len(look.optimizers) != 1 or len(passes) < 3 or not grows or any(trace.updates for trace in look.traces):
        return None
    return Group(tuple(passes), next(iter(look.optimizers)), None) if _moves_later(look) else None


def _moves_later(look: Look) -> bool:
    if look.bench is None:
        norms = look.trace.norms
        now = {name: float(each.detach().abs().float().norm()) for name, each in look.parameters.items()}
        return any(now[name] != norm for name, norm in norms.items() if name in now)
    with look.bench.fresh():
        for place in range(LONGEST):
            trace = look.bench.trace(look.batches[place % len(look.batches)])
            if trace.updates or trace.error is not None:
                return bool(trace.updates)
    return False


def _part(look: Look, trace: StepTrace, backward: Backward) -> Part | None:
    """``None`` where it can't be told by what the loss is multiplied."""
    losses = {loss.call.index: loss for loss in trace.losses}
    number, before, factor = backward.number, backward.index, 1.0
    while (call := trace.producer(number, before)) is not None:
        loss = losses.get(call.index)
        is_whole = trace.values[call.outputs[0]].shape == ()
        if loss is not None or (call.name in MEANS | SUMS and is_whole):
            weight = _weight(trace, backward, call, loss, factor)
            known = not math.isnan(weight)
            return Part(trace, backward, call, weight, _rows(trace, call), _sources(trace, backward)) if known else None
        if call.name.rstrip("_") in SCALES and len(call.inputs) > 1:
            factor = math.nan  # by a tensor: only the values may tell
        following = next(((each, share) for each, share in shares(trace, call)), None)
        if following is None:
            return None
        number, before, factor = following[0], call.index, factor * following[1]
    return None


def _weight(trace: StepTrace, backward: Backward, call: Call, loss: LossCall | None, factor: float) -> float:
    """By what the mean over samples enters what ``backward`` is called on; NaN if unknown, as of a sum."""
    if (loss is None and call.name in SUMS) or (loss is not None and loss.reduction != "mean"):
        by_samples = abs(factor) * _rows(trace, call)
        return by_samples if abs(by_samples - 1) < 0.01 else math.nan
    if not math.isnan(factor):
        return abs(factor)
    told = abs(backward.value / loss.value) if loss is not None and loss.value else math.nan
    return told if told < 1.01 else math.nan  # more than that is a gradient scaler's, which is undone before the update


def _rows(trace: StepTrace, call: Call) -> int:
    """How many samples a loss is taken over, as far as the first dimension tells."""
    shape = trace.values[call.inputs[0]].shape
    return shape[0] if shape else 1


def _sources(trace: StepTrace, backward: Backward) -> frozenset[str]:
    return frozenset(each for each in trace.sources(backward.number, backward.index) if each.startswith("batch"))


def _are_alike(parts: Sequence[Part]) -> bool:
    """Whether they are one loss of one network: by the same line, to the same weights."""
    first = parts[0]
    return all(
        part.reduced.name == first.reduced.name
        and part.reduced.line == first.reduced.line
        and part.backward.reached == first.backward.reached
        for part in parts
    )


def _are_shares_of_the_data(look: Look, parts: Sequence[Part]) -> bool:
    """Whether each is on a batch of its own, or they share a batch out among them, with no sample in two."""
    traces = [id(part.trace) for part in parts]
    if len(set(traces)) == len(traces):
        return True
    if len(set(traces)) > 1 or not look.data.sizes:
        return False
    sources = [part.sources for part in parts]
    if len(parts) > 2 and all(not a & b for i, a in enumerate(sources) for b in sources[:i]):
        return True  # a list of small batches
    picked = [_picked(part) for part in parts]
    whole = look.data.sizes[0]
    return whole in (sum(picked), sum(part.samples for part in parts))


def _picked(part: Part) -> int:
    """How many samples of the batch were picked out for a pass; 0 if none were."""
    trace, queue, seen = part.trace, [(part.backward.number, part.backward.index)], set[int]()
    found: list[int] = []
    while queue:
        number, before = queue.pop()
        call = trace.producer(number, before)
        if call is None or number in seen:
            continue
        seen.add(number)
        own = trace.values[call.inputs[0]] if call.inputs else None
        if call.name in PICKS and own is not None and own.source.startswith("batch") and trace.values[number].shape:
            found.append(trace.values[number].shape[0])
        queue += [(each, call.index) for each in call.inputs]
    return found[0] if len(set(found)) == 1 else 0


def _is_averaged_by_hand(trace: StepTrace, update: Update, last: Backward, count: int) -> bool:
    """Whether something is divided by the number of passes between the last of them and the update."""
    between = [call for call in trace.calls[last.index : update.index] if call.name.strip("_") in BY_NUMBERS]
    return any(_is_by(value, count) for call in between for value in (*call.rest, *call.options.values()))


def _is_by(value: object, count: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isclose(value, count) or math.isclose(value * count, 1, rel_tol=1e-6)


def _tell(look: Look, group: Group, parts: Sequence[Part], say: Say) -> None:
    count, kind = len(parts), type(look.optimizers[group.optimizer]).__name__
    plain = kind in BY_SCALE
    many = f"{count} or more" if group.is_open else f"{count}"
    where = "parts of a batch" if len({id(part.trace) for part in parts}) == 1 else "batches"
    what = (
        f"{kind} then makes steps that many times too large, and one learning rate means another for each number."
        if plain
        else f"{kind} divides that out again, but clipping, weight decay within the gradient, and epsilon do not."
    )
    divisor = "the number of batches in an update" if group.is_open else str(count)
    say.find(
        Cause.GRADIENT_ACCUMULATION_UNSCALED,
        Severity.WARNING if plain else Severity.INFO,
        "Gradients are added up without being averaged",
        f"Each update uses the gradients of {many} {where}, added up; each loss is a mean, and is not divided by their "
        f"number, so that their sum is that many times the gradient of one mean. {what}",
        confidence=0.9 if plain else 0.6,
        remedies=(
            Remedy(f"Divide each loss by {divisor}.", code=f"(loss / {'k' if group.is_open else count}).backward()"),
            Remedy(f"Or divide the learning rate by {divisor}."),
        ),
        line=parts[0].reduced.line,
    )


CHECK = Check(
    "gradient_accumulation_unscaled",
    "gradients that are added up are averaged",
    judge,
    (Cause.GRADIENT_ACCUMULATION_UNSCALED,),
    parameters=(
        Parameter(TIMES, 1.5, "how many means, by their weights, one update may add up where they share the data", 1.0),
    ),
    source="Goyal et al. 2017, Accurate, large minibatch SGD: losses of parts are normalised by the whole batch's size",
)
