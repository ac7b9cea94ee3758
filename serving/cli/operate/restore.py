"""`shelfwise restore`: a backup in the place of a store; the state is replaced as a whole or not at all."""

from __future__ import annotations

import asyncio
import glob
import json
import os
import shutil
from pathlib import Path

from rich.console import Console

from conf.errors import InputError
from conf.operating import RestoreConfig
from features.files.audit_log import record_command
from features.files.modes import create_private, make_public
from ranking.bundle.bundle import HISTORIES
from ranking.bundle.store import VERSIONS, adopt_version
from serving.cli.export_events import replaced
from serving.cli.operate.archive import STATE, Header, open_backup
from serving.cli.operate.backup import patient
from serving.state.contracts.user_state import StateUnavailableError
from serving.state.copies import Erasures
from serving.state.redis.backup import erasures_of_store, restore_store
from serving.state.redis.store import FORMAT as REDIS_FORMAT
from serving.state.redis.store import RedisStore, open_redis, safe_name
from serving.state.sqlite.backup import counts_of, erase_users, erasures_of, replace_state
from serving.state.sqlite.file import FORMAT as SQLITE_FORMAT
from serving.stores import is_redis, state_file


def restore(config: RestoreConfig, console: Console) -> None:
    """Put a verified backup in the place of a store.

    Raises:
        InputError: a damaged backup, one of another kind of store or of a later format, or a store that holds
            something already.
    """
    if config.backup is None:
        raise InputError(
            "backup=FOLDER is missing: a backup, or the folder of backups, whose newest is taken"
        )
    with console.status("verifying the backup"):
        folder, header = open_backup(Path(config.backup))
    kind = "redis" if is_redis(config.state) else "sqlite"
    if header.store != kind:
        address = "state=redis://HOST:PORT" if header.store == "redis" else "state=FILE or none"
        raise InputError(f"{folder}: a backup of {header.store}, and state names {kind}; set {address}")
    readable = {"redis": REDIS_FORMAT, "sqlite": SQLITE_FORMAT}[kind]
    if header.state_format > readable:
        raise InputError(
            f"{folder}: its state has format {header.state_format}, this program reads up to {readable}; "
            f"use the program that made it ({header.program}) or a later one"
        )
    artifacts = Path(config.artifacts)
    logged = _logged_erasures(config.erasures, header)
    with console.status("restoring"):
        if kind == "redis":
            erased = asyncio.run(_restore_redis(config, folder / STATE[kind], header, logged))
            name = f"{safe_name(str(config.state))} under redis.prefix={config.redis.prefix}"
        else:
            target = state_file(config.state, artifacts)
            erased = _restore_file(folder / STATE[kind], target, config.replace, logged)
            name = str(target)
        if header.has_bundle and header.model is not None:
            _restore_bundle(folder, artifacts, header.model, config.replace)
    if artifacts.is_dir():
        record_command(
            artifacts, "restore", backup=str(folder), store=name, began=header.began, erased_again=erased
        )
    lines = [f"{name}: {header.events:,} events of {header.users:,} users as of {header.began}"]
    if erased:
        lines.append(f"{erased:,} users deleted since were erased again")
    if header.has_bundle:
        lines.append(f"bundle {header.model} is in {artifacts}")
    elif header.model is not None:
        lines.append(f"model {header.model} was current; it is not part of this backup")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def _restore_file(source: Path, target: Path, replace: bool, logged: Erasures) -> int:
    """Restore a state file; return how many users were erased again."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        erasures = dict(logged)
        if target.exists():
            if not replace:
                raise InputError(f"{target}: is there already; replace=true puts the backup in its place")
            erasures |= erasures_of(target, source)
        fresh = target.with_name(f".{target.name}.{os.getpid()}.restored")
        try:
            create_private(fresh)
            shutil.copyfile(source, fresh)
            counts_of(fresh)
            erased = erase_users(fresh, erasures) if erasures else 0
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            replace_state(fresh, target)
        finally:
            for leftover in target.parent.glob(f"{glob.escape(fresh.name)}*"):
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{target}: cannot be restored ({error.strerror})") from error
    return erased


async def _restore_redis(config: RestoreConfig, source: Path, header: Header, logged: Erasures) -> int:
    assert config.state is not None
    prefix = config.redis.prefix
    try:
        store = await _opened(config)
        try:
            erasures = dict(logged)
            if await store.client.exists(store.key("store")):
                if not config.replace:
                    raise InputError(
                        f"{store.name} holds a store under redis.prefix={prefix} already; replace=true puts "
                        "the backup in its place"
                    )
                await store.enter()
                erasures |= await erasures_of_store(store, source)
            return await restore_store(store, source, prefix, erasures)
        finally:
            await store.close()
    except StateUnavailableError as error:
        raise InputError(f"state: {error}") from error


async def _opened(config: RestoreConfig) -> RedisStore:
    assert config.state is not None
    return await open_redis(config.state, patient(config.redis), create=None)


def _restore_bundle(folder: Path, artifacts: Path, version: str, replace: bool) -> None:
    """Put the bundle of a backup into a store that has no version of this name, and make it current.

    Raises:
        InputError: it cannot be written; the state has been restored before.
    """

    def write(staging: Path) -> None:
        shutil.copytree(folder / VERSIONS / version, staging, dirs_exist_ok=True)
        make_public(staging)

    source, target = folder / HISTORIES, artifacts / HISTORIES
    try:
        adopt_version(artifacts, version, write, replace)
        if source.is_file() and (replace or not target.exists()):
            with replaced(target) as fresh:
                shutil.copyfile(source, fresh)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{artifacts}: the state is restored, but its bundle cannot be written ({reason}); "
            "mend that, and restore again with replace=true"
        ) from error


def _logged_erasures(path: str | None, header: Header) -> Erasures:
    """Return the erasures of an audit log that are later than the beginning of a backup.

    Raises:
        InputError: the file cannot be read, or a line is no entry of an audit log.
    """
    if path is None:
        return {}
    found: dict[str, int] = {}
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    entry = json.loads(line)
                    erased = entry.get("erasure")
                    if erased is not None and int(entry["time_us"]) >= header.began_us:
                        found[bytes.fromhex(erased).hex()] = int(entry["time_us"])
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InputError(
                        f"erasures={path}: line {number} is not an entry of an audit log; take it out, and "
                        "erase the user that it names, if any, with DeleteUser after the restore"
                    ) from error
    except OSError as error:
        raise InputError(f"erasures={path}: cannot be read ({error.strerror})") from error
    return found
