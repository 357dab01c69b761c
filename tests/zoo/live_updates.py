"""Faults of the update, which show only as training goes: rates, clipping, accumulation, decay, forgotten calls."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import ExponentialLR, StepLR

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import Bag, Cnn, Gpt, Recurrent, ResNet, TextTransformer, UNet, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


# -- lr_too_high, lr_too_low -----------------------------------------------------------------------------------------


@pair("lr_too_high", family="mlp", task="regression", live=150)
def table_rate_eight_times_too_high(faulty: bool) -> Made:
    x, y = data.table()
    model = mlp(8, 64, 64, 1, activation=nn.Tanh)
    optimizer = SGD(model.parameters(), lr=0.4 if faulty else 0.05)
    return model, Trainer(optimizer, nn.MSELoss(), *data.loaders(x, y.unsqueeze(1)))


@pair("lr_too_high", family="cnn", task="classification", live=100)
def digits_adam_at_one_half(faulty: bool) -> Made:
    x, y = data.digits(800)
    model = Cnn(classes=10)
    optimizer = Adam(model.parameters(), lr=0.5 if faulty else 0.003)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("lr_too_high", family="transformer", task="language model", live=80)
def characters_adamw_at_one_half(faulty: bool) -> Made:
    text = data.sentences()
    model = Gpt(layers=2)

    def loss_fn(output, target):
        return F.cross_entropy(output.flatten(0, 1), target.flatten())

    optimizer = AdamW(model.parameters(), lr=0.5 if faulty else 3e-3)
    return model, Trainer(optimizer, loss_fn, data.loader(text[:, :-1], text[:, 1:]))


@pair("lr_too_low", family="cnn", task="classification", live=150)
def pictures_rate_of_a_millionth(faulty: bool) -> Made:
    model = Cnn()
    optimizer = SGD(model.parameters(), lr=1e-6 if faulty else 0.05, momentum=0.9)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), *data.loaders(*data.pictures()))


@pair("lr_too_low", family="gru", task="regression", live=150)
def forecast_adam_with_a_tiny_rate(faulty: bool) -> Made:
    x, y = data.forecasts()
    model = Recurrent(nn.GRU, outputs=1)
    optimizer = Adam(model.parameters(), lr=1e-7 if faulty else 5e-3)
    return model, Trainer(optimizer, nn.MSELoss(), data.loader(x, y[:, None]))


# -- lr_schedule_collapse --------------------------------------------------------------------------------------------


@pair("lr_schedule_collapse", family="mlp", task="classification", live=200)
def digits_decay_by_batch_meant_by_epoch(faulty: bool) -> Made:
    x, y = data.digits()
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 10))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    interval = "batch" if faulty else "epoch"
    train, val = data.loaders(x, y)
    schedule = ExponentialLR(optimizer, 0.9)
    loss_fn = nn.CrossEntropyLoss()
    return model, Trainer(optimizer, loss_fn, train, val, scheduler=schedule, scheduler_interval=interval)


@pair("lr_schedule_collapse", family="transformer", task="classification", live=150)
def texts_schedule_stepped_in_the_step(faulty: bool) -> Made:
    words, y = data.texts()
    model = TextTransformer()
    optimizer = AdamW(model.parameters(), 2e-3)
    schedule = StepLR(optimizer, step_size=10 if faulty else 190, gamma=0.1)  # ten epochs of 19 batches, meant

    def step(model, batch, loss_fn, optimizer):
        text, label = batch
        optimizer.zero_grad()
        loss = loss_fn(model(text), label)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    loader, loss_fn = data.loader(words, y), nn.CrossEntropyLoss()
    return model, Trainer(optimizer, loss_fn, loader, step=step, scheduler=schedule, scheduler_interval="manual")


# -- gradient_clip_too_low -------------------------------------------------------------------------------------------


def clipping(limit):
    """A step that clips by the norm of all gradients."""

    def step(model, batch, loss_fn, optimizer):
        x, y = batch
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        optimizer.step()
        return loss

    return step


@pair("gradient_clip_too_low", family="gru", task="classification", live=150, steps=100)
def waves_clipped_to_a_thousandth(faulty: bool) -> Made:
    model = Recurrent(nn.GRU)
    optimizer = SGD(model.parameters(), 0.5, momentum=0.9)
    step = clipping(1e-3 if faulty else 2.0)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), data.loader(*data.waves()), step=step)


@pair("gradient_clip_too_low", family="resnet", task="classification", live=100)
def pictures_clipped_far_below_their_norm(faulty: bool) -> Made:
    model = ResNet()
    optimizer = SGD(model.parameters(), 0.1)
    step = clipping(0.005 if faulty else 5.0)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), data.loader(*data.pictures()), step=step)


# -- gradient_accumulation_unscaled ----------------------------------------------------------------------------------


def accumulating(times, divided):
    """A step that updates every so many batches."""
    seen = 0

    def step(model, batch, loss_fn, optimizer):
        nonlocal seen
        loss = loss_fn(model(batch[0]), batch[1])
        (loss / times if divided else loss).backward()
        seen += 1
        if seen % times == 0:
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return step


@pair("gradient_accumulation_unscaled", family="mlp", task="regression", live=200, steps=160)
def table_eight_batches_added_up(faulty: bool) -> Made:
    x, y = data.table()
    model = mlp(8, 64, 1)
    step = accumulating(8, divided=not faulty)
    return model, Trainer(SGD(model.parameters(), 0.05), nn.MSELoss(), data.loader(x, y[:, None], batch=8), step=step)


@pair("gradient_accumulation_unscaled", family="cnn", task="classification", live=160, steps=160)
def digits_sixteen_batches_added_up(faulty: bool) -> Made:
    model = Cnn(classes=10)
    step = accumulating(16, divided=not faulty)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), data.loader(*data.digits(800), batch=16), step=step)


# -- weight_decay_too_high -------------------------------------------------------------------------------------------


@pair("weight_decay_too_high", family="mlp", task="classification", live=200)
def digits_decay_of_one_half(faulty: bool) -> Made:
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 64, 10))
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.5 if faulty else 5e-4)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), *data.loaders(*data.digits()))


@pair("weight_decay_too_high", family="embedding", task="classification", live=200)
def texts_decoupled_decay_of_thirty(faulty: bool) -> Made:
    model = Bag()
    optimizer = AdamW(model.parameters(), lr=5e-3, weight_decay=30.0 if faulty else 0.01)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), data.loader(*data.texts()))


# -- zero_grad_missing, optimizer_step_missing -----------------------------------------------------------------------


@pair("zero_grad_missing", family="mlp", task="classification", live=120, early=True)
def blobs_gradients_never_reset(faulty: bool) -> Made:
    model = mlp(10, 32, 32, 4)

    def step(model, batch, criterion, optimizer):
        x, y = batch
        loss = criterion(model(x), y)
        if not faulty:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, Trainer(SGD(model.parameters(), 0.05), nn.CrossEntropyLoss(), data.loader(*data.blobs()), step=step)


@pair("zero_grad_missing", family="cnn", task="segmentation", live=100, early=True)
def discs_reset_once_an_epoch(faulty: bool) -> Made:
    images, masks = data.masks()
    model = UNet()
    loader = data.loader(images, masks, batch=16)
    seen = 0

    def step(model, batch, loss_fn, optimizer):
        nonlocal seen
        if not faulty or seen % len(loader) == 0:
            optimizer.zero_grad()
        seen += 1
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    return model, Trainer(Adam(model.parameters(), 3e-3), nn.BCEWithLogitsLoss(), loader, step=step)


@pair("optimizer_step_missing", family="gru", task="classification", live=60, early=True)
def waves_never_updated(faulty: bool) -> Made:
    model = Recurrent(nn.GRU)

    def step(model, batch, loss_fn, optimizer):
        optimizer.zero_grad()
        output = model(batch[0])
        loss = loss_fn(output, batch[1])
        loss.backward()
        if not faulty:
            optimizer.step()
        return {"loss": loss, "output": output, "target": batch[1]}

    optimizer = Adam(model.parameters(), 1e-2)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), data.loader(*data.waves()), step=step)


@pair("optimizer_step_missing", family="mlp", task="regression", live=100, early=True)
def table_update_behind_a_condition_never_met(faulty: bool) -> Made:
    x, y = data.table()
    model = mlp(8, 64, 1)
    every = 1
    seen = 0

    def step(model, batch, loss_fn, optimizer):
        nonlocal seen
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        seen += 1
        if seen % every == (1 if faulty else 0):  # a remainder of one, modulo one
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return model, Trainer(RMSprop(model.parameters(), 3e-3), nn.MSELoss(), data.loader(x, y[:, None]), step=step)
