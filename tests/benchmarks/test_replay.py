from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from benchmarks.new_items.cut import (
    NEW_ITEMS,
    REPLAYED,
    TRAINED_EVENTS,
    TRAINED_ITEMS,
    WEEK,
    Cut,
    make_cut,
)
from benchmarks.new_items.replay import (
    DAY,
    Basket,
    Interaction,
    Played,
    baskets_of,
    read_interactions,
    replay,
    with_slot,
)
from benchmarks.new_items.report import age_of, arm_numbers, beside, facts, first_place, report, rows
from conf.errors import InputError


class Shop:
    """Records its calls, and returns the same list for all users, an empty one with novelty."""

    def __init__(self, items: list[str]) -> None:
        self.items, self.told = items, list[object]()

    def upsert(self, item_ids: Sequence[str]) -> None:
        self.told.append(("upsert", list(item_ids)))

    def record(self, first: int, interactions: Sequence[Interaction]) -> None:
        self.told.append(("record", first, [did.item for did in interactions]))

    def recommend(self, user: str, moment: int, novelty: float | None) -> list[str]:
        self.told.append(("ask", user, moment))
        return self.items if novelty is None else []


def did(user: str, item: str, time: int, kind: str = "purchase") -> Interaction:
    return Interaction(user, item, kind, time)


def test_a_basket_is_what_a_user_chose_on_a_day() -> None:
    interactions = [
        did("u", "a", 10), did("v", "b", 10), did("u", "c", 20, "view"), did("u", "d", DAY - 1),
        did("v", "e", DAY), did("u", "a", DAY + 5),
    ]  # fmt: skip
    everything = [
        Basket("u", 10, frozenset("ad")), Basket("v", 10, frozenset("b")), Basket("v", DAY, frozenset("e")),
        Basket("u", DAY + 5, frozenset("a")),
    ]  # fmt: skip
    assert baskets_of(interactions, ["purchase"], 0) == everything
    some = baskets_of(interactions, ["purchase"], 2)
    assert some == [basket for basket in everything if basket in some]
    assert len(some) == 2
    assert baskets_of(interactions, ["purchase"], 2) == some
    assert baskets_of(interactions, ["view"], 0) == [Basket("u", 20, frozenset("c"))]


def test_the_slot_is_for_the_best_seller_that_is_not_listed() -> None:
    items = [str(number) for number in range(20)]
    got = with_slot(items, {"3": 9, "x": 2, "y": 5, "z": 5})
    assert got == [*items[:9], "y", *items[9:19]]
    assert with_slot(items, {"3": 9}) == items
    assert with_slot(["a"], {"x": 1}) == ["a", "x"]
    assert with_slot(["a", "b"], {"x": 1}, place=1) == ["x", "a", "b"]


def test_lists_know_what_was_before_them_and_nothing_of_their_moment() -> None:
    interactions = [
        did("u", "old", 5),
        did("u", "n1", 10),
        did("v", "n1", 20),
        did("v", "n2", 20),
        did("u", "n2", 30),
    ]
    baskets = [Basket("u", 5, frozenset({"old", "n1"})), Basket("v", 20, frozenset({"n1", "n2"}))]
    shop = Shop(["old"])
    played = replay(interactions, baskets, ["n1", "n2"], shop, {"a": None, "b": 0.0})
    assert shop.told == [
        ("ask", "u", 5), ("ask", "u", 5),
        ("upsert", ["n1"]), ("record", 0, ["old", "n1"]), ("ask", "v", 20), ("ask", "v", 20),
        ("upsert", ["n2"]), ("record", 2, ["n1", "n2", "n2"]),
    ]  # fmt: skip
    assert played.born == {"n1": 10, "n2": 20}
    assert played.end == 30
    # The slot knows the one sale before its moment.
    assert played.lists == {"a": [["old"], ["old"]], "b": [[], []], "popularity slot": [[], ["n1"]]}


def test_a_slot_is_not_for_what_is_new_no_longer() -> None:
    interactions = [
        did("u", "n", 0),
        did("u", "n", 1),
        did("v", "m", 31 * DAY),
        did("v", "n", 31 * DAY + 5),
    ]
    baskets = [Basket("v", 31 * DAY - 1, frozenset("n")), Basket("v", 31 * DAY + 5, frozenset("n"))]
    played = replay(interactions, baskets, ["n", "m"], Shop([]), {"a": None})
    assert played.lists["popularity slot"] == [["n"], ["m"]]


def test_ages_are_counted_from_the_first_sale() -> None:
    born = {"n": 100}
    assert age_of("old", 200, born) is None
    assert age_of("n", 100, born) is None  # it is upserted after this list
    assert age_of("n", 101, born) == age_of("n", 99 + DAY, born) == "first day"
    assert age_of("n", 100 + DAY, born) == "day 2 to 7"
    assert age_of("n", 100 + 7 * DAY, born) == "day 8 to 31"
    assert age_of("n", 100 + 31 * DAY, born) is None


def played() -> Played:
    """Three lists: n is in its first day and m in its second week at the first two, the last a week later."""
    at = 10 * DAY
    return Played(
        baskets=[
            Basket("u", at, frozenset({"n", "x"})), Basket("v", at, frozenset({"m", "a"})),
            Basket("u", at + 7 * DAY, frozenset({"y"})),
        ],
        lists={"arm": [
            ["n", "a", *(f"f{i}" for i in range(8)), "m"],  # n hit at 1, m at 11
            ["a", "m"],  # both hit
            ["n", "y"],
        ]},
        born={"n": at - 10, "m": at - 9 * DAY, "late": at + 8 * DAY},
        end=at + 9 * DAY,
    )  # fmt: skip


def test_numbers_of_an_arm_by_hand() -> None:
    numbers = arm_numbers(played(), "arm")
    assert numbers["recall@10"] == pytest.approx((0.5 + 1 + 1) / 3)
    ages = numbers["ages"]
    assert ages["first day"] == {
        "chosen": 1, "places": 1, "lists@10": 1 / 3, "hit_lists@10": 1, "recall@10": 1.0,
        "lists@20": 1 / 3, "hit_lists@20": 1, "recall@20": 1.0, "chosen_of_shown": 1.0,
    }  # fmt: skip
    # m at places 11 and 2, n at 1 a week later; m was chosen once, n no more.
    assert ages["day 8 to 31"] == {
        "chosen": 1, "places": 3, "lists@10": 2 / 3, "hit_lists@10": 1, "recall@10": 1.0,
        "lists@20": 1.0, "hit_lists@20": 1, "recall@20": 1.0, "chosen_of_shown": 1 / 3,
    }  # fmt: skip
    assert ages["day 2 to 7"]["chosen"] == ages["day 2 to 7"]["places"] == 0
    # Others: nine, one and one places; a in the second list and y in the third were chosen.
    assert numbers["chosen_of_shown_other"] == pytest.approx(2 / 11)
    # n took 10 seconds, m nine days; the item of the last day is not asked about.
    assert numbers["first_place"] == {
        "items": 2, "never": 0.0, "median_days": pytest.approx((10 / DAY + 9) / 2),
    }  # fmt: skip


def test_an_item_that_no_list_had_counts_as_never() -> None:
    assert first_place(played(), {}) == {"items": 2, "never": 1.0, "median_days": None}
    assert (
        first_place(played(), {"n": 10 * DAY})["median_days"] is None
    )  # the middle of ten seconds and never
    result = report(played())
    assert (result["baskets"], result["new_items"]) == (3, 3)
    assert [row[2] for row in rows(result)] == ["first day", "day 2 to 7", "day 8 to 31"]
    assert rows(result)[0] == (
        "arm", "0.8333, 0.8333", "first day", "33.3%, 33.3%", "1, 1", "1", "1.000, 1.000", "100.00%",
    )  # fmt: skip
    assert facts(result)[0].startswith(
        "arm: from the first sale to a first place in a top 20, 2 items: 0% never, median 4.5 days; "
    )


def test_another_versions_arms_stand_beside() -> None:
    result = {"weeks": 4.0, **report(played())}
    both = beside(result, result)
    assert list(both["arms"]) == ["before: arm", "arm"]
    assert [row[0] for row in rows(both)] == ["before: arm", "", "", "arm", "", ""]
    with pytest.raises(InputError, match="different replays: weeks 2 and 4.0, baskets 3 and 3"):
        beside(result, result | {"weeks": 2})


def a_run(folder: Path, times: list[int]) -> Path:
    """A prepared dataset: users buy a, b, a, c at the times; d never sells, n sells at the last two."""
    dataset = folder / "dataset"
    dataset.mkdir(parents=True)
    items = ["a", "b", "c", "n", "a", "n"]
    pl.DataFrame({
        "item_id": ["a", "b", "c", "d", "n"], "item_text": ["A", "B", "C", "D", "N"],
        "title": ["A", "B", "C", "D", "N"],
        "created_at": pl.Series([0, 0, 0, 0, 86_400_000_000]).cast(pl.Datetime("us")),
    }).write_parquet(dataset / "items.parquet")  # fmt: skip
    pl.DataFrame({
        "user_id": ["u", "u", "u", "u", "v", "v"], "item_id": items, "event": ["purchase"] * 6,
        "timestamp": times, "order": list(range(6)),
    }).write_parquet(dataset / "events.parquet")  # fmt: skip
    info = {
        "content_hash": "1", "has_time": True, "text_fields": ["title"], "event_weights": {"purchase": 1.0},
    }  # fmt: skip
    (dataset / "dataset.json").write_text(json.dumps(info))
    return folder


def test_a_cut_leaves_nothing_of_the_future_to_train_on(tmp_path: Path) -> None:
    last = 1_500_000_000
    run = a_run(
        tmp_path / "run", [last - 30 * DAY, last - WEEK, last - WEEK + 1, last, last - 8 * DAY, last - 5]
    )
    folder = tmp_path / "cut"
    cut = make_cut(run, folder, 1)
    assert (cut.trained_events, cut.replayed_events, cut.new_items) == (3, 3, 2)
    assert cut.shift % WEEK == 0
    assert cut.time == last + 1 - WEEK + cut.shift
    # c and n sell after the cut alone; d never sells and stays.
    assert pl.read_parquet(folder / TRAINED_ITEMS)["item_id"].to_list() == ["a", "b", "d"]
    new = pl.read_parquet(folder / NEW_ITEMS)
    assert new["item_id"].to_list() == ["c", "n"]
    assert new["created_at"].dt.epoch("s").to_list() == [cut.shift, DAY + cut.shift]
    trained = pl.read_parquet(folder / TRAINED_EVENTS)
    assert trained["timestamp"].max() == last - WEEK + cut.shift
    assert read_interactions(str(folder / REPLAYED)) == [
        Interaction("u", "c", "purchase", last - WEEK + 1 + cut.shift),
        Interaction("v", "n", "purchase", last - 5 + cut.shift),
        Interaction("u", "n", "purchase", last + cut.shift),
    ]
    assert "data.event_weights={purchase: 1.0}" in cut.overrides(folder)
    stamp = (folder / REPLAYED).stat().st_mtime_ns
    assert make_cut(run, folder, 1) == cut
    assert (folder / REPLAYED).stat().st_mtime_ns == stamp
    assert isinstance(make_cut(run, folder, 2), Cut)
    assert (folder / REPLAYED).stat().st_mtime_ns != stamp


def test_what_cannot_be_cut_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset; run `shelfwise prepare`"):
        make_cut(tmp_path, tmp_path / "cut", 1)
    run = a_run(tmp_path / "run", [1, 2, 3, 4, 5, 6])
    with pytest.raises(InputError, match="2 weeks before the last event leave one side without events"):
        make_cut(run, tmp_path / "cut", 2)
    about = run / "dataset" / "dataset.json"
    about.write_text(about.read_text().replace('"has_time": true', '"has_time": false'))
    with pytest.raises(InputError, match="events have no times"):
        make_cut(run, tmp_path / "cut", 2)
