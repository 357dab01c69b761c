"""The zoo, first house: the layers and outputs that most models are made of, trained by the plain loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from tests.instruments.specimen import Case, Collection, adam, images, mlp, sgd, tokens, vectors

KINDS = Collection()


@KINDS.add("mlp", seen="0 1 3", learning="0 3")
def _() -> Case:
    model = mlp()
    return Case(model, adam(model), vectors())


@KINDS.add("cnn with batch norm", seen="0 1 2 4 5 6 9", learning="0 1 4 5 9")
def _() -> Case:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip
    return Case(model, sgd(model), images())


@KINDS.add("cnn in channels-last memory", seen="0 1 4", learning="0 4")
def _() -> Case:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(144, 5))
    model = model.to(memory_format=torch.channels_last)
    batches = [(x.to(memory_format=torch.channels_last), y) for x, y in images()]
    return Case(model, adam(model), batches)


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = ResidualBlock(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(x)).mean((2, 3)))


@KINDS.add(
    "residual block",
    seen="stem block.conv1 block.bn1 block.conv2 block.bn2 block.relu head",
    learning="stem block.conv1 block.bn1 block.conv2 block.bn2 head",
)
def _() -> Case:
    model = ResNet()
    return Case(model, sgd(model), images())


class Called(nn.Module):
    """A layer called ``calls`` times in a row."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls
        self.inner = nn.Linear(10, 10)
        self.act = nn.Tanh()
        self.head = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.calls):
            x = self.act(self.inner(x))
        return self.head(x)


@KINDS.add("layer used twice", seen="inner act head", learning="inner head")
def _() -> Case:
    model = Called(2)
    return Case(model, sgd(model), vectors())


@KINDS.add("layer called thirty times", seen="inner act head", learning="inner head")
def _() -> Case:
    model = Called(30)
    return Case(model, adam(model), vectors())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.cell = nn.GRUCell(6, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), 8, dtype=torch.float32)
        for letter in self.embed(x).unbind(1):
            state = self.cell(letter, state)
        return self.head(state)


@KINDS.add("recurrent loop", seen="embed cell head", learning="embed cell head")
def _() -> Case:
    model = Recurrent()
    return Case(model, adam(model), tokens(12))


@dataclass
class Parts:
    words: str
    hidden: torch.Tensor
    logits: torch.Tensor


class Head(nn.Module):
    """Gives its output as a tuple, a mapping or a dataclass."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.linear = nn.Linear(16, 5)
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor) -> Any:
        logits = self.linear(x) * self.scale
        if self.form == "tuple":
            return x, (logits, None)
        return {"words": "", "hidden": x, "logits": logits} if self.form == "dict" else Parts("", x, logits)


def _with_head(form: str, loss_fn: Any) -> Case:
    model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), Head(form))
    return Case(model, adam(model), vectors(), loss_fn)


HEADED = {"seen": "0 1 2 2.linear", "learning": "0 2 2.linear"}


@KINDS.add("tuple as output", **HEADED)
def _() -> Case:
    return _with_head("tuple", lambda output, y: F.cross_entropy(output[1][0], y))


@KINDS.add("mapping as output", **HEADED)
def _() -> Case:
    return _with_head("dict", lambda output, y: F.cross_entropy(output["logits"], y))


@KINDS.add("dataclass as output", **HEADED)
def _() -> Case:
    return _with_head("dataclass", lambda output, y: F.cross_entropy(output.logits, y))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(self.attention(x, x, x)[0].mean(1))


@KINDS.add(
    "multi-head attention",
    seen="embed attention head",
    unseen={"attention.out_proj": "not called"},
    learning="embed attention attention.out_proj head",
)
def _() -> Case:
    model = Attending()
    return Case(model, adam(model), tokens())


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))


ENCODER = ("layer.self_attn", "layer.linear1", "layer.linear2", "layer.norm1", "layer.norm2")
OUT_PROJ = "layer.self_attn.out_proj"


@KINDS.add(
    "transformer encoder layer",
    seen=f"embed {' '.join(ENCODER)} head",
    unseen={OUT_PROJ: "not called"},
    learning=f"embed {' '.join(ENCODER)} {OUT_PROJ} head",
)
def _() -> Case:
    model = Transformer()
    return Case(model, adam(model), tokens())


@KINDS.add(
    "frozen transformer layer in eval mode",
    seen="embed head",
    unseen={name: "eval mode" for name in (*ENCODER, OUT_PROJ)},
    learning="embed head",
    frozen=f"{' '.join(ENCODER)} {OUT_PROJ}",
)
def _() -> Case:
    model = Transformer()
    model.layer.eval().requires_grad_(False)
    return Case(model, adam(model), tokens())


class Tagger(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6, padding_idx=0)
        self.rnn = getattr(nn, kind)(6, 8, num_layers=2, dropout=0.2, batch_first=True)
        self.packed = kind == "GRU"
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        vectors: Any = self.embed(x)
        if self.packed:
            vectors = pack_padded_sequence(vectors, (x > 0).sum(1), batch_first=True, enforce_sorted=False)
        _, state = self.rnn(vectors)
        return self.head((state if self.packed else state[0])[-1])


@KINDS.add("lstm", seen="embed rnn head", learning="embed rnn head")
def _() -> Case:
    model = Tagger("LSTM")
    return Case(model, adam(model), tokens())


@KINDS.add("gru with packed sequences", seen="embed rnn head", learning="embed rnn head")
def _() -> Case:
    model = Tagger("GRU")
    batches = [(x * (torch.arange(6) < torch.randint(1, 7, (8, 1))), y) for x, y in tokens()]
    return Case(model, adam(model), batches)


@KINDS.add("embedding bag, sparse", seen="0 1", learning="0 1")
def _() -> Case:
    model = nn.Sequential(nn.EmbeddingBag(20, 8, sparse=True), nn.Linear(8, 5))
    return Case(model, torch.optim.SGD(model.parameters(), 0.1), tokens())


@KINDS.add("in-place activations", seen="0 1 2 3 4", learning="0 2 4")
def _() -> Case:
    model = nn.Sequential(
        nn.Linear(10, 16), nn.ReLU(inplace=True), nn.Linear(16, 16), nn.Hardtanh(inplace=True), nn.Linear(16, 5)
    )
    return Case(model, sgd(model), vectors())
