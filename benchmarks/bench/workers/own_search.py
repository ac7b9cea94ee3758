"""Searches with this project's searcher and with FAISS itself: `ITEMS DIM K QUERIES THREADS ROUNDS OUTPUT`.

FAISS has the same index and re-ranks as many rows by the vectors (`IndexRefineFlat`), so that both do the
same work; how many of the rows are the same is written.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np

from benchmarks.bench.workers.measured import peak_mib, top_functions
from benchmarks.search import generated
from ranking.retrieval.faiss_index import VectorIndex, default_factory
from ranking.retrieval.index_choice import build_index

_FAISS: Any = faiss  # its stubs describe the C++ constructors, not the Python ones
BATCHES = (1, 32, 256)
TURNS = 3
"""Turns a round: a turn takes less than a second."""


def rates(
    ways: dict[str, Callable[[int, int], object]], queries: int, batch: int, rounds: int
) -> dict[str, float]:
    """Return queries per second of each way, the median of the turns; ways alternate."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds * TURNS + 1):  # the first one warms up
        for name, way in ways.items():
            began = time.perf_counter()
            for start in range(0, queries, batch):
                way(start, min(start + batch, queries))
            found[name].append(queries / (time.perf_counter() - began))
    return {name: median(each[1:]) for name, each in found.items()}


def _scanned(index: VectorIndex, k: int) -> float:
    """Return the bytes that a query reads: codes of the probed lists, and vectors that are re-ranked."""
    code = index.cpu.sa_code_size() if index.refined > 1 else index.cpu.d * 4
    share = index.nprobe / index.lists if index.probes else 1.0
    return float(
        len(index) * share * code + (k * index.refined * index.cpu.d * 4 if index.refined > 1 else 0)
    )


def main() -> None:
    """Build, check that both find the same, measure, write."""
    items, dim, k, queries, threads, rounds = map(int, sys.argv[1:7])
    faiss.omp_set_num_threads(threads)
    vectors, users = generated(items, dim, queries)
    index = build_index(vectors)
    assert isinstance(index, VectorIndex)
    refined = _FAISS.IndexRefineFlat(index.cpu, _FAISS.swig_ptr(vectors))
    base = _FAISS.SearchParametersIVF(nprobe=index.nprobe) if index.probes else None
    parameters = _FAISS.IndexRefineSearchParameters(k_factor=index.refined, base_index_params=base)

    def own(start: int, stop: int) -> object:
        return index.search(users[start:stop], k)

    def plain(start: int, stop: int) -> object:
        if index.refined == 1:
            return index.cpu.search(users[start:stop], k, params=base)
        return refined.search(users[start:stop], k, params=parameters)

    rows = index.search(users[:64], k)[0]
    theirs: np.ndarray = plain(0, 64)[1]  # type: ignore[index]
    description = default_factory(items, dim)
    result: dict[str, object] = {"index": description}
    shared = [len(np.intersect1d(a, b[b >= 0])) / k for a, b in zip(rows, theirs, strict=True)]
    result["rows_shared"] = float(np.mean(shared))
    for batch in BATCHES:
        for name, rate in rates({"own": own, "faiss": plain}, queries, batch, rounds).items():
            result[f"{name}_{batch}"] = rate
    result["bytes_a_query"] = _scanned(index, k)
    result["profile"] = top_functions(lambda: [own(n, n + 1) for n in range(64)])
    result["peak_mib"] = peak_mib()
    Path(sys.argv[-1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
