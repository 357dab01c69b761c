"""The network says the same whatever it is given: its input is zeroed, constant, or leads nowhere."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.rerun import Rerun, changes, rerunning, wake_zeros
from nbdebug.records.findings import Cause, Remedy, Severity

CHANGE = "least_output_change"


def judge(look: Look, say: Say) -> None:
    """First what reaches the network, then what it makes of it with samples in another order."""
    if _is_blank(look, say):
        return
    with rerunning(look) as reruns:
        if not reruns:
            say.skip("the same call does not give the same twice")
        wake_zeros(look.model)
        for rerun in reruns:
            _judge(rerun, say)
            look.experiments.mind_calls()


def _is_blank(look: Look, say: Say) -> bool:
    """Whether every sample reaches the network as the same, though the batch's differ."""
    trace = look.trace
    varied = any(len(each) > 1 and _varies(each) for each in look.data.inputs.values() if each.dim())
    calls = [call for call in trace.models if call.args is not None and call.kwargs is not None]
    for call in calls[:1] if varied else []:
        given = [tensor for _, tensor in leaves((call.args, call.kwargs)) if tensor.dim() > 1 and len(tensor) > 1]
        if given and not any(_varies(each) for each in given):
            say.measure("change of the output when samples are exchanged", 0.0, CHANGE, above=False)
            _tell(say, "What reaches the network is the same for every sample, though the batch's samples differ.")
            return True
    return False


def _varies(tensor: torch.Tensor) -> bool:
    return bool((tensor != tensor[:1]).any())


def _judge(rerun: Rerun, say: Say) -> None:
    turned = {name: tensor.roll(1, rerun.axes[name]) for name, tensor in rerun.arguments().items()}
    if all(torch.equal(tensor, turned[name]) for name, tensor in rerun.arguments().items()):
        return
    base = rerun.run()
    change = changes(base.outputs, rerun.run(turned).outputs)
    name = f" of {rerun.call.root}" if rerun.call.root else ""
    if say.measure(f"change of the output{name} when samples are exchanged", change, CHANGE, above=False):
        _tell(say, "With the samples of a batch exchanged, the network's output stays the same, number by number.")


def _tell(say: Say, seen: str) -> None:
    say.find(
        Cause.MODEL_IGNORES_INPUT,
        Severity.CRITICAL,
        "The output does not depend on the input",
        f"{seen} Such a network can learn the targets' mean or the most frequent class, and no more.",
        confidence=0.95,
        remedies=(
            Remedy("Follow the input through forward: is it overwritten, multiplied by zero, or never used?"),
            Remedy("Look whether all units of some layer are dead, or a norm takes all differences away."),
        ),
    )


CHECK = Check(
    "model_ignores_input",
    "the output depends on the input",
    judge,
    (Cause.MODEL_IGNORES_INPUT,),
    parameters=(Parameter(CHANGE, 1e-6, "change of the output that another input must bring, relative to its size"),),
    source="Karpathy, A recipe for training neural networks: an input-independent baseline",
    passive=False,
)
