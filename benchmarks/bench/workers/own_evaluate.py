"""Evaluates generated users with this project: `own_evaluate FOLDER PROFILE OUTPUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.bench.workers.measured import timed, top_functions
from features.data.splits import Queries
from ranking.evaluation.metrics import means, ranking_metrics
from ranking.kernels.streaming_topk import rank_vectors

KS = (10, 20)


def main() -> None:
    """Make the lists, measure them, write times and metrics, and the lists for those who only measure."""
    folder, profile, output = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    users, items, offsets, seen, targets = (
        np.load(folder / f"{name}.npy") for name in ("users", "items", "seen_offsets", "seen", "targets")
    )
    rank_vectors(users[:2], items[:100], max(KS), (offsets[:3], seen[: offsets[2]] % 100))  # compiles
    count = len(users)
    row, zero = np.arange(count, dtype=np.int32), np.zeros(count, dtype=np.int64)
    queries = Queries(row, zero, zero, np.arange(count + 1), targets, np.zeros(count, dtype=np.int32))

    def ranked() -> np.ndarray:
        return rank_vectors(users, items, max(KS), (offsets, seen))[0]

    def work() -> object:
        return means(ranking_metrics(ranked(), queries, KS))

    lists, first = timed(ranked)
    found, second = timed(lambda: means(ranking_metrics(lists, queries, KS)))
    np.save(folder / "lists.npy", lists)
    result = {
        "seconds": first["seconds"] + second["seconds"], "list_seconds": first["seconds"],
        "metric_seconds": second["seconds"], "cpu_seconds": first["cpu_seconds"] + second["cpu_seconds"],
        "peak_mib": second["peak_mib"], "profile": top_functions(work) if profile else [],
        "metrics": {f"{m}@{k}": found[f"{m}@{k}"] for m in ("recall", "ndcg", "hit", "mrr") for k in KS},
    }  # fmt: skip
    output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
