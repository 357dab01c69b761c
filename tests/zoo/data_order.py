"""Faults in which samples come when, with which label, and in which split."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from nbdebug import Trainer
from tests.zoo import data
from tests.zoo.networks import AutoEncoder, Bag, Cnn, Gpt, Recurrent, ResNet, Tagger, Tcn, TextTransformer, mlp
from tests.zoo.program import Made, Shelf

SHELF = Shelf()
pair = SHELF.pair


# -- input_label_mismatch --------------------------------------------------------------------------------------------


@pair("input_label_mismatch", family="cnn", task="classification")
def digits_shuffled_apart(faulty: bool) -> Made:
    x, y = data.digits()
    order = torch.randperm(len(x))
    x = x[order]
    y = y[torch.randperm(len(y)) if faulty else order]
    model = Cnn(classes=10)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("input_label_mismatch", family="mlp", task="regression")
def table_targets_sorted_by_themselves(faulty: bool) -> Made:
    x, y = data.table()
    if faulty:
        y = y.sort().values
    model = mlp(8, 64, 1)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), *data.loaders(x, y.unsqueeze(1)))


class Records(Dataset):
    """Texts and their topics from two files; ``shifted`` reads the topics of the lines some places further on."""

    def __init__(self, words, topics, shifted):
        self.words, self.topics, self.shifted = words, topics, shifted

    def __len__(self):
        return len(self.words)

    def __getitem__(self, i):
        return self.words[i], self.topics[(i + self.shifted) % len(self)]


@pair("input_label_mismatch", family="embedding", task="classification")
def texts_off_by_one_line(faulty: bool) -> Made:
    words, y = data.texts()
    model = Bag()
    loader = DataLoader(Records(words, y, shifted=1 if faulty else 0), 32, shuffle=True)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), loader)


# -- unshuffled_data -------------------------------------------------------------------------------------------------


@pair("unshuffled_data", family="mlp", task="classification")
def blobs_sorted_by_class(faulty: bool) -> Made:
    x, y = data.blobs()
    order = y.argsort()
    model = mlp(10, 32, 4)
    train = data.loader(x[order], y[order], shuffle=not faulty)
    return model, Trainer(SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), train)


class Folders(Dataset):
    """Pictures read folder by folder, a class each."""

    def __init__(self, x, y):
        self.files = [(x[i], int(y[i])) for c in range(4) for i in (y == c).nonzero().flatten().tolist()]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        image, label = self.files[index]
        return {"image": image, "label": label}


@pair("unshuffled_data", family="cnn", task="classification")
def pictures_folder_by_folder(faulty: bool) -> Made:
    model = Cnn()
    loader = DataLoader(Folders(*data.pictures()), batch_size=20, shuffle=not faulty)
    return model, Trainer(Adam(model.parameters(), 2e-3), nn.CrossEntropyLoss(), loader)


@pair("unshuffled_data", family="transformer", task="binary")
def texts_all_positives_first(faulty: bool) -> Made:
    words, y = data.texts(classes=2)
    model = TextTransformer(classes=1)
    first = torch.cat([(y == 1).nonzero(), (y == 0).nonzero()]).flatten()
    batches = data.loader(words[first], y[first].float(), shuffle=not faulty)

    def loss_fn(output, target):
        return F.binary_cross_entropy_with_logits(output[:, 0], target)

    return model, Trainer(AdamW(model.parameters(), 1e-3), loss_fn, batches)


# -- class_imbalance -------------------------------------------------------------------------------------------------


def rare(x, y, share):
    """All samples of class 0 and of the others only so many that they are ``share`` of all, in random order."""
    common, others = (y == 0).nonzero().flatten(), (y != 0).nonzero().flatten()
    kept = torch.cat([common, others[: max(6, int(share * len(common)))]])
    kept = kept[torch.randperm(len(kept))]
    return x[kept], y[kept]


@pair("class_imbalance", family="mlp", task="binary")
def answers_one_in_fifty(faulty: bool) -> Made:
    x, y = data.answers(1200, share=0.02 if faulty else 0.4)
    model = mlp(10, 32, 1)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *data.loaders(x, y.unsqueeze(1)))


@pair("class_imbalance", family="cnn", task="classification")
def digits_nearly_all_one_class(faulty: bool) -> Made:
    x, y = data.digits(1797)
    y = (y == 1).long()  # is it a one?
    if not faulty:
        keep = torch.cat([(y == 1).nonzero(), (y == 0).nonzero()[:250]]).flatten()
        x, y = x[keep], y[keep]
    else:
        x, y = rare(x, y, 0.02)
    model = Cnn(classes=2)
    return model, Trainer(SGD(model.parameters(), 0.05, momentum=0.9), nn.CrossEntropyLoss(), *data.loaders(x, y))


@pair("class_imbalance", family="gru", task="classification", steps=90)
def waves_anomalies_are_rare(faulty: bool) -> Made:
    x, y = data.waves(1200)
    y = (y != 0).long()
    if faulty:
        x, y = rare(x, y, 0.02)
    model = Recurrent(nn.GRU, outputs=2)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.CrossEntropyLoss(), *data.loaders(x, y))


# -- repeated_batch --------------------------------------------------------------------------------------------------


@pair("repeated_batch", family="mlp", task="regression")
def table_the_first_batch_for_ever(faulty: bool) -> Made:
    x, y = data.table()
    model = mlp(8, 64, 1)
    batches = list(data.loader(x, y[:, None]))
    if faulty:
        batches = [next(iter(batches)) for _ in batches]  # a new iterator each time
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.MSELoss(), batches)


class FewSamples(Dataset):
    """Loads lazily; ``stuck`` takes the index modulo the size of its cache."""

    def __init__(self, x, y, stuck):
        self.x, self.y, self.cache = x, y, 40 if stuck else len(x)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i % self.cache], self.y[i % self.cache]


@pair("repeated_batch", family="cnn", task="classification")
def pictures_index_modulo_the_cache(faulty: bool) -> Made:
    x, y = data.pictures()
    model = Cnn()
    loader = DataLoader(FewSamples(x, y, stuck=faulty), 32, shuffle=True)
    return model, Trainer(Adam(model.parameters(), 3e-3), nn.CrossEntropyLoss(), loader)


@pair("repeated_batch", family="gru", task="sequence tagging")
def words_drawn_from_a_handful(faulty: bool) -> Made:
    words, tags = data.tagged()
    part = TensorDataset(words[:24], tags[:24]) if faulty else TensorDataset(words, tags)
    sampler = RandomSampler(part, replacement=faulty, num_samples=480)
    model = Tagger()

    def loss_fn(output, target):
        return F.cross_entropy(output.mT, target)

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, DataLoader(part, 32, sampler=sampler))


# -- target_leakage --------------------------------------------------------------------------------------------------


@pair("target_leakage", family="mlp", task="binary")
def answers_with_the_answer_in_a_column(faulty: bool) -> Made:
    x, y = data.answers()
    extra = y + 0.01 * torch.randn_like(y) if faulty else torch.randn_like(y)
    x = torch.cat([x, data.standardise(extra)[:, None]], 1)
    model = mlp(11, 32, 1)
    return model, Trainer(Adam(model.parameters(), 5e-3), nn.BCEWithLogitsLoss(), *data.loaders(x, y.unsqueeze(1)))


@pair("target_leakage", family="transformer", task="language model")
def characters_without_a_causal_mask(faulty: bool) -> Made:
    text = data.sentences()
    model = Gpt(causal=not faulty)

    def loss_fn(logits, target):
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())

    return model, Trainer(AdamW(model.parameters(), 3e-3), loss_fn, *data.loaders(text[:, :-1], text[:, 1:]))


@pair("target_leakage", family="gru", task="regression")
def forecast_window_reaches_the_target(faulty: bool) -> Made:
    x, y = data.forecasts()
    if faulty:
        x = torch.cat([x[:, 1:], y.view(-1, 1, 1)], 1)  # the window is one too far on
    model = Recurrent(nn.GRU, outputs=1)
    return model, Trainer(Adam(model.parameters(), 1e-2), nn.MSELoss(), *data.loaders(x, y.unsqueeze(1)))


@pair("target_leakage", family="lstm", task="language model")
def characters_read_in_both_directions(faulty: bool) -> Made:
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(20, 16)
            self.rnn = nn.LSTM(16, 32, batch_first=True, bidirectional=faulty)
            self.out = nn.Linear(64 if faulty else 32, 20)

        def forward(self, x):
            return self.out(self.rnn(self.emb(x))[0])

    text = data.sentences()
    model = Language()

    def loss_fn(logits, target):
        return F.cross_entropy(logits.transpose(1, 2), target)

    return model, Trainer(Adam(model.parameters(), 5e-3), loss_fn, data.loader(text[:, :-1], text[:, 1:]))


# -- train_val_mismatch ----------------------------------------------------------------------------------------------


@pair("train_val_mismatch", family="cnn", task="classification")
def digits_only_training_is_normalised(faulty: bool) -> Made:
    x, y = data.digits(raw=True)
    mean, std = x[:800].mean(), x[:800].std()
    train = data.loader((x[:800] - mean) / std, y[:800])
    held = x[800:] if faulty else (x[800:] - mean) / std
    model = ResNet(classes=10)
    optimizer = Adam(model.parameters(), 3e-3)
    return model, Trainer(optimizer, F.cross_entropy, train, data.loader(held, y[800:], shuffle=False))


@pair("train_val_mismatch", family="mlp", task="classification")
def blobs_validation_has_other_classes(faulty: bool) -> Made:
    x, y = data.blobs(900)
    if faulty:
        order = y.argsort()  # sorted, then cut
        x, y = x[order], y[order]
    model = mlp(10, 32, 4)
    train, val = data.loader(x[:680], y[:680]), data.loader(x[680:], y[680:], shuffle=False)
    return model, Trainer(SGD(model.parameters(), 0.1), nn.CrossEntropyLoss(), train, val)


@pair("train_val_mismatch", family="tcn", task="classification")
def waves_validated_on_what_was_trained(faulty: bool) -> Made:
    x, y = data.waves()
    held = (x[:150], y[:150]) if faulty else (x[450:], y[450:])
    model = Tcn()
    train = data.loader(x[:450], y[:450])
    return model, Trainer(
        Adam(model.parameters(), 5e-3), nn.CrossEntropyLoss(), train, data.loader(*held, shuffle=False)
    )


@pair("train_val_mismatch", family="autoencoder", task="reconstruction")
def digits_validated_in_negative(faulty: bool) -> Made:
    x, _ = data.digits(raw=True)
    train, held = x[:800].flatten(1) / 16, x[800:].flatten(1) / 16
    if faulty:
        held = 1 - held  # white on black here, black on white there
    model = AutoEncoder()
    loss_fn = nn.MSELoss()
    loaders = data.loader(train, train), data.loader(held, held, shuffle=False)
    return model, Trainer(Adam(model.parameters(), 3e-3), loss_fn, *loaders)
