from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.data import schema
from ranking.lint.material import material_of
from tests.ranking.lint.shop import clean_shop


@pytest.mark.parametrize("columns", [True, False])
def test_a_large_dataset_is_checked_on_drawn_users_under_its_own_cuts(tmp_path: Path, columns: bool) -> None:
    whole = clean_shop().material()
    dataset, events = whole.dataset, whole.events
    frame = pl.DataFrame({schema.TIMESTAMP: events.time, **({"value": events.time * 2.0} if columns else {})})
    frame.write_parquet(tmp_path / schema.EVENTS_FILE)
    most = len(events) // 3

    sample = material_of(dataset, whole.split, whole.config, tmp_path, most)

    lengths = sample.events.lengths()
    drawn = lengths > 0
    assert 0.8 * most < len(sample.events) <= most
    np.testing.assert_array_equal(lengths[drawn], events.lengths()[drawn])
    assert (sample.split.train_time, sample.split.state_time) == (
        whole.split.train_time,
        whole.split.state_time,
    )
    np.testing.assert_array_equal(np.unique(sample.split.test.user), np.intersect1d(
        np.unique(whole.split.test.user), np.flatnonzero(drawn)
    ))  # fmt: skip
    if columns:
        np.testing.assert_array_equal(sample.columns["value"].to_numpy(), sample.events.time * 2.0)
    else:
        assert sample.columns.is_empty()


def test_a_dataset_below_the_limit_is_checked_whole(tmp_path: Path) -> None:
    whole = clean_shop().material()
    pl.DataFrame({schema.TIMESTAMP: whole.events.time, "value": whole.events.item}).write_parquet(
        tmp_path / schema.EVENTS_FILE
    )
    same = material_of(whole.dataset, whole.split, whole.config, tmp_path, len(whole.events))
    assert same.events is whole.events
    np.testing.assert_array_equal(same.columns["value"].to_numpy(), whole.events.item)
