from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.operating import PushConfig
from ranking.bundle.distribution.push import push as push_command
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import CURRENT, MANIFEST, ROLLED_BACK, VERSIONS, roll_back, versions
from tests.ranking.bundle.distribution.http_folder import HttpFolder, until
from tests.ranking.bundle.distribution.stores import fetch, publish, push, served

ROOT = Path(__file__).parents[4]
MEMORY = "memory://fleet/store"


@pytest.fixture
def _memory() -> Iterator[None]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield
    files.store.clear()


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths in the order in which they are written."""
    written: list[str] = []
    upload, write = Remote.upload, Remote.write

    def uploading(self: Remote, source: Path, path: str) -> None:
        upload(self, source, path)
        written.append(path)

    def writing(self: Remote, path: str, content: str) -> None:
        write(self, path, content)
        written.append(path)

    monkeypatch.setattr(Remote, "upload", uploading)
    monkeypatch.setattr(Remote, "write", writing)
    return written


@pytest.mark.usefixtures("_memory")
def test_files_go_first_then_the_manifest_then_the_histories_and_the_pointer_last(
    tmp_path: Path, order: list[str]
) -> None:
    version = publish(tmp_path, "one")
    pushed = push(tmp_path, MEMORY)
    assert pushed is not None
    assert (pushed.version, pushed.uploaded) == (version, 3 + 200)
    folder = f"{VERSIONS}/{version}"
    assert sorted(order[:3]) == [f"{folder}/{name}" for name in ("a.txt", "empty", "inner/b.bin")]
    assert order[3:] == [f"{folder}/{MANIFEST}", "histories.parquet", "histories.parquet.sha256", CURRENT]
    assert push(tmp_path, MEMORY) is None
    fetch(MEMORY, tmp_path / "server")
    assert served(tmp_path / "server") == "one"


@pytest.mark.usefixtures("_memory")
def test_a_push_that_ended_early_goes_on_and_nothing_was_current_meanwhile(
    tmp_path: Path, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "one")
    push(tmp_path, MEMORY)
    version = publish(tmp_path, "two")
    upload = Remote.upload

    def cut_off(self: Remote, source: Path, path: str) -> None:
        if path.endswith(MANIFEST):
            raise InputError("the connection broke")
        upload(self, source, path)

    with monkeypatch.context() as broken:
        broken.setattr(Remote, "upload", cut_off)
        with pytest.raises(InputError, match="the connection broke"):
            push(tmp_path, MEMORY)
    fetch(MEMORY, tmp_path / "server")
    assert served(tmp_path / "server") == "one"
    order.clear()
    pushed = push(tmp_path, MEMORY)
    assert pushed is not None
    assert pushed.uploaded == 0
    assert order[0] == f"{VERSIONS}/{version}/{MANIFEST}"
    fetch(MEMORY, tmp_path / "server")
    assert served(tmp_path / "server") == "two"


@pytest.mark.usefixtures("_memory")
def test_a_file_that_is_removed_meanwhile_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(tmp_path, "one")
    make_folder = Remote._make_folder

    def remove(self: Remote, path: str) -> None:
        make_folder(self, path)
        (tmp_path / VERSIONS / version / "a.txt").unlink(missing_ok=True)

    monkeypatch.setattr(Remote, "_make_folder", remove)
    with pytest.raises(InputError, match=f"{version}/a.txt: was removed meanwhile; push again"):
        push(tmp_path, MEMORY, parallel=1)
    assert Remote.open(MEMORY).current() is None


def test_a_file_that_was_cut_off_is_uploaded_again(tmp_path: Path) -> None:
    store, bucket = tmp_path / "store", tmp_path / "bucket"
    version = publish(store, "one")
    (bucket / VERSIONS / version / "inner").mkdir(parents=True)
    (bucket / VERSIONS / version / "inner" / "b.bin").write_bytes(bytes(range(100)))
    pushed = push(store, f"file://{bucket}")
    assert pushed is not None
    assert pushed.uploaded == 3 + 200
    fetch(f"file://{bucket}", tmp_path / "server")
    assert served(tmp_path / "server") == "one"


@pytest.mark.usefixtures("_memory")
def test_a_damaged_version_is_not_pushed(tmp_path: Path) -> None:
    version = publish(tmp_path, "one")
    (tmp_path / VERSIONS / version / "a.txt").write_text("eno")
    with pytest.raises(InputError, match="does not match its sha256"):
        push(tmp_path, MEMORY)
    assert Remote.open(MEMORY).current() is None


@pytest.mark.usefixtures("_memory")
def test_a_newer_version_of_another_store_is_not_replaced(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    first = publish(mine, "one")
    push(mine, MEMORY)
    fetch(MEMORY, other)
    second = publish(other, "two")
    assert second > first
    push(other, MEMORY)
    with pytest.raises(InputError, match=f"{second} is current, newer than {first} and not of this store"):
        push(mine, MEMORY)
    fetch(MEMORY, mine)  # as the message says
    third = publish(mine, "three")
    push(mine, MEMORY)
    assert Remote.open(MEMORY).current() == third
    push(other, MEMORY, replace=True)
    assert Remote.open(MEMORY).current() == second


@pytest.mark.usefixtures("_memory")
def test_a_rollback_anywhere_is_the_fleets_and_is_not_undone_by_the_store_that_published(
    tmp_path: Path,
) -> None:
    trained, server = tmp_path / "trained", tmp_path / "server"
    first = publish(trained, "one")
    push(trained, MEMORY)
    fetch(MEMORY, server)
    second = publish(trained, "two")
    push(trained, MEMORY)
    fetch(MEMORY, server)
    roll_back(server)
    push(server, MEMORY)
    remote = Remote.open(MEMORY)
    assert remote.current() == first
    assert remote.read(ROLLED_BACK) == f"{second}\n".encode()
    with pytest.raises(InputError, match=f"a rollback has left {second}; publish a newer one"):
        push(trained, MEMORY)
    third = publish(trained, "three")
    push(trained, MEMORY)
    fetch(MEMORY, server)
    assert served(server) == "three"
    roll_back(server)  # not to the one that was left
    assert served(server) == "one"
    assert remote.current() == third


def test_old_versions_go_that_neither_the_store_has_nor_are_the_newest(tmp_path: Path) -> None:
    store, bucket = tmp_path / "store", tmp_path / "bucket"
    names = []
    for text in ("one", "two", "three", "four"):
        names.append(publish(store, text))
        push(store, f"file://{bucket}", keep=2)
    assert versions(bucket) == names  # all of them are in the store
    for name in (names[0], names[2]):
        shutil.rmtree(store / VERSIONS / name)
    names.append(publish(store, "five"))
    push(store, f"file://{bucket}", keep=2)
    assert versions(bucket) == [names[1], names[3], names[4]]


def test_a_web_server_cannot_be_written_to(tmp_path: Path) -> None:
    store, bucket = tmp_path / "store", tmp_path / "bucket"
    bucket.mkdir()
    publish(store, "one")
    with HttpFolder(bucket) as web, pytest.raises(InputError) as error:
        push(store, web.address)
    assert "cannot be written" in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_is_published_yet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="publish a bundle first"):
        push_command(
            PushConfig(remote=f"file://{tmp_path}/bucket", artifacts=str(tmp_path)),
            Console(file=io.StringIO()),
        )


def started(command: str, **settings: Any) -> subprocess.Popen[str]:
    """Start a command of the program, as an operator does."""
    words = [f"{name}={value}" for name, value in settings.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "shelfwise", command, *words],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip


def test_servers_follow_what_is_pushed_and_a_last_push_comes_after_the_signal(tmp_path: Path) -> None:
    store, bucket, server = (tmp_path / name for name in ("store", "bucket", "server"))
    publish(store, "one")
    fetching = started(
        "fetch", remote=f"file://{bucket}", artifacts=server, follow_seconds=0.2, spread_seconds=0.1
    )
    pushing = started("push", remote=f"file://{bucket}", artifacts=store, follow_seconds=600)
    try:
        until(lambda: (server / CURRENT).is_file())
        assert served(server) == "one"
        publish(store, "two")  # the next look is ten minutes away
        pushing.send_signal(signal.SIGTERM)
        output, errors = pushing.communicate(timeout=60)
        assert (pushing.returncode, errors) == (0, "")
        assert output.count("; it is current") == 2
        until(lambda: served(server) == "two")
        fetching.send_signal(signal.SIGTERM)
        output, errors = fetching.communicate(timeout=60)
        assert fetching.returncode == 0
        assert output.count("; it is current") == 2
        # Printed once, however often it looked before anything was there.
        assert errors.count("nothing has been pushed here yet") <= 1
    finally:
        for process in (fetching, pushing):
            process.kill()
            process.communicate(timeout=20)
