"""What comes to the first layer is far from unit scale, or its features are: one direction drowns all others.

Judged where the data meet the first weights, after whatever the program does to them before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.mixtures import Mixture, mixtures
from nbdebug.checks.preflight.samples import capped, floats
from nbdebug.checks.preflight.trace import MOVES, Arrival, StepTrace
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

LARGEST = "input_scale_most"
APART = "input_scales_apart"
APART_FROM = "input_scale_apart_from"
SMALLEST = "input_scale_least"
ANSWER = "first_output_scale_most"
FEWEST_SAMPLES, ENOUGH_SAMPLES = 4, 64
NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "LocalResponseNorm")
NORM_CALLS = frozenset(
    {
        *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize", "local_response_norm"),
    }
)
PASSING = frozenset(
    {"relu", "leaky_relu", "max_pool1d", "max_pool2d", "avg_pool2d", "dropout", "__add__", "add", "sum"}
)
TABLES = ("Embedding",)


@dataclass(frozen=True, slots=True)
class Scales:
    """Features of what comes to a layer: root mean squares of those that count, the mean and deviation of all values.

    ``dense`` are those that can be held against each other, ``length`` is that of a typical sample as a vector.
    """

    names: np.ndarray[Any, np.dtype[np.int64]]
    sizes: np.ndarray[Any, np.dtype[np.float64]]
    dense: np.ndarray[Any, np.dtype[np.bool_]]
    mean: float
    deviation: float
    length: float

    @property
    def largest(self) -> float:
        """The largest size."""
        return float(self.sizes.max())

    @property
    def ends(self) -> tuple[int, int]:
        """The places of the largest and the smallest feature that can be held against each other."""
        places = np.flatnonzero(self.dense)
        return int(places[self.sizes[places].argmax()]), int(places[self.sizes[places].argmin()])

    @property
    def apart(self) -> float:
        """How many times larger the largest is than the smallest."""
        if self.dense.sum() < 2:
            return 1.0
        top, least = self.ends
        return float(self.sizes[top] / self.sizes[least])


def judge(look: Look, say: Say) -> None:
    """The layers that get data as they are, or worked on without weights."""
    trace = look.called
    seen = 0
    for arrival in trace.arrivals:
        if _is_data(trace, arrival) and not arrival.kind.startswith((*NORMS, *TABLES)):
            scales = _scales(arrival, _arrived(look, trace, arrival), same_unit=_is_flattened(look, trace, arrival))
            if scales is not None:
                seen += 1
                normed = _is_normed_after(trace, arrival) or _is_scaled_on_purpose(look, trace, arrival, say)
                _judge(look, arrival, scales, say, normed=normed)
                if say.findings:
                    return
    for mixture in mixtures(look):
        seen += _judge_mixture(look, trace, mixture, say)
        if say.findings:
            return
    if not seen:
        say.skip("no layer gets numbers from the data that could be judged")


def _judge_mixture(look: Look, trace: StepTrace, mixture: Mixture, say: Say) -> bool:
    """Data that come to a layer side by side with what learns; whether there was anything to judge."""
    call = mixture.call
    weight = "" if call.layer else "weights"
    arrival = Arrival(
        call.layer or "", call.name, capped(mixture.values), call.inputs[0], call.index + (not weight),
        outputs=call.outputs, answer=mixture.answer, weight=weight,
    )  # fmt: skip
    flattened = any(
        look.data.inputs[name].dim() > max(2, len(trace.values[call.inputs[0]].shape)) for name in mixture.names
    )
    scales = _scales(arrival, arrival.values, same_unit=flattened)
    if scales is None:
        return False
    beside = replace(scales, names=np.array(mixture.places)[scales.names], length=math.inf)  # others speak as well
    _judge(look, arrival, beside, say, normed=_is_normed_after(trace, arrival))
    return True


def _is_data(trace: StepTrace, arrival: Arrival) -> bool:
    sources = trace.sources(arrival.number, arrival.index)
    own = arrival.values.is_floating_point() or arrival.values.dtype is torch.uint8
    return own and not any(source.startswith("weight") for source in sources) and len(arrival.values) >= 1


def _is_flattened(look: Look, trace: StepTrace, arrival: Arrival) -> bool:
    """Whether its features are pixels or times laid out in a row: of one unit, with a still border perhaps."""
    names = trace.sources(arrival.number, arrival.index) & look.data.inputs.keys()
    return any(look.data.inputs[name].dim() > max(2, arrival.values.dim()) for name in names)


def _arrived(look: Look, trace: StepTrace, arrival: Arrival) -> torch.Tensor:
    """What came to the layer; of a small batch that came as it was, what comes in other batches as well."""
    values = arrival.values
    names = trace.sources(arrival.number, arrival.index) & look.data.inputs.keys()
    if len(values) >= ENOUGH_SAMPLES or len(names) != 1:
        return values
    every = look.data.inputs[next(iter(names))]
    first = every[: len(values)]
    as_it_was = first.shape == values.shape and torch.equal(first.to(values.dtype), values)
    return every[:ENOUGH_SAMPLES] if as_it_was else values


def _scales(arrival: Arrival, arrived: torch.Tensor, *, same_unit: bool) -> Scales | None:
    """Of features along the dimension that the layer takes them from, but for yes-or-no, counts and still ones."""
    rows = _rows(arrival, arrived)
    if rows is None:
        return None
    low, high = rows.amin(0), rows.amax(0)
    two_values = ((rows == low) | (rows == high)).all(0)
    counts = (rows == rows.round()).all(0) & (low >= 0) & ((rows == 0).float().mean(0) > 0.5)
    still = high - low <= 1e-6 * torch.maximum(high.abs(), low.abs()).clamp(min=1e-30)
    chosen = (~(two_values | counts | still)).nonzero().flatten()
    if not len(chosen):
        return None
    kept = rows[:, chosen]
    dense = ((kept == 0).double().mean(0) < 0.5).cpu().numpy()
    return Scales(
        chosen.cpu().numpy(),
        kept.double().square().mean(0).sqrt().cpu().numpy(),
        dense if not same_unit else np.zeros(len(chosen), bool),
        float(kept.mean()),
        float(kept.double().std()),
        float(rows.double().square().sum(1).median().sqrt()),
    )


def _rows(arrival: Arrival, arrived: torch.Tensor) -> torch.Tensor | None:
    """What arrives with the features along the last of two dimensions; ``None`` of too few samples."""
    values = floats(capped(arrived))
    if values.dim() < 2 or not values.numel():
        return None
    last = tuple(range(-len(arrival.axes), 0))
    values = values.movedim(arrival.axes, last).flatten(-len(last))
    return values.reshape(-1, values.shape[-1]) if values.numel() // values.shape[-1] >= FEWEST_SAMPLES else None


def _judge(look: Look, arrival: Arrival, scales: Scales, say: Say, *, normed: bool) -> None:
    answer = arrival.answer
    loud = answer is None or say.measure("scale of the first layer's output", answer, ANSWER)
    large = say.measure("scale of the largest feature", scales.largest, LARGEST)
    wide = say.measure("the largest feature's scale over the smallest's", scales.apart, APART)
    wide &= say.measure("scale of the largest feature, where features are apart", scales.largest, APART_FROM)
    faint = math.isfinite(scales.length) and say.measure(
        "length of a typical sample", scales.length, SMALLEST, above=False
    )
    if wide and loud:
        _tell(look, arrival, scales, say, wide=True)
    elif not normed and ((large and loud) or (faint and scales.length > 0)):
        _tell(look, arrival, scales, say, wide=False)


def _is_scaled_on_purpose(look: Look, trace: StepTrace, arrival: Arrival, say: Say) -> bool:
    """Whether the data are of unit scale themselves, and the program makes them larger or smaller before the layer."""
    _, made = trace.origin(arrival.number, arrival.index)
    names = trace.sources(arrival.number, arrival.index) & look.data.inputs.keys()
    if made is None or (not arrival.weight and made.layer == arrival.layer) or not names:
        return False
    sizes = [float(floats(capped(look.data.inputs[name])).double().square().mean().sqrt()) for name in names]
    return all(0.05 < size < say.limit(LARGEST) for size in sizes)


def _is_normed_after(trace: StepTrace, arrival: Arrival) -> bool:
    """Whether a norm layer is the first to work on what this layer puts out."""
    numbers = set(arrival.outputs)
    for call in trace.calls[arrival.index + bool(arrival.weight) :]:
        if numbers.isdisjoint(call.inputs):
            continue
        if call.name in NORM_CALLS:
            return True
        within = not arrival.weight and call.layer == arrival.layer
        if within or call.name in MOVES or call.name.rstrip("_") in PASSING:
            numbers.update(call.outputs)
            continue
        return False
    return False


def _place(look: Look, arrival: Arrival) -> str:
    """A layer by its name in the code; a call by its function's and by what it met."""
    weight = look.code_name(arrival.weight) if arrival.weight in look.parameters else arrival.weight
    return f"{arrival.kind} with {weight}" if arrival.weight else look.code_name(arrival.layer)


def _tell(look: Look, arrival: Arrival, scales: Scales, say: Say, *, wide: bool) -> None:
    layer = _place(look, arrival)
    if wide:
        top, least = scales.ends
        text = (
            f"Feature {scales.names[top]} of what {layer} gets is of the size of {scales.sizes[top]:.3g}, feature "
            f"{scales.names[least]} of {scales.sizes[least]:.3g}: {scales.apart:,.0f} times apart. What the layer puts "
            "out is the large one alone, and no learning rate suits both."
        )
    else:
        text = (
            f"What {layer} gets has a mean of {scales.mean:.3g} and a deviation of {scales.deviation:.3g} over the "
            f"first batch; layers are initialised for values of about 0 ± 1. "
            + (
                "Outputs and gradients are as many times too large, or units saturate."
                if scales.largest > 1
                else "Outputs hardly depend on them."
            )
        )
    picture = Picture(
        PictureKind.BARS,
        "Size of each feature (log10)",
        np.log10(np.maximum(scales.sizes, 1e-12)).astype(np.float64)[None, :40],
        ("log10 of size",),
        tuple(str(name) for name in scales.names[:40]),
    )
    say.find(
        Cause.UNNORMALIZED_INPUT,
        Severity.WARNING,
        "Features are scales apart" if wide else "Inputs are far from unit scale",
        text,
        confidence=0.9,
        layers=(arrival.layer,),
        pictures=(picture,) if len(scales.sizes) > 1 else (),
        remedies=(
            Remedy(
                "Subtract the mean and divide by the deviation of each feature, taken over the training samples only; "
                "use the same numbers for validation.",
                code="mean, std = x_train.mean(0), x_train.std(0).clamp(min=1e-6)\nx = (x - mean) / std",
            ),
            Remedy("Or begin the network with a batch norm layer."),
        ),
    )


CHECK = Check(
    "unnormalized_input",
    "inputs come to the first layer at unit scale",
    judge,
    (Cause.UNNORMALIZED_INPUT,),
    parameters=(
        Parameter(LARGEST, 25.0, "largest root mean square of a feature that is no alarm", 1.0),
        Parameter(APART, 100.0, "how many times one feature may be larger than another", 1.0),
        Parameter(APART_FROM, 8.0, "size of the largest feature from which differing scales matter", 0.0),
        Parameter(SMALLEST, 0.02, "least length of a sample, as a vector", 0.0),
        Parameter(ANSWER, 3.0, "scale of a first layer's output that is still fine, whatever came in", 0.0),
    ),
    source="LeCun et al., Efficient BackProp (1998), 4.3: shift inputs to mean 0, and scale them to the same deviation",
)
