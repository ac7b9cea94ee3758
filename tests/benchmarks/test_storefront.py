from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.new_items.command import served
from benchmarks.storefront.lists import seen_in
from benchmarks.storefront.shop import KOMBUCHA, NEW_ITEMS, copy_of, opened, place_of, share, shown_places
from benchmarks.storefront.table import cells, header, markdown, read_result, trials, write_result
from conf.errors import InputError
from conf.schema import PipelineConfig
from ranking.bundle.store import current_version
from ranking.pipeline.publish import ARTIFACTS


def test_appearances_are_counted_by_list_place_and_item() -> None:
    lists = [["a", "x", "b"], ["c"], [], ["y", "d", "x"], ["e", "f", "x"]]
    text, numbers = seen_in(lists, ("x", "y", "z"), 2)
    assert numbers == {
        "lists": 5, "appearances": 4, "best_place": 1, "lists_with_one_in_2": 2, "items": 2,
    }  # fmt: skip
    assert text == (
        "4 appearances in 5 lists, best place 1; 2 lists have one in the first 2; 2 of 3 items appear"
    )
    text, numbers = seen_in([["a"]], ("x",), 20)
    assert text == "0 appearances in 1 lists; 0 lists have one in the first 20; 0 of 1 items appear"
    assert numbers["best_place"] == 0


def test_places_and_shares() -> None:
    assert place_of("b", ["a", "b"]) == 2
    assert place_of("c", ["a", "b"]) is None
    assert shown_places([1, None, 12]) == "1, -, 12"
    assert share(1, 4) == 0.25
    assert share(0, 0) == 0.0


def test_a_new_item_says_what_the_model_can_read() -> None:
    milk = NEW_ITEMS[0]
    assert milk.item(["title", "price", "colour"]).attributes == {
        "title": "Organic whole milk",
        "price": 4.49,
    }
    assert milk.item(["product_type", "product_category"]).attributes == {
        "product_type": "Organic whole milk", "product_category": "Fluid milk products",
    }  # fmt: skip


def test_the_table_puts_both_versions_side_by_side(tmp_path: Path) -> None:
    now = {"rows": [{"key": "a", "tried": "A", "seen": "two"}, {"key": "b", "tried": "B", "seen": "x | y"}]}
    before = {"rows": [{"key": "a", "tried": "A", "seen": "one"}, {"key": "c", "tried": "C", "seen": "-"}]}
    assert cells(now, None) == [("A", "two"), ("B", "x | y")]
    assert cells(now, before) == [("A", "one", "two"), ("B", "", "x | y")]
    assert markdown(cells(now, before), header(before=True)).splitlines() == [
        "| tried | seen before | seen now |",
        "| --- | --- | --- |",
        "| A | one | two |",
        "| B |  | x \\| y |",
    ]
    path = tmp_path / "results" / "before.json"
    write_result(path, before)
    assert read_result(path) == before
    path.write_text("{}")
    with pytest.raises(InputError, match=r"before\.json: not a result to compare with: there are no rows"):
        read_result(path)
    with pytest.raises(InputError, match=r"none\.json: not a result to compare with"):
        read_result(tmp_path / "none.json")


def test_everything_is_tried_on_a_copy(trained: PipelineConfig, tmp_path: Path) -> None:
    store = Path(trained.work_dir) / ARTIFACTS
    files = sorted(str(path.relative_to(store)) for path in store.rglob("*"))
    copy = copy_of(store, tmp_path / "store")
    assert current_version(copy) == current_version(store)
    with served(copy, tmp_path / "log", None, ["threads=1"]) as address, opened(address, copy) as shop:
        users, events = len(shop.users), shop.client.status().event_count
        result = trials(shop, Console(quiet=True))
        status = shop.client.status()
    assert sorted(str(path.relative_to(store)) for path in store.rglob("*")) == files
    rows = {row["key"]: row for row in result["rows"]}
    assert len(rows) == len(result["rows"])
    assert not [row["seen"] for row in result["rows"] if row["seen"].startswith("failed")]
    assert result["model_version"] == current_version(store)
    assert rows["lists_100"]["numbers"]["lists"] == users
    # Each of the buyers bought two items; the visitor's kinds come on top.
    stored = rows["event_kinds"]["numbers"]["stored"]
    assert status.event_count - events == 2 * min(users // 2, 200) + len(stored)
    assert status.item_count - len(shop.frame) == len(NEW_ITEMS)
    # Nobody has bought it before, so it is popular only if what was recorded counts.
    assert rows["popular"]["numbers"]["place"] <= status.item_count
    assert KOMBUCHA not in set(shop.frame["item_id"])
