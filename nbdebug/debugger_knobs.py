"""Every knob as the dashboard is told of it: values, where they come from, what the parts in use are. Any thread."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from nbdebug.records.schedules import Interval, Schedule, ScheduleKind
from nbdebug.records.status import AverageTaken, KnobStates
from nbdebug.training.averaging import Average, Ema
from nbdebug.training.schedules import Factor, WarmPlateau
from nbdebug.training.session import Session


def knob_states(session: Session, init_layers: tuple[str, ...]) -> KnobStates:
    """Every knob's value, and where it comes from."""
    timeline = session.timeline
    states = replace(
        session.knobs.states(init_layers),
        origins=tuple(timeline.origins(timeline.here).items()),
        buttons=tuple(session.own.buttons),
        average=average_taken(session.refitter.average),
        **session.refitter.told(),
    )
    schedules = [schedule_of(each, session.trainer.scheduler_interval) for each in session.trainer.schedulers.values()]
    if not schedules or any(schedule is None for schedule in schedules):
        return states
    kinds = dict.fromkeys(schedule.kind.replace("_", " ") for schedule in schedules if schedule)
    texts = dict.fromkeys(str(schedule) for schedule in schedules)
    return replace(states, schedule=", ".join(kinds), schedule_text="; ".join(texts))


def schedule_of(scheduler: Any, interval: str) -> Schedule | None:
    """The record of a scheduler that was made from one; ``None`` of any other."""
    factors = getattr(scheduler, "lr_lambdas", ())
    if factors and isinstance(factors[0], Factor):
        known = {each.name: getattr(factors[0], each.name) for each in fields(Schedule)}
        return Schedule(**{**known, "kind": ScheduleKind(known["kind"]), "interval": Interval(known["interval"])})
    if isinstance(scheduler, WarmPlateau) and interval in list(Interval):
        base = float(scheduler.base_lrs[0])
        return Schedule(
            ScheduleKind.PLATEAU,
            Interval(interval),
            gamma=scheduler.factor,
            floor=float(scheduler.min_lrs[0]) / base if base else 0.0,
            patience=scheduler.patience,
            threshold=scheduler.threshold,
            cooldown=scheduler.cooldown,
            warmup_steps=scheduler.warmup_steps,
            warmup_start=scheduler.warmup_start,
        )
    return None


def average_taken(average: Average | None) -> AverageTaken | None:
    """The average of the weights that is taken, if one is."""
    if average is None:
        return None
    rule = average.rule
    if isinstance(rule, Ema):
        return AverageTaken("ema", average.taken, decay=rule.decay)
    return AverageTaken("swa", average.taken, start=rule.start, every=rule.every)
