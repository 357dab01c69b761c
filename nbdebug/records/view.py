"""What the dashboard draws: one consistent look at a debugger, pulled a few times a second. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.checks import Report
from nbdebug.records.commands import Outcome
from nbdebug.records.cost import Cost
from nbdebug.records.finder import LrCurve
from nbdebug.records.findings import Course, Finding
from nbdebug.records.forecast import Forecast
from nbdebug.records.frames import Floats
from nbdebug.records.layers import Histograms, LayerValues, Unseen
from nbdebug.records.runs import Mark, Run
from nbdebug.records.samples import Samples
from nbdebug.records.search import SearchOptions, SearchResult
from nbdebug.records.signals import Signal
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.status import KnobStates, Status
from nbdebug.records.stops import Breakpoint, Halt

if TYPE_CHECKING:
    from nbdebug.records.comparison import Comparison
    from nbdebug.records.proofs import Proof, Trial


@dataclass(frozen=True, slots=True)
class Points:
    """A curve: steps and values of equal length, at most as many as a chart can show, no spike left out."""

    steps: NDArray[np.int64]
    values: Floats


@dataclass(frozen=True, slots=True)
class RunView:
    """One run as drawn: its own steps only (a branch starts where it left its parent)."""

    run: Run
    train: Points
    smooth: Points
    val: Points
    metrics: tuple[tuple[str, float], ...]
    steps: int


@dataclass(frozen=True, slots=True)
class Rewindable:
    """What the rewind slider covers: steps 0 to ``last`` of the run in the model and its parents.

    ``snapshots`` are the steps with one, growing; ``step_s`` is how long a replayed step takes, ``restore_s`` a
    restore, both 0 while unknown. ``blocked`` says why nothing can be rewound, empty when it can.
    """

    last: int = 0
    snapshots: tuple[int, ...] = ()
    step_s: float = 0.0
    restore_s: float = 0.0
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class Tracks:
    """One signal of all layers over time: ``low`` and ``high`` are ``(n, layers)``, the extremes of each stretch.

    A stretch ends at its step in ``steps`` ``(n,)``; while every sample is kept, low and high are the same. NaN marks
    what was not measured, or was not finite: then ``odd`` ``(n, layers)`` is true.
    """

    signal: Signal
    layers: tuple[str, ...]
    steps: NDArray[np.int64]
    low: Floats
    high: Floats
    odd: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Focus:
    """What a person looks at closely: a layer (empty: none), the ``histogram`` and the ``curves`` wanted of it.

    ``tracks`` are the signals wanted of all layers over time.
    """

    layer: str = ""
    histogram: Signal = Signal.ACTIVATIONS
    curves: tuple[Signal, ...] = ()
    tracks: tuple[Signal, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerStory:
    """One layer over time: ``counts`` ``(n, BINS)`` and ``limits`` ``(n,)`` at ``steps`` ``(n,)``, and its curves."""

    layer: str
    signal: Signal
    steps: NDArray[np.int64]
    counts: Floats
    limits: Floats
    curves: tuple[tuple[Signal, Points], ...] = ()


@dataclass(frozen=True, slots=True)
class LayersView:
    """What is known of the layers: the latest numbers and histograms, each with its step, and what was asked for.

    ``latest`` joins the newest value of every signal (some are measured less often), up to ``step``. ``histograms``
    are the newest of each kind. ``tracks`` and ``story`` answer a :class:`Focus`. ``unseen`` is what can't be looked
    at.
    """

    latest: LayerValues | None = None
    step: int = 0
    histograms: tuple[tuple[Histograms, int], ...] = ()
    tracks: tuple[Tracks, ...] = ()
    story: LayerStory | None = None
    unseen: tuple[Unseen, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnPanel:
    """What the user's function gave at the latest end of an epoch: ``text``, or a ``picture`` as PNG."""

    name: str
    epoch: int
    text: str = ""
    picture: bytes = b""


@dataclass(frozen=True, slots=True)
class View:
    """Everything on the dashboard at one moment. ``status.run`` is the run that the model's weights belong to.

    ``comparison`` is the latest one made; ``stored`` says that this is a journal from disk, which nothing can change.
    ``stop`` is where training stands within a step, if it does. ``lr_curve`` is the latest range test's,
    ``search`` the latest search, ``search_options`` what another can be by.
    ``forecast`` is of the step that comes next. ``courses`` has what became of every finding, those gone, too;
    ``proofs`` are of remedies that were tried. ``trials`` says by cause what trying one takes, ``trial`` is the one
    under way. ``samples`` are those that are watched.
    """

    status: Status
    knobs: KnobStates
    runs: tuple[RunView, ...]
    marks: tuple[Mark, ...]
    layers: LayersView
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    rewindable: Rewindable = field(default_factory=Rewindable)
    snapshots: tuple[SnapshotInfo, ...] = ()
    comparison: Comparison | None = None
    stored: bool = False
    cost: Cost | None = None
    breakpoints: tuple[Breakpoint, ...] = ()
    stop: Halt | None = None
    panels: tuple[OwnPanel, ...] = ()
    lr_curve: LrCurve | None = None
    report: Report | None = None
    search: SearchResult | None = None
    forecast: Forecast | None = None
    search_options: SearchOptions = field(default_factory=SearchOptions)
    courses: tuple[Course, ...] = ()
    proofs: tuple[Proof, ...] = ()
    trials: tuple[Trial, ...] = ()
    trial: Trial | None = None
    samples: Samples = field(default_factory=Samples)
