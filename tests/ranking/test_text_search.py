from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset, FloatArray
from ranking.bundle.bundle import Bundle
from ranking.live.updates import LiveItems
from ranking.text_search import TASTE, search
from ranking.types import Request
from tests.bundles import make_bundle
from tests.synthetic import EMPTY, request_of

WORDS = "trail boots"


@pytest.fixture
def bundle(dataset: Dataset, encoder: TextEncoder) -> Bundle:
    return make_bundle(dataset, encoder)


def asked(bundle: Bundle, request: Request, k: int = 60) -> Request:
    return replace(request, k=k, intent=bundle.encode_queries([WORDS])[0])


def ordered(bundle: Bundle, scores: FloatArray) -> list[int]:
    """Rows by falling score as it is told, equals by popularity, then by row."""
    recent = bundle.recommender.arrays.statistics.recent
    rows: list[int] = np.lexsort((np.arange(len(scores)), -recent, -np.round(scores, 4))).tolist()
    return rows


def test_without_history_the_words_alone_decide(bundle: Bundle) -> None:
    answer = search(bundle.recommender, [asked(bundle, Request(EMPTY, now=1))])[0]
    cosines = bundle.text_vectors @ bundle.encode_queries([WORDS])[0]
    assert [i.row for i in answer.items] == ordered(bundle, cosines)
    assert [i.score for i in answer.items] == pytest.approx(np.sort(cosines)[::-1].tolist(), abs=1e-4)
    assert answer.degradation == "text_only"


def test_taste_moves_scores_by_its_standardised_match_and_never_further(
    bundle: Bundle, dataset: Dataset
) -> None:
    request = asked(bundle, request_of(dataset, 0))
    answer = search(bundle.recommender, [request])[0]
    cosines = bundle.text_vectors @ bundle.encode_queries([WORDS])[0]
    user = bundle.recommender.user_vectors(bundle.recommender.histories([request]))[0]
    match = bundle.recommender.arrays.item_vectors @ user
    expected = np.round(cosines, 4) + TASTE * np.clip((match - match.mean()) / match.std(), -1, 1)
    assert [i.row for i in answer.items] == ordered(bundle, expected)
    assert [i.score for i in answer.items] == pytest.approx(np.sort(expected)[::-1].tolist(), abs=1e-4)
    assert max(abs(i.score - cosines[i.row]) for i in answer.items) <= TASTE + 1e-4
    assert [i.row for i in answer.items] != ordered(bundle, cosines)
    assert answer.degradation == "none"


def test_a_search_does_not_depend_on_its_neighbours(bundle: Bundle, dataset: Dataset) -> None:
    requests = [asked(bundle, request_of(dataset, user), k=7) for user in range(5)]
    together = search(bundle.recommender, requests)
    alone = [search(bundle.recommender, [request])[0] for request in requests]
    for one, other in zip(alone, together, strict=True):
        assert [(i.row, i.source, i.reasons) for i in one.items] == [
            (i.row, i.source, i.reasons) for i in other.items
        ]
        assert [i.score for i in one.items] == pytest.approx([i.score for i in other.items], abs=1e-6)
        assert one.degradation == other.degradation
    assert len({tuple(i.row for i in a.items) for a in together}) > 1


def test_filters_exclusions_and_seen_items(bundle: Bundle, dataset: Dataset) -> None:
    request = asked(bundle, request_of(dataset, 0))
    allowed = np.arange(60) % 2 == 0
    answer = search(
        bundle.recommender, [replace(request, allowed=allowed, exclude=np.array([2, 4], np.int32))]
    )[0]
    assert {i.row for i in answer.items} == set(range(0, 60, 2)) - {2, 4}
    unseen = search(bundle.recommender, [replace(request, exclude_seen=True)])[0]
    assert {i.row for i in unseen.items} == set(range(60)) - set(request.history.items.tolist())


def test_reasons_name_the_words_after_what_was_bought_and_only_where_they_fit(
    bundle: Bundle, dataset: Dataset
) -> None:
    vector, texts = bundle.text_vectors[33], bundle.recommender.texts
    request = replace(request_of(dataset, 0), k=60, intent=vector, explain=True)
    fits = texts.matches(texts.query(vector, ""), np.arange(60, dtype=np.int32))
    assert np.flatnonzero(fits).tolist() == [33]
    bought = set(request.history.items[request.history.kinds == 0].tolist())
    for item in search(bundle.recommender, [request])[0].items:
        kinds = [reason.kind for reason in item.reasons]
        assert ("matches_intent" in kinds) == fits[item.row]
        assert (kinds[:1] == ["bought_before"]) == (item.row in bought)


def test_words_decide_for_known_shoppers_as_for_nobody(bundle: Bundle, dataset: Dataset) -> None:
    """A typed brand fills the first ten with it, a typed title is first, whoever types it and wherever."""
    version = LiveItems(bundle, 1).current
    frame = dataset.catalogue.frame
    everybody = [Request(EMPTY, 1), *(request_of(dataset, user) for user in range(0, 60, 4))]
    for brand in ("acme", "Borealis", "COBALT"):
        vector = version.encode_queries([brand])[0]
        right = set(np.flatnonzero((frame["brand"].str.to_lowercase() == brand.lower()).to_numpy()).tolist())
        requests = [replace(r, k=min(10, len(right)), intent=vector, query_text=brand) for r in everybody]
        for make in (version.recommender.search, version.recommender.recommend):
            for answer in make(requests):
                assert {item.row for item in answer.items} <= right
    for row in range(0, 60, 7):
        for said in (frame["title"][row], f"{frame['title'][row].upper()}!", f"i{row}"):
            vector = version.encode_queries([said])[0]
            requests = [replace(r, k=5, intent=vector, query_text=said) for r in everybody]
            for make in (version.recommender.search, version.recommender.recommend):
                assert {answer.items[0].row for answer in make(requests)} == {row}
