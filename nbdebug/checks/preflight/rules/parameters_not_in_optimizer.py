"""What gets gradients and is in no optimizer never learns: a rebuilt head, another model's optimizer, a plain list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.freshness import State, tensor_state
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.wiring import consumers, listed, moving, reached, state_of_layers, weights_in
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.stops import CodeLine

SHARE = "unoptimized_share"
MOST_NAMED = 4  # layers, in code


def judge(look: Look, say: Say) -> None:
    """Parameters that the loss reaches and nobody moves, then learning tensors that the model does not know."""
    _judge_known(look, say)
    if not any(each.cause is Cause.PARAMETERS_NOT_IN_OPTIMIZER for each in say.findings):
        _judge_strangers(look, look.trace, say)


def _judge_known(look: Look, say: Say) -> None:
    met = [name for name in look.parameters if name in reached(look) and look.parameters[name].requires_grad]
    missing = [name for name in met if name not in look.optimized and name not in moving(look)]
    left = _left_behind(look, missing)
    worth = {*left, *_worth_telling(look, say, missing, len(missing) == len(met))}
    fresh = [name for name in missing if name in worth]
    total = weights_in(look, met)
    share = weights_in(look, fresh) / total if total else 0.0
    off = say.measure("share of the weights with a gradient that no optimizer holds", share, SHARE)
    if fresh and off:
        _tell(look, say, fresh, share, is_replaced=bool(left))
    elif missing and not fresh:
        say.note(
            f"{listed(missing)} look trained already and are in no optimizer: left as they are, on purpose it seems"
        )


def _left_behind(look: Look, missing: Sequence[str]) -> list[str]:
    """Those of layers for all of whose parameters an optimizer holds one of the same shape that the model has not.

    It was made before the layer was, and holds what the layer took the place of: nothing uses that any more.
    """
    trace = look.trace
    used = {number for call in trace.calls for number in call.inputs}
    held = [value for number, value in trace.values.items() if value.source.startswith("held") and number not in used]
    orphans = Counter(value.shape for value in held if trace.has_calls)
    found: list[str] = []
    for layer in dict.fromkeys(look.layer_of(name) for name in missing):
        names = [name for name in missing if look.layer_of(name) == layer]
        wanted = Counter(tuple(look.parameters[name].shape) for name in names)
        if wanted <= orphans:
            orphans -= wanted
            found += names
    return found


def _worth_telling(look: Look, say: Say, missing: Sequence[str], is_all: bool) -> list[str]:
    """Those of layers that look drawn; a trained part without an optimizer is how one uses a finished network."""
    if is_all:
        return list(missing)
    states = {layer: _state(look, say, layer, missing) for layer in {look.layer_of(name) for name in missing}}
    partly_trained = State.TRAINED in states.values()
    kept = (State.FRESH,) if partly_trained else (State.FRESH, State.UNKNOWN)
    return [name for name in missing if states[look.layer_of(name)] in kept]


def _state(look: Look, say: Say, layer: str, missing: Sequence[str]) -> State:
    """Of a layer of which an optimizer holds a part by what it does not hold: the rest may have learnt just now."""
    if not any(look.layer_of(name) == layer for name in look.optimized):
        return state_of_layers(look, say.step, [layer])
    mine = [look.parameters[name].detach() for name in missing if look.layer_of(name) == layer]
    same = [each.numel() > 1 and bool((each == each.reshape(-1)[0]).all()) for each in mine]
    states = [State.FRESH if one else tensor_state(each) for each, one in zip(mine, same, strict=True)]
    return next((state for state in (State.TRAINED, State.FRESH) if state in states), State.UNKNOWN)


def _code_to_add(look: Look, missing: Sequence[str]) -> str:
    """Python that adds exactly these; where they are many, by what the optimizer does not hold."""
    layers = dict.fromkeys(look.layer_of(name) for name in missing)
    whole = all(name in missing for name in look.parameters if look.layer_of(name) in layers)
    if whole and len(layers) <= MOST_NAMED:
        wanted = ", ".join(f"*{look.code_name(layer)}.parameters(recurse=False)" for layer in layers)
        return f'optimizer.add_param_group({{"params": [{wanted}]}})'
    left = [name for name in look.parameters if name not in look.optimized and look.parameters[name].requires_grad]
    if set(left) != set(missing):
        return f"parameters = dict(model.named_parameters())\nnames = {list(missing)!r}\n" + (
            'optimizer.add_param_group({"params": [parameters[name] for name in names]})'
        )
    return (
        'held = {id(each) for group in optimizer.param_groups for each in group["params"]}\n'
        "missing = [each for each in model.parameters() if each.requires_grad and id(each) not in held]\n"
        'optimizer.add_param_group({"params": missing})'
    )


def _tell(look: Look, say: Say, missing: Sequence[str], share: float, *, is_replaced: bool) -> None:
    layers = tuple(dict.fromkeys(look.layer_of(name) for name in missing))
    say.find(
        Cause.PARAMETERS_NOT_IN_OPTIMIZER,
        Severity.CRITICAL if share > 0.5 else Severity.WARNING,
        f"{len(missing)} parameters are in no optimizer" if len(missing) > 1 else "A parameter is in no optimizer",
        f"{listed(missing, 12)} take part in the loss and get gradients ({share:.0%} of the weights that do), but no "
        "optimizer holds them: they stay as they were initialised. "
        + (
            "It holds others of the same shapes that the model has no more, and that nothing uses: a layer was "
            "replaced, or the model copied, after the optimizer was made."
            if is_replaced
            else "The parameters that it was given are not all that the model has."
        ),
        layers=layers,
        remedies=(
            Remedy(
                "Make the optimizer after the last change of the model."
                if is_replaced
                else "Give the optimizer all that is to learn."
            ),
            Remedy("Or add them to it.", code=_code_to_add(look, missing)),
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
