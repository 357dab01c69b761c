"""Faults in how a network starts and how it is built: scales, symmetry, layers that are one, norms over one value."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import AutoEncoder, Bag, Cnn, Recurrent, ResNet, TextTransformer, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


# -- bad_initialization ----------------------------------------------------------------------------------------------


@pair("bad_initialization", family="mlp", task="classification")
def digits_weights_from_a_unit_normal(faulty: bool) -> Made:
    x, y = data.digits()
    model = nn.Sequential(nn.Flatten(), mlp(64, 100, 100, 100, 10))
    if faulty:
        for p in model.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0, 1.0)
    return model, Trainer(Adam(model.parameters(), 1e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("bad_initialization", family="mlp", task="binary")
def moons_deep_tanh_with_a_small_deviation(faulty: bool) -> Made:
    x, y = data.moons()
    model = mlp(2, *[32] * 20, 1, activation=nn.Tanh)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
            if faulty:
                nn.init.normal_(layer.weight, std=0.02)
            else:
                nn.init.xavier_normal_(layer.weight, gain=5 / 3)
    loss_fn = nn.BCEWithLogitsLoss()
    return model, Trainer(Adam(model.parameters(), 1e-3), loss_fn, data.loader(x, y.float().unsqueeze(1)))


@pair("bad_initialization", family="cnn", task="classification")
def pictures_convolutions_near_zero(faulty: bool) -> Made:
    x, y = data.pictures()
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(2),
        nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip

    def init_weights(m):
        if isinstance(m, nn.Conv2d):
            if faulty:
                nn.init.normal_(m.weight, 0.0, 0.001)
            else:
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            nn.init.zeros_(m.bias)

    model.apply(init_weights)
    return model, Trainer(Adam(model.parameters(), 2e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("bad_initialization", family="transformer", task="classification")
def texts_projections_ten_times_too_large(faulty: bool) -> Made:
    words, y = data.texts()
    model = TextTransformer(dropout=0.0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if faulty and p.dim() == 2:
                p.normal_(std=2.0)
            elif "bias" in name:
                p.zero_()
    return model, Trainer(AdamW(model.parameters(), 1e-3), nn.CrossEntropyLoss(), data.loader(words, y))


@pair("bad_initialization", family="lstm", task="regression")
def forecast_uniform_from_minus_to_plus_three(faulty: bool) -> Made:
    x, y = data.forecasts()
    model = Recurrent(nn.LSTM, outputs=1)
    for p in model.parameters():
        if faulty:
            nn.init.uniform_(p, -3, 3)
        elif p.dim() > 1:
            nn.init.xavier_uniform_(p)
        else:
            nn.init.zeros_(p)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), data.loader(x, y[:, None]))


# -- symmetric_initialization ----------------------------------------------------------------------------------------


@pair("symmetric_initialization", family="mlp", task="classification")
def blobs_all_weights_one_constant(faulty: bool) -> Made:
    x, y = data.blobs()
    model = mlp(10, 32, 32, 4)
    if faulty:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.constant_(module.weight, 0.05)
                nn.init.constant_(module.bias, 0.0)
    return model, Trainer(SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("symmetric_initialization", family="cnn", task="classification")
def digits_filters_of_ones(faulty: bool) -> Made:
    x, y = data.digits(800)
    model = Cnn(classes=10, norm=False)
    if faulty:
        for conv in (model.conv1, model.conv2):
            nn.init.ones_(conv.weight)
            conv.weight.data /= conv.weight[0].numel()
            nn.init.zeros_(conv.bias)
        nn.init.constant_(model.fc.weight, 0.01)
        nn.init.zeros_(model.fc.bias)
    return model, Trainer(Adam(model.parameters(), 3e-3), F.cross_entropy, *data.loaders(x, y, batch=50))


@pair("symmetric_initialization", family="embedding", task="classification")
def texts_zeros_everywhere(faulty: bool) -> Made:
    words, y = data.texts()
    model = Bag()
    if faulty:
        for p in model.parameters():
            p.data.zero_()
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), data.loader(words, y))


# -- missing_nonlinearity --------------------------------------------------------------------------------------------


@pair("missing_nonlinearity", family="mlp", task="binary")
def moons_linear_after_linear(faulty: bool) -> Made:
    x, y = data.moons()
    if faulty:
        model = nn.Sequential(nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 2))
    else:
        model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("missing_nonlinearity", family="cnn", task="classification")
def pictures_forward_forgets_relu(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
            self.conv2 = nn.Conv2d(12, 24, 3, stride=2, padding=1)
            self.act = nn.ReLU()  # defined, but not always used
            self.fc = nn.Linear(24 * 4, 4)

        def forward(self, x):
            x = self.conv1(x)
            if not faulty:
                x = self.act(x)
            x = self.act(self.conv2(x))
            return self.fc(F.adaptive_max_pool2d(x, 2).flatten(1))

    x, y = data.pictures()
    model = Net()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("missing_nonlinearity", family="mlp", task="regression")
def table_norm_and_dropout_but_no_activation(faulty: bool) -> Made:
    x, y = data.table()
    layers: list[nn.Module] = []
    for inputs, outputs in ((8, 48), (48, 48)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs)]
        layers += [] if faulty else [nn.GELU()]
        layers += [nn.Dropout(0.05)]
    model = nn.Sequential(*layers, nn.Linear(48, 1))
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), *data.loaders(x, y.unsqueeze(1)))


# -- degenerate_normalization ----------------------------------------------------------------------------------------


@pair("degenerate_normalization", family="mlp", task="regression")
def table_layer_norm_of_a_single_value(faulty: bool) -> Made:
    x, y = data.table()
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))
    if faulty:
        model.append(nn.LayerNorm(1))
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), data.loader(x, y[:, None]))


@pair("degenerate_normalization", family="cnn", task="classification")
def pictures_instance_norm_after_global_pooling(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
            self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
            self.norm = nn.GroupNorm(32 if faulty else 4, 32)
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            x = F.relu(self.conv1(x))
            x = F.adaptive_max_pool2d(F.relu(self.conv2(F.max_pool2d(x, 2))), 1)
            return self.head(self.norm(x).flatten(1))

    x, y = data.pictures()
    model = Net()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("degenerate_normalization", family="tcn", task="classification")
def waves_one_group_for_each_channel_at_one_step(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(nn.Conv1d(1, 16, 7, stride=2), nn.ReLU(), nn.Conv1d(16, 16, 5, stride=2))
            self.norm = nn.GroupNorm(16 if faulty else 2, 16)
            self.fc = nn.Linear(16, 3)

        def forward(self, x):
            x = F.relu(self.conv(x.mT)).amax(2, keepdim=True)
            return self.fc(self.norm(x).squeeze(2))

    x, y = data.waves()
    model = Net()
    return model, Trainer(RMSprop(model.parameters(), 3e-3), nn.CrossEntropyLoss(), data.loader(x, y))


# -- dropout_too_high ------------------------------------------------------------------------------------------------


@pair("dropout_too_high", family="mlp", task="classification")
def digits_dropout_meant_as_the_share_kept(faulty: bool) -> Made:
    x, y = data.digits()
    p = 0.95 if faulty else 0.05
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(p),
        nn.Linear(64, 10),
    )  # fmt: skip
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("dropout_too_high", family="resnet", task="classification")
def pictures_features_nearly_all_dropped(faulty: bool) -> Made:
    class Net(ResNet):
        def forward(self, x):
            return self.fc(F.dropout(self.features(x), 0.95 if faulty else 0.2, self.training))

    x, y = data.pictures()
    model = Net(width=16)
    return model, Trainer(AdamW(model.parameters(), 5e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("dropout_too_high", family="autoencoder", task="reconstruction")
def digits_dropout_on_the_code(faulty: bool) -> Made:
    x, _ = data.digits()
    x = x.flatten(1)
    model = AutoEncoder(code=16)
    model.encoder.append(nn.Dropout(0.9 if faulty else 0.1))
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), *data.loaders(x, x))
