"""Cost of a night's collection into the ledger: CPU seconds and memory by the number of stored events.

A state file is filled with made-up events of three months (25 a user, 60 % impressions), collected into an
empty ledger, given 10,000 more events of one day, and collected again, each in a process of its own.

    python -m benchmarks.ledger --events 1000000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from conf.serving import RedisConfig
from lifecycle.ledger.collection import collect
from serving.stores import open_stores

_START: Final = int(datetime(2025, 10, 1, tzinfo=UTC).timestamp())
_DAYS: Final = 90
_PER_USER: Final = 25
_ITEMS: Final = 50_000
_LATER: Final = 10_000
_KINDS: Final = ["impression"] * 12 + ["view"] * 5 + ["click"] * 2 + ["purchase"]
_STATE: Final = "state.sqlite"
_ADD: Final = """
INSERT INTO events (user, event_id, time_us, position, item_id, kind, recorded,
                    request_id, list_position, surface, model_version)
VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, 'home', '20260101T000000Z-abcdefabcdef')
"""


def fill(folder: Path, events: int, first_day: int, days: int) -> None:
    """Add events of some days to a state file, and users where it has none, without the cost of recording."""
    path, seed = folder / _STATE, random.Random(first_day)  # noqa: S311 - made-up events

    async def create() -> None:
        await (await open_stores(str(path), folder, RedisConfig())).close()

    asyncio.run(create())
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous = OFF")
    if not db.execute("SELECT count(*) FROM users").fetchone()[0]:
        users = max(events // _PER_USER, 1)
        db.executemany(
            "INSERT INTO users (id, user_id) VALUES (?, ?)", ((n, f"user-{n}") for n in range(users))
        )
    count = int(db.execute("SELECT count(*) FROM users").fetchone()[0])

    def rows() -> Iterator[tuple[object, ...]]:
        for n in range(events):
            time_us = int((_START + 86_400 * (first_day + days * seed.random())) * 1e6)
            name = f"client:{n:x}-{seed.getrandbits(64):x}"
            position = first_day * 10**12 + n
            item, kind = f"sku-{seed.randrange(_ITEMS)}", seed.choice(_KINDS)
            yield n % count, name, time_us, position, item, kind, f"r-{n // 20:x}", 1 + n % 20

    db.executemany(_ADD, rows())
    db.commit()
    db.close()


def night(folder: Path) -> dict[str, Any]:
    """Collect once, and return the counts and the cost of this process."""
    begin = time.process_time()
    found = collect(folder / "ledger", folder, str(folder / _STATE), RedisConfig())
    return {
        **found.record(),
        "cpu_seconds": round(time.process_time() - begin, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "ledger_mb": round(sum(path.stat().st_size for path in found.files) / 2**20, 1),
    }


def main() -> None:
    """Measure, and print a line of JSON for each of the two nights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="stored events")
    parser.add_argument("--night", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.night:
        sys.stdout.write(json.dumps(night(arguments.night)) + "\n")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for events, first_day, days in ((arguments.events, 0, _DAYS), (_LATER, _DAYS, 1)):
            fill(folder, events, first_day, days)
            subprocess.run([sys.executable, "-m", "benchmarks.ledger", "--night", name], check=True)


if __name__ == "__main__":
    main()
