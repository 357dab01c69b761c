"""A bidirectional LSTM that tags words: sentences of different lengths, padded and packed, SGD with momentum."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader

from nbdebug import Trainer

PAD, WORDS, TAGS = 0, 60, 7  # tag 0 is <pad>
FAULTS = {
    "padding is a tag": "padding_in_loss",
    "out.data to the head": "detached_graph",
    "log_softmax over time": "softmax_wrong_dim",
    "sum over tokens": "loss_reduction_sum",
    "exp of log_softmax into NLL": "nll_on_probabilities",
}


def sentences(count: int, rng: np.random.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Words and tags; a word's tag is its own, but for every third word, which asks its left neighbour."""
    own = np.random.default_rng(7).integers(1, TAGS, WORDS)
    made = []
    for _ in range(count):
        words = rng.integers(1, WORDS, rng.integers(4, 22))
        left = np.concatenate([[1], words[:-1]])
        tags = np.where(words % 3 == 0, 1 + (own[words] + own[left]) % (TAGS - 1), own[words])
        made.append((torch.from_numpy(words), torch.from_numpy(tags)))
    return made


def collate(batch):
    batch = sorted(batch, key=lambda pair: len(pair[0]), reverse=True)
    words, tags = zip(*batch, strict=True)
    return pad_sequence(words, batch_first=True, padding_value=PAD), pad_sequence(tags, batch_first=True)


class Tagger(nn.Module):
    def __init__(self, fault=None):
        super().__init__()
        self.fault = fault
        self.embedding = nn.Embedding(WORDS, 32, padding_idx=PAD)
        self.lstm = nn.LSTM(32, 32, bidirectional=True, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.hidden2tag = nn.Linear(64, TAGS)

    def forward(self, words):
        embedded = self.dropout(self.embedding(words))
        lengths = (words != PAD).sum(dim=1).cpu()
        packed, _ = self.lstm(pack_padded_sequence(embedded, lengths, batch_first=True))
        out, _ = pad_packed_sequence(packed, batch_first=True, total_length=words.size(1))
        if self.fault == "out.data to the head":  # "to save memory"
            out = out.data
        scores = self.hidden2tag(self.dropout(out))
        if self.fault == "log_softmax over time":
            return F.log_softmax(scores, dim=1)
        if self.fault == "exp of log_softmax into NLL":
            return F.log_softmax(scores, dim=-1).exp()
        return scores


def accuracy(output, target):
    real = target != PAD
    return (output.argmax(-1)[real] == target[real]).float().mean().item()


def build(fault: str | None = None, *, seed: int = 0) -> tuple[nn.Module, Trainer]:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    train_set, val_set = sentences(800, rng), sentences(160, rng)
    model = Tagger(fault)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

    ignored = -100 if fault == "padding is a tag" else PAD
    criterion = nn.CrossEntropyLoss(ignore_index=ignored)
    if fault in ("log_softmax over time", "exp of log_softmax into NLL"):
        criterion = nn.NLLLoss(ignore_index=PAD)
    if fault == "sum over tokens":
        criterion = nn.CrossEntropyLoss(ignore_index=PAD, reduction="sum")

    def loss_of(scores, tags):
        return criterion(scores.reshape(-1, TAGS), tags.reshape(-1))

    def step(model, batch, loss_fn, optimizer):
        words, tags = batch
        model.zero_grad()
        scores = model(words)
        loss = loss_fn(scores, tags)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return {"loss": loss, "output": scores, "target": tags}

    trainer = Trainer(
        optimizer,
        loss_of,
        DataLoader(train_set, batch_size=16, shuffle=True, collate_fn=collate),
        DataLoader(val_set, batch_size=32, collate_fn=collate),
        metrics={"accuracy": accuracy},
        step=step,
    )
    return model, trainer
