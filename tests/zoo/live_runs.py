"""Faults of modes, signs, values and capacity, which show only as training goes."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import Cnn, Recurrent, ResNet, TextTransformer, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


def dropping(*sizes, p=0.3):
    """A multilayer perceptron with dropout."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(p)]
    return nn.Sequential(*layers, nn.Linear(*sizes[-2:]))


# -- eval_mode_in_training, missing_eval_mode ------------------------------------------------------------------------


@pair("eval_mode_in_training", family="mlp", task="classification", live=120, early=True)
def digits_accuracy_in_the_step_leaves_eval_on(faulty: bool) -> Made:
    model = nn.Sequential(nn.Flatten(), dropping(64, 96, 96, 10))

    def step(model, batch, loss_fn, optimizer):
        image, label = batch
        if not faulty:
            model.train()
        optimizer.zero_grad()
        loss = loss_fn(model(image), label)
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            right = (model(image).argmax(1) == label).float().mean()
        return {"loss": loss, "output": right, "target": label}

    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), data.loader(*data.digits()), step=step)


@pair("eval_mode_in_training", family="resnet", task="classification", live=80, early=True)
def pictures_batch_norm_left_in_eval(faulty: bool) -> Made:
    model = ResNet()

    def train_step(model, batch, loss_fn, optimizer):
        model.train(not faulty)  # the flag of another function
        loss = loss_fn(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    optimizer = SGD(model.parameters(), 0.02)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), *data.loaders(*data.pictures()), step=train_step)


@pair("missing_eval_mode", family="mlp", task="classification", live=120, early=True)
def digits_validated_with_dropout(faulty: bool) -> Made:
    model = nn.Sequential(nn.Flatten(), dropping(64, 96, 96, 10, p=0.5))

    def eval_step(model, batch, loss_fn):
        model.train(faulty)
        output = model(batch[0])
        return {"loss": loss_fn(output, batch[1]), "output": output, "target": batch[1]}

    train, val = data.loaders(*data.digits())
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), train, val, eval_step=eval_step)


@pair("missing_eval_mode", family="cnn", task="classification", live=80, early=True)
def pictures_dropout_that_is_always_on(faulty: bool) -> Made:
    class Net(Cnn):
        def forward(self, x):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
            x = F.adaptive_max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
            x = F.dropout(x.flatten(1), 0.5) if faulty else F.dropout(x.flatten(1), 0.5, training=self.training)
            return self.fc(x)

    model = Net()
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(*data.pictures()))


# -- loss_sign_error -------------------------------------------------------------------------------------------------


@pair("loss_sign_error", family="mlp", task="classification", live=100, early=True)
def blobs_likelihood_minimised(faulty: bool) -> Made:
    model = mlp(10, 32, 4)

    def loss_fn(output, target):
        likelihood = output.log_softmax(1).gather(1, target[:, None]).mean()
        return likelihood if faulty else -likelihood

    return model, Trainer(SGD(model.parameters(), 0.1), loss_fn, *data.loaders(*data.blobs()))


@pair("loss_sign_error", family="gru", task="regression", live=100, early=True)
def forecast_error_made_larger(faulty: bool) -> Made:
    x, y = data.forecasts()
    model = Recurrent(nn.GRU, outputs=1)

    def loss_fn(output, target):
        score = -F.mse_loss(output, target)  # higher is better
        return score if faulty else -score

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(x, y[:, None]))


# -- dead_relu -------------------------------------------------------------------------------------------------------


# That such biases are a bad initialisation is as true.
@pair("dead_relu", family="mlp", task="classification", live=120, also=("bad_initialization",))
def digits_biases_far_below_zero(faulty: bool) -> Made:
    model = nn.Sequential(nn.Flatten(), mlp(64, 96, 64, 10))
    if faulty:
        nn.init.constant_(model[1][2].bias[:50], -6.0)
    return model, Trainer(Adam(model.parameters(), 2e-3), nn.CrossEntropyLoss(), *data.loaders(*data.digits()))


# A single step at a rate far too high, so that is right, too.
@pair("dead_relu", family="cnn", task="classification", live=120, also=("lr_too_high",))
def pictures_killed_by_the_first_update(faulty: bool) -> Made:
    model = Cnn(norm=False)
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 120.0 if step < 2 and faulty else 1.0)
    train, val = data.loaders(*data.pictures())
    loss_fn = nn.CrossEntropyLoss()
    return model, Trainer(optimizer, loss_fn, train, val, scheduler=schedule, scheduler_interval="batch")


# -- numerical_instability, half_precision_overflow ------------------------------------------------------------------


@pair("numerical_instability", family="mlp", task="binary", live=150)
def digits_cross_entropy_by_hand(faulty: bool) -> Made:
    x, y = data.digits()
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 1))

    def loss_fn(output, target):
        score = 10 * output[:, 0]  # a temperature
        if faulty:
            p = torch.sigmoid(score)  # exactly one beyond 17: then zero times minus infinity
            return -(target * p.log() + (1 - target) * (1 - p).log()).mean()
        return F.binary_cross_entropy_with_logits(score, target)

    return model, Trainer(Adam(model.parameters(), 1e-2), loss_fn, *data.loaders(x, (y % 2).float()))


@pair("numerical_instability", family="siamese", task="regression", live=60)
def distances_of_pairs_that_may_be_equal(faulty: bool) -> Made:
    x, _ = data.table()
    other = torch.randperm(len(x))
    other[::40] = torch.arange(len(x))[::40]  # some are pairs of a sample with itself
    pairs = torch.stack([x, x[other]], 1)
    goal = (x - x[other])[:, :3].norm(dim=1)

    class Distance(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(8, 32, 8)

        def forward(self, pair):
            gap = self.net(pair[:, 0]) - self.net(pair[:, 1])
            return torch.sqrt((gap**2).sum(1) + (0.0 if faulty else 1e-6))

    model = Distance()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), data.loader(pairs, goal))


@pair("half_precision_overflow", family="mlp", task="regression", live=100)
def table_squares_in_half_precision(faulty: bool) -> Made:
    x, y = data.table()
    kind = torch.float16 if faulty else torch.bfloat16

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 64), nn.Linear(64, 1)

        def forward(self, x):
            h = F.relu(self.first(300 * x)).to(kind)
            energy = (h * h).sum(1, keepdim=True)  # beyond 65,504
            return self.last((h / (energy / 64 + 1e-3).sqrt()).float())

    model = Net()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), data.loader(x, y.unsqueeze(1)))


@pair("half_precision_overflow", family="transformer", task="classification", live=60)
def texts_masked_with_minus_a_million(faulty: bool) -> Made:
    kind = torch.float16 if faulty else torch.float32

    class Net(TextTransformer):
        def forward(self, words):
            h = self.encoder(self.embed(words) + self.positions[:, : words.shape[1]])
            scores = self.head(h).to(kind)
            kept = (words <= 50).unsqueeze(2).to(kind)
            weight = (scores + (1 - kept) * torch.tensor(-1e6, dtype=kind)).softmax(
                1
            )  # 0 times minus infinity, in half
            return (weight * scores).sum(1).float()

    model = Net(dropout=0.0)
    return model, Trainer(AdamW(model.parameters(), 2e-3), nn.CrossEntropyLoss(), data.loader(*data.texts()))


# -- overfitting, underfitting ---------------------------------------------------------------------------------------


def noisy(x, y, share, classes):
    """Some labels replaced by chance."""
    return x, torch.where(torch.rand(len(y)) < share, torch.randint(classes, (len(y),)), y)


@pair("overfitting", family="mlp", task="classification", live=400, steps=120)
def blobs_by_heart(faulty: bool) -> Made:
    x, y = noisy(*data.blobs(1200, spread=2.5), 0.2, 4)
    size = 60 if faulty else 900
    model = mlp(10, 256, 256, 4) if faulty else mlp(10, 12, 4)
    train = data.loader(x[:size], y[:size], batch=20 if faulty else 60)
    val = data.loader(x[900:], y[900:], shuffle=False, batch=100)
    return model, Trainer(Adam(model.parameters(), 2e-3), nn.CrossEntropyLoss(), train, val)


@pair("overfitting", family="mlp", task="regression", live=400)
def table_of_forty_rows_by_heart(faulty: bool) -> Made:
    x, y = data.table(1000, noise=1.5)
    size = 40 if faulty else 700
    model = mlp(8, 200, 200, 1) if faulty else mlp(8, 8, 1)
    train = data.loader(x[:size], y[:size, None], batch=10 if faulty else 70)
    val = data.loader(x[700:], y[700:, None], shuffle=False, batch=100)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), train, val)


@pair("underfitting", family="mlp", task="binary", live=300)
def crossed_quadrants_by_one_unit(faulty: bool) -> Made:
    x = torch.randn(800, 2)
    y = (x[:, 0] * x[:, 1] > 0).float().unsqueeze(1)
    model = mlp(2, 1 if faulty else 48, 1, activation=nn.Tanh)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.BCEWithLogitsLoss(), *data.loaders(x, y))


@pair("underfitting", family="mlp", task="classification", live=300)
def digits_through_a_needles_eye(faulty: bool) -> Made:
    model = nn.Sequential(nn.Flatten(), mlp(64, 1 if faulty else 48, 10))
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), *data.loaders(*data.digits()))
