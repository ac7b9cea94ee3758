"""A leaky copy of a prepared dataset: what a linter has to catch, and what an evaluation would report.

    python examples/leaky_shop.py work/demo work/leaky
    shelfwise lint-data data.items=work/leaky/items.csv data.events=work/leaky/events.csv work_dir=work/leaky

The last tenth of the events is written twice: at its own time, and a day after the first event of the same
user, as a join without a time condition does it. Everything else is as it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

DAY = 86_400


def main() -> None:
    """Write items.csv and events.csv."""
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/leaky_shop.py WORK_DIR FOLDER")
    dataset, folder = Path(sys.argv[1]) / "dataset", Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    pl.read_parquet(dataset / "items.parquet").drop("item_text").write_csv(folder / "items.csv")
    events = pl.read_parquet(dataset / "events.parquet", columns=["user_id", "item_id", "event", "timestamp"])
    cut = int(events["timestamp"].sort()[int(0.9 * events.height)])
    first = pl.col("timestamp").min().over("user_id")
    copies = (
        events.with_columns((first + DAY).alias("copied"))
        .filter((pl.col("timestamp") >= cut) & (pl.col("copied") < cut))
        .with_columns(timestamp="copied")
        .drop("copied")
    )
    pl.concat([events, copies]).write_csv(folder / "events.csv")
    print(f"{copies.height:,} of {events.height:,} events are copied to a time before the test window")


if __name__ == "__main__":
    main()
