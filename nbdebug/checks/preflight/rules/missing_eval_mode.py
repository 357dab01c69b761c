"""Dropout drops and batch norms use the batch while the model is judged: results look worse than they are."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from nbdebug.checks.check import Check, Say, Skip
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Call, StepTrace
from nbdebug.checks.preflight.tracer import can_trace_calls, traced
from nbdebug.checks.preflight.wiring import listed
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.training.aside import copied
from nbdebug.training.modules import named_modules, roots

LAYERS = "layers_awake_in_evaluation"
NAMES = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")


def judge(look: Look, say: Say) -> None:
    """One evaluation on a batch, from evaluation mode on as the debugger sets it: what works as in training there."""
    trace = _evaluated(look, say)
    awake = [
        call.layer
        for call in trace.layers
        if call.training
        and isinstance(look.modules.get(call.layer), (_DropoutNd, _BatchNorm))
        and _differs(look, call.layer)
    ]
    layers = tuple(dict.fromkeys(awake))
    always = [call for call in trace.named(*NAMES) if _works(call) and call.layer not in layers]
    if say.measure("layers that work as in training while the model is judged", len(layers) + len(always), LAYERS):
        _tell(look, say, layers, always)


def _evaluated(look: Look, say: Say) -> StepTrace:
    bench, batch = look.experiments, copied((look.validation or look.batches)[0])
    with bench.fresh():
        for module in named_modules(look.model).values():
            module.training = False
        if not can_trace_calls(look.model, look.trainer):
            say.skip("the calls of an evaluation can't be seen here")
        with traced(look.model, {}, batch) as trace, torch.no_grad():
            _evaluate(look, say, batch)
    return trace


def _evaluate(look: Look, say: Say, batch: Any) -> None:
    step = look.trainer.eval_step
    try:
        if step is not None:
            step(look.model, batch, look.trainer.loss)
        else:
            _forward(look, say)
    except Skip:
        raise
    except Exception as error:  # the user's own code, told where the model is judged
        say.skip(f"an evaluation raises {type(error).__name__}: {error}")


def _forward(look: Look, say: Say) -> None:
    """Without an ``eval_step``, the networks' own forward on what the training step gave them."""
    calls = [call for call in look.called.models if call.args is not None and call.kwargs is not None]
    if not calls:
        say.skip("no network was called")
    networks = roots(look.model)
    for call in {call.root: call for call in calls}.values():
        networks[call.root](*copied(call.args), **copied(call.kwargs))


def _differs(look: Look, layer: str) -> bool:
    module = look.modules[layer]
    return module.p > 0 if isinstance(module, _DropoutNd) else getattr(module, "running_mean", None) is not None


def _works(call: Call) -> bool:
    p, training = call.option("p", 0, 0.5), call.option("training", 1, True)
    return bool(training) and isinstance(p, (int, float)) and p > 0


def _tell(look: Look, say: Say, layers: tuple[str, ...], always: list[Call]) -> None:
    line = always[0].line if always else None
    what = f"{listed(layers)} ran in training mode" if layers else "A functional dropout was at work"
    why = (
        "The step for validation puts the model, or these layers, into training mode."
        if layers
        else "F.dropout is always on unless training=self.training is given."
    )
    code = "model.eval()" if layers else "F.dropout(x, p, training=self.training)"
    say.find(
        Cause.MISSING_EVAL_MODE,
        Severity.WARNING,
        "Validation runs in training mode",
        f"{what} while the model was judged. {why} Validation then tells of a network that is worse than the trained "
        "one, and batch norms learn from validation data.",
        confidence=0.9,
        layers=layers or tuple(call.layer for call in always if call.layer),
        remedies=(Remedy("Judge the model in evaluation mode.", code=code),),
        line=line,
    )


CHECK = Check(
    "missing_eval_mode",
    "validation runs in evaluation mode",
    judge,
    (Cause.MISSING_EVAL_MODE,),
    parameters=(Parameter(LAYERS, 0, "layers that may work as in training while the model is judged"),),
    source="37 reasons why your neural network is not working: check the mode of batch norm and dropout",
    passive=False,
)
