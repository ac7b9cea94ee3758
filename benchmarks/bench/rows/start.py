"""From the start of a server's process to the first list at 100,000 items."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from benchmarks.serving.bundles import generated_store
from benchmarks.serving.processes import running
from shelfwise_client import Client, RecommendQuery

WORK: Final = "start"
ITEMS: Final = 100_000
BAR: Final = 4.0


def first_list(store: Path, log: Path) -> tuple[float, float]:
    """Return seconds from the start of a server to its first list, and its memory in MiB then."""
    command = [
        sys.executable,
        "-m",
        "shelfwise",
        "serve",
        f"artifacts={store}",
        "port=0",
    ]
    began = time.perf_counter()
    with running(command, log) as server, Client(server.address, timeout=60.0) as client:
        found = client.recommend(RecommendQuery(session_id="bench", page_size=20))
        seconds = time.perf_counter() - began
        if len(found.items) != 20:
            raise RuntimeError(f"{len(found.items)} items in the first list, not 20")
        return seconds, server.memory_mib()


def measure(context: Context) -> RowResult:
    """Start servers one after another; the first start compiles and is not counted."""
    folder = context.part(WORK)
    items = context.sized(ITEMS)
    store = generated_store(folder, items)
    taken = [first_list(store.path, folder / "server.log") for _ in range(context.rounds + 1)][1:]
    seconds = sorted(one for one, _ in taken)[len(taken) // 2]
    size = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file()) / 2  # two versions
    most = float(context.machine["copy_gb_s"])
    limit = (
        f"{size / 1e6:,.0f} MB of bundle take {size / 1e9 / most:.2f} s at the speed of memory; the rest "
        f"imports and builds; {taken[0][1]:,.0f} MiB resident"
    )
    lines = [Line(f"first list at {items:,} items", "s", seconds, bar=BAR, more_is_better=False)]
    return RowResult(WORK, lines, limit, (), {"runs": taken})
