"""`shelfwise export user`: everything that is stored of one user, for the right of access."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import grpc
import polars as pl
from rich.console import Console

from conf.errors import InputError
from conf.operating import ExportUserConfig
from features.ingest.privacy import make_pseudonyms
from ranking.bundle.bundle import HISTORIES
from serving.cli.connection import connect, failure_message
from serving.cli.export_events import replaced, user_prefix
from serving.cli.parquet_parts import parquet_parts
from serving.state.contracts.user_state import StateUnavailableError, StoredEvent
from serving.state.everything import everything_of
from serving.stores import open_stores
from shelfwise_client import ServiceError

_CLIENT_ID: Final = "client:"
_ROWS: Final = 5_000
"""Rows per write."""
_SCHEMA: Final = {
    **dict.fromkeys(("user_id", "item_id", "event"), pl.String),
    "timestamp": pl.Datetime("us", "UTC"),
    "event_id": pl.String,
    "imported": pl.Boolean,
    "request_id": pl.String,
    "list_position": pl.Int64,
    **dict.fromkeys(("surface", "model_version", "device"), pl.String),
    "hour": pl.Int64,
    "propensity": pl.Float64,
    "experiments": pl.String,
}
Row = dict[str, Any]
"""Column -> value; null where unknown."""


def export_user(config: ExportUserConfig, console: Console) -> Path:
    """Write a user's events to a file that only its owner can read, atomically.

    Raises:
        InputError: no user, no server or state, or an output that cannot be written.
    """
    output = Path(config.output)
    if not config.user:
        raise InputError("user=ID is missing: whose events to write")
    if output.suffix not in (".jsonl", ".parquet"):
        raise InputError(f"output={output}: name a .jsonl or a .parquet file")
    direct = config.artifacts is not None or config.state is not None
    rows = _stored(config, config.user) if direct else _served(config, config.user)
    write = _write_parquet if output.suffix == ".parquet" else _write_lines
    try:
        with replaced(output) as temporary:
            count = write(temporary, rows)
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror})") from error
    console.print(f"{count:,} events written to {output}", soft_wrap=True, markup=False, highlight=False)
    return output


def _served(config: ExportUserConfig, user: str) -> Iterator[Row]:
    """Yield what a server has stored."""
    try:
        with connect(config, config.timeout) as client:
            for event in client.export_user(user, config.timeout):
                values = {name: None if value in ("", 0) else value for name, value in asdict(event).items()}
                values |= {"imported": event.imported, "hour": event.hour, "propensity": event.propensity}
                yield {"user_id": user, "timestamp": values.pop("event_time"), **values}
    except ServiceError as error:
        if error.code is grpc.StatusCode.UNIMPLEMENTED:
            raise InputError(
                f"{config.address} is a server of an earlier release; set artifacts=FOLDER"
            ) from error
        raise InputError(failure_message(error, config)) from error


def _stored(config: ExportUserConfig, user: str) -> Iterator[Row]:
    """Yield what a store has, without a server; servers may run meanwhile."""
    artifacts = Path(config.artifacts or "work/artifacts")
    pseudonyms = make_pseudonyms(config.privacy)
    if config.artifacts is not None and (pseudonyms is None) == bool(user_prefix(artifacts)):
        hashed = str(pseudonyms is None).lower()
        raise InputError(
            f"{artifacts}: the model there was made with privacy.hash_users={hashed}; set it likewise"
        )
    name = user if pseudonyms is None else pseudonyms.of(user)
    try:
        events = asyncio.run(_read(config, artifacts, name))
    except StateUnavailableError as error:
        raise InputError(f"state: {error}") from error
    for event in events:
        yield {
            "user_id": user,
            "item_id": event.item_id,
            "event": event.kind,
            "timestamp": datetime.fromtimestamp(event.time_us / 1_000_000, UTC),
            "event_id": event.event_id.removeprefix(_CLIENT_ID),
            "imported": not event.recorded,
            **asdict(event.exposure),
        }


async def _read(config: ExportUserConfig, artifacts: Path, name: str) -> list[StoredEvent]:
    stores = await open_stores(config.state, artifacts, config.redis, create=False)
    try:
        pages = everything_of(stores.users, artifacts / HISTORIES, name)
        return [event async for page in pages for event in page]
    finally:
        await stores.close()


def _write_lines(path: Path, rows: Iterator[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            known = {name: row[name] for name in _SCHEMA if row.get(name) is not None}
            file.write(json.dumps(known, ensure_ascii=False, default=datetime.isoformat) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterator[Row]) -> int:
    with parquet_parts(path, _SCHEMA) as parts:
        while pending := list(islice(rows, _ROWS)):
            parts.write({name: [row.get(name) for row in pending] for name in _SCHEMA})
    return parts.rows
