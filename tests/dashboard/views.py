"""Hand-made views for the dashboard's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nbdebug.records.commands import Changes, Clip, ClipMode
from nbdebug.records.comparison import Comparison, SeriesComparison, Verdict
from nbdebug.records.finder import LrCurve
from nbdebug.records.forecast import Forecast
from nbdebug.records.layers import Histograms, LayerValues, edges
from nbdebug.records.optimizers import Option, OptionType
from nbdebug.records.runs import Mark, Run, RunKind
from nbdebug.records.search import SearchEngine, SearchOptions, SearchResult, Trial, ranked
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.snapshots import Reason, SnapshotInfo
from nbdebug.records.status import DropoutLayer, GroupRate, KnobStates, OptionKnob, OwnKnob, State, Status
from nbdebug.records.stops import BatchView, BreakKind, Breakpoint, CodeLine, Halt, Origin, Phase, Range
from nbdebug.records.view import Focus, LayerStory, LayersView, Points, Rewindable, RunView, Tracks, View

NOTHING = Points(np.empty(0, np.int64), np.empty(0))


def points(values: list[float], first: int = 1) -> Points:
    return Points(np.arange(first, first + len(values), dtype=np.int64), np.array(values, np.float64))


def run(name: str = "main", train: list[float] | None = None, **changes: Any) -> RunView:
    curve = points(train) if train else NOTHING
    made = RunView(Run(name), train=curve, smooth=curve, val=NOTHING, metrics=(), steps=len(train or []))
    return replace(made, **changes)


def names(size: int) -> tuple[str, ...]:
    """Few: a plain stack. Many: an encoder of blocks between a stem and a head."""
    if size <= 40:
        return tuple(f"layer{i}" for i in range(size))
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.act", "mlp.fc2")
    blocks = [f"encoder.{i}.{part}" for i in range(-(-(size - 3) // len(parts))) for part in parts]
    return ("embed", *blocks[: size - 3], "head.norm", "head.fc")


def table(size: int = 3, seed: int = 0, **signals: Any) -> LayerValues:
    """What a sampled step says of so many layers; ``signals`` by name of the member: a value for all, or by layer."""
    layers, random = signals.pop("layers", names(size)), np.random.default_rng(seed)
    slope = np.linspace(-3, -1, size) if size > 1 else np.array([-2.0])
    mean = 10.0 ** (slope + random.normal(0, 0.12, size))
    made: dict[str, Any] = {
        "GRADIENT_STATE": 0, "GRADIENT_NORM": mean * 30, "GRADIENT_MEAN": mean, "GRADIENT_MAX": mean * 8,
        "GRADIENT_MEAN_CLIPPED": mean / 2, "GRADIENT_MAX_CLIPPED": mean * 4, "GRADIENT_ZERO": 0,
        "GRADIENT_NON_FINITE": 0, "GRADIENT_RATIO": mean * 0.1, "ACTIVATION_MEAN": random.normal(0, 0.1, size),
        "ACTIVATION_STD": 10 ** random.normal(-0.1, 0.2, size), "ACTIVATION_ZERO": 0.02, "ACTIVATION_NON_FINITE": 0,
        "UNITS_SILENT": 0.04, "UNITS_DEAD": 0, "WEIGHT_NORM": 10 ** random.normal(1, 0.3, size),
        "WEIGHT_GROWTH": 1 + random.normal(0.05, 0.02, size), "BIAS_MAX": 0.04,
        "UPDATE_RATIO": 10 ** random.normal(-3, 0.15, size), "MEMORY_PARAMETERS": 262_144, "MEMORY_GRADIENTS": 262_144,
    }  # fmt: skip
    made |= signals
    values = np.array([np.broadcast_to(np.asarray(each, np.float64), size) for each in made.values()])
    absent = np.isneginf(values)  # a hole, in these views
    return LayerValues(layers, tuple(Signal[name] for name in made), np.where(absent, 0, values), ~absent)


HOLE = -np.inf


def histograms(kind: Signal = Signal.ACTIVATIONS, size: int = 3, seed: int = 0, **changes: Any) -> Histograms:
    """Gaussians of different widths, every third one rectified."""
    random = np.random.default_rng(seed)
    width = 10.0 ** random.normal(-0.3, 0.3, size) * (1e-3 if kind in (Signal.GRADIENTS, Signal.CHANGES) else 1)
    drawn = random.normal(0, 1, (size, 4096)) * width[:, None]
    if kind is Signal.ACTIVATIONS:
        drawn[2::3] = np.maximum(drawn[2::3], 0)
    limit = 2.0 ** (np.floor(np.log2(np.abs(drawn).max(axis=1))) + 1)
    counts = np.array([np.histogram(row / top, edges())[0] for row, top in zip(drawn, limit, strict=True)], np.float64)
    sampled = np.full(size, 4096)
    return replace(Histograms(kind, names(size), counts, limit, sampled, sampled * 12), **changes)


def tracks(size: int = 3, steps: int = 60, signal: Signal = Signal.UPDATE_RATIO, **changes: Any) -> Tracks:
    """A random walk for each layer around a level of its own; the one before the last runs away."""
    random = np.random.default_rng(1)
    walk = random.normal(-3, 0.15, size) + np.cumsum(random.normal(0, 0.03, (steps, size)), axis=0)
    walk[steps // 2 :, max(size - 2, 0)] += np.linspace(0, 1.6, steps - steps // 2)
    high = 10.0**walk
    odd = np.zeros(high.shape, np.bool_)
    made = Tracks(signal, names(size), np.arange(20, 20 * steps + 1, 20, dtype=np.int64), high, high.copy(), odd)
    return replace(made, **changes)


def story(layer: str = "layer0", kind: Signal = Signal.ACTIVATIONS, columns: int = 50, **changes: Any) -> LayerStory:
    """A Gaussian that grows wider, and curves."""
    steps = np.arange(20, 20 * columns + 1, 20, dtype=np.int64)
    width = 0.3 * np.linspace(1, 4, columns)
    drawn = np.random.default_rng(2).normal(0, 1, (columns, 2048)) * width[:, None]
    limits = 2.0 ** (np.floor(np.log2(np.abs(drawn).max(axis=1))) + 1)
    counts = np.array([np.histogram(row / top, edges())[0] for row, top in zip(drawn, limits, strict=True)], np.float64)
    curve = {
        Signal.UPDATE_RATIO: 1e-3 * np.exp(np.sin(steps / 90)), Signal.GRADIENT_NORM: 0.5 * np.exp(-steps / 600),
        Signal.WEIGHT_NORM: 4 + width, Signal.ACTIVATION_STD: width, Signal.UNITS_DEAD: np.linspace(0, 0.6, columns),
    }  # fmt: skip
    curves = tuple((signal, Points(steps, values)) for signal, values in curve.items())
    return replace(LayerStory(layer, kind, steps, counts, limits, curves), **changes)


def layers(size: int = 3, step: int = 3, seed: int = 0, focus: Focus | None = None, **changes: Any) -> LayersView:
    """All kinds of what a debugger tells of its layers."""
    focus = focus or Focus(tracks=(Signal.UPDATE_RATIO,))
    kinds = (Signal.ACTIVATIONS, Signal.GRADIENTS, Signal.WEIGHTS)
    made = LayersView(
        latest=table(size, seed),
        step=step,
        histograms=tuple((histograms(kind, size, seed), step) for kind in kinds),
        tracks=tuple(tracks(size, signal=signal) for signal in focus.tracks),
        story=story(focus.layer, focus.histogram) if focus.layer else None,
    )
    return replace(made, **changes)


NO_LAYERS = LayersView()


def view(**changes: Any) -> View:
    knobs = KnobStates(
        (GroupRate("all", 3e-3, 2.1e-3),), "cosine", Clip(ClipMode.NORM, 1.0), (DropoutLayer("drop", 0.2),)
    )
    made = View(
        status=Status(state=State.RUNNING, step=3, batch=3, batches=10, goal_epoch=10, steps_per_s=5.0),
        knobs=knobs,
        runs=(run(train=[3.0, 2.0, 1.0]),),
        marks=(),
        layers=layers(),
        findings=(),
        outcomes=(),
    )
    return replace(made, **changes)


def snapshot(name: str = "s", run: str = "main", step: int = 0, **changes: Any) -> SnapshotInfo:
    made = SnapshotInfo(name, run, step, step // 10, Reason.EPOCH, 1_200_000)
    return replace(made, **changes)


def branch(name: str, parent: str, step: int, train: list[float], **changes: Any) -> RunView:
    """A run that left its parent after ``step`` steps. ``kind``, ``title`` and the like go to its Run."""
    about = {key: changes.pop(key) for key in list(changes) if key in Run.__dataclass_fields__}
    curve = points(train, step + 1)
    about = {"change": name, **about}
    made = RunView(Run(name, parent, step, **about), curve, curve, NOTHING, metrics=(), steps=len(train))
    return replace(made, **changes)


def noise(parent: str, count: int, step: int = 100) -> tuple[RunView, ...]:
    """Reruns under other seeds."""
    return tuple(branch(f"{parent} seed {i}", parent, step, [9.0], kind=RunKind.NOISE, seed=i) for i in range(count))


def comparison(**changes: Any) -> Comparison:
    steps = np.arange(101, 301, dtype=np.int64)
    wave = 0.02 * np.sin(steps / 7)
    levels = {"parent_level": 0.187, "run_level": 0.142, "difference": -0.045}
    curves = {
        "parent_curve": Points(steps, 0.187 + 20 / steps + wave),
        "run_curve": Points(steps, 0.142 + 20 / steps + wave / 2),
        "difference_curve": Points(steps, -0.045 - wave / 2),
    }
    sure = {"interval": (-0.052, -0.038), "noise": 0.009, "confidence": 0.998, "verdict": Verdict.BETTER}
    row = SeriesComparison(Series(Signal.LOSS, split=Split.VAL), True, **levels, **sure, **curves)
    accuracy = replace(
        row, series=Series(Signal.METRIC, "accuracy", Split.VAL), lower_is_better=False, parent_level=0.941,
        run_level=0.944, difference=0.003, interval=(-0.002, 0.008), confidence=0.7, verdict=Verdict.WITHIN_NOISE,
    )  # fmt: skip
    sentence = (
        "lr 0.02 is better than main: validation loss 0.187 → 0.142 (−24 %, 95 % interval −0.052 to −0.038), 99.8 % "
        "sure; other seeds alone move it by ±0.009."
    )
    made = Comparison("main", "lr 0.02", 101, 300, 6, (row, accuracy), Verdict.BETTER, sentence)
    return replace(made, **changes)


def descent(first: float, last: float, steps: int, seed: int) -> list[float]:
    """A training loss that falls, with noise."""
    noise = np.random.default_rng(seed).normal(0, 0.08, steps)
    curve: list[float] = (last + (first - last) * np.exp(-np.arange(steps) / (0.3 * steps)) * np.exp(noise)).tolist()
    return curve


def forest(**changes: Any) -> View:
    """A view with all that time travel shows: branches of branches, noise runs, snapshots, marks, a comparison."""
    steps = np.arange(50, 401, 50)
    val = Points(steps.astype(np.int64), 0.25 + 1.8 * np.exp(-steps / 110.0))
    main = run(
        train=descent(2.3, 0.15, 400, 0),
        val=val,
        metrics=(("accuracy/train", 0.97), ("accuracy/val", 0.941)),
        steps=400,
    )
    main = replace(main, run=Run("main", note="the recipe of the paper"))
    lower = branch(
        "lr 0.02", "main", 100, descent(1.0, 0.1, 200, 1), title="calmer", pinned=True,
        metrics=(("accuracy/train", 0.981), ("accuracy/val", 0.944)),
    )  # fmt: skip
    clipped = branch("clip norm 1", "lr 0.02", 200, descent(0.4, 0.08, 200, 2), caveat="other batches")
    higher = branch("lr 0.5", "main", 250, descent(0.9, 0.6, 90, 3), metrics=(("accuracy/val", 0.71),))
    made = view(
        runs=(main, lower, *noise("main", 6), *noise("lr 0.02", 6), clipped, higher),
        marks=(Mark("lr 0.02", 100, "lr 0.05 → 0.02"), Mark("lr 0.5", 250, "lr 0.5"), Mark("main", 330, "dropout 0.3")),
        snapshots=(
            snapshot("start", reason=Reason.START),
            *(snapshot(f"epoch {i}", step=50 * i) for i in range(1, 9)),
            snapshot("before the bump", step=345, reason=Reason.REQUEST, pinned=True, path="/home/me/runs/bump.nbd"),
            snapshot("best of main", step=400, best=True),
            snapshot("best of lr 0.02", run="lr 0.02", step=300, best=True),
        ),
        rewindable=Rewindable(400, tuple(range(0, 401, 50)), step_s=0.008, restore_s=0.05),
        status=Status(
            state=State.PAUSED, step=400, last_step=400, epoch=8, batches=50, goal_epoch=10, steps_per_s=120,
            remaining_s=0.8, watching=0.031,
        ),
        comparison=comparison(),
    )  # fmt: skip
    return replace(made, **changes)


def breakpoint_on(text: str = "loss > 2.5", number: int = 1, **changes: Any) -> Breakpoint:
    return replace(Breakpoint(number, BreakKind.CONDITION, text, before_update=True), **changes)


def origin(**changes: Any) -> Origin:
    """Of a NaN that a square root made in the backward of an activation."""
    made = Origin(
        Phase.BACKWARD, "nan", "sqrt", "blocks.3.act", "RootNorm", ("", "blocks", "blocks.3", "blocks.3.act"),
        line=CodeLine("/home/me/models/norm.py", 41, "forward", "return x / torch.sqrt(variance) * self.gain"),
        inner_line=CodeLine("/tmp/ipykernel_123/4567.py", 12, "backward", "return grad / (2 * root)"),
        inputs=(
            Range("variance", (64, 128, 1), "float32", 0.0, 3.1, 17, 0, 0),
            Range("gradient of the output", (64, 128, 256), "float32", -2.1e-3, 1.9e-3, 120_334, 3, 1),
        ),
        parameters=(Range("gain", (256,), "float32", 0.98, 1.02, 0, 0, 0),),
        samples=(3, 17),
        advice="Use torch.sqrt(variance + eps) with eps = 1e-6.",
    )  # fmt: skip
    return replace(made, **changes)


def batch(amount: int = 6, side: int = 8, **changes: Any) -> BatchView:
    """Pictures of one colour each, the worst first: sample 0 is red all over."""
    pictures = np.zeros((amount, side, side, 3), np.uint8)
    pictures[0, ..., 0] = 255
    pictures[1:, ..., 2] = 128
    made = BatchView(
        "pictures", (f"input ({amount}, 3, {side}, {side}) float32, -2.1 to 2.6",), tuple(range(amount)),
        tuple("cat" if i % 2 else "ship" for i in range(amount)), np.linspace(6, 0.1, amount), pictures,
    )  # fmt: skip
    return replace(made, **changes)


def stop(**changes: Any) -> Halt:
    why = "grad_norm > 5 * median(grad_norm, 100): 18.3 > 5 × 2.11"
    return replace(Halt("main", 4, True, why, breakpoint=1, loss=0.7, batch=batch()), **changes)


def lr_curve(**changes: Any) -> LrCurve:
    """A loss that falls about 3e-3 and runs away from 0.3 on."""
    rates = np.geomspace(1e-7, 10, 100)[:84]
    at = np.log10(rates)
    clean = 2.3 - 1.6 / (1 + np.exp(-3 * (at + 2.6))) + 3 * np.exp(5 * (at + 0.3))
    noise = np.random.default_rng(0).normal(0, 0.06, rates.size)
    suggestions = (
        ("middle of the valley", 2.1e-3), ("steepest descent", 3.2e-3), ("minimum / 10", 5e-3),
        ("half of the diverging rate", 0.25),
    )  # fmt: skip
    made = LrCurve(rates, clean + noise, clean, suggestions, float(rates[-1]), "main", 120, 100, 1e-3)
    return replace(made, **changes)


SEARCHABLE = SearchOptions((("val_loss", True), ("val_accuracy", False), ("loss", True)), (), 0.05)


def trial(number: int = 1, score: float = 0.2, **changes: Any) -> Trial:
    lr = changes.pop("lr", 0.01)
    setting = {"lr": lr, **changes.pop("setting", {})}
    made = Trial(Changes(lr=lr), f"lr {lr:g} ({number})", score, 40, "", number, setting)
    return replace(made, **changes)


def search(count: int = 24, **changes: Any) -> SearchResult:
    """Over a rate on a log scale, a dropout, and clipping; best at a rate about 3e-2."""
    random = np.random.default_rng(4)
    made = []
    for number in range(1, count + 1):
        lr, dropout = float(10 ** random.uniform(-4, 0)), float(random.uniform(0, 0.5))
        clip = [None, 0.5, 1.0][int(random.integers(3))]
        score = 0.2 + 0.25 * (np.log10(lr) + 1.5) ** 2 + 0.1 * dropout
        ended = "worse than the median" if number > 6 and score > 0.6 else ""
        changed = Changes(lr=lr, dropout=dropout, clip=Clip(ClipMode.NORM, clip) if clip else Clip())
        setting = {"lr": lr, "dropout": dropout, "clip_norm": clip}
        lost = number == 5
        made.append(
            Trial(changed, f"trial {number}", np.nan if lost else float(score), 16 if ended or lost else 40,
                  "not finite" if lost else ended, number, setting)
        )  # fmt: skip
    space = {"lr": (1e-4, 1.0), "dropout": (0.0, 0.5), "clip_norm": [None, 0.5, 1.0]}
    found = SearchResult(
        "val_loss", True, ranked(tuple(made), True), space, SearchEngine.OPTUNA, count, 40, "main", 400, 1
    )
    return replace(found, **changes)


def forecast(**changes: Any) -> Forecast:
    """Three times the update that there was."""
    ratios = np.array([1.2e-3, 3.1e-3, 2.4e-2])
    made = Forecast(Changes(), names(3), ratios, ratios / 3, 0.4123, 2.1, 0.4, 100, run="main", step=400, now="before")
    return replace(made, **changes)


def option(name: str = "weight_decay", values: tuple[float | bool, ...] = (1e-2,), **changes: Any) -> OptionKnob:
    """Of the groups all, or body and head."""
    fixed = changes.pop("fixed", "")
    groups = ("all",) if len(values) == 1 else ("body", "head")
    is_switch = isinstance(values[0], bool)
    made = Option(name, name, f"what {name} does", OptionType.SWITCH if is_switch else OptionType.NUMBER)
    return OptionKnob(replace(made, **changes), tuple(zip(groups, values, strict=True)), fixed)


def knobs(*, groups: int = 1, **changes: Any) -> KnobStates:
    """All kinds of knobs: an AdamW with one parameter group or two, layers to change, and the user's own."""

    def each(*values: float | bool) -> tuple[float | bool, ...]:
        return values[:groups]

    made = KnobStates(
        (GroupRate("all", 3e-3, 2.1e-3),)
        if groups == 1
        else (GroupRate("body", 3e-3, 2e-3), GroupRate("head", 1e-2, 1e-2)),
        "CosineAnnealingLR",
        Clip(ClipMode.NORM, 1.0),
        (DropoutLayer("drop", 0.2),),
        optimizer="AdamW",
        options=(
            option("beta1", each(0.9, 0.5), high=1.0),
            option("beta2", each(0.999, 0.999), high=1.0),
            option("eps", each(1e-8, 1e-8)),
            option("weight_decay", each(1e-2, 0.0)),
            option("decoupled_weight_decay", each(True, True), fixed="is what makes AdamW: swap to Adam"),
            option("amsgrad", each(False, True)),
            option("momentum", each(0.85, 0.85), high=1.0, fixed="is written by the schedule at each step"),
            option("foreach", each(False, False), fixed="says how an update is computed, not what it is"),
        ),
        own=(OwnKnob("temperature", 0.07, 1e-3, 10.0, log=True), OwnKnob("label smoothing", 0.1, 0.0, 0.5)),
        buttons=("shuffle the data", "save samples"),
        activations=(("layer0", "ReLU"), ("layer1", "ReLU"), ("layer2", "GELU")),
        activation_kinds=("relu", "leaky_relu", "gelu", "silu", "tanh"),
        frozen=("layer1",),
    )
    return replace(made, **changes)
