"""Measures generated users with shelfwise: lists over the whole catalogue, then metrics."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np

from features.data.splits import Queries
from ranking.evaluation.metrics import means, ranking_metrics
from ranking.kernels.streaming_topk import rank_vectors

KS = (10, 20)


def peak_mib() -> float:
    """Return the peak resident memory of this program; ru_maxrss would count the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def main() -> None:
    """Read data.npy files of a folder, evaluate, write own.json."""
    folder = Path(sys.argv[1])
    users, items, offsets, seen, targets = (
        np.load(folder / f"{name}.npy") for name in ("users", "items", "seen_offsets", "seen", "targets")
    )
    rank_vectors(users[:2], items[:100], max(KS))  # compiles
    count = len(users)
    began, cpu = time.perf_counter(), time.process_time()
    lists, _ = rank_vectors(users, items, max(KS), (offsets, seen))
    ranked = time.perf_counter()
    row = np.arange(count, dtype=np.int32)
    zero = np.zeros(count, dtype=np.int64)
    single = np.arange(count + 1, dtype=np.int64)
    queries = Queries(row, zero, zero, single, targets, np.zeros(count, dtype=np.int32))
    found = means(ranking_metrics(lists, queries, KS))
    ended = time.perf_counter()
    result = {
        "seconds": ended - began,
        "list_seconds": ranked - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
        "metrics": {f"{m}@{k}": found[f"{m}@{k}"] for m in ("recall", "ndcg", "hit", "mrr") for k in KS},
    }
    (folder / "own.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
