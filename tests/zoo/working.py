"""Jobs for the pool's tests, which a fresh process imports."""

from __future__ import annotations

import os
import time


def work(job: str) -> str:
    """Does as it is told: answers, raises, ends its process, or never comes back."""
    if job == "raise":
        raise ValueError("told to")
    if job == "exit":
        os._exit(7)
    while job == "hang":
        time.sleep(0.1)
    return f"{job} in {os.getpid()}"
