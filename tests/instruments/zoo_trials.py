"""The zoo, a house for those that proved hard: what people do around a model that finds out whoever looks on."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.instruments.specimen import Case, Collection, adam, deprecated, labels, mlp, vectors
from tests.instruments.zoo_compiled import BACKEND

KINDS = Collection()
MLP = {"seen": "0 1 3", "learning": "0 3"}


class CountingFunctions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


class CountingOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def _counted(mode: Any, around: str) -> Case:
    """What is computed under the mode is counted, and the count is trained on: nobody may compute beside it."""

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        forward, update = mode(), mode()
        with forward:
            loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        with update:
            optimizer.step()
        with torch.no_grad():
            model[0].bias.add_(1e-3 * (forward if around == "forward" else update).count)
        return loss

    model = mlp()
    return Case(model, adam(model), vectors(), step=step)


@KINDS.add("function mode around the forward", **MLP)
def _() -> Case:
    return _counted(CountingFunctions, "forward")


@KINDS.add("function mode around the update", **MLP)
def _() -> Case:
    return _counted(CountingFunctions, "update")


@KINDS.add("dispatch mode around the forward", **MLP)
def _() -> Case:
    return _counted(CountingOperations, "forward")


@KINDS.add("dispatch mode around the update", **MLP)
def _() -> Case:
    return _counted(CountingOperations, "update")


@KINDS.add("hooks on saved tensors", **MLP)
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        packed = []
        optimizer.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(1) or t, lambda t: t):
            loss = loss_fn(model(batch[0]), batch[1])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            model[0].bias.add_(1e-3 * len(packed))
        return loss

    model = mlp()
    return Case(model, adam(model), vectors(), step=step)


@KINDS.add("other default type and device within the step", **MLP)
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                optimizer.zero_grad()
                loss = loss_fn(model(batch[0]), batch[1])
                loss.backward()
                optimizer.step()
        finally:
            torch.set_default_dtype(torch.float32)
        return loss

    model = mlp()
    return Case(model, torch.optim.SGD(model.parameters(), 0.05), vectors(), step=step)


class Quantized(nn.Module):
    """Holds weights that are no floating-point numbers, or eight-bit ones, and learns a scale for them."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Parameter(torch.randint(-127, 127, (5, 10), dtype=torch.int8), requires_grad=False)
        self.smaller = nn.Parameter(torch.randn(5, 10).to(torch.float8_e4m3fn), requires_grad=False)
        self.mask = nn.Parameter(torch.rand(5, 10) < 0.7, requires_grad=False)
        self.scale = nn.Parameter(torch.full((5, 1), 0.01))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.mask * (self.scale * self.small.float() + self.smaller.float())
        return nn.functional.linear(x, weight)


@KINDS.add("quantized weights", seen="0 1", learning="0 1")
def _() -> Case:
    model = nn.Sequential(nn.Linear(10, 10), Quantized())
    return Case(model, adam(model), vectors())


@KINDS.add(
    "forward on another thread",
    seen="3",
    unseen={"0": "another thread", "1": "another thread"},
    learning="0 3",
)
def _() -> Case:
    pool = ThreadPoolExecutor(1)

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        hidden = pool.submit(lambda: model[1](model[0](batch[0]))).result()
        loss = loss_fn(model[3](model[2](hidden)), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    model = mlp()
    return Case(model, adam(model), vectors(), step=step)


OTHERS = [f"{member}.{layer}" for member in (1, 2) for layer in (0, 1, 3)]


@KINDS.add(
    "ensemble as one function",
    seen="0.0 0.1 0.3",
    unseen={name: "not called" for name in OTHERS},
    learning="0.0 0.3 1.0 1.3 2.0 2.3",
)
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        weights, _ = torch.func.stack_module_state(list(model))

        def member(own: Any, x: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(model[0], own, (x,))

        outputs = torch.func.vmap(member, in_dims=(0, None), randomness="different")(weights, batch[0])
        loss = sum(loss_fn(output, batch[1]) for output in outputs)
        loss.backward()
        for place, each in enumerate(model):
            for name, parameter in each.named_parameters():
                parameter.grad = weights[name].grad[place].clone()
        optimizer.step()
        return loss

    model = nn.ModuleList(mlp() for _ in range(3))
    return Case(model, adam(model), vectors(), step=step)


@KINDS.add("traced and saved within the step", **MLP)
def _() -> Case:
    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False).eval()
        with deprecated():
            traced = torch.jit.trace(twin, batch[0])
        loss = loss_fn(model(batch[0]) + traced(batch[0]).detach(), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    model = mlp()
    return Case(model, adam(model), vectors(), step=step)


class Growing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(10, 10)])
        self.head = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x)


@KINDS.add(
    "growing model",
    seen="layers.0 layers.1 head",
    learning="layers.0 layers.1 head",
    findings=("The model was edited",),
)
def _() -> Case:
    calls = 0

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            model.layers.append(nn.Linear(10, 10))
            optimizer.add_param_group({"params": list(model.layers[1].parameters())})
        optimizer.zero_grad()
        loss = loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    model = Growing()
    return Case(model, adam(model), vectors(), step=step)


def _compiled_around(*, fullgraph: bool, calls_away: int) -> Case:
    """The model is called in a function that is compiled as a whole, so that hooks on it would be compiled, too."""
    torch._dynamo.reset()

    @torch.compile(backend=BACKEND, fullgraph=fullgraph)
    def compiled(model: Any, x: torch.Tensor, y: torch.Tensor, loss_fn: Any) -> torch.Tensor:
        return loss_fn(model(x), y)

    def indirectly(*args: Any) -> torch.Tensor:
        return compiled(*args)

    loss_of = indirectly if calls_away > 1 else compiled

    def step(model: Any, batch: Any, loss_fn: Any, optimizer: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model, *batch, loss_fn)
        loss.backward()
        optimizer.step()
        return loss

    model = mlp()
    return Case(model, adam(model), vectors(), step=step)


AROUND = {"seen": "", "unseen": {"": "compiled"}, "learning": "0 3"}


@KINDS.add("compiled function around the model", **AROUND)
def _() -> Case:
    return _compiled_around(fullgraph=False, calls_away=1)


@KINDS.add("compiled function around the model, two calls away", **AROUND)
def _() -> Case:
    return _compiled_around(fullgraph=False, calls_away=2)


@KINDS.add("compiled function around the model, in one graph, two calls away", **AROUND)
def _() -> Case:
    return _compiled_around(fullgraph=True, calls_away=2)


@KINDS.add("compiled loss", **MLP)
def _() -> Case:
    torch._dynamo.reset()
    compiled = torch.compile(nn.functional.cross_entropy, backend=BACKEND)

    def loss_fn(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch itself asks for the output's gradient
            return compiled(output, y)

    model = mlp()
    return Case(model, adam(model), vectors(), loss_fn)


class Method(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(10, 16)
        self.head = nn.Linear(16, 5)
        self.register_buffer("seen", torch.zeros(()))
        self.body = torch.compile(self._body, backend=BACKEND)

    def _body(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return torch.relu(self.inner(x)) / self.seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@KINDS.add("compiled method", seen="inner head", learning="inner head")
def _() -> Case:
    torch._dynamo.reset()
    model = Method()
    return Case(model, adam(model), vectors())


@KINDS.add("compiled, batches of several sizes", seen="_orig_mod.0 _orig_mod.1 _orig_mod.3",
           learning="_orig_mod.0 _orig_mod.3")  # fmt: skip
def _() -> Case:
    torch._dynamo.reset()
    model = torch.compile(mlp(), backend=BACKEND)
    return Case(model, adam(model), [(torch.randn(n, 10), labels(n)) for n in (8, 8, 5, 3)])
