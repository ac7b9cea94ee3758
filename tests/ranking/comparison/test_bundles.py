from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from conf.schema import EvaluationConfig, SplitConfig, SplitKind
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Catalogue, Dataset
from features.data.splits import make_split
from ranking.bundle.bundle import Bundle
from ranking.comparison.bundles import learned_from, measure_bundle, translate
from ranking.comparison.window import Window, make_window
from ranking.evaluation.offline import offline_system
from tests.bundles import make_bundle
from tests.synthetic import make_dataset

EVENTS = [
    ("u", item, kind, time)
    for time, (item, kind) in enumerate([("a", "buy"), ("x", "see"), ("b", "see"), ("a", "buy")])
]
OTHER = [("v", item, "see", time) for time, item in enumerate("ba")]


def window_of(dataset: Dataset, kind: SplitKind, name: str = "test") -> Window:
    split = make_split(dataset, SplitConfig(kind=kind), [])
    return make_window(dataset, split, EvaluationConfig(exclude_seen=False), 0, name)


def test_events_and_queries_in_the_rows_of_a_bundle() -> None:
    alone = [("un", "b", "see", 0)]  # of a user between the others, with too few events for a query
    events = EVENTS + alone + OTHER + [("v", "a", "buy", 9)]
    dataset = make_dataset(events, ["a", "b", "x"], {"buy": 2.0, "see": 1.0})
    queries = window_of(dataset, SplitKind.leave_one_out).queries
    assert queries.end.tolist() == [3, 7]
    catalogue = Catalogue(pl.DataFrame({"item_id": ["new", "b", "a"], "item_text": ["", "", ""]}))

    class Other:
        pass

    bundle = cast(Any, Other())
    bundle.catalogue, bundle.kinds = catalogue, ["buy"]
    moved = translate(dataset, queries, bundle)
    assert moved.rows.tolist() == [3, 1, 0], "rows of the dataset; the unknown one after its end"
    assert moved.others == {3: "new"}
    # The event of x is gone, and that of a user who is not asked for: positions move down by one and by two.
    assert moved.events.item.tolist() == [2, 1, 2, 1, 2, 2]
    assert moved.events.user.tolist() == [0, 0, 0, 2, 2, 2]
    assert moved.events.offsets.tolist() == [0, 3, 3, 6]
    assert moved.events.kind.tolist() == [0] * 6, "an unknown kind is the weakest one"
    assert moved.queries.end.tolist() == [2, 5]
    assert moved.queries.time.tolist() == queries.time.tolist()


@pytest.fixture
def bundle(dataset: Dataset, encoder: TextEncoder) -> Bundle:
    return make_bundle(dataset, encoder)


def test_a_bundle_of_the_same_catalogue_lists_as_in_evaluation(dataset: Dataset, bundle: Bundle) -> None:
    window = window_of(dataset, SplitKind.global_time)
    found = measure_bundle("b", bundle, window, "store")
    expected = offline_system(bundle.recommender, dataset.events, False)(window.queries)
    width = expected.items.shape[1]
    np.testing.assert_array_equal(found.answer.items[:, :width], expected.items)
    assert found.facts["targets_it_cannot_list"] == 0
    assert found.summary(window)["recall@10"] == pytest.approx(found.answer.values["recall@10"].mean())


def test_a_bundle_of_a_reordered_catalogue_lists_the_same_items(
    dataset: Dataset, encoder: TextEncoder, bundle: Bundle
) -> None:
    """Rows are turned around and one item is missing in the measured dataset."""
    window = window_of(dataset, SplitKind.global_time)
    first = measure_bundle("b", bundle, window, "store").answer.items
    order = np.arange(len(dataset.catalogue))[::-1]
    place = np.argsort(order).astype(np.int32)
    events = replace(dataset.events, item=place[dataset.events.item])
    turned = replace(dataset, catalogue=Catalogue(dataset.catalogue.frame[order]), events=events)
    again = measure_bundle("b", bundle, window_of(turned, SplitKind.global_time), "store")
    np.testing.assert_array_equal(np.where(first >= 0, place[np.maximum(first, 0)], -1), again.answer.items)
    assert again.others == {}


DAYS = 86_400


@pytest.mark.parametrize(
    ("manifest", "trained_on", "kind", "name", "leaks"),
    [
        ({"data_end": 0}, None, SplitKind.global_time, "test", False),
        ({"data_end": 10}, None, SplitKind.global_time, "test", True),
        ({"data_end": 0, "refit": "everything"}, None, SplitKind.global_time, "test", True),
        ({"data_end": -99}, None, SplitKind.global_time, "valid", True),
        ({"data_end": -99, "dataset_hash": "older"}, None, SplitKind.global_time, "test", False),
        ({"data_end": 10, "dataset_hash": "older"}, None, SplitKind.global_time, "test", True),
        ({"data_end": 10}, SplitKind.leave_one_out, SplitKind.leave_one_out, "test", False),
        ({"data_end": 10}, SplitKind.global_time, SplitKind.leave_one_out, "test", True),
        ({"data_end": 10}, None, SplitKind.leave_one_out, "test", True),
        (
            {"data_end": 10, "dataset_hash": "older"},
            SplitKind.leave_one_out,
            SplitKind.leave_one_out,
            "test",
            True,
        ),
        ({"data_end": -(10**8), "dataset_hash": "older"}, None, SplitKind.leave_one_out, "test", False),
        (
            {"data_end": 10, "refit": "everything"},
            SplitKind.leave_one_out,
            SplitKind.leave_one_out,
            "test",
            True,
        ),
    ],
)
def test_a_bundle_that_may_have_learned_from_the_window(
    dataset: Dataset,
    manifest: dict[str, Any],
    trained_on: SplitKind | None,
    kind: SplitKind,
    name: str,
    leaks: bool,
) -> None:
    """`data_end` is relative to the beginning of the window."""
    window = window_of(dataset, kind, name)
    told = {"dataset_hash": "synthetic", "refit": "before_test", **manifest}
    told["data_end"] += window.begins
    assert (learned_from(told, trained_on, window) is not None) == leaks


def test_what_the_ancestors_of_a_bundle_have_learned_counts(dataset: Dataset) -> None:
    """A model of earlier data that began with the weights of one of later data knows those, too."""
    window = window_of(dataset, SplitKind.global_time)
    begins = window.begins
    told = {
        "dataset_hash": "other", "refit": "never", "data_end": begins - 100,
        "learned_until": {"text_encoder": begins - 500, "towers": begins},
    }  # fmt: skip
    assert learned_from(told, None, window) is None
    reason = learned_from({**told, "learned_until": {"towers": begins + 1}}, None, window)
    assert reason is not None
    assert reason.startswith("its weights descend from a model that has learned up to ")


def test_a_bundle_refitted_on_everything_is_not_said_to_descend_from_a_later_model(dataset: Dataset) -> None:
    """It has learned from the event at its end, too, so up to a second after it."""
    window = window_of(dataset, SplitKind.global_time)
    end = window.begins + 10
    told = {
        "dataset_hash": "synthetic", "refit": "everything", "data_end": end,
        "learned_until": {"towers": end + 1},
    }  # fmt: skip
    reason = learned_from(told, None, window)
    assert reason is not None
    assert reason.startswith("it was refitted on all events up to ")
