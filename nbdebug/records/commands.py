"""What a person can ask of a running session, and what became of it.

Commands are made on any thread, wait in the mailbox, and are applied by the training thread at a safe point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class Changes:
    """New knob values; ``None`` leaves a knob as it is.

    ``lr`` for all groups (the others keep their ratio to the first) or by group name; ``dropout`` for all layers or
    by layer name.
    """

    lr: float | Mapping[str, float] | None = None
    clip: Clip | None = None
    dropout: float | Mapping[str, float] | None = None

    def then(self, later: Changes) -> Changes:
        """Both, one after the other."""
        return Changes(_later(self.lr, later.lr), later.clip or self.clip, _later(self.dropout, later.dropout))

    def __bool__(self) -> bool:
        return self != Changes()

    def __str__(self) -> str:
        parts = []
        if self.lr is not None:
            parts.append(f"lr {_values(self.lr)}")
        if self.clip is not None:
            off = self.clip.mode is ClipMode.OFF
            parts.append("clip off" if off else f"clip {self.clip.mode} {self.clip.threshold:g}")
        if self.dropout is not None:
            parts.append(f"dropout {_values(self.dropout)}")
        return ", ".join(parts)


def _later(
    first: float | Mapping[str, float] | None, second: float | Mapping[str, float] | None
) -> float | Mapping[str, float] | None:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {**first, **second}
    return first if second is None else second


def _values(value: float | Mapping[str, float]) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number:g}" if name else f"{number:g}" for name, number in value.items())
    return f"{value:g}"


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


Command = (
    Start
    | Pause
    | Resume
    | Step
    | Stop
    | SetKnobs
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
