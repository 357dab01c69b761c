"""The path from the loss to weights that should learn ends before it comes to them: detach, no_grad, argmax, numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.freshness import State
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Call, StepTrace
from nbdebug.checks.preflight.wiring import (
    consumers,
    listed,
    moving,
    reached,
    state_of_layers,
    twins,
    weights_in,
    weights_of,
)
from nbdebug.records.findings import Cause, Remedy, Severity

SHARE = "detached_share"
CUTS = frozenset({"detach", "detach_", "data.__get__"})
STEPS = frozenset(
    {"argmax", "argmin", "argsort", "topk", "multinomial", "bucketize", "searchsorted", "long", "int", "bool"}
)
COMPARES = frozenset({"gt", "lt", "ge", "le", "eq", "ne", "__gt__", "__lt__", "__ge__", "__le__", "__eq__", "__ne__"})
BORN = frozenset({"tensor", "as_tensor", "asarray", "from_numpy"})


@dataclass(slots=True)
class Cut:
    """A call behind which weights are out of the loss's reach, and which; no ``call`` if they leave torch."""

    call: Call | None
    names: list[str] = field(default_factory=list)


def judge(look: Look, say: Say) -> None:
    """What took part in the forward and wants to learn, against what the loss's graph ends in."""
    trace = look.called
    met = reached(look)
    used = [name for name in look.parameters if name in look.used and look.parameters[name].requires_grad]
    if not trace.backwards:
        _judge_without(look, say, met)
        return
    if not used:
        say.skip("no trainable parameter takes part in the step's calls")
    strangers = any(backward.strangers for each in look.traces for backward in each.backwards)
    if not met and not strangers and not _learns_else(look):
        _tell_nothing(look, say, used)
        return
    lost = [name for name in used if name not in met and _should_learn(look, name)]
    cuts, aside = _cuts(trace, lost)
    lost = [name for cut in cuts for name in cut.names]
    layers = {look.layer_of(name) for name in lost}
    trained = bool(lost) and state_of_layers(look, say.step, layers) is State.TRAINED
    share = weights_in(look, lost) / max(1, weights_in(look, used))
    off = say.measure("share of the weights in use that the loss does not reach, behind a cut", share, SHARE)
    if off and not trained:
        _tell(look, say, cuts, lost, share)
    elif trained:
        say.note(f"the loss does not reach {listed(lost)}, which look trained already: on purpose, it seems")
    if aside:
        say.note(f"{listed(aside)} put something out that the loss makes no use of")


def _learns_else(look: Look) -> bool:
    """Whether the graph ends in something of an optimizer's that is no parameter of the model."""
    trace = look.trace
    return any(
        trace.values[number].source.startswith("held") and trace.values[number].learns
        for backward in trace.backwards
        for call in trace.ancestors(backward.number, backward.index)
        for number in call.inputs
    )


def _should_learn(look: Look, name: str) -> bool:
    """Held by an optimizer that took a step, not moved by other means (an average), and no copy of what learns."""
    parameter = look.parameters[name]
    stepped = {update.optimizer for trace in look.traces for update in trace.updates}
    holders = [
        key
        for key, optimizer in look.optimizers.items()
        if any(each is parameter for group in optimizer.param_groups for each in group["params"])
    ]
    is_its_turn = len(look.optimizers) == 1 or any(key in stepped for key in holders)
    copied = any(other in reached(look) for other in twins(look, name))
    return bool(holders) and is_its_turn and name not in moving(look) and not copied


def _cuts(trace: StepTrace, lost: Sequence[str]) -> tuple[list[Cut], list[str]]:
    """Where the path to these parameters ends, and those whose output the loss makes no use of."""
    way = {call.index: call for each in trace.backwards for call in trace.ancestors(each.number, each.index)}
    users = consumers(trace)
    numbers = {value.source.removeprefix("weight "): number for number, value in trace.values.items()}
    found: dict[int | None, Cut] = {}
    aside = []
    for name in lost:
        uses = [call for call in users.get(numbers.get(name, -1), []) if call.index in way]
        if uses:
            call = _cut(trace, list(way.values()), uses[0])
            found.setdefault(call.index, Cut(call)).names.append(name)
        elif _left_torch(trace, name, list(way.values())):
            found.setdefault(None, Cut(None)).names.append(name)
        else:
            aside.append(name)
    return list(found.values()), aside


def _cut(trace: StepTrace, way: Sequence[Call], use: Call) -> Call:
    """The last call on the way that is given something that learns and gives on what does not, behind this use."""
    behind = {number for number in use.outputs}
    cut = use
    for call in sorted(way, key=lambda each: each.index):
        if call.index == use.index or not behind.isdisjoint(call.inputs):
            behind.update(call.outputs)
            given = any(trace.values[number].learns for number in call.inputs)
            if given and not any(trace.values[number].learns for number in call.outputs):
                cut = call
    return cut


def _left_torch(trace: StepTrace, name: str, way: Sequence[Call]) -> bool:
    """Whether what these weights gave was read out, and what the loss depends on was made from plain numbers later."""
    read = [
        call
        for call in trace.exits
        if any(name in weights_of(trace, each) for number in call.inputs for each in trace.ancestors(number))
        and any(_is_wide(trace, number) for number in call.inputs)
    ]
    born = [number for call in way for number in call.inputs if _is_born(trace, number)]
    places = [(trace.producer(number) or _first_use(way, number)).index for number in born]
    return any(call.index <= place for call in read for place in places)


def _is_wide(trace: StepTrace, number: int) -> bool:
    size = 1
    for each in trace.values[number].shape:
        size *= each
    return size > 1


def _is_born(trace: StepTrace, number: int) -> bool:
    """A tensor of fractions that came from nowhere: from numbers, or from numpy."""
    value = trace.values[number]
    made = trace.producer(number)
    from_numbers = made is not None and made.name in BORN and not made.inputs
    return value.dtype.is_floating_point and not value.source and (made is None or from_numbers) and bool(value.shape)


def _first_use(way: Sequence[Call], number: int) -> Call:
    return min((call for call in way if number in call.inputs), key=lambda call: call.index)


def _how(trace: StepTrace, call: Call | None) -> str:
    """What a cut does, in words."""
    if call is None:
        return "what they give leaves torch (numpy, tolist or item) and comes back as a new tensor without a history"
    if call.name in CUTS:
        return "a detach (or .data) ends the path there"
    whole = not any(trace.values[number].dtype.is_floating_point for number in call.outputs)
    if call.name in STEPS or call.name in COMPARES or whole:
        return f"{call.name} has no gradient: what it gives is a choice, not a quantity"
    return f"{call.name} runs there without gradients, as under torch.no_grad() or set_grad_enabled(False)"


def _tell(look: Look, say: Say, cuts: Sequence[Cut], lost: Sequence[str], share: float) -> None:
    cut = max(cuts, key=lambda each: weights_in(look, each.names))
    layers = tuple(dict.fromkeys(look.layer_of(name) for name in lost))
    place = f" in {look.code_name(cut.call.layer)}" if cut.call is not None and cut.call.layer else ""
    line = cut.call.line if cut.call is not None else None
    text = f" ({line.code})" if line is not None and line.code else ""
    say.find(
        Cause.DETACHED_GRAPH,
        Severity.CRITICAL if share >= 0.3 else Severity.WARNING,
        "The loss does not reach part of the model",
        f"{listed(lost)} take part in the forward and are in the optimizer, but get no gradient ({share:.0%} of the "
        f"trainable weights in use): {_how(look.trace, cut.call)}{place}{text}. They stay as they were initialised.",
        confidence=0.95 if cut.call is not None else 0.85,
        layers=layers,
        remedies=(
            Remedy("Let the path go through: take the detach, no_grad or conversion away, or use the soft form."),
            Remedy("If they should not learn, leave them out of the optimizer and freeze them."),
        ),
        line=line,
    )


def _tell_nothing(look: Look, say: Say, used: Sequence[str]) -> None:
    trace = look.trace
    say.measure("share of the weights in use that the loss does not reach, behind a cut", 1.0, SHARE)
    backward = trace.backwards[0]
    way = list(trace.ancestors(backward.number, backward.index))
    weights = [call for call in way if weights_of(trace, call)]
    cut = _cut(trace, way, min(weights, key=lambda call: call.index)) if weights else None
    how = _how(trace, cut) if cut is not None else "the tensor that backward is called on was not made by the model"
    say.find(
        Cause.DETACHED_GRAPH,
        Severity.CRITICAL,
        "The loss hangs on no parameter",
        f"backward is called, but its graph reaches none of the {len(used)} parameters that took part in the forward: "
        f"{how}. No weight gets a gradient, so nothing is learnt.",
        layers=(cut.layer,) if cut is not None and cut.layer else (),
        remedies=(
            Remedy("Call backward on the loss that the loss function gave, computed from the model's own output."),
            Remedy("Take detach(), .data, .item(), numpy() and torch.tensor(...) off the way from the output to it."),
        ),
        line=cut.line if cut is not None else None,
    )


def _judge_without(look: Look, say: Say, met: frozenset[str]) -> None:
    """No backward was seen: then gradients come from elsewhere, or there are none."""
    updates = [update for trace in look.traces for update in trace.updates]
    if met or look.trace.error is not None or not updates or any(update.norms for update in updates):
        say.skip("no call of backward was seen")
    if moving(look):
        say.skip("the parameters are moved by other means than gradients")
    say.find(
        Cause.PARAMETERS_NOT_UPDATING,
        Severity.CRITICAL,
        "backward is never called",
        "The optimizer takes its step, but no parameter has a gradient then: the step never calls loss.backward().",
        remedies=(Remedy("Call it before the optimizer's step.", code="loss.backward()"),),
    )


CHECK = Check(
    "detached_graph",
    "the loss reaches every parameter that should learn",
    judge,
    (Cause.DETACHED_GRAPH, Cause.PARAMETERS_NOT_UPDATING),
    parameters=(Parameter(SHARE, 0.0, "share of the trainable weights in use that the loss may not reach", 0.0, 1.0),),
    source="torch.autograd: what is detached or computed under no_grad has no path back",
)
