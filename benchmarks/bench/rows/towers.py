"""Time of the user tower to the recall of other libraries' SASRec, on Amazon Beauty's leave-one-out split."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.bench.peers import interpreter
from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from benchmarks.bench.rows.datasets import beauty_overrides, prepare_dataset
from benchmarks.bench.timing import run_program
from conf.errors import InputError

WORK: Final = "towers"
MINUTES: Final = 22.0
BAR: Final = 8.0
SECONDS: Final = 360.0
"""Training time of each other library; no epoch begins that would end later."""
PEERS: Final = {
    "RecTools SASRec": ("rectools", "rectools_sasrec", ("--epochs", "12")),
    "RecBole SASRec": ("recbole", "recbole_models", ("--model", "SASRec")),
}
METRIC: Final = "recall@10"


def seconds_to(recall: float, curve: Sequence[tuple[float, float]]) -> float | None:
    """Return the first time at which a curve of (seconds, recall) reaches a recall; None if it never does."""
    return next((seconds for seconds, reached in curve if reached >= recall), None)


def median_seconds(recall: float, curves: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """Return the median time of several curves to a recall; None if half of them never reach it."""
    times = [seconds_to(recall, curve) for curve in curves]
    reached = sorted(time for time in times if time is not None)
    return reached[len(times) // 2] if len(reached) > len(times) // 2 else None


def ended_early(found: Mapping[str, Any], budget: float) -> bool:
    """Return whether a library's best epoch was its last one, and time ended its training."""
    seconds = found["epoch_seconds"]
    return bool(found["epoch"] == len(seconds) and sum(seconds) + max(seconds) > budget)


def measure(context: Context) -> RowResult:
    """Train this project's towers, then each of the others within its time.

    Raises:
        InputError: the data set is not at hand, or this project's training failed.

    """
    folder = context.part(WORK)
    work = folder / "work"
    overrides = [
        "split=leave_one_out", "evaluation.exclude_seen=true", f"threads={context.threads}",
        f"work_dir={work}",
    ]  # fmt: skip
    data = beauty_overrides(context, folder)
    prepare_dataset([*data, f"work_dir={work}"])
    worker = context.own("towers", "own_towers", folder, 0, *data, *overrides)
    runs = context.alternate([worker], folder)["towers"].found
    curves = [[(float(seconds), float(recall)) for seconds, recall in run["curve"]] for run in runs]
    lines: list[Line] = []
    missing: list[str] = []
    details: dict[str, Any] = {"shelfwise": curves}
    for name, (peer, benchmark, options) in PEERS.items():
        try:
            theirs = train_peer(context, peer, benchmark, options, overrides, work)
        except InputError as error:
            missing.append(str(error))
            continue
        details[name] = theirs
        recall = float(theirs["valid"]["shelfwise"][METRIC])
        taken = sum(theirs["epoch_seconds"][: theirs["epoch"]])
        note = f"validation {METRIC} {recall:.4f}, epoch {theirs['epoch']} of {len(theirs['epoch_seconds'])}"
        if ended_early(theirs, SECONDS * context.scale):
            note += ", cut off by its time: it would have gone on"
        seconds = median_seconds(recall, curves)
        if seconds is None:
            most_recall = max(reached for curve in curves for _, reached in curve)
            note += f"; the tower reached at most {most_recall:.4f}"
        lines.append(
            Line(
                f"to the best {METRIC} of {name}", "s", curves[-1][-1][0] if seconds is None else seconds,
                name, taken, BAR, more_is_better=False, note=note, reached=seconds is not None,
            )
        )  # fmt: skip
    if not lines:
        raise InputError("; ".join(missing))
    profiled = context.once(context.own("profile", "own_towers", folder, 1, *data, *overrides), folder)
    epoch = median(float(run["seconds"]) / len(run["curve"]) for run in runs)
    rate, most = float(profiled["flop"]) / epoch / 1e9, float(context.machine["gflops_fp32"])
    limit = (
        f"an epoch and its validation: {float(profiled['flop']) / 1e9:,.0f} GFLOP in {epoch:.1f} s, "
        f"{rate:,.0f} of {most:,.0f} GFLOP/s ({rate / most:.0%})"
    )
    return RowResult(WORK, lines, "; ".join([limit, *missing]), profiled["profile"], details)


def train_peer(
    context: Context, peer: str, benchmark: str, options: Sequence[str], overrides: Sequence[str], work: Path
) -> dict[str, Any]:
    """Train another library's model on the same split, and return what its benchmark wrote.

    Raises:
        InputError: it cannot be installed, or failed.

    """
    python = interpreter(peer, context.environments, context.console)
    command = [
        sys.executable, "-m", f"benchmarks.{benchmark}", *options, "--python", python,
        "--max-seconds", str(SECONDS * context.scale), *overrides,
    ]  # fmt: skip
    run_program(command, benchmark, context.part(WORK), context.environment(), context.seconds)
    found: dict[str, Any] = json.loads((work / "benchmarks" / f"{benchmark}.json").read_text())
    return found
