"""The evaluation of a finished run, read from its files without a notebook.

    python examples/evaluation.py work/own

prints recall@10 and ndcg@10 of every system with 95 % intervals, the recall of each candidate source, and
recall@10 recomputed from the stored lists and events, which is the same number. Your own metrics can start
from the same two tables.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

K = 10


def recall(lists: pl.DataFrame, chosen: pl.DataFrame) -> float:
    """Return the mean over users of the share of what a user chose that is among the first K of the list.

    Args:
        lists: `user_id`, `rank` (from 1) and `item_id`, the lists of the evaluation.
        chosen: `user_id` and `item_id`, each pair once; users without a list are left out.
    """
    first = lists.filter(pl.col("rank") <= K)
    relevant = chosen.join(lists.select("user_id").unique(), on="user_id")
    found = relevant.join(first, on=["user_id", "item_id"], how="left")
    share = found.group_by("user_id").agg(pl.col("rank").is_not_null().mean())["rank"]
    return float(share.mean())  # type: ignore[arg-type]


def chosen_in_test(folder: Path, protocol: dict[str, Any]) -> pl.DataFrame:
    """Return what each user chose in the test window of a `global_time` run, each item once."""
    events = pl.scan_parquet(folder / "dataset" / "events.parquet")
    start = pl.lit(protocol["cut_times"]["test_start"]).str.to_datetime(time_zone="UTC")
    in_test = (pl.from_epoch("timestamp").dt.replace_time_zone("UTC") >= start) & pl.col("event").is_in(
        protocol["target_events"]
    )
    return events.filter(in_test).select("user_id", "item_id").unique().collect()


def systems(metrics: dict[str, Any]) -> str:
    """Return a line for each system, the best ndcg first, with the interval of each number."""
    lines = [f"{'system':<20} {f'recall@{K}':<26} {f'ndcg@{K}':<26}"]
    for name, measured in sorted(metrics["test"].items(), key=lambda row: -row[1][f"ndcg@{K}"]):
        cells = []
        for metric in (f"recall@{K}", f"ndcg@{K}"):
            interval = metrics["confidence"]["test"].get(name, {}).get(metric)
            span = f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
            cells.append(f"{measured[metric]:.4f}{span}")
        lines.append(f"{name:<20} {cells[0]:<26} {cells[1]:<26}")
    return "\n".join(lines)


def main() -> None:
    """Print the evaluation of a work directory."""
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/evaluation.py WORK_DIR")
    folder = Path(sys.argv[1])
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    print(systems(metrics))
    stages = metrics["stages"]["test"]
    for source, found in stages["sources"].items():
        print(f"source {source:<16} found {found['recall@all']:.4f} of what was chosen")
    print(f"all sources together    found {stages['union']['recall@all']:.4f}")
    if metrics["protocol"]["split"] == "global_time":
        lists = pl.read_parquet(folder / "evaluation" / "predictions.parquet")
        again = recall(lists, chosen_in_test(folder, metrics["protocol"]))
        print(f"recall@{K} computed again from the lists: {again:.4f}")


if __name__ == "__main__":
    main()
