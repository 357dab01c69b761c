"""Checks on the dashboard: a planted fault's card, the checklist, a batch as the model sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, expect
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Journal, Trainer
from nbdebug.checks.preflight import registry
from nbdebug.records.commands import ApplyRemedy, Changes, SetKnobs, TryRemedy
from nbdebug.records.comparison import Verdict
from nbdebug.records.findings import Cause, Course, Finding, Remedy, Severity, Spell
from nbdebug.records.proofs import Proof, Trial
from nbdebug.records.status import State
from nbdebug.records.view import View
from tests.browser.bare_page import BarePage
from tests.browser.dashboard_page import SETUP, DashboardPage
from tests.dashboard import views
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


def clipped(journal: Path | None = None, width: int = 32) -> Debugger:
    """A program whose gradients are clipped far below their size, before its first step."""
    torch.manual_seed(0)
    x = torch.randn(320, 5)
    model = nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))
    loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 16, shuffle=True)
    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, loader)
    case = Debugger(model, trainer, journal=journal)
    case.set(clip_norm=1e-4)
    return case


def found(case: Debugger, cause: str) -> bool:
    return any(each.cause == cause for each in case.findings)


def lit(page: BarePage, panel: str) -> list[list[float]]:
    """The ends of what a card has lit in a chart: of bands along the steps, or over layers."""
    read = """plot => (plot.layout?.shapes ?? []).filter(({ name }) => name === "lit")
        .map(({ x0, x1, y0, y1 }) => [x0, x1, y0, y1])"""
    drawn: list[list[float]] = page.panel(panel).locator(".nbd-plot").evaluate(read)
    return drawn


def axes(page: BarePage) -> str:
    """Where all charts' axes end, as drawn."""
    read = """JSON.stringify([...document.querySelectorAll(".nbd-plot")].map(({ _fullLayout: all }) =>
        [all?.xaxis?.range, all?.yaxis?.range, all?._size]))"""
    return str(page.page.evaluate(read))


def test_a_remedy_is_tried_by_a_press_and_gone_on_with(browser: Browser, tmp_path: Path) -> None:
    case = clipped(tmp_path)
    case.run(steps=2)
    with on_page(browser, case) as page:
        case.start(steps=158)
        cards = page.root.locator(".nbd-card")
        page.until(lambda: found(case, "gradient_clip_too_low"), waiting_for="the fault to be found")
        card = cards.first
        page.until(lambda: card.locator(".nbd-remedies").count(), waiting_for="the card while it trains")
        expect(card.locator(".nbd-where")).to_contain_text("since step")
        page.until(lambda: case.status.step == 160 and case.status.state == "idle", waiting_for="the end of training")
        page.pump(0.3)
        name = "Clip at the 90th percentile"
        card.get_by_role("button", name=f"Try it: {name}").click()
        expect(card.locator(".nbd-price:visible")).to_contain_text("reruns of 40 steps")
        assert not any(isinstance(each.command, TryRemedy) for each in case.outcomes), "asked for the price only"
        expect(card.get_by_role("button", name=f"Start trying: {name}")).to_be_focused()
        card.get_by_role("button", name=f"Start trying: {name}").click()
        page.until(lambda: card.locator(".nbd-trying:visible").count(), waiting_for="the progress")
        page.until(lambda: card.locator(".nbd-proof").count(), waiting_for="the verdict")
        expect(card.locator(".nbd-proof b")).to_have_text("It helps")
        expect(card.locator(".nbd-proof polyline")).to_have_count(2)
        assert (case.status.run, case.status.step) == ("main", 160)
        page.until(lambda: not case.status.activity, waiting_for="the trial to end")
        page.pump(0.3)
        card.get_by_role("button", name=f"Apply: {name}").click()
        page.until(lambda: any(isinstance(each.command, ApplyRemedy) for each in case.outcomes), waiting_for="it")
        page.until(lambda: case.status.run == case.proofs[-1].run, waiting_for="the branch to be in the model")
        gone = page.root.locator(".nbd-gone")
        page.until(lambda: gone.locator(".nbd-applied:visible").count(), waiting_for="it to be told as mended")
        expect(gone).to_contain_text(f"Mended: {name}")
        case.checkout("main")
        page.until(lambda: cards.count() == 1, waiting_for="the card, on the run that has the fault")
        expect(cards.first.locator(".nbd-proof b")).to_have_text("It helps")
        since = cards.first.locator(".nbd-where").inner_text()
    assert page.errors == []
    with on_page(browser, case) as page:  # as after a reload: a page that knows nothing
        expect(page.root.locator(".nbd-card .nbd-where")).to_have_text(since)
        expect(page.root.locator(".nbd-card .nbd-proof b")).to_have_text("It helps")
    case.close()
    stored = Journal.open(tmp_path)
    with BarePage(browser, lambda focus: stored._view(1000, focus)) as page:
        expect(page.root.locator(".nbd-card .nbd-where")).to_have_text(since)
        expect(page.root.locator(".nbd-card .nbd-proof b")).to_have_text("It helps")
        expect(page.root.locator(".nbd-card .nbd-remedies button:enabled:visible")).to_have_count(0)
    assert page.errors == []


def test_a_trial_is_called_off_on_the_card_and_may_be_thought_better_of(browser: Browser) -> None:
    case = clipped()
    case.run(epochs=8)
    for _ in range(100):  # live checks are paced by time: on a slow machine they come seldom
        if found(case, "gradient_clip_too_low"):
            break
        case.run(steps=25)
    status = case.status
    with on_page(browser, case) as page:
        card = page.root.locator(".nbd-card").first
        card.get_by_role("button", name="Try it: Clip").click()
        card.get_by_role("button", name="Don't try: Clip").click()
        expect(card.get_by_role("button", name="Try it: Clip")).to_be_focused()
        expect(card.locator(".nbd-price:visible")).to_have_count(0)
        card.get_by_role("button", name="Try it: Clip").press("Enter")
        card.get_by_role("button", name="Start trying: Clip").press("Enter")
        card.get_by_role("button", name="End trying: Clip").click()
        page.until(lambda: card.locator(".nbd-refused:visible").count(), waiting_for="what became of it")
        assert "called off" in card.locator(".nbd-refused:visible").inner_text()
        assert (case.status.run, case.status.step, case.proofs) == ("main", status.step, ())
    assert page.errors == []
    case.close()


def rate(remedies: tuple[Remedy, ...] = (), **changes: Any) -> Finding:
    """One that concerns the second layer from below, and was away for a while."""
    made = Finding(
        Cause.LR_TOO_HIGH, Severity.CRITICAL, "main", 160, "The rate is too high", "why", remedies=remedies,
        source="advice", check="lr_too_high", first_step=150, layers=("layer1",),
    )  # fmt: skip
    return replace(made, **changes)


def scene(size: int, *told: Finding, **changes: Any) -> View:
    courses = tuple(Course(each, (Spell("main", 40, 100, 120, "main"), Spell("main", 150))) for each in told)
    made = views.forest(findings=told, courses=courses, **changes)
    return replace(made, status=replace(made.status, state=State.PAUSED), layers=views.layers(size, 400))


@pytest.mark.parametrize(
    ("size", "width", "theme"), [(3, 520, "light"), (3, 1600, "dark"), (150, 520, "dark"), (150, 900, "light")]
)
def test_a_card_lights_its_steps_and_layers(browser: Browser, size: int, width: int, theme: str) -> None:
    names = views.names(size)
    layers = ("layer1",) if size == 3 else ("encoder.3.attn", "head.fc")
    wanted = [name for name in names if name in layers or any(name.startswith(f"{each}.") for each in layers)]
    view = scene(size, rate(layers=layers))
    with BarePage(browser, lambda focus: view, width=width, theme=theme) as page:
        select = page.root.locator(".nbd-card .nbd-select")
        before = axes(page)
        select.focus()
        page.page.keyboard.press("Enter")
        page.pump(0.5)
        expect(select).to_have_attribute("aria-pressed", "true")
        assert [shape[:2] for shape in lit(page, "loss")] == [[40, 100], [150, 400]]
        assert [shape[:2] for shape in lit(page, "over_time")] == [[40, 100], [150, 1200]]
        keys = page.panel("gradient_flow").locator(".nbd-plot").evaluate("plot => plot.layout.meta.keys")
        rows = [any(name == key or name.startswith(key.rstrip(".") + ".") for name in wanted) for key in keys]
        places = [
            at for first, last, *_ in lit(page, "gradient_flow") for at in range(round(first + 0.5), round(last + 0.5))
        ]
        assert places == [at for at, on in enumerate(rows) if on] and 0 < len(places) < len(keys)
        bands = [(low, high) for *_, low, high in lit(page, "distributions")]
        shown = [len(keys) - 1 - at for at in places]
        assert all(any(low < row + 0.5 < high for low, high in bands) for row in shown)
        assert page.root.locator("tr.nbd-found:visible th").first.get_attribute("class") is None
        table = page.root.locator("tr.nbd-found:visible .nbd-text").evaluate_all(
            "nodes => nodes.map((node) => node.title.split('\\n')[0])"
        )
        assert table and set(table) <= set(wanted)
        assert axes(page) == before, "no chart jumps"
        assert page.root.evaluate("node => node.scrollWidth <= node.clientWidth")
        page.page.keyboard.press("Escape")
        page.pump(0.5)
        expect(select).to_have_attribute("aria-pressed", "false")
        assert not any(lit(page, name) for name in ("loss", "over_time", "gradient_flow", "distributions"))
        assert page.root.locator("tr.nbd-found").count() == 0
    assert page.errors == []


def test_another_card_takes_over_and_what_goes_on_grows(browser: Browser) -> None:
    one, other = rate(), rate(cause=Cause.DEAD_RELU, title="Dead", layers=("layer0",), check="dead_relu")
    kept = {"view": scene(3, one, other)}
    with BarePage(browser, lambda focus: kept["view"]) as page:
        first, second = (page.root.locator(".nbd-card").nth(place) for place in (0, 1))
        first.locator("p").first.click()
        page.pump(0.4)
        assert [shape[:2] for shape in lit(page, "gradient_flow")] == [[0.5, 1.5]]
        gone = (Course(one, (Spell("main", 40, 100, 120, "main"), Spell("main", 150, 300, 350, "main"))),)
        kept["view"] = replace(kept["view"], courses=(*gone, *kept["view"].courses[1:]))
        page.pump(0.6)
        assert [shape[:2] for shape in lit(page, "loss")] == [[40, 100], [150, 300]]
        second.locator("p").first.click()
        page.pump(0.4)
        assert [shape[:2] for shape in lit(page, "gradient_flow")] == [[-0.5, 0.5]]
        expect(first.locator(".nbd-select")).to_have_attribute("aria-pressed", "false")
        second.locator("p").first.click()
        page.pump(0.4)
        assert lit(page, "loss") == []
    assert page.errors == []


def test_three_cards_at_once_symptoms_within_their_cause_and_what_is_gone_below(browser: Browser) -> None:
    causes = [Cause.DEAD_RELU, Cause.OVERFITTING, Cause.UNDERFITTING, Cause.CLASS_IMBALANCE]
    others = [rate(cause=cause, title=f"about {cause}", severity=Severity.WARNING) for cause in causes]
    symptom = rate(cause=Cause.EXPLODING_GRADIENT, title="It explodes")
    view = scene(3, rate(folded=("It explodes",)), *others, symptom)
    over = Course(rate(cause=Cause.NAN_LOSS, title="It was NaN"), (Spell("main", 30, 50, 60, "main"),))
    view = replace(view, courses=(*view.courses, over))
    with BarePage(browser, lambda focus: view, width=900) as page:
        top = page.root.locator(".nbd-cards > .nbd-card")
        expect(top).to_have_count(3)
        more = page.root.locator(".nbd-more-cards")
        expect(more.locator("summary").first).to_have_text("2 more")
        expect(more.locator(".nbd-card").first).to_be_hidden()
        more.locator("summary").first.click()
        expect(more.locator(".nbd-card").first).to_be_visible()
        inner = top.first.locator(".nbd-card")
        expect(inner).to_be_hidden()
        top.first.get_by_text("Explains: It explodes").click()
        expect(inner).to_contain_text("It explodes")
        assert page.root.get_by_text("It explodes", exact=True).count() == 1, "no repeats"
        page.root.locator(".nbd-gone-cards summary").click()
        expect(page.root.locator(".nbd-gone")).to_contain_text("since step 30 · gone at 60")
        page.root.locator(".nbd-gone .nbd-select").click()
        page.pump(0.4)
        assert [shape[:2] for shape in lit(page, "loss")] == [[30, 50]]
    assert page.errors == []


def test_where_one_did_not_help_the_next_is_offered_and_code_can_be_copied(browser: Browser) -> None:
    code = 'mean = x.mean(0)\nx = (x - mean) / "std"'
    ways = (
        Remedy("First.", SetKnobs(Changes(lr=0.1))), Remedy("Second.", SetKnobs(Changes(lr=0.2))),
        Remedy("By hand.", code=code),
    )  # fmt: skip
    failed = Proof(rate(ways), ways[0], 0, "lr 0.02", views.comparison(verdict=Verdict.WITHIN_NOISE))
    view = scene(3, rate(ways), proofs=(failed,), trials=(Trial(40, 9, 12.4, "lr_too_high"),))
    with BarePage(browser, lambda focus: view) as page:
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        card = page.root.locator(".nbd-card")
        expect(card.get_by_role("button", name="Try it: First.")).to_be_hidden()
        expect(card).to_contain_text("First. no difference beyond noise")
        second = card.get_by_role("button", name="Try it: Second.")
        expect(second).to_have_text("Try the next")
        second.click()
        expect(card.locator(".nbd-price:visible")).to_contain_text("about 12 s: 9 reruns of 40 steps")
        card.get_by_role("button", name="Start trying: Second.").click()
        page.until(lambda: TryRemedy("lr_too_high", 1) in page.commands, waiting_for="the command")
        card.get_by_text("1 other way").click()
        card.get_by_role("button", name="Copy: mean = x.mean(0)").click()
        page.pump(0.2)
        expect(card.locator(".nbd-copy.nbd-done")).to_have_count(1)
        card.get_by_text("First. ").click()
        expect(card.locator(".nbd-proof")).to_be_visible()
    assert page.errors == []
