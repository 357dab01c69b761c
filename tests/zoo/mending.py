"""Mends one faulty program by its finding's remedies, and holds it against its healthy twin. In a child process.

The ladder is climbed until a remedy is said to help; that is gone on with, for as many steps as the twin is trained.
Where the cause is found again on the way, so is its ladder. Harmless changes are tried as if they were remedies.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

import numpy as np

from nbdebug import Debugger, State
from nbdebug.records.commands import Changes, Clip, ClipMode, Command, Mendable, Rerun, SetKnobs
from nbdebug.records.findings import Finding, Remedy
from tests.zoo.collection import named
from tests.zoo.judging import sources
from tests.zoo.mended import Mended, Tried
from tests.zoo.program import Program
from tests.zoo.training import judged_by_steps

ABLE = get_args(Mendable)
AT_ONCE = 40  # steps before a remedy of what was found before training
MOST_STOPS = 10  # at warnings of other causes
ROUNDS = 3  # of climbing, where the cause is found again
FEWEST_STEPS = 300  # that the mended program and its twin are trained: while losses fall fast, a small lead looks large
HARMLESS = 0.4  # of the time at most, until the last harmless change is begun
LAST = 3  # validations that the loss at the end is the mean of; of training, the last fifth


class Mend(NamedTuple):
    """What a child process is to do: mend a program, with a seed, in about so many seconds."""

    program: str
    seed: int
    seconds: float = 25.0


@dataclass(frozen=True)
class End:
    """A run's loss at its end and where it began, by validation (if there was any) and by training."""

    train: float
    train_first: float
    val: float | None = None
    val_first: float | None = None


def work(job: Mend) -> Mended:
    """Mend one program, in a child process."""
    with judged_by_steps():
        return replace(mend(named(job.program), job.seed, job.seconds), sources=sources())


def mend(program: Program, seed: int, seconds: float) -> Mended:
    """Find the planted cause, climb its ladder, train on, and compare; then what harmless changes are taken for."""
    began = time.monotonic()
    made = Mended(program.name, seed, program.cause, program.family)
    model, trainer = program.build(seed)
    debugger = Debugger(model, trainer, journal=None)

    def is_late(part: float = 1.0) -> bool:
        return time.monotonic() - began > part * seconds

    try:
        finding = _found(debugger, program)
        made = replace(made, named=finding is not None, able=len(_able(finding)) if finding else 0)
        if finding is not None and made.able:
            made = replace(made, wrong=_harmless(debugger, trainer, program, finding, lambda: is_late(HARMLESS)))
            tried, place = _mended(debugger, program, finding, is_late)
            made = replace(made, tried=tried)
            made = made if place is None else _held_against_twin(debugger, program, place, made)
    finally:
        debugger.close()
    return replace(made, seconds=time.monotonic() - began)


def _able(finding: Finding) -> list[Remedy]:
    """Its remedies that the debugger can do itself."""
    return [each for each in finding.remedies if isinstance(each.command, ABLE)]


def _found(debugger: Any, program: Program) -> Finding | None:
    """The finding that names the planted cause, as soon as there is one."""
    debugger.preflight()
    finding = _naming(debugger, program)
    if finding is not None and not _able(finding):
        return finding
    if finding is not None:
        _train(debugger, AT_ONCE)
        return _naming(debugger, program) or finding
    return _found_live(debugger, program) if program.live else None


def _found_live(debugger: Any, program: Program) -> Finding | None:
    _train_until_named(debugger, program, program.live)
    return _naming(debugger, program)


def _train_until_named(debugger: Any, program: Program, steps: int, known: Finding | None = None) -> None:
    """So many steps, but for a stop where the planted cause is found, or found once more. Stops at other warnings."""
    stop, last = debugger.break_on("warning"), debugger.status.step + steps
    over = _train(debugger, steps)
    for _ in range(MOST_STOPS):
        if over or _naming(debugger, program, known) or debugger.state is not State.PAUSED:
            break
        debugger.resume()
        debugger.wait()
        over = debugger.status.step >= last
    debugger.remove_breakpoint(stop)


def _naming(debugger: Any, program: Program, known: Finding | None = None) -> Finding | None:
    """The finding that names the planted cause; with ``known``, another one, and of the run in the model."""
    mine = [each for each in debugger.findings if each.cause == program.cause]
    if known is not None:
        run = debugger.status.run
        mine = [each for each in mine if each.run == run and (each.run, each.step) != (known.run, known.step)]
    return mine[0] if mine else None


def _train(debugger: Any, steps: int) -> bool:
    """Whether all these steps could be taken. What the program raises is a finding's matter."""
    wanted = debugger.status.step + steps
    try:
        debugger.run(steps=steps)
    except Exception:
        return False
    return bool(debugger.status.step == wanted)


def _mended(
    debugger: Any, program: Program, finding: Finding, is_late: Callable[[], bool]
) -> tuple[tuple[Tried, ...], int | None]:
    """What was tried, and the step from which on the last remedy that helped is in force, ``None`` without any.

    It is trained on with for as many steps as the twin, or as it was tried for.
    """
    tried: tuple[Tried, ...] = ()
    place: int | None = None
    for _ in range(ROUNDS):
        proof, more = _climbed(debugger, finding, is_late)
        tried = (*tried, *more)
        if proof is None:
            break
        debugger.apply_remedy(proof)
        place = proof.comparison.first_step - 1
        left = place + _length(program) - debugger.status.step
        if left > 0:
            _train_until_named(debugger, program, left, finding)
        again = _naming(debugger, program, finding)
        if again is None or not _able(again):
            break
        finding = again
    return tried, place


def _length(program: Program) -> int:
    return max(program.live, program.steps, FEWEST_STEPS)


def _climbed(debugger: Any, finding: Finding, is_late: Callable[[], bool]) -> tuple[Any, tuple[Tried, ...]]:
    """The proof of the first remedy that helps, ``None`` without one, and what came of each."""
    tried: list[Tried] = []
    for rung, remedy in enumerate(_able(finding)):
        if is_late():
            return None, (*tried, Tried(remedy.text, why="was not reached in time"))
        proof, told = _tried(debugger, finding, rung, remedy.text)
        tried.append(told)
        if told.helped:
            return proof, tuple(tried)
    return None, tuple(tried)


def _tried(debugger: Any, finding: Finding, rung: int, name: str) -> tuple[Any, Tried]:
    try:
        proof = debugger.try_remedy(finding, rung=rung)
    except Exception as error:  # the table says so
        return None, Tried(name, why=f"raised {type(error).__name__}: {error}")
    return proof, Tried(name, str(proof.comparison.verdict), bool(proof.helped))


def _held_against_twin(debugger: Any, program: Program, place: int, made: Mended) -> Mended:
    """The loss at the end beside that of the twin after as many steps."""
    steps = max(_length(program), debugger.status.step - place)
    if (left := place + steps - debugger.status.step) > 0:
        _train(debugger, left)
    mended, sound = _end(debugger, place, place + steps), _twin(program, made.seed, steps)
    if mended.val is not None and sound.val is not None and sound.val_first is not None:
        return replace(made, by="validation", loss=mended.val, twin=sound.val, twin_first=sound.val_first)
    return replace(made, by="training", loss=mended.train, twin=sound.train, twin_first=sound.train_first)


def _twin(program: Program, seed: int, steps: int) -> End:
    debugger = Debugger(*named(f"{program.name}_healthy").build(seed), journal=None, checks=False)
    try:
        debugger.run(steps=steps)
        return _end(debugger, 0, steps)
    finally:
        debugger.close()


def _end(debugger: Any, first: int, last: int) -> End:
    """Of the steps after ``first``, as far as ``last``: how it began, and the mean over the end."""
    train = _values(debugger, "loss/train", first, last)
    val = _values(debugger, "loss/val", first, last)
    end = End(float(train[-max(1, (last - first) // 5) :].mean()), float(train[:3].mean()))
    return end if len(val) < LAST else replace(end, val=float(val[-LAST:].mean()), val_first=float(val[0]))


def _values(debugger: Any, key: str, first: int, last: int) -> Any:
    if key not in debugger.history:
        return np.zeros(0)
    seen = debugger.history[key]
    return seen.values[(seen.steps > first) & (seen.steps <= last)]


# -- harmless changes ------------------------------------------------------------------------------------------------


def _harmless(
    debugger: Any, trainer: Any, program: Program, finding: Finding, is_late: Callable[[], bool]
) -> tuple[Tried, ...]:
    """Two of the kinds, by the program's name."""
    kinds = kinds_of(trainer)
    names = sorted(kinds)
    turn = zlib.crc32(program.name.encode())
    tried = []
    for step in (0, 1):
        name = names[(turn + step * (1 + turn // 7 % (len(names) - 1))) % len(names)]
        if not is_late():
            meant = replace(finding, remedies=(Remedy(name, kinds[name]),))
            tried.append(_tried(debugger, meant, 0, name)[1])
    return tuple(tried)


def kinds_of(trainer: Any) -> dict[str, Command]:
    """Changes that should not help: of nothing, of next to nothing, and of chance."""
    kinds: dict[str, Command] = {
        "another seed": Rerun(0, seed=4711),
        "clipping far above every norm": SetKnobs(Changes(clip=Clip(ClipMode.NORM, 1e30))),
        "noise of 1e-8 on gradients": SetKnobs(Changes(gradient_noise=1e-8)),
    }
    group = next(iter(trainer.optimizers.values())).param_groups[0]
    if not trainer.schedulers and isinstance(group.get("lr"), float):
        kinds["a rate higher by a thousandth"] = SetKnobs(Changes(lr=1.001 * group["lr"]))
    if isinstance(group.get("weight_decay"), (int, float)):
        kinds["weight decay as it is"] = SetKnobs(Changes(options={"weight_decay": float(group["weight_decay"])}))
    return kinds
