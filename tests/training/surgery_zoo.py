"""Models of many shapes to be operated upon: shared, tied, computed, compiled, scripted, lazy, quantised ones."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.training import zoo


class Block(nn.Module):
    """Residual, with one in-place relu called three times."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class ResNet(nn.Module):
    """Its relu hangs in every block too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.blocks = nn.ModuleList([Block(), Block()])
        for block in self.blocks:
            block.relu = self.relu
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class ByName(nn.Module):
    """A ModuleDict and an activation chosen by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"in": nn.Linear(10, 8), "act": nn.LeakyReLU(0.2, inplace=True)})
        self.out = nn.Linear(8, 5)

    def forward(self, x):
        return self.out(self.parts["act"](self.parts["in"](x)))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(10, 8), nn.Linear(8, 5), torch.tanh

    def forward(self, x):
        return self.b(self._middle(F.relu(self.a(x))))

    def _middle(self, x):
        return self.act(x.sigmoid())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.mix, self.act = nn.Linear(6, 6), nn.GELU()
        self.head = nn.Linear(6, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.act(self.mix(self.embed(x).mean(1))))


class Peeking(nn.Module):
    """Its forward asks for types and reads attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.last = nn.Linear(10, 5), nn.LeakyReLU(), nn.ReLU()

    def forward(self, x):
        x = self.act(self.fc(x)) * self.act.negative_slope
        return self.last(x) if isinstance(self.last, nn.ReLU) else x


class Hiding(nn.Module):
    """Calls its activation through a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(10, 5), nn.ReLU()
        self.steps = [self.act]

    def forward(self, x):
        return self.steps[0](self.fc(x))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 5))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(inplace=True), nn.ConvTranspose2d(4, 4, 2, groups=2),
        nn.BatchNorm2d(4), nn.ELU(inplace=True), nn.Flatten(), nn.Linear(4 * 49, 5),
    )  # fmt: skip


def nested() -> nn.Module:
    inner = nn.Sequential(nn.Linear(8, 8), nn.PReLU(8))
    return nn.Sequential(nn.Sequential(nn.Linear(10, 8), nn.PReLU()), nn.Sequential(inner), nn.Linear(8, 5))


def used_twice() -> nn.Module:
    act = nn.ReLU(inplace=True)
    return nn.Sequential(nn.Linear(10, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 5))


def weight_normed() -> nn.Module:
    model = mlp()
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[2])
    return model


def compiled() -> nn.Module:
    return torch.compile(mlp(), backend="eager")


def compiled_in_place() -> nn.Module:
    model = mlp()
    model.compile(backend="eager")
    return model


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(mlp())


def partly_scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torch.jit.script(nn.Sequential(nn.Linear(10, 8), nn.ReLU()))
    return nn.Sequential(inner, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(mlp(), {nn.Linear})


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyBatchNorm1d(), nn.Linear(8, 5))


def transformer_with_module() -> nn.Module:
    layer = nn.TransformerDecoderLayer(10, 2, 16, dropout=0.0, activation=nn.ReLU(), batch_first=True)
    return Decoder(nn.TransformerDecoder(layer, 2))


class Decoder(nn.Module):
    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder, self.head = decoder, nn.Linear(10, 5)

    def forward(self, x):
        return self.head(self.decoder(x[:, None], x[:, None])[:, 0])


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    **zoo.MODELS,
    "mlp of five": (mlp, "vector"),
    "cnn in place": (cnn, "image"),
    "resnet": (ResNet, "image"),
    "module dict": (ByName, "vector"),
    "functional": (Functional, "vector"),
    "tied": (Tied, "tokens"),
    "peeking": (Peeking, "vector"),
    "hiding": (Hiding, "vector"),
    "nested": (nested, "vector"),
    "used twice": (used_twice, "vector"),
    "computed weights": (weight_normed, "vector"),
    "compiled": (compiled, "vector"),
    "compiled in place": (compiled_in_place, "vector"),
    "scripted": (scripted, "vector"),
    "partly scripted": (partly_scripted, "vector"),
    "quantised": (quantized, "vector"),
    "lazy": (lazy, "vector"),
    "decoder": (transformer_with_module, "vector"),
}
LEARNING = [name for name in MODELS if name != "quantised"]


def make(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The model, in training mode, with inputs and targets; the same each time."""
    torch.manual_seed(0)
    build, kind = MODELS[name]
    return build(), zoo.INPUTS[kind](8), torch.randint(0, 5, (8,))


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int = 2) -> torch.optim.Optimizer:
    """A few steps of Adam."""
    model(x)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return optimizer


def imprint(model: nn.Module) -> dict[str, object]:
    """All that makes up a model, by identity and by bits."""
    modules = list(model.named_modules(remove_duplicate=False))
    plain = [m for _, m in modules if not isinstance(m, torch.jit.ScriptModule)]
    return {
        "modules": [(name, id(m), type(m), m.training) for name, m in modules],
        "children": [[(key, id(child)) for key, child in m._modules.items()] for _, m in modules],
        "parameters": [(n, id(p), p.requires_grad, bits(p.grad)) for n, p in model.named_parameters()],
        "buffers": [(n, id(b)) for n, b in model.named_buffers()],
        "state": [(k, bits(v)) for k, v in model.state_dict().items()],
        "attributes": [
            {k: v if isinstance(v, (int, float, str)) else id(v) for k, v in vars(m).items()} for m in plain
        ],
        "hooks": [[(k, list(d)) for k, d in vars(m).items() if "hooks" in k and d] for m in plain],
    }


def bits(tensor: object) -> object:
    if not isinstance(tensor, torch.Tensor):
        return repr(tensor)
    if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
        return "lazy"
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    return tensor.detach().contiguous().flatten().view(torch.uint8).tolist()


def outputs(model: nn.Module, x: torch.Tensor) -> list[object]:
    """In training and in evaluation, buffers being put back."""
    twin = {name: b.clone() for name, b in model.named_buffers() if not isinstance(b, nn.UninitializedBuffer)}
    flags = {m: m.training for m in model.modules()}
    found = []
    for training in (True, False):
        model.train(training)
        torch.manual_seed(3)
        with torch.no_grad():
            found.append(bits(model(x)))
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(twin[name])
    for module, flag in flags.items():
        module.training = flag
    return found


def random_states() -> tuple[object, object]:
    return torch.get_rng_state().tolist(), random.getstate()
