"""Measures finished lists with ranx: `FOLDER OUTPUT`; reads lists.npy and targets.npy.

Imports nothing of shelfwise. The time is that of `evaluate`, after a call that compiles it; making its tables
from arrays is not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from ranx import Qrels, Run, evaluate

KS = (10, 20)
NAMES = {"recall": "recall", "ndcg": "ndcg", "hit": "hit_rate", "mrr": "mrr"}


def main() -> None:
    """Measure, and write times and metrics."""
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    lists, targets = np.load(folder / "lists.npy"), np.load(folder / "targets.npy")
    depth = lists.shape[1]
    qrels = Qrels({str(u): {str(t): 1} for u, t in enumerate(targets.tolist())})
    run = Run(
        {
            str(u): {str(i): float(depth - place) for place, i in enumerate(row) if i >= 0}
            for u, row in enumerate(lists.tolist())
        }
    )
    metrics = [f"{theirs}@{k}" for theirs in NAMES.values() for k in KS]
    evaluate(qrels, run, metrics)  # compiles
    began, cpu = time.perf_counter(), time.process_time()
    found = evaluate(qrels, run, metrics)
    result = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "metrics": {f"{m}@{k}": float(found[f"{theirs}@{k}"]) for m, theirs in NAMES.items() for k in KS},
    }
    output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
