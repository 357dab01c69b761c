"""The zoo, another house: ordinary models that are trained in odd ways, most with a step of the user's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.instruments.specimen import Case, Collection, adam, deprecated, images, labels, mlp, sgd, tokens, vectors

KINDS = Collection()
MLP = {"seen": "0 1 3", "learning": "0 3"}
Step = Callable[..., Any]


def by_hand(model: nn.Module, step: Step, **options: Any) -> Case:
    return Case(model, options.pop("optimizer", None) or adam(model), vectors(), step=step, **options)


@KINDS.add("autocast to bfloat16", **MLP)
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(batch[0])
            loss = loss_fn(output, batch[1])
        loss.backward()
        optimizer.step()
        return {"loss": loss, "output": output, "target": batch[1]}

    return by_hand(mlp(), step)


def _scaled(fused: bool) -> Case:
    """The scale begins too high and grows often, so that updates are skipped at the start and now and then."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = loss_fn(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=fused)
    return by_hand(model, step, optimizer=optimizer, state={"scaler": scaler})


@KINDS.add("autocast to float16, scaled", **MLP)
def _() -> Case:
    return _scaled(fused=False)


@KINDS.add("autocast to float16, scaled, fused optimizer", **MLP)
def _() -> Case:
    return _scaled(fused=True)


@KINDS.add("gradient accumulation", **MLP)
def _() -> Case:
    calls = 0

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        nonlocal calls
        calls += 1
        loss = loss_fn(model(batch[0]), batch[1])
        (loss / 3).backward()
        if calls % 3 == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    return by_hand(mlp(), step)


@KINDS.add("closures", seen="0 1 2", learning="0 2")
def _() -> Case:
    model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 5))
    return Case(model, torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, history_size=4), vectors())


@KINDS.add("sparse embedding with two optimizers", seen="0 2", learning="0 2")
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizers: Any) -> Any:
        for each in optimizers.values():
            each.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        for each in optimizers.values():
            each.step()
        return loss

    model = nn.Sequential(nn.Embedding(20, 4, sparse=True), nn.Flatten(), nn.Linear(24, 5))
    optimizers = {"words": torch.optim.SparseAdam(model[0].parameters(), 0.01), "rest": adam(model[2])}
    return Case(model, optimizers, tokens(), step=step)


def _of_a_gan(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
    real = batch[0]
    fake = model["generator"](torch.randn(len(real), 4))
    ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
    optimizer["critic"].zero_grad()
    found = loss_fn(model["critic"](real), ones) + loss_fn(model["critic"](fake.detach()), zeros)
    found.backward()
    optimizer["critic"].step()
    optimizer["generator"].zero_grad()
    fooled = loss_fn(model["critic"](fake), ones)
    fooled.backward()
    optimizer["generator"].step()
    return found + fooled


NETWORKS = "generator.0 generator.1 generator.2 critic.0 critic.1 critic.3"


@KINDS.add("generator and critic", seen=NETWORKS, learning="generator.0 generator.2 critic.0 critic.3")
def _() -> Case:
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10))
    critic = nn.Sequential(nn.Linear(10, 16), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(16, 1))
    optimizers = {"generator": adam(generator), "critic": adam(critic)}
    loss_fn = F.binary_cross_entropy_with_logits
    return Case({"generator": generator, "critic": critic}, optimizers, vectors(), loss_fn, _of_a_gan)


@KINDS.add("functional call", **MLP)
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        doubled = {name: 2 * p for name, p in model.named_parameters()}
        loss = loss_fn(torch.func.functional_call(model, doubled, (batch[0],)), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    return by_hand(mlp(), step)


@KINDS.add("gradients per sample", seen="0 1 2", learning="0 2")
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        def loss_of(weights: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return loss_fn(torch.func.functional_call(model, weights, (x[None],)), y[None])

        weights = {name: p.detach() for name, p in model.named_parameters()}
        each = torch.func.vmap(torch.func.grad_and_value(loss_of), in_dims=(None, 0, 0))
        gradients, losses = each(weights, *batch)
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name].clamp(-0.1, 0.1).mean(0)
        optimizer.step()
        return losses.mean()

    return by_hand(nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 5)), step)


@KINDS.add("forward-mode derivatives", seen="0 1 2", learning="0 2")
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        weights = {name: p.detach() for name, p in model.named_parameters()}
        tangents = {name: torch.randn_like(p) for name, p in weights.items()}
        loss, slope = torch.func.jvp(
            lambda w: loss_fn(torch.func.functional_call(model, w, (batch[0],)), batch[1]), (weights,), (tangents,)
        )
        for name, parameter in model.named_parameters():
            parameter.grad = slope * tangents[name] * 0.01
        optimizer.step()
        return loss

    with deprecated():  # the first use of forward mode scripts what torch has no formulas for
        torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))
    return by_hand(nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 5)), step)


@KINDS.add("gradient penalty", seen="0 1 2", learning="0 2")
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad(set_to_none=False)
        x = batch[0].clone().requires_grad_()
        loss = loss_fn(model(x), batch[1])
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        total = loss + 0.1 * slope.square().sum()
        total.backward(retain_graph=True)
        loss.backward()
        optimizer.step()
        return total

    return by_hand(nn.Sequential(nn.Linear(10, 16), nn.Softplus(), nn.Linear(16, 5)), step)


@KINDS.add("sharpness-aware, two passes a step", **MLP)
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss_fn(model(batch[0]), batch[1]).backward()
        with torch.no_grad():
            moved = [0.05 * p.grad for p in model.parameters()]
            torch._foreach_add_(list(model.parameters()), moved)
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        with torch.no_grad():
            torch._foreach_sub_(list(model.parameters()), moved)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return by_hand(mlp(), step)


@KINDS.add("averaged weights and a copy of the model", **MLP)
def _() -> Case:
    model = mlp()
    averaged = torch.optim.swa_utils.AveragedModel(model)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        teacher = copy.deepcopy(model)
        with torch.no_grad():
            soft = averaged(batch[0]).softmax(1) + teacher(batch[0]).softmax(1)
        loss = loss_fn(model(batch[0]), soft / 2) + loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        averaged.update_parameters(model)
        return loss

    return by_hand(model, step, state={"average": averaged})


@KINDS.add("optimizers within the backward", **MLP)
def _() -> Case:
    model = mlp()
    optimizers = {name: torch.optim.SGD([p], 0.05) for name, p in model.named_parameters()}

    def update(name: str) -> Callable[[torch.Tensor], None]:
        def now(parameter: torch.Tensor) -> None:
            optimizers[name].step()
            optimizers[name].zero_grad()

        return now

    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(update(name))

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        return loss

    return by_hand(model, step, optimizer=optimizers)


@KINDS.add("thawed and frozen along the way", **MLP, findings=("Layers are frozen at random weights",))
def _() -> Case:
    calls = 0

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        nonlocal calls
        calls += 1
        model[0].requires_grad_(calls % 4 == 0)
        model[2].train(calls % 3 > 0)
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    return by_hand(mlp(), step)


@KINDS.add("evaluated within the step", **MLP)
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        model.eval()
        with torch.inference_mode():
            score = (model(batch[0]).argmax(1) == batch[1]).float().mean()
        model.train()
        return {"loss": loss, "score": score}

    return by_hand(mlp(), step)


@KINDS.add("traced within the step", **MLP)
def _() -> Case:
    """Graph tools that run the model's forward with things that are no values."""

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        torch.fx.symbolic_trace(model)
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
            model(torch.empty(8, 10))
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    return by_hand(mlp(), step)


@KINDS.add("parameter groups, amsgrad, capturable tensors", **MLP)
def _() -> Case:
    model = mlp()
    groups = [{"params": model[0].parameters(), "lr": torch.tensor(1e-3)}, {"params": model[3].parameters()}]
    optimizer = torch.optim.AdamW(groups, torch.tensor(1e-2), amsgrad=True, foreach=False)
    return Case(model, optimizer, vectors())


@KINDS.add("two losses with batch norm and dropout", seen="0 1 2 4", learning="0 1 4")
def _() -> Case:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        again = loss_fn(model(batch[0].flip(-1) + torch.randn_like(batch[0])), labels())
        (loss + 0.1 * again).backward()
        optimizer.step()
        return loss

    return Case(model, sgd(model), images(), step=step)
