"""Sorted data and samples that come again are named; orders and repetitions that are meant are left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)

from nbdebug.checks.preflight.rules.unshuffled_data import mixed
from nbdebug.training.trainer import Trainer
from tests.checks.preflight.looking import Program, judged, told_apart, warned

N = 320


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def trained(model: nn.Module, loss: Any, loader: Any) -> Program:
    return model, Trainer(SGD(model.parameters(), 1e-3), loss, loader)


def in_order(x: torch.Tensor, y: torch.Tensor, batch: int = 20, outputs: int = 4, **options: Any) -> Program:
    loss = nn.CrossEntropyLoss() if not y.is_floating_point() else nn.MSELoss()
    model = nn.Sequential(nn.Flatten(), mlp(x[0].numel(), outputs))
    return trained(model, loss, DataLoader(TensorDataset(x, y), batch, **options))


def blobs(count: int = 4, size: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.randint(count, (size,))
    return torch.randn(size, 6) + y[:, None], y


# -- unshuffled_data ----------------------------------------------------------------------------------------------


def sorted_by_class() -> Program:
    x, y = blobs()
    order = y.argsort()
    return in_order(x[order], y[order])


def stretches_of_one_class() -> Program:
    x, y = blobs(2)
    order = torch.cat([(y == c).nonzero()[:, 0].split(40)[i] for i in range(3) for c in (0, 1)])
    return in_order(x[order], y[order])


def a_stream_of_files() -> Program:
    class Files(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for label in range(4):
                for _ in range(80):
                    yield {"x": torch.randn(6) + label, "y": label}

    model = mlp(6, 4)
    return trained(model, nn.CrossEntropyLoss(), DataLoader(Files(), 16))


def only_the_first_class_so_far() -> Program:
    y = torch.arange(4).repeat_interleave(2000)
    return in_order(torch.randn(8000, 6), y, 16)


def targets_sorted() -> Program:
    y = torch.randn(N, 1).sort(0).values
    return in_order(torch.randn(N, 6) + y, y, outputs=1)


def a_line_from_left_to_right() -> Program:
    x = torch.linspace(-1, 1, N)[:, None]
    return in_order(x, x**2 + 0.05 * torch.randn(N, 1), outputs=1)


def sorted_yes_and_no_by_hand() -> Program:
    y = (torch.arange(N) >= N // 2).float()

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        p = output[:, 0].sigmoid()
        return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

    return trained(mlp(6, 1), loss, DataLoader(TensorDataset(torch.randn(N, 6), y), 20))


def shuffled_each_epoch() -> Program:
    x, y = blobs()
    order = y.argsort()
    return in_order(x[order], y[order], shuffle=True)


def shuffled_once() -> Program:
    return in_order(*blobs())


def classes_in_turn() -> Program:
    y = torch.arange(N) % 4
    return in_order(torch.randn(N, 6) + y[:, None], y)


def a_list_of_mixed_batches() -> Program:
    x, y = blobs()
    return trained(mlp(6, 4), nn.CrossEntropyLoss(), list(zip(x.split(20), y.split(20), strict=True)))


def windows_of_a_series() -> Program:
    series = torch.linspace(0, 2, N + 12).exp()
    x = series.unfold(0, 12, 1)[:N]
    return in_order(x, series[12 : 12 + N, None], outputs=1)


def a_wave_in_its_order() -> Program:
    time = torch.arange(N) / 10
    x = torch.stack([time.sin(), time.cos(), (time / 3).sin()], 1)
    return in_order(x, (time + 0.3).sin()[:, None], outputs=1)


class ByClass(Sampler[list[int]]):
    """Batches of ``kinds`` classes with a few samples each, as for triplets."""

    def __init__(self, y: torch.Tensor, kinds: int, each: int) -> None:
        self.y, self.kinds, self.each = y, kinds, each

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            chosen = torch.randperm(int(self.y.max()) + 1, generator=generator)[: self.kinds]
            yield [int(i) for c in chosen for i in (self.y == c).nonzero()[: self.each, 0]]


def a_few_classes_a_batch_on_purpose() -> Program:
    x, y = blobs(16)
    loader = DataLoader(TensorDataset(x, y), batch_sampler=ByClass(y, 2, 10))
    return trained(mlp(6, 16), nn.CrossEntropyLoss(), loader)


def all_data_in_one_batch() -> Program:
    x = torch.linspace(-1, 1, N)[:, None]
    return in_order(x, x**2, batch=N, outputs=1)


def nearly_one_class_in_random_order() -> Program:
    y = (torch.rand(N) < 0.03).long()
    return in_order(torch.randn(N, 6), y)


def batches_of_one() -> Program:
    x, y = blobs()
    return in_order(x, y, batch=1)


# -- repeated_batch -----------------------------------------------------------------------------------------------


def pictures(size: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(size, 1, 6, 6), torch.randint(4, (size,))


def the_first_batch_for_ever() -> Program:
    class First:
        def __init__(self, loader: Any) -> None:
            self.loader = loader

        def __len__(self) -> int:
            return 16

        def __iter__(self) -> Iterator[Any]:
            for _ in range(16):
                yield next(iter(self.loader))

    x, y = blobs()
    return trained(mlp(6, 4), nn.CrossEntropyLoss(), First(DataLoader(TensorDataset(x, y), 20)))


class Stuck(Dataset[Any]):
    def __init__(self, x: torch.Tensor, y: torch.Tensor, cache: int, *, mapping: bool = False) -> None:
        self.x, self.y, self.cache, self.mapping = x, y, cache, mapping

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        x, y = self.x[index % self.cache], self.y[index % self.cache]
        return {"image": x, "label": y} if self.mapping else (x, y)


def an_index_modulo_the_cache() -> Program:
    x, y = pictures()
    loader = DataLoader(Stuck(x, y, 40), 20, shuffle=True)
    return trained(nn.Sequential(nn.Flatten(), mlp(36, 4)), nn.CrossEntropyLoss(), loader)


def a_mapping_stuck_with_other_labels() -> Program:
    x, y = pictures()
    loader = DataLoader(Stuck(x, y, 50, mapping=True), 20)
    return trained(nn.Sequential(nn.Flatten(), mlp(36, 4)), nn.CrossEntropyLoss(), loader)


def each_batch_three_times() -> Program:
    x = torch.randn(120, 6)
    batches = [(a, a.sum(1, keepdim=True)) for a in x.split(20) for _ in range(3)]
    return trained(mlp(6, 1), nn.MSELoss(), batches)


def drawn_from_a_handful() -> Program:
    words = torch.randint(1, 30, (24, 12))
    model = nn.Sequential(nn.Embedding(30, 8), nn.Flatten(), nn.Linear(96, 4))
    data = TensorDataset(words, torch.randint(4, (24,)))
    loader = DataLoader(data, 20, sampler=RandomSampler(data, replacement=True, num_samples=480))
    return trained(model, nn.CrossEntropyLoss(), loader)


class Stream(IterableDataset):  # type: ignore[type-arg]
    """A stream without a length: ``samples`` makes one pass through it."""

    def __init__(self, samples: Callable[[], Iterator[Any]]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return self.samples()


def streamed(samples: Callable[[], Iterator[Any]], batch: int | None = 16, **options: Any) -> Program:
    return trained(mlp(6, 1), nn.MSELoss(), DataLoader(Stream(samples), batch, **options))


def example(generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(6, generator=generator)
    return x, x[:1] * x[1:2]


def a_stream_seeded_for_each_file() -> Program:
    def samples() -> Iterator[Any]:
        for _ in range(40):
            generator = torch.Generator().manual_seed(3)
            yield from (example(generator) for _ in range(20))

    return streamed(samples)


def a_stream_seeded_by_a_short_count() -> Program:
    return streamed(lambda: (example(torch.Generator().manual_seed(i % 24)) for i in range(N)))


def workers_that_share_no_work() -> Program:
    """Four workers, each of which goes through all of it."""

    def samples() -> Iterator[Any]:
        held = [example() for _ in range(80)]
        while held:
            part, held = held[:16], held[16:]
            for _ in range(4):
                yield from part

    return streamed(samples)


def a_generator_that_is_made_anew() -> Program:
    class Anew:
        def __iter__(self) -> Iterator[Any]:
            for _ in range(12):
                generator = torch.Generator().manual_seed(0)
                x = torch.randn(16, 6, generator=generator)
                yield x, x[:, :1]

    return trained(mlp(6, 1), nn.MSELoss(), Anew())


def a_buffer_that_is_never_filled_again() -> Program:
    def samples() -> Iterator[Any]:
        held = [example() for _ in range(32)]
        return (held[int(torch.randint(32, ()))] for _ in range(N))

    return streamed(samples)


def endless(held: list[Any], *, shuffled: bool) -> Iterator[Any]:
    while True:
        order = torch.randperm(len(held)).tolist() if shuffled else range(len(held))
        yield from (held[i] for i in order)


def a_small_set_gone_round_for_ever() -> Program:
    held = [example() for _ in range(64)]
    return streamed(lambda: endless(held, shuffled=True))


def the_whole_set_in_each_batch_for_ever() -> Program:
    x = torch.randn(64, 6)
    return streamed(lambda: endless([(x, x[:, :1])], shuffled=False), batch=None)


def a_stream_through_a_shuffle_buffer() -> Program:
    def samples() -> Iterator[Any]:
        held = [example() for _ in range(32)]
        for _ in range(N):
            place = int(torch.randint(32, ()))
            yield held[place]
            held[place] = example()

    return streamed(samples)


def a_stream_of_one_batch_an_epoch() -> Program:
    x = torch.randn(64, 6)
    return streamed(lambda: iter([(x, x[:, :1])]), batch=None)


def a_stream_gone_through_twice() -> Program:
    held = [example() for _ in range(96)]
    return streamed(lambda: iter(held * 2))


def two_views_of_each() -> Program:
    def samples() -> Iterator[Any]:
        for x, y in [example() for _ in range(120)]:
            yield x, y
            yield x.flip(0), y

    return streamed(samples)


def drawn_with_replacement() -> Program:
    data = TensorDataset(*blobs())
    loader = DataLoader(data, 20, sampler=RandomSampler(data, replacement=True))
    return trained(mlp(6, 4), nn.CrossEntropyLoss(), loader)


def rare_classes_drawn_more_often() -> Program:
    y = (torch.rand(N) < 0.06).long()
    sampler = WeightedRandomSampler(torch.tensor([0.06, 0.94])[y], N)
    return trained(
        mlp(6, 2), nn.CrossEntropyLoss(), DataLoader(TensorDataset(torch.randn(N, 6), y), 20, sampler=sampler)
    )


def rare_samples_written_several_times() -> Program:
    x, y = torch.randn(120, 6), (torch.arange(120) - 99).clamp(min=0) // 5  # 100 of class 0, and five of each other
    many = ConcatDataset([TensorDataset(x, y), *(TensorDataset(x[100:], y[100:]) for _ in range(24))])
    return trained(mlp(6, 5), nn.CrossEntropyLoss(), DataLoader(many, 20, shuffle=True))


def exclusive_or() -> Program:
    x = torch.randint(2, (N, 2)).float()
    return in_order(x, (x[:, 0] != x[:, 1]).long(), shuffle=True, outputs=2)


def answers_in_a_few_boxes() -> Program:
    x = torch.randint(4, (N, 5)).float()
    return in_order(x, torch.randint(2, (N,)), shuffle=True, outputs=2)


def mostly_blank_patches() -> Program:
    x = torch.where(torch.rand(N, 1, 1, 1) < 0.2, torch.randn(N, 1, 6, 6), 0.0)
    return in_order(x, torch.randint(4, (N,)), shuffle=True)


def a_list_gone_through_again() -> Program:
    x, y = blobs(size=80)
    return trained(mlp(6, 4), nn.CrossEntropyLoss(), list(zip(x.split(20), y.split(20), strict=True)) * 2)


def all_of_it_in_each_batch() -> Program:
    x, y = blobs(size=64)
    return trained(mlp(6, 4), nn.CrossEntropyLoss(), DataLoader(TensorDataset(x, y), 64))


def plain_pictures() -> Program:
    return in_order(*pictures(), shuffle=True)


FAULTS: dict[str, tuple[Callable[[], Program], ...]] = {
    "unshuffled_data": (
        *(sorted_by_class, stretches_of_one_class, a_stream_of_files, only_the_first_class_so_far, targets_sorted),
        *(a_line_from_left_to_right, sorted_yes_and_no_by_hand),
    ),
    "repeated_batch": (
        *(the_first_batch_for_ever, an_index_modulo_the_cache, a_mapping_stuck_with_other_labels),
        *(each_batch_three_times, drawn_from_a_handful, a_stream_seeded_for_each_file),
        *(a_stream_seeded_by_a_short_count, workers_that_share_no_work, a_generator_that_is_made_anew),
        a_buffer_that_is_never_filled_again,
    ),
}
HEALTHY: dict[str, tuple[Callable[[], Program], ...]] = {
    "unshuffled_data": (
        *(shuffled_each_epoch, shuffled_once, classes_in_turn, a_list_of_mixed_batches, windows_of_a_series),
        *(a_wave_in_its_order, a_few_classes_a_batch_on_purpose, all_data_in_one_batch, batches_of_one),
        nearly_one_class_in_random_order,
    ),
    "repeated_batch": (
        *(drawn_with_replacement, rare_classes_drawn_more_often, rare_samples_written_several_times, exclusive_or),
        *(answers_in_a_few_boxes, mostly_blank_patches, a_list_gone_through_again, all_of_it_in_each_batch),
        *(plain_pictures, a_small_set_gone_round_for_ever, the_whole_set_in_each_batch_for_ever),
        *(a_stream_through_a_shuffle_buffer, a_stream_of_one_batch_an_epoch, a_stream_gone_through_twice),
        two_views_of_each,
    ),
}


test_a_fault_is_named, test_what_only_looks_odd_is_left_alone = told_apart(FAULTS, HEALTHY)


def test_random_batches_are_as_mixed_as_chance_has_it() -> None:
    generator = torch.Generator().manual_seed(3)
    sizes = [16] * 20
    surprises = [mixed(torch.randint(5, (320,), generator=generator), sizes)[0] for _ in range(300)]
    mean, deviation = torch.tensor(surprises).mean(), torch.tensor(surprises).std()
    assert abs(mean) < 0.2
    assert 0.8 < deviation < 1.2


def test_purity_goes_from_chance_to_one() -> None:
    y = torch.arange(4).repeat_interleave(32)
    assert mixed(y, [16] * 8)[1] == pytest.approx(1.0)
    assert mixed(y.view(4, 32).T.flatten(), [16] * 8)[1] < 0


def test_a_loss_that_is_not_by_sample_is_not_judged() -> None:
    torch.manual_seed(0)
    words = torch.randint(1, 30, (N, 8))
    model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 3))

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output.transpose(1, 2), target)

    loader = DataLoader(TensorDataset(words, (words % 3).sort(0).values), 20)
    assert warned(judged("unshuffled_data", *trained(model, loss, loader))) == []
