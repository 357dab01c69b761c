"""Runs jobs in child processes of their own, a few at a time: one that hangs or crashes is a result, not the end."""

from __future__ import annotations

import multiprocessing
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

STARTING_S = 120.0  # a child imports torch before its first job
READY = "ready"


@dataclass(frozen=True)
class Outcome:
    """What a job gave: its ``value``, or the ``error`` in words."""

    job: Any
    value: Any = None
    error: str = ""


@dataclass(eq=False)
class Worker:
    """A child process, what it works on, and until when it may."""

    work: Callable[[Any], Any]
    job: Any = None
    deadline: float = float("inf")
    ready: bool = False
    process: Any = field(init=False)
    pipe: Connection = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.work), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, job: Any, limit_s: float) -> None:
        """Start a job."""
        self.job = job
        self.deadline = time.monotonic() + (limit_s if self.ready else STARTING_S)
        self.pipe.send(job)

    def end(self) -> None:
        """Kill the process and wait for it."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run(
    work: Callable[[Any], Any], jobs: Iterable[Any], *, workers: int = 1, limit_s: float = 30.0
) -> Iterator[Outcome]:
    """The outcome of each job as it comes; ``work`` must be a function that a fresh process can import."""
    waiting = list(jobs)[::-1]
    crew = [Worker(work) for _ in range(min(workers, len(waiting)))]
    try:
        for worker in crew:
            worker.give(waiting.pop(), limit_s)
        while crew:
            for worker, outcome in _next(crew, limit_s):
                crew.remove(worker)
                if worker.process.is_alive() and not outcome.error.startswith("took longer"):
                    successor = worker
                else:
                    worker.end()
                    successor = None
                if waiting:
                    successor = successor or Worker(work)
                    successor.give(waiting.pop(), limit_s)
                    crew.append(successor)
                elif successor:
                    successor.end()
                yield outcome
    finally:
        for worker in crew:
            worker.end()


def _next(crew: list[Worker], limit_s: float) -> list[tuple[Worker, Outcome]]:
    """Wait until at least one worker has answered, died or run out of time."""
    until = min(worker.deadline for worker in crew)
    ready = wait([worker.pipe for worker in crew], max(0.0, until - time.monotonic()))
    answered = [worker for worker in crew if worker.pipe in ready]
    done = [(worker, outcome) for worker in answered if (outcome := _answer(worker, limit_s)) is not None]
    late = [worker for worker in crew if worker not in answered and time.monotonic() >= worker.deadline]
    return done + [(worker, Outcome(worker.job, error=f"took longer than {limit_s:g} s")) for worker in late]


def _answer(worker: Worker, limit_s: float) -> Outcome | None:
    """What a worker sent; ``None`` where it only said that it has started, from when on its time counts."""
    try:
        message = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        return Outcome(worker.job, error=f"the process ended with exit code {worker.process.exitcode}")
    if message == READY:
        worker.ready, worker.deadline = True, time.monotonic() + limit_s
        return None
    return Outcome(worker.job, *message)


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """The child's life: one job after the other, on one thread."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # faulty programs rouse warnings by the dozen
    pipe.send(READY)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            answer = (work(job), "")
        except Exception:
            answer = (None, traceback.format_exc(limit=-3))
        pipe.send(answer)
