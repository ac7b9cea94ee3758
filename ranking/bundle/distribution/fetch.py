"""`shelfwise fetch`: the pushed version into a store on this machine, once or again and again.

A version is downloaded into a hidden folder, each file is checked against the hash in the manifest and the
manifest against the hash in the version's name; then the folder is renamed, and CURRENT is replaced last. A
kill at any moment leaves the former version current, and what was downloaded is kept: the next fetch goes on
there. Files that another version here has with the same hash are linked instead of downloaded.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from conf.errors import InputError
from conf.operating import FetchConfig
from features.data.pipeline_step import write_atomically
from features.files.modes import create_private
from ranking.bundle.distribution.follow import follow
from ranking.bundle.distribution.layout import (
    HISTORIES,
    HISTORIES_HASH,
    path_of,
    remote_rolled_back,
    rolled_back_lines,
)
from ranking.bundle.distribution.parts import Download, StoppedError, download, writing
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import (
    CURRENT,
    LOCK,
    MANIFEST,
    ROLLED_BACK,
    STAGING,
    VERSIONS,
    add_folder,
    file_hash,
    locked,
    point_at,
    pointed_at,
    read_manifest,
    rolled_back,
    versions,
)

_FETCH_LOCK: Final = ".fetch.lock"
_UNFINISHED: Final = ".fetching-"
_HISTORY_TRIES: Final = 3
_MEGABYTE: Final = 1_000_000


@dataclass
class Fetched:
    """What a fetch has done."""

    version: str
    """The current version, which it made current."""
    downloaded: int = 0
    """Bytes."""
    linked: int = 0
    """Bytes of files that another version here had."""
    seconds: float = 0.0

    def line(self) -> str:
        """Return the line for an operator."""
        here = f", {self.linked / _MEGABYTE:,.1f} MB were here" if self.linked else ""
        return (
            f"fetched {self.version}: {self.downloaded / _MEGABYTE:,.1f} MB in {self.seconds:.1f} s{here}; "
            "it is current"
        )


def fetch(config: FetchConfig, console: Console) -> None:
    """Carry out `shelfwise fetch`.

    Raises:
        InputError: nothing has been pushed, or it cannot be read, written or verified.
    """
    remote, store = Remote.open(config.remote or ""), Path(config.artifacts)

    def once(stopped: Callable[[], bool]) -> None:
        wait = partial(_wait, config.spread_seconds if config.follow_seconds else 0.0, stopped)
        found = fetch_store(remote, store, config, stopped, wait)
        if found is not None:
            console.print(found.line(), soft_wrap=True, markup=False, highlight=False)
        elif not config.follow_seconds:
            console.print(
                f"{pointed_at(store)} is here and current", soft_wrap=True, markup=False, highlight=False
            )

    if config.follow_seconds:
        follow(once, config.follow_seconds, "fetch")
    else:
        once(lambda: False)


def fetch_store(
    remote: Remote,
    store: Path,
    config: FetchConfig,
    stopped: Callable[[], bool] = lambda: False,
    wait: Callable[[], None] = lambda: None,
) -> Fetched | None:
    """Make the pushed version current here; return None where it is already.

    Args:
        remote: what was pushed.
        store: the artifact store of this machine.
        config: which versions are fetched and kept.
        stopped: whether to end early, without a change.
        wait: called before the version of a store that has another one is downloaded.

    Raises:
        InputError: nothing has been pushed, or it cannot be read, written or verified.
        StoppedError: `stopped` was true.
    """
    with writing(store / VERSIONS):
        (store / VERSIONS).mkdir(parents=True, exist_ok=True)
        lock = locked(store, _FETCH_LOCK)
    with lock:
        version, former = _pushed_version(remote), pointed_at(store)
        if former is not None and former != version:
            wait()
            version = _pushed_version(remote)  # it may have been rolled back meanwhile
        began = time.monotonic()
        wanted = [*config.versions, version]
        missing = [one for one in dict.fromkeys(wanted) if one not in versions(store)]
        if former == version and not missing:
            return None
        found = Fetched(version)
        for one in missing:
            _fetch_version(remote, store, one, config.parallel, stopped, found)
        if former != version or not (store / HISTORIES).is_file():
            found.downloaded += _fetch_histories(remote, store, config.parallel, stopped)
        left = remote_rolled_back(remote)
        with writing(store / CURRENT):
            if left != rolled_back(store):
                write_atomically(store / ROLLED_BACK, rolled_back_lines(left))
            point_at(store, version)
        _remove_old(store, config.keep, {*wanted, former})
        found.seconds = time.monotonic() - began
        return found


def _pushed_version(remote: Remote) -> str:
    version = remote.current()
    if version is None:
        raise InputError(f"{remote.name}: nothing has been pushed here yet; run shelfwise push")
    return version


def _fetch_version(
    remote: Remote, store: Path, version: str, parallel: int, stopped: Callable[[], bool], found: Fetched
) -> None:
    """Download a version beside the others, and make it one of them when it is whole."""
    folder = store / VERSIONS / f"{_UNFINISHED}{version}"
    for leftover in (store / VERSIONS).glob(f"{_UNFINISHED}*"):
        if leftover != folder:
            shutil.rmtree(leftover, ignore_errors=True)
    with writing(folder):
        folder.mkdir(exist_ok=True)
    manifest = _fetch_manifest(remote, folder, version)
    downloads = [
        Download(remote, path_of(version, name), folder / name, int(file["size"]), str(file["sha256"]))
        for name, file in manifest["files"].items()
    ]
    with writing(folder):
        found.linked += _link_known(store, downloads)
        for one in downloads:
            one.begin()
        need, free = sum(one.missing_bytes() for one in downloads), shutil.disk_usage(store).free
    if need > free:
        raise InputError(
            f"{store}: {version} needs {need / _MEGABYTE:,.0f} MB more, {free / _MEGABYTE:,.0f} MB are free; "
            "make room, or keep fewer versions (keep=1)"
        )
    found.downloaded += download(downloads, parallel, stopped)
    with locked(store, LOCK), writing(folder):
        add_folder(store, version, folder)


def _fetch_manifest(remote: Remote, folder: Path, version: str) -> dict[str, Any]:
    """Return the manifest of a version, checked against the version's name."""
    place = f"{VERSIONS}/{version}/{MANIFEST}"
    content = remote.read(place)
    if content is None:
        raise InputError(f"{remote.name}/{place}: no such file; push the version again")
    with writing(folder / MANIFEST):
        (folder / MANIFEST).write_bytes(content)
    try:
        manifest = read_manifest(folder)
    except InputError as error:
        raise InputError(str(error).replace(str(folder / MANIFEST), f"{remote.name}/{place}")) from error
    if manifest["version"] != version:
        raise InputError(f"{remote.name}/{place}: is the manifest of {manifest['version']!r}; push it again")
    return manifest


def _link_known(store: Path, downloads: Collection[Download]) -> int:
    """Link files that another version here has; return their bytes. A damaged one is downloaded."""
    known: dict[str, Path] = {}
    for version in versions(store):
        with suppress(InputError):
            folder = store / VERSIONS / version
            known |= {file["sha256"]: folder / name for name, file in read_manifest(folder)["files"].items()}
    linked = 0
    for one in downloads:
        source = known.get(one.sha256)
        if source is None or one.target.is_file() or not source.is_file() or file_hash(source) != one.sha256:
            continue
        one.target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # a file system without links: it is downloaded
            os.link(source, one.target)
            linked += one.size
    return linked


def _fetch_histories(remote: Remote, store: Path, parallel: int, stopped: Callable[[], bool]) -> int:
    """Replace the histories by the pushed ones, if any; return the bytes. They name users: mode 600."""
    target = store / f"{_UNFINISHED}{HISTORIES}"
    for attempt in range(_HISTORY_TRIES):
        listed = remote.read(HISTORIES_HASH)
        size = remote.size(HISTORIES)
        if listed is None and size is None:
            return 0
        try:
            words = (listed or b"").decode(errors="replace").split()
            if not words:
                raise InputError(f"{remote.name}/{HISTORIES_HASH}: no such file, or an empty one; push again")
            one = Download(remote, HISTORIES, target, size or 0, words[0])
            with writing(store):
                target.unlink(missing_ok=True)
                missing = one.begin()
                if len(missing) == one.parts:
                    create_private(one.unfinished)
            came = download([one], parallel, stopped)
            with writing(store):
                target.chmod(0o600)
                target.replace(store / HISTORIES)
            return came
        except InputError:
            if attempt == _HISTORY_TRIES - 1:
                raise
            time.sleep(1.0)  # they are being replaced at this moment
    raise AssertionError


def _remove_old(store: Path, keep: int, needed: Collection[str | None]) -> None:
    """Remove versions beyond the newest ones; those that are needed stay and count."""
    known = versions(store)
    kept = {version for version in known if version in needed}
    others = [version for version in reversed(known) if version not in kept]
    for version in others[max(0, keep - len(kept)) :]:
        leftover = (
            store / VERSIONS / f"{STAGING}{version}"
        )  # its name first, so that it is no version half gone
        with suppress(OSError):
            (store / VERSIONS / version).rename(leftover)
        shutil.rmtree(leftover, ignore_errors=True)


def _wait(most: float, stopped: Callable[[], bool]) -> None:
    """Wait a random time, so that the servers of a fleet do not all load at once."""
    end = time.monotonic() + random.uniform(0.0, most)  # noqa: S311 - no secret
    while time.monotonic() < end:
        if stopped():
            raise StoppedError
        time.sleep(0.2)
