"""From the start of a server's process to its first list, on a generated bundle.

    python -m benchmarks.serving.start --items 100000
    python -m benchmarks.serving.start --items 100000 --folder OTHER_CHECKOUT

Every start is a new process with a state that has the histories already; the first one is not counted,
because it compiles loops and reads files from the disk. Beside wall time it prints the CPU seconds of three
processes: the server, the fork server that imports the model's libraries, and the model's process forked from
it. The second and the third follow each other, so on an idle machine a start takes about their sum, and the
server's work is done beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import grpc
from rich.console import Console
from rich.table import Table

from benchmarks.process_tree import tree
from benchmarks.serving.bundles import generated_store
from benchmarks.serving.processes import Server, running
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc

CONSOLE: Final = Console()
_TIMEOUT_SECONDS: Final = 60.0
PARTS: Final = ("server", "fork server", "model")
"""The processes whose time is measured."""


@dataclass(frozen=True)
class Start:
    """One start; seconds."""

    listening: float
    first_list: float
    cpu: tuple[float, ...]
    """CPU seconds of the server, the fork server and the model's process."""


def cpu_seconds(stat: str) -> float:
    """Return user plus system seconds in a line of /proc/PID/stat; the name in it may have spaces."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu(server: Server) -> tuple[float, ...]:
    return tuple(cpu_seconds(Path(f"/proc/{pid}/stat").read_text()) for pid in tree(server.process.pid))


def start(store: Path, log: Path, folder: Path) -> Start:
    """Start a server, have it make a list, and stop it."""
    command = [sys.executable, "shelfwise.py", "serve", f"artifacts={store}", "port=0"]
    began = time.monotonic()
    with running(command, log, folder) as server:
        listening = time.monotonic() - began
        with grpc.insecure_channel(server.address) as channel:
            stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
            found = stub.Recommend(pb.RecommendRequest(user_id="user-1"), timeout=_TIMEOUT_SECONDS)
        first_list = time.monotonic() - began
        if not found.items:
            raise RuntimeError("the first list is empty")
        return Start(listening, first_list, _cpu(server))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="checkout whose server is started")
    parser.add_argument("--work-dir", default="work/benchmarks/serving", help="generated bundles, reused")
    options = parser.parse_args(arguments)
    work = Path(options.work_dir).resolve()
    store = generated_store(work, options.items).path
    # The programs of a checkout are found before an installed one's.
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (options.folder, options.folder / "clients/python")))
    starts = [start(store, work / "start.log", options.folder) for _ in range(options.starts + 1)][1:]
    table = Table(
        "what", "median", "least", "most", title=f"{options.items:,} items, {options.starts} starts"
    )
    rows = {
        "seconds to the first list": [each.first_list for each in starts],
        "seconds until it listens": [each.listening for each in starts],
        **{f"CPU seconds, {part}": [each.cpu[n] for each in starts] for n, part in enumerate(PARTS)},
    }
    for name, values in rows.items():
        table.add_row(
            name, *(f"{value:.2f}" for value in (statistics.median(values), min(values), max(values)))
        )
    CONSOLE.print(table)
    (work / "start.json").write_text(json.dumps([asdict(each) for each in starts], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
