"""A norm over one value gives zero whatever it is given; over two, only which of them is larger."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Call, StepTrace
from nbdebug.records.findings import Cause, Remedy, Severity

VALUES = "fewest_normalised_values"
SPATIAL = "more than 1 spatial element"
PER_CHANNEL = "more than 1 value per channel"
ERRORS = (PER_CHANNEL, SPATIAL)


def judge(look: Look, say: Say) -> None:
    """How many values each norm at work takes its statistics over; and whether one raised for having a single one."""
    trace = look.called
    if trace.error is not None and any(each in str(trace.error) for each in ERRORS):
        _tell_error(say, trace.error)
        return
    norms = [(call, count) for call in trace.calls for count in _counts(trace, call)]
    if not norms:
        _judge_sizes(look, say)
        say.skip("nothing is normalised")
    call, count = min(norms, key=lambda each: each[1])
    if say.measure(f"values in one statistic of {call.layer or call.name}", count, VALUES, above=False):
        _tell(look, say, call, count)
        return
    _judge_sizes(look, say)


def _counts(trace: StepTrace, call: Call) -> Iterator[int]:
    """Over how many values a call's statistics are, if it is a norm and takes any."""
    shape = trace.values[call.inputs[0]].shape if call.inputs else ()
    if not shape:
        return
    name = call.name
    if name in ("layer_norm", "rms_norm"):
        wanted = call.option("normalized_shape", 0)
        count = math.prod(wanted) if isinstance(wanted, tuple) else 0
        if count:
            yield count
    elif name == "group_norm" and len(shape) > 1:
        groups = call.option("num_groups", 0)
        if isinstance(groups, int) and groups:
            yield shape[1] // groups * math.prod(shape[2:])
    elif name == "instance_norm" and len(shape) > 2 and call.option("use_input_stats", 0, True):
        yield math.prod(shape[2:])
    elif name == "batch_norm" and len(shape) > 1 and _takes_batch_statistics(call):
        yield shape[0] * math.prod(shape[2:])


def _takes_batch_statistics(call: Call) -> bool:
    return bool(call.option("training", 0, False))


def _judge_sizes(look: Look, say: Say) -> None:
    """A batch of one sample comes at the end of the epoch: then a batch norm without places raises."""
    flat = [
        call
        for call in look.trace.named("batch_norm")
        if _takes_batch_statistics(call) and math.prod(look.trace.values[call.inputs[0]].shape[2:]) == 1
    ]
    sizes = look.data.sizes
    if not flat or not sizes or max(sizes) == 1 or sizes.count(1) != 1 or sizes[-1] != 1 or not look.whole_epoch:
        return
    if look.trace.values[flat[0].inputs[0]].shape[0] != sizes[0]:
        return
    say.find(
        Cause.DEGENERATE_NORMALIZATION,
        Severity.WARNING,
        "The last batch has a single sample",
        f"The epoch's last batch holds one sample, and {flat[0].layer or 'a batch norm'} has one value for each "
        "sample: there is no deviation of one value, and PyTorch raises an error there.",
        confidence=0.9,
        layers=(flat[0].layer,) if flat[0].layer else (),
        remedies=(Remedy("Leave incomplete batches out.", code="DataLoader(…, drop_last=True)"),),
        line=flat[0].line,
    )


def _tell(look: Look, say: Say, call: Call, count: int) -> None:
    layer = call.layer or ""
    where = look.code_name(layer) if layer else call.name
    given = look.trace.values[call.inputs[0]].shape
    does = "gives zero (or its bias) whatever comes in" if count == 1 else "keeps only which of the two is larger"
    say.find(
        Cause.DEGENERATE_NORMALIZATION,
        Severity.CRITICAL if count == 1 else Severity.WARNING,
        f"A norm over {'one value' if count == 1 else f'{count} values'}",
        f"{where} ({call.name}) gets shape {given} and takes mean and deviation over {count} "
        f"value{'s' if count > 1 else ''}: it {does}. What lies before it can tell nothing more to what follows.",
        confidence=0.97 if count == 1 else 0.8,
        layers=(layer,) if layer else (),
        remedies=(
            Remedy(
                "Take the norm out there, or normalise over more: fewer groups, before the pooling, larger batches."
            ),
        ),
        line=call.line,
    )


def _tell_error(say: Say, error: BaseException) -> None:
    per_channel = PER_CHANNEL in str(error)
    say.measure("values in one statistic", 1, VALUES, above=False)
    say.find(
        Cause.DEGENERATE_NORMALIZATION,
        Severity.CRITICAL,
        "A norm over one value",
        f"The step raises: {error}. "
        + ("A batch norm needs more than one sample in training." if per_channel else "An instance norm needs places."),
        remedies=(
            Remedy("Make batches larger (and set drop_last=True), or use LayerNorm or GroupNorm.")
            if per_channel
            else Remedy("Put the norm before the pooling, or take it out."),
        ),
    )


CHECK = Check(
    "degenerate_normalization",
    "norms have enough values for a mean and a deviation",
    judge,
    (Cause.DEGENERATE_NORMALIZATION,),
    parameters=(Parameter(VALUES, 2.5, "values that a norm must have for each of its statistics", 1.0),),
    source="torch.nn.BatchNorm1d, GroupNorm, LayerNorm: normalised by mean and deviation over the given values",
)
