"""Searching 400 of a million items, beside FAISS called directly with the same index."""

from __future__ import annotations

from typing import Final

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context

WORK: Final = "search"
MINUTES: Final = 2.0
ITEMS, DIM, K, QUERIES = 1_000_000, 128, 400, 512
BAR: Final = 0.9


def measure(context: Context) -> RowResult:
    """Measure the searcher and FAISS on one index, in turns inside one process.

    Raises:
        InputError: the worker failed.

    """
    folder = context.part(WORK)
    items = context.sized(ITEMS)
    worker = context.own("search", "own_search", items, DIM, K, QUERIES, context.threads, context.rounds)
    found = context.once(worker, folder)  # turns are inside: an index takes longer to build than to search
    note = f"{found['rows_shared']:.1%} of the rows are the same"
    lines = [
        Line(f"{K} of {items:,} items, batches of {batch}", "queries/s", found[f"own_{batch}"],
             "raw FAISS, same index", found[f"faiss_{batch}"], BAR, note=note)
        for batch in (1, 32, 256)
    ]  # fmt: skip
    scanned = float(found["bytes_a_query"])
    reached = scanned * float(found["own_256"]) / 1e9
    most = float(context.machine["copy_gb_s"])
    limit = (
        f"{found['index']}: {scanned / 1e6:,.1f} MB of codes a query, at 256 a batch {reached:,.1f} GB/s; "
        f"memory has {most:,.0f}"
        + (", a batch reads a list from the caches" if reached > most else f" ({reached / most:.0%})")
    )
    return RowResult(WORK, lines, limit, found["profile"], dict(found))
