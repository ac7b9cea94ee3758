"""Rows of work beside other projects, each against its bar, in one run on one machine.

    make bench BEAUTY=folder
    make bench BEAUTY=folder SCALE=0.01
    python -m benchmarks.bench --rows encode,prepare --folder work/bench

Other projects run in environments of their own with pinned versions, made on the first call. Each row is a
JSON file in the folder; a finished row is kept while program, machine and settings are the same, unless
`--again` is given; a failed one is a line of the table and measured on the next call. Runs of both sides
alternate; medians are compared. A trial at a smaller scale has a folder of its own, and its table says so.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.bench import machine
from benchmarks.bench.result import RowResult, to_markdown
from benchmarks.bench.rows import (
    encode,
    evaluate,
    finetune,
    int8_recall,
    prepare,
    search,
    size,
    start,
    towers,
)
from benchmarks.bench.rows.context import Context
from conf.errors import InputError
from features.data.pipeline_step import write_atomically
from ranking.pipeline.publish import git_sha

_MODULES: Final = (encode, int8_recall, finetune, towers, evaluate, prepare, search, start, size)
ROWS: Final[dict[str, Callable[[Context], RowResult]]] = {module.WORK: module.measure for module in _MODULES}
MINUTES: Final[dict[str, float]] = {module.WORK: module.MINUTES for module in _MODULES}
"""Expected at full size on two idle cores, without the making of environments."""
TRIAL: Final = "trial"
"""Folder of the results of a smaller scale, inside the run's."""
MACHINE: Final = "machine.json"
TABLE: Final = "bench.md"


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: a row that is not known.

    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", default=",".join(ROWS), help=f"some of {','.join(ROWS)}")
    parser.add_argument("--folder", type=Path, default=Path("work/bench"))
    parser.add_argument("--environments", type=Path, help="of the others; in the folder by default")
    parser.add_argument(
        "--beauty", type=Path, help="folder with items.parquet and events.parquet of Amazon Beauty"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side; medians are compared")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the full size, to try the benchmark"
    )
    parser.add_argument("--again", action="store_true", help="measure finished rows again")
    options = parser.parse_args(arguments)
    options.rows = [name for name in options.rows.split(",") if name]
    for name in options.rows:
        if name not in ROWS:
            raise InputError(f"--rows {name}: not one of {', '.join(ROWS)}")
    if not 0 < options.scale <= 1:
        raise InputError(f"--scale {options.scale:g}: must be above 0 and at most 1")
    return options


def measured_row(name: str, context: Context, again: bool) -> dict[str, Any]:
    """Return a row's values: those of its file, or measured now; a failure is a value, too."""
    path = context.folder / f"{name}.json"
    settings = {
        "scale": context.scale, "threads": context.threads, "rounds": context.rounds,
        "beauty": context.beauty is not None, "program": git_sha(),
        "processor": context.machine["processor"], "versions": context.machine["versions"],
    }  # fmt: skip
    if path.is_file() and not again:
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept.get("settings") == settings:
            context.console.print(f"{name}: finished before, kept")
            return {**kept, "kept": True}
    context.console.rule(name)
    began = time.perf_counter()
    try:
        found = ROWS[name](context).plain()
    except InputError as error:
        context.console.print(f"[red]{name}: {error}[/red]", highlight=False)
        return {"work": name, "failed": str(error)}
    except Exception as error:  # a fault of one row leaves the others
        context.console.print_exception()
        return {"work": name, "failed": f"{type(error).__name__}: {error}"}
    seconds = time.perf_counter() - began
    found |= {"settings": settings, "row_seconds": seconds, "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M}"}
    write_atomically(path, json.dumps(found, indent=2) + "\n")
    context.console.print(f"{name}: {seconds / 60:.1f} minutes")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows, write and show the table; return 1 where a row could not be measured."""
    console = Console()
    try:
        options = read_options(arguments)
    except InputError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        return 2
    home: Path = options.folder.resolve()
    folder = home if options.scale == 1 else home / TRIAL
    folder.mkdir(parents=True, exist_ok=True)
    if options.scale == 1:
        each = ", ".join(f"{name} {MINUTES[name]:g}" for name in options.rows)
        total = sum(MINUTES[name] for name in options.rows)
        console.print(f"minutes on two idle cores: {each}; {total:g} in all", highlight=False)
    limits = machine.describe(options.threads)
    write_atomically(folder / MACHINE, json.dumps(limits, indent=2) + "\n")
    context = Context(
        folder, (options.environments or home / "environments").resolve(), limits, console, options.threads,
        options.rounds, None if options.beauty is None else options.beauty.resolve(), options.scale,
    )  # fmt: skip
    rows = [measured_row(name, context, options.again) for name in options.rows]
    command = f"python -m benchmarks.bench {shlex.join(arguments if arguments is not None else sys.argv[1:])}"
    table = to_markdown(rows, limits, command.strip(), options.scale)
    write_atomically(folder / TABLE, table)
    console.print(table, markup=False, highlight=False)
    return int(any("failed" in row for row in rows))
