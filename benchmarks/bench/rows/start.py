"""From the start of a server's process to the first list at 100,000 items."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from benchmarks.serving.bundles import generated_store
from benchmarks.serving.start import PARTS, Start, start

WORK: Final = "start"
MINUTES: Final = 3.0
ITEMS: Final = 100_000
BAR: Final = 4.0


def shares(starts: list[Start]) -> list[str]:
    """Return the median CPU seconds of each process until the first list, largest first."""
    taken = {part: median(each.cpu[place] for each in starts) for place, part in enumerate(PARTS)}
    return [
        f"{part} {seconds:.2f} CPU s" for part, seconds in sorted(taken.items(), key=lambda item: -item[1])
    ]


def measure(context: Context) -> RowResult:
    """Start servers one after another; the first start compiles, imports histories, and is not counted."""
    folder = context.part(WORK)
    items = context.sized(ITEMS)
    store = generated_store(folder, items)
    root = Path(__file__).parents[3]
    starts = [start(store.path, folder / "server.log", root) for _ in range(context.rounds + 1)][1:]
    seconds = median(each.first_list for each in starts)
    version = store.path / "versions" / store.versions[0]
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    most = float(context.machine["copy_gb_s"])
    cpu = median(sum(each.cpu) for each in starts)
    limit = (
        f"{size / 1e6:,.0f} MB of version take {size / 1e9 / most:.2f} s at the speed of memory, "
        f"{size / 1e9 / most / seconds:.0%}; the rest imports and builds: {cpu:.1f} CPU s, of which "
        f"{context.threads} cores could do {cpu / context.threads:.1f} s each"
    )
    note = f"listens after {median(each.listening for each in starts):.2f} s"
    lines = [Line(f"first list at {items:,} items", "s", seconds, bar=BAR, more_is_better=False, note=note)]
    details = {"runs": [(each.listening, each.first_list, *each.cpu) for each in starts]}
    return RowResult(WORK, lines, limit, shares(starts), details)
