from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import ranking.bundle.store as module
from conf.errors import InputError
from ranking.bundle.store import (
    CURRENT,
    MANIFEST,
    VERSIONS,
    current_version,
    file_hashes,
    publish_version,
    roll_back,
    verify,
    version_before,
    versions,
)


def writer(text: str) -> Callable[[Path], None]:
    """Return a writer of a bundle of three files, one of them in a folder."""

    def write(folder: Path) -> None:
        (folder / "a.txt").write_text(text)
        (folder / "inner").mkdir()
        (folder / "inner" / "b.bin").write_bytes(bytes(range(200)))
        (folder / "empty").write_bytes(b"")

    return write


def publish(store: Path, text: str, **describe: Any) -> str:
    return publish_version(store, writer(text), {"note": text, **describe})


def served(store: Path) -> str:
    """What a reader finds: the verified current version's text."""
    folder = store / VERSIONS / current_version(store)
    verify(folder)
    return (folder / "a.txt").read_text()


def files(store: Path) -> list[str]:
    return sorted(p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file())


def test_a_version_is_complete_described_and_current(tmp_path: Path) -> None:
    version = publish(tmp_path, "one", dims={"text": 3})
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{12}", version)
    manifest = verify(tmp_path / VERSIONS / version)
    assert manifest["version"] == version
    assert manifest["note"] == "one"
    assert manifest["dims"] == {"text": 3}
    assert set(manifest["files"]) == {"a.txt", "inner/b.bin", "empty"}
    assert manifest["files"]["inner/b.bin"]["size"] == 200
    assert served(tmp_path) == "one"
    assert versions(tmp_path) == [version]
    assert files(tmp_path) == [
        ".lock", ".pointer.lock", CURRENT,
        *(f"{VERSIONS}/{version}/{f}" for f in ("a.txt", "empty", "inner/b.bin", MANIFEST)),
    ]  # fmt: skip


def test_versions_published_within_a_second_stay_in_order(tmp_path: Path) -> None:
    names = [publish(tmp_path, str(n)) for n in range(6)]
    assert versions(tmp_path) == names == sorted(names)
    assert served(tmp_path) == "5"


def test_a_clock_set_back_does_not_put_a_new_version_before_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(tmp_path, "one")

    class Past(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2001, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(module, "datetime", Past)
    assert publish(tmp_path, "two") > first


class Crash(BaseException):
    """Not an Exception: nothing may catch it on the way, as nothing catches a power cut."""


@contextmanager
def crash_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Raise in place of the n-th file operation; yields the operations seen so far."""
    seen: list[str] = []
    with monkeypatch.context() as patch:

        def guard(owner: Any, name: str) -> None:
            original = getattr(owner, name)

            def guarded(*arguments: Any, **named: Any) -> Any:
                seen.append(name)
                if len(seen) == step + 1:
                    raise Crash(name)
                return original(*arguments, **named)

            patch.setattr(owner, name, guarded)

        for name in ("mkdir", "rename", "replace", "write_text", "write_bytes", "open", "unlink"):
            guard(Path, name)
        for name in ("fsync", "open", "close"):
            guard(os, name)
        yield seen


def operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """File operations of a whole publish into a store that has a version."""
    publish(tmp_path, "first")
    with crash_at(10_000, monkeypatch) as seen:
        publish(tmp_path, "second")
    return seen


def test_a_crash_at_any_file_operation_leaves_a_whole_version_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = operations(tmp_path / "whole", monkeypatch)
    assert {"mkdir", "rename", "replace", "write_text", "write_bytes", "open", "fsync"} <= set(steps)
    pointer = max(n for n, name in enumerate(steps) if name == "replace")
    for step, name in enumerate(steps):
        store = tmp_path / f"crash{step}"
        first = publish(store, "first")
        with crash_at(step, monkeypatch), pytest.raises(Crash):
            publish(store, "second")
        # Until the pointer is replaced the old version is served, from then on the new one.
        assert served(store) == ("first" if step <= pointer else "second"), (step, name)
        for version in versions(store):
            verify(store / VERSIONS / version)
        third = publish(store, "third")
        assert served(store) == "third", (step, name)
        assert {first, third} <= set(versions(store))
        hidden = [p.name for p in store.rglob(".*")]
        assert sorted(hidden) == [".lock", ".pointer.lock"], (step, name)


def test_a_crash_of_the_first_publish_ever_leaves_nothing_to_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(0, len(operations(tmp_path / "whole", monkeypatch)), 3):
        store = tmp_path / f"crash{step}"
        with crash_at(step, monkeypatch), pytest.raises(Crash):
            publish(store, "first")
        try:
            found = served(store)
        except InputError as error:
            found = str(error)
        assert found == "first" or "CURRENT: no such file; publish a bundle first" in found
        publish(store, "again")
        assert served(store) == "again"


def test_a_writer_that_fails_changes_nothing(tmp_path: Path) -> None:
    publish(tmp_path, "one")

    def broken(folder: Path) -> None:
        (folder / "half").write_text("ha")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        publish_version(tmp_path, broken, {})
    assert served(tmp_path) == "one"
    publish(tmp_path, "two")
    assert not list(tmp_path.rglob(".staging*"))


@pytest.mark.parametrize("name", ["a.txt", "inner/b.bin", "empty", MANIFEST])
@pytest.mark.parametrize("harm", ["missing", "truncated", "changed", "longer"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, harm: str) -> None:
    folder = tmp_path / VERSIONS / publish(tmp_path, "one")
    path = folder / name
    content = path.read_bytes()
    if name == "empty" and harm in ("truncated", "changed"):
        content = b"x"  # an empty file can only grow
    if harm == "missing":
        path.unlink()
    elif harm == "truncated":
        path.write_bytes(content[: len(content) // 2] if content != b"x" else content)
    elif harm == "changed":
        path.write_bytes(content.replace(b"one", b"two") if b"one" in content else bytes(len(content)))
    else:
        path.write_bytes(content + b" 1")
    with pytest.raises(InputError) as caught:
        verify(folder)
    assert str(path) in str(caught.value)
    assert "publish again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_of_the_manifest_is_covered(tmp_path: Path) -> None:
    folder = tmp_path / VERSIONS / publish(tmp_path, "one", counts={"items": 3})
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["counts"]["items"] = 4
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="manifest.json: changed after it was published"):
        verify(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"files": 3, "format_version": 1}'])
def test_an_unreadable_manifest_is_named(tmp_path: Path, content: str) -> None:
    folder = tmp_path / VERSIONS / publish(tmp_path, "one")
    (folder / MANIFEST).write_text(content)
    with pytest.raises(InputError, match="manifest.json"):
        verify(folder)


def test_a_bundle_of_another_format_says_so(tmp_path: Path) -> None:
    folder = tmp_path / VERSIONS / publish(tmp_path, "one")
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format_version": 99}))
    with pytest.raises(InputError, match="bundle format 99, this program reads 3; publish again"):
        verify(folder)


@pytest.mark.parametrize(
    "content",
    ["", "nonsense", "../../etc", "20200101T000000Z-0123456789ab", "one\ntwo", "\x00\xff", "x" * 5000],
)
def test_a_pointer_to_nothing_is_one_readable_line(tmp_path: Path, content: str) -> None:
    version = publish(tmp_path, "one")
    (tmp_path / CURRENT).write_text(content)
    with pytest.raises(InputError) as caught:
        current_version(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / CURRENT}: names ")
    assert version in message
    assert message.isprintable()
    assert len(message) < 400


def test_a_pointer_of_other_bytes_is_no_crash(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    (tmp_path / CURRENT).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a published version"):
        current_version(tmp_path)


def test_no_store_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="publish a bundle first"):
        current_version(tmp_path / "nothing")
    assert versions(tmp_path / "nothing") == []
    for version in (None, "20200101T000000Z-0123456789ab"):
        with pytest.raises(InputError):
            roll_back(tmp_path / "nothing", version)
    assert not (tmp_path / "nothing").exists()


def test_rolling_back_goes_one_version_at_a_time(tmp_path: Path) -> None:
    names = [publish(tmp_path, str(n)) for n in range(3)]
    assert roll_back(tmp_path) == names[1]
    assert served(tmp_path) == "1"
    assert roll_back(tmp_path) == names[0]
    assert served(tmp_path) == "0"
    with pytest.raises(InputError, match=f"no version before {names[0]} to roll back to"):
        roll_back(tmp_path)
    assert served(tmp_path) == "0"
    assert roll_back(tmp_path, names[2]) == names[2], "and forward by name"
    assert served(tmp_path) == "2", "and forward by name"


def test_a_version_that_was_rolled_back_is_passed_over_until_it_is_named(tmp_path: Path) -> None:
    good, bad = publish(tmp_path, "good"), publish(tmp_path, "bad")
    roll_back(tmp_path)
    new = publish(tmp_path, "new")
    assert version_before(tmp_path, new) == good, "not the bad one, which is newer"
    assert roll_back(tmp_path) == good
    assert roll_back(tmp_path, bad) == bad
    assert version_before(tmp_path, new) == bad, "named, it counts again; the new one was left last"
    assert publish(tmp_path, "newest") > new
    assert roll_back(tmp_path) == bad, "the new one is passed over"


def test_what_remains_of_a_rollback_is_named_where_nothing_else_is_there(tmp_path: Path) -> None:
    good, bad = publish(tmp_path, "good"), publish(tmp_path, "bad")
    roll_back(tmp_path)
    new = publish(tmp_path, "new")
    shutil.rmtree(tmp_path / VERSIONS / good)
    with pytest.raises(InputError, match=f"no version before {new} .* has left; name one: version={bad}"):
        roll_back(tmp_path)
    assert roll_back(tmp_path, bad) == bad


def test_a_version_published_while_the_earlier_one_is_verified_is_left_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = publish(tmp_path, "good"), publish(tmp_path, "bad")
    published: list[str] = []

    def slow(folder: Path) -> dict[str, Any]:
        published.append(publish(tmp_path, "meanwhile"))
        return verify(folder)

    with monkeypatch.context() as patch:
        patch.setattr(module, "verify", slow)
        assert roll_back(tmp_path) == good
    new = publish(tmp_path, "new")
    assert bad < published[0] < new
    assert version_before(tmp_path, new) == good


def test_rolling_back_to_what_is_not_there_or_damaged_keeps_the_current(tmp_path: Path) -> None:
    first, second = publish(tmp_path, "one"), publish(tmp_path, "two")
    with pytest.raises(InputError, match=f"no version 'old' \\(there are: {first}, {second}\\)"):
        roll_back(tmp_path, "old")
    (tmp_path / VERSIONS / first / "a.txt").write_text("bad")
    with pytest.raises(InputError, match=r"a\.txt: content does not match"):
        roll_back(tmp_path)
    assert served(tmp_path) == "two"


def test_two_publishers_at_once_take_turns(tmp_path: Path) -> None:
    publish(tmp_path, "zero")
    inside, most, failures = [0], [0], []

    def slow(text: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            writer(text)(folder)
            time.sleep(0.03)
            (folder / "late.txt").write_text(text)
            inside[0] -= 1

        return write

    def work(text: str) -> None:
        try:
            publish_version(tmp_path, slow(text), {"note": text})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        served(tmp_path)  # a reader always finds a whole version
    for thread in threads:
        thread.join()
    assert failures == []
    assert most == [1]
    found = versions(tmp_path)
    assert len(found) == 5
    assert current_version(tmp_path) == found[-1]
    for version in found:
        verify(tmp_path / VERSIONS / version)


def test_the_same_content_published_twice_is_two_versions(tmp_path: Path) -> None:
    first, second = publish(tmp_path, "one"), publish(tmp_path, "one")
    assert first != second
    assert first[-12:] == second[-12:]
    assert roll_back(tmp_path) == first


def test_a_file_that_fails_while_it_is_read_is_named() -> None:
    """Opening succeeds; the error of the read has no name of its own."""
    with pytest.raises(OSError, match="Input/output error") as caught:
        file_hashes([Path("/proc/self/mem")])
    assert caught.value.filename == "/proc/self/mem"
