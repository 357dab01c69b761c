"""Watching samples over time: what is told of each is true, it changes nothing, and it survives everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from nbdebug import Debugger, Journal, Trainer
from nbdebug.records.errors import ConfigurationError
from nbdebug.records.findings import Cause
from nbdebug.records.samples import Task
from tests.training import reference
from tests.training.test_do_no_harm import assert_same, states

SAMPLES = 60


class Jittered(Dataset[Any]):
    """Counts how often it is read, keeps what it read last, draws from three generators of its own and torch's."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y
        self.reads = 0
        self.latest: list[int] = []
        self.generator = torch.Generator().manual_seed(7)
        self.opened: Any = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: int) -> Any:
        self.reads += 1
        self.latest.append(at)
        self.opened = self.opened or object()
        noise = torch.randn(self.x.shape[1:]) + torch.randn(self.x.shape[1:], generator=self.generator)
        scale = 1 + 0.1 * random.random() + 0.1 * float(np.random.rand()) + 0.001 * self.reads
        return self.x[at] * scale + 0.1 * noise, self.y[at]


class Streamed(IterableDataset[Any]):
    """The same samples in a row, with noise."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[Any]:
        for x, y in zip(self.x, self.y, strict=True):
            yield x + 0.1 * torch.randn(x.shape), y


class Counting(nn.Module):
    """Changes whatever a forward pass can: a buffer, a counter, a list, numbers drawn, whatever the mode."""

    def __init__(self, *, lists: bool = True) -> None:
        super().__init__()
        self.lists = lists
        self.inner = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        self.register_buffer("sum", torch.zeros(()))
        self.calls = 0
        self.seen: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.lists:  # snapshots don't hold lists
            self.seen.append(float(x.sum()))
        self.sum += x.sum().detach()
        noise = 0.01 * torch.randn(x.shape) + 0.001 * (self.calls % 5) + 0.0001 * len(self.seen)
        out: torch.Tensor = self.inner(x + noise + 1e-6 * self.sum)
        return out


def points(samples: int = SAMPLES, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 6, generator=generator)
    return x, (x @ torch.randn(6, 3, generator=generator)).argmax(1)


def plain(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def loader_of(kind: str) -> Any:
    x, y = points()
    if kind == "list":
        return [(x[at : at + 10], y[at : at + 10]) for at in range(0, SAMPLES, 10)]
    if kind.startswith("stream"):
        return DataLoader(Streamed(x, y), 10, num_workers=2 if "workers" in kind else 0)
    dataset = TensorDataset(x, y) if kind == "tensors" else Jittered(x, y)
    return DataLoader(dataset, 10, shuffle=True, num_workers=2 if "workers" in kind else 0)


LOADERS = ("tensors", "map", "map, workers", "stream", "stream, workers", "list")


def made(
    loader: Any = None, model: nn.Module | None = None, loss_fn: Any = F.cross_entropy, **options: Any
) -> Debugger:
    given = {name: options.pop(name) for name in ("journal", "budget", "samples", "probes") if name in options}
    model = model if model is not None else plain()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    loader = loader_of("tensors") if loader is None else loader
    trainer = Trainer(optimizer, loss_fn, loader, **options)
    return Debugger(model, trainer, checks=False, **{"journal": None, "samples": False, **given})


# -- nothing is changed ---------------------------------------------------------------------------------------------


def seeded(kind: str, *, lists: bool = True) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    model = Counting(lists=lists)
    return model, torch.optim.Adam(model.parameters(), 1e-2), loader_of(kind)


@pytest.mark.parametrize(
    ("kind", "every"), [*((kind, 2) for kind in LOADERS), ("tensors", None), ("map, workers", None), ("stream", None)]
)
def test_weights_random_states_and_data_are_bit_for_bit_those_of_the_plain_loop(kind: str, every: int | None) -> None:
    model, optimizer, loader = seeded(kind)
    reference.train(model, optimizer, F.cross_entropy, loader, None, epochs=4)
    theirs = states(model, optimizer) | counted(model, loader)
    model, optimizer, loader = seeded(kind)
    debugger = Debugger(model, Trainer(optimizer, F.cross_entropy, loader), journal=None, checks=False)
    debugger.watch_samples(24, every=every)
    debugger.run(epochs=2)
    debugger.watch_samples(13)
    debugger.inspect_samples(most=3)
    debugger.run(epochs=2)
    assert len(debugger.samples) >= 2, debugger.samples
    assert_same(states(model, optimizer) | counted(model, loader), theirs)
    assert not [each for each in debugger.findings if each.cause is Cause.WATCHING_DISABLED]
    debugger.close()


def counted(model: nn.Module, loader: Any) -> dict[str, Any]:
    """Counters and lists of the model and the data set, and the data set's own generator."""
    assert isinstance(model, Counting)
    found: dict[str, Any] = {"calls": torch.tensor(model.calls), "seen": torch.tensor(model.seen)}
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, Jittered):
        found |= {"reads": torch.tensor(dataset.reads), "latest": torch.tensor(dataset.latest)}
        found["its generator"] = dataset.generator.get_state()
        found["opened"] = torch.tensor(dataset.opened is not None)
    return found


def test_what_watches_by_itself_changes_nothing_and_can_be_switched_off() -> None:
    ends = []
    for on in (True, False):
        model, optimizer, loader = seeded("map")
        trainer = Trainer(optimizer, F.cross_entropy, loader)
        debugger = Debugger(model, trainer, journal=None, budget=None, samples=on)
        debugger.run(epochs=3)
        assert len(debugger.samples) == (3 if on else 0)
        assert on or "watch_samples() does" in str(debugger.samples)
        ends.append(states(model, optimizer) | counted(model, loader))
        debugger.close()
    assert_same(*ends)


@pytest.mark.parametrize("kind", ["tensors", "list", "stream"])
def test_rewinds_reruns_and_checkouts_are_exact_with_passes_between(kind: str) -> None:
    model, optimizer, loader = seeded(kind, lists=False)
    debugger = Debugger(model, Trainer(optimizer, F.cross_entropy, loader), journal=None, checks=False)
    debugger.watch_samples(12, every=4)
    debugger.run(steps=17)
    end, passes = states(model, optimizer), debugger.samples
    debugger.rewind(9)
    assert debugger.samples.steps.tolist() == [each for each in passes.steps.tolist() if each <= 9]
    rerun = debugger.rerun(steps=8, start="here")
    again = debugger.samples
    assert_same(states(model, optimizer), end)
    assert debugger.status.run == rerun.name != "main"
    assert again.steps.tolist() == passes.steps.tolist()
    np.testing.assert_array_equal(again.losses, passes.losses)
    debugger.checkout("main")
    assert_same(states(model, optimizer), end)
    np.testing.assert_array_equal(debugger.samples.losses, passes.losses)
    debugger.close()


# -- what is told is true -------------------------------------------------------------------------------------------


def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        out: torch.Tensor = model(x)
    model.train(training)
    return out


LOSSES: dict[str, Any] = {
    "function": F.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "smoothed": nn.CrossEntropyLoss(label_smoothing=0.1),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
    "weighted": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.1])),
    "own": lambda output, target: F.cross_entropy(output, target) + 1,
    "parts": {"first": F.cross_entropy, "second": nn.CrossEntropyLoss()},
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_the_users_own_on_each_sample(name: str) -> None:
    loss_fn = LOSSES[name]
    case = made(loss_fn=loss_fn)
    case.watch_samples(20)
    case.run(epochs=2)
    found, (x, y) = case.samples, points()
    assert found.indices.tolist() == np.linspace(0, 59, 20).round().astype(int).tolist()
    output = forward(case._model, x)  # type: ignore[arg-type]
    parts = loss_fn.values() if isinstance(loss_fn, dict) else [loss_fn]
    for place, at in enumerate(found.indices.tolist()):
        alone = sum(float(part(output[at : at + 1], y[at : at + 1])) for part in parts)
        assert found.losses[-1][place] == pytest.approx(alone, rel=1e-4)
    np.testing.assert_array_equal(found.passes[-1].predicted, output.argmax(1)[found.indices].numpy())
    np.testing.assert_allclose(found.passes[-1].confidence, output.softmax(1).amax(1)[found.indices], rtol=1e-5)
    chances = output.softmax(1)[found.indices]
    own = chances[range(20), y[found.indices]]
    others = chances.clone()
    others[range(20), y[found.indices]] = -1
    np.testing.assert_allclose(found.margins[-1], own - others.amax(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.right[-1], (output.argmax(1) == y)[found.indices].float())
    case.close()


def test_the_order_of_the_worst_the_confusion_and_the_words() -> None:
    case = made()
    case.watch_samples(SAMPLES)
    case.run(epochs=3)
    found, (x, y) = case.samples, points()
    alone = F.cross_entropy(forward(case._model, x), y, reduction="none")  # type: ignore[arg-type]
    assert found.worst(7).indices == tuple(alone.argsort(descending=True)[:7].tolist())
    table = np.zeros((3, 3), dtype=int)
    for true, told in zip(y.tolist(), forward(case._model, x).argmax(1).tolist(), strict=True):  # type: ignore[arg-type]
        table[true, told] += 1
    np.testing.assert_array_equal(found.confusion(), table)
    with pytest.raises(LookupError, match="no numbers to compare"):
        found.residuals()
    assert found.set is not None and found.set.task is Task.CLASSES and found.set.view is not None
    assert found.set.view.rows is not None and found.set.view.rows.shape == (60, 6)
    np.testing.assert_allclose(found.set.view.rows, x.numpy(), rtol=1e-6)
    assert "60 training samples, 3 passes" in str(found) and "foretold as" in str(found.worst())
    assert f"<th>#{found.worst()[0].index}</th>" in found._repr_html_()
    case.close()


def regression(columns: int) -> tuple[DataLoader[Any], nn.Module, torch.Tensor, torch.Tensor]:
    x, _ = points()
    y = x[:, :columns] * 2 + 0.5
    torch.manual_seed(0)
    return DataLoader(TensorDataset(x, y), 10, shuffle=True), nn.Linear(6, columns), x, y


@pytest.mark.parametrize(("columns", "loss_fn"), [(1, nn.MSELoss()), (1, F.l1_loss), (3, nn.SmoothL1Loss())])
def test_residuals_of_numbers(columns: int, loss_fn: Any) -> None:
    loader, model, x, y = regression(columns)
    case = made(loader, model, loss_fn)
    case.watch_samples(SAMPLES)
    case.run(epochs=2)
    found = case.samples
    assert found.set is not None and found.set.task is Task.VALUES
    np.testing.assert_allclose(found.residuals(), (forward(model, x) - y).numpy(), rtol=1e-5, atol=1e-6)
    alone = [float(loss_fn(forward(model, x)[at], y[at])) for at in range(SAMPLES)]
    np.testing.assert_allclose(found.losses[-1], alone, rtol=1e-4, atol=1e-7)
    assert not len(found.forgotten) and not len(found.mislabelled)
    with pytest.raises(LookupError, match="no classes"):
        found.confusion()
    case.close()


def yes_or_no(columns: int) -> tuple[DataLoader[Any], nn.Module, torch.Tensor, torch.Tensor]:
    x, _ = points()
    y = (x[:, :columns] > 0).float()
    torch.manual_seed(0)
    return DataLoader(TensorDataset(x, y), 10, shuffle=True), nn.Linear(6, columns), x, y


def test_yes_or_no_is_two_classes() -> None:
    loader, model, x, y = yes_or_no(1)
    case = made(loader, model, nn.BCEWithLogitsLoss())
    case.watch_samples(SAMPLES)
    case.run(epochs=2)
    found, chance = case.samples, forward(model, x).sigmoid()[:, 0].numpy()
    assert found.set is not None and found.set.classes == 2
    np.testing.assert_array_equal(found.passes[-1].predicted, chance > 0.5)
    np.testing.assert_allclose(found.passes[-1].confidence, np.maximum(chance, 1 - chance), rtol=1e-4)
    np.testing.assert_array_equal(found.set.targets, y[:, 0])
    case.close()


def test_several_labels_and_the_places_of_a_sequence_have_a_share_that_is_right() -> None:
    loader, model, x, y = yes_or_no(4)
    case = made(loader, model, nn.BCEWithLogitsLoss())
    case.watch_samples(SAMPLES)
    case.run(epochs=1)
    share = ((forward(model, x) > 0) == y.bool()).float().mean(1)
    assert case.samples.set is not None and case.samples.set.task is Task.PLACES
    np.testing.assert_allclose(case.samples.right[-1], share, rtol=1e-6)
    case.close()
    tokens = torch.randint(0, 5, (SAMPLES, 7), generator=torch.Generator().manual_seed(1))
    padded = tokens.clone()
    padded[:, 5:] = -100
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5))
    loss = lambda output, target: F.cross_entropy(output.transpose(1, 2), target)  # noqa: E731
    case = made(DataLoader(TensorDataset(tokens, padded), 10), model, loss)
    case.watch_samples(SAMPLES)
    case.run(epochs=1)
    right = (forward(model, tokens).argmax(2) == padded)[:, :5].float().mean(1)
    np.testing.assert_allclose(case.samples.right[-1], right, rtol=1e-6)
    assert case.samples.set is not None and case.samples.set.view is not None
    assert case.samples.set.view.kind == "sequence"
    case.close()


def mixing(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss of whole batches: of one sample it is always nothing."""
    return F.cross_entropy(output @ output.T, torch.arange(len(output)))


def test_a_loss_of_whole_batches_is_not_taken_of_one_sample() -> None:
    case = made(loss_fn=mixing)
    case.watch_samples(20)
    case.run(epochs=2)
    found, (x, y) = case.samples, points()
    usual = F.cross_entropy(forward(case._model, x), y, reduction="none")  # type: ignore[arg-type]
    np.testing.assert_allclose(found.losses[-1], usual[found.indices].numpy(), rtol=1e-4)
    assert found.set is not None and "the usual loss" in found.set.loss
    case.close()


# -- which samples, and from where ----------------------------------------------------------------------------------


def test_indices_subsets_validation_and_given_data() -> None:
    x, y = points()
    pool = list(range(0, 40, 2))
    loader = DataLoader(TensorDataset(x, y), 10, sampler=SubsetRandomSampler(pool))
    case = made(loader, val_loader=DataLoader(TensorDataset(x[:30], y[:30]), 10))
    cases: list[tuple[Any, int, list[int]]] = [
        ("train", 99, pool),
        ("val", 3, [0, 14, 29]),
        ([5, 7, 9], 256, [5, 7, 9]),
        (np.array([1, 2]), 256, [1, 2]),
        (TensorDataset(x[:9], y[:9]), 256, list(range(9))),
        (DataLoader(TensorDataset(x[:8], y[:8]), 3), 2, [0, 7]),
        ([(x[:4], y[:4]), (x[4:8], y[4:8])], 4, [0, 1, 2, 3]),
    ]
    case.run(steps=1)
    for of, count, expected in cases:
        case.watch_samples(count, of=of)
        assert case.samples.indices.tolist() == expected, of
    assert "all" not in str(case.samples) and len(case.samples) == 1
    case.close()


def test_a_stream_is_watched_by_what_training_takes() -> None:
    x, y = points()
    case = made(DataLoader(Streamed(x, y), 10))
    case.watch_samples(25)
    assert "as they come by" in str(case.samples)
    case.run(epochs=2)
    found = case.samples
    assert found.steps.tolist() == [6, 12] and found.indices.tolist() == list(range(30))
    assert found.set is not None and found.set.view is not None and found.set.view.rows is not None
    assert np.abs(found.set.view.rows - x[:30].numpy()).mean() < 0.2, "other samples"
    np.testing.assert_array_equal(found.set.targets, y[:30])
    case.close()


def test_pictures_keep_their_order_and_look() -> None:
    pictures = torch.zeros(SAMPLES, 1, 8, 8)
    for at in range(SAMPLES):
        pictures[at, 0, at // 8, at % 8] = 1.0
    y = torch.arange(SAMPLES) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    case = made(DataLoader(TensorDataset(pictures, y), 7, shuffle=True), model)
    case.watch_samples(SAMPLES)
    case.run(epochs=1)
    view = case.samples.set.view if case.samples.set is not None else None
    assert view is not None and view.kind == "pictures" and view.pictures is not None
    for at in range(SAMPLES):
        assert np.argwhere(view.pictures[at, :, :, 0] == 255).tolist() == [[at // 8, at % 8]]
    case.close()


def test_all_samples_now_the_worst_first() -> None:
    x, y = points()
    case = made(val_loader=loader_of("tensors"))
    case.run(epochs=2)
    before = case.status
    alone = F.cross_entropy(forward(case._model, x), y, reduction="none").numpy()  # type: ignore[arg-type]
    for data in (
        None,
        "val",
        TensorDataset(x, y),
        [(x[:33], y[:33]), (x[33:], y[33:])],
        DataLoader(TensorDataset(x, y), 7),
    ):
        found = case.inspect_samples(data, most=5)
        np.testing.assert_allclose(found.losses[0], alone, rtol=1e-4, atol=1e-6)
        assert found.worst().indices == tuple(np.argsort(-alone, kind="stable")[:5])
    streamed = case.inspect_samples(DataLoader(Streamed(x, y), 10))
    assert len(streamed.indices) == SAMPLES
    with pytest.raises(ConfigurationError, match="most=-1: give how many of the worst"):
        case.inspect_samples(most=-1)
    assert case.status == before and not len(case.samples) and not case.findings
    case.close()


# -- judgement ------------------------------------------------------------------------------------------------------


def digits(flips: float, seed: int) -> tuple[TensorDataset, set[int]]:
    found = load_digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(found.data), generator=generator)[:1000]
    x = torch.tensor(found.data / 16, dtype=torch.float32)[order]
    y = torch.tensor(found.target)[order]
    wrong = torch.randperm(1000, generator=generator)[: int(flips * 1000)]
    y[wrong] = (y[wrong] + torch.randint(1, 10, (len(wrong),), generator=generator)) % 10
    return TensorDataset(x, y), set(wrong.tolist())


def trained_on_digits(flips: float, seed: int, epochs: int = 25) -> tuple[Debugger, set[int]]:
    data, wrong = digits(flips, seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    trainer = Trainer(
        torch.optim.Adam(model.parameters(), 2e-3), nn.CrossEntropyLoss(), DataLoader(data, 25, shuffle=True)
    )
    case = Debugger(model, trainer, journal=None, checks=False, probes="light")
    case.watch_samples(1000)
    case.run(epochs=epochs)
    return case, wrong


@pytest.mark.parametrize("seed", [0, 1])
def test_wrong_labels_among_digits_are_found(seed: int) -> None:
    case, wrong = trained_on_digits(0.05, seed)
    found = set(case.samples.mislabelled.indices)
    precision, recall = len(found & wrong) / max(len(found), 1), len(found & wrong) / len(wrong)
    assert precision >= 0.75 and recall >= 0.5, (precision, recall)
    case.close()


def test_no_label_is_suspected_where_none_is_wrong() -> None:
    case, _ = trained_on_digits(0.0, 2)
    assert len(case.samples.mislabelled) <= 5, case.samples.mislabelled
    case.close()


# -- what can't be watched, and what goes wrong ---------------------------------------------------------------------


class Broken(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, at: int) -> Any:
        raise OSError(f"sample {at} is on another disk")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "count=-1: give a whole number of samples"),
        ({"count": 2.5, "every": 0}, "count=2.5.*\n.*every=0: give a whole number of steps"),
        ({"of": "test"}, 'of=\'test\': give "train", "val"'),
        ({"of": "val"}, "there is no validation data"),
        ({"of": [3, 60, 99]}, "there are no samples 60, 99: the data set has 0 to 59"),
        ({"of": []}, "the list of batches is empty"),
        ({"of": TensorDataset(torch.zeros(0, 6))}, "the given data set is empty"),
        ({"of": Streamed(*points())}, "can't be indexed: give one with __len__"),
    ],
)
def test_what_makes_no_sense_is_said(options: dict[str, Any], message: str) -> None:
    case = made()
    case.watch_samples(10)
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        case.watch_samples(**options)
    case.run(epochs=1)
    assert case.samples.indices.tolist() == np.linspace(0, 59, 10).round().astype(int).tolist(), "as before"
    case.close()


def test_what_the_data_set_raises_is_raised_to_who_asked_and_training_goes_on_where_nobody_did() -> None:
    case = made()
    with pytest.raises(OSError, match="sample 0 is on another disk"):
        case.watch_samples(3, of=Broken())
    case.close()


class Uncopyable(torch.Tensor):
    """Can be trained on, and not be copied."""

    def clone(self, *args: Any, **options: Any) -> Any:
        raise MemoryError("no room")


class Peculiar:
    """A loader of batches that can't be copied."""

    def __iter__(self) -> Iterator[Any]:
        x, y = points()
        yield from ((part.as_subclass(Uncopyable), y[:20]) for part in x.split(20))


def test_a_batch_that_can_t_be_copied_is_trained_on_all_the_same() -> None:
    case = made(Peculiar(), metrics={})
    case.watch_samples(10)
    case.run(epochs=2)
    finding = once(case, Cause.WATCHING_DISABLED)
    assert "a batch could not be copied: MemoryError: no room" in finding.why and case.status.epoch == 2
    case.close()


def once(case: Debugger, cause: Cause) -> Any:
    (found,) = [each for each in case.findings if each.cause is cause]
    return found


def evaluate(model: nn.Module, batch: Any, loss_fn: Any) -> Any:
    x, y = batch
    x.mul_(1.0)  # in place: it is the caller's own
    output = model(x)
    return {"loss": loss_fn(output, y), "output": output, "target": y}


def test_an_eval_step_of_the_users_is_used_and_one_that_raises_switches_samples_off_once() -> None:
    broken = False

    def eval_step(model: nn.Module, batch: Any, loss_fn: Any) -> Any:
        if broken:
            raise RuntimeError("no such key")
        return evaluate(model, batch, loss_fn)

    plainly = made()
    plainly.run(epochs=4)
    case = made(eval_step=eval_step)
    case.watch_samples(12)
    case.run(epochs=2)
    assert len(case.samples) == 2
    broken = True
    case.run(epochs=2)
    finding = once(case, Cause.WATCHING_DISABLED)
    assert finding.title == "Watching samples is off" and "no such key" in finding.why
    assert "eval_step" in finding.detail and "Traceback" in finding.detail
    assert len(case.samples) == 2 and case.status.epoch == 4
    for one, other in zip(case._model.parameters(), plainly._model.parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.equal(one, other)
    case.close()
    plainly.close()


def own_step(model: nn.Module, batch: Any, loss_fn: Any, optimizer: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss: torch.Tensor = loss_fn(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


def only_loss(model: nn.Module, batch: Any, loss_fn: Any) -> Any:
    return loss_fn(model(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": own_step}, "has a step of yours but no eval_step"),
        ({"step": own_step, "eval_step": only_loss}, "returns a loss only"),
    ],
)
def test_what_the_model_makes_of_a_sample_may_be_unknown(options: dict[str, Any], message: str) -> None:
    case = made(**options)
    case.run(steps=1)
    with pytest.raises(ConfigurationError, match=message):
        case.watch_samples(5)
    case.close()
    case = made(samples=True, budget=None, **options)
    case.run(epochs=1)
    assert message in str(case.samples) and not case.findings, "nobody asked for it"
    case.close()


def test_networks_of_several_are_watched_by_their_eval_step_only() -> None:
    x, y = points()
    models = {"one": plain(), "two": plain(1)}
    optimizer = torch.optim.SGD([p for model in models.values() for p in model.parameters()], 0.1)

    def forward(models: Any, batch: Any, loss_fn: Any) -> Any:
        output = models["one"](batch[0]) + models["two"](batch[0])
        return {"loss": loss_fn(output, batch[1]), "output": output, "target": batch[1]}

    def step(models: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        found = forward(models, batch, loss_fn)
        found["loss"].backward()
        optimizer.step()
        return found

    for eval_step, passes in ((None, 0), (forward, 1)):
        loader = [(x, y)]
        trainer = Trainer(optimizer, F.cross_entropy, loader, step=step, eval_step=eval_step)
        case = Debugger(models, trainer, journal=None, budget=None, checks=False)
        case.run(steps=1)
        assert len(case.samples) == passes
        case.close()


def test_batches_that_are_mappings() -> None:
    x, y = points()
    rows = [{"x": x[at], "y": y[at]} for at in range(SAMPLES)]
    case = made(DataLoader(rows, 10, shuffle=True))  # type: ignore[arg-type]
    case.watch_samples(10)
    case.run(epochs=1)
    assert case.samples.set is not None and case.samples.set.task is Task.CLASSES
    np.testing.assert_array_equal(case.samples.set.targets, y[case.samples.indices])
    case.close()


class Forgetful(nn.Module):
    """Gives NaN for what lies below a border."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x)
        return out if self.training else torch.where(x[:, :1] < -1, torch.nan, out)


def test_what_is_not_a_number_comes_first_and_is_not_right() -> None:
    x, _ = points()
    case = made(model=Forgetful())
    case.watch_samples(SAMPLES)
    case.run(epochs=4)
    bad = (x[:, 0] < -1).nonzero()[:, 0].tolist()
    found = case.samples
    assert 0 < len(bad) < 20 and set(found.worst(len(bad)).indices) == set(bad)
    assert not found.right[-1][bad].any() and np.isnan(found.passes[-1].predicted[bad]).all()
    assert found.worst()[0].predicted == "NaN" and found.confusion().sum() == SAMPLES - len(bad)
    assert not set(found.mislabelled.indices) & set(bad)
    assert "NaN" in str(found)
    case.close()


def test_a_model_without_shapes_is_looked_at_after_its_first_step() -> None:
    model = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 3))
    x, y = points()
    trainer = Trainer(torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy, [(x, y)] * 3)
    case = Debugger(model, trainer, journal=None, checks=False)
    with pytest.raises(ConfigurationError, match="no shape yet"):
        case.inspect_samples()
    case.watch_samples(10)
    case.run(epochs=1)
    assert len(case.samples) == 1
    case.close()


# -- kept -----------------------------------------------------------------------------------------------------------


def test_samples_are_in_the_journal_and_as_they_were_when_it_is_opened(tmp_path: Path) -> None:
    case = made(journal=tmp_path)
    case.watch_samples(20)
    case.run(epochs=3)
    case.rerun(epochs=1, start="last_epoch", lr=0.01)
    ours = case.samples
    case.close()
    with_main = Journal.open(tmp_path)
    theirs = with_main.samples
    assert theirs.steps.tolist() == ours.steps.tolist() == [6, 12, 18]
    for name in ("losses", "right", "margins", "indices"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))
    assert str(theirs) == str(ours) and theirs.set is not None and ours.set is not None
    assert theirs.set.task is Task.CLASSES and theirs.set.words == ours.set.words
    assert theirs.set.view is not None and ours.set.view is not None
    np.testing.assert_array_equal(theirs.set.view.rows, ours.set.view.rows)
    with_main.close()


def test_many_passes_stay_bounded_in_memory_and_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbdebug.journal.sample_passes.MOST_PASSES", 16)
    monkeypatch.setattr("nbdebug.journal.sample_passes.FEWEST_PASSES", 4)
    case = made(journal=tmp_path, probes="light")
    case.watch_samples(5, every=1)
    case.run(steps=150)
    assert len(case.samples) <= 16 and case.samples.steps[-1] == 150
    case.close()
    stored = Journal.open(tmp_path)
    assert len(stored.samples) <= 32 and stored.samples.steps[-1] == 150
    stored.close()


def test_a_run_that_is_deleted_takes_its_passes_with_it() -> None:
    case = made()
    case.watch_samples(5)
    case.run(epochs=1)
    run = case.rerun(epochs=2, start="start", lr=0.2)
    assert case.samples.steps.tolist() == [6, 12]
    case.checkout("main")
    assert case.samples.steps.tolist() == [6] and len(case._journal.samples(run.name)) == 2
    case.delete_run(run)
    assert not len(case._journal.samples(run.name))
    case.close()


def test_what_passes_take_is_part_of_the_cost_and_nobody_is_made_to_pay_for_what_they_did_not_ask() -> None:
    case = made(samples=True, budget=1e-9)
    case.run(epochs=5)
    assert not len(case.samples) and case.cost.passes < 0.5
    case.watch_samples(10)
    case.run(epochs=2)
    assert len(case.samples) == 3 and case.cost.passes > 0
    assert "passes over watched samples took" in str(case.cost)
    case.close()
