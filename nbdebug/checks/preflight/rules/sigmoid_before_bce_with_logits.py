"""The loss applies a sigmoid itself, and gets probabilities: it can't say no, and gradients shrink."""

from __future__ import annotations

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.dropping import layers, place, without
from nbdebug.checks.preflight.intervals import bounds
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.lossward import SOFTMAXES, chain, last_shaping, meetings, weighed
from nbdebug.checks.preflight.trace import MOVES, Call, StepTrace
from nbdebug.records.findings import Cause, Severity

ROOM = "logit_bound"
SIGMOIDS = frozenset({"sigmoid", "special_expit", "expit", "hardsigmoid", "logsigmoid", "log_sigmoid"})
AGAIN = frozenset({"sigmoid", "special_expit", "expit", "logsigmoid", "log_sigmoid"})


def judge(look: Look, say: Say) -> None:
    """Every binary cross entropy of logits that training goes by, torch's and those written by hand."""
    trace = look.called
    for meeting in meetings(trace):
        loss = meeting.loss
        if loss.name == "binary_cross_entropy_with_logits":
            _judge(look, trace, loss.input_number, loss.call, say)
    if not say.findings:
        _judge_by_hand(look, trace, say)


def _judge(look: Look, trace: StepTrace, number: int, call: Call, say: Say) -> None:
    low, high = bounds(trace, number, call.index)
    bounded = say.measure("the greatest size that the loss's input can have", max(-low, high), ROOM, above=False)
    made = _squashing(trace, number, call)
    if made is None or (not bounded and made.name not in ("logsigmoid", "log_sigmoid")) or (low < 0 < high):
        return
    _tell(look, say, made, call, trace.values[number].shape)


def _squashing(trace: StepTrace, number: int, call: Call) -> Call | None:
    """The sigmoid or softmax that a loss's input comes from; a quotient such as ``1 / (1 + exp(-x))`` counts as one."""
    known = SIGMOIDS | SOFTMAXES
    found = next((each for each in chain(trace, number, call.index) if each.name.rstrip("_") in known), None)
    return found if found is not None else last_shaping(trace, number, call.index)


def _judge_by_hand(look: Look, trace: StepTrace, say: Say) -> None:
    """A sigmoid of a sigmoid or softmax, with nothing between, on the way to the loss."""
    for index in weighed(trace, through=True):
        call = trace.calls[index]
        if call.name.rstrip("_") not in AGAIN or call.name in MOVES or not call.inputs:
            continue
        made = last_shaping(trace, call.inputs[0], call.index)
        if made is not None and made.name.rstrip("_") in SIGMOIDS | SOFTMAXES and made.name not in ("logsigmoid",):
            _tell(look, say, made, call, trace.values[call.inputs[0]].shape)
            return


def _tell(look: Look, say: Say, made: Call, call: Call, shape: tuple[int, ...]) -> None:
    softmax = made.name in SOFTMAXES
    say.find(
        Cause.SIGMOID_BEFORE_BCE_WITH_LOGITS,
        Severity.CRITICAL,
        f"A {'softmax' if softmax else 'sigmoid'} before a loss of logits",
        f"{call.name} takes a sigmoid by itself, and gets values that {made.name}{place(made)} has already squashed. "
        "Of a number between 0 and 1 the sigmoid is between 0.50 and 0.73: no sample can be called negative, the loss "
        "of one can't fall below 0.69, and gradients shrink.",
        confidence=0.99,
        layers=layers(made),
        remedies=(
            without(look, made, f"Give the loss the values from before {made.name}; take it only to read them."),
        ),
        line=made.line or call.line,
    )


CHECK = Check(
    "sigmoid_before_bce_with_logits",
    "a loss of logits gets logits, not probabilities",
    judge,
    (Cause.SIGMOID_BEFORE_BCE_WITH_LOGITS,),
    parameters=(
        Parameter(ROOM, 1.0001, "a loss of logits whose input can't exceed this has been squashed before", 0.0),
    ),
    source="torch.nn.BCEWithLogitsLoss: combines a sigmoid layer and the BCELoss in one class",
)
