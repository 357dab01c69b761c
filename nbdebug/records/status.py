"""Where a session stands: its state, its place in the data, its knobs. Made by the training thread at safe points."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nbdebug.records.commands import Clip
from nbdebug.records.optimizers import Option


class State(StrEnum):
    """What the training thread is doing."""

    IDLE = "idle"
    RUNNING = "running"
    REWINDING = "rewinding"
    PAUSED = "paused"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Replay:
    """A rewind under way: ``done`` of ``total`` steps replayed on the way to ``step`` of ``run``."""

    run: str
    step: int
    done: int
    total: int
    remaining_s: float


@dataclass(frozen=True, slots=True)
class Status:
    """Progress. ``epoch`` counts finished epochs, ``batch`` the batches done in the present one.

    ``batches`` is ``None`` for loaders without a length, the goals are ``None`` for a run without an end.
    ``stepping`` says that training runs only to take a last single step, after which it is paused again.
    ``watching`` is the share of run time that measuring took; ``message`` says why training is not running, if so.
    ``last_step`` is the furthest recorded step of the run that the model holds; ``step`` is less after a rewind.
    ``activity`` names what else holds the session, such as a comparison's reruns; empty for none.
    """

    state: State = State.IDLE
    run: str = "main"
    epoch: int = 0
    batch: int = 0
    batches: int | None = None
    step: int = 0
    goal_epoch: int | None = None
    goal_step: int | None = None
    steps_per_s: float = 0.0
    remaining_s: float | None = None
    watching: float = 0.0
    message: str = ""
    stepping: bool = False
    last_step: int = 0
    replay: Replay | None = None
    activity: str = ""


@dataclass(frozen=True, slots=True)
class GroupRate:
    """A parameter group's learning rate: what was ``asked`` for, and what is ``in_force`` after the schedule."""

    name: str
    asked: float
    in_force: float


@dataclass(frozen=True, slots=True)
class DropoutLayer:
    """A layer that drops with probability ``p`` while training."""

    name: str
    p: float


@dataclass(frozen=True, slots=True)
class OptionKnob:
    """An option of the optimizer: its value by parameter group, and why it can't be changed, if so."""

    option: Option
    values: tuple[tuple[str, float | bool], ...]
    fixed: str = ""


@dataclass(frozen=True, slots=True)
class OwnKnob:
    """A quantity of the user's own, which their code reads; on a ``log`` scale or a linear one."""

    name: str
    value: float
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class AverageTaken:
    """An average of the weights on the side: ``"ema"`` or ``"swa"``, and how many weights went into it so far."""

    kind: str
    taken: int = 0
    decay: float = 0.999
    start: int = 1
    every: int = 1


@dataclass(frozen=True, slots=True)
class KnobStates:
    """Every knob's present value. ``schedule`` names the scheduler, empty when there is none; ``schedule_text`` says
    all of it, where that is known. ``average`` is the average of the weights that is taken.

    ``optimizer`` names the optimizer; ``init_layers`` are the layers that re-initialisation can redraw. ``origins``
    says by knob where its value comes from, such as ``("lr", "set at step 120 of main")``. ``own`` and ``buttons`` are
    the user's. ``activations`` are the layers that can be swapped, each with its kind, ``activation_kinds`` what they
    can become, ``frozen`` the layers of which no parameter learns. ``layer_clips`` are clipping rules by layer or
    pattern; of the ``accumulate`` batches of an update ``accumulated`` are done, ``why_not_accumulate`` says why that
    can't be set, if so. ``batch_size`` and ``label_smoothing`` are ``None`` where ``why_not_…`` says so;
    ``batch_size_acts`` says when a new one acts, if not with the next batch. ``loss_weights`` are by the loss's parts.
    """

    groups: tuple[GroupRate, ...]
    schedule: str
    clip: Clip
    dropout: tuple[DropoutLayer, ...]
    optimizer: str = ""
    init_layers: tuple[str, ...] = ()
    origins: tuple[tuple[str, str], ...] = ()
    options: tuple[OptionKnob, ...] = ()
    own: tuple[OwnKnob, ...] = ()
    buttons: tuple[str, ...] = ()
    activations: tuple[tuple[str, str], ...] = ()
    activation_kinds: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    layer_clips: tuple[tuple[str, Clip], ...] = ()
    gradient_noise: float = 0.0
    accumulate: int = 1
    accumulated: int = 0
    why_not_accumulate: str = ""
    batch_size: int | None = None
    why_not_batch_size: str = ""
    batch_size_acts: str = ""
    label_smoothing: float | None = None
    why_not_label_smoothing: str = ""
    loss_weights: tuple[tuple[str, float], ...] = ()
    schedule_text: str = ""
    average: AverageTaken | None = None
