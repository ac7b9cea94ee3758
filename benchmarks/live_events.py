"""Cost of counting recorded events in a model and its state.

    python -m benchmarks.live_events --items 100000 --folder work/serving

A generated bundle is served in this process, without a socket: events of users who keep to a topic are
recorded in an embedded state, read back as by a starting server, and counted in batches of several sizes;
lists are made before and in between. Times are CPU times of one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.serving.bundles import END, KINDS, generated_store
from conf.serving import RedisConfig
from ranking.bundle.bundle import HISTORIES, load_bundle
from ranking.live.recorded_events import RecordedEvent
from ranking.live.updates import LiveItems
from ranking.types import History, Request
from serving.model.event_updater import CHUNK, START_CHUNK
from serving.state.contracts.user_state import MICROS, NewEvent
from serving.stores import open_stores

EVENTS: Final = 20_000
ROOM: Final = 1000
SIZES: Final = (1, 10, CHUNK, START_CHUNK)
LISTS: Final = 200


def memory_mib() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def milliseconds(work: Callable[[], object]) -> float:
    """Return the CPU time of this thread for some work."""
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1000


def recorded(store: Path) -> list[NewEvent]:
    """Return new events: a repetition of the generated users' histories."""
    past = pl.read_parquet(store / HISTORIES).head(EVENTS)
    rng = np.random.default_rng(0)
    columns = (past[name].to_list() for name in ("user_id", "item_id", "event"))
    return [
        NewEvent(user, item, kind, (END + 60 + n * 20) * MICROS + int(rng.integers(MICROS)), f"client:{n}")
        for n, (user, item, kind) in enumerate(zip(*columns, strict=True))
    ]


async def through_state(
    events: list[NewEvent], state: str | None
) -> tuple[list[RecordedEvent], float, float]:
    """Record events and read them back; return them, and the milliseconds per event of both."""
    with tempfile.TemporaryDirectory() as folder:
        stores = await open_stores(state, Path(folder), RedisConfig(prefix=f"bench-{time.time_ns()}:"))
        began = time.perf_counter()
        for start in range(0, len(events), 100):
            await stores.users.record(events[start : start + 100])
        recorded, began = time.perf_counter() - began, time.perf_counter()
        found: list[RecordedEvent] = []
        position = 0
        while (
            page := await stores.users.recorded_since(position, START_CHUNK, END * MICROS)
        ).position != position:
            found, position = found + page.events, page.position
        read = time.perf_counter() - began
        await stores.close()
    return found, recorded * 1000 / len(events), read * 1000 / len(events)


def lists(live: LiveItems, store: Path) -> list[Request]:
    """Return requests of known users of the generated shop."""
    rows = {item: row for row, item in enumerate(live.current.catalogue.base.ids)}
    past = pl.read_parquet(store / HISTORIES)
    requests = []
    for user in range(LISTS):
        own = past.filter(pl.col("user_id") == f"user-{user}")
        items = np.array([rows[item] for item in own["item_id"]], dtype=np.int32)
        kinds = np.array([KINDS.index(kind) for kind in own["event"]], dtype=np.int8)
        requests.append(Request(History(items, kinds, own["timestamp"].to_numpy()), END + 86_400))
    return requests


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path("work/serving"))
    parser.add_argument("--state", default=None, help="address of a Redis; an SQLite file by default")
    options = parser.parse_args()
    console = Console()
    generated = generated_store(options.folder, options.items)
    events, record, read = asyncio.run(through_state(recorded(generated.path), options.state))
    live = LiveItems(load_bundle(generated.path, generated.versions[0], ROOM), ROOM)
    requests = lists(live, generated.path)
    recommender = live.current.recommender
    for request in requests[:20]:
        recommender.recommend([request])
    live.count_events(events[:10])  # compiles

    table = Table("what", "ms", title=f"{options.items:,} items, {len(events):,} events")
    table.add_row("recording, an event", f"{record:.3f}")
    table.add_row("reading the feed, an event", f"{read:.3f}")
    before = [milliseconds(lambda r=request: recommender.recommend([r])) for request in requests]  # type: ignore[misc]
    memory = memory_mib()
    used = 10
    for size in SIZES:
        rounds = max(min(100, 4000 // size), 2)
        spent = [
            milliseconds(lambda at=used + n * size, size=size: live.count_events(events[at : at + size]))  # type: ignore[misc]
            for n in range(rounds)
        ]
        used += rounds * size
        table.add_row(f"counting {size} at a time, an event", f"{np.median(spent) / size:.3f}")
        table.add_row(
            f"counting {size}, the batch: median, longest", f"{np.median(spent):.2f}, {max(spent):.2f}"
        )
    began = time.thread_time()
    day, batches = events[used]._replace(time_us=events[-1].time_us + 2 * 86_400 * MICROS), 0
    left = live.count_events([day]).behind
    while left:
        left, batches = live.count_events([]).behind, batches + 1
    table.add_row(f"another day, in {batches + 1} batches", f"{(time.thread_time() - began) * 1000:.1f}")
    after = [milliseconds(lambda r=request: recommender.recommend([r])) for request in requests]  # type: ignore[misc]
    between = []
    for n, request in enumerate(requests):
        live.count_events(events[used + 10 * n : used + 10 * n + 10])
        between.append(milliseconds(lambda r=request: recommender.recommend([r])))  # type: ignore[misc]
    table.add_row("a list before any event, median", f"{np.median(before):.2f}")
    table.add_row("a list after them, median", f"{np.median(after):.2f}")
    table.add_row("a list right after 10 events were counted, median", f"{np.median(between):.2f}")
    table.add_row("memory that counting took, MiB", f"{memory_mib() - memory:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
