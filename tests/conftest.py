"""Marks what needs a real kernel or browser by its folder, and lets CI insist that those tests ran."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REAL = ("kernel", "browser")
REQUIRED = os.environ.get("NBDEBUG_REQUIRE_BROWSER") == "1"
ran: pytest.StashKey[set[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("NBDEBUG_JOURNAL", "off")  # tests of the journal say where theirs goes
    config.stash[ran] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, and run the quick tests first, those in a browser last."""
    for item in items:
        for name in REAL:
            if item.path.is_relative_to(HERE / name):
                item.add_marker(name)
    items.sort(key=lambda item: sum(index for index, name in enumerate(REAL, 1) if item.get_closest_marker(name)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    kinds = {name for name in REAL if item.get_closest_marker(name)}
    if REQUIRED and kinds and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"Skipped, though NBDEBUG_REQUIRE_BROWSER=1 requires it: {report.longrepr}"
    if report.when == "call" and not report.skipped:
        item.config.stash[ran] |= kinds
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    missing = set(REAL) - session.config.stash[ran]
    if REQUIRED and missing and exitstatus == pytest.ExitCode.OK:
        print(f"\nNBDEBUG_REQUIRE_BROWSER=1, but no test ran that needs a real {' or '.join(sorted(missing))}.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
