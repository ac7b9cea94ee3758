"""Studies of new products for the pages: made step by step, as long as a request may take, and kept."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from explorer.model import LoadedModel
from ranking.bundle.bundle import load_bundle
from ranking.insight.new_product import (
    AddedProduct,
    Audience,
    AudienceTally,
    Near,
    NewProducts,
    Shopper,
    sample,
)
from ranking.insight.product_words import WordEffects, WordStudy, nearest_shoppers

NEAR: Final = 10
"""Nearest products that are shown."""
BESIDE: Final = 3
"""Nearest products beside which the product is looked up."""
DEPTH: Final = 50
"""Length of lists, of searches, and of similar items."""
KEPT: Final = 24
"""Studies that are kept: a reader goes back and forth between texts."""


@dataclass(frozen=True)
class Nearby:
    """Where a product stands among products."""

    by_meaning: list[Near]
    by_words: list[Near]
    query: str
    """Its own words, as a search."""
    place_in_search: int | None
    beside: list[tuple[int, int | None]]
    """Rows of the nearest products, and its place among the items similar to each."""


class Study:
    """What becomes of one product, as far as it has been worked out."""

    def __init__(
        self, products: NewProducts, shoppers: Sequence[Shopper], attributes: Mapping[str, object]
    ) -> None:
        """Add the product.

        Raises:
            InputError: it cannot be added.

        """
        self.product: AddedProduct = products.add(attributes)
        self.nearby: Nearby | None = None
        self.audience: Audience | None = None
        self.words: WordEffects | None = None
        self.done = 0
        """Steps so far: lists and words."""
        self._products, self._shoppers = products, shoppers
        self._rest = self._steps()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to work out."""
        return self.words is not None

    @property
    def lists(self) -> int:
        """How many lists are made in all."""
        return len(self._shoppers)

    def work(self, seconds: float) -> None:
        """Go on for about so many seconds, one step at least."""
        until = time.monotonic() + seconds
        for _ in self._rest:
            if time.monotonic() >= until:
                break

    def _steps(self) -> Iterator[None]:
        self.nearby = _nearby(self.product, self._products)
        yield
        tally = AudienceTally(self.product, self._shoppers, DEPTH)
        while tally.step():
            self.done = tally.done
            yield
        self.audience = tally.audience()
        chosen = nearest_shoppers(self.product, self.audience, self._shoppers)
        study = WordStudy(self._products, self.product, chosen, DEPTH)
        while study.step():
            yield
        self.words = study.effects()


def _nearby(product: AddedProduct, products: NewProducts) -> Nearby:
    near = product.by_meaning(NEAR)
    first = next((name for name in products.bundle.template.fields if product.attributes.get(name)), None)
    query = " ".join(str(product.attributes[first] if first else product.text).split())[:500]
    rows = [item.row for item in near[:BESIDE]]
    return Nearby(
        near,
        product.by_words(NEAR),
        query,
        product.place_in_search(query, DEPTH),
        list(zip(rows, product.places_beside(rows, DEPTH), strict=True)),
    )


class Desk:
    """The studies of one version of the bundle, which has a copy of its own for them."""

    def __init__(self, store: Path, model: LoadedModel) -> None:
        """Load the copy, on the CPU.

        Raises:
            InputError: it cannot be loaded any more.

        """
        self.version = model.version
        bundle = load_bundle(store, model.version, manifest=model.bundle.manifest)
        self.products = NewProducts(bundle, model.now)
        self._model = model
        self._samples: dict[int, list[Shopper]] = {}
        self._studies: OrderedDict[tuple[object, ...], Study] = OrderedDict()

    def shoppers(self, size: int) -> list[Shopper]:
        """Return a sample of the shoppers with their histories."""
        if size not in self._samples:
            known = self._model.shoppers
            self._samples[size] = [Shopper(user, known.history(user)) for user in sample(known.ids, size)]
        return self._samples[size]

    def study(self, written: Mapping[str, str], size: int) -> Study:
        """Return the study of a product, a new one or one that is kept.

        Args:
            written: what was typed for each attribute.
            size: shoppers whose lists are made.

        Raises:
            InputError: an attribute that the catalogue cannot take, or no text.

        """
        key = (size, *sorted(written.items()))
        study = self._studies.pop(key, None)
        if study is None:
            study = Study(self.products, self.shoppers(size), self.products.values(written))
        self._studies[key] = study
        while len(self._studies) > KEPT:
            self._studies.popitem(last=False)
        return study
