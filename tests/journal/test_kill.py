"""A process killed at any moment: the file opens, and all but the last second is in it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.journal.kill import ALLOWED_LOSS_S, kill_once


@pytest.mark.parametrize("round_", range(5))
def test_a_killed_process_loses_less_than_a_second(tmp_path: Path, round_: int) -> None:
    survived = kill_once(tmp_path / "j.sqlite", random.uniform(0.0, 1.5))
    assert survived.lost_s <= ALLOWED_LOSS_S
