"""A network that predicts the next element sees it: no causal mask, both directions, or a target that is not shifted.

Asked of the network itself: later inputs are changed, and earlier outputs must stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import LossCall, ModelCall
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.stops import CodeLine
from nbdebug.training.aside import copied
from nbdebug.training.modules import evaluating, roots

MATCH = "shifted_target_match"
CHANGE = "change_from_the_future"
SHIFTS = (1, 2, 3, 0)
ATTENTIONS = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
MASKED = frozenset({"masked_fill", "softmax", "where"})
CHANCE = 1e-5
SHORTEST, MOST_ALIKE = 4, 0.6


@dataclass(frozen=True, slots=True)
class Shifted:
    """A network's call whose input, moved on by ``by`` places along dimension ``time``, is the loss's target."""

    call: ModelCall
    name: str
    time: int
    by: int


def judge(look: Look, say: Say) -> None:
    """The first step's calls and losses."""
    bench = look.experiments
    found = next(_shifted(look, say), None)
    if found is None:
        say.skip("no loss compares with the network's own input, moved on by a place")
    assert found is not None
    with bench.fresh():
        change = _change(look, found)
    if change is None:
        say.skip("the network can't be asked with other inputs")
    assert change is not None
    sees = say.measure("change of earlier outputs, as later inputs change", change, CHANGE)
    if found.by and sees:
        _tell_future(look, found, say)
    elif not found.by and not sees:
        _tell_unshifted(found, say)


def _shifted(look: Look, say: Say) -> Iterator[Shifted]:
    trace = look.called
    losses = [loss for loss in trace.losses if loss.target is not None]
    for call in trace.models:
        for name, tensor in leaves((call.args, call.kwargs), ""):
            for loss in losses:
                for time in (1, 0) if 2 <= tensor.dim() <= 3 else ():
                    for by in SHIFTS:
                        if _is_shifted(tensor, loss, time, by, say):
                            yield Shifted(call, name, time, by)


def _is_shifted(tensor: torch.Tensor, loss: LossCall, time: int, by: int, say: Say) -> bool:
    """Whether the target is the input, moved on; padding and what the loss ignores are not looked at."""
    target, longest = loss.target, tensor.shape[time]
    if target is None or longest < SHORTEST or tensor.shape[1 - time] < 2:
        return False
    if target.is_floating_point() != tensor.is_floating_point() or (by == 0 and target.is_floating_point()):
        return False
    shape, later = list(tensor.shape), tensor.narrow(time, by, longest - by)
    if target.numel() == tensor.numel():
        aimed = target.reshape(shape).to(tensor.device).narrow(time, 0, longest - by)
    elif target.numel() == later.numel():
        aimed = target.reshape(later.shape).to(tensor.device)
    else:
        return False
    ignored = loss.call.option("ignore_index", 0, -100)
    kept = aimed != ignored if isinstance(ignored, int) else torch.ones_like(aimed, dtype=torch.bool)
    if by == 0 and not bool(kept.all()):
        return False  # parts of the input are asked for, as in masked language models
    if int(kept.sum()) < SHORTEST * 4:
        return False
    alike = float((later[kept] == aimed[kept]).double().mean())
    still = float((tensor.narrow(time, 1, longest - 1) == tensor.narrow(time, 0, longest - 1)).double().mean())
    return still < MOST_ALIKE and say.measure(f"share of targets that are the input {by} places on", alike, MATCH)


def _change(look: Look, found: Shifted) -> float | None:
    """How much outputs before the middle change as inputs after it are dealt out anew, over their deviation."""
    root = roots(look.model)[found.call.root]
    source = dict(leaves((found.call.args, found.call.kwargs), ""))[found.name]
    middle = source.shape[found.time] // 2
    other = source.clone()
    tail = other.narrow(found.time, middle, source.shape[found.time] - middle)
    tail.copy_(tail.roll(1, 1 - found.time).flip(found.time))
    outputs = [_asked(look, root, found, given) for given in (source, source, other)]
    if any(output is None for output in outputs):
        return None
    laid = [_by_time(output, source, found.time) for output in outputs if output is not None]
    if any(each is None for each in laid):
        return None
    before, again, after = (each.narrow(found.time, 0, middle).double() for each in laid if each is not None)
    spread = before.std().clamp(min=1e-12)
    if float((again - before).abs().max() / spread) > CHANCE:
        return None  # it remembers, or draws: the same inputs give something else
    return float((after - before).abs().max() / spread)


def _asked(look: Look, root: nn.Module, found: Shifted, given: torch.Tensor) -> torch.Tensor | None:
    """The network's output on the call's arguments with this tensor in its place."""
    args, kwargs = _with(found.call, found.name, given)
    with evaluating(look.model), _own_randomness():
        output = root(*args, **kwargs)
    return next((tensor.detach() for _, tensor in leaves(output) if tensor.is_floating_point()), None)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """What the network draws, it draws alike each time; the bench puts the generators back."""
    torch.manual_seed(0)
    yield


def _with(call: ModelCall, name: str, given: torch.Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Copies of a call's arguments, with the tensor of this name changed."""
    args, kwargs = copied(call.args), copied(call.kwargs)
    dict(leaves((args, kwargs), ""))[name].copy_(given)
    return args, kwargs


def _by_time(output: torch.Tensor, source: torch.Tensor, time: int) -> torch.Tensor | None:
    """The output with its first two dimensions as the input has them, from rows laid out or (batch, classes, time)."""
    places = source.shape[:2]
    if output.shape[:2] == places:
        return output
    if output.dim() >= 2 and output.shape[0] == places[0] * places[1]:
        return output.reshape(*places, *output.shape[1:])
    if output.dim() == 3 and time == 1 and (output.shape[0], output.shape[2]) == tuple(places):
        return output.transpose(1, 2)
    return None


def _seen_at(look: Look) -> CodeLine | None:
    """Where the first attention is masked, or taken; a square of scores before a softmax is one by hand."""
    trace = look.trace
    for call in trace.calls:
        shape = trace.values[call.outputs[0]].shape if call.outputs else ()
        is_square = len(shape) >= 3 and shape[-1] == shape[-2]
        if call.name in ATTENTIONS or (call.name.strip("_") in MASKED and is_square):
            return call.line
    return None


def _tell_future(look: Look, found: Shifted, say: Say) -> None:
    say.find(
        Cause.TARGET_LEAKAGE,
        Severity.CRITICAL,
        "The network sees what it is to predict",
        f"The target is the input {found.by} place{'s' if found.by > 1 else ''} further on, and outputs before the "
        "middle of a sequence change when only inputs after it are changed. So each output may depend on its own "
        "target: the loss will fall to almost nothing, and the network can't continue a sequence.",
        confidence=0.97,
        layers=(found.call.root,) if found.call.root else (),
        line=_seen_at(look),
        remedies=(
            Remedy(
                "Mask the future in every attention layer.",
                code="mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])\n"
                "# or F.scaled_dot_product_attention(q, k, v, is_causal=True)",
            ),
            Remedy("Recurrent layers: one direction only. Convolutions: pad on the left only."),
        ),
    )


def _tell_unshifted(found: Shifted, say: Say) -> None:
    say.find(
        Cause.TARGET_LEAKAGE,
        Severity.CRITICAL,
        "The target is the input, not the next one",
        "The loss compares each output with the very element that the network was given at that place, while the "
        "network is built to look backwards only, as for predicting the next one. It will learn to copy.",
        confidence=0.85,
        remedies=(Remedy("Shift the target by one.", code="x, y = tokens[:, :-1], tokens[:, 1:]"),),
    )


CHECK = Check(
    "future_leakage",
    "a predicted element is not among the inputs",
    judge,
    (Cause.TARGET_LEAKAGE,),
    parameters=(
        Parameter(
            MATCH, 0.95, "share of targets that equal the shifted input, from which they are taken for it", 0.5, 1.0
        ),
        Parameter(CHANGE, 1e-3, "change of an output by later inputs, in deviations, that is rounding", 0.0, 1.0),
    ),
    source="Karpathy, A recipe for training neural networks (2019): use backprop to chart dependencies",
    passive=False,
)
