from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from conf.errors import InputError
from serving.transport.api_keys import ApiKey, KeyRing, RateLimit, Scope, create_key, hash_key, read_keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_key_is_kept_as_a_hash_and_found_again(path: Path) -> None:
    shop = create_key(path, "shop", ["read", "events"], 5.0, 10)
    feed = create_key(path, "feed", ["admin"])
    assert shop != feed
    assert shop.startswith("sw_")
    assert len(shop) > 40
    content = path.read_text()
    assert shop not in content
    assert feed not in content
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_keys(path)[0] == ApiKey("shop", hash_key(shop), (Scope.read, Scope.events), 5.0, 10)
    ring = KeyRing(path)
    names = [getattr(ring.find(s), "name", None) for s in (shop, feed, shop[:-1], "", "\udcff")]
    assert names == ["shop", "feed", None, None, None]


def test_a_key_that_is_taken_out_is_refused_without_a_restart(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serving.transport.api_keys._POLL_SECONDS", 0.0)
    first, second = create_key(path, "first", ["read"]), create_key(path, "second", ["read"], 1.0, 1)
    ring = KeyRing(path)
    held = ring.find(second)
    assert held is not None
    assert ring.wait_seconds(held) == 0.0
    entries = json.loads(path.read_text())["keys"]
    path.write_text(json.dumps({"keys": entries[1:]}) + " ")
    assert ring.find(first) is None
    assert ring.find(second) == held
    assert ring.wait_seconds(held) > 0.5  # the bucket is not refilled by the change
    path.write_text("nonsense")
    assert ring.find(second) == held
    assert "the former keys stay in use" in caplog.text
    path.unlink()
    assert ring.find(second) == held


def test_a_bucket_allows_a_burst_and_then_the_rate() -> None:
    now = [100.0]
    limit = RateLimit(ApiKey("k", "", (Scope.read,), requests_per_second=2.0, burst=3), lambda: now[0])
    assert [limit.wait_seconds() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    now[0] += 0.25
    assert limit.wait_seconds() == pytest.approx(0.25)
    now[0] += 0.25
    assert limit.wait_seconds() == 0.0
    now[0] += 1000.0
    assert [limit.wait_seconds() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    free = RateLimit(ApiKey("k", "", (Scope.read,)), lambda: now[0])
    assert {free.wait_seconds() for _ in range(100)} == {0.0}
    assert ApiKey("k", "", (), requests_per_second=2.4).capacity == 5.0


ENTRY: dict[str, Any] = {"name": "a", "sha256": "0" * 64, "scopes": ["read"]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nonsense", "not a key file"),
        ("[]", "not a key file"),
        ('{"keys": {}}', "not a key file"),
        ({"sha256": "0" * 64, "scopes": ["read"]}, r"keys\[0\]: needs name"),
        ({**ENTRY, "scopes": ["write"]}, "'write' is not a valid Scope"),
        ({**ENTRY, "scopes": []}, "and a scope"),
        ({**ENTRY, "sha256": "the key itself"}, "64 hex digits"),
        ({**ENTRY, "name": "two words"}, "needs a name of"),
        ({**ENTRY, "requests_per_second": -1}, "must be 0 or more"),
        ({**ENTRY, "burst": "many"}, r"keys\[0\]"),
        ([ENTRY, {**ENTRY, "sha256": "1" * 64}], "the same name twice"),
        ([ENTRY, {**ENTRY, "name": "b"}], "the same key twice"),
    ],
)
def test_wrong_files_are_named(path: Path, content: Any, says: str) -> None:
    if not isinstance(content, str):
        content = json.dumps({"keys": content if isinstance(content, list) else [content]})
    path.write_text(content)
    with pytest.raises(InputError, match=says):
        KeyRing(path)


@pytest.mark.parametrize(
    ("name", "scopes", "says"),
    [
        (
            "new",
            ["read", "event"],
            r"^scopes: there is no scope 'event'; did you mean 'events'\?; write 'scopes=",
        ),
        (
            "new",
            ["everything"],
            r"^scopes: there is no scope 'everything'; write .*read, batch, events, admin$",
        ),
        ("new", [], r"^scopes: a key needs one at least"),
        ("two words", ["read"], r"^name: 'two words' must have 1 to 64 characters"),
    ],
)
def test_a_wrong_argument_is_named_and_not_an_entry_of_the_file(
    path: Path, name: str, scopes: list[str], says: str
) -> None:
    create_key(path, "shop", ["read"])
    with pytest.raises(InputError, match=says):
        create_key(path, name, scopes)


def test_a_scope_that_is_named_twice_is_kept_once(path: Path) -> None:
    create_key(path, "shop", ["read", "read", "events"])
    assert read_keys(path)[0].scopes == (Scope.read, Scope.events)


def test_wrong_requests_for_a_key_change_nothing(path: Path) -> None:
    create_key(path, "shop", ["read"])
    before = path.read_text()
    for name, scopes in (("shop", ["read"]), ("new", ["everything"]), ("new", []), ("", ["read"])):
        with pytest.raises(InputError):
            create_key(path, name, scopes)
    assert path.read_text() == before
    with pytest.raises(InputError, match="cannot be read"):
        KeyRing(path.with_name("missing.json"))
    with pytest.raises(InputError, match="cannot be written"):
        create_key(path.parent / "nowhere" / "keys.json", "a", ["read"])
    assert os.listdir(path.parent) == ["keys.json"]
