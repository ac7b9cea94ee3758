"""Collections of versions: complete before they have their names, an alias, retention, and other shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from ranking.milvus.collection import Collection
from ranking.milvus.connection import UnreachableError
from ranking.milvus.fields import ITEM_VECTOR
from ranking.milvus.loading import CollectionLoader, names_kept
from ranking.milvus.naming import collection_name
from tests.ranking.milvus.lite import OTHER, VERSION, Lite, loaded, settings, spec_for
from tests.synthetic import random_units

FRAME = pl.DataFrame({"item_id": ["a", "b", "c"], "item_text": ["x", "y", "z"], "price": [1.0, 2.0, None]})
UNITS = random_units(3, 4, seed=1)


def load(loader: CollectionLoader, config: Any, version: str) -> str:
    spec = spec_for(config, FRAME, 4, version)
    loader.load(spec, FRAME, {ITEM_VECTOR: UNITS}, np.array([True, False, False]))
    return spec.name


def test_the_alias_is_swapped_and_old_collections_are_dropped(server: Lite) -> None:
    config = settings(server.uri, prefix="swap", keep=0)
    with CollectionLoader(config) as loader:
        first, second = load(loader, config, VERSION), load(loader, config, OTHER)
        assert first == "swap_20240531T120000Z_0123456789ab"
        assert loader.current() is None
        loader.make_current(first)
        loader.make_current(second)
        assert loader.current() == second
        loader.make_current(first)  # a rollback
        assert loader.current() == first
        assert loader.drop_old(names_kept(config, [VERSION, OTHER], VERSION)) == [second]
        assert loader.collections() == [first]


def test_retention_keeps_the_newest_versions_and_the_current_one(server: Lite) -> None:
    names = [f"2024053{n}T120000Z-0123456789ab" for n in range(5)]
    config = settings(server.uri, keep=2)
    assert names_kept(config, names, names[0]) == [collection_name(config, names[n]) for n in (3, 4, 0)]


def test_a_collection_that_was_loaded_in_part_has_no_name_and_is_loaded_again(
    server: Lite, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(server.uri, prefix="half")
    with CollectionLoader(config) as loader:
        call = loader._call

        def fails(method: str, *arguments: Any, **more: Any) -> Any:
            if method == "rename_collection":
                raise InputError("the loader is killed here")
            return call(method, *arguments, **more)

        monkeypatch.setattr(loader, "_call", fails)
        with pytest.raises(InputError, match="killed"):
            load(loader, config, VERSION)
        monkeypatch.undo()
        assert loader.collections() == []
        collection = Collection(config, spec_for(config, FRAME, 4))
        with pytest.raises(InputError, match="has no collection half_20240531T120000Z_0123456789ab; load it"):
            collection.connect()
        load(loader, config, VERSION)
        collection.connect()
        collection.close()
        assert loader.drop_old([]) == ["half_20240531T120000Z_0123456789ab"]


def test_items_that_do_not_arrive_are_an_error(server: Lite, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(server.uri, prefix="lost")
    with CollectionLoader(config) as loader:
        call = loader._call

        def loses(method: str, *arguments: Any, **more: Any) -> Any:
            if method == "insert":
                arguments = (arguments[0], arguments[1][:-1])
            return call(method, *arguments, **more)

        monkeypatch.setattr(loader, "_call", loses)
        with pytest.raises(InputError, match="2 of 3 items have arrived"):
            load(loader, config, VERSION)
        monkeypatch.undo()
        assert loader.collections() == []


def test_another_width_or_field_is_named(server: Lite) -> None:
    config = settings(server.uri, prefix="shape")
    loaded(config, FRAME, UNITS).close()
    wide = Collection(config, spec_for(config, FRAME, 8))
    with pytest.raises(InputError, match="field item has width 4, the version has 8; drop the collection"):
        wide.connect()
    more = FRAME.with_columns(colour=pl.lit("red"))
    with pytest.raises(InputError, match="no field a_colour"):
        Collection(config, spec_for(config, more, 4)).connect()


def test_a_milvus_that_is_away_is_one_line_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFWISE_MILVUS_TOKEN", "root:secret")
    config = settings("http://127.0.0.1:9", connect_seconds=0.5)
    with pytest.raises(UnreachableError) as caught:
        CollectionLoader(config)
    assert str(caught.value).startswith("Milvus at http://127.0.0.1:9 cannot be reached (")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_token_is_read_from_a_file_or_a_variable_and_refused_in_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELFWISE_MILVUS_TOKEN", " a ")
    assert settings("http://h:1").token() == "a"
    (tmp_path / "token").write_text("b\n")
    assert settings("http://h:1", token_file=str(tmp_path / "token")).token() == "b"
    with pytest.raises(InputError, match=r"token_file: .*none cannot be read \(No such file"):
        settings("http://h:1", token_file=str(tmp_path / "none")).token()
    with pytest.raises(InputError, match="a token in the address would be logged"):
        settings("http://user:password@h:1")
    assert settings("https://h:443/", ca=None).address == "https://h:443"
