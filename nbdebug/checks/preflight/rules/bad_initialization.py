"""At the start the signal fades or grows by a factor from layer to layer, gates are saturated, or logits are huge.

Judged by what comes through to the last layer: gates and residual branches that start at zero beside it do no harm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.silenced import silenced
from nbdebug.checks.preflight.trace import LayerCall, LossCall
from nbdebug.checks.preflight.wiring import consumers, listed
from nbdebug.records.commands import InitScheme, Reinitialize
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity

FADES = "least_signal_at_the_end"
GROWS = "most_signal_at_the_end"
LOGITS = "most_logit_deviation"
GATES = "most_gate_gain"
SATURATED = "most_input_of_tanh"
LARGEST_INPUT = 20.0  # beyond this the data are to blame
LATEST_STEP = 100
MAPS = frozenset({"linear", "matmul", "__matmul__", "mm", "addmm", "conv1d", "conv2d", "conv3d"})
USUAL_GAIN = (0.1, 4.0)


@dataclass(frozen=True, slots=True)
class Signal:
    """A layer's call with weights: the deviation over samples of what it gets and gives, and its own gain."""

    layer: str
    enters: float
    leaves: float
    gain: float


def judge(look: Look, say: Say) -> None:
    """Forward numbers of the first step, network by network."""
    if say.step > LATEST_STEP:
        say.skip("training is under way")
    signals = _signals(look)
    if not signals:
        say.skip("no layer with weights was called on several samples")
    found = _judge_biases(look, say)
    for root in dict.fromkeys(_root(look, each.layer) for each in signals):
        found = found or _judge_depth(look, say, [each for each in signals if _root(look, each.layer) == root])
    found = found or _judge_gates(look, say)
    if not found and not _is_large(look):
        _ = _judge_saturation(look, say) or _judge_logits(look, say, signals)


def _judge_biases(look: Look, say: Say) -> bool:
    """ReLUs that biases keep at zero: no other weights would help, so that is named instead."""
    layers = silenced(look)
    say.measure("layers whose ReLU gives only zeros, for their biases", sum(each.wholly for each in layers))
    if not layers:
        return False
    worst = next(each for each in layers if each.wholly)
    names = tuple(each.layer for each in layers)
    zeros = "\n".join(f"nn.init.zeros_({look.code_name(name)}.bias)" for name in names)
    say.find(
        Cause.DEAD_RELU,
        Severity.CRITICAL,
        "Biases keep ReLUs at zero from the start",
        f"The biases of {listed(names)} start far below zero: {worst.bias:.2g} in the mean at {worst.layer}, whose "
        f"values before its ReLU are {worst.mean:.2g} in the mean, and not one of them is above zero. Nothing of the "
        "samples comes through, and no gradient comes back: it can't learn its way out.",
        confidence=0.95,
        layers=names,
        remedies=(
            Remedy("Start biases at zero, and keep the weights.", code=zeros),
            Remedy(
                "Draw these layers anew, with biases at zero.",
                command=Reinitialize(InitScheme.KAIMING_NORMAL, 0, names),
            ),
        ),
    )
    return True


def _signals(look: Look) -> list[Signal]:
    made: dict[str, Signal] = {}
    for call in look.trace.layers:
        module = look.modules.get(call.layer)
        is_map = isinstance(module, nn.Linear) or (hasattr(module, "kernel_size") and hasattr(module, "weight"))
        if not is_map or not call.finite:
            continue
        signal = Signal(call.layer, call.spread_in, call.spread, _gain(call))
        known = made.get(call.layer)
        if known is None or (signal.enters > known.enters) or math.isnan(known.enters):
            made[call.layer] = signal
    return list(made.values())


def _gain(call: LayerCall) -> float:
    return math.hypot(call.mean, call.deviation) / call.scale_in if call.scale_in > 0 else math.nan


def _root(look: Look, layer: str) -> str:
    return "" if isinstance(look.model, nn.Module) else layer.partition(".")[0]


def _is_large(look: Look) -> bool:
    """Whether the data themselves are of an unusual size, which is another fault."""
    first = next((call.scale_in for call in look.trace.layers if not math.isnan(call.scale_in)), 0.0)
    return first > LARGEST_INPUT


def _judge_depth(look: Look, say: Say, signals: Sequence[Signal]) -> bool:
    entry, last = signals[0].enters, signals[-1].enters
    if math.isnan(entry):
        entry = signals[0].leaves
    if len(signals) < 3 or not entry > 0 or not math.isfinite(last):
        return False
    if last == 0 and any(look.trace.norms.get(f"{each.layer}.weight") == 0 for each in signals):
        return False
    ratio = last / entry
    fades = say.measure("deviation over samples at the last layer, relative to the first", ratio, FADES, above=False)
    grows = say.measure("deviation over samples at the last layer, relative to the first", ratio, GROWS)
    if not fades and not grows:
        return False
    known = [each for each in signals if math.isfinite(each.gain)]
    odd = [each.layer for each in known if not USUAL_GAIN[0] <= each.gain <= USUAL_GAIN[1]]
    far = abs(math.log10(max(ratio, 1e-30)))
    steps = [f"{each.layer} {each.gain:.2g}" for each in known[:6]]
    size = f"is {ratio:.1e} times as large at {signals[-1].layer} as at {signals[0].layer}"
    word = "fades" if fades else "grows"
    say.find(
        Cause.BAD_INITIALIZATION,
        Severity.CRITICAL if far > 6 else Severity.WARNING,
        f"The signal {word} from layer to layer",
        f"What distinguishes samples {size if ratio else f'does not arrive at {signals[-1].layer} at all'}: "
        f"each layer multiplies it ({', '.join(steps)}{', …' if len(known) > 6 else ''}). Gradients {word[:-1]} alike "
        "on the way back. Weights should be drawn so that the scale stays: He for ReLU, Glorot for tanh.",
        confidence=0.9 if odd else 0.8,
        layers=tuple(odd) or tuple(each.layer for each in known),
        pictures=(_picture(signals),),
        remedies=_remedies(look, odd or [each.layer for each in known]),
    )
    return True


def _picture(signals: Sequence[Signal]) -> Picture:
    values = [math.log10(max(each.enters if math.isfinite(each.enters) else each.leaves, 1e-30)) for each in signals]
    names = tuple(each.layer for each in signals)
    title = "deviation over samples of each layer's input, log10"
    return Picture(PictureKind.LINES, title, np.array([values], dtype=np.float32), ("input",), names)


def _judge_gates(look: Look, say: Say) -> bool:
    """Recurrent and attention weights so large that gates and softmaxes stand at their ends."""
    odd: dict[str, float] = {}
    for name, module in look.modules.items():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            start = "weight_hh"
        elif isinstance(module, nn.MultiheadAttention):
            start = "in_proj_weight"
        else:
            continue
        own = [each for each in look.parameters if look.layer_of(each) == name]
        weights = [each for each in own if each.rpartition(".")[2].startswith(start)]
        if weights and any(each in look.used for each in own):
            odd[name] = max(_weight_gain(look, each) for each in weights)
    if not odd:
        return False
    worst = max(odd, key=lambda name: odd[name])
    if not say.measure(f"gain of the weights of {worst}", odd[worst], GATES):
        return False
    layers = [name for name, gain in odd.items() if gain > say.limit(GATES)]
    say.find(
        Cause.BAD_INITIALIZATION,
        Severity.WARNING,
        "Recurrent or attention weights start too large",
        f"The weights of {listed(layers)} multiply what comes in by about {odd[worst]:.2g} (1 or less is usual): "
        "gates and attention stand at one of their ends from the start, where they have hardly a gradient.",
        confidence=0.9,
        layers=tuple(layers),
        remedies=_remedies(look, layers),
    )
    return True


def _weight_gain(look: Look, name: str) -> float:
    """By how much weights multiplied independent inputs when the step began."""
    weight = look.parameters[name]
    return look.trace.norms.get(name, 0.0) / math.sqrt(max(1, weight.numel())) * math.sqrt(weight.shape[-1])


def _judge_saturation(look: Look, say: Say) -> bool:
    """Hidden layers whose outputs lie far out in the tanh or sigmoid behind them."""
    trace, users = look.trace, consumers(look.trace)
    sizes: dict[str, float] = {}
    calls = {call.layer: math.hypot(call.mean, call.deviation) for call in trace.layers}
    last = [call for call in trace.calls if call.name in MAPS][-1:]
    for call in trace.calls:
        if call.name in MAPS and call.layer and call not in last and call.layer in calls:
            after = [each.name.rstrip("_") for number in call.outputs for each in users.get(number, [])]
            if "tanh" in after or "sigmoid" in after:
                sizes[call.layer] = calls[call.layer]
    if not sizes:
        return False
    worst = max(sizes, key=lambda layer: sizes[layer])
    off = say.measure(f"size of what tanh or sigmoid gets from {worst}", sizes[worst], SATURATED)
    odd = [layer for layer, size in sizes.items() if size > say.limit(SATURATED)]
    if not off or len(odd) < len(sizes) / 2:
        return False
    say.find(
        Cause.BAD_INITIALIZATION,
        Severity.WARNING,
        "Activations start out saturated",
        f"{listed(odd)} give values of about {sizes[worst]:.2g} to a tanh or sigmoid, which is flat beyond 3: hardly "
        "any gradient comes back through it.",
        confidence=0.85,
        layers=tuple(odd),
        remedies=_remedies(look, odd),
    )
    return True


def _judge_logits(look: Look, say: Say, signals: Sequence[Signal]) -> bool:
    """Scores so far apart at the start that the loss is large and its gradient that of sure, wrong answers."""
    loss = look.trace.main_loss
    size = _logit_size(look, loss) if loss is not None else None
    if loss is None or size is None:
        return False
    if not say.measure("deviation of the first logits", size, LOGITS):
        return False
    odd = [each.layer for each in signals if each.gain > USUAL_GAIN[1]] or [signals[-1].layer]
    say.find(
        Cause.BAD_INITIALIZATION,
        Severity.CRITICAL if size > 5 * say.limit(LOGITS) else Severity.WARNING,
        "The first outputs are far too large",
        f"Logits start with a deviation of {size:.3g}, where about 1 or less is usual: the untrained network is "
        "quite sure of wrong answers, and the first steps only undo that.",
        confidence=0.85,
        layers=tuple(odd),
        remedies=_remedies(look, odd),
        line=loss.call.line,
    )
    return True


def _logit_size(look: Look, loss: LossCall) -> float | None:
    """Of scores that a layer made with no scaling behind it; those that are masked do not count."""
    if loss.name not in ("cross_entropy", "binary_cross_entropy_with_logits") or not loss.input.numel():
        return None
    _, made = look.trace.origin(loss.input_number, loss.call.index)
    if made is None or made.name not in MAPS:
        return None
    scores = loss.input.float()
    if loss.name == "cross_entropy":
        scores = scores - scores.mean(1 if scores.dim() > 1 else 0, keepdim=True)
    kept = scores[scores.abs() < 1e4]
    return float(kept.square().mean().sqrt()) if kept.numel() else None


def _remedies(look: Look, layers: Sequence[str]) -> tuple[Remedy, ...]:
    bent = any(call.name in ("tanh", "sigmoid") for call in look.trace.calls)
    scheme = InitScheme.XAVIER_UNIFORM if bent else InitScheme.KAIMING_NORMAL
    function = "xavier_uniform_" if bent else "kaiming_normal_"
    plain = [name for name in layers if hasattr(look.modules.get(name), "weight")]
    code = f"nn.init.{function}({look.code_name(plain[0])}.weight)" if plain else ""
    return (
        Remedy("Draw their weights anew.", command=Reinitialize(scheme, 0, tuple(name for name in layers if name))),
        Remedy(
            "Initialise for the activation that follows; in deep networks put norms or residual paths in.", code=code
        ),
    )


CHECK = Check(
    "bad_initialization",
    "the signal comes through at the start",
    judge,
    (Cause.BAD_INITIALIZATION, Cause.DEAD_RELU),
    parameters=(
        Parameter(FADES, 3e-5, "what must be left of the samples' deviation at the last layer", 0.0, 1.0),
        Parameter(GROWS, 1e3, "how much larger the samples' deviation may be at the last layer", 1.0),
        Parameter(GATES, 4.0, "gain that recurrent and attention weights may start with", 1.0),
        Parameter(SATURATED, 6.0, "size that the input of hidden tanh and sigmoid may start with", 1.0),
        Parameter(LOGITS, 10.0, "deviation that logits may start with", 1.0),
    ),
    source="He et al. 2015 and Glorot & Bengio 2010: the variance of signals and gradients should stay over depth",
)
