"""Which modules are looked at, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from nbdebug.probes.activations import FAST_PATH, ActivationsProbe
from nbdebug.probes.module_probes import module_probes
from nbdebug.probes.visibility import SCRIPTED, roots, survey
from nbdebug.records.signals import Signal
from tests.probes.looking import names_of, reasons, sample, undisturbed, values


class Leaf(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class OwnDropout(nn.Dropout):
    pass


TELLING: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "layers and activations": (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.MaxPool1d(2)), {"0", "1"}),
    "containers and shape changers": (lambda: nn.Sequential(nn.Flatten(), nn.Identity(), nn.Sequential()), set()),
    "own leaves": (lambda: nn.Sequential(Leaf(), nn.Sequential(Leaf())), {"0", "1.0"}),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), OwnDropout(), nn.Dropout2d()), set()),
    "norms without parameters": (lambda: nn.Sequential(nn.BatchNorm1d(3, affine=False)), set()),
    "parametrised": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2, bias=False))), {"0"}),
    "the root": (lambda: nn.Linear(2, 2), {"Linear"}),
    "a leaf with a parametrisation": (lambda: parametrizations.orthogonal(nn.Linear(2, 2)), {"ParametrizedLinear"}),
}


@pytest.mark.parametrize("name", list(TELLING))
def test_telling_modules(name: str) -> None:
    build, expected = TELLING[name]
    model = build()
    assert set(survey(names_of(model), {"": model}).telling) == expected


def test_networks_are_the_modules_within_no_other() -> None:
    networks = {"gen": nn.Sequential(nn.Linear(2, 2)), "disc.a": nn.Linear(2, 2)}
    modules = {name: m for prefix, net in networks.items() for name, m in net.named_modules(prefix=prefix)}
    assert set(roots(modules)) == {"gen", "disc.a"}
    assert set(roots(names_of(networks["gen"]))) == {""}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.randn(3, 4))])
def test_scripted_and_traced_modules_are_said_once(make: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), make(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), nn.Linear(4, 2))
    probe = ActivationsProbe(names_of(model))
    reading = sample(probe, lambda: model(torch.randn(3, 4)))
    assert set(values(reading, Signal.ACTIVATION_MEAN)) == {"0", "2"}
    assert reasons(probe) == {"1": SCRIPTED}


def test_a_transformer_layer_keeps_its_fast_path_in_eval_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 2)).eval()
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        plain = model(x)
    probe = ActivationsProbe(names_of(model))
    results = []

    def step() -> None:
        with torch.no_grad():
            results.append(model(x))

    reading = sample(probe, step)
    assert torch.equal(results[0], plain)
    assert set(values(reading, Signal.ACTIVATION_MEAN)) == {"1"}
    assert set(reasons(probe).values()) == {FAST_PATH}
    model.train()
    reading = sample(probe, lambda: model(x))
    assert "0.linear1" in values(reading, Signal.ACTIVATION_MEAN)


def test_what_is_wanted_makes_the_probes() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    make = module_probes(undisturbed)
    names = {wanted: [p.name for p in make(names_of(model), {"": model}, frozenset(wanted.split()))] for wanted in
             ("", "gradients", "units", "data", "activations data")}  # fmt: skip
    assert names == {
        "": [],
        "gradients": [],
        "units": ["activations"],
        "data": ["data"],
        "activations data": ["activations", "data"],
    }


def test_a_choice_of_layers_knows_what_it_is_part_of() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = nn.Sequential(torch.compile(inner, backend="eager"), nn.Linear(4, 2))
    chosen = {name: m for name, m in model.named_modules() if name.endswith("_orig_mod.0")}
    found = survey(chosen, {"": model})
    assert not found.telling
    assert [list(compiled.telling) for compiled in found.compiled] == [["0._orig_mod.0"]]
