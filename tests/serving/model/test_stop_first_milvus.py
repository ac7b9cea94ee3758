"""Before the served model is ended for another version, that version's collection is looked for in Milvus."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from conf.errors import InputError
from conf.serving import ServeConfig
from ranking.bundle.store import publish_version
from ranking.milvus.connection import UnreachableError
from ranking.milvus.naming import collection_name
from serving.model.interfaces import LiveModel
from serving.model.process.loader import Loader
from tests.ranking.milvus.lite import Lite, loaded, server, settings
from tests.synthetic import random_units

__all__ = ["server"]
FRAME = pl.DataFrame({"item_id": ["a", "b", "c"]})


def test_a_version_whose_collection_is_missing_ends_nothing(tmp_path: Path, server: Lite) -> None:
    version = publish_version(tmp_path, lambda folder: (folder / "v").touch(), {"dims": {"item": 4}})
    config = settings(server.uri, prefix="alone")
    started: list[Any] = []

    def stop_first(retrieval: Any) -> None:
        serve = ServeConfig(str(tmp_path), retrieval=retrieval, memory_check=False)
        load = Loader(serve, lambda request: cast(LiveModel, started.append(request)))
        load.stop_first(version, cast(LiveModel, None))()

    with pytest.raises(InputError, match=f"has no collection {collection_name(config, version)}; load it"):
        stop_first(config)
    with pytest.raises(UnreachableError):
        stop_first(settings("http://127.0.0.1:9", connect_seconds=0.3))
    loaded(settings(server.uri, prefix="wide"), FRAME, random_units(3, 8, seed=1), version).close()
    with pytest.raises(InputError, match="field item has width 8, the version has 4"):
        stop_first(settings(server.uri, prefix="wide"))
    assert started == []
    loaded(config, FRAME, random_units(3, 4, seed=1), version).close()
    stop_first(config)
    assert [request.version for request in started] == [version]
