"""Gradients that an update has used are still there at the next backward: each step repeats all those before it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import Backward, Update
from nbdebug.checks.preflight.wiring import listed, weights_in
from nbdebug.records.findings import Cause, Remedy, Severity

SHARE = "stale_gradient_share"
SAME = 1e-2  # how far a gradient may have gone from what the update used, and still be that one


@dataclass(slots=True)
class History:
    """A parameter's course: the norm that its last update used, and what each backward since then found."""

    used: float | None = None
    found: list[float] = field(default_factory=list)


def judge(look: Look, say: Say) -> None:
    """The order of backward passes and updates over consecutive steps.

    Stale at one backward is no fault where another zeroes before the next update, as in a GAN; so all are looked at.
    """
    if len(look.traces) < 2 or not any(trace.updates for trace in look.traces):
        say.skip("no update was followed by another backward")
    stale, judged = _stale(look)
    if not judged:
        say.skip("no update was followed by another backward")
    share = weights_in(look, stale) / max(1, weights_in(look, judged))
    off = say.measure("share of the weights whose used gradients are still there at the next update", share, SHARE)
    if not off:
        return
    say.find(
        Cause.ZERO_GRAD_MISSING,
        Severity.CRITICAL if share > 0.5 else Severity.WARNING,
        "Gradients are not reset before each update",
        f"An update used the gradients of {listed(stale)}, and they are still there when the next backward adds to "
        "them. Each update then follows the sum of all gradients since they were last reset: old ones count again.",
        confidence=0.97,
        layers=tuple(dict.fromkeys(look.layer_of(name) for name in stale)),
        remedies=(Remedy("Reset them once for each update, before backward.", code="optimizer.zero_grad()"),),
        line=next((each.line for trace in look.traces for each in trace.backwards if each.line is not None), None),
    )


def _stale(look: Look) -> tuple[list[str], list[str]]:
    """Parameters that two updates used with no reset between, and all that two updates used."""
    courses: dict[str, History] = {}
    stale: dict[str, None] = {}
    judged: dict[str, None] = {}
    for event in _events(look):
        if isinstance(event, Backward):
            for name in event.reached:
                courses.setdefault(name, History()).found.append(event.stale.get(name, 0.0))
            continue
        for name, norm in event.norms.items():
            if name not in look.parameters:
                continue
            course = courses.setdefault(name, History())
            if course.used and course.found:
                judged[name] = None
                if course.found[0] >= course.used * (1 - SAME) and all(each > 0 for each in course.found):
                    stale[name] = None
            courses[name] = History(norm)
    return list(stale), list(judged)


def _events(look: Look) -> list[Backward | Update]:
    found: list[Backward | Update] = []
    for trace in look.traces:
        events: list[Backward | Update] = [*trace.backwards, *trace.updates]
        found += sorted(events, key=lambda each: each.order)
    return found


CHECK = Check(
    "zero_grad_missing",
    "gradients are reset once they were used",
    judge,
    (Cause.ZERO_GRAD_MISSING,),
    parameters=(Parameter(SHARE, 0.05, "share of the weights whose used gradients may still be there", 0.0, 1.0),),
    source="torch.optim.Optimizer.zero_grad: gradients are summed up over calls of backward until they are reset",
)
