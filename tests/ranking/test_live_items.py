"""Items that change while a bundle is served: against a bundle built anew from the changed tables."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conf.schema import IndexConfig
from encoders.affinity import Affinity
from encoders.item_tower import whitening
from encoders.text_encoder import TextEncoder
from features import schema
from features.candidates import SOURCES
from features.dataset import Catalogue, Dataset, FloatArray, IntArray
from features.text import TextTemplate, render_text
from ranking.assemble import near_recent, text_neighbours
from ranking.bundle import LENDER_INDEX, Bundle, load_bundle
from ranking.filters import MaskCache
from ranking.index import VectorIndex
from ranking.item_values import overlay_schema, typed_values
from ranking.live_catalogue import ItemChange, ItemPlan, TextVector
from ranking.live_items import LiveItems, LiveVersion
from ranking.ranker import Ranker
from ranking.recommender import Recommender
from ranking.requests import Request
from ranking.sources import Limits
from ranking.store import VERSIONS
from tests.bundles import TEMPLATE, make_bundle, publish_bundle
from tests.synthetic import EMPTY, described, make_factors, new_rows_of, request_of


@pytest.fixture
def bundle(dataset: Dataset, encoder: TextEncoder) -> Bundle:
    """A bundle with untrained towers, made in memory."""
    return make_bundle(dataset, encoder)


def change(live: LiveItems, *changes: ItemChange) -> LiveVersion:
    """Plan and apply, as serving does."""
    return live.apply(live.plan(changes))


def item(item_id: str, title: str, brand: str = "Acme", price: float = 9.0) -> ItemChange:
    return ItemChange(item_id, {"title": title, "brand": brand, "price": price})


def listed(version: LiveVersion, request: Request) -> list[str]:
    return [version.catalogue.ids[i.row] for i in version.recommender.recommend([request])[0].items]


def nearest(version: LiveVersion, text: str, k: int = 5) -> list[str]:
    rows, _ = version.recommender.similar(version.encode_items([text]), k, np.zeros(0, dtype=np.int32))
    return [version.catalogue.ids[r] for r in rows[0] if r >= 0]


def test_nothing_changes_without_a_change(bundle: Bundle, dataset: Dataset) -> None:
    requests = [request_of(dataset, user) for user in range(12)]
    before = bundle.recommender.recommend(requests)
    assert repr(LiveItems(bundle, 10).current.recommender.recommend(requests)) == repr(before)


def test_an_added_item_is_found_by_its_words_and_recommended(bundle: Bundle, dataset: Dataset) -> None:
    live = LiveItems(bundle, 10)
    version = change(live, item("new", "trail boots summit", "Borealis"))
    assert nearest(version, "trail boots summit. Brand: Borealis")[0] == "new"
    assert "new" not in nearest(version, "guitar drum melody")
    assert len(version.catalogue) == len(dataset.catalogue) + 1
    everyone = [request_of(dataset, user, k=61) for user in range(12)]
    for answer in version.recommender.recommend(everyone):
        assert len({i.row for i in answer.items}) == 61
    # who has just bought it is offered it again, and things that read like it
    row = version.catalogue.row("new")
    assert row == 60
    history = replace(
        EMPTY, items=np.array([row], np.int32), kinds=np.zeros(1, np.int8), times=np.zeros(1, np.int64)
    )
    answer = version.recommender.recommend([Request(history, now=10, k=60)])[0]
    sources = {version.catalogue.ids[i.row]: i.source for i in answer.items}
    assert sources["new"] in ("user_vector", "repeat")


def test_changed_tables_give_what_a_rebuilt_bundle_gives(dataset: Dataset, encoder: TextEncoder) -> None:
    """The overlay against the truth: a catalogue that had the changes from the beginning."""
    frame = dataset.catalogue.frame
    titles = ["compass canteen pole", "violet pan whisk", "rattle lullaby crib"]
    added = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"], "title": titles, "brand": ["Acme", "Cobalt", "Acme"],
            "price": [3.0, 4.0, 5.0], schema.TEXT: [""] * 3,
        }
    ).select(frame.columns)  # fmt: skip
    moved = frame.with_columns(
        title=pl.when(pl.col("item_id") == "i7").then(pl.lit("paper pen desk")).otherwise(pl.col("title"))
    )
    whole = pl.concat([moved, added])
    whole = whole.with_columns(render_text(whole, TextTemplate.from_info(TEMPLATE)))
    truth = make_bundle(replace(dataset, catalogue=Catalogue(whole)), encoder)
    base = make_bundle(dataset, encoder)
    towers = base.recommender.towers
    assert towers is not None and truth.recommender.towers is not None
    # the same towers: those of the later items know them by text alone
    theirs = truth.recommender.towers.item_tower
    assert theirs.residual is not None and towers.item_tower.residual is not None
    theirs.load_state_dict(
        {
            **theirs.state_dict(),
            **{
                k: v for k, v in towers.item_tower.state_dict().items() if "residual" not in k and k != "seen"
            },
        }
    )
    theirs.residual.weight.data[:60] = towers.item_tower.residual.weight.data
    theirs.seen[60:] = False
    truth.recommender.towers.user_encoder.load_state_dict(towers.user_encoder.state_dict())
    expected = theirs_vectors = truth.recommender.towers.item_vectors(truth.recommender.text_vectors)

    live = LiveItems(base, 10)
    change(live, item("a", titles[0], "Acme", 3.0), item("b", titles[1], "Cobalt", 4.0))
    row = frame.filter(pl.col("item_id") == "i7").row(0, named=True)
    change(live, ItemChange("i7", {"title": "paper pen desk", "brand": row["brand"], "price": row["price"]}))
    version = change(live, item("c", titles[2], "Acme", 5.0))
    ours = version.recommender.recommender.arrays
    np.testing.assert_allclose(version.text_vectors, truth.recommender.text_vectors, atol=1e-5)
    np.testing.assert_allclose(ours.item_vectors, expected, atol=1e-5)
    statistics, there = ours.statistics, truth.recommender.arrays.statistics
    np.testing.assert_allclose(statistics.log_price, there.log_price, rtol=1e-6)
    np.testing.assert_array_equal(statistics.attributes, there.attributes)
    np.testing.assert_array_equal(statistics.count, there.count)
    # every item has events here, so what one without them would have is not known exactly
    np.testing.assert_allclose(statistics.repeat_rate[60:], there.repeat_rate[60:], atol=0.05)

    # each source on the truth's vectors and on the overlay proposes the same rows
    index = VectorIndex.build(theirs_vectors, IndexConfig(gpu=False))
    queries = np.random.default_rng(1).normal(size=(8, theirs_vectors.shape[1])).astype(np.float32)
    for allowed in (None, np.arange(63) % 2 == 0, np.arange(63) >= 58):
        wanted, scores = index.search(queries, 12, allowed)
        found, ours_scores = version.recommender.recommender.index.search(queries, 12, allowed)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_allclose(ours_scores, scores, atol=1e-5)
    texts = truth.recommender.text_vectors
    wanted, _ = VectorIndex.build(texts, IndexConfig(gpu=False)).search(texts[[7, 61]], 10)
    found, _ = version.recommender.recommender.text_index.search(texts[[7, 61]], 10)
    np.testing.assert_array_equal(found, wanted)


def test_neighbour_lists_hold_the_nearest_texts_in_both_directions(bundle: Bundle) -> None:
    live = LiveItems(bundle, 10)
    for number, title in enumerate(("trail boots summit", "boots tent ridge", "rose soil hedge")):
        version = change(live, item(f"n{number}", title))
    arrays = version.recommender.recommender.arrays
    cosines = arrays.text_units @ arrays.text_units.T
    np.fill_diagonal(cosines, -2.0)
    near = arrays.text_near
    for row in range(63):
        ids = near.ids[row][near.ids[row] >= 0]
        np.testing.assert_allclose(near.weights[row][: len(ids)], np.maximum(cosines[row][ids], 0), atol=1e-5)
        assert (np.diff(near.weights[row]) <= 0).all()
        assert len(set(ids.tolist())) == len(ids) and row not in ids
    for row in range(60, 63):
        best = int(cosines[row].argmax())
        assert near.ids[row][0] == best
        assert row in near.ids[best]


@pytest.mark.parametrize("trained", [True, False])
def test_deleted_items_are_absent_from_every_source(
    dataset: Dataset, encoder: TextEncoder, trained: bool
) -> None:
    live = LiveItems(make_bundle(dataset, encoder, trained=trained), 10)
    change(live, item("new", "trail boots summit"))
    requests = [request_of(dataset, user, k=61) for user in range(12)]
    requests += [replace(requests[0], intent=live.current.encode_queries(["trail boots summit"])[0])]
    requests += [replace(r, allowed=np.arange(61) % 2 == 0) for r in requests]
    lists = [[i.row for i in a.items] for a in live.current.recommender.recommend(requests)]
    gone = {60, *(rows[0] for rows in lists if rows), *range(0, 40, 3)}
    ids = live.current.catalogue.ids
    version = change(live, *(ItemChange(ids[row], None) for row in sorted(gone)))
    assert version.catalogue.alive_count == 61 - len(gone)
    for rows, answer in zip(lists, version.recommender.recommend(requests), strict=True):
        assert {i.row for i in answer.items} == set(rows) - gone
    assert not {ids[row] for row in gone} & set(nearest(version, "trail boots summit. Brand: Acme", k=61))
    assert len(nearest(version, "trail boots summit. Brand: Acme", k=61)) == 61 - len(gone)


def test_a_deleted_item_that_comes_back_has_its_row_its_past_and_its_place(
    bundle: Bundle, dataset: Dataset
) -> None:
    requests = [request_of(dataset, user) for user in range(12)]
    before = bundle.recommender.recommend(requests)
    live = LiveItems(bundle, 10)
    row = dataset.catalogue.frame.filter(pl.col("item_id") == "i7").row(0, named=True)
    same = ItemChange("i7", {name: row[name] for name in ("title", "brand", "price")})
    change(live, ItemChange("i7", None))
    assert live.current.catalogue.row("i7") == 7 and live.current.catalogue.is_hidden(7)
    assert live.plan([same]).encode == []  # the text is the bundle's: nothing to encode
    version = change(live, same)
    assert repr(version.recommender.recommend(requests)) == repr(before)


def test_a_request_of_an_earlier_state_is_answered_while_rows_are_added(
    bundle: Bundle, dataset: Dataset
) -> None:
    live, masks = LiveItems(bundle, 10), MaskCache()
    early = live.current
    mask = early.catalogue.mask(masks, "v1", "price > 0")
    requests = [request_of(dataset, user, k=60) for user in range(12)]
    requests += [replace(r, allowed=mask) for r in requests]
    change(live, *(item(f"n{n}", "guitar drum melody") for n in range(5)), ItemChange("i3", None))
    assert early.catalogue.row("n0") is None and len(early.catalogue) == 60
    assert live.current.catalogue.row("n4") == 64
    for answer, request in zip(early.recommender.recommend(requests), requests, strict=True):
        rows = {i.row for i in answer.items}
        assert len(rows) == len(answer.items) == (60 if request.allowed is None else 59)
        assert 3 not in rows
        assert request.allowed is None or max(rows) < 60


def test_the_room_for_added_items_is_kept(bundle: Bundle) -> None:
    live = LiveItems(bundle, 2)
    version = change(live, *(item(f"n{n}", f"guitar no{n}") for n in range(4)))
    assert [version.catalogue.row(f"n{n}") for n in range(4)] == [60, 61, None, None]
    assert change(live, item("n1", "violin")).catalogue.text(61) == "violin. Brand: Acme"


def test_filters_follow_changes(bundle: Bundle) -> None:
    live, masks = LiveItems(bundle, 10), MaskCache()
    expression = 'brand = "Cobalt" AND price < 5'

    def passing(version: LiveVersion) -> set[str]:
        mask = version.catalogue.mask(masks, "v1", expression)
        assert version.catalogue.mask(masks, "v1", expression) is mask
        return {version.catalogue.ids[r] for r in np.flatnonzero(mask).tolist()}

    base = passing(live.current)
    other = next(i for i in bundle.catalogue.ids if i not in base)
    new = passing(change(live, item("new", "guitar", "Cobalt", 4.5), item(other, "drum", "Cobalt", 1.0)))
    assert new == base | {"new", other}
    later = passing(change(live, item("new", "guitar", "Cobalt", 5.5)))
    assert later == base | {other}
    for n in range(300):  # superseded contents are forgotten
        version = change(live, item("new", "guitar", "Cobalt", 1.0 + n % 2 * 9))
    assert passing(version) == base | {other}
    assert len(version.catalogue._changed) < 100


def test_a_shop_without_history_counts_events_towards_added_items(
    dataset: Dataset, encoder: TextEncoder
) -> None:
    live = LiveItems(make_bundle(dataset, encoder, trained=False), 10)
    change(live, item("new", "guitar"))
    counts = np.zeros(61, dtype=np.float32)
    counts[[60, 5]] = 3, 2
    live.observe_popularity(counts)
    nobody = Request(EMPTY, now=1, k=3)
    assert listed(live.current, nobody) == ["new", "i5", "i0"]
    version = change(live, item("newer", "drum"), ItemChange("new", None))
    assert listed(version, nobody) == ["i5", "i0", "i1"]


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"titel": "x"}, "unknown attribute 'titel'; did you mean 'title'?"),
        ({"title": 3.0}, "attribute 'title': expected text"),
        ({"price": "cheap"}, "attribute 'price': expected a number"),
        ({"price": True}, "attribute 'price': expected a number"),
        ({"price": float("nan")}, "attribute 'price': expected a number"),
        ({"stock": 1.5}, "attribute 'stock': expected a whole number"),
        ({"stock": 1e300}, "attribute 'stock': expected a whole number from"),
        ({"new": "yes"}, "attribute 'new': expected true or false"),
        ({"tags": "sale"}, "attribute 'tags': expected a list"),
        ({"tags": [1.0]}, "attribute 'tags': expected text"),
        ({"since": "yesterday"}, "attribute 'since': expected an ISO date"),
        ({"item_text": "x"}, "unknown attribute 'item_text'"),
    ],
)
def test_values_that_do_not_fit_are_named(attributes: dict[str, object], says: str) -> None:
    values, faults = typed(attributes)
    assert len(faults) == 1 and faults[0].startswith(says)
    assert set(values.values()) == {None}


def test_values_are_brought_to_the_columns_types() -> None:
    given = {
        "title": "Boots", "price": 3.0, "stock": 4.0, "new": True, "tags": ["a"], "colour": None,
        "since": "2024-05-31T12:00:00+02:00",
    }  # fmt: skip
    values, faults = typed(given)
    assert faults == []
    assert (values["stock"], type(values["stock"])) == (4, int)
    assert str(values["since"]) == "2024-05-31 10:00:00"
    assert values["colour"] is None


def typed(attributes: dict[str, object]) -> tuple[dict[str, object], list[str]]:
    columns: dict[str, Any] = {
        "item_id": pl.String, "item_text": pl.String, "title": pl.String, "colour": pl.Categorical(),
        "price": pl.Float32, "stock": pl.Int64, "new": pl.Boolean, "tags": pl.List(pl.String),
        "since": pl.Datetime("ns", "UTC"),
    }  # fmt: skip
    return typed_values(attributes, overlay_schema(pl.Schema(columns)))


def test_a_ranked_bundle_scores_added_items(dataset: Dataset, encoder: TextEncoder) -> None:
    bundle = make_bundle(dataset, encoder)
    names = _feature_count(bundle.recommender)
    bundle.recommender.ranker = Ranker([f"f{n}" for n in range(names)], [4]).eval()
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
    intents = np.repeat(version.encode_queries(["trail boots summit"]), users, axis=0)
    return recommender.sources.propose(
        batch, recommender.encode(batch), limits, intents, recommender.text_index
    )[0]


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
    factors = replace(fitted, **longer).lend(near)
    statistics = make_bundle(later, encoder, trained=False).recommender.arrays.statistics
    assert ours.factors is not None and factors.vectors[60].any()
    np.testing.assert_allclose(ours.factors.vectors[60], factors.vectors[60], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours.factors.dual[60], factors.dual[60], rtol=1e-3, atol=1e-5)
    assert np.shares_memory(ours.factors.vectors, ours.arrays.factor_vectors)
    np.testing.assert_allclose(ours.arrays.text_near_recent, near_recent(near.ids, statistics), rtol=1e-4)
    assert new_rows_of(ours.sources) == [60]

    demand, expected = ours.arrays.statistics.demand, statistics.demand
    for name in ("keys", "totals", "calendar", "first", "present", "eve"):
        np.testing.assert_array_equal(getattr(demand, name), getattr(expected, name))
    rows = np.array([[60, 3]], dtype=np.int32)
    for moment in (0, int(dataset.events.time.max()), 4_000_000_000, int(np.median(dataset.events.time))):
        now = np.array([moment], dtype=np.int64)
        np.testing.assert_array_equal(described(demand, rows, now), described(expected, rows, now))


def test_an_added_item_is_proposed_by_its_factors_and_as_a_new_one_and_ranked(
    dataset: Dataset, encoder: TextEncoder
) -> None:
    bundle = make_bundle(dataset, encoder, factors=make_factors(dataset))
    bundle.recommender.ranker = Ranker(
        [f"f{n}" for n in range(_feature_count(bundle.recommender))], [4]
    ).eval()
    live = LiveItems(bundle, 4)
    version = change(live, item("new", "trail boots summit"))
    found = propose(version, dataset)
    assert (found["new_items"][:, 0] == 60).all() and (found["new_items"][:, 1:] == -1).all()
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
    live = LiveItems(make_bundle(shop, encoder, factors=make_factors(shop).lend(near)), 4)
    sold = (quiet + 1) % 60
    before = live.current.recommender.recommender.arrays.factor_vectors.copy()
    changes = [item(live.current.catalogue.ids[row], "guitar drum melody") for row in (quiet, sold)]
    version = change(live, *changes)
    after = version.recommender.recommender.arrays.factor_vectors
    assert np.flatnonzero((after != before).any(axis=1)).tolist() == [quiet]
    assert new_rows_of(version.recommender.recommender.sources) == [quiet]
    index = version.recommender.recommender.sources.factor_index
    assert index is not None
    rows, scores = index.search(after[[quiet]], 60)
    np.testing.assert_allclose(scores[0], after[rows[0]] @ after[quiet], atol=1e-5)
    assert quiet in rows[0]


def test_a_deleted_row_is_in_no_source(dataset: Dataset, encoder: TextEncoder) -> None:
    live = LiveItems(make_bundle(dataset, encoder, factors=make_factors(dataset)), 10)
    version = change(live, *(item(f"n{n}", "trail boots summit") for n in range(3)))
    ids = version.catalogue.ids
    found = propose(version, dataset)
    assert set(found) == set(SOURCES)
    best = {int(rows[rows >= 0][0]) for rows in found.values()}
    gone = {60, 62, *best, *range(0, 60, 4)}
    version = change(live, *(ItemChange(ids[row], None) for row in sorted(gone)))
    after = propose(version, dataset)
    for name in SOURCES:
        assert not gone & set(after[name].ravel().tolist()), name
        assert (after[name] >= 0).any() or name == "new_items", name
    assert new_rows_of(version.recommender.recommender.sources) == sorted({60, 61, 62} - gone)
    back = item("n0", "trail boots summit")
    version = change(live, back)
    assert 60 in new_rows_of(version.recommender.recommender.sources)
    assert (propose(version, dataset)["new_items"] == 60).any()


def test_no_state_works_out_again_what_concerns_the_whole_catalogue(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveItems(make_bundle(dataset, encoder, factors=make_factors(dataset)), 4)

    def never(*_: object) -> None:
        raise AssertionError("worked out again")

    monkeypatch.setattr("features.demand.Demand._catalogue", never)
    monkeypatch.setattr(VectorIndex, "build", never)
    monkeypatch.setattr("ranking.sources.popularity_order", never)
    version = change(live, item("new", "trail boots summit"), ItemChange("i3", None))
    request = request_of(dataset, 0, k=61)
    bundle = version.recommender.recommender
    bundle.ranker = Ranker([f"f{n}" for n in range(_feature_count(bundle))], [4]).eval()
    moments = [request, replace(request, now=int(dataset.events.time.max()))]
    assert all(version.recommender.recommend([asked])[0].items for asked in moments)


def _feature_count(recommender: Recommender) -> int:
    from features.candidates import feature_names

    return len(feature_names(recommender.arrays.statistics.attributes.shape[1]))


def test_texts_that_the_same_encoder_has_read_are_not_encoded_again(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bundle_of(sha256: str) -> Bundle:
        made = make_bundle(dataset, encoder)
        files = {"text_encoder/model.safetensors": {"sha256": sha256}, "index.faiss": {"sha256": sha256 * 2}}
        return replace(made, manifest={**made.manifest, "files": files})

    encoded: list[str] = []
    usual = Bundle.encode_items

    def encode(self: Bundle, texts: list[str]) -> FloatArray:
        encoded.extend(texts)
        return usual(self, texts)

    monkeypatch.setattr(Bundle, "encode_items", encode)
    boots, hat = item("n1", "violet boots"), item("n2", "red hat")
    former = LiveItems(bundle_of("a"), 10)
    plan = former.plan([boots, hat])
    former.apply(plan)
    assert [*plan.fresh] == ["n1", "n2"]
    known = former.current.text_vectors[former.current.catalogue.rows(["n1", "n2"])]
    kept = [replace(change, encoded=plan.fresh[change.item_id]) for change in (boots, hat)]
    damaged = TextVector(plan.fresh["n1"].key, plan.fresh["n1"].values[:-4])
    for sha256, changes, again in (
        ("a", kept, []),
        ("b", kept, ["n1", "n2"]),  # another encoder
        ("a", [replace(kept[0], attributes={"title": "violet shoes"}), kept[1]], ["n1"]),  # another text
        ("a", [replace(boots, encoded=damaged), kept[1]], ["n1"]),
        ("a", [boots, kept[1]], ["n1"]),
    ):
        live = LiveItems(bundle_of(sha256), 10)
        encoded.clear()
        plan = live.plan(changes)
        assert [*plan.fresh] == again
        assert len(encoded) == len(again)
        version = live.apply(plan)
        rows = version.catalogue.rows(["n2"])
        np.testing.assert_allclose(version.text_vectors[rows], known[1:], atol=1e-6)


def test_nothing_is_kept_of_an_encoder_that_is_not_known(dataset: Dataset, encoder: TextEncoder) -> None:
    live = LiveItems(make_bundle(dataset, encoder), 10)
    assert live.plan([item("n1", "violet boots")]).fresh == {}


def test_texts_are_encoded_while_others_are(dataset: Dataset, encoder: TextEncoder) -> None:
    bundle = make_bundle(dataset, encoder)
    texts = [f"{'boots ' * (n % 9)}number {n}" for n in range(40)]
    expected = bundle.encode_items(texts)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: bundle.encode_items(texts[n : n + 1 + n % 3]), [*range(40)] * 8))
    for n, vectors in zip([*range(40)] * 8, found, strict=True):
        np.testing.assert_allclose(vectors, expected[n : n + 1 + n % 3], atol=1e-5)


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
    monkeypatch.setattr("ranking.index.FLAT_LIMIT", 1000)
    version = publish_bundle(tmp_path, replace(made, recommender=recommender), bert)
    assert (tmp_path / VERSIONS / version / LENDER_INDEX).is_file()

    def plan(bundle: Bundle) -> ItemPlan:
        live = LiveItems(bundle, 10)
        change(live, item(dataset.catalogue.ids[5], "guitar drum melody"))  # lends by its new text
        return live.plan([item("new", "trail boots summit"), item("other", "guitar drum")])

    loaded = load_bundle(tmp_path)
    assert loaded.lender_index is not None
    found, wanted = plan(loaded).lenders, plan(replace(load_bundle(tmp_path), lender_index=None)).lenders
    assert found is not None and wanted is not None
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-6)
    assert 5 in found.ids[1]
