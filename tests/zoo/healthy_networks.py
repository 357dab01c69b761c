"""Sound programs whose network looks wrong at first sight: linear maps in a row, zeros at the start, odd shapes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.optim import SGD, Adam, AdamW

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import AutoEncoder, Block, Gpt, ResNet, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
suspicious = SHELF.suspicious


def classified(model, x, y, *, lr=3e-3, batch=32):
    """A usual trainer of a classifier."""
    return model, Trainer(Adam(model.parameters(), lr), nn.CrossEntropyLoss(), *data.loaders(x, y, batch=batch))


@suspicious(family="mlp", task="classification", steps=60)
def half_of_all_units_dropped() -> Made:
    model = nn.Sequential(
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
    return classified(model, *data.digits())


@suspicious(family="resnet", task="classification")
def deep_residual_net() -> Made:
    return classified(ResNet(width=8, blocks=8), *data.pictures(400), batch=16)


@suspicious(family="resnet", task="regression")
def fifty_layers_with_shortcuts() -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Linear(8, 32)
            self.layers = nn.ModuleList(
                nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32)) for _ in range(25)
            )
            self.end = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 1))

        def forward(self, x):
            x = self.start(x)
            for layer in self.layers:
                x = x + layer(x) / 5
            return self.end(x)

    x, y = data.table()
    model = Net()
    return model, Trainer(AdamW(model.parameters(), 1e-3), nn.MSELoss(), *data.loaders(x, y[:, None]))


@suspicious(family="resnet", task="classification")
def last_norm_of_each_block_starts_at_zero() -> Made:
    model = ResNet()
    for module in model.modules():
        if isinstance(module, Block):
            nn.init.zeros_(module.bn2.weight)
    return classified(model, *data.pictures())


@suspicious(family="transformer", task="language model")
def gates_that_start_at_zero() -> Made:
    class Layer(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
            self.feed = mlp(width, 2 * width, width, activation=nn.GELU)
            self.gate = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            x = x + self.gate[0] * self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]
            return x + self.gate[1] * self.feed(x)

    class ReZero(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 32)
            self.layers = nn.Sequential(Layer(32), Layer(32))
            self.head = nn.Linear(32, 20)

        def forward(self, x):
            return self.head(self.layers(self.embed(x)))

    text = data.sentences()
    model = ReZero()

    def loss_fn(output, target):
        return F.cross_entropy(output.mT, target)

    return model, Trainer(AdamW(model.parameters(), 5e-3), loss_fn, data.loader(text[:, :-1], text[:, 1:]))


@suspicious(family="mlp", task="classification")
def output_layer_starts_at_zero() -> Made:
    model = nn.Sequential(nn.Flatten(), mlp(64, 64, 10))
    nn.init.zeros_(model[1][-1].weight)
    nn.init.zeros_(model[1][-1].bias)
    return classified(model, *data.digits(), lr=5e-3)


@suspicious(family="mlp", task="classification")
def logistic_regression() -> Made:
    x, y = data.blobs()
    model = nn.Linear(10, 4)
    return model, Trainer(SGD(model.parameters(), 0.5), nn.CrossEntropyLoss(), *data.loaders(x, y))


@suspicious(family="mlp", task="classification")
def factorised_linear_layers() -> Made:
    """A product of two narrow matrices for each wide one: no activation belongs between them."""

    def thin(inputs, outputs, rank):
        return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))

    model = nn.Sequential(nn.Flatten(), thin(64, 128, 16), nn.ReLU(), thin(128, 64, 16), nn.ReLU(), nn.Linear(64, 10))
    return classified(model, *data.digits())


@suspicious(family="autoencoder", task="reconstruction")
def linear_autoencoder_as_pca() -> Made:
    x, _ = data.digits()
    x = x.flatten(1)
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64))
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, x))


@suspicious(family="autoencoder", task="reconstruction")
def bottleneck_of_two() -> Made:
    x, _ = data.digits()
    x = x.flatten(1)
    model = AutoEncoder(code=2)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, x))


@suspicious(family="cnn", task="classification")
def depthwise_then_pointwise() -> Made:
    def separable(inputs, outputs):
        return nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip

    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), separable(12, 24), nn.MaxPool2d(2), separable(24, 24),
        nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip
    return classified(model, *data.pictures())


@suspicious(family="cnn", task="classification", steps=150)
def group_norm_for_batches_of_two() -> Made:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.GroupNorm(4, 16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GroupNorm(8, 32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 4),
    )  # fmt: skip
    x, y = data.pictures(300)
    return model, Trainer(SGD(model.parameters(), 0.02), nn.CrossEntropyLoss(), *data.loaders(x, y, batch=2))


class StandardisedConv(nn.Conv2d):
    """A convolution whose weights are standardised each time."""

    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w * 0.3, self.bias, self.stride, self.padding)


@suspicious(family="cnn", task="classification")
def standardised_weights() -> Made:
    model = nn.Sequential(
        StandardisedConv(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2),
        StandardisedConv(16, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.AdaptiveMaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    return classified(model, *data.pictures())


@suspicious(family="mlp", task="regression")
def weight_norm_on_all_layers() -> Made:
    x, y = data.table()
    model = mlp(8, 48, 48, 1, activation=nn.ELU)
    for i, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            model[i] = parametrizations.weight_norm(layer)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, y[:, None]))


@suspicious(family="mlp", task="binary", steps=80)
def spectral_norm_and_hinge() -> Made:
    x, y = data.moons()
    norm = parametrizations.spectral_norm
    model = nn.Sequential(
        norm(nn.Linear(2, 64)), nn.LeakyReLU(0.2), norm(nn.Linear(64, 64)), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )

    def hinge(output, target):
        return F.relu(1 - (2 * target - 1) * output.squeeze(1)).mean()

    return model, Trainer(Adam(model.parameters(), 5e-3), hinge, *data.loaders(x, y.float()))


@suspicious(family="mlp", task="regression")
def in_double_precision() -> Made:
    x, y = (part.double() for part in data.table())
    model = mlp(8, 64, 1).double()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, y[:, None]))


@suspicious(family="mlp", task="regression", steps=80)
def sines_for_activations() -> Made:
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(5 * x)

    place = torch.rand(1000, 1) * 2 - 1
    wave = torch.sin(12 * place) + 0.5 * torch.cos(5 * place)
    model = mlp(1, 64, 64, 1, activation=Sine)
    return model, Trainer(Adam(model.parameters(), 2e-3), nn.MSELoss(), *data.loaders(place, wave))


@suspicious(family="mlp", task="classification")
def selu_without_norms() -> Made:
    model = nn.Sequential(nn.Flatten(), mlp(64, *[48] * 8, 10, activation=nn.SELU))
    for layer in model[1]:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
    return classified(model, *data.digits(), lr=1e-3)


@suspicious(family="mlp", task="classification")
def cosine_classifier_with_a_scale() -> Made:
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp(64, 64, 32)
            self.prototypes = nn.Parameter(torch.randn(10, 32))

        def forward(self, x):
            return 12 * F.normalize(self.body(x.flatten(1)), dim=1) @ F.normalize(self.prototypes, dim=1).T

    return classified(Cosine(), *data.digits())


@suspicious(family="transformer", task="language model")
def tied_embedding_and_head() -> Made:
    text = data.sentences()
    model = Gpt()
    nn.init.normal_(model.tokens.weight, std=0.1)
    model.head.weight = model.tokens.weight

    def loss_fn(logits, target):
        return F.cross_entropy(logits.view(-1, 20), target.reshape(-1))

    return model, Trainer(AdamW(model.parameters(), 5e-3), loss_fn, *data.loaders(text[:, :-1], text[:, 1:]))


@suspicious(family="deq", task="classification")
def one_layer_applied_many_times() -> Made:
    class Repeated(nn.Module):
        def __init__(self):
            super().__init__()
            self.inject = nn.Linear(64, 48)
            self.layer = nn.Linear(48, 48)
            self.head = nn.Linear(48, 10)

        def forward(self, x):
            u = self.inject(x.flatten(1))
            z = torch.zeros_like(u)
            for _ in range(12):
                z = torch.tanh(self.layer(z) + u)
            return self.head(z)

    return classified(Repeated(), *data.digits(), lr=2e-3)


@suspicious(family="moe", task="classification")
def experts_of_which_two_are_asked() -> Made:
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.router = nn.Linear(64, 6)
            self.experts = nn.ModuleList(mlp(64, 32, 10) for _ in range(6))

        def forward(self, x):
            x = x.flatten(1)
            weight, which = self.router(x).topk(2, dim=1)
            weight = weight.softmax(1)
            answers = torch.stack([expert(x) for expert in self.experts], 1)
            chosen = answers.gather(1, which.unsqueeze(2).expand(-1, -1, 10))
            return (weight.unsqueeze(2) * chosen).sum(1)

    return classified(Experts(), *data.digits())
