from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.schema import DataConfig, PipelineConfig
from features.data.dataset import Catalogue, Dataset, load_dataset
from features.prepare import prepare
from tests.synthetic import World


def load(folder: Path, data: DataConfig) -> Dataset:
    return load_dataset(prepare(PipelineConfig(work_dir=str(folder), data=data), Console(quiet=True)))


def test_ids_become_rows_and_back() -> None:
    catalogue = Catalogue(
        pl.DataFrame({"item_id": ["x", "y", "z"], "item_text": ["tx", "ty", "tz"], "brand": ["a", "b", None]})
    )
    assert len(catalogue) == 3
    assert catalogue.texts == ["tx", "ty", "tz"]
    assert [catalogue.row(i) for i in ("z", "x", "nope")] == [2, 0, None]
    assert catalogue.rows(["z", "nope", "x", "z"]).tolist() == [2, 0, 2]
    assert catalogue.rows([]).dtype == np.int32
    assert catalogue.attributes == ["brand"]


def test_a_prepared_shop_is_the_dataset_made_in_memory(
    world: World, tmp_path: Path, dataset: Dataset
) -> None:
    items, events = world.write(tmp_path / "raw")
    loaded = load(
        tmp_path / "work",
        DataConfig(
            items=items,
            events=events,
            text_fields=["title", "brand"],
            event_weights={"click": 0.5, "purchase": 1.0},
        ),
    )
    assert loaded.catalogue.ids == dataset.catalogue.ids
    assert loaded.catalogue.texts == dataset.catalogue.texts
    assert loaded.kinds == ["purchase", "click"]
    assert loaded.kind_weights.tolist() == [1.0, 0.5]
    assert loaded.has_time
    # Users may come in another order; each one's events are the same, in the same order.
    assert set(loaded.user_ids) == set(dataset.user_ids)
    for user, name in enumerate(loaded.user_ids):
        other = dataset.user_ids.index(name)
        mine = slice(loaded.events.offsets[user], loaded.events.offsets[user + 1])
        theirs = slice(dataset.events.offsets[other], dataset.events.offsets[other + 1])
        for field in ("item", "kind", "time"):
            assert np.array_equal(
                getattr(loaded.events, field)[mine], getattr(dataset.events, field)[theirs]
            ), field
        assert (loaded.events.user[mine] == user).all()
    assert loaded.events.lengths().sum() == len(loaded.events) == world.events.height


def test_a_catalogue_without_events_loads(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\na,Boots\nb,Hat\n")
    loaded = load(tmp_path / "work", DataConfig(items=str(items)))
    assert len(loaded.catalogue) == 2
    assert len(loaded.events) == 0
    assert loaded.events.users == 0
    assert list(loaded.user_ids) == []
    assert loaded.events.offsets.tolist() == [0]
    assert loaded.events.item.dtype == np.int32
    assert loaded.events.kind.dtype == np.int8


def test_a_folder_without_a_dataset_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset.json here; run `shelfwise prepare` first"):
        load_dataset(tmp_path / "nothing")


def test_the_manifest_rules_kinds_and_weights(tmp_path: Path) -> None:
    items, events = tmp_path / "items.csv", tmp_path / "events.csv"
    items.write_text("item_id,title\na,Boots\nb,Hat\n")
    events.write_text(
        "user_id,item_id,event,timestamp\nv,b,buy,200\nu,a,look,100\nu,b,buy,100\nv,a,look,100\n"
    )
    loaded = load(
        tmp_path / "work",
        DataConfig(items=str(items), events=str(events), event_weights={"look": 0.1, "buy": 2.0}),
    )
    info = json.loads((tmp_path / "work" / "dataset" / "dataset.json").read_text())
    assert loaded.info == info
    assert loaded.kinds == ["buy", "look"]
    by_user = {
        name: [
            (loaded.catalogue.ids[i], loaded.kinds[k], t)
            for i, k, t in zip(
                loaded.events.item[loaded.events.user == user],
                loaded.events.kind[loaded.events.user == user],
                loaded.events.time[loaded.events.user == user],
                strict=True,
            )
        ]
        for user, name in enumerate(loaded.user_ids)
    }
    assert by_user == {
        "u": [("a", "look", 100), ("b", "buy", 100)],
        "v": [("a", "look", 100), ("b", "buy", 200)],
    }
