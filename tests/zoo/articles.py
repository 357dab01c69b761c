"""Faults that the articles on debugging name beside the rest: parts dropped, metrics, outliers, gradients by hand."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import AutoEncoder, Cnn, Recurrent, ResNet, TextTransformer, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


# -- wrong_gradient --------------------------------------------------------------------------------------------------


@pair("wrong_gradient", family="mlp", task="regression")
def table_softplus_with_a_slip_in_backward(faulty: bool) -> Made:
    class Softplus(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return F.softplus(x)

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * (torch.tanh(x) if faulty else torch.sigmoid(x))

    class Layer(nn.Module):
        def forward(self, x):
            return Softplus.apply(x)

    x, y = data.table()
    model = mlp(8, 48, 48, 1, activation=Layer)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, y[:, None]))


@pair("wrong_gradient", family="cnn", task="classification")
def pictures_square_whose_derivative_lacks_its_two(faulty: bool) -> Made:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * x if faulty else 2 * grad * x

    class Net(Cnn):
        def forward(self, x):
            x = F.max_pool2d(Square.apply(self.bn1(self.conv1(x))), 2)
            x = F.adaptive_max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
            return self.fc(x.flatten(1))

    model = Net()
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(*data.pictures()))


# -- loss_part_dropped -----------------------------------------------------------------------------------------------


@pair("loss_part_dropped", family="autoencoder", task="classification", also=("detached_graph",))
def digits_classified_and_rebuilt_but_one_is_not_added(faulty: bool) -> Made:
    """The decoder then hangs on no path to the loss, which is true as well."""
    x, y = data.digits()
    model = nn.ModuleDict({"auto": AutoEncoder(code=16), "head": nn.Linear(16, 10)})

    def step(model, batch, loss_fn, optimizer):
        image, label = batch
        flat = image.flatten(1)
        code = model["auto"].encoder(flat)
        loss = loss_fn(model["head"](F.relu(code)), label)
        rebuilt = F.mse_loss(model["auto"].decoder(code), flat)
        if not faulty:
            loss = loss + rebuilt
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), data.loader(x, y), step=step)


@pair("loss_part_dropped", family="resnet", task="classification", also=("detached_graph",))
def pictures_place_computed_and_thrown_away(faulty: bool) -> Made:
    """The second head then hangs on no path to the loss, which is true as well."""
    x, y = data.pictures()
    bright = data.standardise(x.clamp(min=0).mean((1, 2, 3)))

    class Net(ResNet):
        def __init__(self):
            super().__init__()
            self.level = nn.Linear(12, 1)

        def forward(self, x):
            h = self.features(x)
            return self.fc(h), self.level(h)[:, 0]

    def step(model, batch, loss_fn, optimizer):
        classes, level = model(batch["image"])
        loss = loss_fn(classes, batch["label"])
        part = F.l1_loss(level, batch["level"])
        loss = loss + 0.5 * (part.item() if faulty else part)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    rows = [{"image": i, "label": c, "level": b} for i, c, b in zip(x, y, bright, strict=True)]
    model = Net()
    loader = DataLoader(rows, 30, shuffle=True)
    return model, Trainer(AdamW(model.parameters(), 5e-3), nn.CrossEntropyLoss(), loader, step=step)


# -- metric_error ----------------------------------------------------------------------------------------------------


@pair("metric_error", family="mlp", task="classification")
def blobs_accuracy_of_values_for_indices(faulty: bool) -> Made:
    def accuracy(output, target):
        values, indices = output.max(1)
        return ((values if faulty else indices) == target).float().mean().item()

    model = mlp(10, 32, 4)
    train, val = data.loaders(*data.blobs())
    return model, Trainer(SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), train, val, metrics={"acc": accuracy})


@pair("metric_error", family="transformer", task="binary")
def texts_argmax_over_a_single_score(faulty: bool) -> Made:
    def accuracy(output, target):
        told = output.argmax(1) if faulty else (output[:, 0] > 0).long()
        return (told == target[:, 0]).float().mean()

    words, y = data.texts(classes=2)
    model = TextTransformer(classes=1)
    train, val = data.loaders(words, y.float()[:, None])
    loss_fn = nn.BCEWithLogitsLoss()
    return model, Trainer(AdamW(model.parameters(), 2e-3), loss_fn, train, val, metrics={"accuracy": accuracy})


# -- target_outliers, too_few_samples --------------------------------------------------------------------------------


def with_outliers(y, share=0.01, far=60.0):
    """A few targets with a digit too many."""
    wrong = torch.rand(len(y)) < share
    wrong[:3] = True
    return torch.where(wrong, far * (1 + torch.rand(len(y))), y)


@pair("target_outliers", family="mlp", task="regression")
def table_typing_errors_under_squares(faulty: bool) -> Made:
    x, y = data.table()
    y = with_outliers(y) if faulty else y
    model = mlp(8, 64, 1)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, y[:, None]))


@pair("target_outliers", family="gru", task="regression")
def forecast_after_a_broken_sensor(faulty: bool) -> Made:
    x, y = data.forecasts()
    y = with_outliers(y, far=100.0) if faulty else y
    model = Recurrent(nn.GRU, outputs=1)

    def loss_fn(output, target):
        return ((output[:, 0] - target) ** 2).mean()

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(x, y))


@pair("too_few_samples", family="cnn", task="classification", steps=60)
def digits_two_of_each(faulty: bool) -> Made:
    x, y = data.digits(1500)
    if faulty:
        few = torch.cat([(y == c).nonzero().flatten()[:2] for c in range(10)])
        x, y = x[few], y[few]
    model = Cnn(classes=10)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), data.loader(x, y, batch=10))


@pair("too_few_samples", family="mlp", task="classification", steps=60)
def blobs_forty_classes_of_three(faulty: bool) -> Made:
    classes = 40 if faulty else 8
    x, y = data.blobs(120 if faulty else 1200, classes=classes, features=16)
    model = mlp(16, 64, classes)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), data.loader(x, y, batch=20))
