"""Fixtures for tests in a real JupyterLab and a real browser.

The server and the browser start once. Each test has a browser context of its own, and after it every kernel that it
started is ended, and every page that it opened must have stayed free of errors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from scripts.ensure_browser import find_browser
from scripts.lab import Lab
from tests.harness.jupyter_home import BUILD, JupyterHome
from tests.harness.notebook_page import FLAGS, LAB_OPTIONS, Notebooks

expect.set_options(timeout=30_000)  # ms: two browsers and a training share the cores with other tests


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium: python -m scripts.ensure_browser says how to get one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> JupyterHome:
    """The folder that stands for a person's home: Jupyter's settings, kernels and notebooks."""
    return JupyterHome(tmp_path_factory.mktemp("jupyter"))


@pytest.fixture(scope="session")
def lab(home: JupyterHome) -> Iterator[Lab]:
    """A JupyterLab server, on a port of its own."""
    log = BUILD / "browser-tests" / f"jupyterlab{os.environ.get('PYTEST_XDIST_WORKER', '')}.log"
    with Lab(home.notebooks, log=log, environment=home.environment(), options=LAB_OPTIONS) as lab:
        yield lab


@pytest.fixture
def notebooks(browser: Browser, lab: Lab, home: JupyterHome, request: pytest.FixtureRequest) -> Iterator[Notebooks]:
    """Opens notebooks: see :class:`Notebooks`. On the way out it looks for errors in their pages."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    with Notebooks(browser, lab, home, prefix=name) as notebooks:
        yield notebooks
        notebooks.screenshots(BUILD / "browser-tests")
        errors = notebooks.errors()
    assert not errors, "\n".join(["the page reported errors:", *errors])
