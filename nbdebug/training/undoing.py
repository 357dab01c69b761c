"""What takes an exchange of parts back: commands of the same sort, made for how things are now. Pure but for reading.

Nothing goes back in time: weights and steps stay, and what a part learns meanwhile stays learnt. So a return is a
change like any other, which can be gone back over, repeated and written into a script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from nbdebug.records.commands import (
    Changes,
    EditNorms,
    Freeze,
    Refit,
    SetAverage,
    SetKnobs,
    SetSchedule,
    SplitDecay,
    SwapActivations,
    SwapOptimizer,
)
from nbdebug.records.errors import CommandError
from nbdebug.training import surgery
from nbdebug.training.averaging import Ema, Rule
from nbdebug.training.optimizer_options import OPTION_NAMES, plain, taken_apart
from nbdebug.training.optimizers import carried_options, conversion_mistakes, kind_of
from nbdebug.training.refit_schedule import Present
from nbdebug.training.script_refit import constants
from nbdebug.training.script_scene import Scene
from nbdebug.training.surgery import Activation, Change, Plan
from nbdebug.training.surgery_activations import KINDS
from nbdebug.training.surgery_norms import NORM
from nbdebug.training.surgery_slots import Held, Mode

if TYPE_CHECKING:
    from nbdebug.training.session import Session

Inverse = tuple[Refit | SetKnobs, ...]
OF_A_NAME = {kind.__name__.lower(): name for name, kind in KINDS.items()}


@dataclass(frozen=True)
class Exchange:
    """An exchange that was made, and what it found: knobs, schedule, average, the rate and decay of each parameter.

    ``step`` is where; ``rates`` are those right after, by optimizer; ``plan`` is that of layers.
    """

    command: Refit
    step: int
    scene: Scene
    schedule: Present
    rule: Rule | None
    decays: Mapping[int, float]
    rates: Mapping[str, tuple[float, ...]]
    plan: Plan | None


def witnessed(session: Session, command: Refit) -> Callable[[], Exchange]:
    """Look at what is in use before an exchange; call what this returns right after it."""
    refitter, trainer = session.refitter, session.trainer
    scene, present, average = Scene.of(session.knobs), refitter.schedules.present, refitter.average
    decays = {
        id(parameter): float(group["weight_decay"])
        for optimizer in trainer.optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
        if isinstance(command, SplitDecay)
    }
    step = session.loop.step

    def after() -> Exchange:
        rates = {name: _rates_of(optimizer) for name, optimizer in trainer.optimizers.items()}
        rule = average.rule if average is not None else None
        return Exchange(command, step, scene, present, rule, decays, rates, refitter.plan)

    return after


def inverse(session: Session, made: Exchange) -> Inverse:
    """The commands that take it back, in their order.

    Raises:
        CommandError: there is no way back from here, and which other way there is.
    """
    try:
        return _inverse(session, made)
    except CommandError as error:
        raise CommandError(
            f"{made.command} can't be taken back: {error}; rewind({made.step}) goes back to before it. Undo again for "
            "the change before it"
        ) from None


def _inverse(session: Session, made: Exchange) -> Inverse:
    match made.command:
        case SwapOptimizer():
            return _swap_back(session, made)
        case SetSchedule():
            before = made.schedule
            return (SetSchedule(before.schedule, before.done, before.given),)
        case SwapActivations():
            return _activations_back(made)
        case Freeze():
            return (_thaw(session, made),)
        case SetAverage():
            return (_average_back(made),)
        case EditNorms(insert=True):
            assert made.plan is not None
            return (EditNorms(False, tuple(f"{change.layer}.{NORM}" for change in made.plan.changes)),)
        case EditNorms():
            raise CommandError("the layers have gone on without the norms, and insert_norms() puts new ones")
        case SplitDecay():
            return (SetKnobs(Changes(options={"weight_decay": _decays_back(session, made)})),)


# -- optimizers -----------------------------------------------------------------------------------------------------


def _swap_back(session: Session, made: Exchange) -> Inverse:
    """Each optimizer that was swapped, then what can only be said by group."""
    swaps: list[Refit] = []
    by_group: dict[str, Any] = {}
    for name, old in made.scene.trainer.optimizers.items():
        if isinstance(made.command, SwapOptimizer) and made.command.name not in ("", name):
            continue
        present = session.trainer.optimizers[name]
        kind = kind_of(old)
        if kind is None:
            raise CommandError(f"an optimizer can't be swapped to {type(old).__name__}")
        options, own = _options_back(present, old, name, made.scene)
        rates = _rates_back(present, old, made.rates[name])
        mistakes = conversion_mistakes(present, kind, rates, options)
        if mistakes:
            raise CommandError("; ".join(mistakes))
        swaps.append(SwapOptimizer(str(kind), rates, options, name))
        by_group |= own
    factors = _factors_back(session, made)
    if by_group or factors:
        return (*swaps, SetKnobs(Changes(lr=factors or None, options=by_group or None)))
    return tuple(swaps)


def _options_back(
    present: Optimizer, old: Optimizer, name: str, scene: Scene
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Options that a conversion would not come to by itself: for all groups, and those that differ between them."""
    kind = kind_of(old)
    assert kind is not None
    if len(present.param_groups) != len(old.param_groups):
        raise CommandError("the optimizer has other parameter groups now")
    carried = [carried_options(present, group, kind) for group in present.param_groups]
    wanted = [
        {key: tuple(map(plain, v)) if isinstance(v, (tuple, list)) else plain(v) for key, v in group.items()}
        for group in old.param_groups
    ]
    names = [group.name for group in scene.groups if group.optimizer is old]
    options: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for key in carried[0]:
        if key.startswith("decoupled") and kind.value == "AdamW":
            continue
        if all(group.get(key) == has[key] for group, has in zip(wanted, carried, strict=True)):
            continue
        options[key] = wanted[0][key]
        if any(group[key] != wanted[0][key] for group in wanted):
            parts = [taken_apart({key: group[key]}) for group in wanted]
            for each in parts[0]:
                if each not in OPTION_NAMES:
                    raise CommandError(f"{each} was another in each parameter group")
                own[each] = {group: part[each] for group, part in zip(names, parts, strict=True)}
    return options, own


def _rates_back(present: Optimizer, old: Optimizer, after: tuple[float, ...]) -> tuple[float, ...]:
    """What the rates were; where a schedule has moved them since, as much of them as is left."""
    before, now = _rates_of(old), _rates_of(present)
    return tuple(
        was if is_now == right_after or not right_after else is_now * (was / right_after)
        for was, right_after, is_now in zip(before, after, now, strict=True)
    )


def _factors_back(session: Session, made: Exchange) -> dict[str, float]:
    """By group, the rate asked for, where a swap with a rate of its own took the factor off."""
    now = {group.name: group.factor for group in session.knobs.groups}
    return {g.name: g.asked for g in made.scene.groups if g.scheduled and now.get(g.name, g.factor) != g.factor}


def _rates_of(optimizer: Optimizer) -> tuple[float, ...]:
    return tuple(float(group["lr"]) for group in optimizer.param_groups if "lr" in group)


def _decays_back(session: Session, made: Exchange) -> dict[str, float]:
    """By group, the decay that its parameters had; the groups stay apart."""
    found = {}
    for group in session.knobs.groups:
        held = next(iter(group.options["params"]), None)
        if held is not None and id(held) in made.decays:
            found[group.name] = made.decays[id(held)]
    return found


# -- layers ---------------------------------------------------------------------------------------------------------


def _activations_back(made: Exchange) -> Inverse:
    """A command for each sort of activation that there was."""
    assert made.plan is not None
    sorts: dict[tuple[str, tuple[tuple[str, Any], ...]], list[str]] = {}
    unknown = []
    for change in made.plan.changes:
        old = _old_activation(change)
        name = OF_A_NAME.get((type(old).__name__ if isinstance(old, nn.Module) else old.__name__).lower())
        if name is None or (isinstance(old, nn.Module) and type(old) is not KINDS[name]):
            unknown.append(f"{change.layer} was {type(old).__name__}, which is none of {', '.join(Activation)}")
            continue
        options = _made_with(old, _new_activation(change)) if isinstance(old, nn.Module) else ()
        sorts.setdefault((str(name), options), []).append(change.layer)
    if unknown:
        raise CommandError("; ".join(unknown))
    return tuple(SwapActivations(kind, tuple(layers), dict(options)) for (kind, options), layers in sorts.items())


def _old_activation(change: Change) -> Any:
    """The module or function that was there."""
    befores = [setting.before for setting in change.settings if isinstance(setting.slot, Held)]
    return next(before for before in befores if isinstance(before, nn.Module) or callable(before))


def _new_activation(change: Change) -> Any:
    """The module that took its place."""
    return next(setting.after for setting in change.settings if isinstance(setting.after, nn.Module))


def _made_with(old: nn.Module, new: nn.Module) -> tuple[tuple[str, Any], ...]:
    """What makes it another than by default; all where only that tells it from the new one."""
    made: Any = type(old)
    usual = {} if type(old) is type(new) else constants(made())
    return tuple((name, value) for name, value in constants(old).items() if value != usual.get(name))


def _thaw(session: Session, made: Exchange) -> Freeze:
    """The other way round, for exactly what was changed; named by layers where that is the same."""
    assert isinstance(made.command, Freeze) and made.plan is not None
    command, settings = made.command, list(made.plan.settings)
    places = tuple(setting.place for setting in settings)
    held = any(isinstance(setting.slot, Mode) for setting in settings)
    simple = Freeze(not command.frozen, command.layers, held and not command.frozen)
    layers = list(command.layers) or None
    if simple.frozen:
        planned = surgery.plan_freeze(session.model, layers, hold_statistics=simple.hold_statistics)
    else:
        planned = surgery.plan_unfreeze(session.model, layers)
    same = command.layers and {setting.place for setting in planned.settings} == set(places)
    return simple if same else Freeze(not command.frozen, only=places)


def _average_back(made: Exchange) -> SetAverage:
    assert isinstance(made.command, SetAverage)
    if made.rule is None:
        return SetAverage("")
    if not made.command.kind:
        raise CommandError("the average that was ended is gone, and average() begins another")
    if isinstance(made.rule, Ema):
        return SetAverage("ema", made.rule.decay)
    return SetAverage("swa", start=made.rule.start, every=made.rule.every)
