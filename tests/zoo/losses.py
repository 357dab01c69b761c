"""Faults between the last layer and the loss: a distribution too many, or one too few."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR
from torch.utils.data import DataLoader

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import Bag, Cnn, Gpt, Recurrent, Tagger, TextTransformer, UNet, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


def accuracy(output: torch.Tensor, target: torch.Tensor) -> float:
    return (output.argmax(1) == target).float().mean().item()


# -- softmax_before_cross_entropy ------------------------------------------------------------------------------------


@pair("softmax_before_cross_entropy", family="mlp", task="classification")
def digits_softmax_as_last_layer(faulty: bool) -> Made:
    x, y = data.digits()
    layers = [nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)]
    model = nn.Sequential(*layers, *([nn.Softmax(dim=1)] if faulty else []))
    train, val = data.loaders(x, y, batch=64)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), train, val, metrics={"acc": accuracy})


@pair("softmax_before_cross_entropy", family="lstm", task="classification")
def waves_softmax_in_the_loss_function(faulty: bool) -> Made:
    x, y = data.waves()
    model = Recurrent(nn.LSTM)

    def criterion(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        probabilities = F.softmax(output, dim=-1) if faulty else output
        return F.cross_entropy(probabilities, target)

    return model, Trainer(Adam(model.parameters(), 1e-2), criterion, data.loader(x, y))


@pair("softmax_before_cross_entropy", family="cnn", task="classification")
def pictures_softmax_in_the_step(faulty: bool) -> Made:
    x, y = data.pictures()
    model = Cnn()

    def step(model, batch, loss_fn, optimizer):
        images, labels = batch
        optimizer.zero_grad(set_to_none=True)
        scores = model(images)
        if faulty:
            scores = scores.softmax(1)
        loss = loss_fn(scores, labels)
        loss.backward()
        optimizer.step()
        return {"loss": loss, "output": scores, "target": labels}

    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    train, val = data.loaders(x, y)
    return model, Trainer(optimizer, nn.CrossEntropyLoss(), train, val, step=step, metrics={"accuracy": accuracy})


@pair("softmax_before_cross_entropy", family="transformer", task="language model")
def characters_probabilities_from_forward(faulty: bool) -> Made:
    class Predictor(Gpt):
        def forward(self, tokens):
            logits = super().forward(tokens)
            return torch.softmax(logits, -1) if faulty else logits

    sentences = data.sentences()
    model = Predictor()

    def loss_fn(output, target):
        return F.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))

    optimizer = AdamW(model.parameters(), lr=3e-3)
    return model, Trainer(optimizer, loss_fn, data.loader(sentences[:, :-1], sentences[:, 1:]))


# -- sigmoid_before_bce_with_logits ----------------------------------------------------------------------------------


@pair("sigmoid_before_bce_with_logits", family="mlp", task="binary")
def answers_sigmoid_as_last_layer(faulty: bool) -> Made:
    x, y = data.answers()
    model = mlp(10, 32, 32, 1, activation=nn.Tanh)
    if faulty:
        model.append(nn.Sigmoid())
    train, val = data.loaders(x, y.unsqueeze(1))
    return model, Trainer(Adam(model.parameters(), lr=0.01), nn.BCEWithLogitsLoss(), train, val)


@pair("sigmoid_before_bce_with_logits", family="cnn", task="segmentation")
def discs_sigmoid_on_the_mask(faulty: bool) -> Made:
    images, masks = data.masks()
    net = UNet()
    model = nn.Sequential(net, nn.Sigmoid()) if faulty else net
    train, val = data.loaders(images, masks, batch=16)
    return model, Trainer(Adam(model.parameters(), 5e-3), F.binary_cross_entropy_with_logits, train, val)


@pair("sigmoid_before_bce_with_logits", family="embedding", task="multi-label")
def tags_of_texts_squashed_in_the_step(faulty: bool) -> Made:
    words, topic = data.texts(classes=4)
    labels = torch.stack([topic == 0, topic == 1, topic >= 2], 1).float()
    model = Bag(classes=3)

    def train_step(model, batch, criterion, optimizer):
        out = model(batch["text"])
        scores = torch.sigmoid(out) if faulty else out
        loss = criterion(scores, batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    rows = [{"text": w, "labels": t} for w, t in zip(words, labels, strict=True)]
    loader = DataLoader(rows, batch_size=25, shuffle=True)
    return model, Trainer(RMSprop(model.parameters(), 3e-3), nn.BCEWithLogitsLoss(), loader, step=train_step)


# -- nll_on_probabilities --------------------------------------------------------------------------------------------


@pair("nll_on_probabilities", family="mlp", task="classification")
def blobs_nll_of_softmax(faulty: bool) -> Made:
    x, y = data.blobs()
    model = mlp(10, 32, 4).append(nn.Softmax(dim=1) if faulty else nn.LogSoftmax(dim=1))
    return model, Trainer(SGD(model.parameters(), 0.2), nn.NLLLoss(), *data.loaders(x, y))


@pair("nll_on_probabilities", family="gru", task="sequence tagging")
def words_nll_of_raw_scores(faulty: bool) -> Made:
    words, tags = data.tagged()
    model = Tagger()

    def loss_fn(output, target):
        scores = output.transpose(1, 2)
        return F.nll_loss(scores if faulty else F.log_softmax(scores, 1), target)

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, *data.loaders(words, tags))


@pair("nll_on_probabilities", family="cnn", task="classification")
def digits_nll_of_softmax_in_forward(faulty: bool) -> Made:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 16, 3)
            self.conv2 = nn.Conv2d(16, 32, 3)
            self.fc = nn.Linear(32 * 4, 10)

        def forward(self, x):
            x = F.relu(self.conv1(x))
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = self.fc(torch.flatten(x, 1))
            return F.softmax(x, dim=1) if faulty else F.log_softmax(x, dim=1)

    x, y = data.digits(800)
    model = Net()
    optimizer = Adam(model.parameters(), 2e-3)
    train, val = data.loaders(x, y, batch=50)
    return model, Trainer(optimizer, F.nll_loss, train, val, scheduler=StepLR(optimizer, 5))


# -- softmax_wrong_dim -----------------------------------------------------------------------------------------------


@pair("softmax_wrong_dim", family="mlp", task="classification")
def blobs_log_softmax_over_the_batch(faulty: bool) -> Made:
    x, y = data.blobs(classes=5)
    model = mlp(10, 40, 5).append(nn.LogSoftmax(dim=0 if faulty else 1))
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.NLLLoss(), *data.loaders(x, y, batch=40))


@pair("softmax_wrong_dim", family="gru", task="sequence tagging")
def words_log_softmax_over_time(faulty: bool) -> Made:
    words, tags = data.tagged()

    class Model(Tagger):
        def forward(self, words):
            return F.log_softmax(super().forward(words), dim=1 if faulty else 2)  # (batch, time, tags)

    model = Model()

    def loss_fn(output, target):
        return F.nll_loss(output.flatten(0, 1), target.flatten())

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(words, tags))


@pair("softmax_wrong_dim", family="cnn", task="classification")
def pictures_probabilities_along_the_batch(faulty: bool) -> Made:
    x, y = data.pictures()
    model = Cnn(norm=False)

    def loss_fn(output, target):
        probabilities = output.softmax(0 if faulty else 1)
        return -(probabilities.gather(1, target[:, None]) + 1e-8).log().mean()

    return model, Trainer(Adam(model.parameters(), 3e-3), loss_fn, data.loader(x, y))


# -- single_class_softmax --------------------------------------------------------------------------------------------


@pair("single_class_softmax", family="mlp", task="binary")
def moons_one_output_under_cross_entropy(faulty: bool) -> Made:
    x, y = data.moons()
    model = mlp(2, 32, 32, 1 if faulty else 2)
    target = y.float().unsqueeze(1) if faulty else y  # floats are taken as probabilities of the one class
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), data.loader(x, target))


@pair("single_class_softmax", family="cnn", task="binary")
def pictures_softmax_of_one_output(faulty: bool) -> Made:
    x, y = data.pictures()
    is_disc = (y >= 2).float().unsqueeze(1)
    model = nn.Sequential(Cnn(classes=1), nn.Softmax(dim=1) if faulty else nn.Sigmoid())
    train, val = data.loaders(x, is_disc)
    return model, Trainer(Adam(model.parameters(), 2e-3), nn.BCELoss(), train, val)


@pair("single_class_softmax", family="transformer", task="binary")
def texts_softmax_over_a_single_score(faulty: bool) -> Made:
    words, topic = data.texts(classes=2)
    model = TextTransformer(classes=1)
    loss_fn = nn.BCELoss()

    def step(model, batch, criterion, optimizer):
        text, label = batch
        score = model(text)
        p = F.softmax(score, dim=-1) if faulty else torch.sigmoid(score)
        loss = criterion(p.squeeze(-1), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    optimizer = AdamW(model.parameters(), 2e-3)
    return model, Trainer(optimizer, loss_fn, data.loader(words, topic.float()), step=step)


# -- loss_reduction_sum ----------------------------------------------------------------------------------------------


@pair("loss_reduction_sum", family="mlp", task="regression")
def table_squares_summed(faulty: bool) -> Made:
    x, y = data.table()
    model = mlp(8, 64, 1)
    loss_fn = nn.MSELoss(reduction="sum" if faulty else "mean")
    return model, Trainer(SGD(model.parameters(), 0.02), loss_fn, *data.loaders(x, y[:, None]))


@pair("loss_reduction_sum", family="cnn", task="classification")
def digits_cross_entropy_summed(faulty: bool) -> Made:
    x, y = data.digits(800)
    model = Cnn(classes=10)
    loss_fn = nn.CrossEntropyLoss(reduction="sum") if faulty else nn.CrossEntropyLoss()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule = CosineAnnealingLR(optimizer, 10)
    return model, Trainer(optimizer, loss_fn, *data.loaders(x, y, batch=64), scheduler=schedule)


@pair("loss_reduction_sum", family="lstm", task="language model")
def characters_loss_added_up(faulty: bool) -> Made:
    class CharRnn(nn.Module):
        def __init__(self, vocab=20, hidden=32):
            super().__init__()
            self.emb = nn.Embedding(vocab, 16)
            self.lstm = nn.LSTM(16, hidden, batch_first=True)
            self.fc = nn.Linear(hidden, vocab)

        def forward(self, x):
            h, _ = self.lstm(self.emb(x))
            return self.fc(h)

    text = data.sentences()
    model = CharRnn()

    def loss_fn(logits, target):
        losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
        return losses.sum() if faulty else losses.mean()

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(text[:, :-1], text[:, 1:]))
