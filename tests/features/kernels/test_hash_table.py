from __future__ import annotations

import numpy as np

from features.kernels.hash_table import cell_of, empty_table, table_of


def test_a_table_is_at_most_a_quarter_full() -> None:
    assert [len(empty_table(count)) for count in (0, 4, 5, 100)] == [16, 16, 32, 512]
    assert set(empty_table(3).tolist()) == {-1}


def test_keys_that_share_a_cell_are_told_apart() -> None:
    table = empty_table(4)
    first = 1
    same = next(key for key in range(2, 10_000) if cell_of(table, key) == cell_of(table, first))
    table[cell_of(table, first)] = first
    assert cell_of(table, same) == (cell_of(table, first) + 1) % len(table)
    table[cell_of(table, same)] = same
    assert table[cell_of(table, same)] == same
    assert table[cell_of(table, first)] == first


def test_every_row_is_found_at_its_place_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    rows = rng.permutation(100_000)[:300].astype(np.int32)
    rows[[5, 17]] = -1
    keys, places = table_of(rows)
    assert (keys >= 0).sum() == 298
    for place, row in enumerate(rows.tolist()):
        if row >= 0:
            assert places[cell_of(keys, row)] == place
    absent = np.setdiff1d(np.arange(2000), rows)
    assert all(keys[cell_of(keys, row)] == -1 for row in absent.tolist())
