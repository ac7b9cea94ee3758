"""Latency and recall of searches by FAISS in process and by a Milvus, by catalogue size and batch.

    python -m benchmarks.milvus.latency --uri http://127.0.0.1:19530 --items 4000 100000 --index IVF_FLAT

Vectors are those of `benchmarks.search`: clustered, each query near four items. Both engines answer the same
queries in turns, so that whatever else the machine does meanwhile hits both. Recall is that of the exact
nearest k.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.milvus.lists import quantiles
from benchmarks.search import generated
from conf.engines.milvus import Engine, RetrievalConfig
from conf.schema import IndexConfig
from features.data.dataset import FloatArray, IntArray
from ranking.milvus.collection import Collection, CollectionSpec
from ranking.milvus.fields import ITEM_VECTOR
from ranking.milvus.loading import CollectionLoader
from ranking.milvus.naming import collection_name
from ranking.milvus.searcher import MilvusIndex
from ranking.retrieval.faiss_index import VectorIndex

K: Final = 112
"""Rows per query, as the source of user vectors fetches."""
BATCHES: Final = (1, 16)
WARM: Final = 2


def recall(found: IntArray, exact: IntArray) -> float:
    """Return the share of the exact rows that were found."""
    shared = sum(len(np.intersect1d(one, other)) for one, other in zip(found, exact, strict=True))
    return shared / exact.size


def in_turns(
    searches: dict[str, Callable[[FloatArray], IntArray]], queries: FloatArray, batch: int, repeats: int
) -> dict[str, list[float]]:
    """Return the milliseconds of each search, which take turns on the same queries."""
    taken: dict[str, list[float]] = {name: [] for name in searches}
    for turn in range(WARM + repeats):
        part = np.arange(turn * batch, (turn + 1) * batch) % len(queries)
        for name, search in searches.items():
            began = time.perf_counter()
            search(queries[part])
            if turn >= WARM:
                taken[name].append(1000 * (time.perf_counter() - began))
    return taken


def loaded(config: RetrievalConfig, vectors: FloatArray) -> tuple[MilvusIndex, float]:
    """Return a searcher over a collection of these vectors, and the seconds that loading took."""
    ids = [str(row) for row in range(len(vectors))]
    frame = pl.DataFrame({"item_id": ids, "item_text": ids})
    name = collection_name(config, f"{len(vectors):0>15}Z-{vectors.shape[1]:0>12}")
    spec = CollectionSpec(name, {ITEM_VECTOR: vectors.shape[1]}, [], len(vectors))
    began = time.perf_counter()
    with CollectionLoader(config) as loader:
        loader.load(spec, frame, {ITEM_VECTOR: vectors}, np.zeros(len(vectors), dtype=np.bool_))
    seconds = time.perf_counter() - began
    collection = Collection(config, spec)
    collection.connect()
    return MilvusIndex(collection, ITEM_VECTOR, vectors, lambda found: [int(i) for i in found]), seconds


def measure(config: RetrievalConfig, items: int, width: int, repeats: int) -> dict[str, Any]:
    """Return latencies and recall at one size."""
    vectors, queries = generated(items, width, max(BATCHES) * (repeats + WARM))
    began = time.perf_counter()
    faiss = VectorIndex.build(vectors, IndexConfig())
    build = time.perf_counter() - began
    milvus, load = loaded(config, vectors)
    try:
        exact = VectorIndex.build(vectors, IndexConfig(factory="Flat")).search(queries[:64], K)[0]
        searches: dict[str, Callable[[FloatArray], IntArray]] = {
            "faiss": lambda some: faiss.search(some, K)[0],
            "milvus": lambda some: milvus.search(some, K)[0],
        }
        found: dict[str, Any] = {
            "items": items,
            "width": width,
            "index": config.index_type,
            "faiss_build_s": build,
            "milvus_load_s": load,
            "recall": {name: recall(search(queries[:64]), exact) for name, search in searches.items()},
        }
        for batch in BATCHES:
            taken = in_turns(searches, queries, batch, repeats)
            found[f"batch_{batch}_ms"] = {name: quantiles(values) for name, values in taken.items()}
        return found
    finally:
        milvus.collection.close()
        with CollectionLoader(config) as loader:
            loader.drop_all()


def table(found: Sequence[dict[str, Any]]) -> Table:
    """Return the results as a table."""
    shown = Table("items", "width", "engine", "recall", *(f"batch {b}, p50 / p99 ms" for b in BATCHES))
    for row in found:
        for name in ("faiss", "milvus"):
            cells = [row[f"batch_{batch}_ms"][name] for batch in BATCHES]
            shown.add_row(
                f"{row['items']:,}", str(row["width"]), name, f"{row['recall'][name]:.3f}",
                *(f"{cell['p50']:.1f} / {cell['p99']:.1f}" for cell in cells),
            )  # fmt: skip
    return shown


def main() -> None:
    """Measure every size, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uri", default="http://127.0.0.1:19530")
    parser.add_argument("--items", type=int, nargs="+", default=[4000, 100_000])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--index", default="HNSW")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("milvus_latency.json"))
    given, console = parser.parse_args(), Console()
    config = RetrievalConfig(
        Engine.milvus, given.uri, prefix="benchmark", index_type=given.index, timeout_seconds=60.0
    )
    found = []
    for items in given.items:
        found.append(measure(config, items, given.width, given.repeats))
        given.output.write_text(json.dumps(found, indent=2) + "\n")
    console.print(table(found))


if __name__ == "__main__":
    main()
