"""Preparing events, beside the same checks in pandas and in plain polars, which is the floor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from conf.errors import InputError

WORK: Final = "prepare"
MINUTES: Final = 8.0
EVENTS, ITEMS, USERS = 20_000_000, 200_000, 1_000_000
BLOCK: Final = 2_000_000
BAR, FLOOR_BAR = 5.0, 0.7
BAD: Final = 1000
"""One event in so many has a fault of each kind."""


def generate(folder: Path, events: int, items: int, users: int) -> None:
    """Write items.parquet and a folder of event files, skewed, with faults that have to be rejected."""
    rng = np.random.default_rng(0)
    made = folder / "raw"
    shutil.rmtree(made, ignore_errors=True)
    (made / "events").mkdir(parents=True)
    names = [f"item-{n:07d}" for n in range(items)]
    titles = [f"{('red', 'blue', 'green', 'large')[n % 4]} thing number {n}" for n in range(items)]
    price = np.round(rng.gamma(2.0, 15.0, items), 2)
    pl.DataFrame({"item_id": names, "title": titles, "price": price}).write_parquet(made / "items.parquet")
    kinds = np.array(["view", "add_to_cart", "purchase"])
    for start in range(0, events, BLOCK):
        count = min(BLOCK, events - start)
        item = (items * rng.random(count) ** 3).astype(np.int64)
        user = (users * rng.random(count) ** 2).astype(np.int64)
        frame = pl.DataFrame({
            "user": user, "item": item, "event": kinds[np.searchsorted([0.8, 0.93], rng.random(count))],
            "timestamp": rng.integers(1_700_000_000, 1_730_000_000, count),
            "fault": rng.integers(0, BAD, count),
        })  # fmt: skip
        user_id = pl.format("user-{}", pl.col("user").cast(pl.String).str.zfill(8))
        item_id = pl.format("item-{}", pl.col("item").cast(pl.String).str.zfill(7))
        fault, moment = pl.col("fault"), pl.col("timestamp")
        frame.select(
            pl.when(fault == 0).then(None).otherwise(user_id).alias("user_id"),
            pl.when(fault == 1).then(pl.lit("unknown")).otherwise(item_id).alias("item_id"),
            "event",
            pl.when(fault == 2).then(-moment).otherwise(moment).alias("timestamp"),
        ).write_parquet(made / "events" / f"part-{start // BLOCK:03d}.parquet")


def measure(context: Context) -> RowResult:
    """Measure whole processes in turns, and check that all accept the same events.

    Raises:
        InputError: a worker failed, or accepts other events.

    """
    folder = context.part(WORK)
    try:
        return measured(context, folder)
    finally:  # gigabytes
        for made in ("own", "polars", "pandas", "raw"):
            shutil.rmtree(folder / made, ignore_errors=True)


def measured(context: Context, folder: Path) -> RowResult:
    """Measure in a folder, and leave the files there.

    Raises:
        InputError: this project's worker or plain polars failed, or another one accepts other events.

    """
    events = context.sized(EVENTS)
    generate(folder, events, context.sized(ITEMS), context.sized(USERS))
    raw = folder / "raw"
    own = context.own("shelfwise", "own_prepare", raw, folder / "own", 0)
    workers = [own, context.own("polars", "polars_prepare", raw, folder / "polars")]
    missing: list[str] = []
    try:
        workers.append(context.other("pandas", "pandas", "pandas_prepare", raw, folder / "pandas"))
    except InputError as error:
        missing.append(str(error))
    runs = context.alternate(workers, folder, missing)
    expected = runs["polars"].found[0]
    for name, one in runs.items():
        for key in ("events", "rejected"):
            if one.found[0][key] != expected[key]:
                raise InputError(f"{name} has {one.found[0][key]:,} {key}, plain polars {expected[key]:,}")
    mine, what = runs["shelfwise"].median("seconds"), f"{events:,} events"
    lines = [
        Line(
            what, "s", mine, name, runs[name].median("seconds"), bar,
            more_is_better=False, note=runs["shelfwise"].cpu_beside(runs[name]),
        )
        for name, bar in (("pandas", BAR), ("polars", FLOOR_BAR))
        if name in runs
    ]  # fmt: skip
    size = sum(path.stat().st_size for path in raw.rglob("*.parquet"))
    written = float(runs["shelfwise"].found[0]["bytes_written"])
    most = float(context.machine["copy_gb_s"])
    peaks = ", ".join(f"{name} {one.median('peak_mib'):,.0f}" for name, one in runs.items())
    limit = (
        f"{size / 1e9:.2f} GB read and {written / 1e9:.2f} GB written: {(size + written) / mine / 1e9:.2f} "
        f"GB/s of files, memory has {most:,.0f}; peak MiB {peaks}"
    )
    profiled = context.once(context.own("profile", "own_prepare", raw, folder / "own", 1), folder)
    details = {name: list(one.found) for name, one in runs.items()}
    return RowResult(WORK, lines, "; ".join([limit, *missing]), profiled["profile"], details)
