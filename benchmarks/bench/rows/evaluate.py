"""Evaluating users over the whole catalogue, beside RecTools and RecBole; metrics alone beside ranx."""

from __future__ import annotations

from typing import Final

from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import WORKERS, Context
from benchmarks.bench.timing import Runs
from benchmarks.evaluation_speed.command import HERE, TOLERANCE, generate
from conf.errors import InputError

WORK: Final = "evaluate"
MINUTES: Final = 3.0
USERS, ITEMS, DIM, SEED = 22_363, 12_101, 64, 0
BAR: Final = 3.0
PEERS: Final = {"rectools": "RecTools", "recbole": "RecBole"}


def agree(runs: dict[str, Runs], own: str) -> None:
    """Check that every library measures the same vectors alike.

    Raises:
        InputError: two of them differ by more than rounding.

    """
    expected = runs[own].found[0]["metrics"]
    for name, one in runs.items():
        for metric, value in one.found[0]["metrics"].items():
            if abs(value - expected[metric]) > TOLERANCE:
                raise InputError(
                    f"{name} measures {metric} differently: {value:.7f}, not {expected[metric]:.7f}"
                )


def measure(context: Context) -> RowResult:
    """Measure all libraries in turns; one that fails or cannot be installed is named in the row.

    Raises:
        InputError: this project's worker failed or all others did, or the metrics differ.

    """
    folder = context.part(WORK)
    users, items = context.sized(USERS), context.sized(ITEMS)
    generate(folder, users, items, DIM, SEED)
    own = context.own("shelfwise", "own_evaluate", folder, 0)
    workers, missing = [own], []
    scripts = {name: (peer, HERE / f"{peer}_worker.py") for peer, name in PEERS.items()}
    scripts["ranx"] = ("ranx", WORKERS / "ranx_metrics.py")  # reads the lists of the one that runs first
    for name, (peer, path) in scripts.items():
        try:
            workers.append(context.script(name, peer, path, folder))
        except InputError as error:
            missing.append(str(error))
    runs = context.alternate(workers, folder, missing)
    agree(runs, own.name)
    mine = runs[own.name]
    work = f"{users:,} users, {items:,} items, top 20 and 8 metrics"
    lines = [
        Line(
            work, "s", mine.median("seconds"), name, runs[name].median("seconds"), BAR,
            more_is_better=False, note=mine.cpu_beside(runs[name]),
        )
        for name in PEERS.values()
        if name in runs
    ]  # fmt: skip
    if "ranx" in runs:
        lines.append(
            Line(
                "the metrics alone, from finished lists", "s", mine.median("metric_seconds"), "ranx",
                runs["ranx"].median("seconds"), BAR, more_is_better=False,
            )
        )  # fmt: skip
    if not lines:
        raise InputError("; ".join(missing))
    flop = 2.0 * users * items * DIM
    reached, most = flop / mine.median("seconds") / 1e9, float(context.machine["gflops_fp32"])
    limit = f"{flop / 1e9:,.0f} GFLOP of scores: {reached:,.0f} of {most:,.0f} GFLOP/s ({reached / most:.0%})"
    profiled = context.once(context.own("profile", "own_evaluate", folder, 1), folder)
    details = {name: list(one.found) for name, one in runs.items()} | {"missing": missing}
    return RowResult(WORK, lines, "; ".join([limit, *missing]), profiled["profile"], details)
