from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conf.errors import InputError
from ranking.bundle.distribution import object_store
from ranking.bundle.distribution.layout import HISTORIES
from ranking.bundle.distribution.parts import PART
from ranking.bundle.distribution.remote import Remote
from ranking.bundle.store import CURRENT, MANIFEST, VERSIONS, versions
from tests.ranking.bundle.distribution.s3_server import CUT, KEY, SECRET, S3Server
from tests.ranking.bundle.distribution.stores import LARGE, fetch, publish, push, served

ADDRESS = "s3://shop/store"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setattr(object_store, "_PAUSE", timedelta(milliseconds=10))
        monkeypatch.setattr("ranking.bundle.distribution.parts._PAUSE", 0.01)
        yield server


def one_line(call: Any) -> str:
    """Return the message of the InputError of a call, which is one line without a secret."""
    with pytest.raises(InputError) as error:
        call()
    said = str(error.value)
    assert "\n" not in said
    assert SECRET not in said
    return said


def test_a_store_goes_there_and_back(tmp_path: Path, s3: S3Server) -> None:
    store, server = tmp_path / "store", tmp_path / "server"
    first = publish(store, "one", large=1)
    pushed = push(store, ADDRESS)
    assert pushed is not None
    assert pushed.uploaded == LARGE + 3 + 200
    assert sorted(s3.objects) == [
        f"store/{CURRENT}", f"store/{HISTORIES}", f"store/{HISTORIES}.sha256",
        *(f"store/{VERSIONS}/{first}/{name}"
          for name in ("a.txt", "empty", "inner/b.bin", "large.bin", MANIFEST)),
    ]  # fmt: skip
    assert (
        s3.objects[f"store/{VERSIONS}/{first}/large.bin"]
        == (store / VERSIONS / first / "large.bin").read_bytes()
    )  # which was uploaded in parts
    found = fetch(ADDRESS, server)
    assert found is not None
    assert found.downloaded == LARGE + 3 + 200 + len("histories of one")
    assert served(server) == "one"
    second = publish(store, "two")
    push(store, ADDRESS)
    assert Remote.open(ADDRESS).names(VERSIONS) == [first, second]
    fetch(ADDRESS, server)
    assert served(server) == "two"


def test_old_versions_are_removed_from_a_bucket(tmp_path: Path, s3: S3Server) -> None:
    names = list[str]()
    for text in ("one", "two", "three"):
        names.append(publish(tmp_path, text))
        if len(names) == 2:
            shutil.rmtree(tmp_path / VERSIONS / names[0])
        push(tmp_path, ADDRESS, keep=2)
    assert Remote.open(ADDRESS).names(VERSIONS) == names[1:]
    assert not [key for key in s3.objects if names[0] in key]


@pytest.mark.usefixtures("s3")
def test_parts_sizes_and_missing_files() -> None:
    bucket = Remote.open(ADDRESS)
    bucket.write("inner/name", "0123456789")
    assert bucket.read_range("inner/name", 0, 4) == b"0123"
    assert bucket.read_range("inner/name", 4, 10) == b"456789"
    assert bucket.size("inner/name") == 10
    assert (bucket.size("inner/other"), bucket.read("other"), bucket.names("nothing")) == (None, None, [])
    assert "inner/name: 10 bytes or fewer, not 11; push it again" in one_line(
        lambda: bucket.read_range("inner/name", 4, 11)
    )
    bucket.remove("inner/name")
    bucket.remove("inner/name")
    assert bucket.size("inner/name") is None


def test_a_download_goes_on_with_the_parts_that_are_missing(tmp_path: Path, s3: S3Server) -> None:
    store, server = tmp_path / "store", tmp_path / "server"
    publish(store, "one")
    push(store, ADDRESS)
    fetch(ADDRESS, server)
    publish(store, "two", large=2)
    push(store, ADDRESS)
    last = f"bytes={2 * PART}-{LARGE - 1}"
    # What is missing of a response is asked for from where it broke, so every such request breaks.
    s3.fails = lambda method, key, range_: (
        CUT if range_.startswith("bytes=") and int(range_[6:].split("-")[0]) >= 2 * PART else 0
    )
    said = one_line(lambda: fetch(ADDRESS, server, parallel=1))
    assert re.fullmatch(rf"{ADDRESS}/versions/\S+/large.bin: cannot be read \(the connection broke\)", said)
    assert served(server) == "one"
    assert len(versions(server)) == 1
    s3.fails = lambda method, key, range_: 0
    s3.asked.clear()
    found = fetch(ADDRESS, server)
    assert found is not None
    assert [range_ for _, key, range_ in s3.asked if key.endswith("large.bin")] == [last]
    assert served(server) == "two"


def test_a_connection_that_breaks_once_and_a_busy_store_are_tried_again(tmp_path: Path, s3: S3Server) -> None:
    store, server = tmp_path / "store", tmp_path / "server"
    failures: list[tuple[str, str, str]] = []

    def once(status: int) -> None:
        failures.clear()

        def fails(method: str, key: str, range_: str) -> int:
            if (method, key, range_) in failures:
                return 0
            failures.append((method, key, range_))
            return status

        s3.fails = fails

    publish(store, "one", large=1)
    once(503)
    push(store, ADDRESS)
    for status in (503, CUT):
        once(status)
        fetch(ADDRESS, server / str(status))
        assert served(server / str(status)) == "one"
        assert len(failures) >= 6  # every request failed once


def test_an_upload_that_broke_leaves_the_former_version_current(tmp_path: Path, s3: S3Server) -> None:
    store, server = tmp_path / "store", tmp_path / "server"
    publish(store, "one")
    push(store, ADDRESS)
    second = publish(store, "two", large=2)
    s3.fails = lambda method, key, range_: 500 if method in ("PUT", "POST") and "large" in key else 0
    assert f"{VERSIONS}/{second}/large.bin: cannot be written" in one_line(lambda: push(store, ADDRESS))
    assert f"store/{VERSIONS}/{second}/{MANIFEST}" not in s3.objects
    s3.fails = lambda method, key, range_: 0
    fetch(ADDRESS, server)
    assert served(server) == "one"
    pushed = push(store, ADDRESS)
    assert pushed is not None
    assert pushed.uploaded == LARGE  # the small files are there
    fetch(ADDRESS, server)
    assert served(server) == "two"


def test_wrong_credentials_are_one_line(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, server = tmp_path / "store", tmp_path / "server"
    publish(store, "one")
    push(store, ADDRESS)
    fetch(ADDRESS, server)
    publish(store, "two")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    refused = (
        f"{ADDRESS}/{CURRENT}: cannot be read (GET {s3.address}: 403 Forbidden, "
        "InvalidAccessKeyId: The key does not exist in our records.)"
    )
    assert one_line(lambda: fetch(ADDRESS, server)) == refused
    assert one_line(lambda: fetch(ADDRESS, server)) == refused  # the same each time: it is printed once
    assert one_line(lambda: push(store, ADDRESS)) == refused
    assert served(server) == "one"


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_named(tmp_path: Path) -> None:
    publish(tmp_path / "store", "one")
    for call in (
        lambda: fetch("s3://shpo/store", tmp_path / "server"),
        lambda: push(tmp_path / "store", "s3://shpo/store"),
    ):
        assert one_line(call) == "s3://shpo/store/CURRENT: cannot be read (there is no bucket 'shpo')"


def test_a_version_that_is_named_and_not_there_changes_nothing(tmp_path: Path, s3: S3Server) -> None:
    store, server = tmp_path / "store", tmp_path / "server"
    assert one_line(lambda: fetch(ADDRESS, server)).startswith(f"{ADDRESS}: nothing has been pushed here yet")
    publish(store, "one")
    push(store, ADDRESS)
    fetch(ADDRESS, server)
    second = publish(store, "two")
    push(store, ADDRESS)
    gone = s3.objects.pop(f"store/{VERSIONS}/{second}/a.txt")
    assert one_line(lambda: fetch(ADDRESS, server)) == (
        f"{ADDRESS}/{VERSIONS}/{second}/a.txt: no such file; push it again"
    )
    assert served(server) == "one"
    s3.objects[f"store/{VERSIONS}/{second}/a.txt"] = gone
    s3.objects[f"store/{CURRENT}"] = b"20990601T120000Z-aaaaaaaaaaaa\n"
    assert one_line(lambda: fetch(ADDRESS, server)).endswith(
        "manifest.json: no such file; push the version again"
    )
    assert served(server) == "one"


def test_an_object_store_that_does_not_answer_is_one_line(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    said = one_line(lambda: fetch(ADDRESS, tmp_path))
    assert said == f"{ADDRESS}/{CURRENT}: cannot be read (GET http://127.0.0.1:{port}: cannot connect)"
    assert s3.asked == []


def test_a_profile_is_refused_with_a_command_that_works(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "shop")
    assert one_line(lambda: Remote.open(ADDRESS)) == (
        f"remote: {ADDRESS} cannot be opened: the profile 'shop' of AWS is not read; put its keys into the "
        'environment: eval "$(aws configure export-credentials --profile shop --format env)"'
    )
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    Remote.open(ADDRESS)  # the role of the machine
    (tmp_path / "credentials").write_text("[default]\n")
    assert "the profile 'default' of AWS is not read" in one_line(lambda: Remote.open(ADDRESS))
    assert s3.asked == []


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://", "no bucket in s3://"),
        ("s3://key:secret-of-the-shop@", "no bucket in s3://"),
        ("s3://shop/store?region=eu-west-1", "parameters of an address are not read: set AWS_REGION"),
        ("abfs://container/store", "Account must be specified"),
    ],
)
def test_an_address_that_is_wrong_is_one_line(address: str, said: str) -> None:
    assert said in one_line(lambda: Remote.open(address))


@pytest.mark.usefixtures("s3")
def test_google_and_azure_are_opened_without_a_request() -> None:
    for address in ("gs://shop/store", "gcs://shop/store", "abfs://shop@account.dfs.core.windows.net/store"):
        assert Remote.open(address)._root == ""
