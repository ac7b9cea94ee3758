from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from conf.errors import InputError
from features.files.readers import FILE, MALFORMED, ROW, readable, resolve_paths, scan_table

FRAME = pl.DataFrame({"item_id": ["007", "8"], "price": ["1.5", "2"]})


def _written(path: Path) -> Path:
    writers: dict[str, Callable[[Path], object]] = {
        ".csv": FRAME.write_csv,
        ".tsv": lambda p: FRAME.write_csv(p, separator="\t"),
        ".jsonl": FRAME.write_ndjson,
        ".ndjson": FRAME.write_ndjson,
        ".parquet": FRAME.write_parquet,
        ".arrow": FRAME.write_ipc,
    }
    writers[path.suffix](path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = _written(tmp_path / f"table{suffix}")
    table = scan_table(str(path), "data.items")
    frame = table.frame.collect()
    assert table.columns == ["item_id", "price"]
    assert frame.select("item_id", "price").equals(FRAME)
    assert frame[ROW].to_list() == [1, 2]
    assert frame[FILE].cast(pl.String).to_list() == [str(path)] * 2
    assert frame[MALFORMED].null_count() == 2
    assert table.untyped is (suffix in (".csv", ".tsv"))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_with_names_that_polars_takes_for_several(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    frame = pl.DataFrame({"item_id": ["007", "8"], "*": ["a", "b"], "^.*$": ["c", "d"], "^x": ["e", "f"]})
    writers: dict[str, Callable[[Path], object]] = {
        "csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet,
    }  # fmt: skip
    writers[suffix](path)
    table = scan_table(str(path), "data.items")
    assert table.columns == ["item_id", "column_2", "column_3", "^x"]
    assert table.frame.collect().select(table.columns).rows() == frame.rows()


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.gz"])
def test_compressed_text(tmp_path: Path, name: str) -> None:
    plain = _written(tmp_path / name.removesuffix(".gz"))
    with gzip.open(tmp_path / name, "wb") as file:
        file.write(plain.read_bytes())
    assert scan_table(str(tmp_path / name), "data.items").frame.select("item_id").collect()[
        "item_id"
    ].to_list() == [
        "007",
        "8",
    ]


def test_rows_are_numbered_within_each_file_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("id\nb1\nb2\n")
    (tmp_path / "a.csv").write_text("id\na1\n")
    given = scan_table([str(tmp_path / "b.csv"), str(tmp_path / "a.csv")], "data.events").frame.collect()
    assert list(zip(given["id"], given[ROW], strict=True)) == [("b1", 1), ("b2", 2), ("a1", 1)]
    globbed = scan_table(str(tmp_path / "*.csv"), "data.events").frame.collect()
    assert globbed["id"].to_list() == ["a1", "b1", "b2"]


def test_files_may_differ_in_columns_and_types(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1], "price": [2.5]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"id": ["x"], "size": ["L"]}).write_csv(tmp_path / "b.csv")
    frame = scan_table([str(tmp_path / "a.parquet"), str(tmp_path / "b.csv")], "data.items").frame.collect()
    assert frame["id"].to_list() == ["1", "x"]
    assert frame["price"].to_list() == [2.5, None]
    assert frame["size"].to_list() == [None, "L"]


def test_ragged_rows_are_marked_and_quoted_newlines_are_one_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,x\n2,y,z\n3\n4,"q\nr"\n')
    frame = scan_table(str(path), "data.items").frame.collect()
    assert frame[ROW].to_list() == [1, 2, 3, 4]
    assert frame["b"].to_list() == ["x", "y", None, "q\nr"]
    assert frame[MALFORMED].to_list() == [None, "more fields than the header", None, None]


def test_semicolons_of_spreadsheets_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("item_id;price\n1;2,5\n")
    assert scan_table(str(path), "data.items").frame.select("item_id", "price").collect().row(0) == (
        "1",
        "2,5",
    )


def test_broken_json_lines_are_marked_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 7, "t": "x"}\n\n{broken\n[1]\n{"id": 8, "z": true}\n')
    frame = scan_table(str(path), "data.items").frame.collect()
    assert frame[ROW].to_list() == [1, 3, 4, 5]
    assert frame["id"].to_list() == [7, None, None, 8]
    assert frame["z"].to_list() == [None, None, None, True]
    assert frame[MALFORMED].to_list() == [None, "not a JSON object", "not a JSON object", None]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nope.csv", "data.items: no such file: .*nope.csv"),
        ("*.csv", "no such file"),
        (None, "expected a path"),
        ([], "expected a path"),
        ([3], "'3' is not a path"),
        ("s3a://shop/events.parquet", "s3a://shop/events.parquet is a URL, which engine=spark reads"),
        (".", "is a folder; name its files"),
    ],
)
def test_paths_that_lead_nowhere(
    source: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        resolve_paths(source, "data.items")


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    with pytest.raises(InputError, match="named twice"):
        resolve_paths([str(tmp_path / "*.csv"), str(tmp_path / "a.csv")], "data.events")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.docx", b"x", "unknown format"),
        ("t.parquet.gz", b"x", "unknown format"),
        ("t.csv", b"", "is empty"),
        ("t.parquet", b"not parquet", "cannot be read"),
        ("t.json", b'[{"id": 1}', "cannot be read: Syntax at character"),
        ("t.json", b"[1, 2]", "cannot be read: can only deserialize json objects"),
        ("t.jsonl", b"broken\n", "no line is a JSON object"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        scan_table(str(tmp_path / name), "data.items")
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("good_rows", [0, 200_000])
def test_text_that_is_not_utf8_says_how_to_convert(tmp_path: Path, good_rows: int) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n" + b"1,tea\n" * good_rows + b"1,caf\xe9\n")

    def read() -> None:
        table = scan_table(str(path), "data.items")
        with readable(table.name):
            table.frame.collect()

    with pytest.raises(InputError, match=r"t\.csv.* not UTF-8 text; .*data\.encoding=cp1252"):
        read()


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_an_array_of_objects_is_a_table(tmp_path: Path, name: str) -> None:
    text = b'\xef\xbb\xbf[\n {"id": 1, "tags": ["a"]},\n {"id": "x7"}\n]'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    table = scan_table(str(tmp_path / name), "data.items")
    assert table.frame.select(ROW, "id", "tags").collect().rows() == [(1, "1", ["a"]), (2, "x7", None)]


def test_a_first_row_with_several_fields_too_many_is_malformed_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,x,y,z\n2,y\n3,x,y\n")
    frame = scan_table(str(path), "data.items").frame.collect()
    assert frame.select("a", "b").rows() == [("1", "x"), ("2", "y"), ("3", "x")]
    assert frame[MALFORMED].is_not_null().to_list() == [True, False, True]
