"""Layers that are frozen though nothing was ever learnt in them: they stay random, and what is around them copes."""

from __future__ import annotations

from collections.abc import Sequence

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.freshness import State
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.wiring import (
    consumers,
    descendants,
    listed,
    moving,
    reached,
    state_of_layers,
    twins,
    weights_in,
    weights_of,
)
from nbdebug.records.commands import Freeze
from nbdebug.records.findings import Cause, Remedy, Severity

SHARE = "frozen_fresh_share"
DEEP = 4  # frozen random layers that nobody has on purpose; a reservoir has one or two


def judge(look: Look, say: Say) -> None:
    """What takes part in the first step, does not learn, and did not move."""
    used = [name for name in look.parameters if name in look.used]
    moved = moving(look)
    frozen = [name for name in used if not look.parameters[name].requires_grad and name not in moved]
    if not used:
        say.skip("no parameter takes part in the step's calls")
    if len(frozen) == len(used) and not _something_learns(look):
        _tell_all(look, say, frozen)
        return
    fresh = _fresh_layers(look, say, frozen) if frozen else ()
    random = [name for name in frozen if look.layer_of(name) in fresh and _is_among_learning(look, name)]
    share = weights_in(look, random) / max(1, weights_in(look, used))
    held = [name for name in random if name in look.optimized]
    is_off = say.measure("share of the weights that is frozen and looks as it was drawn", share, SHARE)
    if is_off and (held or len(fresh) >= DEEP):
        _tell(look, say, held or random, share, is_held=bool(held))
    elif random:
        say.note(f"{listed(random)} are frozen as they were drawn, and in no optimizer: on purpose, it seems")


def _something_learns(look: Look) -> bool:
    """Whether there is anything else to learn, as a picture that is drawn by gradient descent."""
    optimizers = look.optimizers.values()
    held = (each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"])
    return bool(reached(look)) or any(each.requires_grad for each in held)


def _fresh_layers(look: Look, say: Say, frozen: Sequence[str]) -> tuple[str, ...]:
    """Layers that look drawn; copies of others are targets or teachers, and frozen for that."""
    layers = tuple(dict.fromkeys(look.layer_of(name) for name in frozen))
    states = {layer: state_of_layers(look, say.step, [layer]) for layer in layers}
    own = {layer: [name for name in frozen if look.layer_of(name) == layer] for layer in layers}
    if any(twins(look, name) for names in own.values() for name in names):
        return ()
    if State.TRAINED in states.values():  # of a loaded network what looks drawn was loaded too, unless it is the head
        with_weights = [name for call in look.trace.calls for name in weights_of(look.trace, call)]
        head = look.layer_of(with_weights[-1]) if with_weights else ""
        states = {layer: state for layer, state in states.items() if layer == head}
    return tuple(layer for layer, state in states.items() if state is State.FRESH)


def _is_among_learning(look: Look, name: str) -> bool:
    """Whether something that learns lies before or behind it: a target that is only compared with has neither."""
    trace, users = look.trace, consumers(look.trace)
    numbers = [number for number, value in trace.values.items() if value.source == f"weight {name}"]
    for call in (call for number in numbers for call in users.get(number, [])):
        around = [*descendants(users, call), *(each for number in call.outputs for each in trace.ancestors(number))]
        if any(look.parameters[other].requires_grad for each in around for other in weights_of(trace, each)):
            return True
    return not trace.has_calls


def _tell_all(look: Look, say: Say, frozen: Sequence[str]) -> None:
    say.measure("share of the weights that is frozen", 1.0, SHARE)
    say.find(
        Cause.FROZEN_PARAMETERS,
        Severity.CRITICAL,
        "Every parameter is frozen",
        f"All {len(frozen)} parameters that take part in the step have requires_grad=False ({listed(frozen)}), and "
        "nothing else is there to learn: backward has nothing to do, and no step can change the model.",
        layers=tuple(dict.fromkeys(look.layer_of(name) for name in frozen)),
        remedies=_remedies(look, frozen),
    )


def _tell(look: Look, say: Say, names: Sequence[str], share: float, *, is_held: bool) -> None:
    layers = tuple(dict.fromkeys(look.layer_of(name) for name in names))
    why = (
        "though an optimizer holds them"
        if is_held
        else "and no optimizer holds them, as one does with a trained network"
    )
    say.find(
        Cause.FROZEN_PARAMETERS,
        Severity.CRITICAL if is_held and share > 0.5 else Severity.WARNING,
        "Layers are frozen at random weights",
        f"{listed(names)} have requires_grad=False, {why}. Their weights look as they were drawn, not as something "
        f"learnt ({share:.0%} of the weights in use), so the rest has to work with random features.",
        confidence=0.95 if is_held else 0.6,
        layers=layers,
        remedies=(*_remedies(look, names), Remedy("If they should be pretrained: load their weights before training.")),
    )


def _remedies(look: Look, names: Sequence[str]) -> tuple[Remedy, ...]:
    layers = tuple(dict.fromkeys(look.layer_of(name) for name in names))
    wanted = [f"{look.code_name(layer)}.requires_grad_(True)" for layer in layers[:4]]
    return (Remedy("Let them learn.", command=Freeze(False, tuple(filter(None, layers))), code="\n".join(wanted)),)


CHECK = Check(
    "frozen_parameters",
    "what is frozen has learnt something before",
    judge,
    (Cause.FROZEN_PARAMETERS,),
    parameters=(Parameter(SHARE, 0.0, "share of the weights that may be frozen as they were drawn", 0.0, 1.0),),
    source="37 reasons why your neural network is not working: check for frozen layers",
)
