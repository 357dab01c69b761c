"""What is wired wrongly between weights, loss and optimizer is named; what only looks so is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torch.utils.checkpoint import checkpoint

from nbdebug import Trainer
from nbdebug.checks.preflight import battery
from nbdebug.checks.preflight.registry import table
from nbdebug.checks.preflight.rules import detached_graph
from nbdebug.records.checks import CheckOutcome
from tests.checks.preflight.looking import judged, look_at, warned

Made = tuple[Any, Trainer]
Case = Callable[[], Made]


def rows(samples: int = 32, features: int = 6, classes: int = 3) -> list[Any]:
    return [(torch.randn(samples, features), torch.randint(classes, (samples,))) for _ in range(4)]


def mlp(*sizes: int) -> nn.Sequential:
    layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def trained_with(model: Any, parameters: Any = None, batches: Any = None, **options: Any) -> Made:
    optimizer = Adam(model.parameters() if parameters is None else parameters, 1e-2)
    return model, Trainer(optimizer, options.pop("loss", F.cross_entropy), batches or rows(), **options)


def learn(model: nn.Module, steps: int = 60) -> nn.Module:
    """Trained for a while, as a network that one loads."""
    optimizer = Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        x = torch.randn(32, 6)
        optimizer.zero_grad()
        model(x).square().mean().add((model(x) - x.sum(1, keepdim=True)).square().mean()).backward()
        optimizer.step()
    return model


def judged_all(rule: str, case: Case) -> list[str]:
    torch.manual_seed(0)
    result = judged(rule, *case())
    return warned(result)


# -- parameters in no optimizer ---------------------------------------------------------------------------------------


def head_rebuilt() -> Made:
    model = mlp(6, 32, 8)
    optimizer = SGD(model.parameters(), 0.1)
    model[2] = nn.Linear(32, 3)
    return model, Trainer(optimizer, F.cross_entropy, rows())


def optimizer_of_a_copy() -> Made:
    model = mlp(6, 32, 3)
    return trained_with(copy.deepcopy(model), model.parameters())


class Towers(nn.Module):
    def __init__(self, keep: Callable[[list[nn.Module]], Any]) -> None:
        super().__init__()
        self.towers = keep([mlp(6, 16, 16) for _ in range(2)])
        self.out = nn.Linear(32, 3)

    def forward(self, x: Any) -> Any:
        towers = self.towers.values() if hasattr(self.towers, "values") else self.towers
        return self.out(torch.cat([tower(x) for tower in towers], 1))


class Scaled(nn.Module):
    """A weight that is a tensor, or a parameter as it should be."""

    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.weight = make(torch.randn(6, 32) * 0.3)
        self.out = nn.Linear(32, 3)

    def forward(self, x: Any) -> Any:
        return self.out(torch.relu(x @ self.weight))


def dict_batches(step_parts: Callable[[Any], Any]) -> Made:
    model = nn.ModuleDict({"body": mlp(6, 32, 16), "head": nn.Linear(16, 3)})
    batches = [{"x": x, "y": y} for x, y in rows()]

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = -model["head"](model["body"](batch["x"]).relu()).log_softmax(1).gather(1, batch["y"][:, None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return trained_with(model, step_parts(model), batches, loss=None, step=step)


class Centres(nn.Module):
    """A loss with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 32))

    def forward(self, output: Any, target: Any) -> Any:
        return F.cross_entropy(output @ self.weight.T, target)


def loss_with_weights(held: bool) -> Made:
    model, loss = mlp(6, 32, 32), Centres()
    return trained_with(model, [*model.parameters(), *loss.parameters()] if held else None, loss=loss)


def gan(generator: Any, discriminator: Any, optimizers: Any, lost: bool = False) -> Made:
    def step(model: Any, batch: Any, loss_fn: Any, optimizers: Any) -> Any:
        real = batch[0]
        fake = model["g"](torch.randn(len(real), 4))
        optimizers["d"].zero_grad()
        d_loss = F.softplus(-model["d"](real)).mean() + F.softplus(model["d"](fake.detach())).mean()
        d_loss.backward()
        optimizers["d"].step()
        optimizers["g"].zero_grad()
        g_loss = F.softplus(-model["d"](fake)).mean()
        g_loss.backward()
        optimizers["g"].step()
        return g_loss

    models = {"g": generator, "d": discriminator}
    return models, Trainer(optimizers, None, rows(), step=step)


def two_networks() -> Made:
    g, d = mlp(4, 16, 6), mlp(6, 16, 1)
    return gan(g, d, {"g": Adam(g.parameters()), "d": Adam(d.parameters())})


def moved_by_hand() -> Made:
    """Plain gradient descent for a scale that no optimizer has."""
    model = mlp(6, 32, 3)
    model.register_parameter("scale", nn.Parameter(torch.ones(())))

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = F.cross_entropy(model(batch[0]) * model.scale, batch[1])
        model.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.scale -= 0.1 * model.scale.grad
        return loss

    return trained_with(model, [p for n, p in model.named_parameters() if n != "scale"], loss=None, step=step)


def loaded_backbone_not_optimised() -> Made:
    model = nn.Sequential(learn(mlp(6, 32, 16)), nn.ReLU(), nn.Linear(16, 3))
    return trained_with(model, model[2].parameters())


class Teacher(nn.Module):
    """A trained teacher, in a list to keep it out of the checkpoint; its answers carry no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = [mlp(6, 16, 3)]
        self.student = mlp(6, 16, 3)

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            soft = self.teacher[0](x)
        return self.student(x) + 0 * soft


class Stepping(nn.Module):
    """Reads two numbers at a time with a cell, then answers."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.read = cell, nn.Linear(32, 3)

    def forward(self, x: Any) -> Any:
        h = x.new_zeros(len(x), 32)
        for part in x.split(2, 1):
            h = self.cell(part, h)
        return self.read(h)


class Mixing(nn.Module):
    """A cell of bare weights, drawn in a loop as books have it."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.onward = nn.Parameter(torch.empty(2, 32)), nn.Parameter(torch.empty(32, 32))
        self.bias = nn.Parameter(torch.empty(32))
        for weight in self.parameters():
            nn.init.uniform_(weight, -0.2, 0.2)

    def forward(self, x: Any, h: Any) -> Any:
        return torch.tanh(x @ self.inward + h @ self.onward + self.bias)


def replaced_after(model: nn.Module, name: str, part: Any, **options: Any) -> Made:
    """The optimizer is made, then a part of the model."""
    optimizer = Adam(model.parameters(), 1e-2)
    setattr(model, name, part)
    return model, Trainer(optimizer, options.pop("loss", F.cross_entropy), rows(), **options)


def drawn_anew() -> nn.Linear:
    head = nn.Linear(32, 3)
    nn.init.xavier_uniform_(head.weight)
    return head


def replaced_while_the_loss_has_weights() -> Made:
    model, loss = nn.Sequential(learn(mlp(6, 32, 16)), nn.ReLU(), nn.Linear(16, 32)), Centres()
    optimizer = Adam([*model.parameters(), *loss.parameters()], 1e-2)
    model[2] = nn.Linear(16, 32)
    return model, Trainer(optimizer, loss, rows())


def trained_part_beside_an_unused_one() -> Made:
    """The optimizer has a head of old for another task, of another shape; the backbone is loaded, and stays."""
    model = nn.Sequential(learn(mlp(6, 32, 16)), nn.ReLU(), nn.Linear(16, 3))
    return trained_with(model, [*model[2].parameters(), *nn.Linear(16, 7).parameters()])


def head_replaced_before_the_optimizer() -> Made:
    model = mlp(6, 32, 8)
    model[2] = nn.Linear(32, 3)
    return trained_with(model)


def cell_made_before_the_optimizer(cell: nn.Module) -> Made:
    return trained_with(Stepping(cell))


def learnt_cell() -> nn.Module:
    """A recurrent cell that learnt to add up, as one that is loaded."""
    cell = nn.GRUCell(2, 32)
    optimizer = Adam(cell.parameters(), 2e-2)
    for _ in range(200):
        x, h = torch.randn(32, 5, 2), torch.zeros(32, 32)
        for t in range(5):
            h = cell(x[:, t], h)
        optimizer.zero_grad()
        (h.sum(1) - x[..., 0].sum(1)).square().mean().backward()
        optimizer.step()
    return cell


def loaded_cell_not_optimised() -> Made:
    model = Stepping(learnt_cell())
    return trained_with(model, model.read.parameters())


def only_the_answer_optimised(cell: nn.Module) -> Made:
    model = Stepping(cell)
    return trained_with(model, model.read.parameters())


LEFT_OUT: dict[str, Case] = {
    "a cell made anew": lambda: replaced_after(Stepping(nn.GRUCell(2, 32)), "cell", nn.GRUCell(2, 32)),
    "a cell of bare weights made anew": lambda: replaced_after(Stepping(Mixing()), "cell", Mixing()),
    "a loaded cell put in": lambda: replaced_after(Stepping(nn.GRUCell(2, 32)), "cell", learnt_cell()),
    "a head drawn anew": lambda: replaced_after(Stepping(nn.RNNCell(2, 32)), "read", drawn_anew()),
    "a parameter wrapped anew": lambda: replaced_after(
        Scaled(nn.Parameter), "weight", nn.Parameter(torch.randn(6, 32) * 0.3)
    ),
    "a head made anew beside the loss's weights": replaced_while_the_loss_has_weights,
    "a fresh cell that nobody optimises": lambda: only_the_answer_optimised(nn.RNNCell(2, 32)),
    "a head rebuilt": head_rebuilt,
    "another model's optimizer": optimizer_of_a_copy,
    "a plain list": lambda: trained_with(Towers(lambda parts: parts)),
    "a plain dict": lambda: trained_with(Towers(lambda parts: {"a": parts[0], "b": parts[1]})),
    "a tensor for a parameter": lambda: trained_with(Scaled(lambda weight: weight.requires_grad_())),
    "dict batches, own step": lambda: dict_batches(lambda model: model["head"].parameters()),
    "the loss's weights": lambda: loss_with_weights(held=False),
}
ALL_HELD: dict[str, Case] = {
    "a module list": lambda: trained_with(Towers(nn.ModuleList)),
    "a parameter": lambda: trained_with(Scaled(nn.Parameter)),
    "dict batches, own step": lambda: dict_batches(lambda model: model.parameters()),
    "the loss's weights": lambda: loss_with_weights(held=True),
    "two networks, two optimizers": two_networks,
    "moved by hand": moved_by_hand,
    "a loaded part that stays": loaded_backbone_not_optimised,
    "a teacher in a list": lambda: trained_with(Teacher()),
    "a loaded cell that stays": loaded_cell_not_optimised,
    "a cell": lambda: cell_made_before_the_optimizer(nn.GRUCell(2, 32)),
    "a cell of bare weights": lambda: cell_made_before_the_optimizer(Mixing()),
    "a head of another shape that is left over": trained_part_beside_an_unused_one,
    "a head replaced in time": head_replaced_before_the_optimizer,
    "a plain list that the optimizer has": lambda: (
        lambda model: trained_with(model, [*model.parameters(), *(p for t in model.towers for p in t.parameters())])
    )(Towers(lambda parts: parts)),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_in_no_optimizer_is_named(name: str) -> None:
    assert judged_all("parameters_not_in_optimizer", LEFT_OUT[name]) == ["parameters_not_in_optimizer"]


@pytest.mark.parametrize("name", ALL_HELD)
def test_what_is_held_or_need_not_be_is_not(name: str) -> None:
    assert judged_all("parameters_not_in_optimizer", ALL_HELD[name]) == []


def norms_by_halves() -> Made:
    """Biases and linear weights in groups, as language models sort them; embeddings and scales of norms forgotten."""
    blocks = [part for _ in range(5) for part in (nn.Linear(16, 16), nn.LayerNorm(16))]
    model = nn.Sequential(nn.Linear(6, 16), *blocks, nn.Linear(16, 3))
    held = [each for name, each in model.named_parameters() if each.dim() > 1 or name.endswith("bias")]
    return trained_with(model, held[:4] + held[6:])


@pytest.mark.parametrize("steps", [0, 5])
def test_the_code_that_is_advised_adds_all_that_is_missing_and_nothing_twice(steps: int) -> None:
    """Also after the biases of half-held layers have moved."""
    torch.manual_seed(0)
    model, trainer = norms_by_halves()
    for x, y in [batch for _ in range(steps) for batch in rows()]:
        trainer.optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        trainer.optimizer.step()
    finding = judged("parameters_not_in_optimizer", model, trainer).findings[0]
    assert "replaced" not in finding.why
    exec(finding.remedies[1].code, {"model": model, "optimizer": trainer.optimizer})
    groups = [each for group in trainer.optimizer.param_groups for each in group["params"]]
    assert len(groups) == len(set(groups)) and set(groups) == set(model.parameters())


def test_the_hidden_list_is_told_by_its_name_with_what_to_write() -> None:
    finding = judged("parameters_not_in_optimizer", *LEFT_OUT["a plain list"]()).findings[0]
    assert "model.towers[0].0.bias, model.towers[0].0.weight" in finding.why
    assert finding.remedies[0].code == "self.towers = nn.ModuleList(towers)"


# -- frozen ----------------------------------------------------------------------------------------------------------


def frozen(model: nn.Sequential, *places: int, held: bool = True) -> Made:
    for place in places:
        model[place].requires_grad_(False)
    return trained_with(model, None if held else [p for p in model.parameters() if p.requires_grad])


def convolutions() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    )


def frozen_convolutions() -> Made:
    model = convolutions()
    for place in (0, 1, 3):
        model[place].requires_grad_(False)
    batches = [(torch.randn(16, 1, 8, 8), torch.randint(3, (16,))) for _ in range(3)]
    return trained_with(model, None, batches)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn, self.out = nn.Embedding(40, 16), nn.GRU(16, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, words: Any) -> Any:
        return self.out(self.rnn(self.embed(words))[0][:, -1])


def words() -> list[Any]:
    return [(torch.randint(40, (16, 9)), torch.randint(3, (16,))) for _ in range(3)]


def frozen_recurrent() -> Made:
    model = Tagger()
    model.rnn.requires_grad_(False)
    return trained_with(model, None, words())


def loaded_embedding(values: torch.Tensor) -> Made:
    model = Tagger()
    model.embed = nn.Embedding.from_pretrained(values, freeze=True)
    return trained_with(model, None, words())


def heavy(rows: int, width: int) -> torch.Tensor:
    """Vectors as training makes them: words differ in length, directions are shared."""
    lengths = torch.linspace(0.2, 3, rows)[:, None]
    return torch.randn(rows, width) * lengths + torch.randn(1, width)


class WithKey(nn.Module):
    """A frozen copy of an encoder, whose answers the same head reads."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.head = mlp(6, 32, 16), nn.Linear(16, 3)
        self.key = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.head(self.online(x).relu()) + self.head(self.key(x + 0.1).relu())


class WithTarget(nn.Module):
    """An online network and a frozen copy of it that is compared with."""

    def __init__(self, copied: bool) -> None:
        super().__init__()
        self.online = mlp(6, 32, 3)
        self.target = copy.deepcopy(self.online) if copied else mlp(6, 32, 3)
        self.target.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.online(x), self.target(x)


def compared(output: Any, target: Any) -> Any:
    return F.mse_loss(output[0], output[1]) + F.cross_entropy(output[0], target)


def loaded_and_frozen() -> Made:
    model = nn.Sequential(learn(mlp(6, 32, 16)), nn.ReLU(), nn.Linear(16, 3))
    model[0].requires_grad_(False)
    return trained_with(model)


def drawn_by_descent() -> Made:
    """A picture is what is learnt; the network is there to judge it."""
    network = mlp(6, 32, 3).requires_grad_(False)
    picture = torch.zeros(4, 6, requires_grad=True)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = F.cross_entropy(model(picture), batch[1][:4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return trained_with(network, [picture], loss=None, step=step)


FROZEN: dict[str, Case] = {
    "first layers": lambda: frozen(mlp(6, 32, 32, 3), 0, 2),
    "the head": lambda: frozen(mlp(6, 32, 32, 3), 4),
    "convolutions and norms": frozen_convolutions,
    "a recurrent layer": frozen_recurrent,
    "everything": lambda: frozen(mlp(6, 32, 3), 0, 2),
}
RIGHTLY_FROZEN: dict[str, Case] = {
    "nothing": lambda: trained_with(mlp(6, 32, 3)),
    "a loaded network": loaded_and_frozen,
    "loaded vectors": lambda: loaded_embedding(heavy(40, 16)),
    "a copy as target": lambda: trained_with(WithTarget(copied=True), loss=compared),
    "a copy whose answers are read on": lambda: trained_with(WithKey()),
    "a random target": lambda: trained_with(WithTarget(copied=False), loss=compared),
    "a reservoir that no optimizer has": lambda: frozen(mlp(6, 64, 3), 0, held=False),
    "a picture drawn by descent": drawn_by_descent,
}


@pytest.mark.parametrize("name", FROZEN)
def test_layers_frozen_at_random_are_named(name: str) -> None:
    assert judged_all("frozen_parameters", FROZEN[name]) == ["frozen_parameters"]


@pytest.mark.parametrize("name", RIGHTLY_FROZEN)
def test_layers_frozen_for_a_reason_are_not(name: str) -> None:
    assert judged_all("frozen_parameters", RIGHTLY_FROZEN[name]) == []


# -- a path that ends ------------------------------------------------------------------------------------------------


class Halves(nn.Module):
    def __init__(self, between: Callable[[Any], Any], first: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder, self.head, self.between = first or mlp(6, 32, 16), nn.Linear(16, 3), between

    def forward(self, x: Any) -> Any:
        return self.head(self.between(self.encoder(x)))


class Under(Halves):
    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            hidden = self.encoder(x).relu()
        return self.head(hidden)


class Choice(nn.Module):
    def __init__(self, hard: bool) -> None:
        super().__init__()
        self.gate, self.table, self.hard = nn.Linear(6, 8), nn.Embedding(8, 3), hard

    def forward(self, x: Any) -> Any:
        scores = self.gate(x)
        if self.hard:
            return self.table(scores.argmax(1))
        one_hot = F.one_hot(scores.argmax(1), 8) + scores.softmax(1) - scores.softmax(1).detach()  # straight through
        return one_hot @ self.table.weight


def new_loss() -> Made:
    def loss(output: Any, target: Any) -> Any:
        return torch.tensor(F.cross_entropy(output, target).item(), requires_grad=True)

    return trained_with(mlp(6, 32, 3), loss=loss)


def on_the_accuracy() -> Made:
    def loss(output: Any, target: Any) -> Any:
        return (output.argmax(1) != target).float().mean().requires_grad_()

    return trained_with(mlp(6, 32, 3), loss=loss)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.predictor = mlp(6, 32, 16), mlp(16, 8, 16)

    def forward(self, x: Any) -> Any:
        one, two = self.encoder(x), self.encoder(x + 0.1)
        return -F.cosine_similarity(self.predictor(one), two.detach()).mean()


class Averaged(nn.Module):
    """A teacher that follows the student, all in one optimizer and none of it frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.student = mlp(6, 32, 3)
        self.teacher = copy.deepcopy(self.student)

    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            soft = self.teacher(x)
        return F.mse_loss(self.student(x), soft + 0.1)


class Quantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.codes = mlp(6, 32, 4), mlp(4, 32, 6), nn.Embedding(16, 4)

    def forward(self, x: Any) -> Any:
        z = self.encoder(x)
        q = self.codes(torch.cdist(z, self.codes.weight).argmin(1))
        out = self.decoder(z + (q - z).detach())
        return F.mse_loss(out, x) + F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())


class WithSide(nn.Module):
    """A second head that nobody makes use of yet."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.side = mlp(6, 32, 16), nn.Linear(16, 3), nn.Linear(16, 2)

    def forward(self, x: Any) -> Any:
        hidden = self.body(x).relu()
        self.said = self.side(hidden)
        return self.head(hidden)


def itself(output: Any, target: Any) -> Any:
    return output


def every_other_step() -> Made:
    """The generator learns every fifth step; in between its pictures come without a graph."""
    g, d = mlp(4, 16, 6), mlp(6, 16, 1)

    def step(model: Any, batch: Any, loss_fn: Any, optimizers: Any) -> Any:
        with torch.no_grad():
            fake = model["g"](torch.randn(len(batch[0]), 4))
        optimizers["d"].zero_grad()
        loss = F.softplus(-model["d"](batch[0])).mean() + F.softplus(model["d"](fake)).mean()
        loss.backward()
        optimizers["d"].step()
        return loss

    optimizers = {"g": Adam(g.parameters()), "d": Adam(d.parameters())}
    return {"g": g, "d": d}, Trainer(optimizers, None, rows(), step=step)


CUT: dict[str, Case] = {
    "detach": lambda: trained_with(Halves(lambda z: z.detach())),
    "data": lambda: trained_with(Halves(lambda z: z.data.relu())),
    "no_grad": lambda: trained_with(Under(torch.relu)),
    "numpy": lambda: trained_with(Halves(lambda z: torch.from_numpy(z.detach().numpy()).relu())),
    "a list": lambda: trained_with(Halves(lambda z: torch.tensor(z.tolist()))),
    "argmax": lambda: trained_with(Choice(hard=True)),
    "a loss made anew": new_loss,
    "the accuracy as loss": on_the_accuracy,
}
WHOLE: dict[str, Case] = {
    "plain": lambda: trained_with(Halves(torch.relu)),
    "straight through": lambda: trained_with(Choice(hard=False)),
    "siamese with a stop": lambda: trained_with(Siamese(), loss=itself),
    "an averaged teacher": lambda: trained_with(Averaged(), loss=itself),
    "quantised": lambda: trained_with(Quantised(), loss=itself),
    "a head without a loss": lambda: trained_with(WithSide()),
    "a GAN": two_networks,
    "a generator whose turn it is not": every_other_step,
    "a loaded encoder under no_grad": lambda: trained_with(Under(torch.relu, learn(mlp(6, 32, 16)))),
    "checkpointed": lambda: trained_with(Recomputed()),
    "read out for a log": lambda: trained_with(Halves(lambda z: (z.detach().numpy().mean(), z.relu())[1])),
}


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = mlp(6, 32, 16), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(checkpoint(self.body, x.requires_grad_(), use_reentrant=True).relu())


@pytest.mark.parametrize("name", CUT)
def test_a_path_that_ends_is_named(name: str) -> None:
    assert judged_all("detached_graph", CUT[name]) == ["detached_graph"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_that_is_meant_is_not(name: str) -> None:
    assert judged_all("detached_graph", WHOLE[name]) == []


def test_the_line_and_the_kind_of_the_cut_are_told() -> None:
    finding = judged("detached_graph", *CUT["detach"]()).findings[0]
    assert "a detach" in finding.why and "encoder" in finding.layers[0]
    assert finding.line is not None and "z.detach()" in finding.line.code


def test_without_a_backward_nothing_can_move() -> None:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        optimizer.step()
        return loss

    result = judged("detached_graph", *trained_with(mlp(6, 16, 3), loss=None, step=step))
    assert warned(result) == ["parameters_not_updating"]


def test_where_calls_cannot_be_seen_nothing_is_said() -> None:
    look = look_at(*CUT["detach"]())
    look.trace.has_calls = False
    result, _ = battery.judge(detached_graph.CHECK, look, table(), "main", 0)
    assert result.outcome is CheckOutcome.SKIPPED
