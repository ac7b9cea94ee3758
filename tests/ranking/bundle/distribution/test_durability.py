"""What fetched files are after a power failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranking.bundle.distribution.layout import HISTORIES
from ranking.bundle.store import MANIFEST, VERSIONS
from tests.ranking.bundle.distribution.stores import fetch, publish, push


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    version = publish(store, "one", large=1)
    push(store, f"file://{bucket}")
    synced: set[int] = set()
    rename = Path.rename

    def recorded(path: Path) -> None:
        synced.add(path.stat().st_ino)

    def checked(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            assert path.stat().st_ino in synced
        return rename(path, target)

    monkeypatch.setattr("ranking.bundle.distribution.parts.sync", recorded)
    monkeypatch.setattr(Path, "rename", checked)
    fetch(f"file://{bucket}", server)
    files = [path for path in (server / VERSIONS / version).rglob("*") if path.name != MANIFEST]
    assert {path.stat().st_ino for path in (*files, server / HISTORIES) if path.is_file()} == synced
