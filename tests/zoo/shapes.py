"""Faults in the shape or the range of predictions and targets."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import AutoEncoder, Gpt, Recurrent, Tagger, Tcn, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


# -- loss_shape_broadcast --------------------------------------------------------------------------------------------


def squared_error(output, target):
    return ((output - target) ** 2).mean()


@pair("loss_shape_broadcast", family="mlp", task="regression")
def table_column_against_row(faulty: bool) -> Made:
    x, y = data.table()
    model = mlp(8, 64, 32, 1)
    target = y if faulty else y.unsqueeze(1)
    return model, Trainer(Adam(model.parameters(), 5e-3), squared_error, *data.loaders(x, target))


@pair("loss_shape_broadcast", family="gru", task="regression")
def forecast_squeezed_prediction(faulty: bool) -> Made:
    x, y = data.forecasts()

    class Forecaster(Recurrent):
        def forward(self, x):
            out = super().forward(x)
            return out.squeeze(-1) if faulty else out

    model = Forecaster(nn.GRU, outputs=1)

    def mae(prediction, target):
        return (prediction - target).abs().mean()

    return model, Trainer(Adam(model.parameters(), 1e-2), mae, data.loader(x, y.unsqueeze(1)))


@pair("loss_shape_broadcast", family="cnn", task="regression")
def pictures_brightness_with_a_lost_dimension(faulty: bool) -> Made:
    x, _ = data.pictures()
    bright = data.standardise(x.clamp(min=0).mean((1, 2, 3)))
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 9, 1),
    )  # fmt: skip

    def step(model, batch, loss_fn, optimizer):
        image, value = batch
        prediction = model(image)
        loss = loss_fn(prediction if faulty else prediction[:, 0], value)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss, "output": prediction, "target": value}

    return net, Trainer(AdamW(net.parameters(), 3e-3), squared_error, data.loader(x, bright), step=step)


# -- output_activation_mismatch --------------------------------------------------------------------------------------


@pair("output_activation_mismatch", family="mlp", task="regression")
def table_relu_over_the_output(faulty: bool) -> Made:
    x, y = data.table()
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1), nn.ReLU() if faulty else nn.Identity())
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, y[:, None]))


@pair("output_activation_mismatch", family="lstm", task="regression")
def forecast_through_a_sigmoid(faulty: bool) -> Made:
    x, y = data.forecasts()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(1, 24, batch_first=True)
            self.linear = nn.Linear(24, 1)

        def forward(self, x):
            _, (h, _) = self.lstm(x)
            y = self.linear(h[-1])
            return torch.sigmoid(y) if faulty else y

    model = Net()
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), data.loader(x, y.unsqueeze(1)))


@pair("output_activation_mismatch", family="autoencoder", task="reconstruction")
def digits_z_scores_from_a_sigmoid(faulty: bool) -> Made:
    x, _ = data.digits()
    x = x.flatten(1)
    model = AutoEncoder(last=nn.Sigmoid if faulty else nn.Identity)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), *data.loaders(x, x))


# -- padding_in_loss -------------------------------------------------------------------------------------------------


def padded_tags() -> tuple[torch.Tensor, torch.Tensor]:
    """Tags from 1 on; what lies behind a sentence's end is 0, in words and in tags: most of it."""
    words, tags = data.tagged(length=24)
    inside = data.lengths(len(words), longest=18, shortest=4)
    inside = torch.cat([inside, torch.zeros(len(words), 6, dtype=torch.bool)], 1)
    return words * inside, (tags + 1) * inside


@pair("padding_in_loss", family="gru", task="sequence tagging")
def words_padding_counts(faulty: bool) -> Made:
    words, tags = padded_tags()
    model = Tagger(tags=5)
    criterion = nn.CrossEntropyLoss() if faulty else nn.CrossEntropyLoss(ignore_index=0)

    def loss_fn(output, target):
        return criterion(output.permute(0, 2, 1), target)

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, *data.loaders(words, tags))


@pair("padding_in_loss", family="transformer", task="language model")
def characters_padding_predicted_too(faulty: bool) -> Made:
    text = data.sentences(length=24)
    inside = torch.cat([data.lengths(len(text), longest=17, shortest=4), torch.zeros(len(text), 8)], 1).long()
    text = text * inside
    model = Gpt()

    def loss_fn(logits, target):
        ignored = -100 if faulty else 0
        return F.cross_entropy(logits.view(-1, 20), target.reshape(-1), ignore_index=ignored)

    return model, Trainer(AdamW(model.parameters(), 3e-3), loss_fn, data.loader(text[:, :-1], text[:, 1:]))


@pair("padding_in_loss", family="tcn", task="sequence tagging")
def signal_states_with_a_tail_of_nothing(faulty: bool) -> Made:
    x, _ = data.waves(length=36)
    state = 1 + (x[..., 0] > 0).long()
    inside = torch.cat([data.lengths(len(x), longest=26, shortest=5), torch.zeros(len(x), 10, dtype=torch.bool)], 1)
    x, state = x * inside.unsqueeze(-1), state * inside

    class StateTcn(Tcn):
        def forward(self, x):
            return self.head(self.layers(x.transpose(1, 2)).transpose(1, 2))

    model = StateTcn()

    def loss_fn(output, target):
        each = F.cross_entropy(output.transpose(1, 2), target, reduction="none")
        mask = torch.ones_like(each) if faulty else (target != 0).float()
        return (each * mask).sum() / mask.sum()

    return model, Trainer(SGD(model.parameters(), 0.2, momentum=0.9), loss_fn, data.loader(x, state))
