from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from conf.errors import InputError
from explorer.shoppers import Like, PastEvent, Shoppers, read_shoppers
from features.data.dataset import Catalogue

CATALOGUE = Catalogue(pl.DataFrame({"item_id": ["a", "b"], "item_text": ["", ""]}))


def events(*rows: tuple[str, str, str, int]) -> pl.DataFrame:
    return pl.DataFrame(
        [(*row, place) for place, row in enumerate(rows)],
        schema=["user_id", "item_id", "event", "timestamp", "order"],
        orient="row",
    )


def shoppers() -> Shoppers:
    frame = events(
        ("u2", "b", "purchase", 50),
        ("u10", "a", "view", 30),
        ("u2", "gone", "purchase", 10),
        ("u2", "a", "wish", 20),
        ("u2", "a", "view", 40),
    )
    return Shoppers(frame, CATALOGUE, ["purchase", "view"])


def test_events_are_in_time_order_and_tell_items_that_are_gone() -> None:
    assert shoppers().events("u2") == [
        PastEvent(-1, "gone", "purchase", 10), PastEvent(0, "a", "wish", 20), PastEvent(0, "a", "view", 40),
        PastEvent(1, "b", "purchase", 50),
    ]  # fmt: skip
    assert shoppers().events("u1") == []
    assert shoppers().last_time == 50


def test_a_history_has_the_latest_events_whose_item_and_kind_the_model_has() -> None:
    history = shoppers().history("u2")
    assert history.items.tolist() == [0, 1]
    assert history.kinds.tolist() == [1, 0]
    assert history.times.tolist() == [40, 50]
    assert shoppers().history("u2", limit=1).items.tolist() == [1]
    assert shoppers().history("nobody").items.tolist() == []


def test_ids_are_found_by_their_beginning() -> None:
    found = shoppers()
    assert found.ids == ["u10", "u2"]
    assert found.beginning_with("u") == ["u10", "u2"]
    assert found.beginning_with("u", limit=1) == ["u10"]
    assert found.beginning_with("u2") == ["u2"]
    assert found.beginning_with("v") == []
    assert (found.position("u2"), found.position("u")) == (1, None)


def test_a_drawn_shopper_is_of_the_sort_and_the_same_for_a_seed() -> None:
    rows = [(f"u{n:02d}", "a", "view", 1) for n in range(20) for _ in range(n + 1)]
    found = Shoppers(events(*rows), CATALOGUE, ["view"])
    new = {found.draw(Like.new, seed) for seed in range(50)}
    loyal = {found.draw(Like.loyal, seed) for seed in range(50)}
    # Of 1 to 20 events the tenth lies at 2.9, the nine tenths at 18.1.
    assert new == {"u00", "u01"}
    assert loyal == {"u18", "u19"}
    assert len({found.draw(Like.random, seed) for seed in range(50)}) > 10
    assert found.draw(Like.random, 7) == found.draw(Like.random, 7)
    assert found.draw(Like.cold, 7) is None


def test_a_store_without_histories_has_no_shoppers(tmp_path: Path) -> None:
    found = read_shoppers(tmp_path / "histories.parquet", CATALOGUE, ["view"])
    assert len(found) == 0
    assert found.draw(Like.random, 0) is None
    assert found.last_time == 0


def test_damaged_histories_are_named(tmp_path: Path) -> None:
    file = tmp_path / "histories.parquet"
    file.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"histories\.parquet: cannot be read"):
        read_shoppers(file, CATALOGUE, ["view"])
