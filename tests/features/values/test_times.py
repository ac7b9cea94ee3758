"""Times in the forms that exports have, and columns that must be looked at as a whole."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import polars as pl
import pytest

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import DataConfig
from features.values.times import TimeStyle, read_times
from tests.features.conftest import Shop

MORNING = "2024-05-01T10:03:00"


def _read(text: str, **style: object) -> str | None:
    [seconds] = read_times(pl.Series([text]), TimeStyle(**style)).to_list()  # type: ignore[arg-type]
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01 10:03", "2024-05-01T10:03:00.123Z", "2024-5-1 10:03", "2024/05/01 10:03",
        "2024.05.01 10:03", "20240501T100300Z", "20240501T1003", "20240501 10:03", "20240501100300",
        "202405011003", "01.05.2024 10:03", "1.5.24 10:03", "1.5.2024, 10:03 Uhr",
        "01-05-2024 10:03:00", "01/05/2024 10:03 AM", "Wed, 01 May 2024 12:03:00 +0200",
        "1 May 2024 10:03:00 GMT", "01-May-2024 10:03", "1. Mai 2024 10:03", "01/mai/2024 10:03",
        "1 de maio de 2024 10:03", "May 1, 2024 at 10:03 AM", "May 1st, 2024 10:03",
        "Wed May 01 2024 12:03:00 GMT+0200 (Central European Summer Time)", "2024-05-01 10:03:00 UTC",
        "2024-05-01T12:03:00+02:00[Europe/Berlin]", "2024-05-01T12:03[Europe/Berlin]",
        "2024-05-01 06:03:00 EDT", "2024-05-01 07:03:00 America/Sao_Paulo", "2024-05-01 12:03 +02",
        "1714557780", "1714557780000", "01/May/2024:12:03:00 +0200",
    ],
)  # fmt: skip
def test_one_moment_in_many_forms(text: str) -> None:
    assert _read(text) == MORNING


def test_noon_and_midnight_on_a_clock_of_twelve_hours() -> None:
    assert [_read(f"1/5/2024 {hour}") for hour in ("12:00 AM", "12:30 pm", "1:00 p.m.")] == [
        "2024-05-01T00:00:00", "2024-05-01T12:30:00", "2024-05-01T13:00:00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2024-13-45",
        "31.02.2024",
        "12:30",
        "SKU-2024-05-01",
        "v1.2.2024",
        "2024-05-01 10:00 Mars/Base",
        "",
    ],
)
def test_what_is_no_time(text: str) -> None:
    assert _read(text) is None


def test_a_format_of_ones_own() -> None:
    assert _read("01-05-24 10h03", format="%d-%m-%y %Hh%M") == MORNING
    assert _read("2024-05-01", format="%d-%m-%y") is None


def _shop(shop: Shop, *times: str, **settings: object) -> list[str]:
    """Prepare events of one user at these times; return the times as they were read."""
    items = shop.write("items.csv", "item_id,title\n" + "".join(f"{n},Hat {n}\n" for n in range(len(times))))
    rows = "".join(f'u,{n},"{time}"\n' for n, time in enumerate(times))
    events = shop.write("events.csv", f"user_id,item_id,timestamp\n{rows}")
    done = shop.prepare(DataConfig(items=items, events=events, **settings))  # type: ignore[arg-type]
    read = done.table("events").sort(pl.col("item_id").cast(pl.Int64))["timestamp"]
    return [datetime.fromtimestamp(t, UTC).isoformat()[:16] for t in read]


def test_the_column_tells_whether_the_day_comes_first(shop: Shop) -> None:
    assert _shop(shop, "05/01/2024", "13/01/2024") == ["2024-01-05T00:00", "2024-01-13T00:00"]
    assert _shop(shop, "05/01/2024 9:03 PM", "01/13/2024 9:03 AM") == ["2024-05-01T21:03", "2024-01-13T09:03"]
    assert _shop(shop, "29-01-2021 07:01", "01-02-2021 07:01") == ["2021-01-29T07:01", "2021-02-01T07:01"]


@pytest.mark.parametrize(
    "example", ["05/01/2024", "5-1-24 10:03", "05/01/2024 10:03:00", "05/01/2024 10:03 PM"]
)
def test_a_column_that_does_not_tell_stops_with_both_formats(shop: Shop, example: str) -> None:
    with pytest.raises(InputError, match="begin with the day or the month") as caught:
        _shop(shop, example, example)
    assert f"'{example}'" in str(caught.value)
    words = shlex.split(str(caught.value).removeprefix("data.events"))
    first, second = (w for w in words if w.startswith("data."))
    read = []
    for typed in (first, second):
        form = compose_command("prepare", [typed]).data.timestamp_format
        read.append(_shop(shop, example, example, timestamp_format=form)[0][:10])
    assert read == ["2024-01-05", "2024-05-01"]


def test_day_numbers_of_spreadsheets_and_bare_years(shop: Shop) -> None:
    assert _shop(shop, "45413", "45413.5", "45414.25") == [
        "2024-05-01T00:00", "2024-05-01T12:00", "2024-05-02T06:00",
    ]  # fmt: skip
    assert _shop(shop, "2019", "2021", "2024") == ["2019-01-01T00:00", "2021-01-01T00:00", "2024-01-01T00:00"]
    assert _shop(shop, "5", "45413", "45414") == ["1970-01-01T00:00", "1970-01-01T12:36", "1970-01-01T12:36"]


def test_times_outside_a_shops_life_are_refused_with_value_and_row(shop: Shop) -> None:
    good = [f"2024-05-{day:02d}" for day in range(1, 28)]
    for bad in ("0", "0001-01-01", "2099-12-31", "1970-01-01T12:36:53"):
        with pytest.raises(InputError, match=rf"row 4: implausible timestamp '{bad}'"):
            _shop(shop, *good[:3], bad, *good[3:])
    assert len(_shop(shop, *good[:3], "0", *good[3:], max_reject_fraction=0.1)) == 27


def test_a_bad_time_is_shown_with_the_accepted_forms(shop: Shop) -> None:
    with pytest.raises(InputError) as caught:
        _shop(shop, "2024-05-01", "yesterday")
    assert "row 2: bad timestamp 'yesterday'" in str(caught.value)
    assert "accepted: 2024-05-01 10:03:00, " in str(caught.value)
    assert "data.timestamp_format=" in str(caught.value)


def test_a_date_and_its_clock_in_two_columns_are_one_time(shop: Shop, items: str) -> None:
    rows = [
        ("u", 1, "01.05.2024", "10:03"),
        ("u", 2, "02.05.2024 00:00:00", "7:05:09 PM"),
        ("u", 3, "03.05.2024", ""),
    ]
    events = shop.write(
        "e.csv", "user_id,item_id,day,hour\n" + "".join(f"{','.join(map(str, r))}\n" for r in rows)
    )
    columns = {"timestamp": ["day", "hour"]}
    done = shop.prepare(DataConfig(items=items, events=events, columns=columns))
    at = [datetime.fromtimestamp(t, UTC).isoformat()[:19] for t in done.table("events")["timestamp"]]
    assert at == ["2024-05-01T10:03:00", "2024-05-02T19:05:09", "2024-05-03T00:00:00"]


def test_a_list_of_times_is_no_date_and_clock_where_both_are_whole(shop: Shop, items: str) -> None:
    text = "user_id,item_id,paid,placed\nu,1,,2024-05-01 10:03\nu,2,2024-05-02 11:00,2024-05-01 10:03\n"
    columns = {"timestamp": ["paid", "placed"]}
    events = shop.write("e.csv", text)
    done = shop.prepare(DataConfig(items=items, events=events, columns=columns))
    assert done.table("events")["timestamp"].to_list() == [1714557780, 1714647600]
