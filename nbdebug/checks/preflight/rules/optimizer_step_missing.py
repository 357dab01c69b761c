"""backward runs and gradients are there, but no update is made: the optimizer's step is never taken."""

from __future__ import annotations

from collections.abc import Sequence

from nbdebug.checks.check import Check, Say
from nbdebug.checks.parameters import Parameter
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.preflight.wiring import moving
from nbdebug.records.findings import Cause, Remedy, Severity

STEPS = "steps_without_update"


def judge(look: Look, say: Say) -> None:
    """Optimizers whose parameters get gradients and that take no step for so long that it is no accumulation."""
    if any(trace.error is not None for trace in look.traces):
        say.skip("the step raises an error")
    idle = _idle(look, look.traces)
    if not idle:
        return
    steps = len(look.traces)
    if look.bench is not None:
        idle, steps = _longer(look, say, idle)
    else:
        idle, steps = _by_norms(look, idle)
    for name in idle:
        if say.measure("steps with a backward and without an update", steps, STEPS):
            _tell(look, say, name, steps)
            return
    if idle:
        say.skip(f"no update in {steps} steps, which may be accumulation: debugger.preflight() looks at more of them")


def _idle(look: Look, traces: Sequence[StepTrace]) -> list[str]:
    """Optimizers without a step whose parameters each of these steps reaches, and nobody moves."""
    stepped = {update.optimizer for trace in traces for update in trace.updates}
    moved = moving(look) | {name for trace in traces for name, far in trace.moved.items() if far > 0}
    found = []
    for name, names in _held(look).items():
        reached = bool(traces) and all(any(names & each.reached for each in trace.backwards) for trace in traces)
        if name not in stepped and reached and not names & moved:
            found.append(name)
    return found


def _held(look: Look) -> dict[str, set[str]]:
    by_id = {id(parameter): name for name, parameter in look.parameters.items()}
    return {
        name: {by_id[id(each)] for group in optimizer.param_groups for each in group["params"] if id(each) in by_id}
        for name, optimizer in look.optimizers.items()
    }


def _longer(look: Look, say: Say, idle: list[str]) -> tuple[list[str], int]:
    bench, steps = look.experiments, 0
    with bench.fresh():
        while idle and steps <= say.limit(STEPS):
            trace = bench.trace(look.batches[steps % len(look.batches)])
            if trace.error is not None:
                say.skip("a later step raises an error")
            idle = [name for name in _idle(look, [trace]) if name in idle]
            steps += 1
    return idle, steps


def _by_norms(look: Look, idle: list[str]) -> tuple[list[str], int]:
    """Passive: whether the weights are what they were at the first step that was seen, by their norms."""
    held, before = _held(look), look.trace.norms
    same = [
        name
        for name in idle
        if all(float(look.parameters[each].detach().abs().float().norm()) == before.get(each) for each in held[name])
    ]
    return same, look.steps


def _tell(look: Look, say: Say, name: str, steps: int) -> None:
    called = f"optimizers[{name!r}]" if name else "optimizer"
    alone = len(look.optimizers) == 1
    say.find(
        Cause.OPTIMIZER_STEP_MISSING,
        Severity.CRITICAL,
        "The optimizer never takes a step",
        f"In {steps} steps backward gave the parameters{'' if alone else f' of {called}'} gradients, but "
        f"{called}.step() was never called and no weight moved: nothing is learnt.",
        confidence=0.97 if alone else 0.8,
        remedies=(Remedy("Take the step after backward.", code=f"{called}.step()"),),
    )


CHECK = Check(
    "optimizer_step_missing",
    "gradients are followed by an update",
    judge,
    (Cause.OPTIMIZER_STEP_MISSING,),
    parameters=(Parameter(STEPS, 16, "steps without an update that may be accumulation", 1),),
    source="37 reasons why your neural network is not working: check that the weights are updated",
)
