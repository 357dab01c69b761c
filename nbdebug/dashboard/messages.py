"""A browser's messages → commands. Pure; any thread. What makes no sense is a line in the log, and no command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nbdebug.records.commands import (
    AddBreakpoint,
    ApplyRemedy,
    Changes,
    Checkout,
    Clip,
    ClipMode,
    Command,
    Compare,
    DeleteRun,
    DropSnapshot,
    EditBreakpoint,
    EditNorms,
    EditRun,
    FindLr,
    Foretell,
    Freeze,
    InitScheme,
    Pause,
    PostMortem,
    Press,
    Reinitialize,
    RemoveBreakpoint,
    Rerun,
    Resume,
    Rewind,
    RunPreflight,
    Search,
    SetAverage,
    SetKnobs,
    SetSchedule,
    Skip,
    SplitDecay,
    Start,
    StartPoint,
    Step,
    Stop,
    SwapActivations,
    SwapOptimizer,
    TakeSnapshot,
    TryRemedy,
    Undo,
)
from nbdebug.records.errors import ConfigurationError
from nbdebug.records.optimizers import OptimizerKind
from nbdebug.records.schedules import Schedule
from nbdebug.records.search import SearchEngine

T = TypeVar("T")

log = logging.getLogger(__name__)

LARGEST_SEED = 2**32 - 1
LARGEST_STEP = 10**12
LONGEST_TITLE = 200
LONGEST_NOTE = 2_000
LONGEST_NAME = 1_000
LONGEST_CONDITION = 1_000
MOST_BREAKPOINTS = 10**9
LOWEST_RATE, HIGHEST_RATE = 1e-12, 1e6
FEWEST_RATES, MOST_RATES = 10, 10_000
LARGEST_VALUE = 1e300
MOST_LAYERS = 100_000
MOST_OPTIONS = 32
NO_SCHEDULE = "none"
FEWEST_SEEDS = 3
MOST_SEEDS = 12
MOST_KNOBS = 32
MORE_NUMBERS = ("batch_size", "accumulate", "label_smoothing", "gradient_noise", "loss_weights")
MOST_VALUES = 500
MOST_TRIALS = 500
MOST_RUNGS = 100


class GarbledError(ValueError):
    """A message from the browser that makes no sense; says what and where."""


def decode(message: object) -> Command | None:
    """The command that a browser's message asks for; ``None``, and a warning in the log, if it makes no sense."""
    try:
        return _decode(message)
    except GarbledError as error:
        log.warning("nbdebug: ignored a message from the dashboard: %s", error)
        return None


def _decode(message: object) -> Command:
    if not isinstance(message, Mapping):
        raise GarbledError(f"not a mapping: {message!r:.80}")
    name = message.get("command")
    maker = _MAKERS.get(name) if isinstance(name, str) else None
    if maker is None:
        raise GarbledError(f"unknown command {name!r:.80}")
    return maker(message)


def _number(message: Mapping[Any, Any], key: str, low: float, high: float) -> float:
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GarbledError(f"{key} {value!r:.80} is no number")
    if not low <= value <= high:
        raise GarbledError(f"{key} {value!r:.80} is not between {low:g} and {high:g}")
    return float(value)


def _whole(message: Mapping[Any, Any], key: str, low: int, high: int) -> int:
    value = _number(message, key, low, high)
    if value != int(value):
        raise GarbledError(f"{key} {value!r} is no whole number")
    return int(value)


def _text(message: Mapping[Any, Any], key: str, longest: int = LONGEST_NAME) -> str:
    value = message.get(key, "")
    if not isinstance(value, str):
        raise GarbledError(f"{key} {value!r:.80} is no text")
    if len(value) > longest:
        raise GarbledError(f"{key} has {len(value):,} characters, {longest:,} are the most")
    return value


def _name(message: Mapping[Any, Any], key: str) -> str:
    value = _text(message, key)
    if not value:
        raise GarbledError(f"no {key} named")
    return value


def _flag(message: Mapping[Any, Any], key: str) -> bool:
    value = message.get(key)
    if not isinstance(value, bool):
        raise GarbledError(f"{key} {value!r:.80} is neither true nor false")
    return value


def _wish(message: Mapping[Any, Any], key: str) -> bool:
    """A flag that may be left out."""
    return key in message and _flag(message, key)


def _choice(message: Mapping[Any, Any], key: str, make: Callable[[str], T]) -> T:
    value = _text(message, key)
    try:
        return make(value)
    except ValueError:
        raise GarbledError(f"{key} {value!r:.80} is not known") from None


def _set_lr(message: Mapping[Any, Any]) -> Command:
    rate, group = _number(message, "value", 0.0, 1e6), _text(message, "group")
    return SetKnobs(Changes(lr={group: rate} if group else rate))


def _find_lr(message: Mapping[Any, Any]) -> Command:
    low, high = (_number(message, key, LOWEST_RATE, HIGHEST_RATE) for key in ("low", "high"))
    if low >= high:
        raise GarbledError(f"low {low:g} is not below high {high:g}")
    return FindLr(low, high, _whole(message, "steps", FEWEST_RATES, MOST_RATES))


def _search(message: Mapping[Any, Any]) -> Command:
    space = message.get("space")
    if not isinstance(space, Mapping) or not 0 < len(space) <= MOST_KNOBS:
        raise GarbledError(f"space {space!r:.80} is no mapping of a few knobs")
    by_epochs = _flag(message, "by_epochs")
    length = _whole(message, "length", 1, LARGEST_STEP)
    trials = None if message.get("trials") is None else _whole(message, "trials", 1, MOST_TRIALS)
    return Search(
        {str(name)[:LONGEST_NAME]: _values(values) for name, values in space.items()},
        length if by_epochs else None,
        None if by_epochs else length,
        trials,
        _whole(message, "seed", 0, LARGEST_SEED),
        _text(message, "measure"),
        _flag(message, "lower"),
        _flag(message, "prune"),
        str(_choice(message, "engine", SearchEngine)),
    )


def _values(values: object) -> list[Any] | tuple[float, float]:
    """A list of numbers, switches and nulls, or the ends of a range."""
    if isinstance(values, Mapping):
        low, high = (_number(values, key, -LARGEST_VALUE, LARGEST_VALUE) for key in ("low", "high"))
        if low >= high:
            raise GarbledError(f"low {low:g} is not below high {high:g}")
        whole = all(isinstance(values[key], int) for key in ("low", "high"))
        return (int(low), int(high)) if whole else (low, high)
    if not isinstance(values, list) or not 0 < len(values) <= MOST_VALUES:
        raise GarbledError(f"values {values!r:.80} are neither a list nor a range")
    for value in values:
        if value is not None and not isinstance(value, bool):
            _number({"value": value}, "value", -LARGEST_VALUE, LARGEST_VALUE)
    return list(values)


def _set_clip(message: Mapping[Any, Any]) -> Command:
    mode = _choice(message, "mode", ClipMode)
    threshold = _number(message, "threshold", 0.0, 1e12)
    if mode is not ClipMode.OFF and threshold == 0:
        raise GarbledError("threshold 0 would leave no gradient")
    return SetKnobs(Changes(clip=Clip(mode, threshold)))


def _set_dropout(message: Mapping[Any, Any]) -> Command:
    share, layer = _number(message, "value", 0.0, 1.0), _text(message, "layer")
    return SetKnobs(Changes(dropout={layer: share} if layer else share))


def _set_option(message: Mapping[Any, Any]) -> Command:
    """A whole number stays one: some options take no other."""
    name, value, group = _name(message, "name"), message.get("value"), _text(message, "group")
    if not isinstance(value, bool | int):
        value = _number(message, "value", -LARGEST_VALUE, LARGEST_VALUE)
    elif abs(value) > LARGEST_VALUE:
        raise GarbledError(f"value is not between {-LARGEST_VALUE:g} and {LARGEST_VALUE:g}")
    return SetKnobs(Changes(options={name: {group: value} if group else value}))


def _set_own(message: Mapping[Any, Any]) -> Command:
    return SetKnobs(Changes(own={_name(message, "name"): _number(message, "value", -LARGEST_VALUE, LARGEST_VALUE)}))


def _set_more(message: Mapping[Any, Any]) -> Command:
    """A knob that is one number; a whole one stays so."""
    name, value, part = _name(message, "name"), message.get("value"), _text(message, "part")
    if name not in MORE_NUMBERS:
        raise GarbledError(f"name {name!r:.80} is not known")
    number = _number(message, "value", -LARGEST_VALUE, LARGEST_VALUE)
    kept = value if isinstance(value, int) else number
    if name in ("batch_size", "accumulate"):
        kept = _whole(message, "value", 1, LARGEST_STEP)
    asked: dict[str, Any] = {name: {part: kept} if name == "loss_weights" else kept}
    return SetKnobs(Changes(**asked))


def _set_layer_clip(message: Mapping[Any, Any]) -> Command:
    mode, threshold = _choice(message, "mode", ClipMode), _number(message, "threshold", 0.0, 1e12)
    clip = Clip() if mode is ClipMode.OFF else Clip(mode, threshold)
    return SetKnobs(Changes(layer_clips={_name(message, "layer"): clip}))


def _average(message: Mapping[Any, Any]) -> Command:
    kind, decay = _text(message, "kind"), _number(message, "decay", 0.0, 1.0)
    if kind not in ("", "ema", "swa") or decay == 1.0:
        raise GarbledError(f"kind {kind!r:.80} with decay {decay:g} is no average")
    return SetAverage(kind, decay) if kind == "ema" else SetAverage(kind)


def _swap_optimizer(message: Mapping[Any, Any]) -> Command:
    rate = _number(message, "lr", 0.0, HIGHEST_RATE) if message.get("lr") is not None else None
    return SwapOptimizer(str(_choice(message, "kind", OptimizerKind)), rate)


def _set_schedule(message: Mapping[Any, Any]) -> Command:
    kind, options = _name(message, "kind"), message.get("options", {})
    if not isinstance(options, Mapping) or len(options) > MOST_OPTIONS:
        raise GarbledError(f"options {options!r:.80} are no mapping of a schedule's few numbers")
    if kind == NO_SCHEDULE:
        return SetSchedule(None)
    try:
        return SetSchedule(Schedule.of(kind, **{str(name)[:LONGEST_NAME]: value for name, value in options.items()}))
    except (ConfigurationError, TypeError) as error:
        raise GarbledError(f"no such schedule: {error!s:.500}") from None


def _layers(message: Mapping[Any, Any]) -> tuple[str, ...]:
    """The layers named; none mean all."""
    layers = message.get("layers", [])
    if not isinstance(layers, list | tuple) or len(layers) > MOST_LAYERS:
        raise GarbledError(f"layers {layers!r:.80} are no list of names")
    if not all(isinstance(each, str) and each and len(each) <= LONGEST_NAME for each in layers):
        raise GarbledError(f"layers {layers!r:.80} have one that is no name")
    return tuple(layers)


def _reinitialize(message: Mapping[Any, Any]) -> Command:
    return Reinitialize(_choice(message, "scheme", InitScheme), _whole(message, "seed", 0, LARGEST_SEED))


def _rerun(message: Mapping[Any, Any]) -> Command:
    return Rerun(_choice(message, "start", StartPoint), epochs=_whole(message, "epochs", 1, 1_000_000), keep_knobs=True)


def _checkout(message: Mapping[Any, Any]) -> Command:
    if "snapshot" in message:
        return Checkout(snapshot=_name(message, "snapshot"))
    return Checkout(_name(message, "run"))


def _edit_run(message: Mapping[Any, Any]) -> Command:
    title = " ".join(_text(message, "title", LONGEST_TITLE).split()) if "title" in message else None
    note = _text(message, "note", LONGEST_NOTE).strip() if "note" in message else None
    pinned = _flag(message, "pinned") if "pinned" in message else None
    if title is None and note is None and pinned is None:
        raise GarbledError("neither title nor note nor pinned: nothing to edit")
    return EditRun(_name(message, "run"), title, note, pinned)


def _add_breakpoint(message: Mapping[Any, Any]) -> Command:
    condition = _text(message, "condition", LONGEST_CONDITION).strip()
    if not condition:
        raise GarbledError("no condition named")
    return AddBreakpoint(condition)


def _breakpoint(message: Mapping[Any, Any]) -> int:
    return _whole(message, "number", 1, MOST_BREAKPOINTS)


_MAKERS: Mapping[str, Callable[[Mapping[Any, Any]], Command]] = {
    "run": lambda _: Start(),
    "pause": lambda _: Pause(),
    "resume": lambda _: Resume(),
    "step": lambda _: Step(),
    "preflight": lambda _: RunPreflight(),
    "try_remedy": lambda message: TryRemedy(_name(message, "cause"), _whole(message, "rung", 0, MOST_RUNGS)),
    "apply_remedy": lambda message: ApplyRemedy(_name(message, "cause"), _whole(message, "rung", 0, MOST_RUNGS)),
    "epoch": lambda _: Start(epochs=1),
    "stop": lambda _: Stop(),
    "skip": lambda _: Skip(),
    "post_mortem": lambda _: PostMortem(),
    "add_breakpoint": _add_breakpoint,
    "edit_breakpoint": lambda message: EditBreakpoint(_breakpoint(message), _flag(message, "enabled")),
    "remove_breakpoint": lambda message: RemoveBreakpoint(_breakpoint(message)),
    "set_lr": _set_lr,
    "find_lr": _find_lr,
    "search": _search,
    "foretell": lambda _: Foretell(),
    "set_clip": _set_clip,
    "set_dropout": _set_dropout,
    "set_option": _set_option,
    "set_own": _set_own,
    "set_more": _set_more,
    "set_layer_clip": _set_layer_clip,
    "average": _average,
    "press": lambda message: Press(_name(message, "name")),
    "undo": lambda _: Undo(),
    "swap_optimizer": _swap_optimizer,
    "split_decay": lambda _: SplitDecay(),
    "set_schedule": _set_schedule,
    "swap_activation": lambda message: SwapActivations(_name(message, "kind"), _layers(message)),
    "freeze": lambda message: Freeze(True, _layers(message), _wish(message, "hold")),
    "unfreeze": lambda message: Freeze(False, _layers(message)),
    "insert_norms": lambda message: EditNorms(True, _layers(message)),
    "remove_norms": lambda message: EditNorms(False, _layers(message), _wish(message, "fold")),
    "reinitialize": _reinitialize,
    "rerun": _rerun,
    "rewind": lambda message: Rewind(_whole(message, "step", 0, LARGEST_STEP)),
    "checkout": _checkout,
    "compare": lambda message: Compare(_name(message, "run"), _whole(message, "seeds", FEWEST_SEEDS, MOST_SEEDS)),
    "edit_run": _edit_run,
    "delete_run": lambda message: DeleteRun(_name(message, "run")),
    "take_snapshot": lambda message: TakeSnapshot(_text(message, "name", LONGEST_TITLE).strip()),
    "drop_snapshot": lambda message: DropSnapshot(_name(message, "name")),
}
