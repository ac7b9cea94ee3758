"""Latency and recall of candidate searches by catalogue size, batch size and filters.

    python -m benchmarks.search --items 100000 1000000 --device auto --output search.json

The index is the one of a server on that device; its results are compared with FAISS's exact search on the
CPU. Vectors are clustered, like those of items; a batch has eight filters, from none to one that allows a
thousandth of the items.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from conf.schema import IndexConfig
from encoders.device import describe_device, resolve_device
from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.assembly import unit
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.index_choice import build_index
from ranking.retrieval.searcher import QueryGroup

BATCHES: Final = (1, 32, 256)
CLUSTERS: Final = 1000
SHARES: Final = (None, 0.9, 0.5, 0.5, 0.2, 0.05, 0.01, 0.001)
"""Shares of the items that the filters of a batch allow; queries alternate."""
WARM: Final = 3


def generated(items: int, width: int, queries: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Return unit vectors of items [items, width] and of users [queries, width], each near four items."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, width), dtype=np.float32)
    vectors = rng.standard_normal((items, width), dtype=np.float32)
    vectors += centres[rng.integers(CLUSTERS, size=items)]
    near = rng.integers(items, size=(queries, 4))
    return unit(vectors), unit(np.stack([vectors[rows].mean(axis=0) for rows in near]))


def filters(items: int, seed: int = 1) -> list[BoolArray | None]:
    """Return the masks [items] that queries alternate between."""
    rng = np.random.default_rng(seed)
    return [None if share is None else rng.random(items) < share for share in SHARES]


def groups_of(queries: int, k: int, masks: Sequence[BoolArray | None]) -> list[QueryGroup]:
    """Return the queries of a batch grouped by filter."""
    turns = [np.arange(start, queries, len(masks)) for start in range(len(masks))]
    return [QueryGroup(turn, k, mask) for turn, mask in zip(turns, masks, strict=True) if len(turn)]


def milliseconds(work: Callable[[], object], seconds: float) -> float:
    """Return the median time of repeated work, after a warm-up."""
    for _ in range(WARM):
        work()
    times: list[float] = []
    while sum(times) < seconds or len(times) < WARM:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1e3


def found_of(
    queries: FloatArray, vectors: FloatArray, found: IntArray, best: IntArray, mask: BoolArray | None
) -> tuple[float, float]:
    """Return the recall of a search, and the share of queries with exact results.

    Args:
        queries: [queries, dim].
        vectors: of the items, [items, dim].
        found: rows, padded with -1, [queries, k].
        best: those of exact search, [queries, k].
        mask: allowed rows; None allows all.

    Returns:
        Mean recall, and the share of queries whose rows are allowed and as good as the best, rank by rank, up
        to the rounding of single precision.

    """
    recalls, exact = [], 0
    for query, rows, expected in zip(queries, found, best, strict=True):
        rows, expected = rows[rows >= 0], expected[expected >= 0]
        recalls.append(len(np.intersect1d(rows, expected)) / max(len(expected), 1))
        allowed = mask is None or bool(mask[rows].all())
        if allowed and len(np.unique(rows)) == len(expected) == len(rows):
            exact += np.allclose(vectors[rows] @ query, vectors[expected] @ query, rtol=0.0, atol=1e-5)
    return float(np.mean(recalls)), exact / len(queries)


def search_figures(
    items: int, device: torch.device, *, width: int = 128, k: int = 200, seconds: float = 0.5
) -> dict[str, float]:
    """Return latency and recall of searches in one catalogue.

    Args:
        items: catalogue size.
        device: where to search.
        width: of the vectors.
        k: rows per query.
        seconds: how long each search is repeated.

    Returns:
        `plain_N_ms` and `mixed_N_ms` of N queries without and with filters; `recall` and `exact` of the
        largest batch without, and `mixed_recall` and `mixed_exact` with them, see `found_of`;
        `build_seconds`.

    """
    vectors, queries = generated(items, width, max(BATCHES))
    masks = filters(items)
    started = time.perf_counter()
    index = build_index(vectors, device=device)
    figures = {"build_seconds": time.perf_counter() - started}
    for batch in BATCHES:
        some, groups = queries[:batch], groups_of(batch, k, masks)
        figures[f"plain_{batch}_ms"] = milliseconds(lambda some=some: index.search(some, k), seconds)  # type: ignore[misc]
        figures[f"mixed_{batch}_ms"] = milliseconds(
            lambda some=some, groups=groups: index.search_groups(some, groups),  # type: ignore[misc]
            seconds,
        )
    flat = VectorIndex.build(vectors, IndexConfig("Flat"))
    found, best = index.search(queries, k)[0], flat.search(queries, k)[0]
    figures["recall"], figures["exact"] = found_of(queries, vectors, found, best, None)
    groups = groups_of(len(queries), k, masks)
    parts = [
        found_of(queries[group.members], vectors, rows, best, group.allowed)
        for group, (rows, _), (best, _) in zip(
            groups, index.search_groups(queries, groups), flat.search_groups(queries, groups), strict=True
        )
    ]
    figures["mixed_recall"], figures["mixed_exact"] = np.mean(parts, axis=0).tolist()
    return figures


def main() -> None:
    """Print the figures of some catalogue sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long each search is repeated")
    parser.add_argument("--output", help="gets the figures as JSON, too")
    options = parser.parse_args()
    device = resolve_device(options.device)
    found = {items: search_figures(items, device, seconds=options.seconds) for items in options.items}
    table = Table("figure", *(f"{items:,} items" for items in found), title=describe_device(device))
    for key in next(iter(found.values())):
        table.add_row(key, *(f"{figures[key]:.3f}" for figures in found.values()))
    Console().print(table)
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
