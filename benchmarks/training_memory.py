"""Memory of the parts of a training that read all events: `python -m benchmarks.training_memory`.

Each part runs in a process of its own on the same mapped arrays of an invented, skewed shop. What counts is
its anonymous memory: pages of mapped files are the operating system's to drop.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from conf.encoders import UserEncoderConfig
from conf.schema import FactorConfig
from encoders.contexts import ContextSampler
from encoders.factors.co_purchase import Factors
from encoders.training.stage_two import TowerBatches
from features.data.dataset import Events, FloatArray
from features.data.prefixes import item_counts

WEIGHTS: Final[FloatArray] = np.array([1.0, 0.25], dtype=np.float32)
"""Of a purchase and of a click."""
FILES: Final = ("user", "item", "kind", "time", "offsets")
_BLOCK: Final = 1 << 22


def make_events(folder: Path, events: int, items: int, users: int, seed: int = 0) -> None:
    """Write the arrays of an invented shop, a block at a time.

    Histories have Zipf-like lengths; items are chosen with a probability that falls like the inverse root of
    their rank; half of a history's events share a second with others.
    """
    rng = np.random.default_rng(seed)
    share = rng.permutation(1.0 / np.arange(1, users + 1) ** 0.7)
    lengths = rng.multinomial(events - users, share / share.sum()) + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.save(folder / "offsets.npy", offsets)
    types = {"user": np.int32, "item": np.int32, "kind": np.int8, "time": np.int64}
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (events,))
        for name, dtype in types.items()
    }
    for start in range(0, events, _BLOCK):
        place = np.arange(start, min(start + _BLOCK, events))
        user = np.searchsorted(offsets, place, side="right") - 1
        arrays["user"][place] = user
        arrays["item"][place] = items * rng.random(len(place)) ** 2
        arrays["kind"][place] = rng.random(len(place)) < 0.75
        arrays["time"][place] = 1_600_000_000 + (place - offsets[user]) // 2 * 60
    for array in arrays.values():
        array.flush()


def open_events(folder: Path) -> Events:
    """Map the arrays of `make_events`."""
    return Events(*(np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in FILES))


def contexts(events: Events, items: int) -> None:
    """Prepare the text encoder's contexts and draw 20 steps of them."""
    texts = np.arange(items, dtype=np.int32)
    sampler = ContextSampler(events, events.offsets[1:], WEIGHTS, texts, window=5, piece=8)
    for batch in sampler.batches(20, 256, seed=0):
        batch.rows()


def windows(events: Events, items: int) -> None:
    """Count the items and draw an epoch of the towers' windows, seconds shuffled."""
    end = events.offsets[1:]
    item_counts(events, end, items)
    batches = TowerBatches(events, end, UserEncoderConfig(), seed=0, ties_unordered=True)
    next(iter(batches))


def factors(events: Events, items: int) -> None:
    """Fit co-purchase factors, with one iteration, which takes as much memory as more."""
    Factors.fit(events, events.offsets[1:], items, WEIGHTS, FactorConfig(iterations=1), seed=0)


PARTS: Final[dict[str, Callable[[Events, int], None]]] = {
    "contexts": contexts, "windows": windows, "factors": factors
}  # fmt: skip


def anonymous_memory() -> int:
    """Return the bytes of this process that belong to no file (Linux)."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux 4.5 or later"
    return 1024 * int(found.group(1))


class Peak:
    """The largest anonymous memory within a block, above that at its beginning, read every 10 ms."""

    def __enter__(self) -> Peak:
        """Begin to read."""
        self._before = self.bytes = anonymous_memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def _read(self) -> None:
        while not self._done.wait(0.01):
            self.bytes = max(self.bytes, anonymous_memory())

    def __exit__(self, *_: object) -> None:
        """Set the result."""
        self._done.set()
        self._thread.join()
        self.bytes = max(self.bytes, anonymous_memory()) - self._before


def measure(part: str, folder: Path, items: int) -> dict[str, float]:
    """Run a part in this process; return its peak in bytes and its CPU time in seconds."""
    events, started = open_events(folder), time.process_time()
    with Peak() as peak:
        PARTS[part](events, items)
    return {"bytes": peak.bytes, "seconds": time.process_time() - started}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every part at every number of events, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--events", type=float, nargs="+", default=[1e6, 1e7, 1e8], help="17 bytes of disk each"
    )
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--per-user", type=int, default=50, help="events per user, in the mean")
    parser.add_argument("--folder", type=Path, help="for the arrays; a temporary one by default")
    parser.add_argument(
        "--part", choices=[*PARTS], help="run one part on the arrays in --folder and print JSON"
    )
    given = parser.parse_args(arguments)
    if given.part:
        sys.stdout.write(json.dumps(measure(given.part, given.folder, given.items)) + "\n")
        return
    table = Table("part", *(f"{int(n):,} events" for n in given.events))
    cells: dict[str, list[str]] = {part: [] for part in PARTS}
    for number in map(int, given.events):
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            make_events(Path(name), number, given.items, max(number // given.per_user, 1))
            for part in PARTS:
                command = [sys.executable, "-m", "benchmarks.training_memory", "--part", part]
                command += ["--folder", name, "--items", str(given.items)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                cells[part].append(f"{found['bytes'] / 2**20:,.0f} MiB, {found['seconds']:.0f} s CPU")
    for part, row in cells.items():
        table.add_row(part, *row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
