"""Dropout that leaves too little of the signal: probabilities meant as the share to keep, or several in a row."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import MOVES, Call, StepTrace
from nbdebug.records.commands import Changes, SetKnobs
from nbdebug.records.findings import Cause, Remedy, Severity

KEPT = "dropout_kept"
NAMES = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"})


def judge(look: Look, say: Say) -> None:
    """The share that each dropout at work keeps, those right before it counted in."""
    worst: tuple[float, str, Call | None] | None = None
    for kept, layer, call in [*_by_calls(look.trace), *_by_modules(look)]:
        if worst is None or kept < worst[0]:
            worst = kept, layer, call
    if worst is None:
        say.skip("no dropout is at work")
    assert worst is not None
    kept, layer, call = worst
    if not say.measure(f"share of values that dropout keeps{f' in {layer}' if layer else ''}", kept, KEPT, above=False):
        return
    is_module = isinstance(look.modules.get(layer), nn.modules.dropout._DropoutNd)
    half = SetKnobs(Changes(dropout={layer: 0.5})) if is_module else None
    say.find(
        Cause.DROPOUT_TOO_HIGH,
        Severity.CRITICAL if kept <= 0.1 else Severity.WARNING,
        f"Dropout takes {1 - kept:.0%} of the signal",
        f"{look.code_name(layer) if layer else 'A dropout'} keeps {kept:.0%} of its values and scales those by "
        f"{1 / max(kept, 1e-6):.3g}: what comes through is mostly noise. In PyTorch p is the share that is dropped, "
        "not the one that is kept.",
        confidence=0.95 if kept <= 0.1 else 0.8,
        layers=(layer,) if layer else (),
        remedies=(Remedy("Use p of 0.5 at most, and 0.1 to 0.3 before narrow layers.", command=half),),
        line=call.line if call is not None else None,
    )


def _by_calls(trace: StepTrace) -> Iterator[tuple[float, str, Call | None]]:
    for call in trace.named(*NAMES):
        if (p := _probability(call)) is not None:
            kept, before = 1 - p, call
            while (above := _dropout_before(trace, before)) is not None:
                kept, before = kept * (1 - (_probability(above) or 0.0)), above
            yield kept, call.layer or "", call


def _probability(call: Call) -> float | None:
    """Of a call that is at work."""
    p, training = call.option("p", 0, 0.5), call.option("training", 1, True)
    return float(p) if training and isinstance(p, (int, float)) and 0 < p <= 1 else None


def _dropout_before(trace: StepTrace, call: Call) -> Call | None:
    """The dropout whose output this one takes, with nothing but moves between."""
    if not call.inputs:
        return None
    number, before = call.inputs[0], call.index
    made = trace.producer(number, before)
    while made is not None and made.name in MOVES and made.inputs:
        number, before = made.inputs[0], made.index
        made = trace.producer(number, before)
    return made if made is not None and made.name.rstrip("_") in NAMES else None


def _by_modules(look: Look) -> Iterator[tuple[float, str, Call | None]]:
    """Those inside of recurrent layers and attention, and all where calls can't be seen."""
    for name, module in look.modules.items():
        deep = isinstance(module, nn.RNNBase) and module.num_layers > 1
        p = module.dropout if deep or isinstance(module, nn.MultiheadAttention) else 0.0
        if module.training and isinstance(p, (int, float)) and p > 0:
            yield 1 - float(p), name, None
        elif isinstance(module, nn.modules.dropout._DropoutNd) and not look.trace.has_calls and module.p > 0:
            yield 1 - float(module.p), name, None


CHECK = Check(
    "dropout_too_high",
    "dropout leaves enough of the signal",
    judge,
    (Cause.DROPOUT_TOO_HIGH,),
    parameters=(Parameter(KEPT, 0.21, "share of values that dropout must keep", 0.0, 1.0),),
    source="Srivastava et al. 2014: p of 0.5 for hidden units, less for inputs",
)
