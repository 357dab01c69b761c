"""Units of a layer that start out the same and get the same gradient stay the same for ever: one unit, many times."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.wiring import listed
from nbdebug.records.commands import InitScheme, Reinitialize
from nbdebug.records.findings import Cause, Remedy, Severity

SHARE = "identical_units_share"
ROUNDING = 1e-4
LEAST_MOVE = 1e-9


def judge(look: Look, say: Say) -> None:
    """Weights at the steps' beginning, by what they are now and by the gradients of the steps since."""
    traces = [trace for trace in look.traces if any(update.gradients for update in trace.updates)]
    if not traces:
        say.skip("no update with gradients was seen")
    same: dict[str, float] = {}
    worst = 0.0
    for layer, weight, bias, parts in _layers(look):
        share = min(_share(look, trace, layer, weight, bias, parts) for trace in traces)
        worst = max(worst, share)
        if share > say.limit(SHARE):
            same[layer] = share
    if len(traces) < 2 or not any(far > LEAST_MOVE for far in traces[0].moved.values()):
        same = {layer: share for layer, share in same.items() if not _is_zero(look, layer)}  # a gate may open them yet
        worst = max(same.values(), default=0.0)
    say.measure("largest share of a layer's units with the same weights and gradients", worst, SHARE)
    if same:
        _tell(look, say, same)


def _layers(look: Look) -> Iterator[tuple[str, str, str, int]]:
    """Layers with several units that learn: their weight and bias by name, and in how many parts units come."""
    for name, module in look.modules.items():
        if isinstance(module, nn.RNNBase):
            gates = {"LSTM": 4, "GRU": 3}.get(type(module).__name__, 1)
            names = [("weight_ih_l0", "bias_ih_l0", gates)]
        elif isinstance(module, nn.Linear) or (
            hasattr(module, "kernel_size") and not getattr(module, "transposed", False)
        ):
            names = [("weight", "bias", 1)]
        else:
            continue
        prefix = f"{name}." if name else ""
        for weight, bias, parts in names:
            known = look.parameters.get(prefix + weight)
            if known is not None and known.requires_grad and known.dim() > 1 and known.shape[0] // parts > 1:
                yield name, prefix + weight, prefix + bias, parts


def _share(look: Look, trace: StepTrace, layer: str, weight: str, bias: str, parts: int) -> float:
    """The share of units that are as the first, in their weights and in this step's gradients."""
    gradients = {name: grad for update in trace.updates for name, grad in update.gradients.items()}
    if weight not in gradients:
        return 0.0
    own = [look.parameters[name].detach() for name in (weight, bias) if name in look.parameters]
    rows = _rows([*own, *(gradients[name] for name in (weight, bias) if name in gradients)], parts)
    shares = []
    for part in range(parts):
        alike = torch.stack([_alike(each[part]) for each in rows]).all(0)
        shares.append(float(alike.float().mean()) if int(alike.sum()) > 1 else 0.0)
    return min(shares)


def _rows(tensors: list[torch.Tensor], parts: int) -> list[torch.Tensor]:
    return [each.reshape(parts, each.shape[0] // parts, -1).float() for each in tensors]


def _alike(rows: torch.Tensor) -> torch.Tensor:
    """Which rows are as the middle one, to rounding."""
    pick = rows[len(rows) // 2]
    distance = (rows - pick).abs().amax(1)
    return distance <= ROUNDING * pick.abs().max()


def _is_zero(look: Look, layer: str) -> bool:
    own = look.modules[layer].parameters(recurse=False)
    return all(not bool(torch.any(each.detach())) for each in own)


def _tell(look: Look, say: Say, same: dict[str, float]) -> None:
    layers = tuple(same)
    zero = all(_is_zero(look, layer) for layer in layers)
    start = "all zeros" if zero else "one constant" if len(same) > 1 else "the same for each"
    say.find(
        Cause.SYMMETRIC_INITIALIZATION,
        Severity.CRITICAL,
        "Units start the same, and stay so",
        f"In {listed(layers)} {max(same.values()):.0%} of the units have the same weights (they start as {start}) and "
        "get the same gradient, so every update leaves them equal: the layer works as if it had one unit.",
        layers=layers,
        remedies=(
            Remedy("Draw the weights at random.", command=Reinitialize(InitScheme.DEFAULT, 0, layers)),
            Remedy(
                "Or in your own code; constants are for biases and norms only.",
                code=f"nn.init.kaiming_uniform_({look.code_name(layers[0])}.weight)",
            ),
        ),
    )


CHECK = Check(
    "symmetric_initialization",
    "units of a layer differ from each other",
    judge,
    (Cause.SYMMETRIC_INITIALIZATION,),
    parameters=(Parameter(SHARE, 0.5, "share of a layer's units that may have the same weights and gradients", 0, 1),),
    source="Goodfellow et al., Deep Learning, 8.4: initial parameters need to break symmetry between units",
)
