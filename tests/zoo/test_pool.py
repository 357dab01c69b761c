"""A program that raises, crashes or hangs is an outcome, and those after it are run all the same."""

from __future__ import annotations

import multiprocessing

from tests.zoo import pool
from tests.zoo.working import work


def test_every_job_has_an_outcome_whatever_becomes_of_it() -> None:
    jobs = ["first", "raise", "exit", "hang", "last"]
    outcomes = {outcome.job: outcome for outcome in pool.run(work, jobs, workers=1, limit_s=3.0)}
    assert list(outcomes) == jobs
    assert outcomes["first"].value.startswith("first in ") and outcomes["last"].value.startswith("last in ")
    assert "ValueError: told to" in outcomes["raise"].error
    assert outcomes["exit"].error == "the process ended with exit code 7"
    assert outcomes["hang"].error == "took longer than 3 s"
    assert multiprocessing.active_children() == []


def test_a_worker_goes_on_with_the_next_job() -> None:
    values = [outcome.value for outcome in pool.run(work, ["a", "b", "c"], workers=1)]
    assert len({value.split()[-1] for value in values}) == 1


def test_no_jobs_no_processes() -> None:
    assert list(pool.run(work, [])) == []


def test_giving_up_midway_ends_the_children() -> None:
    outcomes = pool.run(work, ["a", "hang", "hang"], workers=2, limit_s=60.0)
    assert next(outcomes).job == "a"
    outcomes.close()
    assert multiprocessing.active_children() == []
