"""What can be asked for now, and why not. Pure; any thread."""

from __future__ import annotations

from nbdebug.dashboard import words
from nbdebug.records.status import State, Status
from nbdebug.records.view import View

STORED = "a journal from disk: there is no training to act on"


def blocked(view: View) -> str:
    """Why nothing that changes model or runs can be asked for; empty when it can."""
    if view.stored:
        return STORED
    return _busy(view.status)


def _busy(status: Status) -> str:
    if status.state is State.REWINDING:
        return "the model is being rewound: wait, or cancel it in the bar above"
    if status.activity:
        return f"{status.activity.partition(':')[0]}: wait, or cancel it in the bar above"
    return "training is stopping" if status.state is State.STOPPING else ""


def rewind_blocked(view: View) -> str:
    """Why the model can't be rewound; empty when it can."""
    nothing = "" if rewind_last(view) else "no step taken yet: nothing to go back to"
    return blocked(view) or view.rewindable.blocked or nothing


def rewind_last(view: View) -> int:
    """The furthest step that the rewind slider reaches."""
    return max(view.rewindable.last, view.status.step, 0)


def rewound(status: Status) -> bool:
    """Whether the model stands before the end of its run, so that what comes next begins a branch."""
    return status.step < status.last_step and status.state is not State.REWINDING


def turned_back(view: View) -> bool:
    """Whether the person went back and has not gone on yet: rewound, or on a branch without a step of its own."""
    run = next((run for run in view.runs if run.run.name == view.status.run), None)
    fresh = run is not None and run.run.parent is not None and run.steps == 0
    return rewound(view.status) or (fresh and view.status.state is not State.RUNNING)


def here(view: View) -> int | None:
    """The step at which a rewound model stands; ``None`` at the end of its run and where there is no model."""
    return view.status.step if rewound(view.status) and not view.stored else None


def place(view: View) -> str:
    """``rewound to step 120 of 412``; empty at the end of the run and where there is no model."""
    step = here(view)
    return "" if step is None else f"rewound to step {words.count(step)} of {words.count(view.status.last_step)}"


def step_s(view: View) -> float:
    """Seconds that a step takes, 0 while unknown: as measured for replays, else as training goes."""
    if view.rewindable.step_s > 0:
        return view.rewindable.step_s
    return 1 / view.status.steps_per_s if view.status.steps_per_s > 0 else 0.0
