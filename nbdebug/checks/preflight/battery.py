"""All checks in a row, each on its own: one that raises is told of and the rest go on. Training thread."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from nbdebug.checks.check import Check, Say, Skip
from nbdebug.checks.parameters import Parameters
from nbdebug.checks.preflight import batch_words
from nbdebug.checks.preflight.bench import Bench, CalledOff
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.look import Look
from nbdebug.checks.preflight.outside import Outside
from nbdebug.checks.preflight.registry import checks
from nbdebug.checks.preflight.trace import StepTrace
from nbdebug.checks.ranking import ranked
from nbdebug.records.checks import CALLED_OFF, CheckOutcome, CheckResult, Report
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.stops import BatchView
from nbdebug.training import batches
from nbdebug.training.aside import copied
from nbdebug.training.modules import evaluating
from nbdebug.training.session import Session
from nbdebug.training.sidetrack import sidetrack
from nbdebug.training.thread_context import ThreadContext
from nbdebug.training.trainer import length

MOST_BATCHES = 64
TRACED_STEPS, MOST_TRACED_STEPS = 2, 8  # the latter where an update is waited for
MOST_BYTES = 128_000_000
FETCHING_SHARE = 0.2  # of the battery's time that fetching batches may take
Tell = Callable[[int, int, str], None]


def run(
    session: Session,
    context: ThreadContext,
    parameters: Parameters,
    *,
    skip: Collection[str] = (),
    called_off: Callable[[], bool] = lambda: False,
    tell: Tell = lambda done, total, title: None,
) -> Report:
    """Make every check but those named in ``skip``, until called off; everything is as it was afterwards."""
    began = time.perf_counter()
    run_name, step = session.timeline.current, session.loop.step
    outside = Outside(session.trainer)
    with sidetrack(session, context) as side:
        bench = Bench(session, side, parameters["preflight_seconds"], called_off)
        try:
            look = look_aside(session, bench, parameters)
        except CalledOff:
            unmade = [CheckResult(each.name, each.title, CheckOutcome.SKIPPED, CALLED_OFF) for each in checks()]
            return Report(tuple(unmade), (), run_name, step, time.perf_counter() - began)
        results = judge_all(look, checks(), parameters, run_name, step, skip=skip, tell=tell)
        batch = seen_batch(session, look)
    notes = [*_sampling_notes(look), *outside.notes(bench.steps)]
    found = [finding for result in results for finding in result.findings]
    return Report(tuple(results), ranked(found), run_name, step, time.perf_counter() - began, tuple(notes), batch)


def look_aside(session: Session, bench: Bench, parameters: Parameters) -> Look:
    """Batches of the loaders, and steps in a row that were looked into."""
    training, over = _fetched(bench, parameters)
    validation = _validation(session, len(training))
    with bench.fresh():
        traces = _traced(bench, training)
    return Look(
        session.model,
        session.trainer,
        training,
        validation,
        traces,
        bench=bench,
        epoch_length=length(session.trainer.train_loader) or (len(training) if over else None),
        whole_epoch=over,
        of_one_epoch=len(training),
    )


def _traced(bench: Bench, training: Sequence[Any]) -> list[StepTrace]:
    """Two steps in a row, or more where gradients are added up over several."""
    traces: list[StepTrace] = []
    while training and (
        len(traces) < TRACED_STEPS or (traces[-1].waits_for_update and len(traces) < MOST_TRACED_STEPS)
    ):
        traces.append(bench.trace(training[len(traces) % len(training)]))
    return traces


def seen_batch(session: Session, look: Look) -> BatchView | None:
    """The first batch as the model sees it, with each sample's loss where it can be had."""
    if not look.batches:
        return None
    first, trace = look.batches[0], look.traces[0] if look.traces else None
    losses = None
    if trace is not None and trace.output is not None:
        with torch.no_grad():
            losses = session.investigator.sample_losses(session.trainer.loss_fn, trace.output, trace.target)
    view = session.investigator.batch_view(first, losses)
    return None if view is None else replace(view, summary=(*view.summary, *batch_words.lines(look)))


def _fetched(bench: Bench, parameters: Parameters) -> tuple[list[Any], bool]:
    """Batches until there are enough samples, the epoch or the time for it is over; whether it is a whole epoch."""
    epoch = length(bench.trainer.train_loader)
    taken: list[Any] = []
    began, samples, size_bytes = time.perf_counter(), 0, 0
    while len(taken) < min(epoch or MOST_BATCHES, MOST_BATCHES) and samples < parameters["preflight_samples"]:
        batch = copied(bench.fetch())
        if bench.has_next_epoch_begun and taken:
            return taken, epoch is None and bench.is_from_start
        taken.append(batch)
        samples += batches.samples(batch, None)
        size_bytes += sum(tensor.numel() * tensor.element_size() for _, tensor in leaves(batch))
        if size_bytes > MOST_BYTES:
            break
        if len(taken) > 1 and time.perf_counter() - began > FETCHING_SHARE * parameters["preflight_seconds"]:
            break
    return taken, len(taken) == epoch


def _validation(session: Session, most: int) -> list[Any]:
    loader = session.trainer.val_loader
    if loader is None:
        return []
    found = []
    workers = getattr(loader, "_iterator", None)
    with evaluating(session.model):
        for batch in loader:
            found.append(copied(batches.move(batch, session.loop.device)))
            if len(found) >= most:
                break
    if getattr(loader, "persistent_workers", False):
        loader._iterator = workers  # type: ignore[attr-defined]  # those that were begun here have drawn already
    return found


def judge_all(
    look: Look,
    which: Sequence[Check],
    parameters: Parameters,
    run_name: str,
    step: int,
    *,
    skip: Collection[str] = (),
    tell: Tell = lambda done, total, title: None,
) -> list[CheckResult]:
    """What each check comes to; those that are called off are listed as skipped."""
    results: list[CheckResult] = []
    over = ""
    for done, check in enumerate(which):
        tell(done, len(which), check.title)
        if check.name in skip:
            results.append(CheckResult(check.name, check.title, CheckOutcome.SKIPPED, "you asked to leave it out"))
        elif over:
            results.append(CheckResult(check.name, check.title, CheckOutcome.SKIPPED, over))
        else:
            result, over = judge(check, look, parameters, run_name, step)
            results.append(result)
    return results


def judge(check: Check, look: Look, parameters: Parameters, run_name: str, step: int) -> tuple[CheckResult, str]:
    """What one check comes to; and why no other should be made after it, if so."""
    say = Say(parameters, run_name, step, check.source)
    began = time.perf_counter()
    over, why, outcome = "", "", CheckOutcome.PASSED
    try:
        if look.bench is not None and not check.passive and look.bench.seconds_left < 0:
            raise Skip("the time for all checks is over: raise the parameter preflight_seconds")
        check.judge(look, say)
        outcome = CheckOutcome.FAILED if say.findings else CheckOutcome.PASSED
    except Skip as reason:
        outcome = CheckOutcome.FAILED if say.findings else CheckOutcome.SKIPPED
        why = str(reason)
    except CalledOff:
        outcome, why = CheckOutcome.SKIPPED, CALLED_OFF
        over = why
    except (
        Exception
    ) as error:  # a check meets any program there is; what it stumbles over is told, and training goes on
        outcome, why = CheckOutcome.BROKE, f"{type(error).__name__}: {error}"
        say.findings.append(disabled(f"the check {check.name} ({check.title})", error, run_name, step))
    text = "; ".join(part for part in (why, *say.notes) if part)
    seconds = time.perf_counter() - began
    found = tuple(say.findings)
    return CheckResult(check.name, check.title, outcome, text, seconds, _finite(say.measured), found), over


def _finite(measured: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(each for each in measured if not math.isnan(each.value))


def disabled(what: str, error: Exception, run_name: str, step: int) -> Finding:
    """Something of the checks raised an error, and is left out."""
    why = f"{what} raised an error on this program, and was left out. Training is not affected."
    title = f"{what[0].upper()}{what[1:]} was not possible"
    text = "".join(traceback.format_exception(error))
    return Finding(Cause.CHECK_DISABLED, Severity.INFO, run_name, step, title, why[0].upper() + why[1:], text)


def _sampling_notes(look: Look) -> list[str]:
    notes = []
    if not look.whole_epoch:
        of = f" of {look.epoch_length:,}" if look.epoch_length else ""
        notes.append(f"{len(look.batches)}{of} batches were looked at, not the whole epoch")
    if look.traces and look.traces[0].truncated:
        notes.append("the step calls so many functions that only the first ones were looked at")
    return notes
