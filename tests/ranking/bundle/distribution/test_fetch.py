from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from conf.errors import InputError
from conf.operating import FetchConfig
from ranking.bundle.bundle import HISTORIES as BUNDLE_HISTORIES
from ranking.bundle.distribution.fetch import fetch_store
from ranking.bundle.distribution.layout import HISTORIES, HISTORIES_HASH, path_of
from ranking.bundle.distribution.parts import PART, StoppedError
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import CURRENT, MANIFEST, VERSIONS, roll_back, version_before, versions
from tests.ranking.bundle.distribution.http_folder import HttpFolder, until
from tests.ranking.bundle.distribution.stores import LARGE, fetch, publish, push, served

ROOT = Path(__file__).parents[4]


def address(folder: Path) -> str:
    return f"file://{folder}"


def unfinished(store: Path) -> list[str]:
    return sorted(p.name for p in (store / VERSIONS).iterdir() if p.name.startswith("."))


def test_a_version_comes_whole_with_its_histories_and_only_once(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    version = publish(store, "one", large=1)
    push(store, address(bucket))
    found = fetch(address(bucket), server)
    assert found is not None
    assert (found.version, found.linked) == (version, 0)
    assert found.downloaded == LARGE + 3 + 200 + len("histories of one")
    assert served(server) == "one"
    assert (server / HISTORIES).read_text() == "histories of one"
    assert (server / HISTORIES).stat().st_mode & 0o777 == 0o600  # it names users
    assert unfinished(server) == []
    assert fetch(address(bucket), server) is None
    assert HISTORIES == BUNDLE_HISTORIES


def test_what_another_version_here_has_is_linked_unless_it_is_damaged(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    first = publish(store, "one", large=1)
    push(store, address(bucket))
    fetch(address(bucket), server)
    second = publish(store, "two", large=1)
    push(store, address(bucket))
    found = fetch(address(bucket), server)
    assert found is not None
    assert found.linked == LARGE + 200  # and the empty file
    assert found.downloaded == 3 + len("histories of two")
    inodes = {(server / VERSIONS / one / "large.bin").stat().st_ino for one in (first, second)}
    assert len(inodes) == 1
    publish(store, "three", large=1)
    push(store, address(bucket))
    with (server / VERSIONS / second / "large.bin").open("r+b") as damaged:
        damaged.write(b"damaged")
    found = fetch(address(bucket), server)
    assert found is not None
    assert found.downloaded == LARGE + len("three") + len("histories of three")
    assert served(server) == "three"


def test_a_fetch_that_is_killed_goes_on_with_the_parts_that_are_missing(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one")
    push(store, address(bucket))
    fetch(address(bucket), server)
    publish(store, "two", large=2)
    push(store, address(bucket))
    with HttpFolder(bucket) as web:
        held = [True]

        def hold_the_last(path: str, start: int) -> None:
            if path.endswith("/large.bin") and start == 2 * PART:
                until(lambda: not held[0])

        web.before = hold_the_last
        command = (
            "from ranking.bundle.distribution.fetch import fetch; from conf.operating import FetchConfig; "
            "from rich.console import Console; import sys; "
            "fetch(FetchConfig(remote=sys.argv[1], artifacts=sys.argv[2]), Console())"
        )
        killed = subprocess.Popen(
            [sys.executable, "-c", command, web.address, str(server)],
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        )
        try:
            listed = (server / VERSIONS).glob
            until(lambda: any(p.read_text().count("\n") == 3 for p in listed(".fetching-*/large.bin.parts")))
        finally:
            killed.send_signal(signal.SIGKILL)
            killed.wait(20)
            held[0] = False
        assert served(server) == "one"  # nothing of it can be seen
        assert versions(server) == [(server / CURRENT).read_text().strip()]
        web.asked.clear()
        found = fetch(web.address, server)
        assert found is not None
        assert set(web.parts_of("large.bin")) == {2 * PART}  # the killed one may get its answer now, too
        assert found.downloaded == LARGE - 2 * PART + len("histories of two")
    assert served(server) == "two"
    assert unfinished(server) == []


def test_what_is_left_of_a_version_that_is_no_longer_current_is_removed(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one", large=1)
    push(store, address(bucket))
    calls: list[int] = []

    def stopped() -> bool:
        calls.append(1)
        return len(calls) > 3

    with pytest.raises(StoppedError):
        fetch_store(Remote.open(address(bucket)), server, FetchConfig(parallel=1), stopped)
    assert len(unfinished(server)) == 1
    publish(store, "two")
    push(store, address(bucket))
    fetch(address(bucket), server)
    assert served(server) == "two"
    assert unfinished(server) == []


@pytest.mark.parametrize("name", ["large.bin", "a.txt", "empty"])
def test_content_of_another_hash_is_never_current(tmp_path: Path, name: str) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one")
    push(store, address(bucket))
    fetch(address(bucket), server)
    version = publish(store, "two", large=3)
    push(store, address(bucket))
    file = bucket / VERSIONS / version / name
    right = file.read_bytes()
    file.write_bytes(b"x" * len(right) if right else b"x")
    if right:
        with pytest.raises(
            InputError, match=rf"{name}: content does not match its sha256; fetch again"
        ) as error:
            fetch(address(bucket), server)
        assert "\n" not in str(error.value)
        assert served(server) == "one"
        file.write_bytes(right)
    fetch(address(bucket), server)  # of an empty file nothing is read
    assert served(server) == "two"


def test_a_wrong_hash_is_repaired_by_a_push_that_overwrites(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    version = publish(store, "one")
    push(store, address(bucket))
    (bucket / VERSIONS / version / "a.txt").write_text("eno")
    with pytest.raises(InputError, match="overwrite=true"):
        fetch(address(bucket), server)
    push(store, address(bucket), overwrite=True)
    fetch(address(bucket), server)
    assert served(server) == "one"


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    version = publish(store, "one")
    push(store, address(bucket))
    path = bucket / VERSIONS / version / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["files"]["../../../etc/cron.d/x"] = manifest["files"].pop("a.txt")
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"^file://{bucket}/versions/{version}/manifest.json: changed after"):
        fetch(address(bucket), server)
    assert not (server / CURRENT).exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ""])
def test_a_name_of_a_file_leads_nowhere_else(name: str) -> None:
    with pytest.raises(InputError, match="outside of the version"):
        path_of("20240601T120000Z-aaaaaaaaaaaa", name)


@pytest.mark.parametrize("current", ["../../etc", "", "a/b", "20240601T120000Z-aaaaaaaaaaa"])
def test_a_pointer_that_names_no_version_changes_nothing(tmp_path: Path, current: str) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one")
    push(store, address(bucket))
    fetch(address(bucket), server)
    (bucket / CURRENT).write_text(current)
    with pytest.raises(InputError, match="CURRENT: holds no name of a version"):
        fetch(address(bucket), server)
    assert served(server) == "one"


def test_a_version_that_is_named_and_not_there_changes_nothing(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one")
    push(store, address(bucket))
    fetch(address(bucket), server)
    (bucket / CURRENT).write_text("20240601T120000Z-aaaaaaaaaaaa\n")
    with pytest.raises(InputError, match="manifest.json: no such file; push the version again"):
        fetch(address(bucket), server)
    assert served(server) == "one"
    with pytest.raises(InputError, match="nothing has been pushed here yet"):
        fetch(address(tmp_path / "empty"), server)


def test_a_disk_that_is_too_small_is_one_line_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one", large=1)
    push(store, address(bucket))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 5_000_000, 5_000_000))
    with HttpFolder(bucket) as web:
        with pytest.raises(InputError, match=r"needs 17 MB more, 5 MB are free; make room, or keep fewer"):
            fetch(web.address, server)
        assert web.parts_of("large.bin") == []


def test_a_disk_that_fills_up_is_one_line_and_what_is_there_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one", large=1)
    push(store, address(bucket))
    write, written = os.pwrite, [0]

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if written[0] + len(data) > 10_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written[0] += len(data)
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with HttpFolder(bucket) as web:
        with pytest.raises(InputError, match="cannot be written .no space left; what is there is kept"):
            fetch(web.address, server, parallel=1)
        monkeypatch.setattr(os, "pwrite", write)
        web.asked.clear()
        fetch(web.address, server)
        assert web.parts_of("large.bin")[0] == PART  # the first one is there
    assert served(server) == "one"


def test_a_server_without_range_requests_is_named(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one", large=1)
    push(store, address(bucket))
    with HttpFolder(bucket, ranges=False) as web, pytest.raises(InputError, match="no range requests"):
        fetch(web.address, server)


def test_histories_that_are_replaced_meanwhile_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one")
    push(store, address(bucket))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with HttpFolder(bucket) as web:
        seen: list[str] = []

        def replace(path: str, start: int) -> None:
            if path == f"/{HISTORIES}" and not seen:
                seen.append(path)
                (store / HISTORIES).write_text("histories of two")
                publish(store, "two")
                push(store, address(bucket))

        web.before = replace
        found = fetch(web.address, server)
    assert found is not None
    assert served(server) == "one"  # CURRENT was read before
    assert (server / HISTORIES).read_text() == "histories of two"


def test_histories_without_a_hash_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one")
    push(store, address(bucket))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    (bucket / HISTORIES_HASH).write_text("")  # a folder shows a file before it is written
    with pytest.raises(InputError, match=f"{HISTORIES_HASH}: no such file, or an empty one; push again"):
        fetch(address(bucket), server)
    assert not (server / CURRENT).exists()


def test_a_version_that_was_rolled_back_during_the_wait_never_becomes_current(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    first = publish(store, "one")
    push(store, address(bucket))
    fetch(address(bucket), server)
    publish(store, "two")
    push(store, address(bucket))

    def roll_the_fleet_back() -> None:
        roll_back(store)
        push(store, address(bucket))

    remote = Remote.open(address(bucket))
    found = fetch_store(remote, server, FetchConfig(), wait=roll_the_fleet_back)
    assert found is None
    assert versions(server) == [first]


def test_a_pointer_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one")
    push(store, address(bucket))
    fetch(address(bucket), server)
    publish(store, "two")
    push(store, address(bucket))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ranking.bundle.distribution.fetch.point_at", full)
        with pytest.raises(InputError, match="cannot be written .no space left; what is there is kept"):
            fetch(address(bucket), server)
    assert served(server) == "one"
    fetch(address(bucket), server)
    assert served(server) == "two"


def test_the_version_before_stays_for_a_rollback_and_rollbacks_come_along(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    names = []
    for text in ("one", "two", "three"):
        names.append(publish(store, text))
        push(store, address(bucket))
        fetch(address(bucket), server)
    assert versions(server) == names[1:]
    roll_back(store)
    push(store, address(bucket))
    fetch(address(bucket), server)
    assert served(server) == "two"
    names.append(publish(store, "four"))
    push(store, address(bucket))
    fetch(address(bucket), server, keep=3)
    assert versions(server) == names[1:]
    assert version_before(server, names[3]) == names[1]  # not the one that the rollback has left


def test_versions_that_arms_name_are_fetched_and_kept(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    names = []
    for text in ("one", "two", "three", "four"):
        names.append(publish(store, text))
        push(store, address(bucket))
    fetch(address(bucket), server, keep=1, versions=[names[1]])
    assert versions(server) == [names[1], names[3]]
    assert served(server) == "four"


def test_credentials_of_an_address_are_in_no_message(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        fetch("http://shop:s3cret@127.0.0.1:9/store?signature=s3cret", tmp_path)
    assert "s3cret" not in str(error.value)
    assert "http://127.0.0.1:9/store/CURRENT: cannot be read" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("remote", "said"),
    [("", "remote is not set"), ("/srv/x", "is no address"), ("nosuch://x/y", "cannot be opened")],
)
def test_an_address_that_is_none_says_what_one_looks_like(tmp_path: Path, remote: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"{said}.*remote=s3://bucket/path"):
        fetch(remote, tmp_path)
