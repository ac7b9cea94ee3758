"""Logged impressions: which of them are rounds, and with which reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from ranking.off_policy.log import read_log

SCHEMA = {
    "user_id": pl.String,
    "item_id": pl.String,
    "event": pl.String,
    "request_id": pl.String,
    "list_position": pl.Int64,
    "propensity": pl.Float64,
}
EVENTS: list[tuple[Any, ...]] = [
    ("u1", "a", "impression", "l1", 1, 0.8),
    ("u1", "b", "impression", "l1", 2, 0.05),
    ("u1", "c", "impression", "l1", 3, 0.8),
    ("u1", "b", "impression", "l1", 2, 0.05),  # sent again
    ("u1", "b", "click", "l1", 2, 0.05),
    ("u1", "b", "purchase", "l1", None, None),
    ("u1", "a", "click", "l0", 1, 1.0),  # of another list
    ("u2", "a", "impression", "l1", 1, 0.8),  # the same request id, as sent by a client
    ("u2", "b", "impression", "l2", 1, 1.0),  # of a list without exploration
    ("u2", "b", "click", "l2", 1, 1.0),
    ("u3", "a", "impression", "l3", 1, 0.5),  # no predictions
    ("u1", "a", "impression", None, 1, None),
    ("u1", "d", "click", None, None, None),
]
LISTS = pl.DataFrame(
    {
        "user_id": ["u1", "u1", "u2", "u4"],
        "rank": [1, 2, 1, 1],
        "item_id": ["c", "b", "a", "a"],
    }
)


def written(folder: Path, events: list[tuple[Any, ...]]) -> str:
    path = folder / "events.parquet"
    pl.DataFrame(events, schema=SCHEMA, orient="row").write_parquet(path)
    return str(path)


def test_rounds_are_the_shown_positions_of_explored_lists(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, EVENTS), LISTS, [])
    assert log.impressions == 8
    assert log.left_out == {
        "without the list's attribution token and position": 1,
        "repeated": 1,
        "of lists without exploration": 1,
        "of users without a list": 1,
    }
    rounds = log.rounds
    # u1 was shown a, b and c, and would have been shown c and b; u2 a in either case.
    assert rounds.logged.tolist() == [0.0, 1.0, 0.0]
    assert rounds.shown.tolist() == [True, True, True]
    assert rounds.propensity.tolist() == [0.8, 0.05, 0.8]
    assert rounds.reward.tolist() == [0.0, 1.0, 0.0]
    assert rounds.user.tolist() == [0, 0, 1]
    assert log.rewards == ["click", "purchase"]
    np.testing.assert_allclose(rounds.weight, [1.25, 20.0, 1.25])


def test_rewards_move_to_the_position_that_the_item_would_have_had(tmp_path: Path) -> None:
    swapped = pl.DataFrame({"user_id": ["u1"] * 3, "rank": [1, 2, 5], "item_id": ["b", "z", "a"]})
    rounds = read_log(written(tmp_path, EVENTS), swapped, []).rounds
    first, second = rounds.examination
    assert (first, rounds.shown.tolist()) == (1.0, [True, False])
    np.testing.assert_allclose(rounds.reward, [1.0 / second, 0.0])
    np.testing.assert_allclose(rounds.weight, [20.0, 0.0])
    nothing = swapped.with_columns(rank=pl.lit(9))
    with pytest.raises(InputError, match="predictions: no list has a rank that was shown"):
        read_log(written(tmp_path, EVENTS), nothing, [])


def test_rewards_are_of_the_named_kinds(tmp_path: Path) -> None:
    path = written(tmp_path, EVENTS[:5])
    assert read_log(path, LISTS, ["click"]).rounds.logged.tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match="rewards: .* has no event 'clicks'; did you mean 'click'"):
        read_log(path, LISTS, ["clicks"])
    elsewhere = written(tmp_path, [*EVENTS[:4], ("u1", "b", "purchase", "l9", 2, 0.05)])
    assert read_log(elsewhere, LISTS, ["purchase"]).rounds.logged.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (EVENTS[4:6], "has no impressions; record an `impression` for each item shown"),
        (EVENTS[8:10], "none of the 1 impressions of .* 1 of lists without exploration; lists need"),
        (EVENTS[10:11], "1 of users without a list"),
    ],
)
def test_a_log_that_says_nothing_is_refused(
    tmp_path: Path, events: list[tuple[Any, ...]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_log(written(tmp_path, events), LISTS, [])


def test_files_that_are_no_export_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    with pytest.raises(InputError, match=r"no file .*events.parquet; make it with `shelfwise export events"):
        read_log(str(path), LISTS, [])
    path.write_text("user_id,item_id\n")
    with pytest.raises(InputError, match=r"events.parquet cannot be read .*; make the file with"):
        read_log(str(path), LISTS, [])
    pl.DataFrame(EVENTS, schema=SCHEMA, orient="row").drop("propensity").write_parquet(path)
    with pytest.raises(InputError, match="has no column 'propensity'; make the file with"):
        read_log(str(path), LISTS, [])
