"""A Jupyter of its own for the tests: settings, kernels and home folder, apart from the person's who runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build"
SETTINGS = {
    # No window about news over the page, and no question to the network.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "apputils-extension/themes": {"theme": "JupyterLab Light"},
    # A test saves when it means to.
    "docmanager-extension/plugin": {"autosave": False},
}


class JupyterHome:
    """The folder below which all that Jupyter reads and writes lies, and the environment that says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.settings = folder / "config" / "lab" / "user-settings"
        self.notebooks.mkdir(parents=True)
        for name, values in SETTINGS.items():
            path = self.settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))

    @property
    def runtime(self) -> Path:
        """Where the running kernels' connection files are."""
        return self.folder / "runtime"

    def environment(self) -> dict[str, str]:
        """The process environment with every home of Jupyter's, IPython's and the shell's moved here."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
        moved = {
            "HOME": self.folder,
            "JUPYTER_CONFIG_DIR": self.folder / "config",
            "JUPYTER_DATA_DIR": self.folder / "data",
            "JUPYTER_RUNTIME_DIR": self.runtime,
            "JUPYTERLAB_SETTINGS_DIR": self.settings,
            "JUPYTERLAB_WORKSPACES_DIR": self.folder / "config" / "lab" / "workspaces",
            "IPYTHONDIR": self.folder / "ipython",
        }
        return inherited | {name: str(path) for name, path in moved.items()}

    def add_kernel(self, ipykernel: str) -> str:
        """A kernel of this interpreter with another ipykernel, say "7.1.0"; its name, for a notebook to ask for."""
        name = f"ipykernel-{ipykernel}"
        folder = self.folder / "data" / "kernels" / name
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        environment = {"PYTHONPATH": str(fetch_ipykernel(ipykernel))}
        spec = {"argv": command, "display_name": name, "language": "python", "env": environment}
        (folder / "kernel.json").write_text(json.dumps(spec))
        return name


def fetch_ipykernel(version: str) -> Path:
    """The folder to put on PYTHONPATH for that ipykernel; fetched once, and kept in build/."""
    folder = BUILD / f"ipykernel-{version}"
    if not folder.exists():
        partial = BUILD / f"{folder.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--target", str(partial), f"ipykernel=={version}"], check=True)
        partial.rename(folder)
    return folder
