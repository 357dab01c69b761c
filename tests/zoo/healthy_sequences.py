"""Sound programs over sequences and codes that look wrong at first sight."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam, AdamW

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.healthy_networks import classified
from tests.zoo.networks import (
    Cnn,
    Tagger,
    TextTransformer,
)
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
suspicious = SHELF.suspicious


@suspicious(family="lstm", task="sequence tagging")
def time_first_all_the_way() -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(30, 16)
            self.lstm = nn.LSTM(16, 24, bidirectional=True)
            self.out = nn.Linear(48, 4)

        def forward(self, words):
            x = self.embed(words).transpose(0, 1)
            return self.out(self.lstm(x)[0]).transpose(0, 1)

    words, tags = data.tagged()
    model = Net()

    def loss_fn(output, target):
        return F.cross_entropy(output.reshape(-1, 4), target.reshape(-1))

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(words, tags))


@suspicious(family="lstm", task="regression", steps=60)
def state_carried_from_batch_to_batch() -> Made:
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(1, 24, batch_first=True)
            self.head = nn.Linear(24, 1)
            self.register_buffer("h", torch.zeros(1, 16, 24))
            self.register_buffer("c", torch.zeros(1, 16, 24))

        def forward(self, x):
            if len(x) != 16:
                return self.head(self.lstm(x)[0])
            out, (h, c) = self.lstm(x, (self.h.clone(), self.c.clone()))
            self.h, self.c = h.detach(), c.detach()
            return self.head(out)

    time = torch.arange(16 * 1201).view(16, 1201).float()
    series = torch.sin(time / 4) + 0.5 * torch.sin(time / 9) + 0.05 * torch.randn_like(time)
    pieces = [series[:, i : i + 21] / 0.8 for i in range(0, 1200, 20)]
    batches = [(piece[:, :-1, None], piece[:, 1:, None]) for piece in pieces]  # in order: the state goes on
    model = Stateful()
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), batches)


@suspicious(family="transformer", task="classification", steps=80)
def a_class_token_reads_the_rest() -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(1, 32, 4, stride=4)
            self.token = nn.Parameter(torch.zeros(1, 1, 32))
            self.place = nn.Parameter(0.02 * torch.randn(1, 17, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, norm_first=True, activation="gelu")
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
            return self.head(self.encoder(x)[:, 0])

    model = Net()
    x, y = data.pictures()
    return model, Trainer(AdamW(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@suspicious(family="transformer", task="sequence tagging")
def padding_masked_in_attention_and_loss() -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(30, 32, padding_idx=0)
            self.places = nn.Embedding(40, 32)  # more places than any sentence has
            layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.out = nn.Linear(32, 4)

        def forward(self, words):
            x = self.words(words) + self.places(torch.arange(words.shape[1]))
            return self.out(self.encoder(x, src_key_padding_mask=words == 0))

    words, tags = data.tagged(tags=4)
    inside = data.lengths(len(words), longest=16, shortest=4)
    words, tags = words * inside, torch.where(inside, tags, -100)
    model = Net()

    def loss_fn(output, target):
        return F.cross_entropy(output.transpose(1, 2), target, ignore_index=-100)

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, *data.loaders(words, tags))


@suspicious(family="transformer", task="classification")
def squashed_by_attention_before_a_sum() -> Made:
    class Pooled(TextTransformer):
        def __init__(self):
            super().__init__(dropout=0.0)
            self.score = nn.Linear(32, 1)

        def forward(self, words):
            h = self.encoder(self.embed(words) + self.positions[:, : words.shape[1]])
            return self.head((h * self.score(h).softmax(1)).sum(1))  # softmax over time, rightly

    return classified(Pooled(), *data.texts(), lr=2e-3)


@suspicious(family="gru", task="sequence tagging")
def mixture_of_softmaxes() -> Made:
    class Mixture(Tagger):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(32, 12)
            self.prior = nn.Linear(32, 3)

        def forward(self, words):
            h = self.rnn(self.embed(words))[0]
            parts = self.out(h).view(*h.shape[:2], 3, 4).log_softmax(-1)
            return torch.logsumexp(self.prior(h).log_softmax(-1).unsqueeze(-1) + parts, 2)

    words, tags = data.tagged()
    model = Mixture()

    def loss_fn(output, target):
        return F.nll_loss(output.reshape(-1, 4), target.reshape(-1))

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(words, tags))


@suspicious(family="cnn", task="classification")
def straight_through_binary_code() -> Made:
    class Net(Cnn):
        def __init__(self):
            super().__init__(classes=10)
            self.code = nn.Linear(96, 32)
            self.fc = nn.Linear(32, 10)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
            x = F.adaptive_max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
            soft = torch.tanh(self.code(x.flatten(1)))
            return self.fc(soft + (soft.sign() - soft).detach())

    return classified(Net(), *data.digits(800))
