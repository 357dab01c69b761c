"""Snapshots as files: a safetensors file whose metadata holds the structure as JSON. Any thread; holds no state.

Every tensor lies in the file as such, so that other tools can open it; dtypes that safetensors lacks are raw bytes. The
JSON, under the key ``nbdebug``, names format and version, and says what goes where (see
:mod:`nbdebug.training.snapshot_values`); a checksum beside it covers the JSON and all tensors. What is read is checked
before it is used: a file from a stranger can fill memory, but can't run code.
"""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from nbdebug.records.commands import Clip, ClipMode
from nbdebug.records.errors import CommandError, FileFormatError
from nbdebug.training.data import DataPosition
from nbdebug.training.data_knobs import DataSettings
from nbdebug.training.knobs import KnobSettings
from nbdebug.training.module_state import PLAIN, ModuleState
from nbdebug.training.rng import RandomState
from nbdebug.training.snapshot_values import NUMPY_KINDS, Decoder, Encoder, Refusal
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.update_knobs import UpdateSettings

FORMAT = "nbdebug snapshot"
VERSION = 1
KEY, CHECKSUM_KEY = "nbdebug", "nbdebug checksum"
MAX_HEADER_BYTES = 100_000_000
MAX_ENTRIES = 8
KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Snapshot, ModuleState, RandomState, DataPosition, KnobSettings, UpdateSettings, DataSettings),
        *(Clip, ClipMode),
    )
}
NATIVE = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError)


def write(snapshot: Snapshot, path: str | os.PathLike[str], *, about: Mapping[str, Any]) -> int:
    """Write a snapshot and a few words ``about`` it; returns the file's size in bytes.

    The file appears whole or not at all, and an older one in its place stays until then.

    Raises:
        CommandError: part of the snapshot can't be written to a file, each such part named; or the folder is missing,
            not writable, or full.
    """
    encoder = Encoder(KINDS)
    snapshot = replace(_without_odd_plain(snapshot), equipment=None)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "about": encoder.encode(dict(about), "about"),
        "snapshot": encoder.encode(snapshot),
    }
    if encoder.refused:
        raise CommandError("\n".join(_in_words(refusal) for refusal in encoder.refused))
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    tensors = dict(sorted(encoder.tensors.items(), key=lambda item: -item[1].element_size()))  # so that each is aligned
    header = _header(text, tensors)
    if len(header) > MAX_HEADER_BYTES:
        raise CommandError(
            f"can't be written to a file: besides its tensors it holds {len(header):,} bytes of plain values, more "
            f"than the {MAX_HEADER_BYTES:,} that a safetensors file may; keep long lists of numbers as tensors"
        )
    target = Path(os.path.realpath(path))
    with appearing(target) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for tensor in tensors.values():
            file.write(_raw(tensor))
    return target.stat().st_size


def read(path: str | os.PathLike[str]) -> tuple[Snapshot, dict[str, Any]]:
    """A snapshot that :func:`write` wrote, and what was said about it. Weak references are ``None``.

    Raises:
        CommandError: there is no such file, or it may not be read.
        FileFormatError: it is no snapshot, is damaged, or was written by a newer version.
    """
    try:
        with open(path, "rb") as file:
            begins = file.read(9)
    except OSError as error:
        raise CommandError(f"can't read {str(path)!r}: {error.strerror or error}") from error
    try:
        with safe_open(path, framework="pt") as file:
            text = _text(path, file.metadata() or {})
            content = _content(path, text)
            if file.metadata().get(CHECKSUM_KEY) != _checksum(text, file.get_tensor, file.keys()):
                raise FileFormatError(f"{str(path)!r} is damaged: its checksum does not fit; use another copy of it")
            return _decoded(path, content, file)
    except SafetensorError as error:
        raise FileFormatError(f"{str(path)!r} {_guess(begins)} ({error})") from error


def _decoded(path: Any, content: dict[str, Any], file: Any) -> tuple[Snapshot, dict[str, Any]]:
    decoder = Decoder(lambda key: file.get_tensor(key).clone(), KINDS)
    try:
        snapshot, about = decoder.decode(content["snapshot"]), decoder.decode(content["about"])
        _refuse_wrong_types(snapshot, Snapshot, "snapshot")
        _refuse_wrong_types(about, dict[str, Any], "about")
        _try_random_state(snapshot.random)
        if snapshot.data.epoch_random is not None:
            _try_random_state(snapshot.data.epoch_random)
    except (*NONSENSE, SafetensorError) as error:
        raise FileFormatError(f"{str(path)!r} is damaged: {type(error).__name__}: {error}") from error
    return snapshot, about


# -- writing ----------------------------------------------------------------------------------------------------------


def _without_odd_plain(snapshot: Snapshot) -> Snapshot:
    """Plain attributes may be of classes derived from numbers and text, such as enums; what no file holds stays out."""
    kept = {key: value for key, value in snapshot.modules.plain.items() if type(value) in PLAIN or _is_numpy(value)}
    return replace(snapshot, modules=replace(snapshot.modules, plain=kept))


def _is_numpy(value: object) -> bool:
    return isinstance(value, np.generic) and value.dtype.kind in NUMPY_KINDS


def _header(text: str, tensors: Mapping[str, torch.Tensor]) -> bytes:
    entries: dict[str, Any] = {}
    end = 0
    for key, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        native = NATIVE.get(tensor.dtype)
        shape = list(tensor.shape) if native else [end - begin]
        entries[key] = {"dtype": native or "U8", "shape": shape, "data_offsets": [begin, end]}
    header = {"__metadata__": {KEY: text, CHECKSUM_KEY: _checksum(text, tensors.__getitem__, tensors)}, **entries}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return encoded + b" " * (-len(encoded) % 8)


def _checksum(text: str, tensor: Callable[[str], torch.Tensor], keys: Iterable[str]) -> str:
    """CRC-32 of the JSON and of each tensor with its key."""
    checksum = zlib.crc32(text.encode())
    for key in sorted(keys):
        checksum = zlib.crc32(_raw(tensor(key)), zlib.crc32(key.encode(), checksum))
    return f"{checksum:08x}"


def _raw(tensor: torch.Tensor) -> memoryview:
    """A tensor's numbers in the order of its indices, as bytes."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data


@contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """A file that takes its place only once it is complete, also after a power cut."""
    part = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"can't write {str(target)!r}: {_reason(error, target)}") from error


def _reason(error: OSError, target: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no room on the disk ({error.strerror}); free some, or choose another folder"
    if not target.parent.is_dir():
        return f"there is no folder {str(target.parent)!r}; make it first"
    if isinstance(error, PermissionError):
        return f"not permitted in {str(target.parent)!r}; choose a folder that you may write to"
    return error.strerror or str(error)


def _in_words(refusal: Refusal) -> str:
    head, *rest = refusal.path
    where = str(head)
    if head in ("optimizers", "schedulers", "state") and rest:
        kind = {"optimizers": "optimizer", "schedulers": "scheduler"}.get(head, "state")
        name, *rest = rest
        where = f"{kind} {name!r}" if name else f"the {kind}"
    elif head == "modules" and rest[:1] == ["extra"] and len(rest) > 1:
        where, rest = f"the extra state of module {rest[1]!r}", rest[2:]
    entries = "".join(f", entry {part!r}" for part in rest[:MAX_ENTRIES]) + (" …" if len(rest) > MAX_ENTRIES else "")
    return (
        f"can't be written to a file: {where}{entries}{',' if entries else ''} {refusal.what}, and a file that is safe "
        "to open holds only numbers, text, tensors and collections of them: leave it out of that state_dict, or keep "
        "the snapshot in memory"
    )


# -- reading ----------------------------------------------------------------------------------------------------------


def _guess(begins: bytes) -> str:
    if begins[:2] == b"PK" or begins[:1] == b"\x80":
        return "is a pickle, as torch.save writes it; that can run any code, so it is not opened"
    if begins[8:9] == b"{":
        return "is damaged or was cut short"
    return "is no snapshot: not a safetensors file, or cut short"


def _text(path: Any, metadata: Mapping[str, str]) -> str:
    if KEY not in metadata:
        raise FileFormatError(f"{str(path)!r} is a safetensors file, but no snapshot of nbdebug: it has weights only")
    return metadata[KEY]


def _content(path: Any, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
        known = content["format"] == FORMAT
        version = int(content["version"])
    except NONSENSE as error:
        raise FileFormatError(f"{str(path)!r} is damaged: its description can't be read ({error})") from error
    if not known:
        raise FileFormatError(f"{str(path)!r} is no snapshot, but {str(content['format'])[:60]!r}")
    if version > VERSION:
        raise FileFormatError(
            f"{str(path)!r} was written by a newer nbdebug (format {version}; this one reads up to {VERSION}): update "
            "nbdebug to open it"
        )
    return dict(content)


def _refuse_wrong_types(value: Any, hint: Any, where: str) -> None:
    """Raise ``TypeError`` where a value, or a part of it, is not of the declared type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return
    if origin in (types.UnionType, typing.Union):
        if not any(_has_type(value, part, where) for part in parts):
            raise TypeError(f"{where} is a {type(value).__name__}, not {hint}")
    elif origin is dict:
        _refuse_wrong_types(value, dict, where)
        for key, part in value.items():
            _refuse_wrong_types(key, parts[0], f"a key of {where}")
            _refuse_wrong_types(part, parts[1], f"{where}[{key!r}]")
    elif origin is tuple:
        _refuse_wrong_types(value, tuple, where)
        hints = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        for part, expected in zip(value, hints, strict=True):
            _refuse_wrong_types(part, expected, f"a part of {where}")
    elif not isinstance(value, origin or hint) or (isinstance(value, bool) and hint in (int, float)):
        if not (hint is float and type(value) is int):
            raise TypeError(f"{where} is a {type(value).__name__}, not {hint}")
    elif hint in KINDS.values() and hint is not ClipMode:
        for name, expected in typing.get_type_hints(hint).items():
            _refuse_wrong_types(getattr(value, name), expected, f"{where}.{name}")


def _has_type(value: Any, hint: Any, where: str) -> bool:
    if hint is type(None):
        return value is None
    try:
        _refuse_wrong_types(value, hint, where)
    except TypeError:
        return False
    return True


def _try_random_state(state: RandomState) -> None:
    """Set it on generators of our own, which raise where it is none."""
    torch.Generator().set_state(state.torch_cpu)
    random.Random().setstate(state.python)
    if isinstance(state.numpy, tuple) and state.numpy[:1] == ("MT19937",):
        np.random.RandomState().set_state(state.numpy)
