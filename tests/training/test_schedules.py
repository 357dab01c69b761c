"""Schedules: what is previewed is what comes, torch's own formulas are kept, and a state comes back exactly."""

from __future__ import annotations

import copy
import io
import pickle
import random
import re

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as S

from nbdebug.records.errors import CommandError, ConfigurationError
from nbdebug.records.schedules import PARAMETERS, Schedule, ScheduleKind
from nbdebug.training.schedules import bases_from_here, build, present_rates, preview

BASES = [0.1, 0.003, 2.0]
STEPS = 500
TABLE = {
    "constant": Schedule.of("constant", interval="batch"),
    "constant, warm": Schedule.of("constant", interval="batch", warmup_steps=37, warmup_start=0.1),
    "step": Schedule.of("step", interval="batch", every=60, gamma=0.3),
    "step, warm": Schedule.of("step", interval="batch", every=60, gamma=0.3, warmup_steps=11),
    "step, epochs": Schedule.of("step", every=2, gamma=0.5, warmup_steps=3),
    "cosine": Schedule.of("cosine", interval="batch", total=400, floor=0.01),
    "cosine, warm": Schedule.of("cosine", interval="batch", total=STEPS, warmup_steps=50),
    "cosine, epochs": Schedule.of("cosine", total=20),
    "one_cycle": Schedule.of("one_cycle", interval="batch", total=450),
    "one_cycle, short": Schedule.of("one_cycle", interval="batch", total=2, peak_at=0.0),
    "cyclic": Schedule.of("cyclic", interval="batch", every=64),
    "cyclic, odd, falling": Schedule.of("cyclic", interval="batch", every=33, gamma=0.5, floor=0.0),
    "exponential": Schedule.of("exponential", interval="batch", gamma=0.99),
    "exponential, epochs, warm": Schedule.of("exponential", warmup_steps=2),
    "plateau": Schedule.of("plateau", interval="batch", patience=3, gamma=0.5),
    "plateau, warm": Schedule.of("plateau", interval="batch", patience=3, warmup_steps=20, cooldown=2, floor=0.01),
    "plateau, epochs": Schedule.of("plateau", patience=0, warmup_steps=4),
}
LOSSES = [1 / (1 + k % 50) for k in range(STEPS)]
PER_EPOCH = 23


def optimizer(bases: list[float] = BASES, *, tensor: bool = False) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in bases]
    if tensor:
        groups = [{**group, "lr": torch.tensor(group["lr"], dtype=torch.float64)} for group in groups]
    return torch.optim.SGD(groups, lr=0.1)


def advance(schedule: Schedule, scheduler: S.LRScheduler, place: int) -> None:
    scheduler.optimizer.step()
    scheduler.step(LOSSES[place]) if schedule.kind == "plateau" else scheduler.step()


def really(schedule: Schedule, steps: int, done: int = 0, batch: int = 0, *, tensor: bool = False) -> np.ndarray:
    trained = optimizer(tensor=tensor)
    scheduler, rows, place = build(schedule, trained, done), [], 0
    for step in range(steps):
        rows.append(present_rates(trained))
        if schedule.interval == "batch" or (step + 1 + batch) % PER_EPOCH == 0:
            advance(schedule, scheduler, place)
            place += 1
    return np.array(rows)


@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("name", TABLE)
def test_the_preview_is_what_comes(name: str, tensor: bool) -> None:
    steps, rates = preview(TABLE[name], BASES, STEPS, PER_EPOCH, losses=LOSSES)
    assert steps.tolist() == list(range(1, STEPS + 1))
    assert rates.shape == (STEPS, 3)
    assert np.array_equal(rates, really(TABLE[name], STEPS, tensor=tensor))


@pytest.mark.parametrize("name", TABLE)
def test_a_schedule_begins_anywhere(name: str) -> None:
    schedule = TABLE[name]
    _, whole = preview(schedule, BASES, 120, PER_EPOCH, losses=LOSSES)
    for done in (1, 7, 40):
        _, rates = preview(schedule, BASES, 60, PER_EPOCH, done=done, batch=5, losses=LOSSES)
        assert np.array_equal(rates, really(schedule, 60, done, batch=5))
        if schedule.kind != "plateau" and schedule.interval == "batch":
            assert np.array_equal(rates, whole[done : done + 60])


def torchs_own(name: str, o: torch.optim.Optimizer) -> S.LRScheduler:
    linear = S.LinearLR(o, 0.01, total_iters=50) if "warm" in name else None
    body = {
        "step": lambda: S.StepLR(o, 60, 0.3),
        "step, warm": lambda: S.StepLR(o, 60, 0.3),
        "exponential": lambda: S.ExponentialLR(o, 0.99),
        "cosine, warm": lambda: S.CosineAnnealingLR(o, STEPS - 50),
        "one_cycle": lambda: S.OneCycleLR(o, BASES, total_steps=STEPS, cycle_momentum=False),
        "cyclic": lambda: S.CyclicLR(o, [b * 0.1 for b in BASES], BASES, 32, cycle_momentum=False),
        "cyclic, falling": lambda: S.CyclicLR(o, [0.0] * 3, BASES, 32, mode="triangular2", cycle_momentum=False),
    }[name]()
    return S.SequentialLR(o, [linear, body], [50]) if linear else body


OURS = {
    "step": Schedule.of("step", interval="batch", every=60, gamma=0.3),
    "step, warm": Schedule.of("step", interval="batch", every=60, gamma=0.3, warmup_steps=50),
    "exponential": Schedule.of("exponential", interval="batch", gamma=0.99),
    "cosine, warm": Schedule.of("cosine", interval="batch", total=STEPS, warmup_steps=50),
    "one_cycle": Schedule.of("one_cycle", interval="batch", total=STEPS),
    "cyclic": Schedule.of("cyclic", interval="batch", every=64),
    "cyclic, falling": Schedule.of("cyclic", interval="batch", every=64, gamma=0.5, floor=0.0),
}


@pytest.mark.parametrize("name", OURS)
def test_the_shapes_are_torchs_own(name: str) -> None:
    trained = optimizer()
    scheduler, rows = torchs_own(name, trained), []
    for _ in range(STEPS):
        rows.append(present_rates(trained))
        trained.step()
        scheduler.step()
    _, rates = preview(OURS[name], BASES, STEPS)
    np.testing.assert_allclose(rates, np.array(rows), rtol=1e-9, atol=1e-12)


def test_a_plateau_without_warm_up_is_torchs_own() -> None:
    schedule, trained = TABLE["plateau"], optimizer()
    theirs = S.ReduceLROnPlateau(trained, factor=0.5, patience=3, eps=0.0)
    rows = []
    for loss in LOSSES:
        rows.append(present_rates(trained))
        theirs.step(loss)
    _, rates = preview(schedule, BASES, STEPS, losses=LOSSES)
    assert np.array_equal(rates, np.array(rows))
    assert rates[-1, 0] < 0.01


def test_a_plateau_judges_nothing_while_it_warms_up() -> None:
    schedule = Schedule.of("plateau", interval="batch", patience=1, warmup_steps=5, gamma=0.5)
    trained = optimizer([1.0])
    scheduler = build(schedule, trained)
    for loss in (0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 8.0, 7.0):  # a low loss of the warm-up is no best that others fail
        scheduler.step(loss)
    assert present_rates(trained) == [1.0]
    for _ in range(2):
        scheduler.step(8.0)
    assert present_rates(trained) == [0.5]


def test_after_its_length_a_schedule_stays() -> None:
    for kind in ("cosine", "one_cycle"):
        schedule = Schedule.of(kind, interval="batch", total=20)
        _, rates = preview(schedule, [1.0], 60)
        assert len(set(rates[20:, 0].tolist())) == 1
        assert rates[19:, 0].max() < 0.01


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("at", [0, 1, 10, 49, 50, 51, 173])
def test_the_state_comes_back_bit_for_bit(name: str, at: int) -> None:
    schedule, trained = TABLE[name], optimizer()
    scheduler = build(schedule, trained)
    for k in range(at):
        advance(schedule, scheduler, k)
    kept = pickle.dumps((scheduler.state_dict(), trained.state_dict()))
    stored = io.BytesIO()
    torch.save(scheduler.state_dict(), stored)  # plain values only, so that no file of it need be trusted
    torch.load(io.BytesIO(stored.getvalue()), weights_only=True)
    other = optimizer()
    second = build(Schedule.of(schedule.kind, **{**schedule.values, "warmup_start": 0.5}), other)
    state, of_optimizer = pickle.loads(kept)
    second.load_state_dict(state)
    other.load_state_dict(of_optimizer)
    for k in range(at, at + 100):
        assert present_rates(other) == present_rates(trained)
        advance(schedule, scheduler, k)
        advance(schedule, second, k)


def test_going_on_from_a_schedule_of_the_users_own() -> None:
    trained = optimizer()
    theirs = S.SequentialLR(trained, [S.LinearLR(trained, 0.1, total_iters=5), S.ExponentialLR(trained, 0.9)], [5])
    for _ in range(9):
        trained.step()
        theirs.step()
    before = present_rates(trained)
    scheduler = build(Schedule.of("exponential", interval="batch", gamma=0.5), trained)
    assert present_rates(trained) == before
    trained.step()
    scheduler.step()
    assert present_rates(trained) == [rate * 0.5 for rate in before]
    schedule = Schedule.of("cosine", interval="batch", total=100)
    now = present_rates(trained)
    build(schedule, trained, 60, base_rates=bases_from_here(schedule, trained, 60))
    assert present_rates(trained) == pytest.approx(now, rel=1e-12)
    with pytest.raises(CommandError, match="at 0 after 100"):
        bases_from_here(schedule, trained, 100)


def test_a_tensor_rate_keeps_its_identity() -> None:
    lr = torch.tensor(0.1)
    trained = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=lr)
    scheduler = build(Schedule.of("step", every=1, gamma=0.5), trained)
    trained.step()
    scheduler.step()
    assert trained.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(0.05)


def test_random_schedules_keep_within_their_bounds_and_make_themselves_again() -> None:
    rng = random.Random(0)
    for _ in range(200):
        kind = rng.choice(list(ScheduleKind))
        values = {"interval": "batch", "total": rng.randint(60, 200)}
        if kind not in ("one_cycle", "cyclic"):
            values |= {"warmup_steps": rng.randint(0, 50), "warmup_start": rng.uniform(0.001, 1)}
        for each in PARAMETERS[kind]:
            high = min(each.high, each.low + 50)
            values[each.name] = rng.randint(int(each.low), int(high)) if each.whole else rng.uniform(each.low, high)
        schedule = Schedule.of(kind, **values)
        assert Schedule.of(schedule.kind, **schedule.values) == schedule == copy.deepcopy(schedule)
        assert not schedule.mistakes()
        assert str(schedule)
        _, rates = preview(schedule, BASES, 150)
        assert np.array_equal(rates, preview(schedule, BASES, 300)[1][:150])
        assert (rates >= 0).all()
        assert (rates <= np.array(BASES) * (1 + 1e-12)).all()


MISTAKES = [
    ("cosin", {}, "unknown schedule 'cosin': did you mean 'cosine'?"),
    ("cosine", {}, "a cosine schedule needs total=..., its length"),
    ("cosine", {"total": 10, "warmup_steps": 10}, "warmup_steps=10 leaves nothing of total=10"),
    ("one_cycle", {"total": 100, "warmup_steps": 3}, "begins low by itself"),
    ("one_cycle", {"total": 1}, "total=1 is out of range"),
    ("step", {"gama": 0.1, "every": 0}, "has no 'gama': did you mean 'gamma'?"),
    ("step", {"gama": 0.1, "every": 0}, "every=0 is out of range: it must be at least 1 and finite"),
    ("step", {"every": 2.5}, "every must be a whole number, not 2.5"),
    ("exponential", {"gamma": 1.5}, "gamma=1.5 is out of range: it must be above 0 and at most 1"),
    ("exponential", {"gamma": float("nan")}, "gamma=nan is out of range"),
    ("plateau", {"gamma": 1.0, "patience": True}, "patience must be a whole number, not True"),
    ("constant", {"interval": "step"}, "interval must be 'epoch' or 'batch', not 'step'"),
    ("constant", {"warmup_start": 0.0}, "warmup_start=0.0 is out of range"),
]


@pytest.mark.parametrize(("kind", "values", "message"), MISTAKES)
def test_mistakes_are_told_all_at_once(kind: str, values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        Schedule.of(kind, **values)


def test_mistakes_of_building_and_previewing() -> None:
    trained = optimizer()
    broken = Schedule(ScheduleKind.COSINE)
    with pytest.raises(ConfigurationError, match=r"needs total[\s\S]*there are 3 parameter groups[\s\S]*done=-1"):
        build(broken, trained, -1, base_rates=[0.1])
    assert present_rates(trained) == BASES
    assert "initial_lr" not in trained.param_groups[0]
    with pytest.raises(ConfigurationError, match="needs steps_per_epoch"):
        preview(Schedule.of("constant"), BASES, 10)
    assert preview(Schedule.of("constant"), BASES, 0, 5)[1].shape == (0, 3)
