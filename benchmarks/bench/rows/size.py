"""The size of the environment of a server, by package."""

from __future__ import annotations

from typing import Final

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from benchmarks.serving.size import BAR as MOST
from benchmarks.serving.size import result

WORK: Final = "size"
MINUTES: Final = 1.0
GIB: Final = 1024.0
"""MiB of a GiB."""
BAR: Final = MOST / GIB
LARGEST: Final = 5


def measure(context: Context) -> RowResult:
    """Make the environment from what is installed here, and measure it once: sizes do not vary.

    Raises:
        InputError: a package is missing here.

    """
    found = result(context.part(WORK) / "environment")
    note = f"torch {found['torch']}; all that an installation has: {found['whole'] / GIB:.2f} GiB"
    lines = [
        Line("a server's environment", "GiB", found["server"] / GIB, bar=BAR, more_is_better=False, note=note)
    ]
    largest = list(found["packages"].items())[:LARGEST]
    shares = [f"`{name}` {mib:,.0f} MiB, {mib / found['server']:.0%}" for name, mib in largest]
    return RowResult(WORK, lines, profile=shares, details=found)
