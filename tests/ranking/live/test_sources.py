"""Items that change, in the sources of candidates: factors, new items, and what is not worked out again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from encoders.factors.affinity import Affinity
from encoders.text.text_encoder import TextEncoder
from encoders.towers.item_tower import whitening
from features.data import schema
from features.data.dataset import Catalogue, Dataset, IntArray
from features.text.item_text import TextTemplate, render_text
from ranking.assembly import near_recent, text_neighbours
from ranking.bundle.bundle import Bundle, load_bundle
from ranking.bundle.indexes import LENDER_INDEX
from ranking.bundle.store import VERSIONS
from ranking.catalogue.live_catalogue import ItemChange, PreparedItemChanges
from ranking.live.snapshot import LiveVersion
from ranking.live.updates import LiveItems
from ranking.recommender import Recommender
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.limits import Limits
from ranking.scoring.ranker import Ranker
from ranking.sources import SOURCES
from ranking.types import Request
from tests.bundles import TEMPLATE, make_bundle, publish_bundle
from tests.ranking.changes import change, item
from tests.synthetic import EMPTY, described, make_factors, new_rows_of, request_of


def test_a_ranked_bundle_scores_added_items(dataset: Dataset, encoder: TextEncoder) -> None:
    bundle = make_bundle(dataset, encoder)
    bundle.recommender.ranker = Ranker(bundle.recommender.layout.names, [4]).eval()
    live = LiveItems(bundle, 4)
    version = change(live, item("new", "trail boots summit"))
    answer = version.recommender.recommend([request_of(dataset, 0, k=61)])[0]
    scored = {version.catalogue.ids[i.row]: i for i in answer.items}
    assert 0.0 < scored["new"].p_purchase < 1.0


def propose(version: LiveVersion, dataset: Dataset, users: int = 12) -> dict[str, IntArray]:
    """Ask every source for some users, one of them with words."""
    recommender = version.recommender.recommender
    batch = recommender.histories([request_of(dataset, user) for user in range(users)])
    limits = Limits(np.zeros(0, np.int64), [None] * users, recommender.hidden)
    said = "trail boots summit"
    intents = [recommender.texts.query(version.encode_queries([said])[0], said)] * users
    return recommender.retrieve(batch, limits, recommender.encode(batch), intents)[1]


def test_an_added_item_has_all_that_an_item_without_events_has(
    dataset: Dataset, encoder: TextEncoder
) -> None:
    """A bundle that lacks an item, to which it is added, against one that was built with it."""
    frame = dataset.catalogue.frame
    columns = ["title", "brand", "price"]
    added = pl.DataFrame(
        {
            "item_id": ["a"], "title": ["trail boots summit"], "brand": ["Acme"], "price": [3.0],
            schema.TEXT: [""],
        }
    ).select(frame.columns)  # fmt: skip
    whole = pl.concat([frame, added])
    whole = whole.with_columns(render_text(whole, TextTemplate.from_info(TEMPLATE)))
    later = replace(dataset, catalogue=Catalogue(whole))
    texts = make_bundle(later, encoder, trained=False).text_vectors
    fitted = make_factors(dataset)
    live = LiveItems(make_bundle(dataset, encoder, trained=False, factors=fitted), 10)
    ours = change(live, ItemChange("a", added.select(columns).row(0, named=True))).recommender.recommender
    units = live.current.bundle.sketch.units(texts)
    near = text_neighbours(units, ours.config.neighbours)
    longer = {name: np.pad(getattr(fitted, name), ((0, 1), (0, 0))) for name in ("vectors", "dual")}
    factors = replace(fitted, **longer).impute(near)
    statistics = make_bundle(later, encoder, trained=False).recommender.arrays.statistics
    assert ours.factors is not None
    assert factors.vectors[60].any()
    np.testing.assert_allclose(ours.factors.vectors[60], factors.vectors[60], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours.factors.dual[60], factors.dual[60], rtol=1e-3, atol=1e-5)
    assert np.shares_memory(ours.factors.vectors, ours.arrays.factor_vectors)
    np.testing.assert_allclose(ours.arrays.text_near_recent, near_recent(near.ids, statistics), rtol=1e-4)
    assert new_rows_of(ours) == [60]

    demand, expected = ours.arrays.statistics.demand, statistics.demand
    for name in ("keys", "totals", "calendar", "first", "present", "previous_day"):
        np.testing.assert_array_equal(getattr(demand, name), getattr(expected, name))
    rows = np.array([[60, 3]], dtype=np.int32)
    for moment in (0, int(dataset.events.time.max()), 4_000_000_000, int(np.median(dataset.events.time))):
        now = np.array([moment], dtype=np.int64)
        np.testing.assert_array_equal(described(demand, rows, now), described(expected, rows, now))


def test_an_added_item_is_proposed_by_its_factors_and_as_a_new_one_and_ranked(
    dataset: Dataset, encoder: TextEncoder
) -> None:
    bundle = make_bundle(dataset, encoder, factors=make_factors(dataset))
    bundle.recommender.ranker = Ranker(bundle.recommender.layout.names, [4]).eval()
    live = LiveItems(bundle, 4)
    version = change(live, item("new", "trail boots summit"))
    found = propose(version, dataset)
    assert (found["new_items"][:, 0] == 60).all()
    assert (found["new_items"][:, 1:] == -1).all()
    assert (found["co_purchase"] == 60).any()
    recommender = version.recommender.recommender
    users = recommender.encode(recommender.histories([request_of(dataset, user) for user in range(12)]))
    scores = users.factors @ recommender.arrays.factor_vectors.T
    for query in range(12):
        assert found["co_purchase"][query].tolist() == np.argsort(-scores[query], kind="stable")[:20].tolist()
    for answer in version.recommender.recommend([request_of(dataset, user, k=61) for user in range(12)]):
        scored = {version.catalogue.ids[i.row]: i for i in answer.items}
        assert 0.0 < scored["new"].p_purchase < 1.0
    # a new text moves it, and a click on it moves its user
    before = recommender.arrays.factor_vectors[60].copy()
    version = change(live, item("new", "guitar drum melody"))
    assert not np.allclose(version.recommender.recommender.arrays.factor_vectors[60], before)
    clicked = replace(
        EMPTY, items=np.array([60], np.int32), kinds=np.zeros(1, np.int8), times=np.zeros(1, np.int64)
    )
    recommender = version.recommender.recommender
    assert recommender.encode(recommender.histories([Request(clicked, now=10, k=5)])).factors.any()


def test_a_changed_text_of_an_item_without_events_moves_its_factors_and_others_keep_theirs(
    dataset: Dataset, encoder: TextEncoder
) -> None:
    quiet = int(dataset.events.item[0])
    kept = dataset.events.item != quiet
    user = dataset.events.user[kept]
    events = replace(
        dataset.events,
        **{name: getattr(dataset.events, name)[kept] for name in ("user", "item", "kind", "time")},
        offsets=np.concatenate([[0], np.cumsum(np.bincount(user, minlength=dataset.events.users))]),
    )
    shop = replace(dataset, events=events)
    near = make_bundle(shop, encoder).recommender.arrays.text_near
    live = LiveItems(make_bundle(shop, encoder, factors=make_factors(shop).impute(near)), 4)
    sold = (quiet + 1) % 60
    before = live.current.recommender.recommender.arrays.factor_vectors.copy()
    changes = [item(live.current.catalogue.ids[row], "guitar drum melody") for row in (quiet, sold)]
    version = change(live, *changes)
    after = version.recommender.recommender.arrays.factor_vectors
    assert np.flatnonzero((after != before).any(axis=1)).tolist() == [quiet]
    assert new_rows_of(version.recommender.recommender) == [quiet]
    index = version.recommender.recommender.indexes.factors
    assert index is not None
    rows, scores = index.search(after[[quiet]], 60)
    np.testing.assert_allclose(scores[0], after[rows[0]] @ after[quiet], atol=1e-5)
    assert quiet in rows[0]


def test_a_deleted_row_is_in_no_source(dataset: Dataset, encoder: TextEncoder) -> None:
    live = LiveItems(make_bundle(dataset, encoder, factors=make_factors(dataset)), 10)
    version = change(live, *(item(f"n{n}", "trail boots summit") for n in range(3)))
    ids = version.catalogue.ids
    found = propose(version, dataset)
    assert set(found) == set(SOURCES.names)
    best = {int(rows[rows >= 0][0]) for rows in found.values()}
    gone = {60, 62, *best, *range(0, 60, 4)}
    version = change(live, *(ItemChange(ids[row], None) for row in sorted(gone)))
    after = propose(version, dataset)
    for name in SOURCES.names:
        assert not gone & set(after[name].ravel().tolist()), name
        assert (after[name] >= 0).any() or name == "new_items", name
    assert new_rows_of(version.recommender.recommender) == sorted({60, 61, 62} - gone)
    back = item("n0", "trail boots summit")
    version = change(live, back)
    assert 60 in new_rows_of(version.recommender.recommender)
    assert (propose(version, dataset)["new_items"] == 60).any()


def test_no_state_works_out_again_what_concerns_the_whole_catalogue(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveItems(make_bundle(dataset, encoder, factors=make_factors(dataset)), 4)

    def never(*_: object) -> None:
        raise AssertionError("worked out again")

    monkeypatch.setattr("features.data.demand.Demand._catalogue", never)
    monkeypatch.setattr(VectorIndex, "build", never)
    monkeypatch.setattr("ranking.retrieval.source_indexes.popularity_order", never)
    version = change(live, item("new", "trail boots summit"), ItemChange("i3", None))
    request = request_of(dataset, 0, k=61)
    bundle = version.recommender.recommender
    bundle.ranker = Ranker(bundle.layout.names, [4]).eval()
    moments = [request, replace(request, now=int(dataset.events.time.max()))]
    assert all(version.recommender.recommend([asked])[0].items for asked in moments)


def test_a_large_catalogue_has_an_index_of_those_who_lend_factors(
    dataset: Dataset, encoder: TextEncoder, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_bundle(dataset, encoder, factors=make_factors(dataset))
    mean, matrix = whitening(made.text_vectors)
    affinity = Affinity(matrix, -mean @ matrix)
    known = made.recommender
    arrays = replace(known.arrays, affinity_units=affinity.units(made.text_vectors))
    recommender = Recommender(
        arrays, known.index, made.text_vectors, known.config, known.click_kinds, known.towers, None,
        known.factors, affinity,
    )  # fmt: skip
    monkeypatch.setattr("ranking.retrieval.faiss_index.FLAT_LIMIT", 1000)
    version = publish_bundle(tmp_path, replace(made, recommender=recommender), bert)
    assert (tmp_path / VERSIONS / version / LENDER_INDEX).is_file()

    def plan(bundle: Bundle) -> PreparedItemChanges:
        live = LiveItems(bundle, 10)
        change(live, item(dataset.catalogue.ids[5], "guitar drum melody"))  # lends by its new text
        return live.plan([item("new", "trail boots summit"), item("other", "guitar drum")])

    loaded = load_bundle(tmp_path)
    assert loaded.lender_index is not None
    found, wanted = plan(loaded).lenders, plan(replace(load_bundle(tmp_path), lender_index=None)).lenders
    assert found is not None
    assert wanted is not None
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-6)
    assert 5 in found.ids[1]
