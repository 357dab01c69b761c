"""Sound programs whose task is an unusual one: pairs, graphs, hidden words, equations."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam, AdamW, SparseAdam
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import (
    Bag,
    Cnn,
    Gpt,
    mlp,
)
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
suspicious = SHELF.suspicious


# -- samples and targets of another kind -----------------------------------------------------------------------------


@suspicious(family="embedding", task="classification")
def sparse_embedding_most_rows_untouched() -> Made:
    words, y = data.texts()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = nn.EmbeddingBag(2000, 24, mode="mean", sparse=True)
            self.out = nn.Linear(24, 3)

        def forward(self, words):
            return self.out(self.bag(words))

    model = Net()
    optimizers = {"bag": SparseAdam(model.bag.parameters(), 2e-2), "out": Adam(model.out.parameters(), 1e-2)}

    def step(model, batch, loss_fn, optimizers):
        text, label = batch
        loss = loss_fn(model(text), label)
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        return loss

    return model, Trainer(optimizers, nn.CrossEntropyLoss(), data.loader(words, y), step=step)


@suspicious(family="transformer", task="language model", steps=60)
def one_word_in_seven_is_asked_for() -> Made:
    text = data.sentences(800)
    asked = torch.rand(text.shape) < 0.15
    masked, target = torch.where(asked, 0, text), torch.where(asked, text, -100)
    model = Gpt(causal=False)

    def loss_fn(output, target):
        return F.cross_entropy(output.flatten(0, 1), target.flatten())

    return model, Trainer(AdamW(model.parameters(), 5e-3), loss_fn, *data.loaders(masked, target))


@suspicious(family="cnn", task="representation", steps=60)
def contrasted_within_the_batch() -> Made:
    x, _ = data.pictures()
    model = Cnn(classes=16)

    def step(model, batch, loss_fn, optimizer):
        (image,) = batch
        views = [image + 0.3 * torch.randn_like(image) for _ in range(2)]
        one, two = (F.normalize(model(view), dim=1) for view in views)
        loss = loss_fn(one @ two.T / 0.2, torch.arange(len(image)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader(TensorDataset(x), 32, shuffle=True)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), loader, step=step)


@suspicious(family="siamese", task="binary")
def pairs_through_one_network() -> Made:
    x, y = data.digits()
    other = torch.randperm(len(x))
    partner = torch.where(torch.rand(len(x)) < 0.5, other, torch.tensor([int((y == c).nonzero()[0]) for c in y]))
    same = (y == y[partner]).float()

    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), mlp(64, 64, 24))
            self.out = nn.Linear(24, 1)

        def forward(self, pair):
            return self.out((self.net(pair[:, 0]) - self.net(pair[:, 1])).abs())[:, 0]

    model = Siamese()
    pairs = torch.stack([x, x[partner]], 1)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *data.loaders(pairs, same))


@suspicious(family="siamese", task="representation", steps=60)
def anchors_positives_and_negatives() -> Made:
    x, y = data.digits(800)
    same = torch.stack([(y == c).nonzero().flatten()[torch.randint(int((y == c).sum()), ())] for c in y])
    different = torch.stack([(y != c).nonzero().flatten()[torch.randint(int((y != c).sum()), ())] for c in y])
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 16))

    def step(model, batch, loss_fn, optimizer):
        loss = loss_fn(*(model(batch[name]) for name in ("anchor", "positive", "negative")))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    rows = [{"anchor": x[i], "positive": x[same[i]], "negative": x[different[i]]} for i in range(len(x))]
    loader = DataLoader(rows, 32, shuffle=True)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.TripletMarginLoss(), loader, step=step)


@suspicious(family="vae", task="reconstruction")
def summed_over_pixels_plus_kl() -> Made:
    x, _ = data.digits(raw=True)
    x = (x / 16).flatten(1)

    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(64, 6), nn.Linear(64, 6)
            self.decoder = mlp(6, 64, 64)

        def forward(self, x):
            h = self.encoder(x)
            mean, log_variance = self.mean(h), self.log_variance(h)
            z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            return self.decoder(z), mean, log_variance

    def loss_fn(output, target):
        logits, mean, log_variance = output
        likelihood = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        return (likelihood + 0.5 * kl).mean()

    model = Vae()
    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(x, x))


@suspicious(family="graph", task="classification", steps=30)
def one_graph_and_few_labels() -> Made:
    x, y = data.blobs(200, classes=3, spread=2.0)
    near = ((y[:, None] == y) & (torch.rand(200, 200) < 0.06)) | (torch.rand(200, 200) < 0.005)
    links = (near | near.T | torch.eye(200, dtype=torch.bool)).float()
    links = links / links.sum(1, keepdim=True)
    seen = torch.rand(200) < 0.3

    class Gcn(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(10, 24), nn.Linear(24, 3)

        def forward(self, x):
            return links @ self.two(F.relu(links @ self.one(x)))

    def loss_fn(output, target):
        return F.cross_entropy(output[seen], target[seen])

    model = Gcn()
    return model, Trainer(Adam(model.parameters(), 2e-2), loss_fn, [(x, y)])


@suspicious(family="mlp", task="equation", steps=100)
def equation_solved_without_targets() -> Made:
    """u'' = -u with u(0) = 0 and u'(0) = 1, by the derivatives of the network itself."""
    places = math.pi * torch.rand(1000, 1)
    model = mlp(1, 32, 32, 1, activation=nn.Tanh)

    def derivative(y, x):
        return torch.autograd.grad(y.sum(), x, create_graph=True)[0]

    def step(model, batch, loss_fn, optimizer):
        x = batch[0].requires_grad_(True)
        u = model(x)
        start = torch.zeros(1, 1, requires_grad=True)
        residual = derivative(derivative(u, x), x) + u
        at_start = model(start)
        loss = (residual**2).mean() + (at_start**2 + (derivative(at_start, start) - 1) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader(TensorDataset(places), 50, shuffle=True)
    return model, Trainer(Adam(model.parameters(), 5e-3), None, loader, step=step)


@suspicious(family="embedding", task="regression", steps=80)
def ratings_by_two_towers() -> Made:
    users, items = torch.randint(60, (1500,)), torch.randint(40, (1500,))
    taste, kind = torch.randn(60, 4), torch.randn(40, 4)
    rating = data.standardise((taste[users] * kind[items]).sum(1) + 0.1 * torch.randn(1500))

    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.users, self.items = nn.Embedding(60, 16), nn.Embedding(40, 16)
            self.bias = nn.Parameter(torch.zeros(1))
            for table in (self.users, self.items):
                nn.init.normal_(table.weight, std=0.3)

        def forward(self, pair):
            return (self.users(pair[:, 0]) * self.items(pair[:, 1])).sum(1) + self.bias

    model = Towers()
    pairs = torch.stack([users, items], 1)
    return model, Trainer(Adam(model.parameters(), 2e-2), nn.MSELoss(), data.loader(pairs, rating))


@suspicious(family="embedding", task="classification")
def short_texts_with_much_padding() -> Made:
    words, y = data.texts(length=24)
    words = words * data.lengths(len(words), longest=24, shortest=5)
    model = Bag()
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), *data.loaders(words, y))


@suspicious(family="mlp", task="ordinal")
def grades_as_steps_that_are_reached() -> Made:
    """A grade of 0 to 4 as four questions, whether it is above 0, above 1 …: rows end in zeros, but are no texts."""
    x, _ = data.table()
    grade = (1.2 * (x[:, 0] + x[:, 1]) + 2).round().clamp(0, 4)
    model = mlp(8, 32, 4)
    steps = (grade[:, None] > torch.arange(4)).float()
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.BCEWithLogitsLoss(), data.loader(x, steps))


@suspicious(family="mlp", task="denoising", steps=200)
def noise_to_be_predicted() -> Made:
    """A diffusion on a ring: what is to be predicted is drawn anew in each step, at a random time."""
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100), 0)
    model = mlp(2 + 8, 64, 64, 2)
    waves = 2.0 ** torch.arange(4) * math.pi / 100
    angle = 2 * math.pi * torch.rand(800)

    def step(model, batch, loss_fn, optimizer):
        clean = batch[0]
        time = torch.randint(100, (len(clean),))
        noise, share = torch.randn_like(clean), kept[time][:, None]
        phase = time[:, None] * waves
        seen = share.sqrt() * clean + (1 - share).sqrt() * noise
        loss = F.mse_loss(model(torch.cat([seen, phase.sin(), phase.cos()], 1)), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    ring = torch.stack([angle.cos(), angle.sin()], 1)
    return model, Trainer(Adam(model.parameters(), 3e-3), None, data.loader(ring, batch=80), step=step)
