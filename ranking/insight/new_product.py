"""What becomes of a product that does not exist: it is added to a copy of the model as UpsertItems adds one.

Every product gets a copy of its own, so that neither former products nor former versions of its text are in
the catalogue beside it. A copy costs milliseconds: the arrays of the bundle are copied, nothing is rebuilt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

import numpy as np

from conf.errors import InputError
from features.data.dataset import FloatArray, IntArray
from features.text.item_text import TextTemplate, has_text
from ranking.bundle.bundle import Bundle
from ranking.catalogue.item_values import overlay_schema, typed_values
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.snapshot import LiveVersion
from ranking.live.updates import LiveItems
from ranking.types import History, Reason, Request

BLOCK: Final = 64
"""Lists made between two reports of progress."""
EXPLAINED: Final = 20
"""Best places for which reasons are given."""
NO_HISTORY: Final = History(
    np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int8), np.zeros(0, dtype=np.int64)
)
Advance = Callable[[int], None]
"""Called with the number of lists made so far."""


@dataclass(frozen=True)
class Shopper:
    """Whose list is made."""

    user_id: str
    history: History


@dataclass(frozen=True)
class Near:
    """An item near the product."""

    row: int
    score: float
    """Cosine of the texts, or share of the product's words that the item has."""


@dataclass(frozen=True)
class Place:
    """The product in one shopper's list."""

    user_id: str
    place: int
    """From 1."""
    score: float
    p_purchase: float
    """NaN where the model has no ranking head."""
    reasons: tuple[Reason, ...] = ()
    """Of the `EXPLAINED` best places."""


@dataclass(frozen=True)
class Audience:
    """The lists of some shoppers, and those among them that contain the product."""

    lists: int
    depth: int
    """Length of the lists."""
    places: tuple[Place, ...]
    """Best first; equal ones in the order of the shoppers."""

    def within(self, depth: int) -> int:
        """Return how many lists have the product among their first items."""
        return sum(place.place <= depth for place in self.places)


@dataclass(frozen=True)
class Reading:
    """What the text encoder takes in of a text."""

    tokens: int
    """Of the whole text, special ones included."""
    limit: int
    """Tokens that are read; the rest of the text counts for the search by words only."""
    unknown: int
    """Tokens that the encoder has no entry for, for example in a script it was not trained on."""


@dataclass(frozen=True)
class AddedProduct:
    """A product in a copy of the model of its own."""

    attributes: Mapping[str, object]
    text: str
    """As the template renders it: without HTML, cut to its greatest length."""
    row: int
    vector: FloatArray  # [text dim] unit vector of the text
    model: LiveVersion
    reading: Reading
    diversity: float
    """Default of the bundle's lists."""
    now: int
    """Unix seconds from which recency is measured."""

    def by_meaning(self, k: int) -> list[Near]:
        """Return the items whose texts are nearest by embedding, best first."""
        rows, cosines = self.model.recommender.similar(
            self.vector[None, :], k, np.array([self.row], dtype=np.int32)
        )
        found = zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
        return [Near(row, cosine) for row, cosine in found if row >= 0]

    def by_words(self, k: int) -> list[Near]:
        """Return the items that share most of the text's words, rare ones counting more, best first."""
        recommender = self.model.recommender.recommender
        words = recommender.texts.words
        matches = None if words is None else words.find(self.text)
        if matches is None:
            return []
        kept = matches.rows != self.row
        rows, shares = matches.rows[kept], matches.shares[kept]
        order = np.lexsort((rows, -recommender.texts.popularity[rows], -shares))[:k]
        return [Near(int(rows[i]), float(shares[i])) for i in order if shares[i] > 0]

    def place_in_search(self, query: str, depth: int) -> int | None:
        """Return its place in an anonymous search; None beyond the first `depth` results."""
        vector = self.model.encode_queries([query])[0]
        request = Request(NO_HISTORY, self.now, k=depth, intent=vector, query_text=query)
        [found] = self.model.recommender.search([request])
        return _place([item.row for item in found.items], self.row)

    def places_beside(self, rows: Sequence[int], depth: int) -> list[int | None]:
        """Return its place among the items similar to each of `rows`; None beyond the first `depth`."""
        vectors = self.model.text_vectors[list(rows)]
        places = []
        for row, vector in zip(rows, vectors, strict=True):
            own = np.array([row], dtype=np.int32)
            similar, _ = self.model.recommender.similar(vector[None, :], depth, own)
            places.append(_place(similar[0].tolist(), self.row))
        return places

    def requests(self, shoppers: Sequence[Shopper], depth: int) -> list[Request]:
        """Return the requests of the shoppers' lists, with the bundle's own settings."""
        bundle = self.model.bundle
        return [
            Request(
                shopper.history, self.now, k=depth, exclude_seen=bundle.exclude_seen, diversity=self.diversity
            )
            for shopper in shoppers
        ]

    def audience(
        self, shoppers: Sequence[Shopper], depth: int = 50, advance: Advance | None = None
    ) -> Audience:
        """Make the list of every shopper and return where the product stands.

        Args:
            shoppers: whose lists.
            depth: length of the lists.
            advance: for a progress bar.

        """
        tally = AudienceTally(self, shoppers, depth)
        while tally.step():
            if advance is not None:
                advance(tally.done)
        return tally.audience()


class AudienceTally:
    """Makes the lists of shoppers block by block, so that a page can be shown in between."""

    def __init__(self, product: AddedProduct, shoppers: Sequence[Shopper], depth: int = 50) -> None:
        """Prepare; no list is made yet."""
        self.done = 0
        """Lists made so far."""
        self._product = product
        self._shoppers = shoppers
        self._depth = depth
        self._requests = product.requests(shoppers, depth)
        self._found: list[tuple[int, int, float, float]] = []
        """Place, position of the shopper, score, P(purchase)."""

    def step(self) -> bool:
        """Make the next lists; return False where all have been made before."""
        start, row = self.done, self._product.row
        if start >= len(self._requests):
            return False
        answers = self._product.model.recommender.recommend(self._requests[start : start + BLOCK])
        for position, answer in enumerate(answers, start=start):
            place = _place([item.row for item in answer.items], row)
            if place is not None:
                item = answer.items[place - 1]
                self._found.append((place, position, item.score, item.p_purchase))
        self.done += len(answers)
        return True

    def audience(self) -> Audience:
        """Return where the product stands in the lists made so far, with reasons for the best places."""
        found = sorted(self._found, key=lambda entry: entry[:2])
        reasons = self._reasons([self._requests[position] for _, position, _, _ in found[:EXPLAINED]])
        places = [
            Place(
                self._shoppers[position].user_id,
                place,
                score,
                purchase,
                reasons[i] if i < EXPLAINED else (),
            )
            for i, (place, position, score, purchase) in enumerate(found)
        ]
        return Audience(self.done, self._depth, tuple(places))

    def _reasons(self, requests: Sequence[Request]) -> list[tuple[Reason, ...]]:
        """Return the reasons for the product in each list, which contains it."""
        row, model = self._product.row, self._product.model
        explained = model.recommender.recommend([replace(r, explain=True) for r in requests])
        return [next((item.reasons for item in answer.items if item.row == row), ()) for answer in explained]


class NewProducts:
    """Adds products, each to a copy of a bundle's model."""

    def __init__(self, bundle: Bundle, now: int) -> None:
        """Take over a bundle, which must not be used elsewhere from then on.

        Args:
            bundle: as loaded, on the CPU: on a GPU its indexes are changed in place.
            now: Unix seconds from which the lists' recency is measured.

        Raises:
            ValueError: the bundle is on a GPU.

        """
        if bundle.device.type != "cpu":
            raise ValueError("the bundle of a new product must be loaded on the CPU")
        self._bundle = bundle
        self._now = now
        self._item_id = free_id(bundle.catalogue.ids)
        self._lock = threading.Lock()

    @property
    def bundle(self) -> Bundle:
        """The bundle without any product."""
        return self._bundle

    def values(self, written: Mapping[str, str]) -> dict[str, object]:
        """Return attributes from the text that a person typed for them; blank ones are left out.

        Raises:
            InputError: naming the attribute, and what it must look like.

        """
        return written_values(written, self._bundle)

    def add(self, attributes: Mapping[str, object]) -> AddedProduct:
        """Add a product to a copy of the model, as `UpsertItems` does.

        Args:
            attributes: in the API's types, see `ranking.catalogue.item_values.typed_values`.

        Raises:
            InputError: an attribute that the catalogue cannot take, or no text.

        """
        bundle = self._bundle
        _, faults = typed_values(attributes, overlay_schema(bundle.catalogue.frame.schema))
        if faults:
            raise InputError(f"product: {faults[0]}")
        if not has_text(attributes, bundle.template):
            raise InputError(f"product: no text to read; type a {named_fields(bundle.template)}")
        with self._lock:
            live = LiveItems(bundle, room=1)
            plan = live.plan([ItemChange(self._item_id, attributes)])
            model = live.apply(plan)
        row = model.catalogue.row(self._item_id)
        assert row is not None
        text = model.catalogue.text(row)
        return AddedProduct(
            dict(attributes),
            text,
            row,
            plan.vectors[0],
            model,
            self._reading(text),
            float(bundle.manifest.get("rerank", {}).get("diversity", 0.0)),
            self._now,
        )

    def _reading(self, text: str) -> Reading:
        encoder = self._bundle.text_encoder
        ids = encoder.tokenizer(encoder.prompts.passage + text, verbose=False)["input_ids"]
        unknown = encoder.tokenizer.unk_token_id
        return Reading(len(ids), encoder.max_tokens, sum(token == unknown for token in ids))


def written_values(written: Mapping[str, str], bundle: Bundle) -> dict[str, object]:
    """Return attributes of a product from the text typed for each; see `NewProducts.values`."""
    columns = overlay_schema(bundle.catalogue.frame.schema)
    values: dict[str, object] = {}
    for name, text in written.items():
        text = text.strip()
        if not text:
            continue
        dtype = columns.get(name)
        if dtype is None:
            values[name] = text  # refused by `typed_values`, which proposes the nearest name
        elif dtype.is_numeric():
            try:
                values[name] = float(text)
            except ValueError:
                raise InputError(f"{name}: {text[:40]!r} is not a number; type for example 4.95") from None
        elif dtype.base_type().__name__ == "Boolean":
            if text.lower() not in ("true", "false"):
                raise InputError(f"{name}: {text[:40]!r} is neither true nor false")
            values[name] = text.lower() == "true"
        elif dtype.base_type().__name__ == "List":
            values[name] = [part.strip() for part in text.split(",") if part.strip()]
        else:
            values[name] = text
    _, faults = typed_values(values, columns)
    if faults:
        raise InputError(f"product: {faults[0]}")
    return values


def free_id(ids: Sequence[str]) -> str:
    """Return an item id that a catalogue does not have."""
    taken = set(ids)
    return next(name for number in count(1) if (name := f"new-product-{number}") not in taken)


def named_fields(template: TextTemplate) -> str:
    """Return the fields that make up a text, for a message: `title or brand`."""
    return " or ".join((*template.fields, *template.fallback)) or "text"


def sample(users: Sequence[str], size: int, seed: int = 0) -> list[str]:
    """Return at most `size` users in their order, drawn without replacement with a fixed seed."""
    if len(users) <= size:
        return list(users)
    drawn = np.random.default_rng(seed).choice(len(users), size=size, replace=False)
    return [users[index] for index in sorted(drawn.tolist())]


def _place(rows: Sequence[int] | IntArray, row: int) -> int | None:
    """Return the place of a row in a list, from 1; None where it is not in it."""
    return next((place for place, found in enumerate(rows, start=1) if found == row), None)
