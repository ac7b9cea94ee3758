from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest

from features.ingest.cleaning import id_of, infer_types, plain_attributes, present, string_id, whole_number
from features.values.numbers import number
from features.values.times import unix_seconds

MIDNIGHT = 1318896000  # 2011-10-18T00:00:00Z


def _read(reading: Any, values: list[Any], dtype: Any = None) -> list[Any]:
    frame = pl.DataFrame({"x": pl.Series(values, dtype=dtype)})
    result: list[Any] = frame.select(reading("x", frame.schema["x"])).to_series().to_list()
    return result


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2011-10-18", MIDNIGHT),
        ("2011/10/18", MIDNIGHT),
        ("2011-10-18T00:00:00Z", MIDNIGHT),
        (" 2011-10-18 00:00 ", MIDNIGHT),
        ("2011-10-18 00:00:00 UTC", MIDNIGHT),
        ("2011-10-18T02:00:00.999+02:00", MIDNIGHT),
        ("2011-10-17T22:30:00-0130", MIDNIGHT),
        ("1318896000", MIDNIGHT),
        ("1318896000.7", MIDNIGHT),
        ("1.318896e9", MIDNIGHT),
        ("1318896000000", MIDNIGHT),
        ("20111018", MIDNIGHT),
        ("0", 0),
        ("2011-13-45", None),
        ("18.10.2011", MIDNIGHT),
        ("yesterday", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_times_as_text(text: str | None, seconds: int | None) -> None:
    assert _read(unix_seconds, [text], pl.String) == [seconds]


def test_times_as_numbers_are_told_apart_by_magnitude() -> None:
    values = [MIDNIGHT, MIDNIGHT * 10**3 + 999, MIDNIGHT * 10**6, MIDNIGHT * 10**9, 20111018, 5, -5, None]
    assert _read(unix_seconds, values) == [MIDNIGHT] * 5 + [5, -5, None]
    floats = [MIDNIGHT + 0.9, float("nan"), float("inf"), 1e300]
    assert _read(unix_seconds, floats) == [MIDNIGHT, None, None, None]


def test_times_as_datetimes() -> None:
    summer = timezone(timedelta(hours=2))
    assert _read(unix_seconds, [datetime(2011, 10, 18)]) == [MIDNIGHT]
    assert _read(unix_seconds, [date(2011, 10, 18)]) == [MIDNIGHT]
    assert _read(unix_seconds, [datetime(2011, 10, 18, 2, tzinfo=summer)]) == [MIDNIGHT]
    assert _read(unix_seconds, [datetime(2011, 10, 18, tzinfo=UTC)]) == [MIDNIGHT]
    assert _read(unix_seconds, [True]) == [None]


def test_ids_keep_leading_zeros_and_lose_float_tails() -> None:
    assert _read(string_id, [" 007 ", "", "  ", None, "a b"]) == ["007", None, None, None, "a b"]
    assert _read(string_id, [17850, None]) == ["17850", None]
    assert _read(string_id, [17850.0, float("nan"), None, 1.5]) == ["17850", None, None, "1.5"]
    assert _read(string_id, ["x"], pl.Categorical) == ["x"]


def test_numbers() -> None:
    assert _read(number, ["$1,299.00", "£5 ", "-3", "1e2", "abc", "1.299,00", "nan", "inf", ""]) == [
        1299.0,
        5.0,
        -3.0,
        100.0,
        None,
        1299.0,
        None,
        None,
        None,
    ]
    assert _read(number, [1, None]) == [1.0, None]
    assert _read(number, [float("nan"), 2.5]) == [None, 2.5]


def test_whole_numbers() -> None:
    assert _read(whole_number, ["3", " 4.0", "4.5", "x", "9007199254740993"]) == [
        3,
        4,
        None,
        None,
        9007199254740993,
    ]
    assert _read(whole_number, [3.0, 3.5, float("nan")]) == [3, None, None]
    assert _read(whole_number, [9007199254740993, None]) == [9007199254740993, None]


def test_presence_ignores_blanks_and_nan() -> None:
    assert _read(present, ["x", " ", "", None]) == [True, False, False, False]
    assert _read(present, [1.0, float("nan"), None]) == [True, False, False]
    assert _read(present, [0, None]) == [True, False]


def test_csv_columns_get_the_type_that_every_value_has() -> None:
    frame = pl.DataFrame(
        {
            "stock": ["1", " 2", None],
            "weight": ["0.5", "1", "2e3"],
            "active": ["true", "False", None],
            "zip": ["01234", "99999", "1"],
            "ean": ["1234567890123456789", "1", "2"],
            "mixed": ["1", "x", "2"],
            "kept": ["1", "2", "3"],
        }
    )
    typed = infer_types(frame, {"kept"})
    assert typed["stock"].to_list() == [1, 2, None]
    assert typed["weight"].to_list() == [0.5, 1.0, 2000.0]
    assert typed["active"].to_list() == [True, False, None]
    for name in ("zip", "ean", "mixed", "kept"):
        assert typed[name].equals(frame[name])


def test_attributes_are_reduced_to_plain_types() -> None:
    frame = pl.DataFrame(
        {
            "small": pl.Series([1], dtype=pl.Int8),
            "half": pl.Series([0.5], dtype=pl.Float32),
            "colour": pl.Series(["red"], dtype=pl.Categorical),
            "day": [date(2020, 1, 2)],
            "sizes": [[1, None, 2]],
            "nested": [{"a": 1}],
            "paths": [[["a"]]],
            "raw": [b"x"],
            "flag": [True],
        }
    )
    plain, left_out = plain_attributes(frame)
    assert left_out == ["nested", "paths", "raw"]
    assert plain.row(0, named=True) == {
        "small": 1,
        "half": 0.5,
        "colour": "red",
        "day": "2020-01-02",
        "sizes": ["1", "2"],
        "flag": True,
    }
    assert plain.schema["small"] == pl.Int64
    assert plain.schema["half"] == pl.Float64


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["1112.0", "7.0", None], ["1112", "7", None]),
        (["1112.0", "7"], ["1112.0", "7"]),  # not a column of floats
        (["007.0", "7.0"], ["007.0", "7.0"]),
        (["1.0", "1.1"], ["1.0", "1.1"]),  # versions
        ([" 5 ", ""], ["5", None]),
    ],
)
def test_ids_of_a_column_of_floats_in_text_are_whole_numbers(
    written: list[str | None], read: list[str | None]
) -> None:
    frame = pl.LazyFrame({"id": written})
    assert frame.select(id_of(frame, "id")).collect()["id"].to_list() == read
