"""Backups on disk: a folder each, with a header that lists every file with size and SHA-256.

A backup is written into a hidden folder, synced, and renamed, so a folder with a header is complete. It holds
personal data: folders have mode 700, files 600.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from conf.errors import InputError
from features.files.modes import PRIVATE, private_opener
from ranking.bundle.store import file_hash

HEADER: Final = "backup.json"
FORMAT: Final = 1
"""Version of the layout of a backup; others are refused."""
STATE: Final = {"sqlite": "state.sqlite", "redis": "state.jsonl.gz"}
"""Kind of a store -> its file in a backup."""
_NAME: Final = re.compile(r"\d{8}T\d{6}Z(-\d+)?")
_PARTIAL: Final = ".partial"
_PRIVATE_FOLDER: Final = 0o700


@dataclass(frozen=True)
class Header:
    """What a backup is, and what it holds."""

    format: int
    store: str
    """`sqlite` or `redis`."""
    prefix: str
    """`redis.prefix` of the shop; empty for SQLite."""
    began: str
    """ISO time: everything acknowledged before it is in the backup."""
    program: str
    """Version of the program that made it."""
    state_format: int
    users: int
    events: int
    item_changes: int
    deleted_users: int
    model: str | None
    """Version that was current."""
    has_bundle: bool
    """Whether that version is in the backup, with `histories.parquet`."""
    files: dict[str, dict[str, Any]]
    """Path in the backup -> size and sha256."""

    @property
    def began_us(self) -> int:
        """Return the time of the beginning in microseconds since 1970."""
        return round(datetime.fromisoformat(self.began).timestamp() * 1_000_000)


@contextmanager
def new_backup(output: Path, now: datetime) -> Iterator[tuple[Path, Path]]:
    """Yield a hidden folder to write into, and the place it will have; remove it if that fails.

    Raises:
        InputError: the folder cannot be written, or another backup into it is running.
    """
    try:
        output.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
        descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"output={output}: another backup is being written there") from error
        for leftover in output.glob(f".*{_PARTIAL}"):  # of a backup that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        place = _free_name(output, now)
        partial = output / f".{place.name}{_PARTIAL}"
        try:
            partial.mkdir(mode=_PRIVATE_FOLDER)
            yield partial, place
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"output={output}: cannot be written ({reason})") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(descriptor)


def finish(partial: Path, place: Path, header: Header) -> None:
    """Write the header, sync everything, and give the backup its name."""
    content = asdict(header)
    with open(partial / HEADER, "w", opener=private_opener) as file:
        json.dump({**content, "sha256": _digest(content)}, file, indent=2)
        file.write("\n")
    for path in (*partial.rglob("*"), partial):
        _sync(path)
    partial.rename(place)
    _sync(place.parent)


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of every file of a folder, and make each private."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            path.chmod(_PRIVATE_FOLDER)
        else:
            path.chmod(PRIVATE)
            found[path.relative_to(folder).as_posix()] = {
                "size": path.stat().st_size,
                "sha256": file_hash(path),
            }
    return found


def backups(output: Path) -> list[Path]:
    """Return the complete backups of a folder, oldest first."""
    if not output.is_dir():
        return []
    found = [p for p in output.iterdir() if _NAME.fullmatch(p.name) and (p / HEADER).is_file()]
    return sorted(found, key=lambda path: (path.name[:16], len(path.name), path.name))


def prune(output: Path, keep: int) -> list[Path]:
    """Remove all backups of a folder but the newest `keep`, and return those removed."""
    gone = backups(output)[:-keep]
    for path in gone:
        hidden = path.with_name(f".{path.name}{_PARTIAL}")  # half a backup must not look like one
        path.rename(hidden)
        shutil.rmtree(hidden)
    return gone


def open_backup(place: Path) -> tuple[Path, Header]:
    """Return the folder and header of a backup, after every file has been verified.

    Args:
        place: a backup, or a folder of backups, whose newest is taken.

    Raises:
        InputError: there is none, or one that is damaged or of another format.
    """
    folder = place
    if not (place / HEADER).is_file():
        known = backups(place)
        if not known:
            raise InputError(
                f"backup={place}: no backup here; name a folder that `shelfwise backup` has written"
            )
        folder = known[-1]
    path = folder / HEADER
    try:
        content = json.loads(path.read_text())
        digest, found = content.pop("sha256"), content["format"]
        if found == FORMAT:
            header = Header(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the header of a backup ({error}); take an earlier backup") from error
    if found != FORMAT:
        raise InputError(
            f"{path}: a backup of format {found}, this program reads {FORMAT}; use the other program"
        )
    if digest != _digest(content):
        raise InputError(f"{path}: has been changed or damaged; take an earlier backup")
    for name, expected in header.files.items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file}: missing; take an earlier backup")
        if file.stat().st_size != expected["size"] or file_hash(file) != expected["sha256"]:
            raise InputError(f"{file}: does not match its checksum; take an earlier backup")
    return folder, header


def _free_name(output: Path, now: datetime) -> Path:
    name = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    number, place = 1, output / name
    while place.exists():
        number, place = number + 1, output / f"{name}-{number + 1}"
    return place


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
