"""`shelfwise backup`: a consistent copy of what cannot be made again, while servers run."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from rich.console import Console

from conf.errors import InputError
from conf.operating import BackupConfig
from conf.serving import RedisConfig
from features.files.audit_log import record_command
from features.files.modes import create_private
from ranking.bundle.bundle import HISTORIES
from ranking.bundle.store import VERSIONS, current_version, pointed_at, verify
from serving.cli.operate.archive import FORMAT, STATE, Header, files_of, finish, new_backup, prune
from serving.state.contracts.user_state import StateUnavailableError
from serving.state.copies import Counts
from serving.state.redis.backup import copy_store
from serving.state.redis.store import open_redis
from serving.state.sqlite.backup import copy_state
from serving.stores import is_redis, state_file

PATIENCE_SECONDS: Final = 600.0
"""Timeout of single commands of Redis: a copy has time, and one script moves all keys of a restore."""


def backup(config: BackupConfig, console: Console) -> Path:
    """Write a backup and return its folder.

    Raises:
        InputError: there is no store, it cannot be read, or the backup cannot be written.
    """
    output, artifacts = Path(config.output), Path(config.artifacts)
    now = datetime.now(UTC)
    with new_backup(output, now) as (partial, place):
        kind = "redis" if is_redis(config.state) else "sqlite"
        with console.status("copying the stored events"):
            if kind == "redis":
                counts = asyncio.run(_copy_redis(config, partial / STATE[kind]))
            else:
                counts = copy_state(state_file(config.state, artifacts), partial / STATE[kind])
        model = pointed_at(artifacts)
        if config.bundle:
            model = current_version(artifacts)
            with console.status("copying the bundle"):
                _copy_bundle(artifacts, model, partial)
        with console.status("computing checksums"):
            prefix = config.redis.prefix if kind == "redis" else ""
            header = Header(
                FORMAT, kind, prefix, now.isoformat(), metadata.version("shelfwise"),
                counts.state_format, counts.users, counts.events, counts.item_changes, counts.deleted_users,
                model, config.bundle, files_of(partial),
            )  # fmt: skip
        finish(partial, place, header)
        gone = prune(output, config.keep) if config.keep else []
    if artifacts.is_dir():
        record_command(artifacts, "backup", place=str(place), users=counts.users, events=counts.events)
    console.print(
        f"{place}: {counts.events:,} events of {counts.users:,} users, {counts.item_changes:,} item changes"
        + (f", bundle {model}" if config.bundle else f"; model {model} is not in it" if model else "")
        + (f"; {len(gone)} earlier removed" if gone else ""),
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip
    return place


def patient(config: RedisConfig) -> RedisConfig:
    """Return settings of Redis for commands that take long."""
    return replace(config, timeout_seconds=PATIENCE_SECONDS, retries=0)


async def _copy_redis(config: BackupConfig, target: Path) -> Counts:
    assert config.state is not None
    store = await open_redis(config.state, patient(config.redis), create=False)
    try:
        return await copy_store(store, target)
    except StateUnavailableError as error:
        raise InputError(f"state: {error}") from error
    finally:
        await store.close()


def _copy_bundle(artifacts: Path, version: str, target: Path) -> None:
    """Copy a version, verified after the copy, and the histories that belong to the store."""
    folder = target / VERSIONS / version
    shutil.copytree(artifacts / VERSIONS / version, folder)
    verify(folder)
    if (artifacts / HISTORIES).is_file():
        create_private(target / HISTORIES)
        shutil.copyfile(artifacts / HISTORIES, target / HISTORIES)
