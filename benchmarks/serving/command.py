"""The server under load, on this machine: throughput, latency, memory, churn, freshness, overload.

    python -m benchmarks.serving --items 10000 100000 1000000 --seconds 60

A real server process and a separate load process, and the same load against an echo service of equal response
size, the upper bound of gRPC in Python on this machine. Bundles are generated once and stored in the work
folder. Nothing is asserted: the numbers go to a table, a JSON file and a Markdown page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks.serving.bundles import USERS, GeneratedStore, generated_store
from benchmarks.serving.load import RECOMMEND, Load, prepared_requests
from benchmarks.serving.processes import Server, run_load, running
from benchmarks.serving.report import HEADER, facts, page, rows
from features.data.pipeline_step import write_atomically
from ranking.bundle.store import CURRENT

CALLERS: Final = (1, 8, 32)
SCENARIOS: Final = ("churn", "freshness", "overload")
CONSOLE: Final = Console()
_SWAP_SECONDS: Final = 10.0
_EVENTS: Final = 200.0
_UPSERTS: Final = 20.0
_OVERLOAD: Final = 3.0
_WARM_SECONDS: Final = 2.0


@contextmanager
def sampled(value: Callable[[], float], seconds: float = 0.5) -> Iterator[list[float]]:
    """Sample a value at intervals."""
    values, stop = [value()], threading.Event()

    def collect() -> None:
        while not stop.wait(seconds):
            values.append(value())

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield values
    finally:
        stop.set()
        thread.join()


@contextmanager
def swapping(store: GeneratedStore) -> Iterator[None]:
    """Alternate the current version between the two of a store."""
    stop = threading.Event()

    def swap() -> None:
        turn = 0
        while not stop.wait(_SWAP_SECONDS):
            turn += 1
            write_atomically(store.path / CURRENT, store.versions[turn % 2] + "\n")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Benchmark:
    """All cells of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Prepare the folder."""
        self.options = options
        self.folder = Path(options.work_dir)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results: dict[str, Any] = {
            "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()},
            "seconds": options.seconds,
            "settings": options.set,
            "sizes": {},
        }

    def size(self, items: int) -> None:
        """Measure one catalogue."""
        CONSOLE.print(f"[bold]{items:,} items[/bold]")
        store = generated_store(self.folder, items)
        write_atomically(store.path / CURRENT, store.versions[0] + "\n")
        for leftover in store.path.glob("state.sqlite*"):  # every run starts with the same histories
            leftover.unlink()
        cells: dict[str, Any] = {"candidates": store.candidates}
        self.results["sizes"][str(items)] = cells
        command = [
            sys.executable, "-m", "shelfwise", "serve", f"artifacts={store.path}", "port=0", "admin=true",
            "reload_seconds=0.5", *self.options.set,
        ]  # fmt: skip
        with running(command, self.folder / f"server-{items}.log") as server:
            time.sleep(self.options.settle)
            cells["start_mib"] = round(server.memory_mib())
            run_load(self.load(server, items, callers=4, seconds=_WARM_SECONDS))
            response = self.folder / "response.bin"
            response.write_bytes(_one_response(server.address, items))
            cells["response_bytes"] = response.stat().st_size
            for callers in self.options.callers:
                cells[f"callers_{callers}"] = self.cell(server, items, callers)
            for rate in self.options.rates:
                with CONSOLE.status(f"{rate} calls a second"):
                    cells[f"rate_{rate}"] = run_load(self.load(server, items, scenario="open", rate=rate))
            cells["peak_mib"] = round(server.memory_mib("VmHWM"))
            for scenario in self.options.scenarios:
                cells[scenario] = getattr(self, scenario)(server, items, store, cells)
            cells["peak_mib_after_all"] = round(server.memory_mib("VmHWM"))
        with running(
            [sys.executable, "-m", "benchmarks.serving.echo", str(response)], self.folder / "echo.log"
        ) as echo:
            for callers in self.options.callers:
                cells[f"echo_{callers}"] = self.cell(echo, items, callers)
        self.write()

    def load(self, server: Server, items: int, **settings: Any) -> Load:  # noqa: ANN401 - fields of Load
        """Return a load."""
        usual = {"scenario": "closed", "seconds": self.options.seconds, "users": USERS}
        return Load(address=server.address, items=items, **{**usual, **settings})

    def cell(self, server: Server, items: int, callers: int) -> dict[str, Any]:
        """Measure closed-loop callers."""
        with CONSOLE.status(f"{callers} callers"):
            return run_load(self.load(server, items, callers=callers))

    def churn(
        self, server: Server, items: int, store: GeneratedStore, cells: dict[str, Any]
    ) -> dict[str, Any]:
        """Swap bundles, change items and record events during the load of 8 callers."""
        # At least two swaps, however short the cells are.
        seconds = max(self.options.seconds, 2.5 * _SWAP_SECONDS)
        before = server.memory_mib()
        with CONSOLE.status("churn"), swapping(store), sampled(server.memory_mib) as memory:
            measured = run_load(
                self.load(
                    server,
                    items,
                    callers=8,
                    seconds=seconds,
                    events_per_second=_EVENTS,
                    upserts_per_second=_UPSERTS,
                    seed=1,
                )  # fmt: skip
            )
        with CONSOLE.status("until the last version is loaded"):  # excluded from the next measurements
            time.sleep(_SWAP_SECONDS)
        return {**measured, "rss_mib": _memory(before, memory, server.memory_mib())}

    def freshness(
        self, server: Server, items: int, store: GeneratedStore, cells: dict[str, Any]
    ) -> dict[str, Any]:
        """Measure the delay from events and upserts to lists."""
        with CONSOLE.status("freshness"):
            return run_load(self.load(server, items, scenario="freshness"))

    def overload(
        self, server: Server, items: int, store: GeneratedStore, cells: dict[str, Any]
    ) -> dict[str, Any]:
        """Measure an open load of three times the throughput of 32 callers (or the most measured)."""
        sustained = cells[f"callers_{max(self.options.callers)}"]["per_second"]
        before = server.memory_mib()
        with CONSOLE.status("overload"), sampled(server.memory_mib) as memory:
            measured = run_load(self.load(server, items, scenario="open", rate=_OVERLOAD * sustained))
        return {
            **measured, "rate": _OVERLOAD * sustained, "sustained": sustained,
            "shed_share": measured["codes"].get("RESOURCE_EXHAUSTED", 0) / measured["calls"],
            "rss_mib": _memory(before, memory, memory[-1]),
        }  # fmt: skip

    def write(self) -> None:
        """Write what has been measured so far."""
        output = Path(self.options.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output.with_suffix(".json"), json.dumps(self.results, indent=2) + "\n")
        write_atomically(output.with_suffix(".md"), page(self.results))


def _memory(before: float, during: Sequence[float], after: float) -> dict[str, float]:
    return {"before": before, "largest": max(during), "after": after}


def _one_response(address: str, items: int) -> bytes:
    with grpc.insecure_channel(address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(RECOMMEND)
        return ask(prepared_requests(items, USERS, 0)[0], timeout=30)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--callers", type=int, nargs="+", default=list(CALLERS))
    parser.add_argument(
        "--rates", type=int, nargs="*", default=[100, 200], help="calls per second of an open load"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="per cell")
    parser.add_argument("--scenarios", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument(
        "--settle",
        type=float,
        default=0.0,
        help="seconds to wait first: of several workers the others start later",
    )
    parser.add_argument("--set", nargs="*", default=[], help="settings of the server, key=value")
    parser.add_argument("--work-dir", default="work/benchmarks/serving", help="generated bundles, reused")
    parser.add_argument("--output", default="work/benchmarks/serving", help="of the .json and .md files")
    benchmark = Benchmark(parser.parse_args())
    began = time.monotonic()
    for items in benchmark.options.items:
        benchmark.size(items)
    table = Table(*HEADER, title=f"serving, {time.monotonic() - began:.0f} s")
    for row in rows(benchmark.results):
        table.add_row(*row)
    CONSOLE.print(table)
    for fact in facts(benchmark.results):
        CONSOLE.print(fact, soft_wrap=True, highlight=False)
    return 0
