"""Events of the future change nothing of what is computed for the past."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.schema import FactorConfig, SplitConfig, SplitKind
from encoders.factors.co_purchase import Factors
from encoders.towers.sequences import training_windows
from features.candidates.features import Candidates, candidate_features
from features.data.dataset import Dataset, FloatArray
from features.data.histories import histories_of
from features.data.splits import Split, make_split
from features.data.statistics import Statistics, item_statistics
from ranking.assembly import item_arrays, pca_units, text_neighbours
from tests.features.divided import LEAVE_ONE_OUT, asked
from tests.synthetic import DAY, START, make_recommender, with_event


def past(split: Split) -> list[object]:
    """Everything of a split that is computed before its test window."""
    return [
        split.tower_end.tolist(),
        split.train_end.tolist(),
        split.tower_time,
        split.train_time,
        split.state_time,
        asked(split.ranker),
        asked(split.valid),
    ]


def known(dataset: Dataset, split: Split, vectors: FloatArray) -> list[np.ndarray]:
    """Statistics, factors, candidate features and training windows as of the validation queries."""
    statistics = item_statistics(dataset, split.train_end, split.train_time, 5, 5)
    factors = Factors.fit(
        dataset.events, split.train_end, len(vectors), dataset.kind_weights, FactorConfig(dim=4), 0
    )
    assert factors is not None
    near = text_neighbours(pca_units(vectors), 20)
    factors = factors.impute(near)
    made = make_recommender(dataset, vectors, factors=factors)
    arrays = item_arrays(statistics, vectors, None, made.config, near, factors=factors)
    batch = histories_of(dataset.events, split.valid)
    users = made.encode(batch)
    rows = np.tile(np.arange(len(vectors), dtype=np.int32), (len(batch), 1))
    candidates = Candidates(rows, np.ones(rows.shape, np.int16), np.ones(rows.shape, np.float32))
    best = np.zeros((len(batch), 2), np.float32)
    features = candidate_features(made.layout, batch, candidates, arrays, users, best, np.zeros(2, np.bool_))
    start, stop = training_windows(dataset.events, split.train_end, 4, np.random.default_rng(0))
    trained = [dataset.events.item[a:b] for a, b in zip(start, stop, strict=True)]
    fields = [getattr(statistics, name) for name in Statistics.__dataclass_fields__]
    fields += [factors.vectors, factors.dual, users.factors]
    return [*fields, np.argsort(-statistics.recent, kind="stable"), features, start, stop, *trained]


@pytest.mark.parametrize("kind", list(SplitKind))
def test_the_future_changes_nothing_in_the_past(
    dataset: Dataset, text_vectors: FloatArray, kind: SplitKind
) -> None:
    config = LEAVE_ONE_OUT if kind is SplitKind.leave_one_out else SplitConfig()
    split = make_split(dataset, config, [])
    assert asked(split.test)
    # The last event of a user who is asked in the test window: another item, a century later.
    last = int(dataset.events.offsets[split.test.user[0] + 1]) - 1
    planted = with_event(
        dataset, last, item=(int(dataset.events.item[last]) + 1) % 60, time=START + 36_500 * DAY
    )
    after = make_split(planted, config, [])
    assert asked(after.test) != asked(split.test)
    assert past(after) == past(split)
    for before, now in zip(
        known(dataset, split, text_vectors), known(planted, after, text_vectors), strict=True
    ):
        assert np.array_equal(before, now)


def test_a_planted_future_row_changes_nothing_in_the_past(dataset: Dataset, text_vectors: FloatArray) -> None:
    config = SplitConfig(
        valid_start=str(np.datetime64(START + 28 * DAY, "s")),
        test_start=str(np.datetime64(START + 34 * DAY, "s")),
    )
    split = make_split(dataset, config, [])
    events = dataset.events
    users = np.append(events.user, events.users - 1).astype(np.int32)
    planted = replace(
        dataset,
        events=replace(
            events,
            user=users,
            item=np.append(events.item, 0).astype(np.int32),
            kind=np.append(events.kind, 0).astype(np.int8),
            time=np.append(events.time, START + 36_500 * DAY),
            offsets=np.append(events.offsets[:-1], len(users)),
        ),
    )
    after = make_split(planted, config, [])
    assert past(after) == past(split)
    assert len(after.test.targets) == len(split.test.targets) + 1
    for before, now in zip(
        known(dataset, split, text_vectors), known(planted, after, text_vectors), strict=True
    ):
        assert np.array_equal(before, now)
