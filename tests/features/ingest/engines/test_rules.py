"""Rules on rows: a part of a table is judged as it is within the whole one."""

from __future__ import annotations

import pickle

import polars as pl
from polars.testing import assert_frame_equal

from conf.schema import DataConfig
from features.files.readers import FILE, ROW, scan_table
from features.ingest.engines.rules import REASON, rules_of
from tests.features.conftest import Shop


def test_a_row_is_judged_by_its_table_and_not_by_the_rows_beside_it(shop: Shop) -> None:
    # By themselves the last rows would be months first, a decimal dot, an id of a float column and of 1970.
    path = shop.write(
        "events.csv",
        "user_id;item_id;timestamp;value\n"
        "a;1;13/02/2024;1.299,50\n"
        "b;x;14/02/2024;12,50\n"
        "c;9;15/02/2024;2,5\n"
        "7.0;1;03/04/2024;1.299\n"
        "8.0;1;05/04/1970;3\n",
    )
    table = scan_table(path, "data.events")
    rules = rules_of(table, DataConfig(), None, pl.Series(["1", "x"]))
    whole = rules.judge(table.frame).frame.collect()
    assert whole.select(ROW, REASON, "__user_id", "__timestamp", "__value").rows() == [
        (1, None, "a", 1707782400, 1299.5),
        (2, None, "b", 1707868800, 12.5),
        (3, "unknown item", "c", 1707955200, 2.5),
        (4, None, "7.0", 1712102400, 1299.0),
        (5, "implausible timestamp", "8.0", 8121600, 3.0),
    ]
    elsewhere = pickle.loads(pickle.dumps(rules))  # noqa: S301 - its own bytes
    parts = [elsewhere.judge(table.frame.filter(pl.col(ROW) == n)).frame.collect() for n in range(1, 6)]
    assert_frame_equal(pl.concat(parts), whole)
    assert whole[FILE].unique().to_list() == [path]
