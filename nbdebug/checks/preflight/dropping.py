"""Remedies that take a function out between the last layer and the loss. Pure."""

from __future__ import annotations

from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Call
from nbdebug.records.commands import SwapActivations
from nbdebug.records.findings import Remedy
from nbdebug.training.surgery_activations import activation_layers


def without(look: Look, call: Call, text: str) -> Remedy:
    """Leave out what a call does: by command if it is a layer that can be exchanged, else as code or words."""
    if not call.layer or call.layer not in look.modules:
        return Remedy(text)
    if call.layer in activation_layers(look.model):
        return Remedy(text, SwapActivations("identity", (call.layer,)))
    if any(True for _ in look.modules[call.layer].children()):
        return Remedy(text)
    return Remedy(text, code=f"{look.code_name(call.layer)} = torch.nn.Identity()")


def place(call: Call | None) -> str:
    """Where a call is, for a sentence: `` in layer act``."""
    return f" (layer {call.layer})" if call is not None and call.layer else ""


def layers(call: Call | None) -> tuple[str, ...]:
    """The layer of a call, if it is in one."""
    return (call.layer,) if call is not None and call.layer else ()
