"""Another batch size while training: from the next batch on, as the plain loop of docs/reference-loop.md does it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.records.commands import Changes, SetKnobs
from nbdebug.records.errors import ConfigurationError
from nbdebug.records.status import State
from tests.training import reference, setups

LAST = 30
Loader = Callable[[], Any]


def _documented() -> Any:
    blocks = re.findall(r"```python\n(.*?)```", reference.PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"torch": torch}
    exec(compile(blocks[1], str(reference.PAGE), "exec"), names)
    return names["batches_of"]


batches_of = _documented()


class Lengthless(Sampler[int]):
    """Draws each index from the global generator, only when it is asked for; says nothing of its length."""

    def __iter__(self) -> Iterator[int]:
        return (int(torch.randint(50, ())) for _ in range(50))


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    return TensorDataset(torch.randn(50, 8, generator=generator), torch.randint(0, 3, (50,), generator=generator))


def replacing() -> DataLoader[Any]:
    """A sampler that draws 32 indices at a time from a generator which the data draw from too."""
    generator = torch.Generator().manual_seed(2)
    return DataLoader(data(), 8, sampler=RandomSampler(range(50), True, 70, generator), generator=generator)


def summed(samples: list[Any]) -> Any:
    """A batch in which each sample depends on the first."""
    return samples[0][0] + torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


LOADERS: dict[str, Loader] = {
    "shuffled": lambda: DataLoader(data(), 8, shuffle=True),
    "in order": lambda: DataLoader(data(), 8),
    "own generator": lambda: DataLoader(data(), 8, shuffle=True, generator=torch.Generator().manual_seed(3)),
    "the last dropped": lambda: DataLoader(data(), 8, shuffle=True, drop_last=True),
    "own sampler": lambda: DataLoader(data(), 8, sampler=setups.Shuffled(50)),
    "own sampler with a state": lambda: DataLoader(data(), 8, sampler=setups.Epochal(50)),
    "own sampler that draws as it goes": lambda: DataLoader(setups.Augmented(*data().tensors), 8, sampler=Lengthless()),
    "with replacement": replacing,
    "augmented, put together in a way of its own": lambda: DataLoader(
        setups.Augmented(*data().tensors), 8, shuffle=True, collate_fn=summed
    ),
}


def seeded() -> nn.Module:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 3))


def made(loader: Loader, **options: Any) -> Debugger:
    model = seeded()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    return Debugger(model, Trainer(optimizer, F.cross_entropy, loader(), **options), journal=None)


def plainly(loader: Loader, sizes: dict[int, int], steps: int = LAST) -> tuple[list[torch.Tensor], list[int]]:
    """Weights after so many steps, and the sizes of all batches, where the batch size changes after some steps."""
    model, training, taken = seeded(), loader(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    present = [8]
    for _ in count():
        for inputs, target in batches_of(training, lambda: present[0]):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), target).backward()
            optimizer.step()
            taken.append(len(target))
            present[0] = sizes.get(len(taken), present[0])
            if len(taken) == steps:
                return values(model), taken
    raise AssertionError


def values(of: nn.Module | Debugger) -> list[torch.Tensor]:
    model: Any = of._model if isinstance(of, Debugger) else of
    return [value.clone() for value in model.state_dict().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", LOADERS)
def test_it_acts_from_the_next_batch_on_and_is_gone_back_over(name: str) -> None:
    loader, taken = LOADERS[name], []
    case = made(loader, metrics={"size": lambda output, target: taken.append(len(target)) or 0.0})
    case.run(steps=3)
    assert case.set(batch_size=5).text == "batch size 5"
    case.run(steps=3)
    middle = values(case)
    case.run(steps=2)
    case.set(batch_size=11)
    case.run(steps=LAST - 8)
    expected, sizes = plainly(loader, {3: 5, 8: 11})
    assert taken == sizes and same(values(case), expected)
    assert [mark.text for mark in case._journal.marks] == ["batch size 5", "batch size 11"]
    for kept in case.snapshots[1:]:
        case.drop_snapshot(kept)
    for step in (6, 20, 2, 8, 6):
        case.rewind(step)
        assert case.status.step == step
    assert same(values(case), middle)
    case.checkout("main")
    assert same(values(case), expected) and not case.findings
    case.rerun(steps=LAST - 4, start=4, batch_size=13)
    assert same(values(case), plainly(loader, {3: 5, 4: 13})[0])
    case.rewind(2, batch_size=7)
    case.run(steps=LAST - 2)
    assert same(values(case), plainly(loader, {2: 7})[0])
    case.close()


def test_the_status_counts_the_batches_of_the_epoch() -> None:
    case = made(LOADERS["shuffled"])
    assert case.status.batches == 7
    case.run(steps=3)
    case.set(batch_size=5)
    assert (case.status.batch, case.status.batches) == (3, 3 + 6)
    case.run(steps=1)
    case.set(batch_size=100)
    assert (case.status.batch, case.status.batches) == (4, 5)
    case.rewind(2)
    assert (case.status.batch, case.status.batches) == (2, 7)
    case.checkout("main")
    assert (case.status.batch, case.status.batches) == (4, 5)
    case.run(epochs=1)
    assert (case.status.step, case.status.batch, case.status.batches) == (5, 0, 1)
    case.close()
    dropping = made(LOADERS["the last dropped"])
    dropping.run(steps=5)
    dropping.set(batch_size=11)
    assert (dropping.status.batch, dropping.status.batches) == (5, 5)
    dropping.run(steps=1)
    assert (dropping.status.epoch, dropping.status.batch, dropping.status.batches) == (1, 1, 4)
    dropping.close()


def test_undo_and_knobs_in_force() -> None:
    case = made(LOADERS["shuffled"])
    case.run(steps=2)
    case.set(batch_size=20)
    states = case._knob_states()
    assert (states.batch_size, states.why_not_batch_size, states.batch_size_acts) == (20, "", "")
    assert dict(states.origins)["batch_size"] == "set at step 2 of main"
    case.run(steps=1)
    assert case.undo().text == "back to batch size 8"
    case.run(steps=LAST - 3)
    assert same(values(case), plainly(LOADERS["shuffled"], {2: 20, 3: 8})[0])
    case.close()


def test_while_training_runs_it_is_on_record_with_its_step() -> None:
    case = made(LOADERS["shuffled"])
    case.start(steps=300)
    case.set(batch_size=6)
    case.wait()
    [at] = [change.step for change in case._session.timeline.lines["main"].interventions]
    assert at < 300 and same(values(case), plainly(LOADERS["shuffled"], {at: 6}, 300)[0])
    case.close()


@pytest.mark.parametrize("name", ["shuffled", "own sampler with a state", "with replacement"])
def test_a_snapshot_in_a_file_goes_on_with_it(name: str, tmp_path: Path) -> None:
    loader = LOADERS[name]
    case = made(loader)
    case.run(steps=3)
    case.set(batch_size=5)
    case.run(steps=2)
    case.snapshot(path=tmp_path / "kept.safetensors")
    case_batches = {"kept": case.status.batches}
    case.set(batch_size=9)
    case.snapshot(path=tmp_path / "another.safetensors")
    case_batches["another"] = case.status.batches
    assert case_batches == (
        {"kept": 5 + 8, "another": 5 + 4} if name == "with replacement" else {"kept": 9, "another": 7}
    )
    case.close()
    for file, sizes in (("kept", {3: 5}), ("another", {3: 5, 5: 9})):
        other = made(loader)
        other.checkout(tmp_path / f"{file}.safetensors")
        assert (other.status.batch, other.status.batches) == (5, case_batches[file])
        other.run(steps=LAST - 5)
        assert same(values(other), plainly(loader, sizes)[0]), file
        other.rewind(7)
        other.checkout("main (2)" if "main (2)" in other.runs else "main")
        assert same(values(other), plainly(loader, sizes)[0]), file
        other.close()


def test_the_users_loader_is_left_as_it_was() -> None:
    loader = DataLoader(data(), 8, shuffle=True)
    before, sampler = dict(vars(loader)), dict(vars(loader.batch_sampler))
    case = made(lambda: loader)
    case.run(steps=3)
    case.set(batch_size=5)
    case.run(steps=20)
    case.rewind(2)
    assert vars(loader) == before and vars(loader.batch_sampler) == sampler
    case.checkout("main")
    case.close()
    assert vars(loader) == before and vars(loader.batch_sampler) == sampler
    assert [len(target) for _, target in loader] == [8] * 6 + [2]


@pytest.mark.parametrize("look", ["forecast", "stop in the step"])
def test_a_batch_that_was_fetched_to_be_looked_at_is_fetched_anew(look: str) -> None:
    for name in ("shuffled", "with replacement", "augmented, put together in a way of its own"):
        case = made(LOADERS[name])
        case.run(steps=3)
        if look == "forecast":
            case.forecast(lr=0.1)
        else:
            case.break_at(step=4)
            case.start(steps=LAST - 3)
            case._session.wait(lambda state: state is State.PAUSED)
        case.set(batch_size=5)
        case.forecast(lr=0.2)
        assert len(case.current.batch[1]) == 5
        if look == "forecast":
            case.run(steps=LAST - 3)
        else:
            case.resume()
            case.wait()
        expected, _ = plainly(LOADERS[name], {3: 5})
        assert case.status.step == LAST and same(values(case), expected), name
        case.rewind(5)
        case.checkout("main")
        assert same(values(case), expected), name
        case.close()


def test_after_an_epochs_last_step_it_acts_on_what_is_left_of_the_order() -> None:
    case = made(LOADERS["the last dropped"])
    case.run(steps=5)
    case.break_when("loss < 100")
    case.run(steps=LAST - 5)
    assert (case.status.step, case.status.epoch) == (6, 0)
    case.set(batch_size=2)
    assert (case.status.batch, case.status.batches) == (6, 7)
    for number in [told.number for told in case.breakpoints]:
        case.remove_breakpoint(number)
    case.resume()
    case.wait()
    expected, sizes = plainly(LOADERS["the last dropped"], {6: 2})
    assert sizes[5:8] == [8, 2, 2] and case.status.step == LAST
    assert same(values(case), expected)
    for kept in case.snapshots[1:]:
        case.drop_snapshot(kept)
    case.rewind(9)
    case.checkout("main")
    assert same(values(case), expected) and not case.findings
    case.close()


def test_the_learning_rate_finder_uses_it_and_leaves_no_trace() -> None:
    case = made(LOADERS["shuffled"])
    case.run(steps=3)
    case.set(batch_size=5)
    case.find_lr(steps=12)
    case.run(steps=LAST - 3)
    assert same(values(case), plainly(LOADERS["shuffled"], {3: 5})[0])
    case.close()


def test_a_batch_left_out_is_of_the_size_in_force() -> None:
    case = made(LOADERS["shuffled"])
    case.run(steps=2)
    case.set(batch_size=5)
    case.break_at(step=4)
    case.start(steps=LAST - 2)
    case._session.wait(lambda state: state is State.PAUSED)
    case.skip()
    assert (case.status.batch, case.status.batches) == (4, 2 + 7)
    case.resume()
    case.wait()
    there = values(case)
    case.rewind(3)
    case.checkout("main")
    assert same(values(case), there) and not case.findings
    case.close()


@pytest.mark.parametrize("persistent", [False, True])
def test_with_workers_it_acts_from_the_next_epoch_on(persistent: bool) -> None:
    def loader(size: int = 8) -> DataLoader[Any]:
        return DataLoader(data(), size, shuffle=True, num_workers=2, persistent_workers=persistent)

    case = made(loader)
    case.run(steps=3)
    told = case.set(batch_size=5).text
    assert told == "batch size 5 from the next epoch on, since its worker processes have fetched ahead"
    assert case._knob_states().batch_size_acts.startswith("from the next epoch on")
    assert case.status.batches == 7
    case.run(steps=2)
    case.snapshot("within")
    case.run(steps=15)
    assert (case.status.epoch, case.status.batch, case.status.batches) == (2, 3, 10)
    model = seeded()
    optimizer, step = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), 0
    eight, five = loader(8), loader(5)
    for each in (eight, five, five):
        for inputs, target in each:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), target).backward()
            optimizer.step()
            step += 1
            if step == 20:
                break
    assert same(values(case), values(model))
    for start in ("within", 1, 4):
        case.rewind(start) if isinstance(start, int) else case.checkout(start)
        assert case.status.batches == 7
        case.checkout("main")
        assert same(values(case), values(model))
    case.close()


class Several(DataLoader[Any]):
    def __iter__(self) -> Any:
        return super().__iter__()


@pytest.mark.parametrize(
    ("loader", "size", "message"),
    [
        (lambda: [(torch.ones(2, 8), torch.ones(2).long())], 4, "train_loader is a list of batches, which makes"),
        (lambda: DataLoader(setups.Stream(), 6), 4, "its dataset is a stream"),
        (lambda: DataLoader(data(), batch_size=None), 4, r"puts no batches together \(batch_size=None\)"),
        (lambda: DataLoader(data(), batch_sampler=[[1, 2], [3]]), 4, r"batch sampler of its own \(list\)"),
        (lambda: Several(data(), 8), 4, "class, Several, goes through the data in a way of its own"),
        (LOADERS["the last dropped"], 51, "more than the 50 samples that there are: with drop_last no batch would be"),
        (LOADERS["shuffled"], 0, "batch_size=0 is out of range: it must be at least 1"),
        (LOADERS["shuffled"], -8, "batch_size=-8 is out of range"),
        (LOADERS["shuffled"], True, "batch_size must be a whole number, not True"),
        (LOADERS["shuffled"], 8.0, "batch_size must be a whole number, not 8.0"),
        (LOADERS["shuffled"], float("nan"), "batch_size must be a whole number, not nan"),
        (LOADERS["shuffled"], "8", "batch_size must be a whole number, not '8'"),
        (LOADERS["shuffled"], None, "batch_size can't be None"),
    ],
)
def test_what_can_not_be_is_refused_and_the_run_unharmed(loader: Loader, size: Any, message: str) -> None:
    case = made(loader)
    for change in (case.set, partial(case.rerun, 1), partial(case.rewind, 0)):
        with pytest.raises(ConfigurationError, match=message) as caught:
            change(batch_size=size, lr=-1)
        assert "lr=-1 is out of range" in str(caught.value)
    before = case.status.batches
    with pytest.raises(ConfigurationError, match=message):
        case.set(batch_size=size)
    assert case.status.batches == before and not case._journal.marks
    case.close()


def test_samplers_of_torch_are_told_from_ones_own() -> None:
    sampler = BatchSampler(SequentialSampler(data()), 6, False)
    case = made(lambda: DataLoader(data(), batch_sampler=sampler))
    case.run(steps=2)
    case.set(batch_size=5)
    assert case.status.batches == 2 + 8 and sampler.batch_size == 6
    case.close()


def test_of_another_size_the_memory_is_foretold_and_the_step_on_the_present_batch() -> None:
    case = made(LOADERS["shuffled"])
    case.run(steps=1)
    told, plain = case.forecast(batch_size=4), case.forecast()
    assert told.memory is not None and told.memory.batch_size == 4
    assert told.loss == plain.loss and told.ratios.tolist() == plain.ratios.tolist()
    case.close()


def test_a_size_written_on_the_sampler_by_hand_is_a_change_of_the_knob() -> None:
    loader = DataLoader(data(), 8, shuffle=True)
    case = made(lambda: loader)
    case.run(steps=3)
    loader.batch_sampler.batch_size = 5  # type: ignore[union-attr]
    case.run(steps=LAST - 3)
    expected = plainly(LOADERS["shuffled"], {3: 5})[0]
    assert same(values(case), expected)
    assert [made.change for made in case._session.timeline.lines["main"].interventions] == [
        SetKnobs(Changes(batch_size=5))
    ]
    case.rewind(2)
    assert case._knob_states().batch_size == 8
    case.checkout("main")
    assert same(values(case), expected)
    case.close()
