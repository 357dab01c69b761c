"""Opens the quickstart in JupyterLab: ``python -m scripts.demo [--browser=no]``, or ``make demo``. Ctrl+C ends it."""

from __future__ import annotations

import argparse
import signal
import sys
import webbrowser
from pathlib import Path

from scripts.lab import Lab, LabError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "notebooks/quickstart.ipynb"


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description="Open the quickstart in JupyterLab.")
    parser.add_argument("--browser", default="yes", help="'no' prints the address and opens nothing")
    wants_browser = parser.parse_args().browser.lower() not in {"no", "0", "false", "off"}
    if not (ROOT / NOTEBOOK).exists():
        print(f"{ROOT / NOTEBOOK} is missing; is this checkout complete?", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends the server, too
    lab = Lab(ROOT, log=ROOT / "build" / "demo-jupyterlab.log")
    print("Starting JupyterLab ...", flush=True)
    try:
        with lab:
            url = lab.url(NOTEBOOK)
            print(f"\n    {url}\n\nRun all cells there (Run > Run All Cells). Ctrl+C here ends the server.", flush=True)
            if wants_browser and not webbrowser.open(url):
                print("No browser could be opened from here; open the address by hand.", flush=True)
            return lab.wait()
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nJupyterLab has ended.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
