from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from explorer.catalogue.gaps import Reason, rejected_rows, without_events, without_text
from explorer.problems import PageError
from features.data.dataset import Catalogue
from features.ingest.rejects import COLUMNS


def prepared(folder: Path) -> Path:
    rows = [
        ("events", "e.csv", 3, "unknown item", "secret", "x9", "purchase", "5", None),
        ("events", "e.csv", 7, "unknown item", "secret", "x8", "purchase", "6", None),
        ("items", "i.csv", 2, "missing item_id", None, None, None, None, None),
    ]
    pl.DataFrame(rows, schema=COLUMNS, orient="row").write_parquet(folder / "rejects.parquet")
    info = {
        "adapter_dropped": {"cancelled invoice": 4, "postage": 9, "nothing": 0},
        "filters": {"kcore": {"users": 3, "events": 8}},
        "suspicious": ["two shops?"],
        "duplicate_items": {"same_content": 1, "different_content": 2},
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def test_rejected_rows_by_reason_without_users(tmp_path: Path) -> None:
    found = rejected_rows(prepared(tmp_path))
    assert found is not None
    assert found.reasons == (Reason("events", "unknown item", 2), Reason("items", "missing item_id", 1))
    assert [row["row"] for row in found.examples] == [3, 7, 2]
    assert "secret" not in str(found)
    assert found.filtered == (
        ("postage", 9),
        ("kcore: events", 8),
        ("cancelled invoice", 4),
        ("kcore: users", 3),
    )
    assert found.notes == ("two shops?",)
    assert found.duplicates == 3


def test_one_reason_and_a_limit(tmp_path: Path) -> None:
    found = rejected_rows(prepared(tmp_path), "unknown item", limit=1)
    assert found is not None
    assert [row["item_id"] for row in found.examples] == ["x9"]
    assert len(found.reasons) == 2


def test_a_store_without_its_work_directory_and_a_damaged_file(tmp_path: Path) -> None:
    assert rejected_rows(tmp_path) is None
    (prepared(tmp_path) / "rejects.parquet").write_text("no parquet")
    with pytest.raises(PageError, match="cannot be read|parquet"):
        rejected_rows(tmp_path)


def test_items_without_text_and_without_events() -> None:
    catalogue = Catalogue(pl.DataFrame({"item_id": ["a", "b", "c"], "item_text": ["mug", " ", ""]}))
    assert without_text(catalogue).tolist() == [1, 2]
    assert without_events(np.array([0, 2, 0], dtype=np.float32)).tolist() == [0, 2]
