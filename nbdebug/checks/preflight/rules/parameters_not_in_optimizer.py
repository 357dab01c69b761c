"""What gets gradients and is in no optimizer never learns: a rebuilt head, another model's optimizer, a plain list."""

from __future__ import annotations

from collections.abc import Sequence

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.freshness import State
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.wiring import consumers, listed, moving, reached, state_of_layers, weights_in
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.stops import CodeLine

SHARE = "unoptimized_share"


def judge(look: Look, say: Say) -> None:
    """Parameters that the loss reaches and nobody moves, then learning tensors that the model does not know."""
    _judge_known(look, say)
    if not any(each.cause is Cause.PARAMETERS_NOT_IN_OPTIMIZER for each in say.findings):
        _judge_strangers(look, look.trace, say)


def _judge_known(look: Look, say: Say) -> None:
    met = [name for name in look.parameters if name in reached(look) and look.parameters[name].requires_grad]
    missing = [name for name in met if name not in look.optimized and name not in moving(look)]
    fresh = _worth_telling(look, say, missing, len(missing) == len(met))
    total = weights_in(look, met)
    share = weights_in(look, fresh) / total if total else 0.0
    off = say.measure("share of the weights with a gradient that no optimizer holds", share, SHARE)
    if fresh and off:
        _tell(look, say, fresh, share)
    elif missing and not fresh:
        say.note(
            f"{listed(missing)} look trained already and are in no optimizer: left as they are, on purpose it seems"
        )


def _worth_telling(look: Look, say: Say, missing: Sequence[str], is_all: bool) -> list[str]:
    """Those of layers that look drawn; a trained part without an optimizer is how one uses a finished network."""
    if is_all:
        return list(missing)
    states = {layer: state_of_layers(look, say.step, [layer]) for layer in {look.layer_of(name) for name in missing}}
    partly_trained = State.TRAINED in states.values()
    kept = (State.FRESH,) if partly_trained else (State.FRESH, State.UNKNOWN)
    return [name for name in missing if states[look.layer_of(name)] in kept]


def _tell(look: Look, say: Say, missing: Sequence[str], share: float) -> None:
    layers = tuple(dict.fromkeys(look.layer_of(name) for name in missing))
    wanted = ", ".join(f"*{look.code_name(layer)}.parameters()" for layer in layers[:4])
    say.find(
        Cause.PARAMETERS_NOT_IN_OPTIMIZER,
        Severity.CRITICAL if share > 0.5 else Severity.WARNING,
        f"{len(missing)} parameters are in no optimizer" if len(missing) > 1 else "A parameter is in no optimizer",
        f"{listed(missing)} take part in the loss and get gradients ({share:.0%} of the weights that do), but no "
        "optimizer holds them: they stay as they were initialised. This happens when a layer is replaced, or the model "
        "copied or wrapped anew, after the optimizer was made.",
        layers=layers,
        remedies=(
            Remedy("Make the optimizer after the last change of the model."),
            Remedy("Or add them to it.", code=f'optimizer.add_param_group({{"params": [{wanted}]}})'),
        ),
    )


def _judge_strangers(look: Look, trace: StepTrace, say: Say) -> None:
    """A stranger that nobody names may be another's network, kept as it is; then it looks trained."""
    named = {number: trace.values[number].source.removeprefix("hidden ") for number in trace.strangers}
    states = {number: State(state) for number, state in trace.strangers.items()}
    say.measure("tensors with a gradient that neither model nor optimizer knows", len(states))
    if not states or State.TRAINED in states.values():
        return
    hidden = sorted(name for name in named.values() if name)
    values = trace.values
    weights = sum(_size(values[number].shape) for number in states)
    share = weights / max(1, weights + weights_in(look, [n for n in look.parameters if n in reached(look)]))
    if not say.measure("share of the weights that neither model nor optimizer knows", share, SHARE):
        return
    where = listed([f"model.{name}" for name in hidden]) or f"{len(states)} tensors outside of the model"
    say.find(
        Cause.PARAMETERS_NOT_IN_OPTIMIZER,
        Severity.CRITICAL if share > 0.5 else Severity.WARNING,
        "Weights that the model does not know of",
        f"The loss reaches {where}, but model.parameters() does not list them ({share:.0%} of the weights that get a "
        "gradient) and no optimizer holds them: they never learn, are not saved, and stay behind when the model moves "
        "to another device. Layers in a plain list, dict or tuple, and tensors that are no nn.Parameter, are not seen.",
        confidence=0.98 if hidden else 0.75,
        remedies=(
            Remedy("Keep layers in nn.ModuleList or nn.ModuleDict, and weights in nn.Parameter.", code=_code(hidden)),
            Remedy("Then make the optimizer from model.parameters() again."),
        ),
        line=_line(trace, states),
    )


def _code(hidden: Sequence[str]) -> str:
    if not hidden or "[" not in hidden[0]:
        return ""
    attribute = hidden[0].partition("[")[0].rpartition(".")[2]
    kind = "ModuleDict" if hidden[0].partition("[")[2][:1] in "'\"" else "ModuleList"
    return f"self.{attribute} = nn.{kind}({attribute})"


def _line(trace: StepTrace, numbers: dict[int, State]) -> CodeLine | None:
    users = consumers(trace)
    return next((call.line for number in numbers for call in users.get(number, []) if call.line is not None), None)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for each in shape:
        size *= each
    return size


CHECK = Check(
    "parameters_not_in_optimizer",
    "every parameter with a gradient is in an optimizer",
    judge,
    (Cause.PARAMETERS_NOT_IN_OPTIMIZER,),
    parameters=(Parameter(SHARE, 0.0, "share of the weights that may get gradients without an optimizer", 0.0, 1.0),),
    source="torch.optim: parameters that an optimizer is to update are given when it is made",
)
