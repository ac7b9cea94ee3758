from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from conf.errors import InputError
from conf.schema import PipelineConfig
from features.text.item_text import TextTemplate
from ranking.bundle.bundle import Bundle, load_bundle
from ranking.catalogue.live_catalogue import ItemChange
from ranking.insight.new_product import (
    NO_HISTORY,
    Audience,
    NewProducts,
    Place,
    Shopper,
    free_id,
    named_fields,
    sample,
    written_values,
)
from ranking.live.updates import LiveItems
from ranking.types import History, Request
from tests.synthetic import TOPICS

NOW = 1_800_000_000
BOOTS = {"title": "summit boots compass no900", "brand": "Acme", "price": 12.5}
PAN = {"title": "skillet whisk ladle no901", "brand": "Cobalt", "price": 9.0}


def _bundle(trained: PipelineConfig) -> Bundle:
    return load_bundle(Path(trained.work_dir) / "artifacts")


@pytest.fixture(scope="module")
def products(trained: PipelineConfig) -> NewProducts:
    return NewProducts(_bundle(trained), NOW)


def topic_shoppers(bundle: Bundle, topic: str, count: int = 6) -> list[Shopper]:
    """Shoppers who have bought some items of one topic of the synthetic shop."""
    place = list(TOPICS).index(topic)
    rows = [r for r, item in enumerate(bundle.catalogue.ids) if int(item[1:]) % len(TOPICS) == place]
    kind = bundle.kinds.index("purchase")
    shoppers = []
    for start in range(count):
        items = np.array(rows[start : start + 4], dtype=np.int32)
        times = NOW - 86_400 * np.arange(len(items), 0, -1, dtype=np.int64)
        history = History(items, np.full(len(items), kind, dtype=np.int8), times)
        shoppers.append(Shopper(f"{topic}-{start}", history))
    return shoppers


def test_it_is_added_exactly_as_a_server_adds_an_item(products: NewProducts, trained: PipelineConfig) -> None:
    product = products.add(BOOTS)
    live = LiveItems(_bundle(trained), room=100)
    served = live.apply(live.plan([ItemChange("new-product-1", BOOTS)]))
    shoppers = topic_shoppers(products.bundle, "hiking")
    requests = [Request(s.history, NOW, k=20) for s in shoppers]
    assert product.model.recommender.recommend(requests) == served.recommender.recommend(requests)
    assert product.row == served.catalogue.row("new-product-1") == len(products.bundle.catalogue)
    assert product.text == "summit boots compass no900. Brand: Acme"


def test_former_products_leave_no_trace(products: NewProducts, trained: PipelineConfig) -> None:
    first = NewProducts(_bundle(trained), NOW).add(PAN)
    for attributes in (BOOTS, {**PAN, "title": "skillet"}, BOOTS):
        products.add(attributes)
    again = products.add(PAN)
    shoppers = topic_shoppers(products.bundle, "kitchen")
    assert again.audience(shoppers, 30) == first.audience(shoppers, 30)
    assert again.by_meaning(60) == first.by_meaning(60)
    assert again.by_words(60) == first.by_words(60)


def test_nearest_by_meaning_are_the_largest_cosines(products: NewProducts) -> None:
    product = products.add(BOOTS)
    cosines = products.bundle.text_vectors @ product.vector
    best = np.argsort(-cosines, kind="stable")[:5]
    near = product.by_meaning(5)
    assert [item.row for item in near] == best.tolist()
    assert [item.score for item in near] == pytest.approx(cosines[best].tolist(), abs=1e-5)


def test_nearest_by_words_share_its_words(products: NewProducts) -> None:
    product = products.add(BOOTS)
    own = {"summit", "boots", "compass", "acme"}
    texts = products.bundle.catalogue.texts
    near = product.by_words(5)
    assert len(near) == 5
    assert product.row not in [item.row for item in near]
    assert all(own & set(texts[item.row].lower().replace(":", "").split()) for item in near)
    assert [item.score for item in near] == sorted((item.score for item in near), reverse=True)
    assert products.add({"title": "zzzz"}).by_words(5) == []


def test_a_search_for_its_title_finds_it_first(products: NewProducts) -> None:
    product = products.add(BOOTS)
    assert product.place_in_search("summit boots compass no900", 20) == 1
    assert product.place_in_search("vinyl", 3) is None


def test_its_place_beside_an_item_is_that_of_its_cosine(products: NewProducts) -> None:
    product = products.add(BOOTS)
    vectors = np.vstack([products.bundle.text_vectors, product.vector])
    near = [item.row for item in product.by_meaning(3)]
    expected = []
    for row in near:
        cosines = vectors @ vectors[row]
        cosines[row] = -np.inf
        expected.append(int((cosines > cosines[product.row]).sum()) + 1)
    assert product.places_beside(near, 60) == expected
    assert product.places_beside(near, 0) == [None] * 3


def test_the_audience_counts_the_lists_that_contain_it(products: NewProducts) -> None:
    product = products.add(BOOTS)
    hikers, cooks = (topic_shoppers(products.bundle, topic) for topic in ("hiking", "kitchen"))
    done: list[int] = []
    audience = product.audience([*hikers, *cooks], 20, done.append)
    rows = {
        s.user_id: [
            item.row for item in product.model.recommender.recommend([Request(s.history, NOW, k=20)])[0].items
        ]
        for s in (*hikers, *cooks)
    }
    expected = {user: found.index(product.row) + 1 for user, found in rows.items() if product.row in found}
    assert {place.user_id: place.place for place in audience.places} == expected
    assert audience.within(10) == sum(place <= 10 for place in expected.values())
    assert audience.lists == len(hikers) + len(cooks)
    assert done == [audience.lists]
    assert [p.place for p in audience.places] == sorted(expected.values())
    assert any(place.user_id.startswith("hiking") for place in audience.places)
    assert all(0 <= place.p_purchase <= 1 for place in audience.places)


def test_within_counts_places_up_to_a_depth() -> None:
    places = tuple(Place(f"u{place}", place, 0.0, 0.0) for place in (1, 10, 11))
    audience = Audience(4, 50, places)
    assert [audience.within(depth) for depth in (0, 1, 10, 50)] == [0, 1, 2, 3]


def test_a_visitor_without_history_gets_a_list_too(products: NewProducts) -> None:
    assert products.add(BOOTS).audience([Shopper("", NO_HISTORY)]).lists == 1


def test_html_other_scripts_and_long_texts(products: NewProducts) -> None:
    plain = products.add({"title": "trail boots"})
    marked = products.add({"title": "<b>trail</b>&nbsp;<script>alert(1)</script>boots"})
    assert marked.text == plain.text == "trail boots"
    assert np.array_equal(marked.vector, plain.vector)
    foreign = products.add({"title": "ハイキング ブーツ"})
    assert foreign.reading.unknown > 0
    assert np.isfinite(foreign.vector).all()
    long = products.add({"title": "boots " * 5000})
    assert len(long.text) <= 1000
    assert long.reading.limit == 16
    assert long.reading.tokens == 168


@pytest.mark.parametrize("title", ["", "   ", "<p> </p>", "&nbsp;"])
def test_without_text_it_is_refused(products: NewProducts, title: str) -> None:
    with pytest.raises(InputError, match="no text to read; type a title or brand"):
        products.add({"title": title})


def test_unknown_attributes_are_refused(products: NewProducts) -> None:
    with pytest.raises(InputError, match="unknown attribute 'titel'; did you mean 'title'"):
        products.add({"titel": "boots"})


def test_typed_text_becomes_values(products: NewProducts) -> None:
    assert products.values({"title": " boots ", "brand": "", "price": "4.95"}) == {
        "title": "boots", "price": 4.95,
    }  # fmt: skip
    with pytest.raises(InputError, match="price: 'cheap' is not a number; type for example 4.95"):
        products.values({"price": "cheap"})
    with pytest.raises(InputError, match="price"):
        products.values({"price": "nan"})
    with pytest.raises(InputError, match="did you mean 'brand'"):
        products.values({"brnd": "Acme"})


def test_lists_and_flags_are_read(products: NewProducts) -> None:
    frame = products.bundle.catalogue.frame.with_columns(tags=None, new=None).cast(
        {"tags": pl.List(pl.String), "new": pl.Boolean}
    )
    catalogue = type(products.bundle.catalogue)(frame)
    bundle = replace(products.bundle, catalogue=catalogue)
    assert written_values({"tags": "a, b,", "new": "True"}, bundle) == {"tags": ["a", "b"], "new": True}
    with pytest.raises(InputError, match="new: 'maybe' is neither true nor false"):
        written_values({"new": "maybe"}, bundle)


def test_a_free_id_is_not_in_the_catalogue() -> None:
    assert free_id(["a"]) == "new-product-1"
    assert free_id(["new-product-1", "new-product-2"]) == "new-product-3"


def test_a_sample_is_drawn_once_and_keeps_the_order() -> None:
    users = [f"u{number:03}" for number in range(100)]
    drawn = sample(users, 10)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 10
    assert drawn == sample(users, 10)
    assert drawn != sample(users, 10, seed=1)
    assert sample(users, 100) == users


def test_a_bundle_on_a_gpu_is_refused(products: NewProducts) -> None:
    with pytest.raises(ValueError, match="loaded on the CPU"):
        NewProducts(replace(products.bundle, device=torch.device("cuda")), NOW)


def test_messages_name_the_text_fields() -> None:
    assert named_fields(TextTemplate(("title",), ("colour",))) == "title or colour"
    assert named_fields(TextTemplate(())) == "text"
