"""What can be read and looks wrong is told, with what to set; and columns are shown as they were read."""

from __future__ import annotations

import shlex
import time

import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import DataConfig, PrivacyConfig
from features.ingest import suspicions
from tests.features.conftest import Prepared, Shop

DAY = 86_400
START = 1_700_000_000


def _prepare(
    shop: Shop, items: str, rows: list[tuple[str, int]], *overrides: str, order: bool = False
) -> Prepared:
    """Prepare events of (user, time) on item 1; with `order` they are numbered backwards."""
    header = "user_id,item_id,timestamp" + (",order" if order else "")
    lines = [f"{user},1,{at}" + (f",{10_000 - n}" if order else "") for n, (user, at) in enumerate(rows)]
    events = shop.write("events.csv", "\n".join([header, *lines]) + "\n")
    return shop.prepare(
        compose_command("prepare", [f"data.items={items}", f"data.events={events}", *overrides]).data
    )


def _settings(line: str) -> list[str]:
    return [word for word in shlex.split(line) if word.startswith("data.")]


def test_an_ordinary_shop_is_not_suspicious(shop: Shop, items: str) -> None:
    done = _prepare(shop, items, [(f"u{n % 50}", START + n * DAY // 4) for n in range(400)])
    assert done.info["suspicious"] == []
    assert "look at this" not in done.printed


def test_times_in_the_future_are_counted_with_row_and_value(shop: Shop, items: str) -> None:
    soon = int(time.time()) + 30 * DAY
    rows = [(f"u{n % 50}", START + n * DAY // 4) for n in range(380)] + [
        (f"u{n}", soon + n) for n in range(20)
    ]
    [line] = _prepare(shop, items, rows).info["suspicious"]
    assert line.startswith("20 of 400 events lie in the future, e.g. ")
    assert " row 381: 20" in line


def test_relative_seconds_are_told_to_lie_before_1990(shop: Shop, items: str) -> None:
    done = _prepare(shop, items, [(f"u{n % 50}", n * DAY) for n in range(100)])
    [line] = done.info["suspicious"]
    assert "100 of 100 events lie before 1990" in line
    assert "row 1: 1970-01-01T00:00:00" in line


def test_a_minute_that_many_events_share_is_named(shop: Shop, items: str) -> None:
    minute = START // 60 * 60
    rows = [(f"u{n % 50}", minute + n % 60) for n in range(340)] + [
        (f"u{n}", START + n * DAY) for n in range(1, 61)
    ]
    done = _prepare(shop, items, rows)
    [line] = done.info["suspicious"]
    assert line.startswith("85% of the events share the minute 2023-11-14T22:13:00+00:00")
    assert "look at this: 85% of the events share" in done.printed


def test_a_sample_of_rejected_rows_alone_finds_no_minute(
    shop: Shop, items: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 1 and 401 are looked at, and have no user."""
    monkeypatch.setattr(suspicions, "_SAMPLE", 1)
    rows = [(f"u{n % 50}", START) for n in range(402)]
    rows[0] = rows[400] = ("", START)
    done = _prepare(shop, items, rows)
    assert (done.info["events"], done.info["suspicious"]) == (400, [])


def test_a_user_with_many_events_is_named_and_the_settings_leave_it_out(shop: Shop, items: str) -> None:
    rows = [("0", START + n * DAY) for n in range(150)] + [
        (f"u{n % 50}", START + n * DAY) for n in range(350)
    ]
    [line] = _prepare(shop, items, rows).info["suspicious"]
    assert line.startswith("user '0' owns 30% of the events (150): a guest, a till or a bot?")
    missing, most = _settings(line)
    assert _prepare(shop, items, rows, missing, "data.max_reject_fraction={events: 0.4}").info["users"] == 50
    assert _prepare(shop, items, rows, most).info["users"] == 50


def test_numbers_of_orders_that_run_backwards(shop: Shop, items: str) -> None:
    rows = [(f"u{n % 5}", START + n * DAY) for n in range(100)]
    done = _prepare(shop, items, rows, order=True)
    [line] = done.info["suspicious"]
    assert line.startswith("order contradicts the timestamps of 95 of 100 events")
    assert "times raised" in done.printed
    assert "95 of 100" in done.printed
    mended = _prepare(shop, items, rows, *_settings(line), order=True)
    assert (mended.info["suspicious"], mended.info["timestamps_raised"]) == ([], 0)


def test_limits_of_rejected_rows_go_by_table(shop: Shop, items: str) -> None:
    rows = [("u", START)] * 6 + [("NULL", START)] * 4
    assert _prepare(shop, items, rows, "data.max_reject_fraction={events: 0.4}").info["events"] == 6
    for limit in ("{items: 0.4}", "0.39"):
        with pytest.raises(InputError, match="4 of 10 rows rejected, more than data.max_reject_fraction=0"):
            _prepare(shop, items, rows, f"data.max_reject_fraction={limit}")
    with pytest.raises(InputError) as caught:
        _prepare(shop, items, rows)
    [typed] = [
        word for word in _settings(str(caught.value).splitlines()[0]) if "events" in word and "{" in word
    ]
    assert _prepare(shop, items, rows, typed).info["events"] == 6
    for wrong in ("{event: 0.4}", "2", "{events: -1}", "many"):
        with pytest.raises(InputError, match=r"data\.max_reject_fraction"):
            compose_command("prepare", [f"data.max_reject_fraction={wrong}"])


def _cells(printed: str, column: str) -> list[str]:
    [line] = [line for line in printed.splitlines() if line.startswith(f"│ {column} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_every_column_is_shown_as_written_and_as_read(shop: Shop) -> None:
    lines = [
        "item_id;title;price;colour",
        "007;Hat, <b>cap</b>;1.299,00 €;red",
        ";x;1;x",
        "8;Scarf;5,5 €;N/A",
    ]
    items = shop.write("items.csv", "\n".join(lines) + "\n")
    events = shop.write(
        "events.csv", "user_id,item_id,timestamp,value\nann,007,1.5.2024 10:03,\nben,8,2024-05-02,5\n"
    )
    done = shop.prepare(DataConfig(items=items, events=events, max_reject_fraction=0.5))
    assert _cells(done.printed, "price") == ["price", "1.299,00 € | 5,5 €", "1299.0 | 5.5", "0%"]
    assert _cells(done.printed, "colour") == ["colour", "red | N/A", "red |", "50%"]
    assert _cells(done.printed, "timestamp") == [
        "timestamp", "1.5.2024 10:03 | 2024-05-02", "2024-05-01 10:03:00 | 2024-05-02 00:00:00", "0%",
    ]  # fmt: skip
    assert _cells(done.printed, "value") == ["value", "| 5", "| 5.0", "50%"]
    assert done.table("items")["title"].to_list() == ["Hat, cap", "Scarf"], "what serving shows"


def test_pseudonyms_are_shown_without_the_users_they_stand_for(
    shop: Shop, items: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELFWISE_USER_KEY", "a key that is long enough to be one")
    events = shop.write("events.csv", "user_id,item_id,timestamp,session_id\nannabel,1,1,secretive\n")
    done = shop.prepare(DataConfig(items=items, events=events), PrivacyConfig(hash_users=True))
    assert "annabel" not in done.printed
    assert "secretive" not in done.printed


def test_columns_that_are_not_read_are_printed_with_the_reason(shop: Shop) -> None:
    rows = [f"{n},Hat {n},Acme,in stock,http://x/{n}" for n in range(12)]
    items = shop.write("items.csv", "\n".join(["item_id,title,vendor,availability,link", *rows]) + "\n")
    done = shop.prepare(DataConfig(items=items))
    assert done.info["columns_not_read"] == {
        "vendor": "the same for all",
        "availability": "stock",
        "link": "links",
    }
    assert "vendor (the same for all), availability (stock), link (links)" in done.printed
    assert done.table("items")["item_text"][0] == "Hat 0"


def test_quantities_below_nothing_are_named(shop: Shop, items: str) -> None:
    lines = [f"u{n},1,{START + n},{-1 if n % 10 == 4 else 2}" for n in range(40)]
    events = shop.write("e.csv", "\n".join(["user_id,item_id,timestamp,quantity", *lines]) + "\n")
    [line] = shop.prepare(DataConfig(items=items, events=events)).info["suspicious"]
    assert line.startswith("4 of 40 events have a quantity below 0, e.g. ")
    assert "e.csv row 5: returns?" in line
