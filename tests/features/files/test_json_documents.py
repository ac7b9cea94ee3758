"""JSON that is not divided by lines is read as the table that it holds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from conf.errors import InputError
from features.files.readers import ROW, scan_table

ROWS = [{"id": "a", "price": 1.5}, {"id": "b", "price": None}]


def _read(path: Path, text: str) -> list[dict[str, object]]:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    frame = scan_table(str(path), "data.items").frame.collect()
    assert frame[ROW].to_list() == list(range(1, frame.height + 1))
    return frame.select("id", "price").to_dicts()


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
@pytest.mark.parametrize(
    "around", [{"products": ROWS}, {"count": 2, "next": None, "products": ROWS, "tags": ["x"]}]
)
def test_the_only_table_in_an_object_is_read(
    tmp_path: Path, name: str, indent: int | None, around: dict[str, object]
) -> None:
    assert _read(tmp_path / name, json.dumps(around, indent=indent)) == ROWS


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_objects_that_are_spread_over_lines_are_rows(tmp_path: Path, name: str) -> None:
    assert _read(tmp_path / name, "\n".join(json.dumps(row, indent=2) for row in ROWS)) == ROWS


def test_an_object_with_two_tables_stays_one_row(tmp_path: Path) -> None:
    text = json.dumps({"id": "a", "price": 1.5, "tags": [{"n": 1}], "images": [{"n": 2}]}, indent=1)
    assert _read(tmp_path / "t.json", text) == [{"id": "a", "price": 1.5}]


def test_json_lines_keep_their_lists(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"session": 1, "events": ROWS}) + "\n")
    assert scan_table(str(path), "data.events").frame.collect()["events"].to_list() == [ROWS]


def test_a_document_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"products": ROWS}, indent=2)[:-9])
    with pytest.raises(InputError, match="no line is a JSON object"):
        scan_table(str(path), "data.items").frame.collect()
