"""Small stores to push and fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from conf.operating import FetchConfig, PushConfig
from ranking.bundle.distribution.fetch import Fetched, fetch_store
from ranking.bundle.distribution.parts import PART
from ranking.bundle.distribution.push import Pushed, push_store
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import CURRENT, VERSIONS, publish_version, verify

LARGE = 2 * PART + 12_345
"""Bytes of the large file of a version: three parts."""


def publish(store: Path, text: str, large: int | None = None) -> str:
    """Publish a version of a text, an empty file, one in a folder, and a large one where a seed is given."""

    def write(folder: Path) -> None:
        (folder / "a.txt").write_text(text)
        (folder / "inner").mkdir()
        (folder / "inner" / "b.bin").write_bytes(bytes(range(200)))
        (folder / "empty").write_bytes(b"")
        if large is not None:
            (folder / "large.bin").write_bytes(np.random.default_rng(large).bytes(LARGE))

    version = publish_version(store, write, {"note": text})
    (store / "histories.parquet").write_text(f"histories of {text}")
    return version


def push(store: Path, remote: str, **settings: Any) -> Pushed | None:
    return push_store(store, Remote.open(remote), PushConfig(**settings))


def fetch(remote: str, store: Path, **settings: Any) -> Fetched | None:
    return fetch_store(Remote.open(remote), store, FetchConfig(**settings))


def served(store: Path) -> str:
    """What a server finds: the text of the verified current version."""
    folder = store / VERSIONS / (store / CURRENT).read_text().strip()
    verify(folder)
    return (folder / "a.txt").read_text()
