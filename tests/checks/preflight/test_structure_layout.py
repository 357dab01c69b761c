"""Samples that see each other, scrambled dimensions, and inputs that do not matter; and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Adam
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from nbdebug import Trainer
from tests.checks.preflight.looking import judged, warned
from tests.checks.preflight.test_wiring import mlp, two_networks
from tests.checks.preflight.test_wiring_steps import examined

Made = tuple[Any, Trainer]
Case = Callable[[], Made]
PER_SAMPLE, PER_STEP = (), (7,)


class Does(nn.Module):
    """A module that does what a function says, with these parts."""

    def __init__(self, forward: Callable[[Any, Any], Any], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.does = forward

    def forward(self, *given: Any) -> Any:
        return self.does(self, *given)


def loaded(x: torch.Tensor, y: torch.Tensor, batch: int = 12) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), batch, shuffle=True)


def made(model: Any, x: torch.Tensor, *, classes: int = 3, shape: tuple[int, ...] = (), loss: Any = None) -> Made:
    y = torch.randint(classes, (len(x), *shape))
    return model, Trainer(Adam(model.parameters(), 1e-3), loss or classified, loaded(x, y))


def classified(output: Any, target: Any) -> Any:
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))


def series(kind: Any, forward: Callable[[Any, Any], Any], shape: tuple[int, ...] = (), **options: Any) -> Made:
    return made(Does(forward, rnn=kind(5, 16, **options), out=nn.Linear(16, 3)), torch.randn(60, 7, 5), shape=shape)


def rows(forward: Callable[[Any, Any], Any], **parts: nn.Module) -> Made:
    parts = parts or {"body": mlp(6, 16, 16), "out": nn.Linear(16, 3)}
    return made(Does(forward, **parts), torch.randn(60, 6))


def images(forward: Callable[[Any, Any], Any], **parts: nn.Module) -> Made:
    parts = {"conv": nn.Conv2d(3, 8, 3, padding=1), **(parts or {"out": nn.Linear(8, 3)})}
    return made(Does(forward, **parts), torch.randn(60, 3, 6, 5))


def attention(batch_first: bool) -> Made:
    parts = {
        "into": nn.Linear(5, 16),
        "mix": nn.MultiheadAttention(16, 2, batch_first=batch_first),
        "out": nn.Linear(16, 3),
    }

    def forward(m: Any, x: Any) -> Any:
        x = m.into(x)
        return m.out((x + m.mix(x, x, x)[0]).mean(1))

    return made(Does(forward, **parts), torch.randn(60, 7, 5))


def encoder(batch_first: bool) -> Made:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
    model = Does(lambda m, x: m.out(m.body(m.into(x)).mean(1)), into=nn.Linear(5, 16), body=layer, out=nn.Linear(16, 3))
    return made(model, torch.randn(60, 7, 5))


def tokens() -> Made:
    model = Does(
        lambda m, x: m.out(m.rnn(m.embed(x))[0]), embed=nn.Embedding(20, 8), rnn=nn.GRU(8, 16), out=nn.Linear(16, 3)
    )
    return made(model, torch.randint(20, (60, 7)), shape=PER_STEP)


def time_first() -> Made:
    """Batches with time in front, collated so on purpose, for a layer that wants it."""
    model = Does(lambda m, x: m.out(m.rnn(x)[0]), rnn=nn.GRU(5, 16), out=nn.Linear(16, 3))
    batches = [(torch.randn(7, 12, 5), torch.randint(3, (7, 12))) for _ in range(4)]
    return model, Trainer(Adam(model.parameters()), classified, batches)


def turned_in_the_step() -> Made:
    model = Does(lambda m, x: m.out(m.rnn(x)[0][-1]), rnn=nn.GRU(5, 16), out=nn.Linear(16, 3))

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = classified(model(batch[0].transpose(0, 1)), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    data = loaded(torch.randn(60, 7, 5), torch.randint(3, (60,)))
    return model, Trainer(Adam(model.parameters()), None, data, step=step)


class OwnNorm(nn.Module):
    """Hand-written batch norm, without running statistics."""

    def forward(self, x: Any) -> Any:
        return (x - x.mean(0)) / (x.var(0) + 1e-5).sqrt()


def graph() -> Made:
    """All nodes at once, their edges as a matrix."""
    nodes, edges = torch.randn(30, 6), (torch.rand(30, 30) < 0.2).float()
    model = Does(lambda m, x, a: m.out((a @ m.body(x)).relu()), body=nn.Linear(6, 16), out=nn.Linear(16, 3))

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = classified(model(batch[0], batch[1]), batch[2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, Trainer(Adam(model.parameters()), None, [(nodes, edges, torch.randint(3, (30,)))], step=step)


def fixed_graph(sparse: bool) -> Made:
    """All nodes at once; their edges are nobody's argument."""
    edges = (torch.rand(30, 30) < 0.2).float()
    edges = edges.to_sparse() if sparse else edges
    model = Does(lambda m, x: m.out((edges @ m.body(x)).relu()), body=nn.Linear(6, 16), out=nn.Linear(16, 3))
    data = [(torch.randn(30, 6), torch.randint(3, (30,)))]
    return model, Trainer(Adam(model.parameters()), classified, data)


def pairs() -> Made:
    """Each sample against each other's text, as in contrastive learning."""
    model = Does(
        lambda m, x: F.normalize(m.a(x), dim=1) @ F.normalize(m.b(x), dim=1).T, a=mlp(6, 16, 8), b=mlp(6, 16, 8)
    )

    def loss(output: Any, target: Any) -> Any:
        return F.cross_entropy(output, torch.arange(len(output)))

    return made(model, torch.randn(60, 6), loss=loss)


def padded(pairs: Any) -> Any:
    """Words and tags of sentences, as long as the longest."""
    words, tags = zip(*pairs, strict=True)
    return pad_sequence(words, batch_first=True), pad_sequence(tags, batch_first=True)


def padded_in_front(pairs: Any) -> Any:
    words, tags = zip(*pairs, strict=True)
    return pad_sequence(words), pad_sequence(tags)


def sentences(batch_first: bool, collate: Any = padded, lengths: tuple[int, int] = (4, 12), **sampler: Any) -> Made:
    """Tagged words of several lengths, put together by the user."""
    lines = [torch.randint(1, 20, (int(torch.randint(*lengths, ())),)) for _ in range(60)]
    model = Does(
        lambda m, x: m.out(m.rnn(m.embed(x))[0]),
        embed=nn.Embedding(20, 8), rnn=nn.GRU(8, 16, batch_first=batch_first), out=nn.Linear(16, 3),
    )  # fmt: skip
    data: Any = [(line, line % 3) for line in lines]
    loader = DataLoader(data, collate_fn=collate, **(sampler or {"batch_size": 12, "shuffle": True}))
    return model, Trainer(Adam(model.parameters(), 1e-3), classified, loader)


def in_batches() -> Any:
    return {"batch_sampler": BatchSampler(RandomSampler(range(60)), 12, drop_last=False)}


def as_a_list(made_before: Made) -> Made:
    """The same batches, with nobody to tell how large they were asked for."""
    model, trainer = made_before
    return model, Trainer(trainer.optimizer, classified, list(trainer.train_loader))


def pieces_of_a_text() -> Made:
    """Time in front, all pieces as long, but for the last."""
    model = Does(
        lambda m, x: m.out(m.rnn(m.embed(x))[0]), embed=nn.Embedding(20, 8), rnn=nn.GRU(8, 16), out=nn.Linear(16, 20)
    )
    text = torch.randint(20, (40, 12))
    batches = [(text[start : start + 9], text[start + 1 : start + 10]) for start in range(0, 38, 9)]
    batches[-1] = (batches[-1][0][: len(batches[-1][1])], batches[-1][1])
    return model, Trainer(Adam(model.parameters()), classified, batches)


MIXED: dict[str, Case] = {
    "sentences, padded by the user": lambda: sentences(False),
    "sentences as long as others are many": lambda: sentences(False, lengths=(12, 15)),
    "sentences from a sampler of batches": lambda: sentences(False, **in_batches()),
    "sentences in a list of batches": lambda: as_a_list(sentences(False)),
    "an LSTM without batch_first, a class": lambda: series(nn.LSTM, lambda m, x: m.out(m.rnn(x)[0][:, -1])),
    "a GRU without batch_first, a class a step": lambda: series(nn.GRU, lambda m, x: m.out(m.rnn(x)[0]), PER_STEP),
    "tokens without batch_first": tokens,
    "attention": lambda: attention(False),
    "an encoder": lambda: encoder(False),
    "a view for a transpose": lambda: series(nn.GRU, lambda m, x: m.out(m.rnn(x.reshape(7, len(x), 5))[1][-1])),
    "a softmax over the batch": lambda: rows(lambda m, x: m.out(m.body(x).softmax(0) * 12)),
    "a norm over the batch": lambda: rows(lambda m, x: m.out(F.normalize(m.body(x), dim=0))),
    "a cumulative sum over the batch": lambda: rows(lambda m, x: m.out(m.body(x).cumsum(0))),
    "channels flattened with the batch": lambda: images(
        lambda m, x: m.out(m.conv(x).relu().permute(1, 0, 2, 3).reshape(len(x), -1, 8).amax(1))
    ),
}
APART: dict[str, Case] = {
    "sentences, padded by the user": lambda: sentences(True),
    "sentences from a sampler of batches": lambda: sentences(True, **in_batches()),
    "sentences with time in front": lambda: sentences(False, padded_in_front),
    "sentences with time in front, as many as they are long": lambda: sentences(False, padded_in_front, (12, 13)),
    "sentences with time in front, in a list": lambda: as_a_list(sentences(False, padded_in_front)),
    "pieces of a text, time in front": pieces_of_a_text,
    "rows": lambda: rows(lambda m, x: m.out(m.body(x).softmax(1))),
    "batch_first": lambda: series(nn.LSTM, lambda m, x: m.out(m.rnn(x)[0][:, -1]), batch_first=True),
    "attention": lambda: attention(True),
    "an encoder with dropout": lambda: encoder(True),
    "turned for a layer that wants it": lambda: series(nn.GRU, lambda m, x: m.out(m.rnn(x.transpose(0, 1))[1][-1])),
    "turned in the step": turned_in_the_step,
    "time in front on purpose": time_first,
    "batch norm": lambda: rows(
        lambda m, x: m.body(x), body=nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    ),
    "own batch norm": lambda: rows(
        lambda m, x: m.body(x), body=nn.Sequential(nn.Linear(6, 8), OwnNorm(), nn.Linear(8, 3))
    ),
    "a graph": graph,
    "a graph that stays": lambda: fixed_graph(sparse=False),
    "a sparse graph": lambda: fixed_graph(sparse=True),
    "pairs": pairs,
    "pictures": lambda: images(lambda m, x: m.out(m.conv(x).relu().amax((2, 3)))),
    "all places as rows": lambda: images(
        lambda m, x: m.out(m.conv(x).permute(0, 2, 3, 1).reshape(-1, 8)).reshape(len(x), -1, 3).mean(1)
    ),
    "two networks": two_networks,
    "noise of its own": lambda: rows(lambda m, x: m.out(m.body(x) + 0.1 * torch.randn(16))),
}


def found(rule: str, case: Case, *, passive: bool = False) -> list[str]:
    torch.manual_seed(0)
    return warned(judged(rule, *case()) if passive else examined(rule, *case()))


@pytest.mark.parametrize("name", MIXED)
def test_samples_that_see_each_other_are_named(name: str) -> None:
    assert found("samples_mixed", MIXED[name]) == ["tensor_layout_error"]


@pytest.mark.parametrize("name", APART)
def test_samples_that_do_not_or_are_meant_to_are_not(name: str) -> None:
    assert found("samples_mixed", APART[name]) == []


def test_the_layer_where_it_begins_is_told_with_the_option_that_mends_it() -> None:
    torch.manual_seed(0)
    finding = examined("samples_mixed", *MIXED["an LSTM without batch_first, a class"]()).findings[0]
    assert finding.layers == ("rnn",) and finding.remedies[0].code == "LSTM(…, batch_first=True)"


# -- views -----------------------------------------------------------------------------------------------------------

SCRAMBLED: dict[str, Case] = {
    "time and batch": lambda: series(nn.GRU, lambda m, x: m.out(m.rnn(x.view(7, len(x), 5))[1][-1])),
    "features and time": lambda: made(
        Does(lambda m, x: m.out(m.conv(x.reshape(len(x), 5, 7)).amax(2)), conv=nn.Conv1d(5, 8, 3), out=nn.Linear(8, 3)),
        torch.randn(60, 7, 5),
    ),
    "channels put last": lambda: images(lambda m, x: m.out(m.conv(x).relu().view(len(x), 30, 8).amax(1))),
    "turned, and cut back": lambda: series(
        nn.GRU, lambda m, x: m.out(m.rnn(x.transpose(1, 2).reshape(len(x), 7, 5))[0][:, -1]), batch_first=True
    ),
}
SOUND: dict[str, Case] = {
    "flattened": lambda: images(lambda m, x: m.out(m.conv(x).view(len(x), -1)), out=nn.Linear(240, 3)),
    "a transpose": lambda: series(nn.GRU, lambda m, x: m.out(m.rnn(x.transpose(0, 1))[1][-1])),
    "places, then channels": lambda: images(lambda m, x: m.out(m.conv(x).flatten(2).transpose(1, 2).amax(1))),
    "heads": lambda: rows(
        lambda m, x: m.out(m.body(x).view(len(x), 4, 4).transpose(1, 2).reshape(len(x), 16))
    ),
    "a dimension of one": lambda: rows(
        lambda m, x: m.out(m.body(x.view(len(x), 1, 6).reshape(len(x), 6, 1).view(len(x), 6)))
    ),
    "channels shuffled in groups": lambda: images(
        lambda m, x: m.out(m.conv(x).view(len(x), 2, 4, 6, 5).transpose(1, 2).reshape(len(x), 8, 6, 5).amax((2, 3)))
    ),
    "the same shape": lambda: rows(lambda m, x: m.out(m.body(x.reshape(x.shape)))),
}  # fmt: skip


@pytest.mark.parametrize(("dim", "told"), [(0, ["tensor_layout_error"]), (1, [])])
def test_a_batch_as_large_as_the_features_are_many_is_no_table_of_pairs(dim: int, told: list[str]) -> None:
    def forward(net: Any, x: torch.Tensor) -> Any:
        return net.out(torch.softmax(net.body(x), dim) * x)

    parts = {"body": nn.Linear(8, 8), "out": nn.Linear(8, 8)}
    model, x = Does(forward, **parts), torch.randn(64, 8)
    trainer = Trainer(Adam(model.parameters(), 1e-3), F.mse_loss, loaded(x, torch.randn(64, 8), batch=8))
    assert warned(examined("samples_mixed", model, trainer)) == told


@pytest.mark.parametrize("name", SCRAMBLED)
def test_a_view_for_a_permutation_is_named(name: str) -> None:
    assert found("view_instead_of_permute", SCRAMBLED[name], passive=True) == ["tensor_layout_error"]


@pytest.mark.parametrize("name", SOUND)
def test_views_that_only_cut_are_not(name: str) -> None:
    assert found("view_instead_of_permute", SOUND[name], passive=True) == []


def test_the_permutation_that_was_meant_is_written_out() -> None:
    finding = judged("view_instead_of_permute", *SCRAMBLED["time and batch"]()).findings[0]
    assert finding.remedies[0].code == "x.permute(1, 0, 2)" and finding.severity == "critical"


# -- inputs that do not matter ---------------------------------------------------------------------------------------


def zeroed_in_the_step() -> Made:
    model = mlp(6, 16, 3)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = classified(model(torch.zeros_like(batch[0])), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, Trainer(
        Adam(model.parameters()), None, loaded(torch.randn(60, 6), torch.randint(3, (60,))), step=step
    )


def gated(value: float) -> Made:
    model = Does(lambda m, x: m.out(m.start * m.body(x).relu()), body=nn.Linear(6, 16), out=nn.Linear(16, 3))
    model.register_parameter("start", nn.Parameter(torch.full((16,), value)))
    return made(model, torch.randn(60, 6))


def zero_head() -> Made:
    model = mlp(6, 16, 3)
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    return made(model, torch.randn(60, 6))


IGNORED: dict[str, Case] = {
    "times zero": lambda: rows(lambda m, x: m.out(m.body(x * 0))),
    "a difference with itself": lambda: rows(lambda m, x: m.out(m.body(x - x))),
    "overwritten": lambda: rows(lambda m, x: m.out(m.body(torch.ones_like(x)))),
    "a norm over one value": lambda: rows(
        lambda m, x: m.body(x), body=nn.Sequential(nn.Linear(6, 1), nn.LayerNorm(1), nn.Linear(1, 3))
    ),
    "zeroed in the step": zeroed_in_the_step,
    "only the first state": lambda: series(
        nn.GRU, lambda m, x: m.out(torch.zeros(len(x), 16) + 0 * m.rnn(x)[0][:, -1]), batch_first=True
    ),
}
MINDED: dict[str, Case] = {
    "rows": lambda: rows(lambda m, x: m.out(m.body(x))),
    "a head at zero": zero_head,
    "a gate at zero": lambda: gated(0.0),
    "pictures": lambda: images(lambda m, x: m.out(m.conv(x).relu().amax((2, 3)))),
    "tokens": tokens,
    "two networks": two_networks,
    "a sample at a time": lambda: (lambda model: (model, Trainer(
        Adam(model.parameters()), classified, [(torch.randn(1, 6), torch.randint(3, (1,))) for _ in range(4)]
    )))(mlp(6, 16, 3)),
    "small features beside a bias": lambda: made(mlp(6, 16, 3), 1e-3 * torch.randn(60, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", IGNORED)
def test_an_input_that_does_not_matter_is_named(name: str) -> None:
    assert found("model_ignores_input", IGNORED[name]) == ["model_ignores_input"]


@pytest.mark.parametrize("name", MINDED)
def test_an_input_that_matters_or_will_is_not(name: str) -> None:
    assert found("model_ignores_input", MINDED[name]) == []
