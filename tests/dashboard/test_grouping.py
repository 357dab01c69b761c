"""Layers by the module tree: every layer in one row, siblings alike, and a way in to each."""

from __future__ import annotations

import numpy as np
import pytest

from nbdebug.dashboard import grouping
from tests.dashboard import views

TRANSFORMER = tuple(
    ["embed"]
    + [
        f"encoder.{i}.{part}"
        for i in range(12)
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.0", "mlp.2")
    ]
    + ["head.norm", "head.fc"]
)
RESNET = tuple(
    ["stem"]
    + [f"layer{s}.{b}.{part}" for s, n in ((1, 30), (2, 36), (3, 30)) for b in range(n) for part in ("conv", "bn")]
    + ["fc"]
)
FLAT = tuple(str(i) for i in range(400))
DEEP = tuple(f"model.net.body.{i}" for i in range(50))
OWN = (*(f"block.{i}.fc" for i in range(45)), "block")  # a module with weights of its own, and with children
UNEVEN = ("a", *(f"b.{i}" for i in range(300)), *(f"c.{i}.x.{j}" for i in range(3) for j in range(40)))
MODELS = {"transformer": TRANSFORMER, "resnet": RESNET, "flat": FLAT, "deep": DEEP, "own": OWN, "uneven": UNEVEN}


def test_few_layers_stand_alone():
    made = grouping.place(views.names(40))
    assert [row.key for row in made.rows] == list(views.names(40)) and not made.is_grouped
    assert not any(row.is_group for row in made.rows)


def test_a_transformer_is_grouped_by_its_blocks():
    made = grouping.place(TRANSFORMER)
    shown = [row.shown for row in made.rows]
    assert shown == ["embed", *(f"encoder.{i} ▸ 6 layers" for i in range(12)), "head.norm", "head.fc"]


@pytest.mark.parametrize("names", MODELS.values(), ids=MODELS)
def test_every_layer_is_in_one_row_in_order(names):
    made = grouping.place(names)
    assert 3 <= len(made.rows) <= grouping.MOST_ROWS
    assert sorted(name for row in made.rows for name in row.layers) == sorted(names)
    assert len({row.key for row in made.rows}) == len(made.rows)
    assert all(name in made.rows[index].layers for name, index in made.row_of.items())
    assert made.is_grouped and made.total == len(names)


@pytest.mark.parametrize("names", MODELS.values(), ids=MODELS)
def test_every_layer_can_be_reached(names):
    def leaves(path):
        made = grouping.place(names, path)
        assert made.path == path and len(made.crumbs) == len(path)
        for row in made.rows:
            yield from leaves((*path, row.key)) if row.is_group else [row.key]

    assert sorted(leaves(())) == sorted(names)


def test_siblings_are_treated_alike():
    rows = grouping.place(RESNET).rows
    assert [row.is_group for row in rows] == [False, *[True] * (len(rows) - 2), False]
    assert [len(row.layers) for row in rows if row.key.startswith("layer1")] == [8] * 7 + [4]
    assert rows[1].label == "layer1.0–3"


def test_only_what_has_room_is_opened():
    rows = {row.shown for row in grouping.place(UNEVEN).rows}
    assert {"a", "c.0 ▸ 40 layers", "c.1 ▸ 40 layers", "c.2 ▸ 40 layers"} <= rows
    assert sum(row.key.startswith("b.") for row in grouping.place(UNEVEN).rows) > 4


def test_small_groups_are_opened_where_large_ones_beside_them_are_not():
    small = [f"enc.{i}.{part}" for i in range(10) for part in "ab"]
    shown = [row.shown for row in grouping.place([*small, *(f"dec.{i}.{j}" for i in (0, 1) for j in range(20))]).rows]
    stretches = [f"dec.{i}.{j}–{j + 3} ▸ 4 layers" for i in (0, 1) for j in range(0, 20, 4)]
    assert shown == small + stretches


def test_labels_leave_out_what_the_place_says():
    made = grouping.place(TRANSFORMER, ("encoder.3.",))
    assert [row.label for row in made.rows] == ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.0", "mlp.2"]
    assert made.crumbs == ("encoder.3",) and made.rows[1].key == "encoder.3.attn.qkv"


def test_a_path_that_leads_nowhere_is_followed_as_far_as_it_goes():
    assert grouping.place(TRANSFORMER, ("encoder.3.", "gone.")).path == ("encoder.3.",)
    assert grouping.place(TRANSFORMER, ("head.fc",)).path == ()
    assert grouping.place((), ("x.",)).rows == ()


@pytest.mark.parametrize("shape", [(50,), (7, 50)])
def test_rows_are_reduced_as_one_by_one(shape):
    values = np.random.default_rng(0).normal(size=shape)
    values[..., ::7] = np.nan
    rows = [[0, 3], [7], [4, 5, 6, 8], list(range(9, 50))]
    for made, plain in ((grouping.largest, np.nanmax), (grouping.smallest, np.nanmin), (grouping.average, np.nanmean)):
        with np.errstate(all="ignore"):
            by_hand = [
                np.full(shape[:-1], np.nan) if np.isnan(values[..., row]).all() else plain(values[..., row], axis=-1)
                for row in rows
            ]
        np.testing.assert_allclose(made(values, rows), np.stack(by_hand, axis=-1))


def test_infinity_is_no_gap():
    values = np.array([np.inf, 1.0, np.nan])
    assert grouping.average(values, [[0, 1], [1, 2]]).tolist() == [np.inf, 1.0]
    assert np.isnan(grouping.average(values, [[2]]))[0]
