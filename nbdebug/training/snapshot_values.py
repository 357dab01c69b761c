"""Values of a snapshot as JSON and named tensors, and back. Pure functions of their arguments, on any thread.

JSON has text, truth values, numbers, lists and mappings; whatever else there is becomes a mapping with one key that
begins with ``$`` and says what it is: ``{"$tuple": [1, 2]}``. A tensor's numbers lie beside the JSON under a key that
is its path. Reading builds only the kinds of :data:`MAKERS` and the records it is given: nothing is unpickled,
evaluated or imported by name.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

MAX_DEPTH = 60
DTYPE_NAMES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
)
DTYPES = {name: getattr(torch, name) for name in DTYPE_NAMES if hasattr(torch, name)}
FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, bool, str, list, dict, tuple, set)}
NUMPY_KINDS = "biufcSUMm"

Path = tuple[Any, ...]
Kinds = Mapping[str, type]


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A value that no file can hold: where it is, as keys from the outside in, and what it is."""

    path: Path
    what: str


class Encoder:
    """Turns values into JSON.

    Gathers their tensors by key in ``tensors``, and in ``refused`` what it can't store; that becomes ``None``.
    ``kinds`` are the frozen dataclasses and enums it may meet, by name.
    """

    def __init__(self, kinds: Kinds) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.refused: list[Refusal] = []
        self._kinds = frozenset(kinds.values())
        self._keys: dict[int, str] = {}
        self._open: set[int] = set()
        self._by_type: dict[type, Callable[[Any, Path], Any]] = {
            float: lambda v, _: v if math.isfinite(v) else {"$float": str(v)},
            int: lambda v, _: v if abs(v) < 1 << 53 else {"$int": hex(v)},
            complex: lambda v, path: {"$complex": self._items((v.real, v.imag), path)},
            bytes: lambda v, path: {"$bytes": self._bytes(v, path)},
            bytearray: lambda v, path: {"$bytearray": self._bytes(v, path)},
            list: self._items,
            tuple: lambda v, path: {"$tuple": self._items(v, path)},
            set: lambda v, path: {"$set": self._items(v, path)},
            frozenset: lambda v, path: {"$frozenset": self._items(v, path)},
            deque: lambda v, path: {"$deque": [self._items(v, path), v.maxlen]},
            dict: self._mapping,
            OrderedDict: lambda v, path: {"$OrderedDict": self._pairs(v, path)},
            Counter: lambda v, path: {"$Counter": self._pairs(v, path)},
            defaultdict: self._defaultdict,
            torch.dtype: lambda v, _: {"$dtype": str(v).removeprefix("torch.")},
            torch.device: lambda v, _: {"$device": str(v)},
            torch.Size: lambda v, _: {"$size": list(v)},
            torch.Tensor: self._tensor,
            nn.Parameter: self._tensor,
            np.ndarray: self._array,
        }

    def encode(self, value: Any, *path: Any) -> Any:
        """A value as JSON; ``path`` is where it is, and begins its tensors' keys."""
        if value is None or isinstance(value, weakref.ref):
            return None
        kind = type(value)
        if kind in (bool, str):
            return value
        if id(value) in self._open or len(path) > MAX_DEPTH:
            return self._refuse(path, "contains itself" if id(value) in self._open else "is nested too deeply")
        self._open.add(id(value))
        try:
            return self._encode(value, kind, path)
        finally:
            self._open.discard(id(value))

    def _encode(self, value: Any, kind: type, path: Path) -> Any:
        if kind in self._by_type:
            return self._by_type[kind](value, path)
        if kind in self._kinds and isinstance(value, Enum):
            return {"$enum": [kind.__name__, value.value]}
        if kind in self._kinds and dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return {
                "$record": [kind.__name__, {f.name: self.encode(getattr(value, f.name), *path, f.name) for f in fields}]
            }
        if isinstance(value, np.generic):
            return {"$numpy": self._array(np.asarray(value), path)}
        return self._refuse(path, describe(value))

    def _refuse(self, path: Path, what: str) -> None:
        self.refused.append(Refusal(path, what))

    def _items(self, values: Iterable[Any], path: Path) -> list[Any]:
        return [self.encode(value, *path, index) for index, value in enumerate(values)]

    def _pairs(self, values: Mapping[Any, Any], path: Path) -> list[Any]:
        return [[self.encode(key, *path, "a key"), self.encode(part, *path, key)] for key, part in values.items()]

    def _mapping(self, values: Mapping[Any, Any], path: Path) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in values):
            return {key: self.encode(part, *path, key) for key, part in values.items()}
        return {"$dict": self._pairs(values, path)}

    def _defaultdict(self, values: defaultdict[Any, Any], path: Path) -> Any:
        factory = values.default_factory
        name = getattr(factory, "__name__", None)
        if factory is not None and FACTORIES.get(str(name)) is not factory:
            return self._refuse(path, f"is a defaultdict whose factory {describe(factory)}")
        return {"$defaultdict": [name, self._pairs(values, path)]}

    def _bytes(self, value: bytes | bytearray, path: Path) -> Any:
        return self._tensor(torch.from_numpy(np.frombuffer(bytearray(value), np.uint8)), path)

    def _array(self, array: np.ndarray[Any, Any], path: Path) -> Any:
        if array.dtype.kind not in NUMPY_KINDS:
            return self._refuse(path, f"is a numpy array of {array.dtype}")
        order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        content = self._bytes(array.tobytes(order), path)
        return {"$array": {"dtype": array.dtype.str, "shape": list(array.shape), "order": order, "content": content}}

    def _tensor(self, tensor: torch.Tensor, path: Path) -> Any:
        if tensor.layout is torch.sparse_coo and tensor.dtype in DTYPES.values():
            return {
                "$sparse": {
                    "indices": self._tensor(tensor._indices(), (*path, "indices")),
                    "values": self._tensor(tensor._values(), (*path, "values")),
                    "shape": list(tensor.shape),
                    "coalesced": tensor.is_coalesced(),
                }
            }
        name = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout is not torch.strided or name not in DTYPES or tensor.is_meta:
            where = " without values (on the meta device)" if tensor.is_meta else ""
            return self._refuse(path, f"is a tensor{where} of {tensor.dtype}, {tensor.layout}")
        stored: dict[str, Any] = {"key": self._key_of(tensor, path), "dtype": name, "shape": list(tensor.shape)}
        stride = tensor.stride()
        if stride != _plain_stride(tensor.shape) and is_dense(tensor.shape, stride):
            stored["stride"] = list(stride)
        if tensor.device.type != "cpu":
            stored["device"] = str(tensor.device)
        if type(tensor) is nn.Parameter:
            stored["parameter"] = True
        if tensor.requires_grad:
            stored["learns"] = True
        return {"$tensor": stored}

    def _key_of(self, tensor: torch.Tensor, path: Path) -> str:
        """One tensor that is met twice is written once."""
        if id(tensor) not in self._keys:
            wanted = key = "/".join(str(part) for part in path).encode("ascii", "backslashreplace").decode()
            count = 1
            while key in self.tensors:
                count += 1
                key = f"{wanted} ({count})"
            self._keys[id(tensor)] = key
            self.tensors[key] = tensor
        return self._keys[id(tensor)]


def describe(value: Any) -> str:
    """What a value is, after which a sentence can go on: ``is a function (<lambda>)``."""
    name = getattr(value, "__qualname__", "")
    if isinstance(value, type):
        return f"is the class {name}"
    if callable(value) and name:
        return f"is a function ({name.rpartition('.')[2]})"
    return f"is an object of type {type(value).__name__}"


def _plain_stride(shape: Iterable[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(list(shape)):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def is_dense(shape: Iterable[int], stride: Iterable[int]) -> bool:
    """Whether these steps go over a block of memory without gap or overlap."""
    expected = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size > 1):
        if step != expected:
            return False
        expected *= size
    return all(step >= 0 for step in stride)


class Decoder:
    """Builds values from JSON. Raises ``ValueError``, ``TypeError``, ``LookupError`` or torch's errors on nonsense."""

    def __init__(self, tensors: Callable[[str], torch.Tensor], kinds: Kinds) -> None:
        self._tensors = tensors
        self._kinds = kinds
        self._makers: dict[str, Callable[[Any], Any]] = {
            **MAKERS,
            "$tensor": self._tensor,
            "$record": self._record,
            "$enum": lambda content: self._kind(content[0], Enum)(content[1]),
        }

    def decode(self, value: Any) -> Any:
        """The value that this JSON stands for."""
        if isinstance(value, list):
            return [self.decode(part) for part in value]
        if not isinstance(value, dict):
            return value
        tag = next(iter(value), "")
        if not tag.startswith("$"):
            return {key: self.decode(part) for key, part in value.items()}
        if len(value) > 1 or tag not in self._makers:
            raise ValueError(f"it holds {tag!r}, which this version of nbdebug does not know")
        return self._makers[tag](self.decode(value[tag]))

    def _kind(self, name: str, base: type) -> Any:
        kind = self._kinds[name]
        if issubclass(kind, Enum) is not (base is Enum):
            raise ValueError(f"{name} is not what it should be")
        return kind

    def _record(self, content: Any) -> Any:
        name, fields = content
        kind = self._kind(name, object)
        needed = {
            f.name
            for f in dataclasses.fields(kind)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        unknown = fields.keys() - {f.name for f in dataclasses.fields(kind)}
        if needed - fields.keys() or unknown:
            raise ValueError(f"{name} lacks {sorted(needed - fields.keys())} or has unknown {sorted(unknown)}")
        return kind(**fields)

    def _tensor(self, stored: dict[str, Any]) -> torch.Tensor:
        dtype, shape = DTYPES[stored["dtype"]], stored["shape"]
        content = self._tensors(stored["key"])
        if content.dtype is not dtype:
            if content.dtype is not torch.uint8 or content.dim() != 1:
                raise ValueError(f"tensor {stored['key']!r} is of {content.dtype}, not {dtype}")
            content = content.view(dtype).reshape(shape)
        if list(content.shape) != shape:
            raise ValueError(f"tensor {stored['key']!r} has shape {list(content.shape)}, not {shape}")
        if "stride" in stored:
            content = _laid_out(content, stored["stride"])
        if "device" in stored:
            content = _moved(content, torch.device(stored["device"]))
        if stored.get("parameter"):
            return nn.Parameter(content, requires_grad=bool(stored.get("learns")))
        return content.requires_grad_() if stored.get("learns") else content


def _laid_out(content: torch.Tensor, stride: list[int]) -> torch.Tensor:
    if not is_dense(content.shape, stride):
        raise ValueError(f"a tensor of shape {list(content.shape)} can't have the layout {stride}")
    return torch.empty_strided(content.shape, stride, dtype=content.dtype, device="cpu").copy_(content)


def _moved(content: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device it came from, where this machine has that."""
    there = device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
    there = there or (device.type == "mps" and torch.backends.mps.is_available())
    return content.to(device) if there else content


def _sparse(stored: dict[str, Any]) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        stored["indices"],
        stored["values"],
        stored["shape"],
        is_coalesced=bool(stored["coalesced"]),
        check_invariants=True,
    )


def _array(stored: dict[str, Any]) -> np.ndarray[Any, Any]:
    dtype = np.dtype(stored["dtype"])
    if dtype.kind not in NUMPY_KINDS:
        raise ValueError(f"it holds a numpy array of {dtype}, which is not allowed")
    content = _bytes(stored["content"])
    shape, order = tuple(stored["shape"]), stored["order"]
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"a numpy array of shape {shape} and {dtype} can't have {len(content)} bytes")
    return np.ndarray(shape, dtype, content, order=order).copy(order)


def _bytes(content: torch.Tensor) -> bytes:
    return content.numpy().tobytes()


MAKERS: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$int": lambda digits: int(digits, 16),
    "$complex": lambda parts: complex(*parts),
    "$bytes": _bytes,
    "$bytearray": lambda content: bytearray(_bytes(content)),
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$deque": lambda content: deque(content[0], content[1]),
    "$dict": dict,
    "$OrderedDict": OrderedDict,
    "$Counter": lambda pairs: Counter(dict(pairs)),
    "$defaultdict": lambda content: defaultdict(FACTORIES[content[0]] if content[0] else None, content[1]),
    "$dtype": lambda name: DTYPES[name],
    "$device": torch.device,
    "$size": torch.Size,
    "$sparse": _sparse,
    "$array": _array,
    "$numpy": lambda array: array[()],
}
