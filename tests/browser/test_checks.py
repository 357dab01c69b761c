"""Checks on the dashboard: a planted fault's card, the checklist, a batch as the model sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, expect
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.checks.preflight import registry
from nbdebug.records.commands import ApplyRemedy, TryRemedy
from tests.browser.bare_page import BarePage
from tests.browser.dashboard_page import SETUP, DashboardPage
from tests.harness.notebook_page import Notebooks


def pictures() -> tuple[nn.Module, TensorDataset]:
    x = torch.rand(96, 3, 12, 12)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    return model, TensorDataset(x, x.mean((2, 3)).argmax(1))


def table() -> tuple[nn.Module, TensorDataset]:
    x = torch.randn(96, 5)
    return nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3)), TensorDataset(x, x[:, :3].argmax(1))


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.embed(ids)).mean(1))


def text() -> tuple[nn.Module, TensorDataset]:
    ids = torch.randint(0, 30, (96, 9))
    return Reader(), TensorDataset(ids, ids[:, 0] % 3)


def debugger(make: Callable[[], tuple[nn.Module, TensorDataset]], *, faulty: bool = False) -> Debugger:
    torch.manual_seed(0)
    model, data = make()
    model = nn.Sequential(model, nn.Softmax(-1)) if faulty else model
    trainer = Trainer(torch.optim.Adam(model.parameters(), 1e-2), F.cross_entropy, DataLoader(data, 16, shuffle=True))
    made = Debugger(model, trainer, journal=None)
    made.set_check_parameters(overfit_steps=20)
    return made


def on_page(browser: Browser, case: Debugger, **options: Any) -> BarePage:
    page = BarePage(browser, lambda focus: case._view(1000, focus), **options)
    page.dashboard._post = case._post
    return page


@pytest.mark.parametrize("width", [520, 1400])
def test_a_planted_fault_shows_its_card_and_the_checklist_says_all(browser: Browser, width: int) -> None:
    case = debugger(table, faulty=True)
    case.run(steps=2)
    with on_page(browser, case, width=width) as page:
        card = page.root.locator(".nbd-card").first
        expect(card.locator("b").first).to_have_text("A softmax before cross entropy")
        expect(card.locator(".nbd-severity")).to_have_text("critical")
        expect(card.locator(".nbd-remedies li")).not_to_have_count(0)
        card.get_by_text("Evidence", exact=True).click()
        expect(card.locator(".nbd-evidence")).to_be_visible()
        page.root.get_by_role("tab", name="Checks", exact=True).click()
        page.root.get_by_role("button", name="Check everything", exact=True).click()
        rows = page.root.locator(".nbd-checklist > li")
        page.until(lambda: rows.count() == len(registry.checks()), waiting_for="the checklist")
        first = rows.first
        assert "the loss gets logits, not probabilities" in first.inner_text()
        expect(first.locator(".nbd-check-sign")).to_have_attribute("aria-label", "failed")
        skipped = page.root.locator(".nbd-check-skipped .nbd-check-why")
        assert all(each.strip() for each in skipped.all_inner_texts()), "what is skipped says why"
        first.locator("summary").click()
        page.pump(0.5)
        expect(first.locator("details")).to_have_attribute("open", "")
        expect(card.locator("b").first).to_have_text("A softmax before cross entropy")
        assert page.root.evaluate("node => node.scrollWidth <= node.clientWidth")
    assert page.errors == []
    case.close()


@pytest.mark.parametrize(
    ("make", "shown"), [(pictures, ".nbd-thumbs li"), (table, ".nbd-batch-table tbody tr"), (text, ".nbd-sequences tr")]
)
def test_a_batch_is_shown_as_the_model_sees_it(browser: Browser, make: Any, shown: str) -> None:
    case = debugger(make)
    case.run(steps=2)
    case.preflight()
    with on_page(browser, case) as page:
        page.root.get_by_role("tab", name="Batch", exact=True).click()
        samples = page.root.locator(f".nbd-batch {shown}")
        page.until(lambda: samples.count() >= 10, waiting_for="the samples")
        assert "batch[0]" in page.root.locator(".nbd-batch-about").inner_text()
        assert "loss" in page.root.locator(".nbd-batch-body").inner_text()
    assert page.errors == []
    case.close()


FAULTY = """
debugger = make()
debugger._session.model.append(nn.Softmax(dim=-1))
"""


def test_in_jupyterlab_the_card_is_there_before_the_first_epoch_ends_and_stays_over_a_reload(
    notebooks: Notebooks,
) -> None:
    notebook = notebooks.open(SETUP, FAULTY, "display(debugger)")
    notebook.run_all()
    board = DashboardPage(notebook)
    board.show()
    board.press("Step")
    card = board.root.locator(".nbd-card").first
    expect(card).to_contain_text("A softmax before cross entropy")
    expect(board.root).to_contain_text("step 1")
    notebook.reload()
    board.show()
    expect(board.root.locator(".nbd-card").first).to_contain_text("A softmax before cross entropy")


def test_a_remedy_is_tried_by_a_press_and_gone_on_with(browser: Browser) -> None:
    torch.manual_seed(0)
    model, data = table()
    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, DataLoader(data, 16, shuffle=True))
    case = Debugger(model, trainer, journal=None)
    case.set(clip_norm=1e-4)
    case.run(epochs=8)
    assert case.findings[0].cause == "gradient_clip_too_low"
    with on_page(browser, case) as page:
        card = page.root.locator(".nbd-card").first
        card.get_by_role("button", name="Try it: Clip at the 90th percentile").first.click()
        page.until(lambda: any(isinstance(each.command, TryRemedy) for each in case.outcomes), waiting_for="the trial")
        assert case.outcomes[-1].ok, case.outcomes[-1].text
        assert case.status.run == "main"
        page.until(lambda: len(case.runs) > 1 and not case.status.activity, waiting_for="the branch")
        page.pump(0.5)
        card.get_by_role("button", name="Apply: Clip at the 90th percentile").first.click()
        page.until(lambda: any(isinstance(each.command, ApplyRemedy) for each in case.outcomes), waiting_for="it")
        page.until(lambda: case.status.run != "main", waiting_for="the branch to be in the model")
    assert page.errors == []
    case.close()
