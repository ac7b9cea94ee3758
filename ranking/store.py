"""The bundle store: immutable versions, an atomic pointer to the current one, verification, rollback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf.errors import InputError
from features.stages import write_atomically

CURRENT = "CURRENT"
VERSIONS = "versions"
MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_VERSION_NAME = re.compile(r"^\d{8}T\d{6}Z-[0-9a-f]{12}$")


def file_hash(path: Path) -> str:
    """Return the sha256 of a file, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Force a file or folder to disk, so that a power cut cannot undo what later steps rely on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_version(store: Path, write: Callable[[Path], None], describe: dict[str, Any]) -> str:
    """Write a new version and make it current.

    Everything is written into a hidden folder first; the manifest, with the hash of every file, goes last;
    the folder is renamed, then the pointer is replaced. A crash before the last step leaves the previous
    version served.

    Args:
        store: the artifact folder.
        write: fills the folder it is given.
        describe: further manifest fields.

    Returns:
        The version's name.

    """
    (store / VERSIONS).mkdir(parents=True, exist_ok=True)
    remove_leftovers(store)
    staging = store / VERSIONS / f".staging-{uuid.uuid4().hex[:12]}"
    staging.mkdir()
    write(staging)
    files = {}
    for path in sorted(p for p in staging.rglob("*") if p.is_file()):
        _sync(path)
        files[path.relative_to(staging).as_posix()] = {"sha256": file_hash(path), "size": path.stat().st_size}
    content = hashlib.sha256(json.dumps([files, describe], sort_keys=True).encode()).hexdigest()[:12]
    created = datetime.now(UTC)
    version = f"{created:%Y%m%dT%H%M%SZ}-{content}"
    manifest = {
        "format_version": FORMAT_VERSION,
        "version": version,
        "created": created.isoformat(timespec="seconds"),
        **describe,
        "files": files,
    }
    write_atomically(staging / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    _sync(staging)
    target = store / VERSIONS / version
    if target.exists():
        shutil.rmtree(staging)  # the same content was published within the same second
    else:
        staging.rename(target)
    _sync(store / VERSIONS)
    write_atomically(store / CURRENT, version + "\n")
    _sync(store)
    return version


def remove_leftovers(store: Path) -> None:
    """Remove half-written folders of publishers that crashed."""
    for leftover in (store / VERSIONS).glob(".staging-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def versions(store: Path) -> list[str]:
    """Names of the complete versions, oldest first."""
    folder = store / VERSIONS
    if not folder.is_dir():
        return []
    return sorted(
        p.name for p in folder.iterdir() if _VERSION_NAME.match(p.name) and (p / MANIFEST).is_file()
    )


def current_version(store: Path) -> str:
    """Return the version that CURRENT names.

    Raises:
        InputError: when there is no store, or its pointer names nothing that exists.

    """
    pointer = store / CURRENT
    if not pointer.is_file():
        raise InputError(
            f"{pointer}: no such file; publish a bundle first (shelfwise run or shelfwise publish)"
        )
    version = pointer.read_text(errors="replace").strip()
    if not _VERSION_NAME.match(version) or not (store / VERSIONS / version).is_dir():
        known = ", ".join(versions(store)) or "none"
        raise InputError(
            f"{pointer}: names '{version[:60]}', which is not a published version (there are: {known})"
        )
    return version


def verify(folder: Path) -> dict[str, Any]:
    """Check every file of a version against its manifest and return the manifest.

    Raises:
        InputError: naming the first file that is missing, truncated or changed.

    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        files: dict[str, dict[str, Any]] = dict(manifest["files"])
        found_format = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: unreadable manifest; roll back or publish again") from error
    if found_format != FORMAT_VERSION:
        raise InputError(
            f"{path}: bundle format {found_format}, this program reads {FORMAT_VERSION}; publish again"
        )
    for name, expected in files.items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file}: missing; roll back or publish again")
        if file.stat().st_size != expected["size"]:
            raise InputError(
                f"{file}: {file.stat().st_size} bytes, not {expected['size']}; roll back or publish again"
            )
        if file_hash(file) != expected["sha256"]:
            raise InputError(f"{file}: content does not match its sha256; roll back or publish again")
    return manifest


def roll_back(store: Path, version: str | None = None) -> str:
    """Point CURRENT at an earlier version (by default the one before the current) after verifying it.

    Raises:
        InputError: when there is no such version or its files are damaged.

    """
    known = versions(store)
    if version is None:
        now = current_version(store)
        earlier = [v for v in known if v < now]
        if not earlier:
            raise InputError(f"{store}: no version before {now} to roll back to")
        version = earlier[-1]
    if version not in known:
        raise InputError(f"{store}: no version '{version}' (there are: {', '.join(known) or 'none'})")
    verify(store / VERSIONS / version)
    write_atomically(store / CURRENT, version + "\n")
    return version
