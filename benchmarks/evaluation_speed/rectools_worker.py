"""Measures generated users with RecTools: its ranker over the vectors, then its metrics.

Imports nothing of shelfwise.
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from rectools import Columns
from rectools.metrics import MRR, NDCG, HitRate, Recall, calc_metrics
from rectools.models.rank import Distance, ImplicitRanker
from scipy import sparse

KS = (10, 20)


def peak_mib() -> float:
    """Return the peak resident memory of this program; ru_maxrss would count the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def main() -> None:
    """Read data.npy files of a folder, evaluate, write rectools.json."""
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    users, items, offsets, seen, targets = (
        np.load(folder / f"{name}.npy") for name in ("users", "items", "seen_offsets", "seen", "targets")
    )
    count = len(users)
    began, cpu = time.perf_counter(), time.process_time()
    viewed = sparse.csr_matrix((np.ones(len(seen), np.float32), seen, offsets), (count, len(items)))
    ranker = ImplicitRanker(Distance.DOT, users, items)
    subject, found, scores = ranker.rank(np.arange(count), max(KS), filter_pairs_csr=viewed)
    ranked = time.perf_counter()
    reco = pd.DataFrame({Columns.User: subject, Columns.Item: found, Columns.Score: scores})
    reco[Columns.Rank] = reco.groupby(Columns.User, sort=False).cumcount() + 1
    chosen = pd.DataFrame({Columns.User: np.arange(count), Columns.Item: targets})
    metrics = {}
    for k in KS:
        metrics[f"recall@{k}"] = Recall(k=k)
        metrics[f"ndcg@{k}"] = NDCG(k=k, divide_by_achievable=True)
        metrics[f"hit@{k}"] = HitRate(k=k)
        metrics[f"mrr@{k}"] = MRR(k=k)
    values = {name: float(v) for name, v in calc_metrics(metrics, reco, interactions=chosen).items()}
    ended = time.perf_counter()
    result = {
        "seconds": ended - began,
        "list_seconds": ranked - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(),
        "metrics": values,
    }
    Path(sys.argv[2] if len(sys.argv) > 2 else folder / "rectools.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
