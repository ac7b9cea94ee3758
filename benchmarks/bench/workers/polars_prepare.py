"""The checks of `prepare` on clean columns, in plain polars: `RAW WORK OUTPUT`. Imports nothing else of it.

What a competent analyst would write: ids that are given and not too long, known items, plausible times, known
kinds; events sorted by user and time, rejected rows kept with file, row and reason.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import polars as pl

from benchmarks.bench.workers.measured import timed

LATEST = 4_102_444_800
KINDS = ("view", "add_to_cart", "purchase")
LONGEST = 256


def prepare(raw: Path, work: Path) -> tuple[int, int]:
    """Write events.parquet and rejects.parquet; return their numbers of rows."""
    items = pl.scan_parquet(raw / "items.parquet").select("item_id").unique().with_columns(known=True)
    events = pl.scan_parquet(raw / "events", include_file_paths="file", row_index_name="row", glob=False)
    reason = (
        pl.when(pl.col("user_id").is_null() | (pl.col("user_id") == "")).then(pl.lit("no user"))
        .when(pl.col("user_id").str.len_chars() > LONGEST).then(pl.lit("user too long"))
        .when(pl.col("item_id").is_null() | (pl.col("item_id") == "")).then(pl.lit("no item"))
        .when(pl.col("known").is_null()).then(pl.lit("unknown item"))
        .when(~pl.col("event").is_in(KINDS)).then(pl.lit("unknown kind"))
        .when(~pl.col("timestamp").is_between(0, LATEST)).then(pl.lit("impossible time"))
    )  # fmt: skip
    checked = events.join(items, on="item_id", how="left", maintain_order="left").with_columns(reason=reason)
    good = (
        checked.filter(pl.col("reason").is_null())
        .select("user_id", "item_id", "event", "timestamp")
        .sort("user_id", "timestamp", maintain_order=True)
        .sink_parquet(work / "events.parquet", lazy=True)
    )
    bad = checked.filter(pl.col("reason").is_not_null()).sink_parquet(work / "rejects.parquet", lazy=True)
    pl.collect_all([good, bad])
    rows = [
        pl.scan_parquet(work / name).select(pl.len()).collect().item()
        for name in ("events.parquet", "rejects.parquet")
    ]
    return rows[0], rows[1]


def main() -> None:
    """Prepare, and write the times and the counts."""
    raw, work, output = map(Path, sys.argv[1:])
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (events, rejected), figures = timed(lambda: prepare(raw, work))
    output.write_text(json.dumps({**figures, "events": events, "rejected": rejected}))


if __name__ == "__main__":
    main()
