from __future__ import annotations

import hashlib
import hmac

import polars as pl
import pytest

from conf.errors import InputError
from conf.schema import DataConfig, PrivacyConfig
from features.ingest.privacy import Pseudonyms, make_pseudonyms
from tests.features.conftest import Shop

HASHED = PrivacyConfig(hash_users=True, key_env="TEST_USER_KEY")


def test_pseudonyms_are_truncated_hmac_sha256() -> None:
    expected = hmac.new(b"key", b"alice", hashlib.sha256).hexdigest()[:32]
    assert Pseudonyms(b"key").of("alice") == expected
    assert Pseudonyms(b"other").of("alice") != expected
    frame = pl.DataFrame({"u": ["alice", None, "bob", "alice"]})
    hashed = frame.select(Pseudonyms(b"key").expression(pl.col("u")))["u"].to_list()
    assert hashed == [expected, None, Pseudonyms(b"key").of("bob"), expected]


def test_the_key_stays_out_of_representations() -> None:
    assert "secret" not in repr(Pseudonyms(b"secret"))


def test_a_missing_key_is_an_error_before_anything_is_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_USER_KEY", raising=False)
    with pytest.raises(InputError, match="TEST_USER_KEY"):
        shop.prepare(DataConfig(items="nowhere.csv"), HASHED)
    assert make_pseudonyms(PrivacyConfig()) is None


def test_raw_user_ids_reach_no_file(shop: Shop, items: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_USER_KEY", "key")
    lines = [
        "user_id,item_id,timestamp,session_id",
        "alice@example.org,1,1,alice@example.org-1",
        "bob@example.org,2,2,s2",
        "carol@example.org,9,3,s3",
        "slipped,dave@example.org,1,5,s4",
        "erin@example.org,1,never,s5",
    ]
    events = shop.write("events.csv", "\n".join(lines) + "\n")
    done = shop.prepare(DataConfig(items=items, events=events, max_reject_fraction=1.0), HASHED)
    of = Pseudonyms(b"key").of
    assert set(done.table("events")["user_id"]) == {of("alice@example.org"), of("bob@example.org")}
    assert of("alice@example.org-1") in done.table("events")["session_id"].to_list()
    rejects = done.table("rejects")
    assert rejects["user_id"].to_list() == [of("carol@example.org"), of("slipped"), of("erin@example.org")]
    assert rejects["item_id"].to_list() == ["9", None, "1"]
    assert done.info["user_ids_hashed"] is True
    for name in ("events", "items", "rejects"):
        done.table(name).write_csv(shop.folder / f"{name}.check")
    written = [*(path for path in done.folder.rglob("*") if path.is_file()), *shop.folder.glob("*.check")]
    assert {path.name for path in written} > {"events.parquet", "user_ids.arrow", "rejects.check"}
    assert not any(b"example.org" in path.read_bytes() for path in written)
    assert "example.org" not in done.printed
