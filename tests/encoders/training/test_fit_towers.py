"""What the towers are validated on."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.training import fit_towers
from encoders.training.fit_towers import validation_sample
from features.data.splits import Queries


def queries(count: int) -> Queries:
    rows = np.arange(count, dtype=np.int32)
    long = rows.astype(np.int64)
    return Queries(rows, long, long, np.arange(count + 1, dtype=np.int64), rows * 2, rows)


def test_validation_takes_all_queries_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_towers, "SCORES", 1000)
    monkeypatch.setattr(fit_towers, "FEWEST", 5)
    valid = queries(100)
    assert validation_sample(valid, 10, 0) is valid
    some = validation_sample(valid, 20, 0)
    assert len(some) == 50
    assert some.user.tolist() == sorted(set(some.user.tolist()))
    assert some.targets.tolist() == (2 * some.user).tolist()
    assert validation_sample(valid, 20, 0).user.tolist() == some.user.tolist()
    assert validation_sample(valid, 20, 1).user.tolist() != some.user.tolist()
    assert len(validation_sample(valid, 10_000, 0)) == 5, "no fewer"
