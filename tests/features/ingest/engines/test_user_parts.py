from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.schema import DataConfig
from features.files.readers import FILE, ROW
from features.ingest.engines import user_parts
from features.ingest.engines.interface import Written
from features.ingest.engines.polars_engine import PolarsEvents
from tests.features.conftest import Shop


def _events(rng: np.random.Generator, times: bool, orders: bool) -> pl.DataFrame:
    """Return 300 events of 23 users with ties, missing times, missing orders, and orders against times."""
    count = 300
    frame = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in rng.integers(0, 23, count)],
            "item_id": rng.choice(["1", "2", "3"], count),
            "event": rng.choice(["view", "purchase"], count),
            "timestamp": rng.integers(1_700_000_000, 1_700_000_050, count),
            "order": rng.integers(0, 9, count),
        }
    )
    missing = pl.Series(rng.random(count) < 0.2)
    if not times:
        frame = frame.with_columns(pl.when(~missing).then("timestamp").alias("timestamp"))
    if not orders:
        frame = frame.with_columns(
            pl.when(~missing | (pl.col("user_id") > "u15")).then("order").alias("order")
        )
    return frame


@pytest.mark.parametrize(("times", "orders"), [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("part", [1, 7, 40, 299])
def test_parts_give_the_file_of_one_sort(
    part: int, times: bool, orders: bool, shop: Shop, items: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shop.folder / "events.parquet"
    _events(np.random.default_rng(4), times, orders).write_parquet(path)
    config = DataConfig(items=items, events=str(path), max_reject_fraction=0.2)
    whole = shop.prepare(config)
    table, info = whole.table("events"), whole.info
    monkeypatch.setattr(user_parts, "PART", part)
    divided = shop.prepare(config)
    assert divided.table("events").equals(table)
    assert divided.info == info
    assert sorted(p.name for p in divided.folder.iterdir()) == [
        "arrays", "dataset.json", "events.parquet", "items.parquet", "rejects.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize("kept", [0, 1])
def test_limits_of_events_between_which_rows_are_left_out(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second row is of a kind that does not count; the sample takes one row of ten."""
    monkeypatch.setattr(user_parts, "_SAMPLE", 2000)
    users = [f"u{n:05}" for n in range(20_000)]
    frame = pl.DataFrame({"user_id": users, "at": range(kept, 40_000, 2)})
    limits = user_parts.user_limits(frame.lazy(), "at", 20_000, 5000)
    places = [users.index(limit) for limit in limits]
    assert np.allclose(places, [5000, 10_000, 15_000], atol=1000)


def test_limits_divide_the_events_evenly_and_a_user_is_in_one_part(tmp_path: Path) -> None:
    users = [user for user, count in (("a", 5), ("b", 1), ("c", 2), ("d", 4), ("e", 4)) for _ in range(count)]
    frame = pl.DataFrame({"user_id": users, "at": range(16)})
    assert user_parts.user_limits(frame.lazy(), "at", 16, 4).to_list() == ["a", "d", "e"]
    assert user_parts.user_limits(frame.lazy(), "at", 16, 8).to_list() == ["d"]
    limits = pl.Series(["a", "d", "e"])
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1).lazy()
    parts = [part.collect() for part in user_parts.user_parts(shuffled, limits, tmp_path / "parts")]
    assert [sorted(part["user_id"]) for part in parts] == [
        ["a"] * 5 + ["b"] + ["c"] * 2,
        ["d"] * 4,
        ["e"] * 4,
    ]
    assert sorted(place for part in parts for place in part["at"]) == list(range(16))
    assert list((tmp_path / "parts").rglob("*.parquet")) == []


@pytest.mark.parametrize("part", [1, 4, 9, 100])
def test_users_are_counted_in_their_parts(part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"e": 4, "d": 5, "a": 1, "c": 2, "b": 5}  # "b" is the first of two with most events
    users = [user for user, count in counts.items() for _ in range(count)]
    frame = pl.DataFrame({FILE: ["f"] * 17, ROW: range(17), "user_id": users, "item_id": ["1"] * 17})
    frame = frame.with_columns(
        pl.lit("view").alias("event"),
        pl.Series(
            "timestamp", [9, *range(1, 17)]
        ),  # of the first user's events the second is before the first
        pl.int_range(17).alias("order"),
    )
    frame.sample(fraction=1.0, shuffle=True, seed=3).write_parquet(tmp_path / "accepted.parquet")
    events = PolarsEvents.of(tmp_path / "accepted.parquet")
    monkeypatch.setattr(user_parts, "PART", part)
    assert events.write(events.facts(), tmp_path / "events.parquet") == Written(3, 5, 5, "b")
    assert pl.read_parquet(tmp_path / "events.parquet")["user_id"].to_list() == sorted(users)
