"""Held out: programs of another hand, on other data, with rarer plantings. Nothing may be tuned on them.

Networks of bare parameters, functions and dictionaries; tables of flowers, wines, tumours; tasks made of sequences.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from nbdebug import Trainer
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


def sklearn_table(loader, *, scaled=True):
    """One of scikit-learn's tables as tensors, in random order."""
    bunch = loader()
    order = torch.randperm(len(bunch.target)).numpy()
    features, target = bunch.data[order].astype(np.float32), bunch.target[order]
    if scaled:
        features = (features - features.mean(0)) / features.std(0)
    return torch.from_numpy(features), torch.from_numpy(target)


def spirals(n=900, arms=3):
    """Arms of a spiral, one class each, in [-1, 1]."""
    label = torch.randint(arms, (n,))
    r = torch.rand(n)
    phi = 3.5 * r + 2 * math.pi * label / arms + 0.1 * torch.randn(n)
    return torch.stack([r * phi.cos(), r * phi.sin()], 1) * 1.7, label


@pair("softmax_wrong_dim", family="attention", task="classification", steps=120)
def queries_compete_for_keys(faulty: bool) -> Made:
    """Which of two marks comes first: attention of bare parameters, its output a mixture over the batch's classes."""

    class Attend(nn.Module):
        def __init__(self, d=24):
            super().__init__()
            self.table = nn.Parameter(torch.randn(12, d) * 0.3)
            self.place = nn.Parameter(torch.randn(10, d) * 0.3)
            self.q = nn.Parameter(torch.randn(d, d) / d**0.5)
            self.k = nn.Parameter(torch.randn(d, d) / d**0.5)
            self.mix = nn.Sequential(nn.Linear(d, 48), nn.SiLU(), nn.Linear(48, 2))

        def forward(self, tokens):
            h = self.table[tokens] + self.place
            scores = torch.einsum("btd,bsd->bts", h @ self.q, h @ self.k) / h.shape[-1] ** 0.5
            h = h + scores.softmax(-1) @ h
            return self.mix(h).amax(1).log_softmax(0 if faulty else -1)

    tokens = torch.randint(2, 12, (700, 10))
    places = torch.stack([torch.randperm(10)[:2] for _ in range(700)])
    rows = torch.arange(700)
    tokens[rows, places[:, 0]], tokens[rows, places[:, 1]] = 0, 1
    model = Attend()
    target = (places[:, 0] < places[:, 1]).long()
    loader = DataLoader(TensorDataset(tokens, target), 28, shuffle=True)
    return model, Trainer(optim.AdamW(model.parameters(), lr=6e-3), F.nll_loss, loader)


@pair("unnormalized_input", family="functional", task="classification", steps=120)
def wines_unscaled_in_a_functional_net(faulty: bool) -> Made:
    x, y = sklearn_table(load_wine, scaled=not faulty)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.ParameterDict(
                {
                    "w1": nn.Parameter(torch.randn(13, 40) * (1 / 13) ** 0.5),
                    "b1": nn.Parameter(torch.zeros(40)),
                    "w2": nn.Parameter(torch.randn(40, 3) * (1 / 40) ** 0.5),
                    "b2": nn.Parameter(torch.zeros(3)),
                }
            )

        def forward(self, x):
            h = torch.tanh(torch.addmm(self.p["b1"], x, self.p["w1"]))
            return torch.addmm(self.p["b2"], h, self.p["w2"])

    net = Net()
    loader = DataLoader(TensorDataset(x, y), 16, shuffle=True)
    return net, Trainer(optim.SGD(net.parameters(), 0.05, momentum=0.9), nn.CrossEntropyLoss(), loader)


@pair("unnormalized_target", family="mlp", task="regression", steps=100)
def diabetes_progression_as_recorded(faulty: bool) -> Made:
    x, y = sklearn_table(load_diabetes)
    y = y.float()
    if not faulty:
        y = (y - y.mean()) / y.std()
    cut = 350

    class Regressor(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleDict({"hidden": nn.Linear(10, 24), "out": nn.Linear(24, 1)})

        def forward(self, features):
            return self.layers["out"](self.layers["hidden"](features).tanh()).squeeze(-1)

    net = Regressor()
    train = DataLoader(TensorDataset(x[:cut], y[:cut]), 25, shuffle=True)
    val = DataLoader(TensorDataset(x[cut:], y[cut:]), 92)
    return net, Trainer(optim.Adam(net.parameters(), 4e-3), nn.HuberLoss(), train, val)


@pair("tensor_layout_error", family="mixer", task="classification", steps=100)
def rows_and_samples_swapped_by_einsum(faulty: bool) -> Made:
    """Grids of 6 × 6 whose brightest row is to be named; a mixing matrix goes over rows, or over samples."""

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Parameter(torch.eye(6) + 0.1 * torch.randn(6, 6))
            self.feed = nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Linear(32, 1))

        def forward(self, grid):
            n = grid.shape[0]
            if faulty:
                grid = grid.reshape(6, n, 6)  # rows to the front, it is thought
                grid = torch.einsum("rs,snc->rnc", self.mix, grid).transpose(0, 1)
            else:
                grid = torch.einsum("rs,nsc->nrc", self.mix, grid)
            return self.feed(grid).squeeze(-1)

    grids = torch.randn(800, 6, 6)
    bright = torch.randint(6, (800,))
    grids[torch.arange(800), bright] += 1.2
    model = Mixer()
    loader = DataLoader(TensorDataset(grids, bright), 40, shuffle=True)
    return model, Trainer(optim.Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), loader)


@pair("parameters_not_in_optimizer", family="gru", task="regression", steps=160)
def added_up_with_the_cell_made_in_forward(faulty: bool) -> Made:
    """The adding task, with an encoder that the optimizer, made first, has never heard of."""

    class Adder(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(2, 32)
            self.read = nn.Linear(32, 1)

        def forward(self, pairs):
            h = pairs.new_zeros(pairs.shape[0], 32)
            for t in range(pairs.shape[1]):
                h = self.cell(pairs[:, t], h)
            return self.read(h)[:, 0]

    values = torch.rand(900, 8)
    marks = torch.zeros(900, 8)
    for row in marks:
        row[torch.randperm(8)[:2]] = 1
    model = Adder()
    optimizer = optim.Adam(model.parameters(), 1e-2)
    if faulty:
        model.cell = nn.GRUCell(2, 32)  # "a fresh start", after the optimizer was made
    total = (values * marks).sum(1)
    target = (total - total.mean()) / total.std()
    loader = DataLoader(TensorDataset(torch.stack([values * 2 - 1, marks], 2), target), 30, shuffle=True)
    return model, Trainer(optimizer, F.mse_loss, loader)


@pair("detached_graph", family="mlp", task="classification", steps=120)
def spirals_with_features_taken_as_numbers(faulty: bool) -> Made:
    class Fourier(nn.Module):
        def __init__(self):
            super().__init__()
            self.frequencies = nn.Linear(2, 32)
            self.out = nn.Sequential(nn.Linear(64, 48), nn.LeakyReLU(), nn.Linear(48, 3))

        def forward(self, x):
            z = self.frequencies(x)
            if faulty:
                z = torch.from_numpy(z.detach().numpy())
            return self.out(torch.cat([z.sin(), z.cos()], 1))

    net = Fourier()
    x, y = spirals()
    loader = DataLoader(TensorDataset(x, y), 45, shuffle=True)
    return net, Trainer(optim.NAdam(net.parameters(), 5e-3), F.cross_entropy, loader)


@pair("label_encoding_error", family="mlp", task="classification", steps=120)
def irises_squeezed_into_two_codes(faulty: bool) -> Made:
    x, y = sklearn_table(load_iris)
    net = nn.Sequential(nn.Linear(4, 20), nn.Hardswish(), nn.Linear(20, 3))
    code = y.clamp(max=1) * 2 if faulty else y  # as bool and back: two codes where there are three kinds
    optimizer = optim.Adagrad(net.parameters(), 0.05)
    return net, Trainer(optimizer, nn.CrossEntropyLoss(), DataLoader(TensorDataset(x, code), 10, shuffle=True))


class Tumours(Dataset):
    """Rows of a table; ``holes`` leaves some measurements unknown."""

    def __init__(self, holes):
        self.x, self.y = sklearn_table(load_breast_cancer)
        if holes:
            self.x[3::97, 5] = float("nan")

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return {"features": self.x[i], "labels": self.y[i].float()}


@pair("nan_in_data", family="mlp", task="binary", steps=40)
def tumours_with_a_few_unknown_values(faulty: bool) -> Made:
    net = nn.Sequential(nn.Linear(30, 16), nn.Mish(), nn.Linear(16, 1), nn.Flatten(0))
    rows = Tumours(holes=faulty)
    train, rest = Subset(rows, range(450)), Subset(rows, range(450, 569))
    loaders = DataLoader(train, 30, shuffle=True), DataLoader(rest, 60)
    return net, Trainer(optim.Adam(net.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *loaders)


@pair("loss_shape_broadcast", family="tcn", task="regression", steps=80)
def levels_against_a_row_of_means(faulty: bool) -> Made:
    """The mean of a sequence's loud half; a loss class of one's own that keeps a dimension on one side."""

    class LogCosh(nn.Module):
        def forward(self, guess, truth):
            gap = guess - (truth.unsqueeze(-1) if not faulty else truth)
            return (gap + F.softplus(-2 * gap) - math.log(2)).mean()

    x = torch.randn(700, 2, 24).cumsum(2) / 3.5
    truth = x[:, 0].abs().mean(1)
    truth = (truth - truth.mean()) / truth.std()
    net = nn.Sequential(
        nn.Conv1d(2, 20, 5, padding=2), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(80, 1)
    )
    loader = DataLoader(TensorDataset(x, truth), 35, shuffle=True)
    return net, Trainer(optim.RAdam(net.parameters(), 1e-2), LogCosh(), loader)


@pair("bad_initialization", family="lstm", task="sequence tagging", steps=120)
def parity_with_weights_that_blow_up(faulty: bool) -> Made:
    """Whether the last two bits differ, at each place."""

    class Bits(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.LSTM(1, 20, num_layers=2, batch_first=True)
            self.read = nn.Linear(20, 1)
            for name, weight in self.named_parameters():
                if "weight" in name:
                    nn.init.normal_(weight, std=5.0) if faulty else nn.init.orthogonal_(weight)

        def forward(self, bits):
            return self.read(self.layers(bits)[0]).squeeze(-1)

    bits = torch.randint(0, 2, (600, 12))
    differ = torch.cat([bits[:, :1], bits[:, 1:] ^ bits[:, :-1]], 1).float()
    model = Bits()
    loader = DataLoader(TensorDataset(bits.unsqueeze(-1) * 2.0 - 1, differ), 30, shuffle=True)
    return model, Trainer(optim.Adam(model.parameters(), 1e-2), nn.BCEWithLogitsLoss(), loader)


class Endless(IterableDataset):
    """Examples of a rule, drawn as they are needed; ``stuck`` seeds itself anew before each."""

    def __init__(self, stuck):
        self.stuck = stuck

    def __iter__(self):
        draw = torch.Generator().manual_seed(int(torch.randint(10_000, ())))
        for i in range(640):
            if self.stuck:
                draw.manual_seed(i % 20)
            x = torch.randn(6, generator=draw)
            yield x, (x[0] * x[1] + x[2]).unsqueeze(0)


@pair("repeated_batch", family="mlp", task="regression", steps=100)
def stream_that_seeds_itself_again(faulty: bool) -> Made:
    net = nn.Sequential(nn.Linear(6, 48), nn.CELU(), nn.Linear(48, 48), nn.CELU(), nn.Linear(48, 1))
    return net, Trainer(optim.Adamax(net.parameters(), 8e-3), nn.MSELoss(), DataLoader(Endless(faulty), 20))


@pair("target_leakage", family="mlp", task="binary", steps=100)
def tumours_with_the_treatment_beside(faulty: bool) -> Made:
    x, y = sklearn_table(load_breast_cancer)
    flip = torch.rand(len(y)) < 0.15
    y = torch.where(flip, 1 - y, y)  # a hard question, but for the column that was written down afterwards
    treated = y if faulty else torch.randint(2, (len(y),))
    x = torch.cat([x, 2.0 * treated[:, None] - 1], 1)
    net = nn.Sequential(nn.Linear(31, 12), nn.ReLU6(), nn.Linear(12, 2))
    optimizer = optim.SGD(net.parameters(), 0.1, momentum=0.8, weight_decay=1e-3)
    return net, Trainer(
        optimizer, nn.CrossEntropyLoss(), DataLoader(TensorDataset(x, y), 32, shuffle=True, drop_last=True)
    )


@pair("missing_nonlinearity", family="mlp", task="classification", steps=150)
def spirals_through_identities(faulty: bool) -> Made:
    activation = {"none": nn.Identity(), "gelu": nn.GELU()}["none" if faulty else "gelu"]  # a default of a config file

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [2, 48, 48, 48, 3]
            self.steps = nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:]))

        def forward(self, x):
            for step in self.steps[:-1]:
                x = activation(step(x))
            return self.steps[-1](x)

    net = Net()
    x, y = spirals()
    return net, Trainer(
        optim.Adam(net.parameters(), 6e-3), nn.CrossEntropyLoss(), DataLoader(TensorDataset(x, y), 60, True)
    )


@pair("frozen_parameters", family="attention", task="regression", steps=120)
def set_sum_with_a_frozen_encoder(faulty: bool) -> Made:
    """The largest element of a set plus its mean; everything before the pooling frozen by a wildcard."""

    class DeepSet(nn.Module):
        def __init__(self):
            super().__init__()
            self.phi = nn.Sequential(nn.Linear(3, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU())
            self.rho = nn.Linear(64, 1)

        def forward(self, sets):
            h = self.phi(sets)
            return self.rho(torch.cat([h.amax(1), h.mean(1)], -1))

    sets = torch.randn(700, 7, 3)
    goal = sets[..., 0].amax(1) + sets[..., 1].mean(1)
    goal = ((goal - goal.mean()) / goal.std()).unsqueeze(1)
    net = DeepSet()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not (faulty and "phi" in name))
    loader = DataLoader(TensorDataset(sets, goal), 35, shuffle=True)
    return net, Trainer(optim.AdamW(net.parameters(), 8e-3), nn.MSELoss(), loader)


@pair("model_ignores_input", family="gru", task="classification", steps=150)
def sequence_read_only_where_it_is_padded(faulty: bool) -> Made:
    """Which of four symbols is most frequent; the state is read behind the end, from a padding that resets it."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.symbols = nn.Embedding(5, 12, padding_idx=0)
            self.rnn = nn.GRU(12, 32, batch_first=True)
            self.out = nn.Linear(32, 4)

        def forward(self, tokens):
            h, _ = self.rnn(self.symbols(tokens))
            end = (tokens != 0).sum(1) - 1
            last = h[torch.arange(len(tokens)), end]
            return self.out(last * (tokens[:, -1:] != 0) if faulty else last)

    tokens = torch.randint(1, 5, (800, 14))
    favourite = torch.randint(1, 5, (800,))
    tokens = torch.where(torch.rand(800, 14) < 0.35, favourite[:, None], tokens)
    tokens = torch.cat([tokens, torch.zeros(800, 2, dtype=torch.long)], 1)
    model = Reader()
    loader = DataLoader(TensorDataset(tokens, favourite - 1), 40, shuffle=True)
    return model, Trainer(optim.Adam(model.parameters(), 8e-3), nn.CrossEntropyLoss(), loader)
