"""A loss that wants log-probabilities gets probabilities, or raw scores: it rewards size, not rightness."""

from __future__ import annotations

import torch

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.dropping import layers
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import (
    GATHERS,
    LOG_SOFTMAXES,
    SOFTMAXES,
    Meeting,
    behind,
    chain,
    class_axis,
    meetings,
)
from nbdebug.checks.preflight.trace import MOVES, Call, LossCall, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

POSITIVE = "log_probability_slack"
LOGS = LOG_SOFTMAXES | {"log", "log1p", "logsigmoid", "log_sigmoid", "logsumexp"}
PASSED_ON = MOVES | {"neg", "mean", "sum", "mul", "div", "sub", "__getitem__", "gather", "squeeze", "add", "backward"}


def judge(look: Look, say: Say) -> None:
    """Every negative log-likelihood that training goes by."""
    trace = look.called
    for meeting in meetings(trace):
        loss = meeting.loss
        if loss.name in ("nll_loss", "kl_div"):
            _judge(look, trace, loss, say)
        elif meeting.by_hand and loss.name in GATHERS and _is_bare(trace, meeting):
            _judge_by_hand(look, trace, loss, say)


def _judge(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    if not loss.input.numel():
        return
    made = next(iter(chain(trace, loss.input_number, loss.call.index)), None)
    logs = any(call.name.rstrip("_") in LOGS for call in behind(trace, loss.input_number, loss.call.index))
    highest = float(loss.input.float().max())
    above = say.measure("largest log-probability that the loss gets (of a probability: 0)", highest, POSITIVE)
    if above and not (logs and highest < 0.05):
        _tell(look, say, loss, _softmax(trace, loss), made)
    elif not logs and loss.name == "nll_loss" and loss.input.dim() > 1:
        total = float(torch.logsumexp(loss.input.float(), 1).median())
        if say.measure("log of the sum of a row's probabilities (of a distribution: 0)", total, POSITIVE):
            _tell(look, say, loss, None, made)


def _softmax(trace: StepTrace, loss: LossCall) -> Call | None:
    _, made = trace.origin(loss.input_number, loss.call.index)
    return made if made is not None and made.name in SOFTMAXES else None


def _is_bare(trace: StepTrace, meeting: Meeting) -> bool:
    """Whether the loss is nothing but minus the mean of what is picked: any further term may bound it."""
    goal = meeting.loss.call.index
    for backward in trace.backwards:
        number, before = backward.number, backward.index
        while (call := trace.producer(number, before)) is not None:
            if call.index == goal:
                return meeting.coefficient < 0
            learning = [each for each in call.inputs if trace.values[each].learns]
            if call.name not in PASSED_ON or len(learning) != 1:
                break
            number, before = learning[0], call.index
    return False


def _judge_by_hand(look: Look, trace: StepTrace, loss: LossCall, say: Say) -> None:
    """Scores as they leave the last layer, picked by the target's class, with a minus: the loss has no bottom."""
    axis = class_axis(loss)
    made = behind(trace, loss.input_number, loss.call.index)
    raw = all(call.name in MOVES for call in made)
    if axis is None or loss.input.shape[axis] < 2 or loss.target is None or loss.target.is_floating_point() or not raw:
        return
    say.measure("largest score that is taken for a log-probability", float(loss.input.max()), POSITIVE)
    _tell(look, say, loss, None, made[0] if made else None)


def _tell(look: Look, say: Say, loss: LossCall, softmax: Call | None, made: Call | None) -> None:
    what = "probabilities, not their logarithms" if softmax is not None else "raw scores, not log-probabilities"
    because = (
        "Its value lies between -1 and 0, gradients are small where the network is wrong, and the loss means nothing."
        if softmax is not None
        else "It falls without end as scores grow, whether or not one class stands out."
    )
    code = (
        f"{look.code_name(softmax.layer)} = torch.nn.LogSoftmax(dim=1)" if softmax is not None and softmax.layer else ""
    )
    say.find(
        Cause.NLL_ON_PROBABILITIES,
        Severity.CRITICAL,
        f"{loss.name} of {'probabilities' if softmax is not None else 'raw scores'}",
        f"{loss.name if loss.name not in GATHERS else 'The loss'} works on {what}: the largest is "
        f"{float(loss.input.float().max()):.3g}, where a log-probability is never above 0. {because}",
        confidence=0.97,
        layers=layers(softmax or made),
        remedies=(
            Remedy("Give it log-probabilities: LogSoftmax instead.", code=code),
            Remedy("Or give raw scores to cross_entropy, which does both."),
        ),
        line=loss.call.line,
    )


CHECK = Check(
    "nll_on_probabilities",
    "a log-likelihood gets log-probabilities",
    judge,
    (Cause.NLL_ON_PROBABILITIES,),
    parameters=(Parameter(POSITIVE, 1e-3, "how far above 0 a log-probability may lie, by rounding", 0.0, 1.0),),
    source="torch.nn.NLLLoss: the input is expected to contain log-probabilities of each class",
)
