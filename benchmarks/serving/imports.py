"""The import of histories at a server's first start: time and memory by the number of events.

    python -m benchmarks.serving.imports --events 1000000 10000000

Generates a histories file of each size (50 events a user, 200,000 items, popularity skewed), imports it into
an empty SQLite file in a process of its own, and prints events per second of CPU time, the peak of its
memory and the growth exponent: log(peak / former peak) / log(events / former events), without the memory that
the libraries take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from features.data import schema
from serving.state.sqlite.file import SqliteFile
from serving.state.sqlite.users import SqliteUserState

EVENTS_EACH: Final = 50
ITEMS: Final = 200_000
KINDS: Final = ("purchase", "add_to_cart", "click")
CONSOLE: Final = Console()
_START: Final = 1_700_000_000
_USERS_AT_A_TIME: Final = 20_000


def generate(path: Path, events: int) -> None:
    """Write a histories file of so many events, some at a time."""
    rng = np.random.default_rng(0)
    writer: pq.ParquetWriter | None = None
    for first in range(0, events // EVENTS_EACH, _USERS_AT_A_TIME):
        users = np.arange(first, min(first + _USERS_AT_A_TIME, events // EVENTS_EACH))
        rows = len(users) * EVENTS_EACH
        items = (ITEMS * rng.random(rows) ** 3).astype(np.int64)
        kinds = rng.choice(len(KINDS), size=rows, p=[0.2, 0.2, 0.6])
        ages = np.sort(rng.integers(0, 300 * 86_400, size=(len(users), EVENTS_EACH)), axis=1)
        table = pl.select(
            (pl.lit("user-") + pl.Series(np.repeat(users, EVENTS_EACH)).cast(pl.String)).alias(
                schema.USER_ID
            ),
            (pl.lit("item-") + pl.Series(items).cast(pl.String)).alias(schema.ITEM_ID),
            pl.Series(np.array(KINDS)[kinds]).alias(schema.EVENT),
            pl.Series(_START + ages.ravel()).alias(schema.TIMESTAMP),
            pl.Series(np.tile(np.arange(EVENTS_EACH), len(users))).alias(schema.ORDER),
        ).to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def measure(histories: Path, state: Path) -> dict[str, Any]:
    """Import a file into a new state file; return seconds, and MiB before and at the peak."""
    before = _memory("VmRSS")

    async def run() -> int:
        file = SqliteFile(state)
        try:
            return (await SqliteUserState(file).import_histories(histories)).new
        finally:
            await file.close()

    began, cpu = time.monotonic(), time.process_time()
    new = asyncio.run(run())
    return {
        "new": new,
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
        "mib_before": before,
        "mib_peak": _memory("VmHWM"),
        "state_mib": state.stat().st_size / 2**20,
    }


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def exponent(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Return the growth exponent of the memory between two sizes: 0 is constant, 1 is proportional."""
    grown = (after["mib_peak"] - after["mib_before"]) / (before["mib_peak"] - before["mib_before"])
    return math.log(grown) / math.log(after["new"] / before["new"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.imports",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument(
        "--work-dir", default="work/benchmarks/imports", help="files, removed after each size"
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        sys.stdout.write(json.dumps(measure(Path(options.one[0]), Path(options.one[1]))) + "\n")
        return 0
    folder = Path(options.work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(
        "events", "events/s of CPU", "seconds", "MiB before", "MiB at the peak", "exponent", "MiB state"
    )
    measured: list[dict[str, Any]] = []
    for events in options.events:
        histories, state = folder / f"histories-{events}.parquet", folder / f"state-{events}.sqlite"
        generate(histories, events)
        command = [sys.executable, "-m", "benchmarks.serving.imports", "--one", str(histories), str(state)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured.append(json.loads(done.stdout))
        for file in folder.glob(f"*-{events}.*"):
            file.unlink()
        now = measured[-1]
        table.add_row(
            f"{now['new']:,}", f"{now['new'] / now['cpu_seconds']:,.0f}", f"{now['seconds']:,.0f}",
            f"{now['mib_before']:.0f}", f"{now['mib_peak']:.0f}",
            f"{exponent(*measured[-2:]):.2f}" if len(measured) > 1 else "", f"{now['state_mib']:,.0f}",
        )  # fmt: skip
        (folder / "imports.json").write_text(json.dumps(measured, indent=2) + "\n")
    CONSOLE.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
