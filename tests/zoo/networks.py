"""Networks that several programs train; others are written where they are used."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(*sizes: int, activation: Any = nn.ReLU) -> nn.Sequential:
    """Linear layers with an activation between each two."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs)] + ([activation()] if i < len(sizes) - 2 else [])
    return nn.Sequential(*layers)


class Cnn(nn.Module):
    """Two convolutions with batch norm and pooling, then a linear head."""

    def __init__(self, channels: int = 1, classes: int = 4, width: int = 12, norm: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width) if norm else nn.Identity()
        self.fc = nn.Linear(2 * width * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.adaptive_max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc(x.flatten(1))


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(out)))


class ResNet(nn.Module):
    """A stem, some residual blocks, average pooling and a head."""

    def __init__(self, channels: int = 1, classes: int = 4, width: int = 12, blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.fc = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.bn(self.stem(x)))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class Recurrent(nn.Module):
    """An LSTM or GRU over (batch, time, features), and a head on its last output."""

    def __init__(self, kind: Any = nn.LSTM, features: int = 1, hidden: int = 24, outputs: int = 3) -> None:
        super().__init__()
        self.rnn = kind(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        return self.head(out[:, -1])


class Tagger(nn.Module):
    """An embedding, a recurrent layer in both directions, and a class for each word."""

    def __init__(self, vocabulary: int = 30, tags: int = 4, kind: Any = nn.GRU, hidden: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 16, padding_idx=0)
        self.rnn = kind(16, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, tags)

    def forward(self, words: Tensor) -> Tensor:
        return self.out(self.rnn(self.embed(words))[0])


class Bag(nn.Module):
    """The mean of a text's embeddings, and a classifier on it."""

    def __init__(self, vocabulary: int = 60, classes: int = 3, width: int = 24) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.fc1 = nn.Linear(width, 32)
        self.fc2 = nn.Linear(32, classes)

    def forward(self, words: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(self.embedding(words).mean(1))))


class Gpt(nn.Module):
    """A decoder of a layer or two: (batch, time) tokens to (batch, time, vocabulary)."""

    def __init__(self, vocabulary: int = 20, width: int = 32, layers: int = 1, causal: bool = True) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.causal = causal

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.tokens(tokens) + self.positions(torch.arange(length, device=tokens.device))
        mask = nn.Transformer.generate_square_subsequent_mask(length) if self.causal else None
        return self.head(self.norm(self.blocks(x, mask=mask)))


class TextTransformer(nn.Module):
    """An encoder over tokens, averaged into one classification."""

    def __init__(self, vocabulary: int = 60, classes: int = 3, width: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 32, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(width, classes)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words) + self.positions[:, : words.shape[1]]
        return self.head(self.encoder(x).mean(1))


class AutoEncoder(nn.Module):
    """64 values through a narrow middle and back."""

    def __init__(self, inputs: int = 64, code: int = 8, last: Any = nn.Identity) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, 48), nn.ReLU(), nn.Linear(48, code))
        self.decoder = nn.Sequential(nn.Linear(code, 48), nn.ReLU(), nn.Linear(48, inputs), last())

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class UNet(nn.Module):
    """Down once, up once, with a skip: a logit for each pixel."""

    def __init__(self, channels: int = 1, outputs: int = 1, width: int = 12) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.out = nn.Conv2d(2 * width, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.down(x)
        bottom = self.up(self.middle(F.max_pool2d(top, 2)))
        return self.out(torch.cat([top, bottom], 1))


class Tcn(nn.Module):
    """Dilated convolutions over (batch, time, features)."""

    def __init__(self, features: int = 1, outputs: int = 3, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(features, width, 3, padding=1), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=4, dilation=4), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.transpose(1, 2)).amax(2))
