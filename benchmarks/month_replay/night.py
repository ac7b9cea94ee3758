"""A night of the replay: the shop's delivery is written, and `shelfwise retrain` runs on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.bad_days import Feed
from ranking.bundle.store import current_version

FEED: Final = "feed"
WORK: Final = "work"
STORE: Final = "store"


@dataclass(frozen=True)
class Night:
    """How a retraining ended."""

    exit_code: int
    seconds: float | None
    """Wall time; None where the replay was killed before it ended, as for the next."""
    cpu_seconds: float | None
    start: str | None
    """`cold` or `warm`; None where nothing was trained."""
    reason: str
    """Of the audit file."""
    served: str
    """Version that is current afterwards."""


def settings_of(folder: Path, overrides: Sequence[str]) -> list[str]:
    """Return the arguments of `shelfwise retrain`, the same every night."""
    feed = folder / FEED
    return [
        f"data.items={feed / 'items.parquet'}", f"data.events={feed / 'events.parquet'}",
        "data.text_fields=[title]", "split=global_time", f"work_dir={folder / WORK}",
        f"artifacts={folder / STORE}", "publish.map=false", *overrides,
    ]  # fmt: skip


def deliver(folder: Path, feed: Feed) -> None:
    """Write what the shop delivers."""
    target = folder / FEED
    target.mkdir(exist_ok=True)
    feed.items.write_parquet(target / "items.parquet")
    feed.events.write_parquet(target / "events.parquet")


def retrained(folder: Path, overrides: Sequence[str], log: Path) -> Night:
    """Run `shelfwise retrain`, in a process of its own, on what was delivered; an interrupted run goes on.

    Args:
        folder: of the replay.
        overrides: settings of the training.
        log: what `retrain` prints is added to it.
    """
    command = [sys.executable, "-m", "shelfwise", "retrain", *settings_of(folder, overrides)]
    begun = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, cpu = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
    if process.returncode in (1, 2):
        raise RuntimeError(f"retrain ended with {process.returncode}; see {log}")
    return replace(ended(folder, last_journal(folder)), seconds=round(seconds, 1), cpu_seconds=round(cpu, 1))


def ended(folder: Path, journal: Mapping[str, Any]) -> Night:
    """Return how a run ended, by its audit file; its CPU time is unknown."""
    return Night(
        int(journal["exit_code"]),
        None,
        None,
        journal["steps"].get("train", {}).get("start"),
        str(journal["reason"] or ""),
        current_version(folder / STORE),
    )


def last_journal(folder: Path) -> dict[str, Any]:
    """Return the audit file of the newest run."""
    files = sorted((folder / WORK / "retrain" / "audit").glob("*.json"))
    return dict(json.loads(files[-1].read_text())) if files else {}
