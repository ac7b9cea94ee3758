from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conf.schema import PipelineConfig
from features.text.item_text import TextTemplate
from ranking.bundle.bundle import load_bundle
from ranking.insight.new_product import NO_HISTORY, Audience, NewProducts, Place, Shopper
from ranking.insight.product_words import (
    Move,
    Piece,
    Standing,
    moves,
    nearest_shoppers,
    pieces,
    standing,
    word_effects,
)
from tests.ranking.insight.test_new_product import BOOTS, NOW, topic_shoppers

TEMPLATE = TextTemplate(("title", "brand"))


@pytest.fixture(scope="module")
def products(trained: PipelineConfig) -> NewProducts:
    return NewProducts(load_bundle(Path(trained.work_dir) / "artifacts"), NOW)


def test_pieces_are_the_words_of_the_text_fields_in_order() -> None:
    attributes = {"brand": "Acme", "title": "<b>Red</b> lunch bag", "price": 3.0, "colour": "red"}
    assert pieces(attributes, TEMPLATE) == [
        Piece("title", "Red", "lunch bag"),
        Piece("title", "lunch", "Red bag"),
        Piece("title", "bag", "Red lunch"),
        Piece("brand", "Acme", ""),
    ]


def test_a_long_text_is_cut_into_groups_of_neighbouring_words() -> None:
    found = pieces({"title": "a b c d e f g", "brand": "x"}, TEMPLATE, most=4)
    assert [piece.text for piece in found] == ["a b c", "d e f", "g", "x"]
    assert found[1].rest == "a b c g"
    many = pieces({"title": " ".join(f"w{n}" for n in range(1000))}, TEMPLATE)
    assert len(many) <= 24
    assert " ".join(piece.text for piece in many) == " ".join(f"w{n}" for n in range(1000))


def test_there_are_no_pieces_without_text() -> None:
    assert pieces({"price": 3.0, "title": "<i></i>"}, TEMPLATE) == []


def test_a_standing_has_the_scores_of_the_lists(products: NewProducts) -> None:
    product = products.add(BOOTS)
    shoppers = topic_shoppers(products.bundle, "hiking")
    audience = product.audience(shoppers, 40)
    assert len(audience.places) == len(shoppers)
    found = standing(product, shoppers, 40)
    assert found.score == pytest.approx(np.mean([place.score for place in audience.places]), abs=1e-4)
    assert found.lists == len(shoppers)
    worst = max(place.place for place in audience.places)
    best = min(place.place for place in audience.places)
    assert (found.proposed, found.best) == (len(shoppers), best)
    assert standing(product, shoppers, worst - 1).lists == audience.within(worst - 1) < len(shoppers)
    assert standing(product, shoppers, best - 1).lists == 0
    cosines = [(products.bundle.text_vectors[s.history.items] @ product.vector).max() for s in shoppers]
    assert found.likeness == pytest.approx(np.mean(cosines), abs=1e-5)


def test_an_item_that_no_source_proposes_has_a_score_and_no_place(products: NewProducts) -> None:
    product = products.add({"title": "zzz qqq"})
    recommender = product.model.recommender.recommender
    nothing = dict.fromkeys(("user_vector", "item_to_item", "text_neighbours", "co_purchase", "new_items"), 0)
    recommender.config = replace(recommender.config, **nothing)
    shoppers = topic_shoppers(products.bundle, "hiking", 2)
    found = standing(product, shoppers, 10)
    assert (found.lists, found.proposed, found.best) == (0, 0, None)
    assert np.isfinite(found.score)


def test_the_effect_of_a_word_is_what_its_deletion_costs(products: NewProducts) -> None:
    product = products.add(BOOTS)
    shoppers = topic_shoppers(products.bundle, "hiking")
    done: list[tuple[int, int]] = []
    found = word_effects(products, product, shoppers, 20, lambda a, b: done.append((a, b)))
    assert [e.piece.text for e in found.effects] == ["summit", "boots", "compass", "no900", "Acme"]
    shorter = products.add({**BOOTS, "title": "summit compass no900"})
    other = standing(shorter, shoppers, 20)
    assert found.effects[1].score == pytest.approx(found.whole.score - other.score)
    assert found.effects[1].lists == found.whole.lists - other.lists
    assert found.effects[1].likeness == pytest.approx(found.whole.likeness - other.likeness)
    assert done == [(n, 5) for n in range(1, 6)]
    assert found.shoppers == len(shoppers)
    assert found.strongest == max(abs(e.score) for e in found.effects) > 0


def test_the_only_word_has_no_effect_to_measure(products: NewProducts) -> None:
    product = products.add({"title": "boots"})
    found = word_effects(products, product, topic_shoppers(products.bundle, "hiking", 2))
    assert found.effects == ()
    assert found.strongest == 0.0


def test_without_shoppers_there_is_no_standing(products: NewProducts) -> None:
    assert standing(products.add(BOOTS), [], 10) == Standing(0.0, 0, 0.0)


def test_the_nearest_shoppers_have_the_best_places(products: NewProducts) -> None:
    product = products.add(BOOTS)
    hikers, cooks = (topic_shoppers(products.bundle, topic) for topic in ("hiking", "kitchen"))
    shoppers = [*cooks, *hikers]
    audience = product.audience(shoppers, 50)
    assert nearest_shoppers(product, audience, shoppers, most=2) == [
        next(s for s in shoppers if s.user_id == place.user_id) for place in audience.places[:2]
    ]


def test_without_places_they_are_the_buyers_of_the_most_alike(products: NewProducts) -> None:
    product = products.add(BOOTS)
    hikers = topic_shoppers(products.bundle, "hiking")
    near = {item.row for item in product.by_meaning(3)}
    counts = {s.user_id: len(near & set(s.history.items.tolist())) for s in hikers}
    stranger = Shopper("stranger", NO_HISTORY)
    found = nearest_shoppers(product, Audience(7, 50, ()), [stranger, *hikers], alike=3)
    assert [s.user_id for s in found] == sorted((u for u, n in counts.items() if n), key=lambda u: -counts[u])
    assert stranger not in found


def test_moves_name_who_gains_and_who_loses() -> None:
    before = Audience(9, 50, (Place("a", 1, 0, 0), Place("b", 4, 0, 0), Place("c", 30, 0, 0)))
    after = Audience(9, 50, (Place("d", 2, 0, 0), Place("b", 3, 0, 0), Place("a", 9, 0, 0)))
    found = moves(before, after)
    assert found == [Move("d", None, 2), Move("c", 30, None), Move("a", 1, 9), Move("b", 4, 3)]
    assert [move.rise(50) for move in found] == [49, -21, -8, 1]
