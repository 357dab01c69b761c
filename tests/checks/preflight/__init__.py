"""What fails in the tests that :mod:`looking` makes of tables is told with its values, as elsewhere."""

import pytest

pytest.register_assert_rewrite("tests.checks.preflight.looking")
