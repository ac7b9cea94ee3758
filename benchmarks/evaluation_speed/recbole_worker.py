"""Measures generated users with RecBole: its collector of full-sort scores and its evaluator.

Scores are products of the vectors, as its models' `full_sort_predict`. Imports nothing of shelfwise.
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.evaluator import Collector, Evaluator

KS = [10, 20]
BATCH = 512
"""Users per batch; RecBole's default would be a single one for a catalogue of this size."""


def peak_mib() -> float:
    """Return the peak resident memory of this program; ru_maxrss would count the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def main() -> None:
    """Read data.npy files of a folder, evaluate, write recbole.json."""
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    users, items, offsets, seen, targets = (
        np.load(folder / f"{name}.npy") for name in ("users", "items", "seen_offsets", "seen", "targets")
    )
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else folder / "recbole.json"
    sys.argv = sys.argv[:1]  # RecBole reads the command line
    config = Config(model="BPR", dataset="generated", config_dict={
        "data_path": str(folder), "use_gpu": False, "topk": KS, "metrics": ["Recall", "NDCG", "Hit", "MRR"],
        "metric_decimal_place": 12, "valid_metric": "NDCG@10",
    })  # fmt: skip
    collector, evaluator = Collector(config), Evaluator(config)
    count = len(users)
    began, cpu = time.perf_counter(), time.process_time()
    vectors, catalogue = torch.from_numpy(users), torch.from_numpy(items)
    for start in range(0, count, BATCH):
        stop = min(start + BATCH, count)
        with torch.no_grad():
            scores = vectors[start:stop] @ catalogue.T
        low, high = offsets[start], offsets[stop]
        owner = np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1]))
        scores[torch.from_numpy(owner), torch.from_numpy(seen[low:high].astype(np.int64))] = -np.inf
        positive = torch.from_numpy(targets[start:stop].astype(np.int64))
        collector.eval_batch_collect(scores, None, torch.arange(stop - start), positive)
    ranked = time.perf_counter()
    values = evaluator.evaluate(collector.get_data_struct())
    ended = time.perf_counter()
    result = {
        "seconds": ended - began,
        "list_seconds": ranked - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
        "metrics": {name: float(value) for name, value in values.items()},
    }
    target.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
