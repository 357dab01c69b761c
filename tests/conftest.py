"""Marks what needs a real kernel or browser by its folder, and lets CI insist that those tests ran.

Several workers may share the tests; a file's stay together.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is there: workers would wait for each other's cores

HERE = Path(__file__).parent
REAL = ("kernel", "browser")
REQUIRED = os.environ.get("NBDEBUG_REQUIRE_BROWSER") == "1"
ran: pytest.StashKey[set[str]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("NBDEBUG_JOURNAL", "off")  # tests of the journal say where theirs goes
    config.stash[ran] = set()
    config.pluginmanager.register(Seen(config))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark by folder."""
    for name in REAL:
        if item.path.is_relative_to(HERE / name):
            item.add_marker(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those in a real kernel or browser take longest, so they come first."""
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in REAL))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    kinds = {name for name in REAL if item.get_closest_marker(name)}
    if REQUIRED and kinds and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"Skipped, though NBDEBUG_REQUIRE_BROWSER=1 requires it: {report.longrepr}"
    return report


class Seen:
    """Notes which kinds of tests ran; workers report them to the one that started them."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and not report.skipped:
            self.config.stash[ran].update(name for name in REAL if name in report.keywords)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workerinput"):
        return
    missing = set(REAL) - session.config.stash[ran]
    if REQUIRED and missing and exitstatus == pytest.ExitCode.OK:
        print(f"\nNBDEBUG_REQUIRE_BROWSER=1, but no test ran that needs a real {' or '.join(sorted(missing))}.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
