"""States of the items of a served bundle: what they share, and what they do not hold on to."""

from __future__ import annotations

import gc
import weakref

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.live.updates import LiveItems
from tests.bundles import make_bundle
from tests.ranking.changes import change, item
from tests.synthetic import request_of


def test_a_model_that_nobody_uses_any_more_is_let_go_of_at_once(
    dataset: Dataset, encoder: TextEncoder
) -> None:
    live = LiveItems(make_bundle(dataset, encoder), 10)
    version = change(live, item("new", "trail boots summit", "Borealis"))
    version.recommender.recommend([request_of(dataset, 0)])
    gc.disable()  # which looks for objects that hold each other: too seldom for a gigabyte of arrays
    try:
        held: list[weakref.ref[object]] = [
            weakref.ref(live),
            weakref.ref(version),
            weakref.ref(version.recommender.recommender),
        ]
        del live
        assert len(version.recommender.recommend([request_of(dataset, 0)])) == 1  # a request under way
        del version
        assert [reference() for reference in held] == [None, None, None]
    finally:
        gc.enable()
