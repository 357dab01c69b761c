"""What a person can ask of a running session, and what became of it.

Commands are made on any thread, wait in the mailbox, and are applied by the training thread at a safe point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nbdebug.records.schedules import Schedule


class ClipMode(StrEnum):
    """How gradients are clipped before the update."""

    OFF = "off"
    NORM = "norm"
    VALUE = "value"


class InitScheme(StrEnum):
    """Weight initialisations, by the names of ``torch.nn.init`` where it has one."""

    DEFAULT = "default"
    XAVIER_UNIFORM = "xavier_uniform"
    XAVIER_NORMAL = "xavier_normal"
    KAIMING_UNIFORM = "kaiming_uniform"
    KAIMING_NORMAL = "kaiming_normal"
    LECUN_UNIFORM = "lecun_uniform"
    LECUN_NORMAL = "lecun_normal"
    ORTHOGONAL = "orthogonal"


class StartPoint(StrEnum):
    """Where a rerun begins, by name.

    The first step ever, the start of the last epoch run, the best epoch (lowest validation loss, or training loss
    without validation), or the place where the model is now, such as after a rewind.
    """

    START = "start"
    LAST_EPOCH = "last_epoch"
    BEST = "best"
    HERE = "here"


@dataclass(frozen=True, slots=True)
class Clip:
    """A clipping rule; ``threshold`` is a norm or an absolute value, and means nothing when off."""

    mode: ClipMode = ClipMode.OFF
    threshold: float = 1.0

    def __str__(self) -> str:
        return "off" if self.mode is ClipMode.OFF else f"{self.mode} {self.threshold:g}"


MOST_NAMED = 6  # in the words for a command
OptionValue = float | bool | Mapping[str, float | bool]


@dataclass(frozen=True, slots=True)
class Changes:
    """New knob values; ``None`` leaves a knob as it is.

    ``lr`` for all groups (the others keep their ratio to the first) or by group name; ``dropout`` for all layers or
    by layer name; ``options`` of the optimizer by their names, such as ``weight_decay`` or ``beta1``, each for all
    groups or by group name; ``own`` are the user's own knobs by name. ``layer_clips`` are rules by layer or pattern,
    off taking one away; ``gradient_noise`` is a standard deviation, ``accumulate`` the batches of an update;
    ``loss_weights`` are those of the loss's parts by name.
    """

    lr: float | Mapping[str, float] | None = None
    clip: Clip | None = None
    dropout: float | Mapping[str, float] | None = None
    options: Mapping[str, OptionValue] | None = None
    own: Mapping[str, float] | None = None
    layer_clips: Mapping[str, Clip] | None = None
    gradient_noise: float | None = None
    accumulate: int | None = None
    batch_size: int | None = None
    label_smoothing: float | None = None
    loss_weights: Mapping[str, float] | None = None

    def then(self, later: Changes) -> Changes:
        """Both, one after the other."""
        options = dict(self.options or {})
        for name, value in (later.options or {}).items():
            options[name] = _later(options.get(name), value)
        return Changes(
            _later(self.lr, later.lr),
            later.clip or self.clip,
            _later(self.dropout, later.dropout),
            options or None,
            {**(self.own or {}), **(later.own or {})} or None,
            _later(self.layer_clips, later.layer_clips),
            _later(self.gradient_noise, later.gradient_noise),
            _later(self.accumulate, later.accumulate),
            _later(self.batch_size, later.batch_size),
            _later(self.label_smoothing, later.label_smoothing),
            _later(self.loss_weights, later.loss_weights),
        )

    def __bool__(self) -> bool:
        return self != Changes()

    def __str__(self) -> str:
        parts = []
        if self.lr is not None:
            parts.append(f"lr {_values(self.lr)}")
        if self.clip is not None:
            parts.append(f"clip {self.clip}")
        if self.dropout is not None:
            parts.append(f"dropout {_values(self.dropout)}")
        parts += [f"{name} {_values(value)}" for name, value in {**(self.options or {}), **(self.own or {})}.items()]
        parts += [f"clip {clip} in {name}" for name, clip in (self.layer_clips or {}).items()]
        if self.gradient_noise is not None:
            parts.append(f"gradient noise {self.gradient_noise:g}" if self.gradient_noise else "no gradient noise")
        if self.accumulate is not None:
            parts.append(f"accumulate {self.accumulate}")
        if self.batch_size is not None:
            parts.append(f"batch size {self.batch_size}")
        if self.label_smoothing is not None:
            parts.append(f"label smoothing {self.label_smoothing:g}")
        parts += [f"weight of {name} {weight:g}" for name, weight in (self.loss_weights or {}).items()]
        return ", ".join(parts)


def _later(first: Any, second: Any) -> Any:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {**first, **second}
    return first if second is None else second


def _values(value: OptionValue) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_values(number)}" if name else _values(number) for name, number in value.items())
    return ("on" if value else "off") if isinstance(value, bool) else f"{value:g}"


@dataclass(frozen=True, slots=True)
class Start:
    """Train for so many epochs or steps; with neither, until stopped."""

    epochs: int | None = None
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop between steps, ready to go on; ``for_a_look`` keeps what is left of single steps asked for."""

    for_a_look: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on after a pause."""


@dataclass(frozen=True, slots=True)
class Step:
    """Take ``count`` steps, then pause."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave out the batch at hand, as if the loader had never given it."""


@dataclass(frozen=True, slots=True)
class PostMortem:
    """After an error in a step: put the model to before it, its batch at hand."""


@dataclass(frozen=True, slots=True)
class AddBreakpoint:
    """Stop when a ``condition`` holds, or in the given ``step``, before its update, or at the end of an ``epoch``.

    ``severity`` stops on a finding at least as severe.
    """

    condition: str = ""
    step: int | None = None
    epoch: int | None = None
    severity: str = ""


@dataclass(frozen=True, slots=True)
class EditBreakpoint:
    """Enable or disable a breakpoint."""

    number: int
    enabled: bool


@dataclass(frozen=True, slots=True)
class RemoveBreakpoint:
    """Take a breakpoint away."""

    number: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run at the next safe point; the model keeps its weights."""


@dataclass(frozen=True, slots=True)
class SetKnobs:
    """Change knobs from the next step on."""

    changes: Changes


@dataclass(frozen=True, slots=True)
class SwapOptimizer:
    """Go on with another kind of optimizer; what the old one has learnt goes over where it has a meaning.

    Without ``lr`` updates stay about as large as they were; several rates are those of the parameter groups, in their
    order. ``name`` is the optimizer's, where there are several.
    """

    kind: str
    lr: float | tuple[float, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def __str__(self) -> str:
        rates = self.lr if isinstance(self.lr, tuple) else () if self.lr is None else (self.lr,)
        named = {**({"lr": ", ".join(f"{rate:g}" for rate in rates)} if rates else {}), **self.options}
        return " ".join([self.kind, *(f"{name} {value}" for name, value in named.items())])


@dataclass(frozen=True, slots=True)
class SetSchedule:
    """Another schedule from here on, ``done`` of its positions being over; ``None`` for none.

    ``given`` puts the one back that the Trainer was given, where it stood when another took its place.
    """

    schedule: Schedule | None
    done: int = 0
    given: bool = False

    def __str__(self) -> str:
        if self.schedule is None:
            return "the schedule that was given" if self.given else "no schedule"
        return f"schedule {self.schedule}" + (f", from position {self.done}" if self.done else "")


@dataclass(frozen=True, slots=True)
class SwapActivations:
    """Another activation in these layers, in all without names, with ``options`` by their names in torch."""

    kind: str
    layers: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        kind = " ".join([self.kind, *(f"{name} {value}" for name, value in self.options.items())])
        return f"activation {kind}" + (f" in {', '.join(self.layers)}" if self.layers else "")


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop layers from learning, or let them learn; ``hold_statistics`` keeps norm layers' running statistics too.

    ``only`` names what is meant exactly: parameters by their dotted names, and ``bn.training`` for the statistics of
    ``bn``; without it, all in the layers.
    """

    frozen: bool
    layers: tuple[str, ...] = ()
    hold_statistics: bool = False
    only: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = self.only or self.layers
        what = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else "")
        return f"{'freeze' if self.frozen else 'unfreeze'} {what or 'all'}"


@dataclass(frozen=True, slots=True)
class EditNorms:
    """Put batch norms after layers, or take batch norms out, folded into the layer before where ``fold`` says so."""

    insert: bool
    layers: tuple[str, ...] = ()
    fold: bool = False

    def __str__(self) -> str:
        done = "batch norm after" if self.insert else "batch norm folded:" if self.fold else "no batch norm:"
        return f"{done} {', '.join(self.layers) or 'all'}"


@dataclass(frozen=True, slots=True)
class SetAverage:
    """Average the weights on the side from here on: ``"ema"`` with a ``decay`` per step, or ``"swa"``, all equally.

    ``"swa"`` takes the weights after its step ``start`` and every ``every`` steps from then on. No ``kind`` ends it.
    """

    kind: str
    decay: float = 0.999
    start: int = 1
    every: int = 1

    def __str__(self) -> str:
        if self.kind == "ema":
            return f"average of the weights, decay {self.decay:g}"
        return "average of the weights" if self.kind else "no average"


@dataclass(frozen=True, slots=True)
class SplitDecay:
    """Leave norm layers and biases out of the weight decay, of all optimizers or of the one called ``name``."""

    name: str = ""

    def __str__(self) -> str:
        return f"no weight decay on norms and biases{f' of {self.name}' if self.name else ''}"


Refit = SwapOptimizer | SetSchedule | SwapActivations | Freeze | EditNorms | SetAverage | SplitDecay


@dataclass(frozen=True, slots=True)
class Press:
    """Run what the user put behind a button of theirs."""

    name: str


@dataclass(frozen=True, slots=True)
class Undo:
    """Take the latest change of knobs or parts back, by a change of its own; once more, the one before it."""


@dataclass(frozen=True, slots=True)
class Reinitialize:
    """Draw new weights; ``layers`` empty means all. The optimizer's state of what is redrawn is cleared unless kept."""

    scheme: InitScheme
    seed: int
    layers: tuple[str, ...] = ()
    keep_optimizer_state: bool = False


@dataclass(frozen=True, slots=True)
class Rerun:
    """Go back to ``start``, apply the changes, and train on a branch.

    ``start`` is a named point, a step of the current run or its parents, or a snapshot's name. Going back brings the
    knobs of that time back; ``keep_knobs`` puts their present values in force again, as someone expects who set the
    controls and then presses the button. ``seed`` draws other random numbers from there on, batches included.
    """

    start: StartPoint | int | str
    epochs: int | None = None
    steps: int | None = None
    changes: Changes = field(default_factory=Changes)
    keep_knobs: bool = False
    seed: int | None = None


Mendable = SetKnobs | Reinitialize | Refit | Rerun  # what a remedy may ask for


@dataclass(frozen=True, slots=True)
class Replicate:
    """Take the course of ``follow``, a run of two, again from where the two parted, up to step ``last_step``.

    Its changes are made again at their steps. Under ``seed`` where one is given, else with the random numbers that it
    had: then a run that ended early is carried on. Marked as a measurement, and not drawn.
    """

    runs: tuple[str, str]
    follow: str
    last_step: int
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Rewind:
    """Put the model back to where it was after ``step`` steps of the current run or its parents, and pause there.

    From the nearest snapshot before it, the rest by replay. A pause or stop meanwhile calls it off. The knobs come
    back as they were then, but for ``changes``.
    """

    step: int
    changes: Changes = field(default_factory=Changes)


@dataclass(frozen=True, slots=True)
class Checkout:
    """Put the latest state of a run back into the model, or a snapshot: its name, or the path of its file."""

    run: str = ""
    snapshot: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """Measure something else from the next step on: a preset or names, of all layers or some, within a budget."""

    probes: str | tuple[str, ...]
    layers: tuple[str, ...] | None
    budget: float | None


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Keep the present state under a name, pinned; written to a file where ``path`` is given."""

    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class DropSnapshot:
    """Let a snapshot go, and its file with it."""

    name: str


@dataclass(frozen=True, slots=True)
class EditRun:
    """Give a run a title, a note, or a pin; ``None`` leaves each as it is."""

    run: str
    title: str | None = None
    note: str | None = None
    pinned: bool | None = None


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Forget a run that no other comes from and the model does not hold; its curves and snapshots go."""

    run: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare a run with its parent; ``seeds`` other seeds are rerun on both to measure the noise."""

    run: str
    seeds: int = 6


@dataclass(frozen=True, slots=True)
class FindLr:
    """Test learning rates from ``low`` to ``high`` on so many steps, after which everything is as it was."""

    low: float = 1e-7
    high: float = 10.0
    steps: int = 100


@dataclass(frozen=True, slots=True)
class RunPreflight:
    """Check the program for what is wrong, but for the checks named in ``skip``; everything is as it was afterwards."""

    skip: tuple[str, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Foretell:
    """Say what the next step would be as the knobs are set, beside what it would have been before they were."""


@dataclass(frozen=True, slots=True)
class TryRemedy:
    """Train on with a remedy of a finding and without, and compare; ``rung`` counts those that are commands."""

    cause: str
    rung: int = 0


@dataclass(frozen=True, slots=True)
class ApplyRemedy:
    """Do a remedy of a finding here and now."""

    cause: str
    rung: int = 0


@dataclass(frozen=True, slots=True)
class Search:
    """Try settings, each on a branch from here, as ``debugger.search`` of the same arguments; then all is as it was.

    ``space`` has by knob a list of values, or a pair (low, high).
    """

    space: Mapping[str, Any]
    epochs: int | None = None
    steps: int | None = None
    trials: int | None = None
    seed: int = 0
    measure: str = ""
    lower_is_better: bool | None = None
    prune: bool = True
    engine: str = "random"


Command = (
    Start
    | Pause
    | Resume
    | Step
    | Stop
    | SetKnobs
    | Undo
    | SwapOptimizer
    | SetSchedule
    | SwapActivations
    | Freeze
    | EditNorms
    | SetAverage
    | SplitDecay
    | Press
    | Reinitialize
    | Rerun
    | Replicate
    | Rewind
    | Checkout
    | TakeSnapshot
    | DropSnapshot
    | EditRun
    | DeleteRun
    | Watch
    | Compare
    | FindLr
    | RunPreflight
    | TryRemedy
    | ApplyRemedy
    | Search
    | Foretell
    | Skip
    | PostMortem
    | AddBreakpoint
    | EditBreakpoint
    | RemoveBreakpoint
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command: applied after ``step`` steps of ``run``, or refused, and in which words.

    ``made`` names the run or snapshot that it made, if any.
    """

    command: Command
    run: str
    step: int
    ok: bool
    text: str
    made: str = ""
