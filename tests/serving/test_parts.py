"""Unit tests of paging, translation and validation."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from features.data.dataset import Catalogue
from ranking.catalogue.live_catalogue import LiveCatalogue
from ranking.types import History, Reason, Recommendation, RecommendedItem, Request
from serving.api import page_tokens
from serving.api.service import SERVICE_NAME
from serving.api.tokens import fingerprint
from serving.api.translation import SessionEvents, degradation, merge_history
from serving.api.validation import micros, page_size
from serving.core.call_context import Timeline
from serving.core.errors import ApiError
from serving.model.execute_batch import execute_batch
from serving.model.interfaces import Job, Neighbours, RecommendJob, SimilarJob
from serving.model.item_cards import ItemCards
from serving.model.shown_items import ShownItems, id_hash
from serving.state.contracts.user_state import MICROS, PastEvent
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.fake_bundle import ITEMS, POISON, SLOW, FakeBundle

IDENTITY = b"12345678"
NO_ROWS = np.zeros(0, dtype=np.int32)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_a_token_gives_back_what_was_shown(hashes: list[int]) -> None:
    shown = np.array(hashes, dtype=np.uint32)
    assert (
        page_tokens.decode_shown(page_tokens.encode_shown(IDENTITY, shown), IDENTITY).shown.tolist() == hashes
    )


@given(st.text(max_size=60))
def test_no_text_is_a_token_by_accident(text: str) -> None:
    if text:
        with pytest.raises(ApiError):
            page_tokens.decode_shown(text, IDENTITY)


def test_paging_ends_at_its_limit_and_tokens_stay_small() -> None:
    assert page_tokens.encode_shown(IDENTITY, np.zeros(page_tokens.MAX_SHOWN, dtype=np.uint32)) == ""
    assert (
        len(page_tokens.encode_shown(IDENTITY, np.zeros(page_tokens.MAX_SHOWN - 1, dtype=np.uint32))) < 11_000
    )


def test_shown_items_are_found_under_another_row_order() -> None:
    rows = list(range(50))
    ids = [f"item-{r}" for r in rows]
    hashes = np.array([id_hash(i) for i in ("item-3", "item-49", "gone")], dtype=np.uint32)
    for order in (rows, rows[::-1]):
        frame = pl.DataFrame({"item_id": [ids[r] for r in order], "item_text": ["x"] * 50})
        catalogue = LiveCatalogue(Catalogue(frame))
        found = ShownItems(catalogue).rows(hashes)
        assert sorted(catalogue.ids[r] for r in found) == ["item-3", "item-49"]
    assert ShownItems(catalogue).rows(np.zeros(0, dtype=np.uint32)).tolist() == []


def test_ids_that_share_a_hash_are_all_found() -> None:
    # "plumless" and "buckeroo" are a known CRC-32 collision
    frame = pl.DataFrame({"item_id": ["plumless", "other", "buckeroo"], "item_text": ["x"] * 3})
    catalogue = LiveCatalogue(Catalogue(frame))
    hashes = np.array([id_hash("plumless")], dtype=np.uint32)
    assert sorted(ShownItems(catalogue).rows(hashes).tolist()) == [0, 2]


def test_fingerprints_ignore_page_size_and_token_only() -> None:
    plain = fingerprint(pb.RecommendRequest(user_id="u"))
    assert fingerprint(pb.RecommendRequest(user_id="u", page_size=3, page_token="x")) == plain
    assert fingerprint(pb.RecommendRequest(user_id="u", explain=True)) != plain
    assert fingerprint(pb.RecommendRequest()) != fingerprint(pb.SimilarItemsRequest())


def test_merging_drops_what_the_model_does_not_know_and_keeps_the_latest() -> None:
    stored = [
        PastEvent("i1", "click", 10 * MICROS),
        PastEvent("gone", "click", 11 * MICROS),
        PastEvent("i2", "old kind", 12 * MICROS),
        PastEvent("i3", "purchase", 13 * MICROS),
    ]
    session = SessionEvents(["i4", "i5"], ["click", "click"], [12 * MICROS, 99 * MICROS], [])
    history, used = merge_history(FakeBundle(), stored, session, now=50, limit=10)
    assert (history.items.tolist(), history.kinds.tolist()) == ([1, 4, 3, 5], [2, 2, 0, 2])
    assert history.times.tolist() == [10, 12, 13, 50]  # never later than now
    assert used == 2
    assert [str(a.dtype) for a in (history.items, history.kinds, history.times)] == ["int32", "int8", "int64"]
    latest, used = merge_history(FakeBundle(), stored, session, now=50, limit=2)
    assert (latest.items.tolist(), used) == ([3, 5], 1)
    empty, used = merge_history(FakeBundle(), [], SessionEvents([], [], [], []), now=50, limit=2)
    assert (len(empty.items), used) == (0, 0)


@pytest.mark.parametrize(
    ("answered", "stored", "history", "available", "expected"),
    [
        ("none", 2, 3, True, pb.DEGRADATION_NONE),
        ("none", 0, 3, True, pb.DEGRADATION_SESSION_ONLY),
        ("none", 0, 0, True, pb.DEGRADATION_TEXT_ONLY),
        ("text_only", 2, 3, True, pb.DEGRADATION_TEXT_ONLY),
        ("popularity", 0, 0, True, pb.DEGRADATION_POPULARITY),
        ("popularity", 0, 0, False, pb.DEGRADATION_HISTORY_UNAVAILABLE),
        ("none", 0, 3, False, pb.DEGRADATION_HISTORY_UNAVAILABLE),
        ("candidates_unavailable", 2, 3, True, pb.DEGRADATION_CANDIDATES_UNAVAILABLE),
        ("candidates_unavailable", 0, 3, True, pb.DEGRADATION_CANDIDATES_UNAVAILABLE),
        ("candidates_unavailable", 0, 0, False, pb.DEGRADATION_HISTORY_UNAVAILABLE),
    ],
)
def test_the_fallback_ladder(
    answered: str, stored: int, history: int, available: bool, expected: pb.Degradation
) -> None:
    assert degradation(answered, stored, history, available) == expected


def test_titles_come_from_a_title_column_or_else_from_the_text() -> None:
    text = "A very long description that goes on and on, " * 10
    frame = pl.DataFrame({"item_id": ["a", "b"], "item_text": [text, "Short."], "Name": ["Boots", None]})
    named, bare = (ItemCards(LiveCatalogue(Catalogue(f))) for f in (frame, frame.drop("Name")))
    assert (named.card(0)[0], named.card(1)[0]) == ("Boots", "Short.")
    title, _ = bare.card(0)
    assert len(title) <= 80
    assert title == "A very long description that goes on and on, A very long description that goes…"
    assert len(named.card(0)[1]) <= 160


def test_every_kind_of_reason_reads_well() -> None:
    before = ["bought_before", "chosen_before", "viewed_before"]
    kinds = [*before, "goes_with", "reads_like", "for_you", "popular", "matches_intent", "new_kind"]
    reasons = tuple(Reason(k, 2 if k in ("goes_with", "reads_like") else None) for k in kinds)
    answer = Recommendation((RecommendedItem(1, 1.0, 0.1, 0.2, "popular", reasons),), "none")
    response = pb.RecommendResponse()
    ItemCards(FakeBundle().catalogue).recommended(response.items, answer, "red boots", True, None, 0)
    (item,) = response.items
    assert [r.text for r in item.reasons] == [
        "Bought before",
        "Chosen before",
        "Looked at before",
        'Goes with "Item 2"',
        'Similar to "Item 2"',
        "Picked for you",
        "Popular right now",
        'Matches "red boots"',
        "New kind",
    ]
    assert [r.because_item_id for r in item.reasons] == ["", "", "", "i2", "i2", "", "", "", ""]
    assert (item.p_click, item.p_purchase) == (0.1, 0.2)


def test_a_batch_that_straddles_a_model_change_is_answered_by_each_jobs_own_model() -> None:
    old, new = FakeBundle("v1"), FakeBundle("v2")
    nobody = History(NO_ROWS, np.zeros(0, np.int8), np.zeros(0, np.int64))
    jobs: list[Job] = [
        RecommendJob(old, Request(nobody, now=1, k=1), "boots"),
        SimilarJob(new, 4, 3, np.array([4], dtype=np.int32), None),
        RecommendJob(new, Request(nobody, now=1, k=2)),
        RecommendJob(old, Request(nobody, now=1, k=3)),
        SimilarJob(old, "Item number 5", ITEMS + 5, NO_ROWS, None),
    ]
    answers = execute_batch(jobs)
    sizes = [len(a.items) for a in answers if isinstance(a, Recommendation)]
    assert sizes == [1, 2, 3]
    assert [len(a.rows) for a in answers if isinstance(a, Neighbours)] == [3, ITEMS]
    assert [isinstance(a, Recommendation) for a in answers] == [True, False, True, True, False]
    assert (old.recommender.batches, new.recommender.batches) == ([2], [1])
    intents = [request.intent is not None for request in old.recommender.seen]
    assert intents == [True, False]


def test_lists_of_a_batch_are_shared_out_among_threads_and_come_back_in_order() -> None:
    model = FakeBundle("v1")
    nobody = History(NO_ROWS, np.zeros(0, np.int8), np.zeros(0, np.int64))
    lines = [Timeline() for _ in range(7)]
    jobs: list[Job] = [
        RecommendJob(model, Request(nobody, now=1, k=k), timeline=line) for k, line in enumerate(lines, 1)
    ]
    with ThreadPoolExecutor(1) as helpers:
        answers = execute_batch(jobs, helpers, 2)
        assert [len(a.items) for a in answers if isinstance(a, Recommendation)] == list(range(1, 8))
        assert sorted(model.recommender.batches) == [3, 4]
        assert all(line.began for line in lines)
        execute_batch(jobs[:3], helpers, 2)
        assert model.recommender.batches[-1] == 3, "too few to be shared out"


def test_a_part_that_fails_ends_the_batch_once_the_others_are_done() -> None:
    model = FakeBundle("v1")
    model.recommender.slow_seconds = 0.1
    nobody = History(NO_ROWS, np.zeros(0, np.int8), np.zeros(0, np.int64))
    jobs: list[Job] = [
        RecommendJob(model, Request(nobody, now=1, k=1), intent) for intent in (POISON, "", SLOW, "")
    ]
    with ThreadPoolExecutor(1) as helpers:
        for batch in (jobs, jobs[::-1]):
            began = time.perf_counter()
            with pytest.raises(ValueError, match="poisoned"):
                execute_batch(batch, helpers, 2)
            assert time.perf_counter() - began >= 0.1


def test_page_sizes() -> None:
    assert [page_size(n, 500) for n in (0, 1, 500, 501)] == [20, 1, 500, 500]
    assert page_size(0, 7) == 7
    with pytest.raises(ApiError):
        page_size(-1, 500)


def test_times_are_checked_and_counted_in_microseconds() -> None:
    assert micros("t", Timestamp(seconds=3, nanos=1_999)) == 3_000_001
    for wrong in (
        Timestamp(seconds=-1),
        Timestamp(nanos=-1),
        Timestamp(nanos=10**9),
        Timestamp(seconds=10**12),
    ):
        with pytest.raises(ApiError) as caught:
            micros("t", wrong)
        assert caught.value.path == "t"


def test_the_service_has_its_public_name() -> None:
    assert SERVICE_NAME == "shelfwise.v1.RecommendationService"
