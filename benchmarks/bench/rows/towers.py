"""Time of the user tower to the recall of other libraries' SASRec, on Amazon Beauty's leave-one-out split."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.bench.peers import interpreter
from benchmarks.bench.result import Line, RowResult
from benchmarks.bench.rows.context import Context
from benchmarks.bench.timing import CALM
from conf.errors import InputError

WORK: Final = "towers"
BAR: Final = 8.0
SECONDS: Final = 720.0
"""Training time of each other library; no epoch begins that would end later."""
PEERS: Final = {
    "RecTools SASRec": ("rectools", "rectools_sasrec", ("--epochs", "12")),
    "RecBole SASRec": ("recbole", "recbole_models", ("--model", "SASRec")),
}
METRIC: Final = "recall@10"


def seconds_to(recall: float, curve: Sequence[tuple[float, float]]) -> float | None:
    """Return the first time at which a curve of (seconds, recall) reaches a recall; None if it never does."""
    return next((seconds for seconds, reached in curve if reached >= recall), None)


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
    items, events = context.beauty_file("items.parquet"), context.beauty_file("events.parquet")
    work = folder / "work"
    overrides = [
        "split=leave_one_out",
        "evaluation.exclude_seen=true",
        f"threads={context.threads}",
        f"work_dir={work}",
    ]
    data = ["data=amazon_reviews", f"data.items={items}", f"data.events={events}", "data.text_fields=[title]"]
    prepare = [sys.executable, "-m", "shelfwise", "prepare", *data, f"work_dir={work}"]
    subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
    worker = context.own("towers", "own_towers", folder, *data, *overrides)
    runs = context.alternate([worker], folder)["towers"].found
    curves = [[(float(seconds), float(recall)) for seconds, recall in run["curve"]] for run in runs]
    found = runs[-1]
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
        times = sorted(time for curve in curves if (time := seconds_to(recall, curve)) is not None)
        note = f"validation {METRIC} {recall:.4f}, epoch {theirs['epoch']} of {len(theirs['epoch_seconds'])}"
        if ended_early(theirs, SECONDS * context.scale):
            note += ", cut off by its time: it would have gone on"
        if len(times) < len(curves):
            most_recall = max(reached for curve in curves for _, reached in curve)
            missing.append(f"{name} reached {METRIC} {recall:.4f}, the tower at most {most_recall:.4f}")
            continue
        lines.append(
            Line(
                f"to the best {METRIC} of {name}",
                "s",
                times[len(times) // 2],
                name,
                taken,
                BAR,
                more_is_better=False,
                note=note,
            )
        )
    if not lines and missing:
        raise InputError("; ".join(missing))
    rate = found["flop"] / found["seconds"] / 1e9
    most = float(context.machine["gflops_fp32"])
    limit = (
        f"an epoch and its validation: {found['flop'] / found['epochs'] / 1e9:,.0f} GFLOP; "
        f"{rate:,.0f} of {most:,.0f} GFLOP/s ({rate / most:.0%})"
    )
    return RowResult(WORK, lines, "; ".join([limit, *missing]), found["profile"], details)


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
    log = context.part(WORK) / f"{benchmark}.log"
    with log.open("w") as output:
        done = subprocess.run(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, **CALM, **context.environment()},
        )
    if done.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise InputError(f"{peer}: exit code {done.returncode}; see {log}: {' / '.join(lines[-3:])}")
    found: dict[str, Any] = json.loads((work / "benchmarks" / f"{benchmark}.json").read_text())
    return found
