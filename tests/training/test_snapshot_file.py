"""Snapshots as files: everything comes back exactly, nothing else is opened, and a broken write breaks nothing."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import pickle
import random
import struct
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim import lr_scheduler

from nbdebug.records.commands import Changes, Clip, ClipMode
from nbdebug.records.errors import CommandError, FileFormatError
from nbdebug.training import snapshot_file, snapshots
from nbdebug.training.knobs import Knobs
from nbdebug.training.loop import Loop
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.trainer import Trainer
from tests.training import zoo


class Entry:
    """Whatever a user lists under ``state=``."""

    def __init__(self, content: Any = None) -> None:
        self.content = content

    def state_dict(self) -> Any:
        return {"content": self.content}

    def load_state_dict(self, state: Any) -> None:
        self.content = state["content"]


def setup(name: str = "mlp", optimizer: str = "adam", **options: Any) -> tuple[Loop, Knobs]:
    case = zoo.make(name, optimizer)
    trainer = Trainer(case.optimizer, case.loss_fn, case.train_loader, case.val_loader, **options)
    return Loop(case.model, trainer, nullcontext), Knobs(case.model, trainer)


def advance(loop: Loop, steps: int) -> None:
    for _ in range(steps):
        if not loop.take_batch():
            loop.finish_epoch()
            loop.take_batch()
        result = loop.train_batch()
        loop.keep_loss(float(result.loss.detach()), result)


def capture(loop: Loop, knobs: Knobs) -> Snapshot:
    return snapshots.capture(
        loop.model, loop.trainer, knobs, loop.cursor,
        run="main", step=loop.step, epoch=loop.epoch, epoch_losses=tuple(loop.epoch_losses),
    )  # fmt: skip


def holding(value: Any) -> Snapshot:
    """A snapshot with this value in it."""
    loop, knobs = setup(state={"entry": Entry()})
    return dataclasses.replace(capture(loop, knobs), state={"entry": value})


def there_and_back(value: Any, folder: Path) -> Any:
    path = folder / "value.safetensors"
    snapshot_file.write(holding(value), path, about={})
    return snapshot_file.read(path)[0].state["entry"]


def assert_same(ours: Any, theirs: Any, where: str = "value") -> None:
    """Equal in type, layout and every bit; a weak reference equals ``None``."""
    if type(theirs).__name__ == "ReferenceType":
        assert ours is None, where
        return
    assert type(ours) is type(theirs), f"{where}: {ours!r} for {theirs!r}"
    if isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.shape, ours.layout) == (theirs.dtype, theirs.shape, theirs.layout), where
        assert ours.requires_grad == theirs.requires_grad
        if theirs.is_sparse:
            assert ours.is_coalesced() == theirs.is_coalesced()
            assert_same(ours._indices(), theirs._indices(), where)
            assert_same(ours._values(), theirs._values(), where)
            return
        assert ours.stride() == theirs.stride(), where
        flat = [t.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8) for t in (ours, theirs)]
        assert torch.equal(*flat), where
    elif isinstance(theirs, (np.ndarray, np.generic)):
        assert (ours.dtype, ours.shape, ours.strides) == (theirs.dtype, theirs.shape, theirs.strides), where
        assert ours.tobytes() == theirs.tobytes(), where
    elif dataclasses.is_dataclass(theirs):
        for field in dataclasses.fields(theirs):
            assert_same(getattr(ours, field.name), getattr(theirs, field.name), f"{where}.{field.name}")
    elif isinstance(theirs, dict):
        assert getattr(ours, "default_factory", None) is getattr(theirs, "default_factory", None)
        assert_same(list(ours.items()), list(theirs.items()), where)
    elif isinstance(theirs, (list, tuple, deque)):
        assert len(ours) == len(theirs), where
        assert getattr(ours, "maxlen", None) == getattr(theirs, "maxlen", None)
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    elif isinstance(theirs, float):
        assert struct.pack("d", ours) == struct.pack("d", theirs), where
    else:
        assert ours == theirs, where


PLAIN: dict[str, Any] = {
    "keys of all kinds": {0: "a", "1": 2, (1, "x"): 3, None: 4, True: [], 2.5: {}, "$tuple": [1]},
    "a mapping that looks like a tag": {"$tensor": {"key": "snapshot"}},
    "floats": [math.nan, math.inf, -math.inf, -0.0, 0.1, 5e-324, 1e300, 3.0],
    "integers": [0, -1, 2**53, 2**64 + 1, -(2**4000), 10**20000],
    "other scalars": [None, True, False, "", "naïve \ud800 \x00 \u2028", 1 + 2j, complex(math.inf, -0.0)],
    "bytes": [b"", b"\x00\xff", bytearray(b"ab")],
    "collections": [(), (1, (2,)), {1, 2}, frozenset({"a"}), set(), deque([1, 2], 5), deque()],
    "mappings": [OrderedDict(b=1, a=2), defaultdict(dict, {1: {2: 3}}), defaultdict(None), Counter("aab")],
    "torch's own": [torch.float16, torch.bfloat16, torch.device("cpu"), torch.device("cuda", 1), torch.Size([2, 3])],
    "ours": [Clip(ClipMode.NORM, 0.5), ClipMode.VALUE],
    "numpy": [
        np.float32(0.1), np.int64(3), np.bool_(True), np.str_("x"), np.datetime64("2020-01-01"), np.arange(6),
        np.arange(6.0).reshape(2, 3).T, np.array(1.5), np.empty((0, 3)), np.arange(3, dtype=">i2"),
        np.array(["a", "bc"]), np.arange(4)[::2].copy(),
    ],
    "random states": [
        random.Random(0).getstate(), np.random.RandomState(1).get_state(), torch.Generator().get_state(),
        np.random.default_rng(2).bit_generator.state, np.random.Generator(np.random.Philox(3)).bit_generator.state,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_come_back_exactly(name: str, tmp_path: Path) -> None:
    assert_same(there_and_back(PLAIN[name], tmp_path), PLAIN[name])


def repeating_rows() -> torch.Tensor:
    return torch.sparse_coo_tensor([[0, 2, 0]], torch.ones(3, 2), (4, 2), check_invariants=True)


TENSORS: dict[str, Callable[[], Any]] = {
    "0-d": lambda: torch.tensor(3.5),
    "empty": lambda: [torch.empty(0), torch.empty(2, 0, 3), torch.empty(0, dtype=torch.complex128)],
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels last, one channel": lambda: torch.randn(2, 1, 4, 4).contiguous(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(3, 4).T.clone(),
    "sparse": repeating_rows,
    "sparse, coalesced": lambda: repeating_rows().coalesce(),
    "parameters": lambda: [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(1), requires_grad=False)],
    "learning": lambda: torch.ones(2, requires_grad=True),
    "not a number": lambda: torch.tensor([math.nan, math.inf, -0.0]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_come_back_exactly(name: str, tmp_path: Path) -> None:
    made = TENSORS[name]()
    assert_same(there_and_back(made, tmp_path), made)


WIDE = ["complex32", "complex64", "complex128", "bfloat16", "float16", "float32", "float64"]
NARROW = ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"]
WHOLE = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "bool"]


def test_tensors_of_every_dtype_come_back_exactly(tmp_path: Path) -> None:
    words = torch.arange(256, dtype=torch.uint8).repeat(2)
    made = {name: words.clone().view(getattr(torch, name)) for name in [*WIDE, *NARROW, *WHOLE[:-1]]}
    made["bool"] = torch.tensor([True, False])
    made["square"] = words[:64].clone().view(torch.complex64).reshape(2, 4).T.clone()
    assert_same(there_and_back(made, tmp_path), made)


def test_views_come_back_with_their_numbers(tmp_path: Path) -> None:
    """With gaps or overlaps, what is seen is written; conjugated and negated views as well."""
    base = torch.arange(12.0).reshape(3, 4)
    gaps, expanded, conjugated = there_and_back([base[:, ::2], base[0].expand(2, 4), (base * 1j).conj()], tmp_path)
    assert gaps.tolist() == base[:, ::2].tolist()
    assert expanded.tolist() == [base[0].tolist()] * 2
    assert conjugated.tolist() == (base * 1j).conj().tolist()


def test_a_tensor_met_twice_is_written_once(tmp_path: Path) -> None:
    big = torch.zeros(100_000)
    once = snapshot_file.write(holding([big]), tmp_path / "once.safetensors", about={})
    twice = snapshot_file.write(holding([big, big]), tmp_path / "twice.safetensors", about={})
    assert twice - once < 1_000
    keys_alike = there_and_back({"0": torch.zeros(2), 0: torch.ones(2)}, tmp_path)
    assert (keys_alike["0"].tolist(), keys_alike[0].tolist()) == ([0, 0], [1, 1])


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=100),
    "plateau": lr_scheduler.ReduceLROnPlateau,
    "milestones": lambda o: lr_scheduler.MultiStepLR(o, [2, 2, 5]),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.CosineAnnealingLR(o, 5)], [2]
    ),
    "averaging": lambda o: torch.optim.swa_utils.SWALR(o, 0.01),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_snapshot_of_a_run_comes_back_exactly(scheduler: str, tmp_path: Path) -> None:
    case = zoo.make("cnn, frozen norm, dropout", "adam")
    trainer = Trainer(
        case.optimizer, case.loss_fn, case.train_loader, case.val_loader,
        scheduler=SCHEDULERS[scheduler](case.optimizer), state={"ema": Entry(torch.ones(3))},
    )  # fmt: skip
    loop, knobs = Loop(case.model, trainer, nullcontext), Knobs(case.model, trainer)
    knobs.apply(Changes(lr=0.3, clip=Clip(ClipMode.NORM, 2.0), dropout=0.4))
    advance(loop, 23)
    kept = capture(loop, knobs)
    size = snapshot_file.write(kept, tmp_path / "kept.safetensors", about={"note": "before", "seed": 3})
    assert size == (tmp_path / "kept.safetensors").stat().st_size
    back, about = snapshot_file.read(tmp_path / "kept.safetensors")
    assert about == {"note": "before", "seed": 3}
    assert_same(back, kept)


@pytest.mark.parametrize(("name", "optimizer"), [("lstm", "lbfgs"), ("transformer", "sgd"), ("mlp", "adamw fused")])
def test_training_goes_on_from_a_file_as_from_memory(name: str, optimizer: str, tmp_path: Path) -> None:
    loop, knobs = setup(name, optimizer)
    advance(loop, 13)
    snapshot_file.write(capture(loop, knobs), tmp_path / "kept.safetensors", about={})
    advance(loop, 12)
    expected = capture(loop, knobs)
    other, others_knobs = setup(name, optimizer)
    back, _ = snapshot_file.read(tmp_path / "kept.safetensors")
    snapshots.restore(back, other.model, other.trainer, others_knobs, other.cursor)
    other.step, other.epoch, other.epoch_losses = back.step, back.epoch, list(back.epoch_losses)
    advance(other, 12)
    reached = capture(other, others_knobs)
    for field in ("modules", "optimizers", "random"):
        ours, theirs = getattr(reached, field), getattr(expected, field)
        if field == "modules":
            ours, theirs = ours.parameters, theirs.parameters
        assert_same(ours, theirs, field)


def test_other_tools_can_open_it(tmp_path: Path) -> None:
    loop, knobs = setup("cnn, frozen norm, dropout")
    loop.model.to(memory_format=torch.channels_last)
    snapshot_file.write(capture(loop, knobs), tmp_path / "kept.safetensors", about={})
    opened = load_file(tmp_path / "kept.safetensors")
    for name, parameter in loop.model.named_parameters():
        assert torch.equal(opened[f"modules/parameters/{name}"], parameter), name


def test_plain_attributes_of_modules_come_back(tmp_path: Path) -> None:
    loop, knobs = setup()
    path, held = tmp_path / "plain.safetensors", loop.model[0]
    held.calls, held.scale, held.mood, held.huge = 3, math.nan, None, 10**30
    held.size, held.kind = np.float64(0.1), ClipMode.NORM
    snapshot_file.write(capture(loop, knobs), path, about={})
    back = snapshot_file.read(path)[0].modules.plain
    mine = {key: value for (module, key), value in back.items() if module == "0"}
    assert mine.pop("scale") != 0 and mine["calls"] == 3 and mine["mood"] is None and mine["huge"] == 10**30
    assert type(mine["size"]) is np.float64 and mine["in_features"] == held.in_features
    assert "kind" not in mine, "an enum of the user's own is nothing that a file can hold"


def test_a_file_without_plain_attributes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "older.safetensors"
    snapshot_file.write(holding(1), path, about={})
    assert snapshot_file.read(path)[0].modules.plain
    rewrite(path, lambda content: fields(content)["modules"]["$record"][1].pop("plain"))
    assert snapshot_file.read(path)[0].modules.plain == {}


def test_tensors_are_aligned_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    for name in ("a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh"):
        odd = [torch.zeros(3, dtype=torch.bool), torch.zeros(1), torch.zeros(5, dtype=torch.float64)]
        snapshot_file.write(holding({name: odd}), path, about={})
        raw = path.read_bytes()
        begin = 8 + struct.unpack("<Q", raw[:8])[0]
        entries = json.loads(raw[8:begin])
        for key, size in zip(range(3), (1, 4, 8), strict=True):
            assert (begin + entries[f"state/entry/{name}/{key}"]["data_offsets"][0]) % size == 0, name


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_what_no_file_can_hold_is_refused_all_at_once_in_words(tmp_path: Path) -> None:
    kept = holding({"model": [1, torch.zeros(2, device="meta")], "loop": None})
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    kept = dataclasses.replace(
        kept,
        schedulers={"warmup": {"fn": lambda epoch: epoch}, "": {"kind": Entry}},
        optimizers={"": Entry(), "g": {"makers": defaultdict(lambda: 0), "names": np.array([object()])}},
        state={**kept.state, "endless": endless, "deep": deep, "csr": torch.eye(2).to_sparse_csr()},
    )
    with pytest.raises(CommandError) as caught:
        snapshot_file.write(kept, tmp_path / "kept.safetensors", about={"why": print})
    lines = str(caught.value).splitlines()
    for words in (
        "can't be written to a file: scheduler 'warmup', entry 'fn', is a function (<lambda>), and a file",
        "the scheduler, entry 'kind', is the class Entry",
        "the optimizer is an object of type Entry",
        "optimizer 'g', entry 'makers', is a defaultdict whose factory is a function (<lambda>)",
        "optimizer 'g', entry 'names', is a numpy array of object",
        "state 'entry', entry 'model', entry 1, is a tensor without values (on the meta device)",
        "state 'endless', entry 0, contains itself",
        "is nested too deeply",
        "state 'csr' is a tensor of torch.float32, torch.sparse_csr",
        "about, entry 'why', is a function (print)",
    ):
        assert any(words in line for line in lines), words
    assert len(lines) == 10
    assert all("leave it out of that state_dict, or keep the snapshot in memory" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_write_leaves_the_older_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.safetensors"
    snapshot_file.write(holding(1), path, about={})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CommandError, match="no room on the disk"):
        snapshot_file.write(holding(2), path, about={})
    monkeypatch.undo()
    assert snapshot_file.read(path)[0].state == {"entry": 1}
    assert list(tmp_path.iterdir()) == [path]
    snapshot_file.write(holding(3), path, about={})
    assert snapshot_file.read(path)[0].state == {"entry": 3}


def test_a_missing_or_forbidden_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"there is no folder '.*/none'; make it first"):
        snapshot_file.write(holding(1), tmp_path / "none" / "kept.safetensors", about={})
    with pytest.raises(CommandError, match=r"can't read '.*none': No such file"):
        snapshot_file.read(tmp_path / "none")
    with pytest.raises(CommandError, match=r"can't write"):
        snapshot_file.write(holding(1), tmp_path, about={})
    if os.geteuid():
        tmp_path.chmod(0o500)
        with pytest.raises(CommandError, match="not permitted in"):
            snapshot_file.write(holding(1), tmp_path / "kept.safetensors", about={})
        tmp_path.chmod(0o700)


class Trap:
    """A pickle of this would run code."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('opened')",))


def test_foreign_files_are_told_apart(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "weights")
    torch.save({"w": torch.zeros(2)}, tmp_path / "zip")
    (tmp_path / "pickle").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "text").write_text("just some text, longer than nine bytes")
    (tmp_path / "empty").touch()
    for name, words in {
        "weights": "is a safetensors file, but no snapshot of nbdebug",
        "zip": "is a pickle",
        "pickle": "is a pickle",
        "text": "is no snapshot",
        "empty": "is no snapshot",
    }.items():
        with pytest.raises(FileFormatError, match=words):
            snapshot_file.read(tmp_path / name)


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the JSON of a file as a forger would: everything else, the checksum too, is made to fit."""
    raw = path.read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:end]), raw[end:]
    content = json.loads(header["__metadata__"]["nbdebug"])
    change(content)
    text = json.dumps(content)
    checksum = zlib.crc32(text.encode())
    for key in sorted(header.keys() - {"__metadata__"}):
        begin, stop = header[key]["data_offsets"]
        checksum = zlib.crc32(data[begin:stop], zlib.crc32(key.encode(), checksum))
    header["__metadata__"] = {"nbdebug": text, "nbdebug checksum": f"{checksum:08x}"}
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def fields(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["snapshot"]["$record"][1]
    return found


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "newer": (lambda c: c.update(version=2), "newer nbdebug"),
    "other format": (lambda c: c.update(format="something"), "is no snapshot, but 'something'"),
    "no version": (lambda c: c.pop("version"), "description can't be read"),
    "missing field": (lambda c: fields(c).pop("step"), r"Snapshot lacks \['step'\]"),
    "unknown field": (lambda c: fields(c).update(extra=1), r"unknown \['extra'\]"),
    "wrong type": (lambda c: fields(c).update(step="3"), "snapshot.step is a str"),
    "flag for a number": (lambda c: fields(c).update(step=True), "snapshot.step is a bool"),
    "unknown kind": (lambda c: fields(c).update(state={"$code": "print()"}), r"'\$code'"),
    "a class by name": (lambda c: fields(c).update(state={"$record": ["os.system", {}]}), "os.system"),
    "no such tensor": (lambda c: fields(c)["state"]["entry"]["$tensor"].update(key="none"), "none"),
    "wrong shape": (lambda c: fields(c)["state"]["entry"]["$tensor"].update(shape=[7]), r"has shape \[3\], not \[7\]"),
    "wrong dtype": (lambda c: fields(c)["state"]["entry"]["$tensor"].update(dtype="int32"), "not torch.int32"),
    "wrong layout": (lambda c: fields(c)["state"]["entry"]["$tensor"].update(stride=[1 << 40]), "layout"),
    "objects": (
        lambda c: fields(c).update(
            state={"$array": {"dtype": "|O", "shape": [0], "order": "C", "content": fields(c)["state"]["entry"]}}
        ),
        "not allowed",
    ),
    "no random state": (
        lambda c: fields(c)["random"]["$record"][1].update(torch_cpu=fields(c)["state"]["entry"]),
        "is damaged",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_nothing_is_believed(name: str, tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    snapshot_file.write(holding(torch.zeros(3)), path, about={})
    rewrite(path, lambda content: None)
    snapshot_file.read(path)
    change, words = FORGERIES[name]
    rewrite(path, change)
    with pytest.raises(FileFormatError, match=words):
        snapshot_file.read(path)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    path = tmp_path / "whole.safetensors"
    loop, knobs = setup()
    advance(loop, 3)
    snapshot_file.write(dataclasses.replace(capture(loop, knobs), state=PLAIN), path, about={"a": 1})
    return path.read_bytes()


def test_every_cut_is_noticed(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    for index in range(50):
        path.write_bytes(whole[: len(whole) * index // 50])
        with pytest.raises(FileFormatError):
            snapshot_file.read(path)


def test_every_flipped_byte_is_noticed(whole: bytes, tmp_path: Path) -> None:
    path, draws = tmp_path / "flipped.safetensors", random.Random(0)
    for _ in range(200):
        at = draws.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ draws.randrange(1, 256)]) + whole[at + 1 :])
        with pytest.raises(FileFormatError):
            snapshot_file.read(path)


def test_a_forged_description_gives_a_good_read_or_our_error(whole: bytes, tmp_path: Path) -> None:
    path, draws = tmp_path / "forged.safetensors", random.Random(1)
    junk = [None, -1, 1 << 70, 1.5, "x", [], {}, [[]], {"$tuple": 3}, {"$size": [-1]}, {"$deque": [[], -1]}, True]

    def places(value: Any) -> list[tuple[Any, Any]]:
        keys: Any = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        return [place for key in keys for place in [(value, key), *places(value[key])]]

    def forge(content: dict[str, Any]) -> None:
        every = [
            (holder, key) for holder, key in places(content) if not (isinstance(holder, list) and len(holder) > 99)
        ]
        holder, key = draws.choice(every)
        holder[key] = draws.choice(junk)

    refused = 0
    for _ in range(300):
        path.write_bytes(whole)
        rewrite(path, forge)
        try:
            snapshot_file.read(path)
        except FileFormatError:
            refused += 1
    assert 100 < refused < 300
