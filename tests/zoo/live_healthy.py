"""Sound runs whose curves look odd: warm restarts, noise, losses near nothing, rates and batches far from the usual."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, OneCycleLR

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import Cnn, Recurrent, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
suspicious = SHELF.suspicious


# -- rates -----------------------------------------------------------------------------------------------------------


@suspicious(family="mlp", task="classification")
def cosine_with_warm_restarts() -> Made:
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 10))
    optimizer = SGD(model.parameters(), 0.2, momentum=0.9)
    schedule = CosineAnnealingWarmRestarts(optimizer, T_0=60, eta_min=1e-5)
    train, val = data.loaders(*data.digits())
    loss_fn = nn.CrossEntropyLoss()
    return model, Trainer(optimizer, loss_fn, train, val, scheduler=schedule, scheduler_interval="batch")


@suspicious(family="cnn", task="classification", steps=60)
def one_cycle_far_longer_than_the_run() -> Made:
    model = Cnn(classes=10)
    optimizer = AdamW(model.parameters(), 1e-3)
    schedule = OneCycleLR(optimizer, 1e-2, total_steps=3000, div_factor=100)
    train, val = data.loaders(*data.digits(800))
    loss_fn = nn.CrossEntropyLoss()
    return model, Trainer(optimizer, loss_fn, train, val, scheduler=schedule, scheduler_interval="batch")


@suspicious(family="mlp", task="regression", steps=120)
def long_warm_up_in_a_straight_line() -> Made:
    x, y = data.table()
    model = mlp(8, 64, 1)
    optimizer = Adam(model.parameters(), 5e-3)
    schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 200))
    train, val = data.loaders(x, y[:, None])
    return model, Trainer(optimizer, nn.MSELoss(), train, val, scheduler=schedule, scheduler_interval="batch")


@suspicious(family="mlp", task="classification", steps=80)
def momentum_of_ninety_nine_hundredths() -> Made:
    model = mlp(10, 64, 4)
    optimizer = SGD(model.parameters(), 2e-3, momentum=0.99)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), *data.loaders(*data.blobs()))


@suspicious(family="mlp", task="regression")
def targets_in_hundreds_at_a_sound_rate() -> Made:
    x, y = data.table()
    model = mlp(8, 64, 1)
    optimizer = Adam(model.parameters(), 0.03)
    return model, Trainer(optimizer, nn.L1Loss(), *data.loaders(x, 20 * y[:, None] + 5))


@suspicious(family="mlp", task="classification")
def fine_tuned_where_little_is_left_to_learn() -> Made:
    x, y = data.digits()
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 10))
    first = Adam(model.parameters(), 1e-2)
    for _ in range(60):
        first.zero_grad()
        F.cross_entropy(model(x), y).backward()
        first.step()
    images = x + 0.05 * torch.randn_like(x)
    return model, Trainer(SGD(model.parameters(), 1e-2), nn.CrossEntropyLoss(), *data.loaders(images, y))


# -- losses ----------------------------------------------------------------------------------------------------------


@suspicious(family="mlp", task="regression", steps=20)
def fits_exactly_within_twenty_steps() -> Made:
    x = torch.randn(400, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])
    model = nn.Linear(3, 1)
    return model, Trainer(SGD(model.parameters(), 0.2), nn.MSELoss(), *data.loaders(x, y))


@suspicious(family="mlp", task="regression", steps=120)
def reward_that_is_nearly_all_noise() -> Made:
    x, y = data.table(2000)
    noisy = 0.4 * y[:, None] + 3.0 * torch.randn(2000, 1)
    model = mlp(8, 16, 1)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), data.loader(x, noisy, batch=100))


@suspicious(family="mlp", task="reinforcement", falls=False)
def advantages_about_zero() -> Made:
    states = torch.randn(600, 4)
    advantage = torch.randn(600)
    model = mlp(4, 32, 2)

    def loss_fn(output, target):
        return (F.log_softmax(output, 1)[:, 0] * target).mean()

    return model, Trainer(Adam(model.parameters(), 1e-3), loss_fn, data.loader(states, advantage))


@suspicious(family="autoencoder", task="reconstruction")
def errors_of_a_ten_thousandth_from_the_start() -> Made:
    x = 0.02 * torch.randn(500, 6) @ torch.randn(6, 20)
    model = mlp(20, 32, 6, 32, 20)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), data.loader(x, x))


@suspicious(family="mlp", task="binary", steps=120)
def rare_positives_whose_loss_hardly_falls() -> Made:
    x = torch.randn(3000, 6)
    y = (x[:, :2].sum(1) + 0.5 * torch.randn(3000) > 3.4).float()[:, None]
    model = mlp(6, 32, 1)
    nn.init.constant_(model[-1].bias, -4.0)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.BCEWithLogitsLoss(), *data.loaders(x, y))


# -- batches, modes --------------------------------------------------------------------------------------------------


@suspicious(family="mlp", task="classification")
def all_of_the_data_in_each_batch() -> Made:
    x, y = data.digits()
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 10))
    return model, Trainer(
        SGD(model.parameters(), 0.3), nn.CrossEntropyLoss(), [(x[200:], y[200:])], [(x[:200], y[:200])]
    )


@suspicious(family="mlp", task="classification", steps=200)
def batches_of_two() -> Made:
    x, y = data.blobs()
    model = mlp(10, 32, 4)
    return model, Trainer(SGD(model.parameters(), 0.01), nn.CrossEntropyLoss(), data.loader(x, y, batch=2))


@suspicious(family="cnn", task="classification", steps=60)
def statistics_that_follow_slowly() -> Made:
    model = Cnn(classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.01
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(*data.digits(800)))


@suspicious(family="mlp", task="classification", steps=80)
def half_dropped_in_every_layer_of_a_wide_network() -> Made:
    parts = [nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 256), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Dropout(0.5), nn.Linear(256, 10))
    return model, Trainer(Adam(model.parameters(), 1e-3), nn.CrossEntropyLoss(), *data.loaders(*data.digits()))


@suspicious(family="gru", task="classification", steps=60)
def a_frozen_reader_below_a_new_head() -> Made:
    model = Recurrent(nn.GRU)
    optimizer = Adam(model.parameters(), 1e-2)
    x, y = data.waves()
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(x[:200]), y[:200]).backward()
        optimizer.step()
    model.rnn.requires_grad_(False)
    model.head = nn.Linear(24, 3)
    return model, Trainer(SGD(model.head.parameters(), 0.1), nn.CrossEntropyLoss(), data.loader(x, y))


@suspicious(family="mlp", task="classification", steps=40)
def distances_between_sets_that_go_by_no_pairs() -> Made:
    x = torch.randn(800, 2)
    goal = 0.5 * torch.randn(800, 2) + 1.0
    model = mlp(2, 32, 2)

    def loss_fn(output, target):
        return (output.mean(0) - target.mean(0)).square().sum() + (output.std(0) - target.std(0)).square().sum()

    return model, Trainer(Adam(model.parameters(), 1e-2), loss_fn, data.loader(x, goal, batch=80))
