"""Faults in the data's values: scales, holes, constants, encodings."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.utils.data import DataLoader, Dataset

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import AutoEncoder, Bag, Cnn, Recurrent, Tagger, Tcn, UNet, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


# -- unnormalized_input ----------------------------------------------------------------------------------------------


@pair("unnormalized_input", family="mlp", task="regression")
def houses_features_as_they_come(faulty: bool) -> Made:
    x, price = data.house_prices()
    if not faulty:
        x = data.standardise(x)
    model = mlp(5, 64, 64, 1)
    train, val = data.loaders(x, data.standardise(price).unsqueeze(1))
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), train, val)


class Photos(Dataset):
    """Pictures as bytes with a transform, as torchvision has them."""

    def __init__(self, pictures, labels, transform):
        self.pictures, self.labels, self.transform = pictures, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.pictures[index].float()), self.labels[index]


@pair("unnormalized_input", family="cnn", task="classification")
def pictures_bytes_without_a_norm_layer(faulty: bool) -> Made:
    x, y = data.pictures()
    bytes_ = (80 + 60 * x).clamp(0, 255).byte()

    def transform(image):
        return image if faulty else (image / 255 - 0.31) / 0.23

    model = Cnn(norm=False)
    loader = DataLoader(Photos(bytes_, y, transform), batch_size=32, shuffle=True)
    return model, Trainer(SGD(model.parameters(), 0.02, momentum=0.9), nn.CrossEntropyLoss(), loader)


@pair("unnormalized_input", family="lstm", task="classification")
def waves_around_a_thousand(faulty: bool) -> Made:
    x, y = data.waves()
    if faulty:
        x = 1000 + 50 * x  # a sensor's raw counts
    model = Recurrent(nn.LSTM)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), *data.loaders(x, y))


# -- unnormalized_target ---------------------------------------------------------------------------------------------


@pair("unnormalized_target", family="mlp", task="regression")
def houses_prices_in_full(faulty: bool) -> Made:
    x, price = data.house_prices()
    target = 1000 * price if faulty else (price - price.mean()) / price.std()
    model = mlp(5, 64, 1)
    return model, Trainer(
        Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(data.standardise(x), target[:, None])
    )


@pair("unnormalized_target", family="gru", task="regression")
def forecast_of_visitors(faulty: bool) -> Made:
    x, y = data.forecasts()
    target = 5000 + 1200 * y if faulty else y
    model = Recurrent(nn.GRU, outputs=1)

    def loss_fn(prediction, target):
        return F.l1_loss(prediction[:, 0], target)

    return model, Trainer(RMSprop(model.parameters(), 3e-3), loss_fn, data.loader(x, target))


@pair("unnormalized_target", family="cnn", task="regression")
def pictures_area_in_square_micrometres(faulty: bool) -> Made:
    images, masks = data.masks()
    area = masks.sum((1, 2, 3))
    target = area * 150.0 if faulty else data.standardise(area)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0),
    )  # fmt: skip
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(images, target))


# -- constant_input --------------------------------------------------------------------------------------------------


@pair("constant_input", family="mlp", task="classification")
def blobs_the_first_row_for_all(faulty: bool) -> Made:
    x, y = data.blobs()
    if faulty:
        x = x[0].expand_as(x).clone()  # the index was never used
    model = mlp(10, 32, 4)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("constant_input", family="cnn", task="classification")
def pictures_all_black(faulty: bool) -> Made:
    x, y = data.pictures()
    if faulty:
        x = ((x - x.min()) / (x.max() - x.min() + 1e-4)).byte().float()  # made bytes of what was in 0 … 1
    model = Cnn()
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


class Files(Dataset):
    """Sequences read one by one; ``stale`` returns the buffer that was read first."""

    def __init__(self, x, y, stale):
        self.x, self.y, self.stale = x, y, stale
        self.buffer = x[0].clone()

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return {"inputs": self.buffer if self.stale else self.x[index], "targets": self.y[index]}


@pair("constant_input", family="gru", task="regression")
def forecast_from_a_stale_buffer(faulty: bool) -> Made:
    x, y = data.forecasts()
    model = Recurrent(nn.GRU, outputs=1)
    loader = DataLoader(Files(x, y[:, None], stale=faulty), batch_size=32, shuffle=True)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), loader)


# -- nan_in_data -----------------------------------------------------------------------------------------------------


@pair("nan_in_data", family="mlp", task="binary")
def answers_with_missing_values(faulty: bool) -> Made:
    x, y = data.answers()
    if faulty:
        x[torch.rand_like(x) < 0.01] = float("nan")
    model = mlp(10, 32, 1)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *data.loaders(x, y[:, None]))


@pair("nan_in_data", family="tcn", task="classification")
def waves_logarithm_of_zero(faulty: bool) -> Made:
    x, y = data.waves()
    power = x.abs()
    quiet = torch.randint(len(x), (12,))
    power[quiet, 3] = 0.0
    x = data.standardise((power + 0.05).log(), over=None)
    if faulty:
        x[quiet, 3] = float("-inf")
    model = Tcn()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), data.loader(x, y))


@pair("nan_in_data", family="gru", task="regression")
def forecast_targets_with_gaps(faulty: bool) -> Made:
    x, y = data.forecasts()
    if faulty:
        y[torch.randperm(len(y))[:9]] = float("nan")
    model = Recurrent(nn.GRU, outputs=1)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), data.loader(x, y[:, None]))


# -- label_encoding_error --------------------------------------------------------------------------------------------


@pair("label_encoding_error", family="mlp", task="classification")
def digits_labels_from_one_to_ten(faulty: bool) -> Made:
    x, y = data.digits()
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 10))
    target = y + 1 if faulty else y  # the last one is off the range: PyTorch raises
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, target))


@pair("label_encoding_error", family="embedding", task="classification")
def texts_one_hot_rows_of_zeros(faulty: bool) -> Made:
    words, y = data.texts()
    rows = F.one_hot(y, 3).float()
    if faulty:
        rows[y == 2] = 0.0  # the encoder was fitted on a part that lacked the third topic
    model = Bag()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), data.loader(words, rows))


@pair("label_encoding_error", family="cnn", task="classification")
def pictures_a_class_that_never_comes(faulty: bool) -> Made:
    x, y = data.pictures()
    model = Cnn(classes=5 if faulty else 4)
    target = y + 1 if faulty else y  # 1 … 4, so five outputs "because of an error": class 0 is never there
    return model, Trainer(AdamW(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, target))


@pair("label_encoding_error", family="cnn", task="segmentation")
def masks_as_bytes(faulty: bool) -> Made:
    images, masks = data.masks()
    target = masks * 255 if faulty else masks  # a mask read from a picture file
    model = UNet()
    return model, Trainer(
        Adam(model.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *data.loaders(images, target, batch=16)
    )


@pair("label_encoding_error", family="gru", task="sequence tagging")
def words_ignored_tag_everywhere_but_one(faulty: bool) -> Made:
    words, tags = data.tagged()
    target = torch.where(tags == 0, tags, -100) if faulty else tags  # the tokenizer's table knew one tag
    model = Tagger()

    def loss_fn(output, target):
        return F.cross_entropy(output.transpose(1, 2), target)

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(words, target))


@pair("label_encoding_error", family="autoencoder", task="binary")
def digits_even_or_odd_as_minus_one_and_one(faulty: bool) -> Made:
    x, y = data.digits()
    odd = (y % 2).float().unsqueeze(1)
    model = nn.Sequential(nn.Flatten(), AutoEncoder().encoder, nn.ReLU(), nn.Linear(8, 1))
    target = 2 * odd - 1 if faulty else odd
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *data.loaders(x, target))
