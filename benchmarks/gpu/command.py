"""GPU against CPU: every part of the engine on both devices of one machine, one after another.

    python -m benchmarks.gpu data=amazon_reviews data.items=items.parquet data.events=events.parquet \
        split=leave_one_out --output gpu.json

Each part runs in a process of its own on each device (`benchmarks/gpu/parts.py`), while GPU utilisation is
sampled. The CPU runs a fraction of long workloads, and rates are compared. Parts beyond the time budget are
skipped and listed. Nothing is asserted: the table shows which targets are met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.gpu.parts import PARTS, Settings, Sizes
from benchmarks.gpu.usage import gpu_usage
from conf.composition.compose import compose_command
from features.data.pipeline_step import write_atomically
from features.prepare import prepare

CONSOLE: Final = Console()
CPU: Final = "cpu"


@dataclass(frozen=True)
class Bar:
    """The target of a part on a GPU, and the measured value."""

    part: str
    what: str
    target: str
    reached: float | None
    holds: bool | None
    """None where the part was not measured."""


def cpu_share(sizes: Sizes) -> Sizes:
    """Return the CPU's workload for a GPU workload: enough to measure a rate."""
    return replace(
        sizes, texts=min(sizes.texts or 2_000, 2_000), steps=max(sizes.steps // 20, 4), items=sizes.items[:1]
    )


def measure(part: str, device: str, settings: Settings, folder: Path, timeout: float) -> dict[str, Any]:
    """Run a part in a process of its own; return its measurements, or `failed` with the reason.

    Args:
        part: its name.
        device: where it runs.
        settings: its input.
        folder: for its files.
        timeout: seconds after which it is killed.
    """
    given, output, log = (
        folder / f"{part}-{device.replace(':', '-')}.{e}" for e in ("in.json", "json", "log")
    )
    settings.write(given)
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.parts", part, device, str(given), str(output)]
    started = time.perf_counter()
    with log.open("w") as errors, gpu_usage() as usage:
        try:
            code = subprocess.run(command, stdout=errors, stderr=errors, timeout=timeout).returncode
        except subprocess.TimeoutExpired:
            return {"failed": f"ended after {timeout:.0f} s"}
    if code or not output.is_file():
        last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        return {"failed": f"exit code {code}: {last}"}
    result: dict[str, Any] = json.loads(output.read_text())
    result["process_seconds"] = round(time.perf_counter() - started, 1)
    if device != CPU:
        result["gpu"] = usage.summary()
    return result


def _ratio(cpu: dict[str, Any], gpu: dict[str, Any], key: str, faster_is_more: bool) -> float | None:
    """Return the speed-up of the GPU, by a rate or by seconds; None where one is missing."""
    if key not in cpu or key not in gpu:
        return None
    ratio = gpu[key] / cpu[key] if faster_is_more else cpu[key] / gpu[key]
    return float(ratio)


def bars(results: dict[str, dict[str, Any]], gpu: str, cpu_recall: float | None) -> list[Bar]:
    """Compare measurements with the targets of a data-centre GPU.

    Args:
        results: of each part, by device.
        gpu: the GPU's device.
        cpu_recall: recall@10 of a run of `experiment=best` on a CPU.
    """

    def of(part: str, device: str = gpu) -> dict[str, Any]:
        found: dict[str, Any] = results.get(part, {}).get(device, {})
        return found

    def bar(
        part: str, what: str, target: str, value: float | None, most: float, *, least: bool = False
    ) -> Bar:
        holds = None if value is None else (value >= most if least else value <= most)
        return Bar(part, what, target, value, holds)

    whole = of("whole")
    lost = None if cpu_recall is None or "recall@10" not in whole else cpu_recall - whole["recall@10"]
    found = [
        bar("embed", "titles a second", "20,000 or more", of("embed").get("per_second"), 20_000, least=True),
        bar("stage_one", "seconds for 300 steps", "10 or less", of("stage_one").get("seconds_of_300"), 10),
        bar("towers", "times the CPU's speed", "10 or more",
            _ratio(of("towers", CPU), of("towers"), "seconds", faster_is_more=False), 10, least=True),
        bar("whole", "seconds of run experiment=best", "180 or less", whole.get("seconds"), 180),
        bar("whole", "recall@10 below the CPU's", ".003 or less", lost, 0.003),
    ]  # fmt: skip
    for items, most in ((100_000, 1.0), (1_000_000, 3.0)):
        cell = of("search").get(str(items), {})
        found.append(
            bar("search", f"ms for 32 filtered queries, {items:,} items", f"{most:.0f} or less",
                cell.get("mixed_32_ms"), most)
        )  # fmt: skip
    return found


def shown(value: float | None) -> str:
    """Return a number with three significant digits."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def flat(prefix: str, result: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a result by their path."""
    found: dict[str, float] = {}
    for key, value in result.items():
        if isinstance(value, dict):
            found |= flat(f"{prefix}{key}.", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[prefix + key] = value
    return found


def print_results(results: dict[str, dict[str, Any]], gpu: str | None, found: Sequence[Bar]) -> None:
    """Print both devices side by side, then the targets."""
    table = Table("part", "figure", CPU, gpu or "no GPU", title="CPU beside GPU, one machine")
    for part, devices in results.items():
        sides = {device: flat("", result) for device, result in devices.items()}
        for key in dict.fromkeys(key for side in sides.values() for key in side):
            cells = (sides.get(d, {}).get(key) for d in (CPU, gpu or ""))
            table.add_row(part, key, *("" if cell is None else shown(cell) for cell in cells))
        for device, result in devices.items():
            if "failed" in result:
                table.add_row(part, f"[red]{device}: {result['failed']}[/red]", "", "")
    CONSOLE.print(table)
    if gpu is not None:
        table = Table("part", "figure", "target", "reached", "", title="Bars")
        for one in found:
            verdict = {None: "", True: "met", False: "[red]missed[/red]"}[one.holds]
            table.add_row(one.part, one.what, one.target, shown(one.reached), verdict)
        CONSOLE.print(table)


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    found = {"processor": platform.processor(), "cpus": os.cpu_count(), "torch": torch.__version__}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "gpu_gib": round(card.total_memory / 2**30), "cuda": torch.version.cuda}
    return found


def main() -> None:
    """Measure every part on every device, within the time budget."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="+", help="of the pipeline: data, split")
    parser.add_argument("--work", default="work/gpu", help="folder for the dataset and what is in between")
    parser.add_argument("--output", default="work/gpu/gpu.json", help="gets every figure as JSON")
    parser.add_argument("--seconds", type=float, default=480, help="what all parts may take together")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in this order")
    parser.add_argument("--small", action="store_true", help="a fraction: shows that everything runs")
    parser.add_argument("--cpu-recall", type=float, help="recall@10 of `experiment=best` on a CPU")
    options = parser.parse_args()
    began = time.monotonic()
    gpu = "cuda" if torch.cuda.is_available() else None
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    sizes = Sizes(2_000, 8, 2, (10_000,), 2.0, 2_000) if options.small else Sizes()
    settings = Settings(options.overrides, str(work.resolve()), sizes)
    prepare(compose_command("run", [*options.overrides, f"work_dir={settings.work}"]), CONSOLE)
    results: dict[str, dict[str, Any]] = {}
    for part in options.parts.split(","):
        results[part] = {}
        for device in ([gpu] if gpu else []) + ([] if part == "whole" and gpu else [CPU]):
            left = options.seconds - (time.monotonic() - began)
            if left < 5:
                results[part][device] = {"failed": "left out, the time was up"}
                continue
            CONSOLE.print(f"{part} on {device} ({left:.0f} s left)", highlight=False)
            given = replace(settings, sizes=cpu_share(sizes)) if gpu and device == CPU else settings
            results[part][device] = measure(part, device, given, work, left)
            written = {"machine": machine(), "results": results}
            write_atomically(Path(options.output), json.dumps(written, indent=2) + "\n")
    print_results(results, gpu, bars(results, gpu or "", options.cpu_recall))
    if gpu is None:
        CONSOLE.print("torch sees no GPU: the CPU's figures stand alone")
