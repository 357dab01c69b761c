"""Finds a Chromium for the browser tests, or installs one: ``python -m scripts.ensure_browser`` prints its path.

In this order: the system's, Playwright's own, and, as root on a system with apt, the distribution's package. A browser
counts when it starts, because a downloaded one may lack system libraries. Without any, a message says what to install,
and the browser tests are skipped; under ``NBDEBUG_REQUIRE_BROWSER=1`` that is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
ADVICE = """\
No Chromium was found, and none could be installed, so the browser tests are skipped. Install Chromium or Google
Chrome with the system's package manager (on Debian, as root: apt-get install chromium), and run this again."""


def find_browser() -> str | None:
    """The path of a Chromium that starts on this machine, if there is one."""
    return next((path for path in _candidates() if _starts(path)), None)


def ensure_browser() -> str | None:
    """The path of a Chromium, installed if need be; None where nothing worked."""
    found = find_browser()
    for command in _ways_to_install():
        if found:
            break
        print(f"No Chromium yet; trying: {' '.join(command)}", file=sys.stderr, flush=True)
        _try(command, timeout_s=600)
        found = find_browser()
    return found


def _candidates() -> Iterator[str]:
    yield from filter(None, map(shutil.which, NAMES))
    yield from (app for app in APPS if Path(app).exists())
    yield from sorted(map(str, _playwright_folder().glob("chromium-*/chrome-linux*/chrome")), reverse=True)
    yield from sorted(
        map(str, _playwright_folder().glob("chromium-*/chrome-mac*/*.app/Contents/MacOS/*")), reverse=True
    )


def _playwright_folder() -> Path:
    if os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        return Path(os.environ["PLAYWRIGHT_BROWSERS_PATH"])
    cache = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return cache / "ms-playwright"


def _starts(path: str) -> bool:
    return _try([path, "--version"], timeout_s=60, quiet=True)


def _ways_to_install() -> Iterator[Sequence[str]]:
    yield [sys.executable, "-m", "playwright", "install", "chromium"]
    if shutil.which("apt-get") and os.geteuid() == 0:
        yield ["sh", "-c", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium"]


def _try(command: Sequence[str], *, timeout_s: float, quiet: bool = False) -> bool:
    output = subprocess.DEVNULL if quiet else sys.stderr
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def main() -> int:
    """Print the browser's path, or the advice; the exit code."""
    path = ensure_browser()
    if path:
        print(f"Browser for the tests: {path}")
        return 0
    print(ADVICE, file=sys.stderr)
    return int(os.environ.get("NBDEBUG_REQUIRE_BROWSER") == "1")


if __name__ == "__main__":
    sys.exit(main())
