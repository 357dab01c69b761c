"""The fixture ``assert_trainable`` for pytest, which is there wherever nbdebug is installed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nbdebug.records.checks import Report
from nbdebug.testing import assert_trainable as check


@pytest.fixture
def assert_trainable() -> Callable[..., Report]:
    """Fails where checks before training find something; see :func:`nbdebug.testing.assert_trainable`."""
    return check
