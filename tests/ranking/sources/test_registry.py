"""The registry of candidate sources: names, bits, quotas, and a source of one's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.schema import CandidateConfig, quota_names
from features.data.dataset import Dataset, FloatArray, IntArray
from ranking.sources import SOURCES, CandidateSource, Proposal, SourceRegistry, SourceRequest
from ranking.sources.registry import MAX_SOURCES, quota_of
from tests.ranking.requests import batch_of, no_limits, real
from tests.synthetic import EMPTY, make_recommender, request_of

ROWS = np.array([3, 8], np.int32)


class Fixed(CandidateSource):
    """Proposes the same rows whatever the history."""

    def __init__(self, name: str = "fixed", quota: str | int = 2, rows: IntArray = ROWS) -> None:
        self.name, self.quota, self.rows = name, quota, rows

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        return Proposal(np.tile(self.rows[:quota], (len(request), 1)))


def test_the_order_is_that_of_published_ranking_heads() -> None:
    assert SOURCES.names == (
        "user_vector", "item_to_item", "text_neighbours", "repeat", "popular", "intent", "co_purchase",
        "new_items",
    )  # fmt: skip


def test_every_quota_setting_belongs_to_a_source_and_an_intent_shares_one() -> None:
    assert {source.quota for source in SOURCES.sources} == set(quota_names())
    config = CandidateConfig(user_vector=7, new_items=3)
    quotas = {source.name: quota_of(source, config) for source in SOURCES.sources}
    assert quotas["user_vector"] == quotas["intent"] == 7
    assert quotas["new_items"] == 3
    assert quota_of(Fixed(quota=5), config) == 5


def test_a_mask_names_its_sources_in_order() -> None:
    assert SOURCES.proposed_by(0b1) == ("user_vector",)
    assert SOURCES.proposed_by(0b10010010) == ("item_to_item", "popular", "new_items")
    assert SOURCES.proposed_by(0) == ()


def test_personal_sources_are_those_that_choose_by_the_history() -> None:
    assert SOURCES.personal == {"user_vector", "item_to_item", "text_neighbours", "co_purchase", "new_items"}


def test_names_are_distinct_and_quotas_exist() -> None:
    with pytest.raises(ValueError, match="several candidate sources are called 'popular'"):
        SOURCES.with_source(Fixed("popular"))
    with pytest.raises(ValueError, match="source 'fixed': no quota is called 'fixd', only user_vector,"):
        SOURCES.with_source(Fixed(quota="fixd"))


def test_a_mask_has_room_for_fifteen_sources() -> None:
    registry = SourceRegistry(tuple(Fixed(f"s{n}") for n in range(MAX_SOURCES)))
    merged = registry.merge({"s14": Proposal(np.array([[4]], np.int32))}, 1)
    assert registry.proposed_by(int(merged.sources[0, 0])) == ("s14",)
    with pytest.raises(ValueError, match="16 candidate sources, at most 15 are possible"):
        registry.with_source(Fixed())


def test_a_source_of_ones_own_proposes_beside_the_others(dataset: Dataset, text_vectors: FloatArray) -> None:
    config = CandidateConfig(
        user_vector=0, item_to_item=0, text_neighbours=0, repeat=0, co_purchase=0, new_items=0, popular=10
    )
    recommender = make_recommender(dataset, text_vectors, config=config)
    rows = recommender.indexes.by_popularity[-2:]
    recommender.sources = SOURCES.with_source(Fixed(rows=rows))
    batch = batch_of(dataset, [0, None])
    _, proposals, _ = recommender.retrieve(batch, no_limits(2), recommender.encode(batch))
    assert list(proposals) == ["popular", "fixed"]
    assert real(proposals["fixed"]) == [rows.tolist()] * 2
    [answer] = recommender.recommend([replace(request_of(dataset, 0, k=10), history=EMPTY)])
    # Fused ranks: the first of each source has 1/61, the second 1/62, and so on.
    assert {item.row for item in answer.items[:4]} == {*rows.tolist(), *proposals["popular"][1, :2].tolist()}
    assert [i.source for i in answer.items if i.row in rows] == ["fixed", "fixed"]
    assert {i.source for i in answer.items if i.row not in rows} == {"popular"}
