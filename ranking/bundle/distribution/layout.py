"""What a store at an address consists of: the names of a store on disk, and a hash beside the histories."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from conf.errors import InputError
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import MANIFEST, ROLLED_BACK, VERSIONS, is_version

HISTORIES: Final = "histories.parquet"
"""As `ranking.bundle.bundle` has it, which loads all that a model needs."""
HISTORIES_HASH: Final = "histories.parquet.sha256"
"""The hash of the histories, as sha256sum writes it: they belong to no version, so no manifest has it."""


def path_of(version: str, name: str) -> str:
    """Return the path of a version's file.

    Raises:
        InputError: a name that leads out of the version's folder.
    """
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise InputError(f"{version}/{MANIFEST}: names the file {name!r}, which lies outside of the version")
    return f"{VERSIONS}/{version}/{name}"


def remote_rolled_back(remote: Remote) -> set[str]:
    """Return the versions that a rollback has left, as they were pushed."""
    content = remote.read(ROLLED_BACK) or b""
    return {line for line in content.decode(errors="replace").split("\n") if is_version(line)}


def rolled_back_lines(left: set[str]) -> str:
    """Return the content of the file of versions that a rollback has left."""
    return "".join(f"{version}\n" for version in sorted(left))
