"""Faults in the order of a tensor's dimensions: samples, time and channels mixed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import Cnn, Recurrent, Tagger, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


@pair("tensor_layout_error", family="lstm", task="sequence tagging")
def words_lstm_without_batch_first(faulty: bool) -> Made:
    words, tags = data.tagged()
    model = Tagger(kind=nn.LSTM)
    model.rnn = nn.LSTM(16, 16, bidirectional=True, batch_first=not faulty)

    def loss_fn(output, target):
        return F.cross_entropy(output.reshape(-1, 4), target.reshape(-1))

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(words, tags))


@pair("tensor_layout_error", family="cnn", task="classification")
def colour_pictures_viewed_instead_of_permuted(faulty: bool) -> Made:
    x, y = data.pictures(channels=3)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, padding=1)
            self.mix = nn.Conv2d(16, 16, 3, padding=1)
            self.fc = nn.Linear(16, 4)

        def forward(self, x):
            x = F.relu(self.mix(F.relu(self.conv(x))))  # (batch, channels, height, width)
            batch, channels = x.shape[:2]
            # One row for each place, channels last, averaged over the places of a picture.
            rows = x.permute(1, 0, 2, 3).reshape(batch, -1, channels) if faulty else x.flatten(2).transpose(1, 2)
            return self.fc(rows.amax(1))

    model = Net()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("tensor_layout_error", family="gru", task="classification")
def waves_time_first_by_view(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(1, 24)
            self.head = nn.Linear(24, 3)

        def forward(self, x):
            batch, length, features = x.shape
            steps = x.view(length, batch, features) if faulty else x.transpose(0, 1)
            return self.head(self.gru(steps)[1][-1])

    x, y = data.waves()
    model = Net()
    return model, Trainer(Adam(model.parameters(), 1e-2), F.cross_entropy, *data.loaders(x, y))


@pair("tensor_layout_error", family="transformer", task="classification")
def texts_attention_across_the_batch(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(60, 32)
            self.attention = nn.MultiheadAttention(32, 4, batch_first=not faulty)
            self.norm = nn.LayerNorm(32)
            self.head = mlp(32, 32, 3)

        def forward(self, words):
            x = self.embed(words)
            x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
            return self.head(x.mean(1))

    words, y = data.texts()
    model = Net()
    return model, Trainer(AdamW(model.parameters(), 2e-3), nn.CrossEntropyLoss(), data.loader(words, y))


@pair("tensor_layout_error", family="mlp", task="regression")
def table_scaled_by_the_batch(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(8, 64, 32)
            self.out = nn.Linear(32, 1)

        def forward(self, x):
            h = F.relu(self.body(x))
            weight = torch.softmax(h, dim=0 if faulty else 1)  # attention over the features, meant
            return self.out(h * weight * len(h if faulty else h.T)).squeeze(1)

    x, y = data.table()
    model = Net()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), data.loader(x, y))


@pair("tensor_layout_error", family="cnn", task="binary")
def discs_flattened_with_the_batch_last(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 3, stride=2, padding=1)
            self.fc = nn.Linear(8 * 64, 1)

        def forward(self, x):
            x = F.relu(self.conv(x)).permute(1, 2, 3, 0) if faulty else F.relu(self.conv(x))
            return self.fc(x.reshape(-1, 8 * 64))

    x, y = data.pictures()
    model = Net()
    target = (y == 3).float().unsqueeze(1)
    return model, Trainer(SGD(model.parameters(), 0.05, momentum=0.9), nn.BCEWithLogitsLoss(), data.loader(x, target))


@pair("tensor_layout_error", family="tcn", task="regression")
def forecast_time_as_channels(faulty: bool) -> Made:
    class Net(Recurrent):
        def forward(self, x):
            if faulty:  # "the GRU wants (time, batch, features)", but this one was made batch first
                x = x.transpose(0, 1)
            out, _ = self.rnn(x)
            return self.head(out.transpose(0, 1)[:, -1] if faulty else out[:, -1])

    x, y = data.forecasts()
    model = Net(nn.GRU, outputs=1)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), data.loader(x, y.unsqueeze(1)))


@pair("tensor_layout_error", family="cnn", task="classification")
def digits_normalised_over_the_wrong_axis(faulty: bool) -> Made:
    class Net(Cnn):
        def forward(self, x):
            dim = 0 if faulty else 1
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = x / x.pow(2).sum(dim, keepdim=True).add(1e-3).sqrt() * x.shape[dim] ** 0.5
            x = F.adaptive_max_pool2d(F.relu(self.conv2(x)), 2)
            return self.fc(x.flatten(1))

    x, y = data.digits(800)
    model = Net(classes=10, norm=False)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))
