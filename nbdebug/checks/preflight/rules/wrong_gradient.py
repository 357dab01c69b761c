"""Custom autograd functions whose backward is not the derivative of their forward."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nbdebug.checks.check import Check, Say, Skip
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.stops import CodeLine
from nbdebug.tools.gradient_check import GradientCheck, InputCheck, check_gradient
from nbdebug.training.aside import copied

WRONG_SHARE = "gradient_check_wrong_share"


def judge(look: Look, say: Say) -> None:
    """Each custom function of the first step, alone, on what the step gives it."""
    bench = look.experiments
    met = dict.fromkeys(each for backward in look.trace.backwards for each in backward.functions)
    functions = [each for each in met if each.__module__.partition(".")[0] != "torch"]
    if not functions:
        raise Skip("nothing has a backward of its own; torch's are right")
    with bench.fresh(), _listening(functions) as given:
        bench.trace(look.batches[0])
    for function, arguments in given.items():
        found = check_gradient(function.apply, arguments)
        if found.inputs:
            _judge(function, found, say)
            bench.mind_calls()


def _judge(function: Any, found: GradientCheck, say: Say) -> None:
    wrong = [each for each in found.inputs if not each.is_right]
    worst = min(found.inputs, key=lambda each: sum(each.agree) / len(each.agree))
    share = 1 - sum(worst.agree) / len(worst.agree)
    name = function.__name__
    is_off = say.measure(f"share of directions in which {name}'s backward is wrong", share, WRONG_SHARE)
    if not is_off or not wrong:
        return
    if found.on_purpose:
        say.note(f"the backward of {name} is not its derivative, on purpose as it seems")
        return
    places = ", ".join(str(each.place + 1) for each in wrong)
    say.measure(f"{name}'s backward as a multiple of the right gradient", wrong[0].ratio)
    say.find(
        Cause.WRONG_GRADIENT,
        Severity.CRITICAL,
        f"The backward of {name} is wrong",
        f"What its backward gives for argument {places} is not the derivative of its forward: along sampled directions "
        f"it is {wrong[0].ratio:.3g} times what central differences give{_kind(wrong[0])}. Whatever lies below "
        "it learns from a wrong gradient.",
        confidence=0.97 if found.double else 0.8,
        remedies=(Remedy(f"Derive the backward of {name} anew; torch.autograd.gradcheck checks it in float64."),),
        line=_place_of(function.backward),
    )


def _kind(found: InputCheck) -> str:
    if not found.is_a_factor:
        return " at the median, and each time another multiple, so a term is missing or wrong"
    return ", so its sign is turned round" if abs(found.ratio + 1) < 1e-3 else ", so a factor is off"


def _place_of(function: Any) -> CodeLine | None:
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or ""
    except (OSError, TypeError):
        return None
    start = next((place for place, line in enumerate(lines) if line.lstrip().startswith("def ")), 0)
    return CodeLine(file, first + start, function.__name__, lines[start].strip())


@contextmanager
def _listening(functions: list[Any]) -> Iterator[dict[Any, list[Any]]]:
    """Within, what each of these is given at its first call is kept."""
    given: dict[Any, list[Any]] = {}
    before = [(each, each.__dict__.get("forward")) for each in functions]
    for function in functions:
        function.forward = staticmethod(_listener(function, function.forward, given))
    try:
        yield given
    finally:
        for function, own in before:
            if own is None:
                del function.forward
            else:
                function.forward = own


def _listener(function: Any, forward: Any, given: dict[Any, list[Any]]) -> Any:
    def listen(*args: Any, **options: Any) -> Any:
        if function not in given:
            has_context = bool(args) and isinstance(args[0], torch.autograd.function.FunctionCtx)
            given[function] = [_copy(each) for each in (args[1:] if has_context else args)]
        return forward(*args, **options)

    return listen


def _copy(value: Any) -> Any:
    """A tensor of its own, which wants a gradient where this one does."""
    return copied(value).requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value


CHECK = Check(
    "wrong_gradient",
    "custom backward passes are the derivative of their forward",
    judge,
    (Cause.WRONG_GRADIENT,),
    parameters=(Parameter(WRONG_SHARE, 0.5, "share of sampled directions in which a backward may disagree", 0.0, 1.0),),
    source="gradient check by central differences, as in torch.autograd.gradcheck",
    passive=False,
)
