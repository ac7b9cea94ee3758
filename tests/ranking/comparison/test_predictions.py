from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from conf.schema import EvaluationConfig, SplitConfig, SplitKind
from features.data.dataset import Dataset
from features.data.splits import make_split
from ranking.comparison.predictions import Predictions, read_predictions
from ranking.comparison.window import Window, make_window
from tests.synthetic import make_dataset

EVENTS = [
    *(
        (f"u{user}", item, "purchase", 100 * user + step)
        for user in range(3)
        for step, item in enumerate("abcd")
    ),
    ("short", "a", "purchase", 1),
]
HEADER = "user_id,rank,item_id\n"


@pytest.fixture(scope="module")
def window() -> Window:
    """Three users who each chose a, b, c and then d, and one without a query."""
    dataset = make_dataset(EVENTS, [*"abcdefgh"])
    split = make_split(dataset, SplitConfig(kind=SplitKind.leave_one_out), [])
    return make_window(dataset, split, EvaluationConfig(exclude_seen=True), 0)


def read(window: Window, folder: Path, rows: str) -> Predictions:
    (folder / "lists.csv").write_text(HEADER + rows)
    return read_predictions(str(folder / "lists.csv"), window)


def test_lists_are_placed_by_user_and_rank(window: Window, tmp_path: Path) -> None:
    found = read(window, tmp_path, "u2,2,e\nu0,1,d\nu2,1,f\nu1,1,d\nu1,2,h\n")
    np.testing.assert_array_equal(found.items[:, :3], [[3, -1, -1], [3, 7, -1], [5, 4, -1]])
    assert np.isneginf(found.scores).all()
    assert found.notes == []
    assert found.facts["queries_with_list"] == 3


def test_every_format_reads_the_same(window: Window, tmp_path: Path) -> None:
    rows = {
        "item_id": ["d", "e"],
        "rank": [1, 2],
        "more": [None, "x"],
        "user_id": ["u1", "u1"],
        "score": [0.5, 0.25],
    }
    frame = pl.DataFrame(rows)
    frame.write_parquet(tmp_path / "p.parquet")
    frame.write_ndjson(tmp_path / "p.jsonl")
    frame.write_csv(tmp_path / "p.csv")
    (tmp_path / "q.csv.gz").write_bytes(gzip.compress((tmp_path / "p.csv").read_bytes()))
    for name in ("p.parquet", "p.jsonl", "p.csv", "q.csv.gz"):
        found = read_predictions(str(tmp_path / name), window)
        np.testing.assert_array_equal(found.items[1, :3], [3, 4, -1])
        np.testing.assert_array_equal(found.scores[1, :2], [0.5, 0.25])


def test_what_is_odd_is_counted_and_named(window: Window, tmp_path: Path) -> None:
    rows = "u0,1,d\nu0,3,e\nu0,4,e\nu1,1,zz\nu1,2,d\nu1,101,h\nu1,3,a\nnew,1,a\nshort,1,b\n"
    found = read(window, tmp_path, rows)
    np.testing.assert_array_equal(found.items[0, :5], [3, -1, 4, 4, -1])
    np.testing.assert_array_equal(found.items[1, :4], [8, 3, 0, -1])
    assert found.others == {8: "zz"}
    assert found.facts == {
        "file": "lists.csv", "rows": 9, "users": 4, "queries_with_list": 2, "queries_without_list": 1,
        "users_not_asked": 1, "unknown_users": 1, "unknown_items": 1, "rows_of_unknown_items": 1,
        "rows_below_depth": 1, "lists_with_gaps": 1, "repeated_items": 1, "items_of_history": 1,
    }  # fmt: skip
    notes = " / ".join(found.notes)
    for said in (
        "1 of 3 queries have no list; they count as empty lists",
        "1 users are not in the dataset and were ignored, e.g. 'new'",
        "1 users have no query in the test window",
        "1 items are not in the catalogue, e.g. 'zz'; they take up 1 ranks and are never right",
        "1 lists skip ranks, e.g. that of user 'u0'",
        "1 rows repeat an item of their list",
        "of the listed items are in the user's own history",
        "1 rows are below rank 100",
    ):
        assert said in notes


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "u0,1,d\nu0,1,e\nu0,2,f\n",
            "user 'u0' has rank 1 2 times; number the items of each user 1, 2, 3, ...",
        ),
        ("u0,1,d\nu0,2,e\nu0,1,f\nu0,2,g\n", "user 'u0' has 2 lists; a user is asked once"),
        ("u0,0,d\n", "row 1: rank 0; ranks count from 1: add 1 to every rank"),
        ("u0,1,d\nu0,-2,e\n", "row 2: rank -2 is below 1"),
        ("u0,first,d\n", "row 1: rank 'first' is not a whole number"),
        ("u0,1.5,d\n", "row 1: rank '1.5' is not a whole number"),
        ("u0,,d\n", "row 1: rank '' is not a whole number"),
        (",1,d\n", "row 1: user_id is empty"),
        ("u0,1,\n", "row 1: item_id is empty"),
        ("u0,1,d,extra\n", "row 1: more fields than the header"),
        ("", "no row below the header"),
        (
            "U0,1,d\n",
            "none of its 1 users has a query in the test window (the file has 'U0', the window 'u0'",
        ),
        ("u0,1,D\n", "none of its items is in the catalogue (the file has 'D', the catalogue 'a', 'b', 'c')"),
    ],
)
def test_a_file_that_cannot_be_read_as_lists(window: Window, tmp_path: Path, rows: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read(window, tmp_path, rows)
    assert said in str(error.value)
    assert str(error.value).startswith("predictions: ")
    assert "\n" not in str(error.value)


def test_wrong_columns_are_named(window: Window, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("userid,rank,item_id\nu0,1,d\n")
    with pytest.raises(InputError, match=r"no column 'user_id'; did you mean 'userid'\?"):
        read_predictions(str(tmp_path / "p.csv"), window)
    with pytest.raises(InputError, match="predictions: no such file: "):
        read_predictions(str(tmp_path / "none.csv"), window)


def test_ranks_written_as_decimals_are_whole(window: Window, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(window, tmp_path, "u0,1.0,d\nu0,2.0,e\n").items[0, :2], [3, 4])


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    events = [("7", item, "purchase", step) for step, item in enumerate(("1", "2", "3", "4"))]
    dataset: Dataset = make_dataset(events, ["1", "2", "3", "4"])
    split = make_split(dataset, SplitConfig(kind=SplitKind.leave_one_out), [])
    window = make_window(dataset, split, EvaluationConfig(), 0)
    pl.DataFrame({"user_id": [7, 7], "rank": [1, 2], "item_id": [4, 1]}).write_parquet(tmp_path / "p.parquet")
    np.testing.assert_array_equal(read_predictions(str(tmp_path / "p.parquet"), window).items[0, :2], [3, 0])
