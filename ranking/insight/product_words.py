"""What each word of a new product contributes: the product is added again without it (leave-one-out).

The deletion is real: text, vector, neighbours, imputed factors and candidates are those of the shorter text,
so that the effect is the difference between two products and not an attribution by gradients (Li, Monroe and
Jurafsky, arXiv:1612.08220, call this erasure).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from features.data.dataset import FloatArray, IntArray
from features.text.item_text import TextTemplate, clean_text, has_text
from ranking.filtering import filter_requests
from ranking.insight.new_product import AddedProduct, Audience, NewProducts, Shopper
from ranking.rerank.rules import Pin, with_pins

MOST_PIECES: Final = 24
"""Words whose effect is measured one by one; of a longer text, groups of neighbouring words."""
_WORD: Final = re.compile(r"\S+")


@dataclass(frozen=True)
class Piece:
    """A word of a product's text, or several neighbouring ones."""

    field: str
    """The attribute that it stands in."""
    text: str
    rest: str
    """The attribute without it."""


@dataclass(frozen=True)
class Standing:
    """How a product does with some shoppers."""

    score: float
    """Mean score over the shoppers, in lists or not."""
    lists: int
    """Lists that have it among their first items."""
    likeness: float
    """Mean over the shoppers of the greatest cosine between its text and those of the items they chose; 0
    without histories."""
    proposed: int = 0
    """Shoppers for whom a source proposes it: for the others it is no candidate at all."""
    best: int | None = None
    """Its best place by score among their candidates, from 1; None where it is proposed for none."""


@dataclass(frozen=True)
class WordEffect:
    """What a piece of the text contributes: the product with it, minus the product without it."""

    piece: Piece
    score: float
    lists: int
    likeness: float


@dataclass(frozen=True)
class WordEffects:
    """The effects of all pieces of a text."""

    whole: Standing
    effects: tuple[WordEffect, ...]
    shoppers: int
    """Over whom the means are taken."""

    @property
    def strongest(self) -> float:
        """The greatest absolute effect on the mean score; 0 without pieces."""
        return max((abs(effect.score) for effect in self.effects), default=0.0)


def pieces(attributes: Mapping[str, object], template: TextTemplate, most: int = MOST_PIECES) -> list[Piece]:
    """Return the words of a product's text fields, in order; of a long text, groups of neighbouring words.

    Args:
        attributes: of the product.
        template: which attributes are text.
        most: pieces at most, one per field at least.

    """
    fields = [name for name in template.fields if isinstance(attributes.get(name), str)]
    cleaned = clean_text(pl.Series([attributes[name] for name in fields], dtype=pl.String)).to_list()
    texts = {name: text for name, text in zip(fields, cleaned, strict=True) if text}
    spans = {name: [found.span() for found in _WORD.finditer(text)] for name, text in texts.items()}
    total = sum(len(found) for found in spans.values())
    size = max(1, -(-total // max(most - len(spans) + 1, 1)))
    found = []
    for name, text in texts.items():
        for start in range(0, len(spans[name]), size):
            part = spans[name][start : start + size]
            first, last = part[0][0], part[-1][1]
            rest = " ".join(f"{text[:first]} {text[last:]}".split())
            found.append(Piece(name, text[first:last], rest))
    return found


class WordStudy:
    """Takes out the words of a product one by one, so that a page can be shown in between."""

    def __init__(
        self, products: NewProducts, product: AddedProduct, shoppers: Sequence[Shopper], depth: int = 50
    ) -> None:
        """Prepare; nothing is taken out yet.

        Args:
            products: adds the shorter products.
            product: the whole one.
            shoppers: over whom means are taken, for example `nearest_shoppers`.
            depth: length of the lists.

        """
        self.pieces = pieces(product.attributes, products.bundle.template)
        self.done = 0
        """Pieces taken out so far."""
        self._products, self._product = products, product
        self._shoppers, self._depth = shoppers, depth
        self._whole = standing(product, shoppers, depth)
        self._effects: list[WordEffect] = []

    def step(self) -> bool:
        """Take out the next piece; return False where all have been taken out before."""
        if self.done >= len(self.pieces):
            return False
        piece, whole = self.pieces[self.done], self._whole
        rest = {**self._product.attributes, piece.field: piece.rest}
        if has_text(rest, self._products.bundle.template):
            other = standing(self._products.add(rest), self._shoppers, self._depth)
            self._effects.append(
                WordEffect(
                    piece,
                    whole.score - other.score,
                    whole.lists - other.lists,
                    whole.likeness - other.likeness,
                )
            )
        self.done += 1
        return True

    def effects(self) -> WordEffects:
        """Return the effects of the pieces taken out so far; of the only word of a text there is none."""
        return WordEffects(self._whole, tuple(self._effects), len(self._shoppers))


def word_effects(
    products: NewProducts,
    product: AddedProduct,
    shoppers: Sequence[Shopper],
    depth: int = 50,
    advance: Callable[[int, int], None] | None = None,
) -> WordEffects:
    """Measure what every word of a product contributes.

    Args:
        products: as in `WordStudy`.
        product: as in `WordStudy`.
        shoppers: as in `WordStudy`.
        depth: length of the lists.
        advance: called with the pieces that are done, and their number.

    """
    study = WordStudy(products, product, shoppers, depth)
    while study.step():
        if advance is not None:
            advance(study.done, len(study.pieces))
    return study.effects()


def standing(product: AddedProduct, shoppers: Sequence[Shopper], depth: int) -> Standing:
    """Return how a product does with shoppers, whether or not their lists contain it.

    Where no source proposes it, it is scored as a pinned item would be: with the same features, proposed by
    none.
    """
    if not shoppers:
        return Standing(0.0, 0, 0.0)
    recommender = product.model.recommender.recommender
    requests = product.requests(shoppers, depth)
    filtered = filter_requests(
        requests,
        recommender.histories(requests),
        recommender.texts,
        recommender.hidden,
        recommender.items,
    )
    users = recommender.encode(filtered.batch)
    # Lists longer than the quota of popular items are filled up with these, as by the recommender.
    most = max(recommender.config.popular, min(depth, recommender.items))
    config = replace(recommender.config, popular=most)
    retrieved = recommender.retrieve(filtered.batch, filtered.limits, users, config=config)
    proposed = (retrieved.candidates.rows == product.row).any(axis=1)
    pins: list[tuple[Pin, ...]] = [() if found else (Pin(product.row, 1),) for found in proposed]
    retrieved = retrieved._replace(candidates=with_pins(retrieved.candidates, pins))
    ranked = recommender.score(filtered.batch, users, retrieved)
    rows = ranked.candidates.rows
    column = (rows == product.row).argmax(axis=1)
    own = ranked.scores[np.arange(len(rows)), column]
    others = np.where(rows == product.row, -np.inf, ranked.scores)
    better = (others > own[:, None]).sum(axis=1)
    chosen = [shopper.history.items for shopper in shoppers]
    likeness = [_likeness(product.vector, items, recommender.text_vectors) for items in chosen]
    lists = int((proposed & (better < depth)).sum())
    best = int(better[proposed].min()) + 1 if proposed.any() else None
    return Standing(float(own.mean()), lists, float(np.mean(likeness)), int(proposed.sum()), best)


def _likeness(vector: FloatArray, items: IntArray, text_vectors: FloatArray) -> float:
    """Return the greatest cosine between a text and those of some items; 0 without items."""
    return float((text_vectors[np.unique(items)] @ vector).max(initial=0.0))


def nearest_shoppers(
    product: AddedProduct, audience: Audience, shoppers: Sequence[Shopper], most: int = 30, alike: int = 20
) -> list[Shopper]:
    """Return the shoppers for whom words are weighed: those with the best places, else the nearest buyers.

    Args:
        product: the whole product.
        audience: where it stands.
        shoppers: of the audience.
        most: how many at most.
        alike: items most like the product; shoppers who chose most of them are the nearest buyers.

    """
    by_id = {shopper.user_id: shopper for shopper in shoppers}
    if audience.places:
        return [by_id[place.user_id] for place in audience.places[:most]]
    near = np.array([item.row for item in product.by_meaning(alike)], dtype=np.int32)
    chosen = [(int(np.isin(near, s.history.items).sum()), i) for i, s in enumerate(shoppers)]
    buyers = sorted(((-n, i) for n, i in chosen if n), key=lambda entry: entry)
    return [shoppers[i] for _, i in buyers[:most]]


@dataclass(frozen=True)
class Move:
    """A shopper's list before and after a change of the text."""

    user_id: str
    before: int | None
    """Place of the first product; None where the list does not have it."""
    after: int | None

    def rise(self, depth: int) -> int:
        """Return the places that it rose; absence counts as the place after the last."""
        return (self.before or depth + 1) - (self.after or depth + 1)


def moves(before: Audience, after: Audience) -> list[Move]:
    """Return the shoppers whose lists have either product, those that moved most first.

    Args:
        before: of the first product.
        after: of the second one, over the same shoppers and of the same depth.

    """
    places = [{place.user_id: place.place for place in one.places} for one in (before, after)]
    found = [Move(user, places[0].get(user), places[1].get(user)) for user in {**places[0], **places[1]}]
    return sorted(found, key=lambda move: (-abs(move.rise(before.depth)), move.after or before.depth + 1))
