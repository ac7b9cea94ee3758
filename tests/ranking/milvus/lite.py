"""A Milvus Lite in this process, which speaks Milvus's protocol on a port; and collections in it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.engines.milvus import Engine, RetrievalConfig
from features.data.dataset import BoolArray, FloatArray
from ranking.milvus.collection import Collection, CollectionSpec
from ranking.milvus.fields import ITEM_VECTOR, attribute_fields
from ranking.milvus.loading import CollectionLoader
from ranking.milvus.naming import collection_name
from tests.programs import missing

VERSION = "20240531T120000Z-0123456789ab"
OTHER = "20240601T120000Z-ba9876543210"


class Lite:
    """A server on a port of its own, which can be stopped and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._server: Any = None
        self._database: Any = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        try:
            from milvus_lite.adapter.grpc.server import start_server_in_thread
        except ImportError:
            missing("Milvus is not tested: no milvus-lite", "pip install 'shelfwise[milvus-lite]'")
        self._server, self._database, _ = start_server_in_thread(str(self._folder), port=self.port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(grace=0).wait()
            self._database.close()
            self._server = None


@contextmanager
def lite(folder: Path) -> Iterator[Lite]:
    server = Lite(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lite]:
    """A Milvus for the tests of a module, which imports this name or has a conftest that does."""
    with lite(tmp_path_factory.mktemp("milvus")) as found:
        yield found


def settings(uri: str, **more: Any) -> RetrievalConfig:
    """Settings with an exact index and short waits."""
    short = {"index_type": "FLAT", "connect_seconds": 5.0, "retry_seconds": 0.1, "timeout_seconds": 10.0}
    return RetrievalConfig(**{"engine": Engine.milvus, "uri": uri, **short, **more})


def spec_for(
    config: RetrievalConfig, frame: pl.DataFrame, dim: int, version: str = VERSION
) -> CollectionSpec:
    return CollectionSpec(
        collection_name(config, version), {ITEM_VECTOR: dim}, attribute_fields(frame), len(frame)
    )


def loaded(
    config: RetrievalConfig,
    frame: pl.DataFrame,
    vectors: FloatArray,
    version: str = VERSION,
    fresh: BoolArray | None = None,
) -> Collection:
    """A connected collection with these items."""
    spec = spec_for(config, frame, vectors.shape[1], version)
    flags = np.zeros(len(frame), dtype=np.bool_) if fresh is None else fresh
    with CollectionLoader(config) as loader:
        loader.load(spec, frame, {ITEM_VECTOR: vectors}, flags)
    collection = Collection(config, spec)
    collection.connect()
    return collection
