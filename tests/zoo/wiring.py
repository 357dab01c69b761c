"""Faults in what is trained: parameters that no optimizer has, frozen ones, paths that end."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import Cnn, Recurrent, ResNet, Tagger, TextTransformer, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


# -- parameters_not_in_optimizer -------------------------------------------------------------------------------------


@pair("parameters_not_in_optimizer", family="resnet", task="classification")
def pictures_head_rebuilt_after_the_optimizer(faulty: bool) -> Made:
    x, y = data.pictures()
    model = ResNet(classes=100)
    if not faulty:
        model.fc = nn.Linear(12, 4)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    if faulty:
        model.fc = nn.Linear(12, 4)  # the old head's parameters stay in the optimizer
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), *data.loaders(x, y))


class Branches(nn.Module):
    """Three towers in a list, a linear layer over all of them."""

    def __init__(self, plain_list: bool) -> None:
        super().__init__()
        towers = [nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 8), nn.ReLU()) for _ in range(3)]
        self.towers = towers if plain_list else nn.ModuleList(towers)
        self.out = nn.Linear(24, 1)

    def forward(self, x):
        return self.out(torch.cat([tower(x) for tower in self.towers], 1))


@pair("parameters_not_in_optimizer", family="mlp", task="regression")
def table_towers_in_a_plain_list(faulty: bool) -> Made:
    x, y = data.table()
    model = Branches(plain_list=faulty)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, y[:, None]))


@pair("parameters_not_in_optimizer", family="lstm", task="classification")
def waves_optimizer_given_the_head_alone(faulty: bool) -> Made:
    x, y = data.waves()
    model = Recurrent(nn.LSTM)
    optimizer = Adam(model.head.parameters() if faulty else model.parameters(), lr=1e-2)
    return model, Trainer(optimizer, F.cross_entropy, data.loader(x, y))


@pair("parameters_not_in_optimizer", family="cnn", task="classification")
def digits_optimizer_of_a_copy(faulty: bool) -> Made:
    x, y = data.digits(800)
    backbone = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    )
    head = nn.Linear(16 * 16, 10)
    optimizer = AdamW([*backbone.parameters(), *head.parameters()], lr=3e-3)
    model = nn.Sequential(copy.deepcopy(backbone) if faulty else backbone, head)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), *data.loaders(x, y, batch=50))


@pair("parameters_not_in_optimizer", family="transformer", task="classification")
def texts_parameter_wrapped_again(faulty: bool) -> Made:
    words, y = data.texts()
    model = TextTransformer()
    optimizer = Adam(model.parameters(), 2e-3)
    if faulty:  # "load" the embedding: a new Parameter takes the old one's place
        model.embed.weight = nn.Parameter(torch.randn(60, 32))
    else:
        with torch.no_grad():
            model.embed.weight.copy_(torch.randn(60, 32))
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), data.loader(words, y))


# -- frozen_parameters -----------------------------------------------------------------------------------------------


@pair("frozen_parameters", family="cnn", task="classification")
def pictures_everything_but_the_head_frozen_at_random(faulty: bool) -> Made:
    x, y = data.pictures()
    model = Cnn()
    if faulty:  # as one does with a pretrained net, but this one is fresh
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name.startswith("fc")
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("frozen_parameters", family="mlp", task="binary")
def answers_first_layers_left_frozen(faulty: bool) -> Made:
    x, y = data.answers()
    model = mlp(10, 48, 48, 1)
    for layer in model[:3]:
        layer.requires_grad_(not faulty)

    def loss_fn(output, target):
        return F.binary_cross_entropy_with_logits(output.squeeze(1), target)

    return model, Trainer(SGD(model.parameters(), 0.3), loss_fn, *data.loaders(x, y))


@pair("frozen_parameters", family="gru", task="sequence tagging")
def words_embedding_frozen_without_being_loaded(faulty: bool) -> Made:
    words, tags = data.tagged()
    model = Tagger()
    if faulty:
        model.embed.requires_grad_(False)
        for parameter in model.rnn.parameters():
            parameter.requires_grad = False
    optimizer = Adam(model.parameters(), lr=5e-3)

    def loss_fn(output, target):
        return F.cross_entropy(output.flatten(0, 1), target.flatten())

    return model, Trainer(optimizer, loss_fn, data.loader(words, tags))


# -- detached_graph --------------------------------------------------------------------------------------------------


class Encoded(nn.Module):
    """A model in two halves; ``cut`` is done to what passes between."""

    def __init__(self, encoder, head, cut):
        super().__init__()
        self.encoder, self.head, self.cut = encoder, head, cut

    def forward(self, x):
        return self.head(self.cut(self.encoder(x)))


@pair("detached_graph", family="mlp", task="classification")
def digits_features_detached(faulty: bool) -> Made:
    x, y = data.digits()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
    model = Encoded(encoder, nn.Linear(32, 10), lambda z: z.detach() if faulty else z)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("detached_graph", family="cnn", task="classification")
def pictures_backbone_under_no_grad(faulty: bool) -> Made:
    class Net(Cnn):
        def forward(self, x):
            with torch.set_grad_enabled(not faulty):
                x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
                x = F.adaptive_max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
            return self.fc(x.flatten(1))

    x, y = data.pictures()
    model = Net()
    return model, Trainer(RMSprop(model.parameters(), 1e-3), F.cross_entropy, *data.loaders(x, y))


@pair("detached_graph", family="gru", task="regression")
def forecast_through_numpy(faulty: bool) -> Made:
    class Net(Recurrent):
        def forward(self, x):
            hidden = self.rnn(x)[0][:, -1]
            if faulty:
                hidden = torch.tensor(hidden.tolist())
            return self.head(hidden).squeeze(-1)

    x, y = data.forecasts()
    model = Net(nn.GRU, outputs=1)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), data.loader(x, y))


@pair("detached_graph", family="autoencoder", task="reconstruction")
def digits_code_by_data(faulty: bool) -> Made:
    x, _ = data.digits()
    x = x.flatten(1)

    class Auto(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = mlp(64, 48, 10)
            self.decode = mlp(10, 48, 64)

        def forward(self, x):
            code = self.encode(x)
            return self.decode(code.data if faulty else code)

    model = Auto()
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.MSELoss(), *data.loaders(x, x))


@pair("detached_graph", family="embedding", task="regression")
def ratings_from_rounded_indices(faulty: bool) -> Made:
    class Scorer(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(8, 6)
            self.values = nn.Embedding(6, 16)
            self.out = nn.Linear(16, 1)

        def forward(self, x):
            scores = self.gate(x)
            chosen = self.values(scores.argmax(1)) if faulty else scores.softmax(1) @ self.values.weight
            return self.out(torch.tanh(chosen))[:, 0]

    x, y = data.table()
    model = Scorer()
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), data.loader(x, y))


# -- model_ignores_input ---------------------------------------------------------------------------------------------


@pair("model_ignores_input", family="mlp", task="regression")
def table_zeroed_on_the_way(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(8, 64, 1)
            self.mask = torch.zeros(8) if faulty else torch.ones(8)

        def forward(self, x):
            return self.net(x * self.mask)

    x, y = data.table()
    model = Net()
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), data.loader(x, y.unsqueeze(1)))


@pair("model_ignores_input", family="cnn", task="classification")
def pictures_normalised_by_zero_range(faulty: bool) -> Made:
    x, y = data.pictures()

    class Net(Cnn):
        def forward(self, x):
            if faulty:  # meant: x - mean over the batch; done: x - x, by the wrong variable
                x = x - x
            return super().forward(x)

    model = Net(norm=False)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


# The recurrent layer gets no gradient then: that it hangs on no path to the loss is true as well.
@pair("model_ignores_input", family="lstm", task="classification", also=("detached_graph",))
def waves_only_the_initial_state_is_read(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.randn(1, 1, 24) * 0.1)
            self.lstm = nn.LSTM(1, 24, batch_first=True)
            self.head = nn.Linear(24, 3)

        def forward(self, x):
            start = self.start.expand(1, len(x), 24).contiguous()
            _, (last, _) = self.lstm(x, (start, torch.zeros_like(start)))
            return self.head(start[0] if faulty else last[0])

    x, y = data.waves()
    model = Net()
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), data.loader(x, y))
