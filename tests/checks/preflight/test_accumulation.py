"""Gradients added up at full weight are named, in one step or over several; sums that are meant are left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger
from nbdebug.checks.preflight import onlooker
from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Make, Program, judged, told_apart

RULE = "gradient_accumulation_unscaled"
Step = Callable[[Any, Any, Any, Any], Any]
Pass = Callable[[Any, Any, int], Any]  # a loss of a network's output, a target, and how many of them there will be


def mlp(outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, outputs))


def trained(step: Step | None, model: Any = None, optimizer: type[Optimizer] = SGD, **options: Any) -> Program:
    model = model or mlp()
    loader = options.pop("loader", None)
    loader = loader or DataLoader(TensorDataset(torch.randn(320, 6), torch.randint(3, (320,))), 16)
    return model, Trainer(optimizer(model.parameters(), 0.01), options.pop("loss", F.cross_entropy), loader, step=step)


def whole(output: Any, target: Any, count: int) -> Any:
    return F.cross_entropy(output, target)


def divided(output: Any, target: Any, count: int) -> Any:
    return F.cross_entropy(output, target) / count


def in_parts(loss_of: Pass, cut: Callable[[Any], list[Any]], after: Callable[[Any, int], None] | None = None) -> Step:
    """One step that goes through its batch in parts."""

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        parts, total = cut(batch), 0.0
        for x, y in parts:
            loss = loss_of(model(x), y, len(parts))
            loss.backward()
            total += loss.item()
        if after is not None:
            after(model, len(parts))
        optimizer.step()
        return torch.tensor(total)

    return step


def chunks(batch: Any) -> list[Any]:
    return list(zip(batch[0].chunk(4), batch[1].chunk(4), strict=True))


def slices(batch: Any) -> list[Any]:
    return [(batch[0][i : i + 8], batch[1][i : i + 8]) for i in range(0, 16, 8)]


def over_steps(loss_of: Pass, times: int, *, first: bool = False) -> Step:
    """A step that updates every so many batches, or at the first of them."""
    seen = 0

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        nonlocal seen
        loss = loss_of(model(batch[0]), batch[1], times)
        loss.backward()
        seen += 1
        if seen % times == (1 if first else 0):
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return step


def by_hand(output: Any, target: Any, count: int) -> Any:
    return -output.log_softmax(1).gather(1, target[:, None]).mean()


def summed_over_its_own(output: Any, target: Any, count: int) -> Any:
    return F.cross_entropy(output, target, reduction="sum") / len(target)


def summed_over_all(output: Any, target: Any, count: int) -> Any:
    return F.cross_entropy(output, target, reduction="sum") / 16


def by_share(output: Any, target: Any, count: int) -> Any:
    return F.cross_entropy(output, target) * (len(target) / 16)


def by_a_tensor(output: Any, target: Any, count: int) -> Any:
    return F.cross_entropy(output, target) * torch.tensor(1 / count)


def averaged(model: Any, count: int) -> None:
    for parameter in model.parameters():
        parameter.grad /= count


def averaged_together(model: Any, count: int) -> None:
    torch._foreach_mul_([parameter.grad for parameter in model.parameters()], 1 / count)


def clipped(model: Any, count: int) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)


def a_list_of_small_batches() -> Program:
    loader = [[(torch.randn(8, 6), torch.randint(3, (8,))) for _ in range(4)] for _ in range(6)]
    return trained(in_parts(whole, list), loader=loader)


def two_heads() -> Program:
    model = nn.ModuleDict({"body": mlp(16), "a": nn.Linear(16, 3), "b": nn.Linear(16, 3)})

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        hidden = model["body"](batch[0])
        for name in ("a", "b"):
            loss = F.cross_entropy(model[name](hidden), batch[1])
            loss.backward(retain_graph=True)
        optimizer.step()
        return loss

    return trained(step, model)


def three_tasks_with_a_head_each() -> Program:
    """A batch for each task, and each its own head: three losses, not three parts of one."""
    model = nn.ModuleDict({"body": mlp(16), **{f"task{i}": nn.Linear(16, 3) for i in range(3)}})
    loader = [[(torch.randn(8, 6), torch.randint(3, (8,))) for _ in range(3)] for _ in range(6)]

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        for place, (x, y) in enumerate(batch):
            loss = F.cross_entropy(model[f"task{place}"](model["body"](x)), y)
            loss.backward()
        optimizer.step()
        return loss

    return trained(step, model, loader=loader)


def a_loss_and_a_penalty() -> Program:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        (1e-3 * model(batch[0]).square().mean()).backward()
        optimizer.step()
        return loss

    return trained(step)


def one_loss_both_ways() -> Program:
    """Rows find their columns, and columns their rows: the same samples, the same line."""

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        scores = F.normalize(model(batch[0]), dim=1) @ F.normalize(model(batch[0].roll(1, 1)), dim=1).T
        for each in (scores, scores.T):
            loss = F.cross_entropy(each / 0.1, torch.arange(len(scores)))
            loss.backward(retain_graph=True)
        optimizer.step()
        return loss

    return trained(step)


def clean_and_noisy() -> Program:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        for noise in (0.0, 0.1):
            loss = F.cross_entropy(model(batch[0] + noise * torch.randn_like(batch[0])), batch[1])
            loss.backward()
        optimizer.step()
        return loss

    return trained(step)


def real_and_made_up() -> Program:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        for x, wanted in ((batch[0], 1.0), (torch.randn(16, 6), 0.0)):
            score = model(x)[:, 0]
            loss = F.binary_cross_entropy_with_logits(score, torch.full_like(score, wanted))
            loss.backward()
        optimizer.step()
        return loss

    return trained(step)


def twice_with_a_reset_between() -> Program:
    """Sharpness-aware: the first gradient says where to look, and is thrown away."""

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        for _ in range(2):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
        optimizer.step()
        return loss

    return trained(step)


def named(name: str, make: Make) -> Make:
    make.__name__ = name
    return make


FAULTS = {
    RULE: (
        named("chunks", lambda: trained(in_parts(whole, chunks))),
        named("slices", lambda: trained(in_parts(whole, slices))),
        named("slices_clipped", lambda: trained(in_parts(whole, slices, clipped))),
        named("by_hand", lambda: trained(in_parts(by_hand, chunks))),
        named("mean_by_a_division", lambda: trained(in_parts(summed_over_its_own, chunks))),
        a_list_of_small_batches,
        named("every_third_batch", lambda: trained(over_steps(whole, 3))),
        named("every_eighth_batch", lambda: trained(over_steps(by_hand, 8))),
        named("first_and_then_every_fourth", lambda: trained(over_steps(whole, 4, first=True))),
    )
}
HEALTHY = {
    RULE: (
        named("divided_chunks", lambda: trained(in_parts(divided, chunks))),
        named("divided_slices", lambda: trained(in_parts(divided, slices))),
        named("by_share", lambda: trained(in_parts(by_share, chunks))),
        named("by_a_tensor", lambda: trained(in_parts(by_a_tensor, chunks))),
        named("summed_over_all", lambda: trained(in_parts(summed_over_all, chunks))),
        named("averaged_by_hand", lambda: trained(in_parts(whole, chunks, averaged))),
        named("averaged_together", lambda: trained(in_parts(whole, chunks, averaged_together))),
        named("every_third_batch_divided", lambda: trained(over_steps(divided, 3))),
        named("first_and_then_every_fourth_divided", lambda: trained(over_steps(divided, 4, first=True))),
        named("plain", lambda: trained(None)),
        named("adam", lambda: trained(in_parts(whole, chunks), optimizer=Adam)),
        named("adamw_over_steps", lambda: trained(over_steps(whole, 3), optimizer=AdamW)),
        *(two_heads, a_loss_and_a_penalty, one_loss_both_ways, clean_and_noisy, real_and_made_up),
        *(twice_with_a_reset_between, three_tasks_with_a_head_each),
    )
}
test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


def test_an_optimizer_that_divides_it_out_is_told_for_completeness() -> None:
    found = judged(RULE, *trained(in_parts(whole, chunks), optimizer=Adam)).findings
    assert [finding.severity for finding in found] == ["info"]
    assert "Adam divides that out again" in found[0].why


@pytest.mark.parametrize(("times", "words"), [(3, "of 3 batches"), (8, "of 8 batches"), (12, "of 8 or more batches")])
def test_the_first_steps_tell_how_many_there_are(times: int, words: str) -> None:
    torch.manual_seed(0)
    debugger = Debugger(*trained(over_steps(whole, times)), journal=None)
    debugger.run(steps=40)
    found = [each for each in debugger.findings if each.cause == RULE]
    debugger.close()
    assert len(found) == 1 and words in found[0].why


@pytest.mark.parametrize("loss_of", [divided, summed_over_all])
def test_the_first_steps_of_a_sound_one_tell_nothing(loss_of: Pass) -> None:
    torch.manual_seed(0)
    debugger = Debugger(*trained(over_steps(loss_of, 12 if loss_of is divided else 1)), journal=None)
    debugger.run(steps=40)
    found = [each for each in debugger.findings if each.severity != "info"]
    debugger.close()
    assert found == []


@pytest.mark.parametrize("times", [4, 12])
def test_the_battery_tells_it_before_training(times: int) -> None:
    torch.manual_seed(0)
    debugger = Debugger(*trained(over_steps(whole, times)), journal=None)
    causes = debugger.preflight(skip=["overfit_one_batch", "input_label_mismatch"]).causes
    debugger.close()
    assert RULE in causes


@pytest.mark.parametrize(("times", "traced"), [(1, 2), (3, 3), (8, 8), (12, 8)])
def test_no_more_steps_are_looked_into_than_it_takes(times: int, traced: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []
    whole_trace = onlooker.traced

    def counting(*args: Any, **options: Any) -> Any:
        looked.append(args)
        return whole_trace(*args, **options)

    monkeypatch.setattr(onlooker, "traced", counting)
    debugger = Debugger(*trained(over_steps(divided, times)), journal=None)
    debugger.run(steps=20)
    debugger.close()
    assert len(looked) == traced
