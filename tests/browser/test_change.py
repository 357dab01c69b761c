"""Optimizer, schedule and layers changed on the dashboard, and what is the user's own, as a person meets them."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, expect

from nbdebug.records.commands import (
    Changes,
    Clip,
    ClipMode,
    EditNorms,
    Foretell,
    Freeze,
    Press,
    SetAverage,
    SetKnobs,
    SetSchedule,
    SplitDecay,
    SwapActivations,
    SwapOptimizer,
    Undo,
)
from nbdebug.records.schedules import Schedule
from nbdebug.records.status import AverageTaken, OwnKnob, State
from nbdebug.records.view import OwnPanel
from nbdebug.training.schedules import Factor
from tests.browser.scenes import Scene, closing
from tests.dashboard import views

EVIL = "<img src=x onerror=alert(1)>"


def png(width: int = 40, height: int = 20) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, rows = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), (b"\0" + b"\xff\0\0" * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def options(**values: Any) -> SetKnobs:
    return SetKnobs(Changes(options=values))


class ChangeScene(Scene):
    """The tab "Change"."""

    def __init__(self, browser: Browser, groups: int = 1, **options: Any) -> None:
        super().__init__(browser, tab="Change", **options)
        self.view = replace(self.view, knobs=views.knobs(groups=groups))

    def knob(self, **changes: Any) -> None:
        self.show(knobs=replace(self.view.knobs, **changes))

    def part(self, name: str) -> Locator:
        return self.get("region", name)

    def field(self, label: str) -> Locator:
        return self.page.root.locator(".nbd-change").get_by_label(label, exact=True)

    def press(self, name: str) -> None:
        self.page.root.locator(".nbd-change").get_by_role("button", name=name, exact=True).click()


@pytest.fixture
def scene(browser: Browser) -> Iterator[Callable[..., ChangeScene]]:
    """Opens pages."""
    opened: list[ChangeScene] = []

    def scene(**options: Any) -> ChangeScene:
        opened.append(ChangeScene(browser, **options))
        opened[-1].open()
        return opened[-1]

    with closing(opened):
        yield scene


def test_options_are_typed_stepped_and_switched(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    field = page.field("weight decay")
    field.fill("0,05")
    field.press("Enter")
    assert page.asked() == options(weight_decay=0.05)
    amount = len(page.page.commands)
    field.blur()
    page.page.pump(0.3)
    assert len(page.page.commands) == amount, "asked for twice"
    for label, key, value in [("eps", "ArrowUp", 2e-8), ("beta1", "ArrowUp", 0.95), ("beta2", "ArrowDown", 0.998)]:
        page.field(label).press(key)
        assert page.asked() == options(**{label: value})
    page.field("amsgrad").press("Space")
    assert page.asked() == options(amsgrad=True)
    page.field("beta1").fill("1")
    page.field("beta1").press("Enter")
    page.page.pump(0.3)
    assert page.asked() == options(amsgrad=True)
    expect(page.field("beta1")).to_have_attribute("aria-invalid", "true")
    expect(page.part("Optimizer")).to_contain_text("has to be a number, at least 0 and below 1")


def test_an_option_is_set_for_one_group(scene: Callable[..., ChangeScene]) -> None:
    page = scene(groups=2)
    expect(page.part("Optimizer")).to_contain_text("in force 0.9 / 0.5")
    expect(page.field("beta1")).to_have_value("0.9")
    assert page.field("amsgrad").evaluate("node => node.indeterminate")
    page.field("Options of the parameter group").select_option("head")
    expect(page.field("beta1")).to_have_value("0.5")
    expect(page.field("amsgrad")).to_be_checked()
    page.field("beta1").fill("0.8")
    page.field("beta1").press("Enter")
    assert page.asked() == options(beta1={"head": 0.8})


def test_what_is_fixed_says_why(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    expect(page.field("momentum")).to_be_disabled()
    row = page.part("Optimizer").locator(".nbd-option").filter(has_text="momentum")
    expect(row).to_contain_text("is written by the schedule at each step")
    expect(row).to_have_attribute("title", "momentum is written by the schedule at each step")
    expect(page.field("foreach")).to_be_hidden()
    page.part("Optimizer").get_by_text("2 switches that can't be changed now").press("Enter")
    expect(page.field("foreach")).to_be_visible()
    expect(page.field("foreach")).to_be_disabled()


def test_a_control_in_use_is_not_moved(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    field = page.field("weight decay")
    field.fill("0.0")
    page.knob(options=(views.option(values=(0.3,)), views.option("eps", (1e-6,))))
    expect(field).to_have_value("0.0")
    expect(page.field("eps")).to_have_value("1e-6")
    field.press("Escape")
    slider = page.field("temperature")
    slider.focus()
    page.knob(own=(OwnKnob("temperature", 5.0, 1e-3, 10.0, log=True),))
    assert float(slider.input_value()) < 500
    slider.blur()
    page.page.pump(2.0)
    assert float(slider.input_value()) > 900


def test_the_optimizer_is_swapped_and_a_refusal_is_read(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    page.press("Swap the optimizer")
    assert page.asked() == SwapOptimizer("SGD")
    page.field("Kind of optimizer").select_option("NAdam")
    page.field("Learning rate after the swap").fill("2e-3")
    page.press("Swap the optimizer")
    assert page.asked() == SwapOptimizer("NAdam", 2e-3)
    page.answer(SwapOptimizer("NAdam"), f"- two optimizers\n- {EVIL}", ok=False)
    refusal = page.part("Optimizer").locator(".nbd-refusal")
    assert refusal.inner_text() == f"- two optimizers\n- {EVIL}"
    assert page.page.root.locator("img").count() == 0
    page.answer(SwapOptimizer("NAdam"), "NAdam now", ok=True)
    expect(refusal).to_have_count(0)
    expect(page.part("Optimizer")).to_contain_text("✓ NAdam now · main, step 400")


SHAPES = [
    ("constant", {"warmup_steps": 5}),
    ("step", {"every": 4, "gamma": 0.5, "warmup_steps": 3, "warmup_start": 0.1}),
    ("cosine", {"total": 40, "floor": 0.2, "warmup_steps": 8}),
    ("one_cycle", {"total": 50, "peak_at": 0.4, "start_divisor": 10.0}),
    ("cyclic", {"every": 12, "floor": 0.25, "gamma": 0.8}),
    ("exponential", {"gamma": 0.9, "warmup_steps": 4}),
    ("plateau", {"gamma": 0.5, "warmup_steps": 4}),
]


@pytest.mark.parametrize(("kind", "values"), SHAPES, ids=[kind for kind, _ in SHAPES])
def test_the_curve_drawn_is_the_schedule_that_is_asked_for(
    scene: Callable[..., ChangeScene], kind: str, values: dict[str, float]
) -> None:
    page = scene()
    page.field("Kind of schedule").select_option(kind)
    page.field("A position is").select_option("epoch")
    for name, value in values.items():
        page.field(name.replace("warmup", "warm-up").replace("_", " ")).fill(str(value))
    schedule = Schedule.of(kind, **values)
    heights = re.findall(r"V([\d.]+)H([\d.]+)", page.part("Schedule").locator("path").get_attribute("d") or "")
    assert len(heights) >= 10
    drawn = [(100 - float(height)) / 92 for height, _ in heights]
    assert drawn == pytest.approx([Factor(schedule)(k) for k in range(len(drawn))], abs=2e-4)
    assert float(heights[-1][1]) == 100
    page.press("Apply the schedule")
    assert page.asked() == SetSchedule(schedule)


def test_what_can_t_be_a_schedule_is_said_and_not_asked_for(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    page.field("total").fill("5")
    page.field("warm-up steps").fill("5")
    part, apply = page.part("Schedule"), page.page.root.get_by_role("button", name="Apply the schedule")
    expect(part).to_contain_text("warmup steps have to be fewer than the total of 5")
    expect(apply).to_be_disabled()
    page.field("total").fill("5.5")
    expect(part).to_contain_text("total has to be a whole number, at least 1")
    page.field("total").press("Enter")
    assert page.asked() is None
    page.field("total").fill("20")
    expect(part).to_contain_text("in 20 batches")
    page.field("total").press("Enter")
    assert page.asked() == SetSchedule(Schedule.of("cosine", total=20, warmup_steps=5, interval="batch"))
    page.field("Kind of schedule").select_option("none")
    page.press("Apply the schedule")
    assert page.asked() == SetSchedule(None)


def test_layers_are_changed(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    choices = page.field("Layers with an activation").locator("option").all_inner_texts()
    assert choices == ["all 3", "layer0 · ReLU", "layer1 · ReLU", "layer2 · GELU"]
    expect(page.field("Kind of activation")).to_have_value("leaky_relu")
    page.field("Kind of activation").select_option("silu")
    page.press("Swap the activation")
    assert page.asked() == SwapActivations("silu")
    page.field("Layers with an activation").select_option("layer1")
    page.press("Swap the activation")
    assert page.asked() == SwapActivations("silu", ("layer1",))
    page.field("Layer to freeze").select_option("layer0")
    page.press("Freeze the layer")
    assert page.asked() == Freeze(True, ("layer0",))
    page.field("Layer to freeze").select_option(label="layer1 · frozen")
    expect(page.page.root.get_by_role("button", name="Freeze the layer", exact=True)).to_be_disabled()
    page.press("Unfreeze the layer")
    assert page.asked() == Freeze(False, ("layer1",))
    page.press("Insert a batch norm after the layer")
    assert page.asked() == EditNorms(True)
    page.field("Layer for a batch norm").select_option("layer2")
    page.press("Remove the batch norm")
    assert page.asked() == EditNorms(False, ("layer2",))
    page.answer(Freeze(True, ("layer0",)), "nothing would learn", ok=False)
    learning = page.page.root.get_by_role("group", name="Learning")
    expect(learning.locator(".nbd-refusal")).to_have_text("nothing would learn")


def test_freezing_keeps_statistics_and_removing_folds_where_it_is_ticked(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    page.field("Keep batch norms' statistics").check()
    page.press("Freeze the layer")
    assert page.asked() == Freeze(True, (), True)
    page.press("Unfreeze the layer")
    assert page.asked() == Freeze(False, ())
    page.field("Fold the batch norm").check()
    page.press("Remove the batch norm")
    assert page.asked() == EditNorms(False, (), True)


def test_norms_and_biases_are_left_out_of_the_decay(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    page.press("No decay on norms and biases")
    assert page.asked() == SplitDecay()
    page.knob(options=(views.option("momentum", (0.9,)),))
    expect(page.page.root.get_by_role("button", name="No decay on norms and biases")).to_be_hidden()


def test_an_average_is_taken_and_ended(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    group = page.page.root.get_by_role("group", name="Average of the weights")
    expect(group).to_contain_text("none is taken")
    expect(group.get_by_role("button", name="End the average")).to_be_disabled()
    page.field("Decay of the average").fill("1")
    expect(group).to_contain_text("decay has to be a number, at least 0 and below 1")
    page.field("Decay of the average").fill("0.99")
    page.field("Decay of the average").press("Enter")
    assert page.asked() == SetAverage("ema", 0.99)
    page.field("Kind of average").select_option("swa")
    expect(page.field("Decay of the average")).to_be_disabled()
    page.press("Take an average of the weights")
    assert page.asked() == SetAverage("swa")
    page.knob(average=AverageTaken("ema", 120, 0.99))
    expect(group).to_contain_text("EMA, decay 0.99, of 120 weights so far")
    page.press("End the average of the weights")
    assert page.asked() == SetAverage("")


def test_batches_loss_and_gradients_are_changed_and_what_can_t_act_says_why(
    scene: Callable[..., ChangeScene],
) -> None:
    page = scene()
    why = "the loss is no cross entropy"
    page.knob(
        batch_size=32, batch_size_acts="from the next epoch on", why_not_label_smoothing=why, accumulate=4,
        accumulated=2, loss_weights=(("ce", 1.0), ("l2", 0.01)), layer_clips=(("layer1", Clip(ClipMode.NORM, 0.5)),),
    )  # fmt: skip
    part = page.part("Batches and gradients")
    for text in ("from the next epoch on", "2 of 4 batches done", why, "layer1 norm 0.5"):
        expect(part).to_contain_text(text)
    expect(part.get_by_label("label smoothing", exact=True)).to_be_disabled()
    asked = {
        "batch size": ("64", Changes(batch_size=64)),
        "accumulate": ("8", Changes(accumulate=8)),
        "gradient noise": ("1e-3", Changes(gradient_noise=1e-3)),
        "weight of l2": ("-0.5", Changes(loss_weights={"l2": -0.5})),
    }
    for label, (text, changes) in asked.items():
        part.get_by_label(label, exact=True).fill(text)
        part.get_by_label(label, exact=True).press("Enter")
        assert page.asked() == SetKnobs(changes)
    part.get_by_label("batch size", exact=True).fill("0.5")
    part.get_by_label("batch size", exact=True).press("Enter")
    expect(part).to_contain_text("has to be a whole number, at least 1")
    page.field("Layer to clip").select_option("layer2")
    page.field("Clip threshold of the layer").fill("0.25")
    page.press("Clip the layer")
    assert page.asked() == SetKnobs(Changes(layer_clips={"layer2": Clip(ClipMode.NORM, 0.25)}))
    page.field("Clipping of the layer").select_option("off")
    page.press("Clip the layer")
    assert page.asked() == SetKnobs(Changes(layer_clips={"layer2": Clip()}))


def test_the_schedule_in_use_is_told_in_full(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    text = "cosine per epoch, total 20, floor 0, warm-up 2"
    page.knob(schedule="cosine", schedule_text=text)
    expect(page.part("Schedule")).to_contain_text(f"now {text}")
    expect(page.page.root.locator(".nbd-controls")).to_contain_text("(cosine × 0.7)")


def test_the_next_step_is_foretold_while_training_rests(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    line = page.page.root.locator(".nbd-next")
    line.get_by_role("button", name="Forecast").press("Enter")
    assert page.asked() == Foretell()
    page.show(forecast=views.forecast())
    assert line.locator("small").all_inner_texts() == [
        "update : weight 3.1e-3 (was 1.0e-3)", "at most 2.4e-2, in layer2", "loss 0.412",
        "clips 40 % of the last 100 steps",
    ]  # fmt: skip
    page.show(forecast=None)
    expect(line.locator("small")).to_have_count(0)
    page.answer(Foretell(), "the epoch has no batch left: take a step first", ok=False)
    expect(line.locator(".nbd-refused")).to_have_text("the epoch has no batch left: take a step first")
    page.show(status=replace(page.view.status, state=State.RUNNING))
    expect(line).to_be_hidden()


def test_what_is_the_user_s_own_is_moved_pressed_and_shown(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    slider = page.field("temperature")
    slider.press("End")
    assert page.asked() == SetKnobs(Changes(own={"temperature": 10.0}))
    expect(slider).to_have_attribute("aria-valuetext", "10")
    page.field("Type label smoothing").fill("0.25")
    page.field("Type label smoothing").press("Enter")
    assert page.asked() == SetKnobs(Changes(own={"label smoothing": 0.25}))
    expect(page.part("Yours").get_by_label("label smoothing", exact=True)).to_have_value("500")
    page.press("save samples")
    assert page.asked() == Press("save samples")
    page.show(panels=(OwnPanel("samples", 3, "a\n  b"), OwnPanel("attention", 4, "", png())))
    cards = page.page.root.locator(".nbd-own-panel")
    expect(cards.nth(0).locator("pre")).to_have_text("a\n  b")
    expect(cards.nth(0).locator("pre")).to_have_css("white-space", "pre-wrap")
    picture = cards.nth(1).locator("img")
    page.page.until(lambda: picture.evaluate("node => node.naturalWidth") == 40, waiting_for="the picture")
    assert (picture.get_attribute("src") or "").startswith("blob:")
    expect(cards.nth(1)).to_contain_text("attentionepoch 4")
    page.show(panels=())
    expect(cards).to_have_count(0)


def test_hostile_names_are_only_text(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    page.knob(
        own=(OwnKnob(EVIL, 0.5, 0.0, 1.0),), buttons=(EVIL,), activations=((EVIL, EVIL),), frozen=(EVIL,),
        options=(views.option(EVIL, (1.0,), fixed=EVIL),), optimizer=EVIL, schedule=EVIL,
    )  # fmt: skip
    page.show(panels=(OwnPanel(EVIL, 1, EVIL), OwnPanel(EVIL, 1, "", b"\x89PNG\r\n" + EVIL.encode())))
    cards = page.page.root.locator(".nbd-own-panel")
    expect(cards).to_have_count(2)
    expect(cards.nth(0).locator("pre")).to_have_text(EVIL)
    expect(cards.nth(1)).to_contain_text("this picture can't be shown")
    assert page.page.root.locator("img").count() == 0
    page.press(EVIL)
    assert page.asked() == Press(EVIL)


def test_undo_and_what_is_said_while_nothing_can_be_changed(scene: Callable[..., ChangeScene]) -> None:
    page = scene()
    undo = page.page.root.get_by_role("button", name="Undo", exact=True)
    page.answer(SetKnobs(Changes(lr=0.01)), "lr 0.01", ok=True)
    expect(undo).to_have_attribute("title", "take the latest change back: lr 0.01")
    undo.press("Enter")
    assert page.asked() == Undo()
    page.show(status=replace(page.view.status, activity="comparing a with b: rerun 1"))
    expect(undo).to_be_disabled()
    expect(page.field("eps")).to_be_disabled()
    expect(page.page.root.locator(".nbd-change")).to_contain_text("comparing a with b: wait")
    page.show(status=replace(page.view.status, activity=""))
    expect(page.field("eps")).to_be_enabled()
    page.show(stored=True, panels=(OwnPanel("samples", 3, "a"),))
    expect(page.part("Optimizer")).to_be_hidden()
    expect(page.page.root.locator(".nbd-own-panel")).to_have_count(1)


@pytest.mark.parametrize("width", [500, 700, 1100, 1600])
def test_nothing_is_wider_than_the_page(scene: Callable[..., ChangeScene], width: int) -> None:
    page = scene(groups=2, width=width)
    page.show(panels=(OwnPanel("x" * 200, 3, "y" * 400),))
    too_wide = page.page.root.evaluate(
        "root => [...root.querySelectorAll('.nbd-change, .nbd-change *:not(option)')]"
        ".filter((node) => node.getBoundingClientRect().right > root.getBoundingClientRect().right + 1)"
        ".map((node) => node.outerHTML.slice(0, 80))"
    )
    assert too_wide == []
