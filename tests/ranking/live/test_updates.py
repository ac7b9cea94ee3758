"""Items that change while a bundle is served: lists, neighbours, filters, and the texts that are encoded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from conf.schema import IndexConfig
from encoders.text.text_encoder import TextEncoder
from features.data import schema
from features.data.dataset import Catalogue, Dataset, FloatArray
from features.text.item_text import TextTemplate, render_text
from ranking.bundle.bundle import Bundle
from ranking.catalogue.filter_language import MaskCache
from ranking.catalogue.live_catalogue import ItemChange, TextVector
from ranking.live.snapshot import LiveVersion
from ranking.live.updates import LiveItems
from ranking.retrieval.faiss_index import VectorIndex
from ranking.types import Request
from tests.bundles import TEMPLATE, make_bundle
from tests.ranking.changes import change, item
from tests.synthetic import EMPTY, request_of


@pytest.fixture
def bundle(dataset: Dataset, encoder: TextEncoder) -> Bundle:
    """A bundle with untrained towers, made in memory."""
    return make_bundle(dataset, encoder)


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
    assert towers is not None
    assert truth.recommender.towers is not None
    # the same towers: those of the later items know them by text alone
    theirs = truth.recommender.towers.item_tower
    assert theirs.residual is not None
    assert towers.item_tower.residual is not None
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
    index = VectorIndex.build(theirs_vectors, IndexConfig())
    queries = np.random.default_rng(1).normal(size=(8, theirs_vectors.shape[1])).astype(np.float32)
    for allowed in (None, np.arange(63) % 2 == 0, np.arange(63) >= 58):
        wanted, scores = index.search(queries, 12, allowed)
        found, ours_scores = version.recommender.recommender.index.search(queries, 12, allowed)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_allclose(ours_scores, scores, atol=1e-5)
    texts = truth.recommender.text_vectors
    wanted, _ = VectorIndex.build(texts, IndexConfig()).search(texts[[7, 61]], 10)
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
        assert len(set(ids.tolist())) == len(ids)
        assert row not in ids
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
    assert live.current.catalogue.row("i7") == 7
    assert live.current.catalogue.is_hidden(7)
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
    assert early.catalogue.row("n0") is None
    assert len(early.catalogue) == 60
    assert live.current.catalogue.row("n4") == 64
    for answer, request in zip(early.recommender.recommend(requests), requests, strict=True):
        rows = {i.row for i in answer.items}
        assert len(rows) == len(answer.items) == (60 if request.allowed is None else 59)
        assert 3 not in rows
        assert request.allowed is None or max(rows) < 60


def test_a_closed_model_serves_no_more(bundle: Bundle) -> None:
    live = LiveItems(bundle, 8)
    assert live.works
    live.close()
    assert not live.works  # a server that stops waits for this


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
