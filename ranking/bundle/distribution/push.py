"""`shelfwise push`: the current version of a store into an object store, from which servers fetch it.

The files go first, then the manifest, then the histories with their hash, and CURRENT last, so that a reader
who looks at CURRENT first finds everything it names. A version never changes and its name has the hash of its
content, so a push that was killed goes on where it was, and two pushes of one version write the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from conf.errors import InputError
from conf.operating import PushConfig
from ranking.bundle.distribution.follow import follow
from ranking.bundle.distribution.layout import (
    HISTORIES,
    HISTORIES_HASH,
    path_of,
    remote_rolled_back,
    rolled_back_lines,
)
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import (
    CURRENT,
    MANIFEST,
    ROLLED_BACK,
    VERSIONS,
    current_version,
    file_hash,
    is_version,
    rolled_back,
    verify,
    versions,
)

_MEGABYTE: Final = 1_000_000
_TRIES: Final = 3


@dataclass(frozen=True)
class Pushed:
    """What a push has done."""

    version: str
    uploaded: int
    """Bytes of the version's files; those that were there already are not among them."""

    def line(self) -> str:
        """Return the line for an operator."""
        return f"pushed {self.version}: {self.uploaded / _MEGABYTE:,.1f} MB; it is current"


def push(config: PushConfig, console: Console) -> None:
    """Carry out `shelfwise push`.

    Raises:
        InputError: nothing is published, it is damaged, another store's version would be replaced, or the
            object store cannot be written.
    """
    remote, store = Remote.open(config.remote or ""), Path(config.artifacts)

    def once(_: Callable[[], bool] = lambda: False) -> None:
        if config.follow_seconds and not (store / CURRENT).is_file():
            return  # nothing is published yet
        found = push_store(store, remote, config)
        if found is not None:
            console.print(found.line(), soft_wrap=True, markup=False, highlight=False)
        elif not config.follow_seconds:
            line = f"{current_version(store)} is there and current"
            console.print(line, soft_wrap=True, markup=False, highlight=False)

    if config.follow_seconds:
        follow(once, config.follow_seconds, "push", last=once)
    else:
        once()


def push_store(store: Path, remote: Remote, config: PushConfig) -> Pushed | None:
    """Make the current version of a store the one that servers fetch; return None where it is already.

    Raises:
        InputError: see `push`.
    """
    version, there = current_version(store), remote.current()
    if version == there and not config.overwrite:
        return None
    left = remote_rolled_back(remote)
    if not config.replace:
        _check_order(store, version, there, left, remote)
    uploaded = _push_version(store, version, remote, config)
    _push_histories(store, remote)
    left = {one for one in left | rolled_back(store) if one != version}
    if left or remote.read(ROLLED_BACK):
        remote.write(ROLLED_BACK, rolled_back_lines(left))
    remote.write(CURRENT, f"{version}\n")
    _remove_old(store, version, remote, config.keep)
    return Pushed(version, uploaded)


def _check_order(store: Path, version: str, there: str | None, left: set[str], remote: Remote) -> None:
    """Refuse to replace what another store has pushed meanwhile, or to return to what a rollback has left."""
    known = {*versions(store), *rolled_back(store)}
    if there is not None and there > version and there not in known:
        raise InputError(
            f"{remote.name}: {there} is current, newer than {version} and not of this store, so another one "
            "pushes here; fetch it first, or push with replace=true"
        )
    if version in left and version != there:
        raise InputError(
            f"{remote.name}: a rollback has left {version}; publish a newer one, or push it with replace=true"
        )


def _push_version(store: Path, version: str, remote: Remote, config: PushConfig) -> int:
    """Upload the files of a version that are not there, its manifest last; return the bytes."""
    folder, place = store / VERSIONS / version, path_of(version, MANIFEST)
    if not config.overwrite and remote.read(place) == (folder / MANIFEST).read_bytes():
        return 0
    files = verify(folder)["files"]

    def upload(name: str) -> int:
        path, size = path_of(version, name), int(files[name]["size"])
        if not config.overwrite and remote.size(path) == size:
            return 0
        remote.upload(folder / name, path)
        if (there := remote.size(path)) != size:
            raise InputError(f"{remote.name}/{path}: {there} bytes after the upload of {size}; push again")
        return size

    with ThreadPoolExecutor(max_workers=config.parallel, thread_name_prefix="push") as pool:
        uploaded = sum(pool.map(upload, files))
    remote.upload(folder / MANIFEST, place)
    return uploaded


def _push_histories(store: Path, remote: Remote) -> None:
    """Upload the histories and their hash; a server that erases a user may replace them meanwhile."""
    path = store / HISTORIES
    if not path.is_file():
        return
    for _ in range(_TRIES):
        before, content = path.stat(), file_hash(path)
        remote.upload(path, HISTORIES)
        after = path.stat()
        if (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns):
            remote.write(HISTORIES_HASH, f"{content}  {HISTORIES}\n")
            return
    raise InputError(f"{path}: changes all the time; push again")


def _remove_old(store: Path, version: str, remote: Remote, keep: int) -> None:
    """Remove versions that neither this store has nor are among the newest ones; the manifest goes first."""
    there = [name for name in remote.names(VERSIONS) if is_version(name)]
    kept = {version, *versions(store), *there[-keep:]}
    for name in there:
        if name not in kept:
            remote.remove(path_of(name, MANIFEST))
            remote.remove(f"{VERSIONS}/{name}", folder=True)
