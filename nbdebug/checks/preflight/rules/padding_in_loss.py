"""Sequences are filled up at their ends, and the loss counts the filling: the network learns to predict padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import batch_sources, compares_with_data, meetings, weights
from nbdebug.checks.preflight.trace import LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

SHARE = "padding_share"
INSIDE = "padding_value_inside"
FEWEST_ROWS = 8
MASKS = frozenset(
    {"masked_select", "masked_fill", "where", "mul", "multiply", "__getitem__", "index_select", "__rmul__", "dot"}
)


@dataclass(frozen=True, slots=True)
class Filling:
    """What fills sequences up: where (``True``: padding), with which value; ``share`` of all places."""

    places: torch.Tensor
    value: float
    share: float


def judge(look: Look, say: Say) -> None:
    """Losses whose targets are sequences of the batch, by how these end."""
    trace = look.called
    batch = dict(leaves(trace.batch)) if trace.batch is not None else {}
    sequences = {name: each for name, each in batch.items() if each.dim() >= 2 and each.shape[1] >= 4}
    if not sequences:
        say.skip("there are no sequences in the batch")
    for meeting in meetings(trace):
        loss = meeting.loss
        if say.findings or not compares_with_data(trace, loss) or loss.target is None:
            continue
        names = [name for name in batch_sources(trace, loss.target_number or 0, loss.call.index) if name in sequences]
        for name in sorted(names):
            if not say.findings:
                _judge(trace, loss, sequences[name], sequences, say)


def _judge(
    trace: StepTrace, loss: LossCall, target: torch.Tensor, sequences: dict[str, torch.Tensor], say: Say
) -> None:
    if len(target) < FEWEST_ROWS or target.dim() > 3 or (target.dim() == 3 and not target.is_floating_point()):
        return
    filling = _filling(target, say) or _filled_inputs(target, sequences, say)
    if filling is None or not _counts(trace, loss, filling) or _is_masked(trace, loss):
        return
    _tell(say, loss, filling, f"{filling.value:g}")


def _filling(sequence: torch.Tensor, say: Say) -> Filling | None:
    """What a sequence is filled up with: one value in the runs at the ends, of differing length, not inside.

    Where all that stands before is one other value, it is no sequence but a code: an order's steps, reached or not.
    """
    flat = sequence if sequence.dim() == 2 else None
    if flat is None:
        same = (sequence == sequence[..., :1]).all(-1)
        flat = torch.where(same, sequence[..., 0], torch.full_like(sequence[..., 0], torch.nan))
    for ends in (flat, flat.flip(1)):
        value = ends[:, -1].mode().values
        places = (ends == value).flip(1).long().cumprod(1).flip(1).bool()
        lengths = places.sum(1)
        share, inside = float(places.float().mean()), float(((ends == value) & ~places).float().mean())
        varied = len(lengths.unique()) > 2 and int((lengths >= 2).sum()) > len(flat) // 4
        if bool(places.all()) or not varied or len(ends[~places].unique()) == 1:
            continue
        say.measure("share of places at sequences' ends that hold one value", share, SHARE)
        say.measure("share of places further in that hold it", inside, INSIDE, above=False)
        if share > say.limit(SHARE) and inside < say.limit(INSIDE) * share:
            return Filling(places if ends is flat else places.flip(1), float(value), share)
    return None


def _filled_inputs(target: torch.Tensor, sequences: dict[str, torch.Tensor], say: Say) -> Filling | None:
    """Where a sequence beside is filled up and the target, at the same places, always has one value."""
    for other in sequences.values():
        if other is target or other.shape[:2] != target.shape[:2] or target.dim() != 2:
            continue
        filling = _filling(other, say)
        if filling is not None and len(target[filling.places].unique()) == 1:
            return Filling(filling.places, float(target[filling.places][0]), filling.share)
    return None


def _counts(trace: StepTrace, loss: LossCall, filling: Filling) -> bool:
    """Whether the filling is among what the loss compares, and weighs something."""
    target = loss.target
    if target is None or loss.call.options.get("ignore_index") == filling.value:
        return False
    if loss.weight is not None and loss.weight.dim() > 1:
        return False  # a weight for each place
    if not target.is_floating_point() and _weight_of(loss, filling.value) == 0:
        return False
    ignored = loss.call.options.get("ignore_index", -100)
    kept = target[target != ignored] if isinstance(ignored, int) and not target.is_floating_point() else target
    return float((kept == filling.value).float().mean()) > filling.share / 2 if kept.numel() else False


def _weight_of(loss: LossCall, value: float) -> float:
    """What a class weighs in the loss."""
    weight, place = loss.weight, int(value)
    return float(weight[place]) if weight is not None and weight.dim() == 1 and 0 <= place < len(weight) else 1.0


def _is_masked(trace: StepTrace, loss: LossCall) -> bool:
    """Whether what the loss gives for each place is weighed or picked from, before ``backward``."""
    if loss.name not in ("__getitem__", "gather", "mul", "sub", "where") and loss.reduction != "none":
        return _weighs_inputs(trace, loss)
    return any(met.call.index > loss.call.index and _leaves_out(met) for met in _after(trace))


def _after(trace: StepTrace) -> list[LossCall]:
    """What weighs or picks, on the way to ``backward``."""
    return [*weights(trace), *(meeting.loss for meeting in meetings(trace) if meeting.loss.name == "__getitem__")]


def _leaves_out(met: LossCall) -> bool:
    """Whether a loss's values are picked from, or some multiplied by zero."""
    name = met.name if met.name.startswith("__") else met.name.rstrip("_")
    times = name in ("mul", "multiply", "dot", "__rmul__")
    return name in MASKS and (not times or (met.target is not None and bool((met.target == 0).any())))


def _weighs_inputs(trace: StepTrace, loss: LossCall) -> bool:
    """Whether the prediction was multiplied by a mask before."""
    made = trace.origin(loss.input_number, loss.call.index)[1]
    return made is not None and any(met.call.index == made.index and _leaves_out(met) for met in trace.meetings)


def _tell(say: Say, loss: LossCall, filling: Filling, value: str) -> None:
    known = loss.name in ("cross_entropy", "nll_loss")
    code = f"loss_fn = torch.nn.CrossEntropyLoss(ignore_index={value})" if known else ""
    say.find(
        Cause.PADDING_IN_LOSS,
        Severity.WARNING,
        "The loss counts padding",
        f"Sequences are filled up with {value} at their ends ({filling.share:.0%} of all places), and the loss counts "
        "those places too. Predicting the filling is easy: the loss looks better than it is.",
        confidence=0.9,
        remedies=(
            Remedy("Leave padding out of the loss.", code=code),
            Remedy("Or take reduction='none', multiply by a mask and divide by its sum."),
        ),
        line=loss.call.line,
    )


CHECK = Check(
    "padding_in_loss",
    "padding does not count in the loss",
    judge,
    (Cause.PADDING_IN_LOSS,),
    parameters=(
        Parameter(SHARE, 0.15, "share of places at sequences' ends that may hold one value", 0.0, 1.0),
        Parameter(INSIDE, 0.02, "how rare it is elsewhere, of that share, if it is padding", 0.0, 1.0),
    ),
    source="torch.nn.CrossEntropyLoss: ignore_index specifies a target value that is ignored",
)
