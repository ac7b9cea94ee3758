"""The replay of a month: what is delivered and asked, what is measured, and how it goes on after a kill."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from benchmarks.bad_days import BAD_DAYS
from benchmarks.bad_days.shop import Basket, Shop
from benchmarks.month_replay import command
from benchmarks.month_replay.command import PLANTED, Replay
from benchmarks.month_replay.night import Night
from benchmarks.month_replay.report import drawing, quality, summary, table

EVENTS = (
    ("u", "a", datetime(2011, 11, 1, 9, tzinfo=UTC), 2.0, 5.0),
    ("u", "b", datetime(2011, 11, 1, 9, tzinfo=UTC), 1.0, 3.0),
    ("v", "a", datetime(2011, 11, 1, 12, tzinfo=UTC), 1.0, 3.0),
    ("u", "c", datetime(2011, 11, 3, 8, tzinfo=UTC), 1.0, 4.0),
    ("u", "a", datetime(2011, 11, 3, 9, tzinfo=UTC), 4.0, 8.0),
)


@pytest.fixture
def shop() -> Shop:
    columns = ("user_id", "item_id", "timestamp", "quantity", "value")
    events = pl.DataFrame(EVENTS, schema=columns, orient="row").with_columns(
        pl.lit("purchase").alias("event"), pl.int_range(pl.len()).cast(pl.String).alias("event_id")
    )
    titles = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["Apple", "Bear", "Cup"]})
    return Shop(events, titles, 0)


def test_a_night_delivers_the_log_so_far_and_the_items_sold_so_far(shop: Shop) -> None:
    first, second = (shop.feed(date(2011, 11, day)) for day in (1, 3))
    assert first.items.rows() == [("a", 3.0, "Apple"), ("b", 3.0, "Bear")]
    assert (len(first.before), len(first.today)) == (0, 3)
    assert second.items.rows() == [("a", 2.0, "Apple"), ("b", 3.0, "Bear"), ("c", 4.0, "Cup")]
    assert (len(second.before), len(second.today)) == (3, 2)
    assert second.events.equals(shop.events)


def test_baskets_and_products_of_a_day(shop: Shop) -> None:
    assert shop.days(date(2011, 11, 1), date(2011, 11, 2)) == [date(2011, 11, 1)]
    morning = int(datetime(2011, 11, 1, 9, tzinfo=UTC).timestamp())
    assert shop.baskets(date(2011, 11, 1)) == [
        Basket("u", morning, ("a", "b")), Basket("v", morning + 3 * 3600, ("a",))
    ]  # fmt: skip
    assert shop.new_items(date(2011, 11, 3)).rows() == [("c", 4.0, "Cup")]
    assert shop.new_items(date(2011, 11, 1))["item_id"].to_list() == ["a", "b"]


def test_recall_and_ndcg_of_a_list() -> None:
    assert quality(["x", "a"], ["a", "b"]) == pytest.approx((0.5, 0.6309298 / (1 + 0.6309298)))
    assert quality(["a", "b"], ["b", "a"]) == pytest.approx((1.0, 1.0))
    assert quality([], ["a"]) == (0.0, 0.0)
    assert quality([f"x{n}" for n in range(10)] + ["a"], ["a"]) == (0.0, 0.0), "the eleventh does not count"


def night_of(code: int, served: str) -> dict[str, Any]:
    return {
        "exit_code": code, "seconds": 60.0, "cpu_seconds": 40.0, "start": "warm",
        "reason": "half of the events occur twice; and more" if code else "v2 is current", "served": served,
    }  # fmt: skip


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Two days: the retrained arm finds both items, the live one half of them, the frozen one none."""
    lists = {"retrained": ["a", "b"], "live": ["a"], "frozen": ["x"]}
    (tmp_path / "lists").mkdir()
    records = []
    for day, code, planted in (("2011-11-03", 0, None), ("2011-11-04", 10, "duplicated_feed")):
        content = {
            "baskets": [{"user": f"u{n}", "time": 0, "items": ["a", "b"]} for n in range(8)],
            "lists": {arm: [{"items": items}] * 8 for arm, items in lists.items()},
        }
        (tmp_path / "lists" / f"{day}.json").write_text(json.dumps(content))
        records.append({
            "day": day, "shoppers": 8, "purchases": 16, "new_items": 0, "planted": planted,
            "night": night_of(code, "v2"), "served_before": "v2" if code else "v1",
            "taken_after_seconds": 1.0,
        })  # fmt: skip
    (tmp_path / "days.json").write_text(json.dumps(records))
    return tmp_path


def test_the_month_in_figures_a_table_and_a_plot(finished: Path) -> None:
    found = summary(finished)
    assert {arm: metrics["recall@10"] for arm, metrics in found["arms"].items()} == {
        "retrained": [1.0, 1.0, 1.0], "live": [0.5, 0.5, 0.5], "frozen": [0.0, 0.0, 0.0],
    }  # fmt: skip
    test = found["differences"]["live"]["recall@10"]
    assert (test["difference"], test["interval"]) == (0.5, [0.5, 0.5])
    assert test["p_value"] < 0.001
    assert found["nights"] == {
        "good": 1, "good_published": 1, "bad": 1, "bad_refused": 1, "served_model_kept": 1,
        "median_cpu_seconds": 40.0,
    }  # fmt: skip
    text = table(found)
    assert "| 2011-11-03 | 8 | 1.000, .500, .000 | 0, published | 40 |" in text
    assert "10, refused (duplicated feed: half of the events occur twice)" in text
    drawn = drawing(found)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")  # noqa: S314 - drawn here
    assert "refused: duplicated feed" in drawn
    assert drawn == drawing(found), "the same figures are the same file"


class Recording:
    """A server that notes what is called."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def status(self, timeout: float | None = None) -> Any:
        class Found:
            model_version = "v1"

        return Found()


def test_lists_are_requested_before_a_purchase_is_recorded_and_only_once(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(Shop, "read", lambda path, shift_days: shop)
    monkeypatch.setattr(command, "upsert", lambda client, items: calls.append("upsert"))

    def listed(client: Any, baskets: list[Basket]) -> list[dict[str, Any]]:
        calls.append("lists")
        return [{"items": ["a"], "token": "t"} for _ in baskets]

    monkeypatch.setattr(command, "lists_of", listed)
    monkeypatch.setattr(command, "record", lambda client, events, lists: calls.append("record"))
    monkeypatch.setattr(command, "wait_for", lambda client, version: 0.0)
    fail = True

    def retrain(folder: Path, overrides: list[str], log: Path) -> Night:
        calls.append("retrain")
        if fail:
            raise KeyboardInterrupt
        return Night(0, 1.0, 1.0, "warm", "v2 is current", "v2")

    monkeypatch.setattr(command, "retrained", retrain)
    clients: Any = {arm: Recording(calls) for arm in ("retrained", "live", "frozen")}
    replay = Replay(tmp_path, [], date(2011, 11, 3))
    with pytest.raises(KeyboardInterrupt):
        replay.play_day(date(2011, 11, 1), clients)
    assert calls == ["upsert"] * 2 + ["lists"] * 3 + ["record"] * 2 + ["retrain"]
    assert replay.records == []
    calls.clear()
    fail = False
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "feed").iterdir()}
    again = Replay(tmp_path, [], date(2011, 11, 3))
    again.play_day(date(2011, 11, 1), clients)
    assert calls == ["upsert"] * 2 + ["record"] * 2 + ["retrain"], "the lists are those of the morning"
    assert {path: path.stat().st_mtime_ns for path in written} == written, "an interrupted run is resumed"
    assert [record["day"] for record in again.records] == ["2011-11-01"]


def test_the_planted_nights_are_bad_days_with_checks_of_their_own() -> None:
    assert all(name in BAD_DAYS for name in PLANTED.values())
    assert len(set(PLANTED.values())) == len(PLANTED) == 4
