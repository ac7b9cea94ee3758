"""The bundle store: immutable versions, an atomic pointer to the current one, verification, rollback."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from conf.errors import InputError
from features.data.pipeline_step import write_atomically
from features.files.audit_log import record_command
from features.files.modes import make_public

CURRENT = "CURRENT"
VERSIONS = "versions"
MANIFEST = "manifest.json"
LOCK = ".lock"
"""Held by a publisher from its first file to its last."""
POINTER_LOCK = ".pointer.lock"
"""Held while CURRENT is replaced, so that a rollback need not wait for a publisher."""
STAGING = ".staging-"
"""Beginning of the names of folders that are no versions yet, or no more; publishers remove them."""
ROLLED_BACK = "ROLLED_BACK"
"""File with the versions that a rollback has left, a line each: no later rollback returns to them unnamed."""
FORMAT_VERSION = 3
_HASHING_THREADS = 4
"""Files hashed at a time: more than a disk of this time reads at once."""
_OWN_FIELDS = ("format_version", "version", "created", "files")
_VERSION_NAME = re.compile(r"^\d{8}T\d{6}Z-[0-9a-f]{12}$")


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, read in blocks.

    Raises:
        OSError: it cannot be read; its `filename` says which.
    """
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        if error.filename is None:  # of a read, unlike that of opening
            error.filename = str(path)
        raise


def file_hashes(paths: Sequence[Path]) -> list[str]:
    """Return the `file_hash` of each file, several at a time: hashing releases the GIL.

    Raises:
        OSError: of the first file that cannot be read; its `filename` says which.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(cpus, _HASHING_THREADS), "hashing") as pool:
        # The largest first, so that none of them is hashed alone at the end.
        order = sorted(range(len(paths)), key=lambda place: -paths[place].stat().st_size)
        running = {place: pool.submit(file_hash, paths[place]) for place in order}
        return [running[place].result() for place in range(len(paths))]


def sync(path: Path) -> None:
    """Sync a file or folder to disk, before steps that rely on it after a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(store: Path, name: str = LOCK) -> Iterator[None]:
    """Hold an exclusive lock of the store; a crash releases it."""
    with (store / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _content_hash(files: dict[str, Any], describe: dict[str, Any]) -> str:
    """Return the content hash in a version's name."""
    return hashlib.sha256(json.dumps([files, describe], sort_keys=True).encode()).hexdigest()[:12]


def _next_timestamp(store: Path) -> datetime:
    """Return the time in a new version's name: later than every existing one, whatever the clock."""
    now = datetime.now(UTC).replace(microsecond=0)
    known = versions(store)
    if not known:
        return now
    newest = datetime.strptime(known[-1].split("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return max(now, newest + timedelta(seconds=1))


Gate = Callable[[Path, dict[str, Any], str | None], None]
"""Refuses a version by raising: given the folder of its files, its manifest, and the current version."""


def publish_version(
    store: Path, write: Callable[[Path], None], describe: dict[str, Any], gate: Gate | None = None
) -> str:
    """Write a new version and make it current.

    Files are written into a hidden folder, the manifest with their hashes last; the folder is renamed, then
    the pointer is replaced. A crash before the last step leaves the previous version current.

    Args:
        store: the artifact folder.
        write: writes the files into a given folder.
        describe: further manifest fields.
        gate: called before the version is renamed, and again if another one has become current meanwhile.

    Returns:
        The version's name.

    Raises:
        Exception: what the gate raises; the version's files are removed, CURRENT stays.
    """
    (store / VERSIONS).mkdir(parents=True, exist_ok=True)
    with locked(store):
        with locked(store, POINTER_LOCK):
            remove_leftovers(store)
        staging = store / VERSIONS / f"{STAGING}{uuid.uuid4().hex[:12]}"
        staging.mkdir()
        try:
            return _publish(store, staging, write, describe, gate)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def pointed_at(store: Path) -> str | None:
    """Return the content of CURRENT; None without one."""
    try:
        return (store / CURRENT).read_text(errors="replace").strip()
    except FileNotFoundError:
        return None


def _publish(
    store: Path, staging: Path, write: Callable[[Path], None], describe: dict[str, Any], gate: Gate | None
) -> str:
    """Implement `publish_version`, under the store's lock."""
    write(staging)
    make_public(staging)
    files = {}
    for path in sorted(staging.rglob("*")):
        sync(path)
        if path.is_dir():
            continue
        files[path.relative_to(staging).as_posix()] = {"sha256": file_hash(path), "size": path.stat().st_size}
    created = _next_timestamp(store)
    version = f"{created:%Y%m%dT%H%M%SZ}-{_content_hash(files, describe)}"
    manifest = {
        "format_version": FORMAT_VERSION,
        "version": version,
        "created": created.isoformat(timespec="seconds"),
        **describe,
        "files": files,
    }
    write_atomically(staging / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    sync(staging)
    while True:
        compared = pointed_at(store)
        if gate is not None:
            gate(staging, manifest, compared)
        with locked(store, POINTER_LOCK):
            if gate is None or pointed_at(store) == compared:
                staging.rename(store / VERSIONS / version)
                sync(store / VERSIONS)
                _make_current(store, version)
                return version


def _make_current(store: Path, version: str) -> None:
    """Replace CURRENT; requires the pointer's lock."""
    write_atomically(store / CURRENT, version + "\n")
    sync(store)


def remove_leftovers(store: Path) -> None:
    """Remove files of crashed publishers; requires both locks."""
    for leftover in (store / VERSIONS).glob(f"{STAGING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for pointer in store.glob(f".{CURRENT}.*.tmp"):
        pointer.unlink(missing_ok=True)


def adopt_version(store: Path, version: str, write: Callable[[Path], None], make_current: bool) -> None:
    """Add a version of another store, verified, unless it is there; a crash leaves it out.

    Args:
        store: the artifact folder.
        version: its name.
        write: writes its files into a given folder, the manifest included.
        make_current: whether CURRENT is replaced; without a current version it is written in any case.

    Raises:
        InputError: a damaged version.
    """
    (store / VERSIONS).mkdir(parents=True, exist_ok=True)
    with locked(store):
        with locked(store, POINTER_LOCK):
            remove_leftovers(store)
        if version not in versions(store):
            staging = store / VERSIONS / f"{STAGING}{uuid.uuid4().hex[:12]}"
            staging.mkdir()
            try:
                write(staging)
                verify(staging)
                add_folder(store, version, staging)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        if make_current or pointed_at(store) is None:
            point_at(store, version)


def add_folder(store: Path, version: str, folder: Path) -> None:
    """Make a verified folder of the same file system a version in one step; a crash leaves it there."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
    folder.rename(store / VERSIONS / version)
    sync(store / VERSIONS)


def point_at(store: Path, version: str) -> None:
    """Make a version that is there current."""
    with locked(store, POINTER_LOCK):
        _make_current(store, version)


def versions(store: Path) -> list[str]:
    """Names of the complete versions, oldest first."""
    folder = store / VERSIONS
    if not folder.is_dir():
        return []
    return sorted(
        p.name for p in folder.iterdir() if _VERSION_NAME.match(p.name) and (p / MANIFEST).is_file()
    )


def version_before(store: Path, version: str) -> str | None:
    """Return the newest version before another, without those that a rollback has left; None without one."""
    left = rolled_back(store)
    earlier = [known for known in versions(store) if known < version and known not in left]
    return earlier[-1] if earlier else None


def rolled_back(store: Path) -> set[str]:
    """Return the versions that a rollback has left."""
    try:
        return set((store / ROLLED_BACK).read_text(errors="replace").split())
    except FileNotFoundError:
        return set()


def current_version(store: Path) -> str:
    """Return the version that CURRENT names.

    Raises:
        InputError: when there is no store, or its pointer names no existing version.

    """
    pointer = store / CURRENT
    try:
        version = pointer.read_text(errors="replace").strip()
        known = versions(store)
        if _VERSION_NAME.match(version) and (store / VERSIONS / version).is_dir():
            return version
    except FileNotFoundError:
        raise InputError(
            f"{pointer}: no such file; publish a bundle first (shelfwise run or shelfwise publish)"
        ) from None
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    raise InputError(
        f"{pointer}: names {version[:60]!r}, which is not a published version "
        f"(there are: {', '.join(known) or 'none'})"
    )


def is_version(name: str) -> bool:
    """Return whether a text is the name of a version: never a path."""
    return _VERSION_NAME.fullmatch(name) is not None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a version, checked against the hash in its name, but not against its files.

    Raises:
        InputError: it is missing, damaged, or of another format.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        files: dict[str, dict[str, Any]] = dict(manifest["files"])
        found_format = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise InputError(f"{path}: unreadable manifest{reason}; roll back or publish again") from error
    if found_format != FORMAT_VERSION:
        raise InputError(
            f"{path}: bundle format {found_format}, this program reads {FORMAT_VERSION}; publish again"
        )
    described = {name: value for name, value in manifest.items() if name not in _OWN_FIELDS}
    if not str(manifest.get("version")).endswith(f"-{_content_hash(files, described)}"):
        raise InputError(f"{path}: changed after it was published; roll back or publish again")
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Check every file of a version against its manifest and return the manifest.

    Raises:
        InputError: naming the first file that is missing, truncated or changed.

    """
    manifest = read_manifest(folder)
    files: dict[str, dict[str, Any]] = manifest["files"]
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file}: missing; roll back or publish again")
        if file.stat().st_size != expected["size"]:
            raise InputError(
                f"{file}: {file.stat().st_size} bytes, not {expected['size']}; roll back or publish again"
            )
    try:
        found = file_hashes([folder / name for name in files])
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    for (name, expected), content in zip(files.items(), found, strict=True):
        if content != expected["sha256"]:
            file = folder / name
            raise InputError(f"{file}: content does not match its sha256; roll back or publish again")
    return manifest


def roll_back(
    store: Path,
    version: str | None = None,
    action: str = "rollback",
    prepare: Callable[[str], None] | None = None,
) -> str:
    """Point CURRENT at another version after verifying it, by default the one before the current.

    A version that a rollback has left is passed over by later ones until it is named: it was left because it
    is bad.

    Args:
        store: the artifact folder.
        version: its name; None is the one before the current.
        action: what the audit log calls it.
        prepare: called with the verified version before it becomes current; what it raises prevents that.

    Raises:
        InputError: when there is no such version or its files are damaged.

    """
    known = versions(store)
    if version is None:
        now = current_version(store)
        version = version_before(store, now)
        if version is None:
            others = [one for one in known if one < now]
            raise InputError(
                f"{store}: no version before {now} to roll back to"
                + (f" but those that a rollback has left; name one: version={others[-1]}" if others else "")
            )
    if version not in known:
        raise InputError(f"{store}: no version '{version}' (there are: {', '.join(known) or 'none'})")
    verify(store / VERSIONS / version)
    if prepare is not None:
        prepare(version)
    with locked(store, POINTER_LOCK):
        former, known = pointed_at(store), versions(store)  # a publisher may have been faster
        left = rolled_back(store) - {version} | {one for one in known if version < one <= (former or "")}
        write_atomically(store / ROLLED_BACK, "".join(f"{one}\n" for one in sorted(left & set(known))))
        _make_current(store, version)
    record_command(store, action, version=version, former=former)
    return version
