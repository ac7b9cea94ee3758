"""A night whose candidates are in Milvus: published, rolled back, and retained."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from conf.operating import RollbackConfig
from ranking.bundle.bundle import load_bundle
from ranking.bundle.rollback import rollback
from ranking.milvus.loading import CollectionLoader
from ranking.milvus.naming import collection_name
from tests.lifecycle.retrain.conftest import Shop
from tests.ranking.milvus.lite import lite, settings


def test_a_night_publishes_into_milvus_and_retention_spares_what_a_server_searches(
    shop: Shop, tmp_path: Path
) -> None:
    first = shop.current  # without a collection so far
    (tmp_path / "milvus").mkdir()
    with lite(tmp_path / "milvus") as server:
        config = settings(server.uri, prefix="nights", keep=0)
        code, lines = shop.night(retrieval=config)
        assert code == 0, lines
        second = shop.current
        assert second != first
        old, new = collection_name(config, first), collection_name(config, second)
        with CollectionLoader(config) as loader:
            assert (loader.collections(), loader.current()) == ([new], new)
            serving = load_bundle(shop.store, second, retrieval=config).collection
            assert serving is not None
            serving.connect()
            console = Console(record=True, width=300)
            rollback(RollbackConfig(str(shop.store), retrieval=config), console)
            assert shop.current == first
            assert (loader.collections(), loader.current()) == ([old, new], old)
            assert f"alias nights names {old}; kept {new}, which a server searches" in console.export_text()
            serving.close()  # it has gone over
            rollback(RollbackConfig(str(shop.store), first, config), console)
            assert (loader.collections(), loader.current()) == ([old], old)
            assert f"alias nights names {old}; dropped {new}" in console.export_text()
