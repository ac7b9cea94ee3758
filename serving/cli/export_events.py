"""`shelfwise export events`: the stored events, as a table for the next `prepare`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console

from conf.errors import InputError
from conf.operating import ExportEventsConfig
from features.data import schema
from features.files.file_replacement import file_replacement, remove_leftovers
from features.ingest.privacy import PSEUDONYM
from ranking.bundle.store import CURRENT, MANIFEST, VERSIONS, current_version
from serving.cli.parquet_parts import parquet_parts
from serving.state.contracts.user_state import Exposure, StateUnavailableError, StoredEvent, UserState
from serving.stores import open_stores

_CLIENT_ID: Final = "client:"
"""Prefix of event ids that were set by the sender."""
_ROWS: Final = 50_000
"""Rows per write: some ten MB."""
_TYPES: Final = {"list_position": pl.Int64, "hour": pl.Int64, "propensity": pl.Float64}
_EXPOSURE: Final = [field.name for field in fields(Exposure)]
_SCHEMA: Final = {
    schema.USER_ID: pl.String,
    schema.ITEM_ID: pl.String,
    schema.EVENT: pl.String,
    schema.TIMESTAMP: pl.Datetime("us", "UTC"),
    "event_id": pl.String,
    **{name: _TYPES.get(name, pl.String) for name in _EXPOSURE},
}


@dataclass
class Counts:
    """What was written."""

    users: int = 0
    events: int = 0


def export_events(config: ExportEventsConfig, console: Console) -> Path:
    """Write all stored events to a Parquet file, atomically and in bounded memory.

    Raises:
        InputError: no state, an unreadable one, or an output that cannot be written.
    """
    output = Path(config.output)
    if output.suffix not in (".parquet", ".pq"):
        raise InputError(f"output={output}: name a .parquet file")
    prefix = user_prefix(Path(config.artifacts))
    try:
        with replaced(output) as temporary:
            counts = asyncio.run(_write(config, temporary, prefix))
    except StateUnavailableError as error:
        raise InputError(f"state: {error}") from error
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror})") from error
    lines = [f"{counts.events:,} events of {counts.users:,} users written to {output}"]
    if prefix:
        lines.append("user ids are pseudonyms; prepare takes them as they are with privacy.hash_users=true")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    return output


def user_prefix(store: Path) -> str:
    """Return the mark of pseudonyms where the state holds pseudonyms, by the current model's manifest."""
    if not (store / CURRENT).is_file():
        return ""
    path = store / VERSIONS / current_version(store) / MANIFEST
    return PSEUDONYM if json.loads(path.read_text()).get("hash_users") else ""


@contextmanager
def replaced(output: Path) -> Iterator[Path]:
    """Yield a temporary file, which atomically replaces the output once it is complete and synced."""
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    with file_replacement(output) as temporary:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(output)


async def _write(config: ExportEventsConfig, path: Path, prefix: str) -> Counts:
    stores = await open_stores(config.state, Path(config.artifacts), config.redis, create=False)
    try:
        return await write_stored(stores.users, config.imported, path, prefix)
    finally:
        await stores.close()


async def write_stored(users: UserState, imported: bool, path: Path, prefix: str) -> Counts:
    """Write the events of an open store to a Parquet file, in bounded memory.

    Args:
        users: the store.
        imported: whether to include imported events.
        path: the file to write.
        prefix: put before every user id, see `user_prefix`.

    Raises:
        StateUnavailableError: the store failed.
        OSError: the file cannot be written.
    """
    counts, pending, last = Counts(), list[StoredEvent](), ""
    with parquet_parts(path, _SCHEMA) as parts:
        async for events in users.stored(imported):
            for event in events:
                counts.users += event.user_id != last
                last = event.user_id
            counts.events += len(events)
            pending += events
            if len(pending) >= _ROWS:
                await asyncio.to_thread(parts.write, _columns(pending, prefix))
                pending = []
        parts.write(_columns(pending, prefix))
    return counts


def _columns(events: Sequence[StoredEvent], prefix: str) -> dict[str, list[Any]]:
    columns: list[list[Any]] = [
        [prefix + event.user_id for event in events],
        [event.item_id for event in events],
        [event.kind for event in events],
        [event.time_us for event in events],
        [event.event_id.removeprefix(_CLIENT_ID) for event in events],
        *([getattr(event.exposure, name) for event in events] for name in _EXPOSURE),
    ]
    return dict(zip(_SCHEMA, columns, strict=True))
