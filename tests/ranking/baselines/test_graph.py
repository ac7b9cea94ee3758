from __future__ import annotations

import numpy as np
import pytest

from conf.errors import InputError
from features.data.dataset import FloatArray
from ranking.baselines.graph import GraphText
from ranking.baselines.registry import BaselineInputs, make_baselines
from tests.ranking.baselines.test_registry import ask, make_events

VECTORS: FloatArray = np.array(
    [[1, 0], [0, 2], [0.8, 0.6], [0.6, 0.8], [0, 1], [-1, 0], [0, 0]], dtype=np.float32
)
# Transitions: 0 -> 1 twice, 0 -> 2, 1 -> 3, 2 -> 4, 5 -> 3, 5 -> 6. The last three users are asked.
EVENTS = make_events(
    [[0, 1], [0, 1], [0, 2], [1, 3], [2, 4], [5, 3], [5, 6], [0], [5, 0], [1, 0]],
)
KNOWN = np.concatenate([EVENTS.offsets[1:8], EVENTS.offsets[7:10]])
USER, TWO, SEEN = 7, 8, 9


def fitted(last: tuple[int, ...], before: tuple[int, ...] = (), edge_share: float = 0.5) -> GraphText:
    baseline = GraphText(VECTORS, last, before, edge_share)
    baseline.fit(EVENTS, KNOWN, 0, len(VECTORS))
    return baseline


def test_rings_take_turns_and_texts_order_them() -> None:
    items, scores = fitted((1, 1)).recommend(EVENTS, ask(EVENTS, [USER]), 7, True)
    # Ring 1: item 2 has .8 + .5 ln 2 / ln 3, item 1 has 0 + .5. Ring 2: items 3 (.6) and 4 (0).
    assert items.tolist() == [[2, 3, 1, 4, 5, 6, -1]]
    # Then the text of 5; 6 has none: two below the least score, plus its share of the largest count.
    np.testing.assert_allclose(scores[0, :6], [5, 4, 3, 2, -1, -3 + 1 / 3], atol=1e-6)
    items, _ = fitted((2, 1)).recommend(EVENTS, ask(EVENTS, [USER]), 4, True)
    assert items.tolist() == [[2, 1, 3, 4]]


def test_transitions_count_beside_text() -> None:
    baseline = fitted((1,), edge_share=3.0)
    # Item 1: 0 + 3 against item 2: .8 + 3 ln 2 / ln 3 = 2.69. Without ring 2 texts follow: 3 (.6), 4 (0).
    items, scores = baseline.recommend(EVENTS, ask(EVENTS, [USER]), 4, True)
    assert items.tolist() == [[1, 2, 3, 4]]
    np.testing.assert_allclose(scores, [[3, 2, 0.6, 0]], atol=1e-6)
    np.testing.assert_allclose(baseline.bonus.toarray()[0, 1:3], [1, np.log(2) / np.log(3)], rtol=1e-6)


def test_the_item_before_the_newest_has_rings_of_its_own() -> None:
    items, _ = fitted((1, 1), (2,)).recommend(EVENTS, ask(EVENTS, [TWO]), 5, True)
    # Ring 1 of item 5 is 3 and 6, and 3 already stands in ring 2 of item 0.
    assert items.tolist() == [[2, 3, 6, 1, 4]]
    # A history of one event has no item before it.
    items, _ = fitted((1, 1), (2,)).recommend(EVENTS, ask(EVENTS, [USER]), 4, True)
    assert items.tolist() == [[2, 3, 1, 4]]


def test_excluded_items_take_no_place_but_the_walk_goes_through_them() -> None:
    baseline = fitted((1, 1))
    items, _ = baseline.recommend(EVENTS, ask(EVENTS, [SEEN]), 6, True)
    assert items.tolist() == [[2, 3, 4, 5, 6, -1]]
    items, _ = baseline.recommend(EVENTS, ask(EVENTS, [SEEN]), 5, False)
    assert items.tolist() == [[2, 3, 1, 4, 0]]
    allowed = np.isin(np.arange(7), [1, 4, 6])
    items, _ = baseline.recommend(EVENTS, ask(EVENTS, [USER]), 4, True, allowed)
    assert items.tolist() == [[1, 4, 6, -1]]


def test_an_item_is_in_the_nearest_ring_alone() -> None:
    events = make_events([[0, 1], [1, 2, 0], [0, 2], [2, 2, 3], [0, 0], [0]])
    baseline = GraphText(np.zeros((4, 2), dtype=np.float32), (1, 1, 1), ())
    baseline.fit(events, events.offsets[1:], 0, 4)
    # Without texts ring 1 (0 itself, 1, 2) goes by popularity: 0, 2, 1. Ring 2 is 3, and ring 3 is empty.
    items, scores = baseline.recommend(events, ask(events, [5]), 4, False)
    assert items.tolist() == [[0, 3, 2, 1]]
    assert scores.tolist() == [[5, 4, 3, 2]]


def test_worthless_transitions_are_no_edges_and_nobody_known_gets_popularity() -> None:
    events = make_events([[0, 1], [0, 2, 2], [0], []], kinds=[[0, 1], [0, 0, 0], [0], []])
    baseline = GraphText(
        np.zeros((4, 2), dtype=np.float32), kind_weights=np.array([1.0, 0.0], dtype=np.float32)
    )
    baseline.fit(events, events.offsets[1:], 0, 4)
    assert baseline.edges.toarray().nonzero()[0].tolist() == [0, 2]
    assert baseline.edges.toarray().nonzero()[1].tolist() == [2, 2]
    items, _ = baseline.recommend(events, ask(events, [3]), 2, True)
    assert items.tolist() == [[0, 2]]


def test_graph_text_needs_a_vector_per_item() -> None:
    with pytest.raises(InputError, match="graph_text needs item texts"):
        make_baselines(["graph_text"], BaselineInputs())
    with pytest.raises(ValueError, match="2 text vectors for 7 items"):
        GraphText(np.eye(2, dtype=np.float32)).fit(EVENTS, KNOWN, 0, 7)
