"""Lists of a finished run's shoppers by FAISS and by Milvus, and how soon a changed item is found.

    python -m benchmarks.milvus.lists --artifacts STORE --uri http://127.0.0.1:19530 --shoppers 1000

STORE is copied in memory only; the version's collection is loaded into the Milvus and dropped afterwards.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from rich.console import Console

from conf.engines.milvus import Engine, LoadCandidatesConfig, RetrievalConfig
from features.data import schema
from ranking.bundle.bundle import HISTORIES, load_bundle
from ranking.bundle.collections import load_candidates
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.milvus_indexes import MilvusIndexes
from ranking.live.updates import LiveItems
from ranking.milvus.loading import CollectionLoader
from ranking.milvus.searcher import MilvusIndex
from ranking.types import History, Recommendation, Request

BLOCK: Final = 16
"""Shoppers per batch, as a server under load makes them."""
ROOM: Final = 1000
CHANGES: Final = 50


def requests_of(store: Path, live: LiveItems, shoppers: int, seed: int = 0) -> list[Request]:
    """Return requests of shoppers drawn with a seed, with their newest 500 events."""
    frame = pl.read_parquet(store / HISTORIES)
    users = frame[schema.USER_ID].unique().sort()
    chosen = users.sample(min(shoppers, len(users)), seed=seed)
    codes = {kind: code for code, kind in enumerate(live.current.kinds)}
    now, found = live.current.data_end, []
    kept = frame.filter(pl.col(schema.USER_ID).is_in(chosen.implode())).sort(schema.USER_ID, schema.ORDER)
    for _, events in kept.group_by(schema.USER_ID, maintain_order=True):
        rows = live.current.catalogue.find(events[schema.ITEM_ID].to_list())
        kinds = [codes.get(kind, -1) for kind in events[schema.EVENT].to_list()]
        times = events[schema.TIMESTAMP].to_list()
        known = [
            n for n, (row, kind) in enumerate(zip(rows, kinds, strict=True)) if row is not None and kind >= 0
        ]
        history = History(
            np.array([rows[n] for n in known], dtype=np.int32),
            np.array([kinds[n] for n in known], dtype=np.int8),
            np.array([times[n] or 0 for n in known], dtype=np.int64),
        )
        found.append(Request(history, now, 10))
    return found


def lists(live: LiveItems, requests: Sequence[Request]) -> tuple[list[Recommendation], list[float]]:
    """Return the lists of all requests, and the seconds of each batch."""
    made: list[Recommendation] = []
    seconds = []
    for start in range(0, len(requests), BLOCK):
        began = time.perf_counter()
        made += live.current.recommender.recommend(requests[start : start + BLOCK])
        seconds.append(time.perf_counter() - began)
    return made, seconds


def compared(one: Sequence[Recommendation], other: Sequence[Recommendation]) -> dict[str, float]:
    """Return shares of lists that are equal, and of items of the first lists that the other ones have."""
    same, shared, items = 0, 0, 0
    for first, second in zip(one, other, strict=True):
        left, right = [item.row for item in first.items], [item.row for item in second.items]
        same += left == right
        shared += len(set(left) & set(right))
        items += len(left)
    return {"equal_lists": same / max(len(one), 1), "shared_items": shared / max(items, 1)}


def candidate_recall(plain: LiveItems, live: LiveItems, requests: Sequence[Request], k: int = 100) -> float:
    """Return the share of FAISS's nearest k items of every user vector that Milvus finds."""
    faiss, milvus = plain.current.recommender.recommender, live.current.recommender.recommender
    found, wanted = 0, 0
    for start in range(0, len(requests), BLOCK):
        vectors = faiss.user_vectors(faiss.histories(requests[start : start + BLOCK]))
        left, right = faiss.index.search(vectors, k)[0], milvus.index.search(vectors, k)[0]
        for one, other in zip(left, right, strict=True):
            wanted += len(one)
            found += len(np.intersect1d(one, other))
    return found / max(wanted, 1)


def freshness(live: LiveItems) -> dict[str, list[float]]:
    """Return milliseconds from a change to the first search that finds it, in memory and in Milvus alone."""
    at_once, in_milvus = [], []
    for number in range(CHANGES):
        began = time.perf_counter()
        change = ItemChange(f"fresh {number}", {_title(live): f"a fresh thing of kind {number}"})
        live.apply(live.plan([change]))
        recommender = live.current.recommender.recommender
        row = live.current.catalogue.row(f"fresh {number}")
        assert row is not None
        index = recommender.text_index
        assert row in index.search(recommender.text_vectors[row][None], 50)[0]
        at_once.append(1000 * (time.perf_counter() - began))
        assert isinstance(live._indexes, MilvusIndexes)
        assert isinstance(index, MilvusIndex)
        while live._indexes.status().pending:
            time.sleep(0.001)
        assert row in index.search(recommender.text_vectors[row][None], 50)[0]
        in_milvus.append(1000 * (time.perf_counter() - began))
    return {"in_memory_ms": at_once, "in_milvus_ms": in_milvus}


def _title(live: LiveItems) -> str:
    """Return the first attribute that an item's text is made of."""
    return next(iter(live.current.bundle.template.fields))


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return median and 99th percentile."""
    return {"p50": float(np.quantile(values, 0.5)), "p99": float(np.quantile(values, 0.99))}


def measure(store: Path, config: RetrievalConfig, shoppers: int, console: Console) -> dict[str, Any]:
    """Return what this benchmark found."""
    load_candidates(LoadCandidatesConfig(str(store), retrieval=config), console)
    bundle = load_bundle(store, room=ROOM, retrieval=config)
    assert bundle.collection is not None
    bundle.collection.connect()
    bundle.collection.keep_connected()
    plain, live = LiveItems(load_bundle(store, room=ROOM), ROOM), LiveItems(bundle, ROOM)
    try:
        requests = requests_of(store, plain, shoppers)
        lists(plain, requests[:BLOCK]), lists(live, requests[:BLOCK])  # compiles the loops
        one, faiss_seconds = lists(plain, requests)
        other, milvus_seconds = lists(live, requests)
        found: dict[str, Any] = {
            "shoppers": len(requests),
            "items": live.current.catalogue.size,
            "index": config.index_type,
            **compared(one, other),
            "recall_of_100_candidates": candidate_recall(plain, live, requests),
            "degraded": sum(answer.degradation == "candidates_unavailable" for answer in other),
            "batch_ms_faiss": quantiles([1000 * s for s in faiss_seconds]),
            "batch_ms_milvus": quantiles([1000 * s for s in milvus_seconds]),
        }
        fresh = freshness(live)
        return {**found, **{name: quantiles(values) for name, values in fresh.items()}}
    finally:
        live.close()
        with CollectionLoader(config) as loader:
            loader.drop_all()


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--uri", default="http://127.0.0.1:19530")
    parser.add_argument("--index", default="HNSW")
    parser.add_argument("--shoppers", type=int, default=1000)
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--output", type=Path, default=Path("milvus_lists.json"))
    given, console = parser.parse_args(), Console()
    config = RetrievalConfig(
        Engine.milvus, given.uri, prefix="benchmark", index_type=given.index, timeout_seconds=given.timeout
    )
    found = measure(given.artifacts, config, given.shoppers, console)
    given.output.write_text(json.dumps(found, indent=2) + "\n")
    console.print_json(data=found)


if __name__ == "__main__":
    main()
