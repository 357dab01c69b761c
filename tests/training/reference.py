"""The reference loop, taken from the page that prints it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "reference-loop.md"


def _load() -> dict[str, Any]:
    block = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(compile(block.group(1), str(PAGE), "exec"), names)
    return names


train = _load()["train"]
