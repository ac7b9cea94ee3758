"""Collecting what servers recorded into the ledger, which trainings read beside the shop's own log.

The whole state is exported every night and merged, instead of what is new alone: there is no position that
could be lost or wrong, so that a night can be repeated, skipped or killed, and a state be restored from a
backup. The ledger keeps what the state drops later (`redis.max_user_events`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from conf.errors import InputError
from conf.serving import RedisConfig
from features.data import schema
from lifecycle.ledger.months import merge, month_files, remove_leftovers, temporary, users_of
from serving.cli.export_events import user_prefix, write_stored
from serving.state.contracts.user_state import StateUnavailableError, UserState
from serving.stores import open_stores

_USERS_PER_QUERY: Final = 1_000
_PRIVATE: Final = 0o700
"""Mode of the folder: it holds what shoppers did."""
_PRIVATE_FILE: Final = 0o600


@dataclass(frozen=True)
class Collected:
    """The ledger after a collection; `data.recorded` takes its files."""

    files: list[Path]
    """Month files, oldest first."""
    events: int = 0
    """Events in them."""
    users: int = 0
    newest: datetime | None = None
    """Time of the newest event, UTC."""
    new_events: int = 0
    """Events that the ledger did not have before."""
    known_events: int = 0
    """Events of the state that it had."""
    erased_users: int = 0
    """Users taken out because they were erased since the last collection."""
    erased_events: int = 0
    """Their events."""
    months_rewritten: int = 0

    def record(self) -> dict[str, Any]:
        """Return the counts as JSON values, for the audit of a run."""
        return {
            **asdict(self),
            "files": [path.name for path in self.files],
            "newest": self.newest.isoformat() if self.newest else None,
        }


def collect(folder: Path, artifacts: Path, state: str | None, redis: RedisConfig) -> Collected:
    """Export the state and merge it into the ledger; servers may run meanwhile.

    Users erased by DeleteUser are taken out of the ledger. One who came back afterwards keeps what the state
    holds. Events are the same if user and event id are.

    Args:
        folder: of the ledger; made if it is missing.
        artifacts: the artifact store, which holds the default state file.
        state: as in serve; null where no server has recorded anything yet is an empty export.
        redis: settings of Redis.

    Raises:
        InputError: a state that cannot be read, or a folder that cannot be written.
    """
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        remove_leftovers(folder)
        if state is None and not (artifacts / "state.sqlite").is_file():
            return _described(folder)
        export = temporary(folder / "export.parquet")
        export.touch(_PRIVATE_FILE)
        try:
            return asyncio.run(_collect(folder, export, artifacts, state, redis))
        finally:
            export.unlink(missing_ok=True)
    except StateUnavailableError as error:
        raise InputError(f"state: {error}") from error
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    except pl.exceptions.PolarsError as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(
            f"{folder}: a file of the ledger cannot be read or written ({first_line}); make room if the disk "
            "is full; restore a damaged file from a backup, or move the folder away: the next collection "
            "begins it again with what the state holds"
        ) from error


async def _collect(
    folder: Path, export: Path, artifacts: Path, state: str | None, redis: RedisConfig
) -> Collected:
    prefix = user_prefix(artifacts)
    stores = await open_stores(state, artifacts, redis, create=False)
    try:
        known = await asyncio.to_thread(users_of, month_files(folder))
        erased = await _erased(stores.users, known, prefix)
        await write_stored(stores.users, False, export, prefix)
        written = await asyncio.to_thread(users_of, [export])
        later = await _erased(stores.users, sorted({*known, *written}), prefix) - erased
        since = {user for user in later if not await _is_stored(stores.users, user.removeprefix(prefix))}
    finally:
        await stores.close()
    change = await asyncio.to_thread(merge, folder, export, erased, since)
    return replace(
        _described(folder),
        new_events=change.new,
        known_events=change.known,
        erased_users=len(change.erased_users),
        erased_events=change.erased,
        months_rewritten=change.rewritten,
    )


async def _erased(state: UserState, users: Sequence[str], prefix: str) -> set[str]:
    """Return those users, ids of the ledger, that have been erased from the state."""
    erased: set[str] = set()
    for start in range(0, len(users), _USERS_PER_QUERY):
        ids = [user.removeprefix(prefix) for user in users[start : start + _USERS_PER_QUERY]]
        erased |= {prefix + user for user in await state.deleted_among(ids)}
    return erased


async def _is_stored(state: UserState, user_id: str) -> bool:
    """Return whether the state has events of a user, as of one who came back after an erasure."""
    return bool(await state.history(user_id, 1))


def _described(folder: Path) -> Collected:
    """Return the files of a ledger and their counts, with nothing changed."""
    files = month_files(folder)
    if not files:
        return Collected([])
    counts = pl.concat(
        [pl.scan_parquet(path).select(schema.USER_ID, schema.TIMESTAMP) for path in files]
    ).select(pl.len(), pl.col(schema.USER_ID).n_unique().alias("users"), pl.col(schema.TIMESTAMP).max())
    events, users, newest = counts.collect(engine="streaming").row(0)
    return Collected(files, int(events), int(users), newest)
