"""One `shelfwise run` in a process of its own: metrics, wall time and peak memory, stored for reuse."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from conf.errors import InputError
from features.data.pipeline_step import write_atomically

RECORD = "run.json"
LOG = "run.log"
METRICS = Path("evaluation") / "metrics.json"


@dataclass(frozen=True)
class Run:
    """The cost and the metrics of a finished run."""

    overrides: list[str]
    """Arguments of `shelfwise run`, without the work directory."""
    seconds: float
    peak_mib: float
    """Largest resident memory of the process, MiB."""
    complete: bool
    """False where steps of an earlier attempt were reused: `seconds` then excludes them."""
    metrics: dict[str, Any]
    """Content of metrics.json."""


def merge_overrides(*groups: Iterable[str]) -> list[str]:
    """Return merged overrides; of those with the same key the last one wins, at the position of the first."""
    merged: dict[str, str] = {}
    for group in groups:
        for override in group:
            key, equals, _ = override.partition("=")
            if not equals:
                raise InputError(f"'{override}' is not an override; write key=value")
            merged[key] = override
    return list(merged.values())


def finished(work: Path, overrides: list[str]) -> Run | None:
    """Return the stored result of the same overrides, or None."""
    try:
        record = json.loads((work / RECORD).read_text())
        metrics = json.loads((work / METRICS).read_text())
    except (OSError, ValueError):
        return None
    if record.get("overrides") != overrides:
        return None
    return Run(overrides, record["seconds"], record["peak_mib"], record["complete"], metrics)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Wait for a process; return its exit code and peak memory in MiB.

    Linux includes the parent's memory at the start of the child, so callers must be small.
    """
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB here
    return process.returncode, usage.ru_maxrss * unit / 2**20


def run_once(overrides: list[str], work: Path, console: Console, checkout: Path | None = None) -> Run:
    """Run `shelfwise run` with the overrides in `work`, unless finished; an interrupted run is resumed.

    Args:
        overrides: settings, without `work_dir`.
        work: the run's work directory; its output goes to `run.log` there.
        console: shows progress.
        checkout: another checkout of this repository to run; None is this one.

    Raises:
        InputError: the run failed; the message ends with its last output.
    """
    kept = finished(work, overrides)
    if kept is not None:
        console.print(f"{work}: finished before, kept")
        return kept
    resumed = (work / LOG).exists()
    work.mkdir(parents=True, exist_ok=True)
    (work / RECORD).unlink(missing_ok=True)
    command = [sys.executable, "-m", "shelfwise", "run", *overrides, f"work_dir={work.resolve()}"]
    console.print(f"{work}: {'resuming' if resumed else 'running'}", highlight=False)
    started = time.perf_counter()
    with (work / LOG).open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=checkout)
        try:
            code, peak = _wait(process)
        except BaseException:
            process.terminate()
            raise
    seconds = round(time.perf_counter() - started, 1)
    if code != 0:
        last = (work / LOG).read_text(errors="replace").strip().splitlines()[-3:]
        raise InputError(f"{work}: the run ended with exit code {code}: {' | '.join(last)}")
    record = {
        "overrides": overrides,
        "seconds": seconds,
        "peak_mib": round(peak, 1),
        "complete": not resumed,
    }
    write_atomically(work / RECORD, json.dumps(record, indent=2) + "\n")
    run = finished(work, overrides)
    if run is None:
        raise InputError(f"{work / METRICS}: the run wrote no result; see {work / LOG}")
    console.print(f"{work}: {seconds:,.0f} s, {peak:,.0f} MiB", highlight=False)
    return run


def shown_command(benchmark: str, *arguments: str) -> str:
    """Return a benchmark's command as a user would type it, with file names only."""
    words = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        words.append(f"{key}={Path(value).name}" if equals and value.startswith("/") else argument)
    return f"python -m benchmarks.{benchmark} {shlex.join(words)}"


def put_section(page: Path, name: str, markdown: str) -> None:
    """Replace the part of a page between the markers of `name`, or append it with markers.

    Args:
        page: a Markdown file; created if missing.
        name: of the section.
        markdown: its new content.
    """
    begin, end = f"<!-- {name}: written by benchmarks -->", f"<!-- /{name} -->"
    text = page.read_text() if page.is_file() else ""
    section = f"{begin}\n\n{markdown.strip()}\n\n{end}"
    if begin in text and end in text:
        before, _, rest = text.partition(begin)
        text = before + section + rest.partition(end)[2]
    else:
        text = f"{text.rstrip()}\n\n{section}\n" if text.strip() else f"{section}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, text)
