"""Hidden tanh or sigmoid units are driven to where they are flat, look after look, and nothing is learnt."""

from __future__ import annotations

import numpy as np

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course
from nbdebug.checks.live.layers import listed, named, quantiles, tracked
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.commands import InitScheme, Reinitialize, SwapActivations
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.signals import Signal

SHARE, FALLEN = "saturated_share", "saturated_loss_fallen"
LOOKS = 3


def judge(window: Window, say: Say) -> None:
    """The least share of inputs beyond the bend over the latest looks, of all layers but the model's last."""
    found = tracked(window, Signal.SATURATED, LOOKS)
    seen = course(window, 20)
    share = quantiles(found.low[-LOOKS:], 0.0, axis=0)
    last = window.facts.layers[-1] if window.facts.layers else ""
    hidden = np.array(found.layers, dtype=np.str_) != last
    share = np.where(hidden, np.nan_to_num(share), 0.0)
    if not hidden.any():
        raise Skip("no hidden layer is bounded")
    over = say.measure("share of a layer's inputs beyond the bend, the most", float(share.max()), SHARE)
    still = say.measure("share of the loss that is gone", seen.fallen, FALLEN, above=False)
    if not over or seen.has_learnt:
        return
    layers = named(found.layers, share > say.limit(SHARE))
    say.find(
        Cause.SATURATED_ACTIVATIONS,
        Severity.WARNING if still else Severity.INFO,
        f"{len(layers)} bounded activation{'s are' if len(layers) > 1 else ' is'} saturated",
        f"{listed(layers)}: up to {share.max():.0%} of the inputs lie where the function is flat, at all of the latest "
        "looks. Almost no gradient passes through there.",
        confidence=0.8,
        layers=layers,
        remedies=(
            Remedy("Draw weights anew, as Glorot.", command=Reinitialize(InitScheme.XAVIER_NORMAL, 0)),
            Remedy("Use ReLU in their place.", command=SwapActivations("ReLU", layers)),
            Remedy("Bring inputs to mean 0 and deviation 1, or put a norm layer in front."),
        ),
    )


CHECK = LiveCheck(
    "saturated_activations",
    "bounded activations work where they are steep",
    judge,
    (Cause.SATURATED_ACTIVATIONS,),
    signals=(Signal.SATURATED,),
    parameters=(
        Parameter(SHARE, 0.85, "share of a layer's inputs that may lie beyond the bend", 0.0, 1.0),
        Parameter(FALLEN, 0.1, "share of the loss that must be gone where activations are saturated", -1.0, 1.0),
    ),
    source="Glorot, Bengio 2010, Understanding the difficulty of training deep feedforward neural networks",
)
