"""Sound programs whose data looks wrong at first sight: rare classes, odd scales, samples that belong together."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import AutoEncoder, Cnn, Recurrent, Tcn, UNet, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
suspicious = SHELF.suspicious


# -- rare classes, dealt with ----------------------------------------------------------------------------------------


def unbalanced():
    """Blobs of three classes: 80, 12 and 8 per cent."""
    x, y = data.blobs(1600, classes=3)
    shares = torch.tensor([1.0, 0.15, 0.1])
    kept = torch.rand(len(y)) < shares[y]
    return x[kept], y[kept]


@suspicious(family="mlp", task="classification")
def rare_classes_with_weights() -> Made:
    x, y = unbalanced()
    model = mlp(10, 32, 3)
    loss_fn = nn.CrossEntropyLoss(weight=len(y) / (3 * y.bincount().float()))
    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, *data.loaders(x, y))


@suspicious(family="mlp", task="classification")
def rare_classes_drawn_more_often() -> Made:
    x, y = unbalanced()
    model = mlp(10, 32, 3)
    weights = 1 / y.bincount().float()[y]
    sampler = WeightedRandomSampler(weights, len(y))  # with replacement: rare samples come several times
    loader = DataLoader(TensorDataset(x, y), 32, sampler=sampler)
    return model, Trainer(SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), loader)


@suspicious(family="mlp", task="binary", steps=80)
def rare_positives_with_pos_weight() -> Made:
    x, y = data.answers(1200, share=0.08)
    model = mlp(10, 48, 1)
    loss_fn = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([11.0]))
    return model, Trainer(Adam(model.parameters(), 1e-2), loss_fn, *data.loaders(x, y[:, None]))


@suspicious(family="cnn", task="segmentation")
def small_discs_under_focal_loss() -> Made:
    images, masks = data.masks()
    model = UNet()

    def focal(output, target):
        each = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        return ((1 - torch.exp(-each)) ** 2 * each).mean()

    return model, Trainer(Adam(model.parameters(), 5e-3), focal, *data.loaders(images, masks, batch=16))


@suspicious(family="lstm", task="language model")
def characters_of_very_different_frequency() -> Made:
    text = data.sentences()
    text = torch.where(torch.rand(text.shape) < 0.3, 0, text)  # the blank is everywhere

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(20, 16)
            self.rnn = nn.LSTM(16, 48, batch_first=True)
            self.out = nn.Linear(48, 20)

        def forward(self, x):
            return self.out(self.rnn(self.emb(x))[0])

    model = Net()

    def loss_fn(output, target):
        return F.cross_entropy(output.mT, target)

    return model, Trainer(Adam(model.parameters(), 1e-2), loss_fn, data.loader(text[:, :-1], text[:, 1:]))


# -- scales ----------------------------------------------------------------------------------------------------------


@suspicious(family="cnn", task="classification")
def bytes_before_a_norm_layer() -> Made:
    x, y = data.pictures()
    bytes_ = (90 + 50 * x).clamp(0, 255).byte()

    class Net(Cnn):
        def __init__(self):
            super().__init__()
            self.normalise = nn.BatchNorm2d(1)

        def forward(self, x):
            return super().forward(self.normalise(x.float()))

    model = Net()
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(bytes_, y))


@suspicious(family="mlp", task="regression")
def house_features_normalised_in_the_model() -> Made:
    x, price = data.house_prices()

    class Net(nn.Module):
        def __init__(self, x):
            super().__init__()
            self.register_buffer("mean", x.mean(0))
            self.register_buffer("std", x.std(0))
            self.net = mlp(5, 64, 1)

        def forward(self, x):
            return self.net((x - self.mean) / self.std)

    model = Net(x[:600])
    target = data.standardise(price)[:, None]
    train, val = data.loader(x[:600], target[:600]), data.loader(x[600:], target[600:], shuffle=False)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), train, val)


@suspicious(family="cnn", task="classification")
def pictures_between_zero_and_one() -> Made:
    x, y = data.digits(raw=True)
    model = Cnn(classes=10)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x / 16, y))


@suspicious(family="mlp", task="binary")
def mostly_zeros_and_a_column_that_never_changes() -> Made:
    x, y = data.answers()
    flags = (torch.rand(len(x), 20) < 0.05).float()  # a one-hot part
    x = torch.cat([x, flags, torch.ones(len(x), 1)], 1)
    model = mlp(31, 48, 1)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *data.loaders(x, y[:, None]))


@suspicious(family="mlp", task="regression")
def counts_under_a_poisson_loss() -> Made:
    x, y = data.table()
    counts = torch.poisson(torch.exp(1.0 + 0.6 * y))
    model = mlp(8, 64, 1)

    def loss_fn(output, target):
        return F.poisson_nll_loss(output[:, 0], target)

    return model, Trainer(Adam(model.parameters(), 3e-3), loss_fn, *data.loaders(x, counts))


@suspicious(family="tcn", task="regression")
def stars_from_one_to_five() -> Made:
    x, y = data.forecasts()
    stars = (3 + 1.3 * y).round().clamp(1, 5)
    model = Tcn(outputs=1)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.HuberLoss(), *data.loaders(x, stars[:, None]))


@suspicious(family="mlp", task="regression", steps=80)
def shares_between_zero_and_one_by_a_sigmoid() -> Made:
    x, y = data.table()
    model = nn.Sequential(mlp(8, 64, 1), nn.Sigmoid())
    share = torch.sigmoid(2 * y)[:, None]
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, share))


@suspicious(family="autoencoder", task="reconstruction")
def tanh_for_pictures_from_minus_one_to_one() -> Made:
    x, _ = data.digits(raw=True)
    x = (x / 8 - 1).flatten(1)
    model = AutoEncoder(code=16, last=nn.Tanh)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), *data.loaders(x, x))


@suspicious(family="autoencoder", task="reconstruction")
def binary_cross_entropy_of_grey_values() -> Made:
    x, _ = data.digits(raw=True)
    x = (x / 16).flatten(1)
    model = AutoEncoder(code=16, last=nn.Sigmoid)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.BCELoss(), *data.loaders(x, x))


# -- little, noisy, or in order --------------------------------------------------------------------------------------


@suspicious(family="mlp", task="regression", steps=60)
def mostly_noise() -> Made:
    x, y = data.table(1500, noise=1.5)
    model = mlp(8, 16, 1)
    return model, Trainer(AdamW(model.parameters(), 5e-3, weight_decay=0.1), nn.MSELoss(), *data.loaders(x, y[:, None]))


@suspicious(family="mlp", task="binary", steps=60)
def forty_samples_in_all() -> Made:
    x, y = data.moons(40)
    model = mlp(2, 16, 1)

    def loss_fn(output, target):
        return F.binary_cross_entropy_with_logits(output[:, 0], target)

    return model, Trainer(Adam(model.parameters(), 1e-2), loss_fn, data.loader(x, y.float(), batch=10))


@suspicious(family="gru", task="regression")
def series_in_its_order() -> Made:
    time = torch.arange(700).float()
    series = torch.sin(time / 3) + 0.4 * torch.sin(time / 7.3) + 0.05 * torch.randn(700)
    series = data.standardise(series)
    windows = series.unfold(0, 25, 1)
    x, y = windows[:, :24].unsqueeze(2), windows[:, 24:]
    model = Recurrent(nn.GRU, outputs=1)
    train = DataLoader(TensorDataset(x[:540], y[:540]), 32, shuffle=False, drop_last=True)  # windows in their order
    val = DataLoader(TensorDataset(x[564:], y[564:]), 32)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), train, val)


class Augmented(Dataset):
    """Pictures with noise and mirroring, new each time."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        image = self.x[i]
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
        return {"image": image * (0.8 + 0.4 * torch.rand(())) + 0.2 * torch.randn_like(image), "label": self.y[i]}


@suspicious(family="cnn", task="classification")
def only_training_is_augmented() -> Made:
    x, y = data.pictures(700)
    model = Cnn()
    train = DataLoader(Augmented(x[:550], y[:550]), 32, shuffle=True)
    val = DataLoader([{"image": i, "label": c} for i, c in zip(x[550:], y[550:], strict=True)], 50)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), train, val)


@suspicious(family="mlp", task="binary")
def few_categories_so_rows_repeat() -> Made:
    codes = torch.randint(0, 3, (900, 6))
    y = ((codes[:, 0] == codes[:, 1]) | (codes[:, 2] == 2)).float()
    x = F.one_hot(codes, 3).float().flatten(1)
    model = mlp(18, 48, 1)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *data.loaders(x, y[:, None]))
