"""Evaluating users over the whole catalogue, beside RecTools and RecBole; metrics alone beside ranx."""

from __future__ import annotations

from typing import Final

from benchmarks.bench.peers import interpreter
from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from benchmarks.bench.timing import Runs, Worker, run_worker
from benchmarks.evaluation_speed.command import HERE, TOLERANCE, generate
from conf.errors import InputError

WORK: Final = "evaluate"
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
    """Measure all libraries in turns; one that cannot be installed is named in the row.

    Raises:
        InputError: a worker failed, or the metrics differ.

    """
    folder = context.part(WORK)
    users, items = context.sized(USERS), context.sized(ITEMS)
    generate(folder, users, items, DIM, SEED)
    own = context.own("shelfwise", "own_evaluate", folder, 0)
    workers, missing = [own], []
    for peer, name in PEERS.items():
        try:
            python = interpreter(peer, context.environments, context.console)
        except InputError as error:
            missing.append(str(error))
            continue
        command = [python, str(HERE / f"{peer}_worker.py"), str(folder.resolve())]
        workers.append(Worker(name, command, context.environment()))
    runs = context.alternate(workers, folder)
    agree(runs, own.name)
    mine = runs[own.name]
    work = f"{users:,} users, {items:,} items, top 20 and 8 metrics"
    lines = [
        Line(
            work,
            "s",
            mine.median("seconds"),
            name,
            runs[name].median("seconds"),
            BAR,
            more_is_better=False,
            note=mine.cpu_beside(runs[name]),
        )  # fmt: skip
        for name in PEERS.values()
        if name in runs
    ]
    try:
        ranx = context.other("ranx", "ranx", "ranx_metrics", folder)
        alone = context.alternate([ranx], folder)["ranx"]
        agree({own.name: mine, "ranx": alone}, own.name)
        lines.append(
            Line(
                "the metrics alone, from finished lists", "s", mine.median("metric_seconds"), "ranx",
                alone.median("seconds"), BAR, more_is_better=False,
            )
        )  # fmt: skip
        runs |= {"ranx": alone}
    except InputError as error:
        missing.append(str(error))
    flop = 2.0 * users * items * DIM
    reached, most = flop / mine.median("seconds") / 1e9, float(context.machine["gflops_fp32"])
    limit = f"{flop / 1e9:,.0f} GFLOP of scores: {reached:,.0f} of {most:,.0f} GFLOP/s ({reached / most:.0%})"
    profiled = run_worker(context.own("profile", "own_evaluate", folder, 1), folder, context.seconds)
    details = {name: list(one.found) for name, one in runs.items()} | {"missing": missing}
    return RowResult(WORK, lines, "; ".join([limit, *missing]), profiled["profile"], details)
