"""Training steps with one planted fault each, and what is to be found of it. ``# HERE name`` marks the line."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from nbdebug.records.stops import Phase

FILE = Path(__file__)
INF = math.inf
NAN = math.nan


@dataclass
class Step:
    """A whole step, as ``find_origin`` takes it."""

    rerun: Callable[[], Any]
    roots: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    batch: Any


@dataclass(frozen=True)
class Fault:
    """A planted fault: how it is made, and what is right to say of it. ``None``: not asked."""

    name: str
    build: Callable[[], Step]
    operation: str
    phase: Phase = Phase.FORWARD
    module: str = ""
    kind: str | None = None
    source: str = ""
    samples: tuple[int, ...] | None = None
    advice: str = ""
    module_type: str | None = None
    inner: bool = False
    marked: bool = True


FAULTS: list[Fault] = []


def fault(operation: str, **said: Any) -> Callable[[Callable[[], Step]], Callable[[], Step]]:
    def keep(build: Callable[[], Step]) -> Callable[[], Step]:
        FAULTS.append(Fault(build.__name__, build, operation, **said))
        return build

    return keep


def line_of(name: str) -> int:
    """Of the marker."""
    lines = FILE.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith(f"# HERE {name}"))


def step_of(
    model: nn.Module, inputs: Any, target: Any, loss_fn: Callable[..., Any], optimizer: Optimizer | None = None
) -> Step:
    chosen = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)

    def rerun() -> Any:
        chosen.zero_grad()
        loss = loss_fn(model(inputs), target)
        loss.backward()
        chosen.step()
        return loss

    return Step(rerun, {"": model}, {"": chosen}, (inputs, target))


class Within(nn.Module):
    """A layer, what is between, a layer."""

    def __init__(self, inner: nn.Module, size: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size, size)
        self.inner = inner
        self.fc2 = nn.Linear(size, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.inner(self.fc1(x)))


class Layer(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.function(*args)


def identity(model: Within) -> Within:
    """With a first layer that changes nothing."""
    with torch.no_grad():
        model.fc1.weight.copy_(torch.eye(4))
        model.fc1.bias.zero_()
    return model


def data(rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(rows, 4, generator=generator) + 0.5, torch.rand(rows, 2, generator=generator)


def around(function: Callable[..., torch.Tensor], change: Callable[[torch.Tensor], Any] | None = None) -> Step:
    """A step of a model with the function in its middle, on data that ``change`` has worked on."""
    inputs, target = data()
    if change is not None:
        change(inputs)
    return step_of(identity(Within(Layer(function))), inputs, target, F.mse_loss)


def zero_row(x: torch.Tensor) -> None:
    x[2] = 0.0


@fault("log", module="inner", kind="inf", samples=(2,), advice="clamp")
def log_of_zero() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)  # HERE log_of_zero

    return around(function, zero_row)


@fault("sqrt", phase=Phase.BACKWARD, module="inner", kind="nan", samples=(2,), advice="eps")
def norm_by_hand() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt((x**2).sum(dim=1, keepdim=True)) * x  # HERE norm_by_hand

    return around(function, zero_row)


@fault("div", module="inner", kind="nan", samples=(2,), advice="eps")
def zero_by_zero() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        total = x.sum(dim=1, keepdim=True)
        return x / total  # HERE zero_by_zero

    return around(function, zero_row)


@fault("div", module="inner", kind="nan", samples=(2,), advice="normalize")
def over_its_norm() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x / x.norm(dim=1, keepdim=True)  # HERE over_its_norm

    return around(function, zero_row)


@fault("exp", module="inner", kind="inf", samples=(4,), advice="softmax")
def overflowing_exp() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        e = torch.exp(x)  # HERE overflowing_exp
        return e / e.sum(dim=1, keepdim=True)

    return around(function, lambda x: x[4].fill_(200.0))


@fault("linear", module="fc1", kind="inf", samples=(1,), advice="bfloat16")
def half_overflow() -> Step:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(4, 4)
            self.fc2 = nn.Linear(4, 2)
            nn.init.constant_(self.fc1.weight, 100.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.fc1(x)  # HERE half_overflow
            return self.fc2(h)

    model = Net()
    inputs, target = data()
    inputs[1] = 1000.0

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output.float(), target)

    plain = step_of(model, inputs, target, loss_fn)

    def rerun() -> Any:
        with torch.autocast("cpu", dtype=torch.float16):
            return plain.rerun()

    return Step(rerun, plain.roots, plain.optimizers, plain.batch)


class Attention(nn.Module):
    """One head, with a mask that is added."""

    def __init__(self, where: str = "added") -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.where = where

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        if self.where == "added":
            mask = torch.zeros(padding.shape).masked_fill(padding, -INF)
            scores = scores + mask[:, None, :]
        else:
            scores = scores.masked_fill(padding[:, None, :], -INF)
        weights = torch.softmax(scores, dim=-1)  # HERE masked_row
        return (weights @ self.value(x)).mean(dim=1)


def attention_step(padding: torch.Tensor, where: str) -> Step:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention(where)

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.attention(batch["x"], batch["padding"])

    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    batch = {"x": torch.rand(5, 3, 4), "padding": padding}

    def rerun() -> Any:
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    return Step(rerun, {"": model}, {"": optimizer}, batch)


def padding(all_of: int | None) -> torch.Tensor:
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[0, 2] = mask[1, 1] = True
    if all_of is not None:
        mask[all_of] = True
    return mask


@fault("softmax", module="attention", kind="nan", samples=(3,), advice="finfo")
def masked_row() -> Step:
    return attention_step(padding(3), "added")


@fault("softmax", module="attention", kind="nan", samples=(3,), advice="finfo", marked=False)
def masked_row_filled() -> Step:
    return attention_step(padding(3), "filled")


@fault("sub", module="inner", kind="nan", samples=(2,), advice="finfo")
def row_less_its_maximum() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        scores = x.masked_fill(x < 0.1, -INF)
        scores = scores - scores.amax(dim=1, keepdim=True)  # HERE row_less_its_maximum
        return scores.exp() / scores.exp().sum(dim=1, keepdim=True)

    return around(function, zero_row)


class Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.sqrt()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return gradients[0] / (2 * y)  # HERE inner own_function


@fault("Root", phase=Phase.BACKWARD, module="inner", kind="inf", samples=(2,), advice="clamp", inner=True)
def own_function() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return Root.apply(x)  # HERE own_function

    return around(function, zero_row)


class Through(torch.autograd.Function):
    """Changes nothing, and divides the gradient by zero."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] / 0  # HERE inner function_without_operations


@fault("Through", phase=Phase.BACKWARD, module="inner", kind="inf", inner=True)
def function_without_operations() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return Through.apply(x)  # HERE function_without_operations

    return around(function)


def adam_step(**options: Any) -> Step:
    """The first column of the input is always zero, so the gradient of its weights is."""
    model = Within(nn.ReLU())
    inputs, target = data()
    inputs[:, 0] = 0.0
    optimizer = torch.optim.Adam(model.parameters(), eps=0.0, **options)

    def rerun() -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs), target)
        loss.backward()
        optimizer.step()  # HERE adam_without_eps
        return loss

    return Step(rerun, {"": model}, {"": optimizer}, (inputs, target))


@fault("addcdiv", phase=Phase.OPTIMIZER, module="fc1", kind="nan", samples=(), advice="eps=1e-8")
def adam_without_eps() -> Step:
    return adam_step(foreach=False)


@fault("addcdiv", phase=Phase.OPTIMIZER, module="fc1", kind="nan", samples=(), advice="eps=1e-8", marked=False)
def adam_foreach() -> Step:
    return adam_step(foreach=True)


@fault("adam", phase=Phase.OPTIMIZER, module="fc1", kind="nan", samples=(), advice="eps=1e-8", marked=False)
def adam_fused() -> Step:
    return adam_step(fused=True)


@fault("linear", phase=Phase.BEFORE, module="fc1", kind="nan", source="batch[0]", samples=(1, 3), advice="nan_to_num")
def nan_in_data() -> Step:
    def change(x: torch.Tensor) -> None:
        x[3, 1] = x[1, 2] = NAN

    class Net(Within):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.fc1(x)  # HERE nan_in_data
            return self.fc2(x)

    inputs, target = data()
    change(inputs)
    return step_of(Net(nn.ReLU()), inputs, target, F.mse_loss)


@fault("linear", phase=Phase.BEFORE, module="fc2", kind="nan", source="fc2.weight", samples=(), advice="snapshot")
def nan_in_weight() -> Step:
    class Net(Within):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.fc1(x))
            return self.fc2(x)  # HERE nan_in_weight

    model = Net(nn.ReLU())
    with torch.no_grad():
        model.fc2.weight[1, 1] = NAN
    return step_of(model, *data(), F.mse_loss)


def norm_step(value: float) -> Step:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.bn = nn.BatchNorm1d(3)
            self.head = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.fc(x)
            x = self.bn(x)  # HERE bad_buffer
            return self.head(x)

    model = Net()
    model.bn.eval()
    assert model.bn.running_var is not None
    model.bn.running_var[1] = value
    return step_of(model, *data(), F.mse_loss)


@fault("batch_norm", phase=Phase.BEFORE, module="bn", source="bn.running_var", kind="nan", advice="reset_running_stats")
def bad_buffer() -> Step:
    return norm_step(NAN)


@fault("batch_norm", module="bn", kind="nan", advice="reset_running_stats", marked=False)
def negative_variance() -> Step:
    return norm_step(-1.0)


@fault("log", kind="inf", samples=(4,), module_type="likelihood", advice="log_softmax")
def own_loss() -> Step:
    def likelihood(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        chosen = output.softmax(dim=1).gather(1, target[:, None])[:, 0]
        return -chosen.log().mean()  # HERE own_loss

    model = nn.Linear(4, 3)
    inputs, _ = data()
    inputs[4] *= 1e6
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        target[4] = model(inputs)[4].argmin()
    return step_of(model, inputs, target, likelihood)


class GrowingCell(nn.Module):
    def __init__(self, passes: int) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 2)
        self.passes = passes
        nn.init.constant_(self.cell.weight, 1e3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.passes):
            x = self.cell(x)  # HERE growing_by_hand
        return self.head(x)


@fault("linear", module="cell", kind="inf", advice="orthogonal")
def growing_by_hand() -> Step:
    return step_of(GrowingCell(20), *data(), F.mse_loss)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(4, 4, batch_first=True, **options)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.rnn(x)  # HERE growing_rnn
        return self.head(hidden[:, -1])


@fault("matmul", module="rnn", kind="inf", advice="clip_grad_norm_")
def growing_rnn() -> Step:
    model = Recurrent(nn.RNN, nonlinearity="relu")
    with torch.no_grad():
        model.rnn.weight_hh_l0.fill_(1e5)
        model.rnn.weight_ih_l0.fill_(1.0)
    return step_of(model, torch.ones(6, 12, 4), data()[1], F.mse_loss)


@fault("log", phase=Phase.BACKWARD, module="inner", kind="nan", samples=(2,), advice="clamp")
def branch_not_taken() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        safe = x > 0
        logs = torch.log(x * safe)  # HERE branch_not_taken
        return torch.where(safe, logs, torch.zeros(()))

    return around(function, zero_row)


@fault("exp", module="inner", kind="inf", samples=(2,), advice="clamp")
def exp_not_taken() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        grown = torch.exp(x)  # HERE exp_not_taken
        return torch.where(x < 10, grown, x)

    return around(function, lambda x: x[2].fill_(1000.0))


@fault("log", module="inner", kind="inf", samples=(4,), advice="log_softmax")
def log_of_softmax() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        mask = torch.triu(torch.full((4, 4), -INF), diagonal=1)
        shares = torch.softmax(x[:, None, :] + mask, dim=-1)[:, -1]
        return torch.log(shares)  # HERE log_of_softmax

    return around(function, lambda x: x[4].copy_(torch.tensor([0.0, 500.0, 1.0, 1.0])))


@fault("acos", phase=Phase.BACKWARD, module="inner", kind="inf", samples=(3,), advice="clamp")
def angle() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.acos(x.clamp(-1, 1) * 0.5)[:, :1] + torch.acos(x[:, :1] / 2) * x  # HERE angle

    return around(function, lambda x: x[3].fill_(2.0))


@fault("div", module="inner", kind="nan", advice="eps")
def without_gradient() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            spread = x[:1] - x[:1]
            scale = spread / spread  # HERE without_gradient
        return x * scale

    return around(function)


@fault("reciprocal", module="inner", kind="inf", samples=(5,), advice="eps")
def third_call() -> Step:
    class Shift(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1 / (x - 1)  # HERE third_call

    class Net(Within):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.fc1(x)
            for _ in range(3):
                x = self.inner(x)
            return self.fc2(x)

    inputs, target = data()
    inputs[5] = 1.0 + 1.0 / (1.0 + 1.0)  # 1.5, 2, 1: the third divides by zero
    return step_of(identity(Net(Shift())), inputs, target, F.mse_loss)


@fault("cross_entropy", kind="inf", module_type="cross_entropy", advice="finfo")
def smoothed_over_mask() -> Step:
    inputs, _ = data()
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def rerun() -> Any:
        optimizer.zero_grad()
        logits = model(inputs)
        logits[:, 3] = -INF
        loss = F.cross_entropy(logits, target, label_smoothing=0.1)  # HERE smoothed_over_mask
        loss.backward()
        optimizer.step()
        return loss

    return Step(rerun, {"": model}, {"": optimizer}, (inputs, target))


@fault("std", module="inner", kind="nan", samples=(0, 1, 2, 3, 4, 5), advice="correction=0")
def spread_of_one() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings(action="ignore"):
            return x / x[:, :1].std(dim=1, keepdim=True)  # HERE spread_of_one

    return around(function)


@fault("mul", phase=Phase.BACKWARD, module="inner", kind="inf", advice="clip_grad_norm_")
def clipped_infinity() -> Step:
    def steep(x: torch.Tensor) -> torch.Tensor:
        once = torch.sin(x * 1e20)  # HERE clipped_infinity
        return torch.sin(once * 1e20)

    model = Within(Layer(steep))
    inputs, target = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def rerun() -> Any:
        optimizer.zero_grad()
        loss = model(inputs).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return Step(rerun, {"": model}, {"": optimizer}, (inputs, target))


@fault("div", phase=Phase.CLIPPING, module="fc1", kind="nan", advice="clip_grad_norm_")
def clipped_by_hand() -> Step:
    model = Within(nn.ReLU())
    inputs, target = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def rerun() -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs * 0.0), target)
        loss.backward()
        for parameter in model.parameters():
            parameter.grad /= parameter.grad.norm()  # HERE clipped_by_hand
        optimizer.step()
        return loss

    return Step(rerun, {"": model}, {"": optimizer}, (inputs, target))


class Scaled(torch.optim.Optimizer):
    """Divides each gradient by its own norm."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                direction = parameter.grad / parameter.grad.norm()  # HERE own_optimizer
                parameter.sub_(direction, alpha=0.1)


@fault("div", phase=Phase.OPTIMIZER, module="fc1", kind="nan", advice="eps")
def own_optimizer() -> Step:
    model = Within(nn.ReLU())
    inputs, target = data()
    return step_of(model, inputs * 0.0, target, F.mse_loss, Scaled(model.parameters()))


@fault("linear", phase=Phase.BEFORE, module="fc1", kind="inf", source='batch["x"]', samples=(4,), marked=False)
def infinite_data() -> Step:
    model = Within(nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data()
    x[4, 0] = INF
    batch = {"x": x, "y": y}

    def rerun() -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch["x"]), batch["y"])
        loss.backward()
        optimizer.step()
        return loss.item()

    return Step(rerun, {"": model}, {"": optimizer}, batch)


@fault("log", module="generator.inner", kind="nan", samples=(2,), advice="clamp")
def two_networks() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.log(x - 0.2)  # HERE two_networks

    generator, critic = identity(Within(Layer(function))), nn.Linear(2, 1)
    optimizers = {
        "generator": torch.optim.Adam(generator.parameters()),
        "critic": torch.optim.Adam(critic.parameters()),
    }
    x, _ = data()
    zero_row(x)

    def rerun() -> Any:
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        own = critic(torch.rand(6, 2)).mean()
        own.backward()
        optimizers["critic"].step()
        critic(generator(x)).mean().backward()
        optimizers["generator"].step()
        return own

    return Step(rerun, {"generator": generator, "critic": critic}, optimizers, x)


@fault("sqrt", phase=Phase.BACKWARD, module="inner", kind="inf", samples=(2,), advice="eps")
def checkpointed() -> Step:
    def root(x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(x)  # HERE checkpointed

    def function(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(root, x, use_reentrant=False)

    return around(function, zero_row)


@fault("sqrt", phase=Phase.BACKWARD, module="inner", kind="inf", samples=(2,), advice="eps")
def checkpointed_reentrant() -> Step:
    def root(x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(x)  # HERE checkpointed_reentrant

    def function(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(root, x, use_reentrant=True)

    return around(function, zero_row)


@fault("log", module="_orig_mod.inner", kind="inf", samples=(2,), advice="clamp")
def compiled() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)  # HERE compiled

    model = torch.compile(identity(Within(Layer(function))), backend="eager")
    inputs, target = data()
    zero_row(inputs)
    return step_of(model, inputs, target, F.mse_loss)


@fault("log", module="inner", kind="inf", samples=(2,), advice="clamp")
def closure() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)  # HERE closure

    plain = around(function, zero_row)
    model, (inputs, target) = plain.roots[""], plain.batch
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def evaluate() -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(inputs), target)
        loss.backward()
        return loss

    return Step(lambda: optimizer.step(evaluate), {"": model}, {"": optimizer}, plain.batch)


@fault("log", module="inner", kind="nan", samples=(2,), advice="clamp")
def raising_midway() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        logs = torch.log(x - 0.2)  # HERE raising_midway
        if not logs.isfinite().all():
            raise ValueError("not finite")
        return logs

    return around(function, zero_row)


@fault("mul", kind="inf", advice="grew", module_type="energy")
def complex_numbers() -> Step:
    def energy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        waves = torch.fft.fft(output)
        return (waves * waves * 1e38).abs().mean()  # HERE complex_numbers

    inputs, target = data()
    return step_of(nn.Linear(4, 2), inputs * 1e5, target, energy)


@fault("to", phase=Phase.BACKWARD, kind="inf", advice="GradScaler")
def scaled_too_far() -> Step:
    model = Within(nn.ReLU())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, target = data()

    def rerun() -> Any:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            output = model(inputs)
        output = output.float()  # HERE scaled_too_far
        loss = F.mse_loss(output, target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    return Step(rerun, {"": model}, {"": optimizer}, (inputs, target))


@fault("to", kind="inf", advice="float16", marked=False)
def cast_down() -> Step:
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output * 1e6).half().float().mean()

    return step_of(nn.Linear(4, 2), *data(), loss_fn)


@fault("empty", module="inner", kind="nan", advice="zeros")
def never_written() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        room = torch.empty(6, 4)  # HERE never_written
        torch.from_numpy(room.numpy()).untyped_storage().fill_(255)  # what may lie there: NaN
        return x + room

    return around(function)


@fault("pow", phase=Phase.BACKWARD, module="inner", kind="inf", samples=(2,), advice="clamp")
def broken_power() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x**0.5 + x.pow(0.3)  # HERE broken_power

    return around(function, zero_row)


@fault("tensor", module_type="weighted", kind="nan", advice="numbers")
def made_of_nan() -> Step:
    def weighted(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        weights = torch.tensor([1.0, NAN])  # HERE made_of_nan
        return ((output - target).square() * weights).mean()

    return step_of(nn.Linear(4, 2), *data(), weighted)


@fault("mul", module="inner", kind="nan", samples=(0, 1, 2, 3, 4, 5), advice="masked_fill")
def multiplied_mask() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        mask = torch.tensor([0.0, 0.0, INF, 0.0])
        return x * mask * 0.0  # HERE multiplied_mask

    return around(function)


@fault("mul", module="inner", kind="inf", samples=(4,), advice="grew")
def overflow_beside_a_mask() -> Step:
    def function(x: torch.Tensor) -> torch.Tensor:
        scores = x.masked_fill(x < 0.1, -INF)
        scores = scores * 3e37  # HERE overflow_beside_a_mask
        return scores.masked_fill(scores == -INF, 0.0)

    def change(x: torch.Tensor) -> None:
        zero_row(x)
        x[4] = 200.0

    return around(function, change)


@fault("mean", module_type="chosen_only", kind="nan", advice="clamp(min=1)")
def mean_of_nothing() -> Step:
    def chosen_only(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target)[target > 100].mean()  # HERE mean_of_nothing

    return step_of(nn.Linear(4, 2), *data(), chosen_only)


@fault("sub", phase=Phase.BEFORE, kind="nan", source="batch[1]", samples=(0,), advice="before", marked=False)
def target_left_out_late() -> Step:
    def known_only(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square()[~target.isnan()].mean()

    inputs, target = data()
    target[0, 0] = NAN
    return step_of(nn.Linear(4, 2), inputs, target, known_only)


@fault("div", phase=Phase.BACKWARD, module="fc1", kind="nan", advice="eps", inner=True, marked=False)
def gradient_hook() -> Step:
    model = Within(nn.ReLU())
    model.fc1.weight.register_hook(lambda gradient: gradient / (gradient * 0))  # HERE inner gradient_hook
    inputs, target = data()
    return step_of(model, inputs * 0.0, target, F.mse_loss)
