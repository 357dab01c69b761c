"""The fixed text of an exported script: the parts of the template, and of our own code, that a run needs.

Pure functions. The sources are read from the installed package, so that loop, data and script can't come apart.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping
from types import ModuleType

from nbdebug.training import (
    accumulation,
    batch_size,
    batches,
    data,
    layer_names,
    loss_parts,
    scheduler_moves,
    schedules,
    script_template,
    script_template_hand,
    script_template_refit,
    script_template_start,
    script_template_update,
    smoothing,
    surgery_norms,
    surgery_norms_out,
)

TEMPLATES = (
    script_template,
    script_template_hand,
    script_template_refit,
    script_template_update,
    script_template_start,
)
BORROWED = (accumulation, batches, data, layer_names)
SHAPES = ("warm_up", "constant", "stairs", "exponential", "cosine", "one_cycle", "cyclic", "between")
PARTLY = {
    schedules: (*SHAPES, "WarmPlateau", "write_rate"),
    scheduler_moves: ("SCALED", "move_scheduler", "watch_steps", "one"),
    surgery_norms: ("is_transposed",),
    surgery_norms_out: ("fold_in",),
    batch_size: ("Regrouping", "Groups", "batches_in", "size_at"),
    loss_parts: ("LossParts",),
    smoothing: ("Smoothed",),
}
MARK = re.compile(r"\s*#: (?P<features>[\w$ ]+)$")
SIGNATURE = re.compile(r"(?P<head>[^\n]*\w\()\n(?P<parts>(?:\s+[\w.*=\"]+,\n)+)\s*(?P<tail>\)[^\n]*)")
LONG_CALL = re.compile(r"^(?P<indent> *)(?P<head>(?:def )?intervene\()(?P<parts>.{88,})(?P<tail>\):?)$", re.MULTILINE)
WIDTH = 100
IMPORTS = {
    "argparse": "import argparse",
    "copy": "import copy",
    "dataclasses": "import dataclasses",
    "importlib": "import importlib",
    "json": "import json",
    "math": "import math",
    "random": "import random",
    "sys": "import sys",
    "Counter": "from collections import Counter",
    "OrderedDict": "from collections import OrderedDict",
    "defaultdict": "from collections import defaultdict",
    "deque": "from collections import deque",
    "Iterator": "from collections.abc import Iterator",
    "Mapping": "from collections.abc import Mapping",
    "islice": "from itertools import islice",
    "fnmatchcase": "from fnmatch import fnmatchcase",
    "partial": "from functools import partial",
    "Path": "from pathlib import Path",
    "SimpleNamespace": "from types import SimpleNamespace",
    "Any": "from typing import Any",
}
FOREIGN_IMPORTS = {
    "np": "import numpy as np",
    "torch": "import torch",
    "safe_open": "from safetensors import safe_open",
    "save_file": "from safetensors.torch import save_file",
    "nn": "from torch import nn",
    "_ConvTransposeNd": "from torch.nn.modules.conv import _ConvTransposeNd",
    "LambdaLR": "from torch.optim.lr_scheduler import LambdaLR",
    "ReduceLROnPlateau": "from torch.optim.lr_scheduler import ReduceLROnPlateau",
    "BatchSampler": "from torch.utils.data import BatchSampler",
    "DataLoader": "from torch.utils.data import DataLoader",
}


def assemble(written: Mapping[str, str], features: Iterable[str], placeholders: Mapping[str, str]) -> str:
    """The script below its header: imports, what the exporter has ``written`` by name, and all that these use.

    A placeholder stands for a name, or for a call ``begin(NAME)`` that is replaced by lines.
    """
    templates, borrowed = ({n: t for m in each for n, t in _parts(m).items()} for each in (TEMPLATES, BORROWED))
    partly = {name: text for m, names in PARTLY.items() for name, text in _parts(m).items() if name in names}
    parts = {**borrowed, **partly, **templates}
    template = {name: _filled(text, placeholders) for name, text in _kept(parts, frozenset(features)).items()}
    sources = {**template, **written}
    used = _reachable(sources, "main")
    constants = {name: text for name, text in sources.items() if name in used and name.isupper() and name != "MAKERS"}
    order = ["train", *(name for name in written if name in used and not name.isupper())]
    order += [name for name in sources if name in used and name not in ("main", *constants)]
    order = [*dict.fromkeys(order), "main"]
    blocks = ["\n".join(constants.values()), *(sources[name] for name in order)]
    body = "\n\n\n".join(_joined(block) for block in blocks)
    return f'{_imports(body)}\n\n{body}\n\n\nif __name__ == "__main__":\n    main()\n'


def _parts(module: ModuleType) -> dict[str, str]:
    """A module's functions, classes and constants by name, as they are written."""
    text = inspect.getsource(module)
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        name = getattr(node, "name", "")
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        if name:
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
            found[name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def _kept(parts: Mapping[str, str], features: frozenset[str]) -> dict[str, str]:
    """Only the lines whose features the run has, without their marks."""
    kept = {}
    for name, text in parts.items():
        lines = []
        for line in text.splitlines():
            mark = MARK.search(line)
            if mark is None or all(_holds(feature, features) for feature in mark["features"].split()):
                lines.append(re.sub(r"\s*# (noqa|type: ignore|fmt: skip).*", "", MARK.sub("", line)))
        kept[name] = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
    return kept


def _holds(feature: str, features: frozenset[str]) -> bool:
    return feature.removeprefix("not_") not in features if feature.startswith("not_") else feature in features


def _filled(text: str, placeholders: Mapping[str, str]) -> str:
    for name, value in placeholders.items():
        call = re.search(rf"^(?P<indent> *)begin\({name}\)$", text, re.MULTILINE)
        if call:
            lines = "\n".join(call["indent"] + line for line in value.splitlines())
            text = text[: call.start()] + lines + text[call.end() :]
        else:
            text = re.sub(rf"\b{name}\b", lambda _, value=value: value, text)  # type: ignore[misc]
    return text


def _reachable(sources: Mapping[str, str], first: str) -> set[str]:
    found: set[str] = set()
    ahead = [first]
    while ahead:
        name = ahead.pop()
        if name in sources and name not in found:
            found.add(name)
            ahead += names_in(sources[name])
    return found


def names_in(source: str) -> set[str]:
    """The names that are used in it."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def _joined(block: str) -> str:
    """Short calls and signatures on one line, long ones on several."""

    def join(match: re.Match[str]) -> str:
        parts = " ".join(match["parts"].split()).removesuffix(",")
        line = f"{match['head']}{parts}{match['tail']}"
        return line if len(line) <= WIDTH else match[0]

    def spread(match: re.Match[str]) -> str:
        parts = (f"{match['indent']}    {line}" for line in textwrap.wrap(match["parts"] + ",", WIDTH - 10))
        return "\n".join([match["indent"] + match["head"], *parts, match["indent"] + match["tail"]])

    return LONG_CALL.sub(spread, SIGNATURE.sub(join, block))


def _imports(body: str) -> str:
    names = names_in(body)
    groups = []
    for table in (IMPORTS, FOREIGN_IMPORTS):
        lines: dict[str, list[str]] = {}
        for name, line in table.items():
            if name in names:
                module, _, imported = line.partition(" import ")
                lines.setdefault(module, []).append(imported)
        groups.append("\n".join(f"{m} import {', '.join(i)}" if i[0] else m for m, i in lines.items()))
    return "\n\n".join(["from __future__ import annotations", *groups])
