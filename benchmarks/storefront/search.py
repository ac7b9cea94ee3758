"""Trials of text queries: search as anonymous and known users, intents, and correctness of reasons."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.storefront.shop import KOMBUCHA, OAT_DRINK, Row, Shop, place_of, share, shown_places
from shelfwise_client import RecommendedItem, RecommendQuery, SearchQuery

TYPES, TITLES, INTENTS = 120, 100, 40
"""Number of product types searched for, of exact titles, and of product types as intents."""
_WORD = re.compile(r"[^\W_]{3,}")
_STEM = 4
"""Length of the common prefix of words that count as the same: `totes` and `tote`."""

Ask = Callable[[str], Sequence[RecommendedItem]]


def _searcher(shop: Shop, user: str, size: int = 10, explain: bool = False) -> Ask:
    def ask(words: str) -> Sequence[RecommendedItem]:
        query = SearchQuery(words, user_id=user, page_size=size, explain=explain)
        return shop.client.search_items(query).items

    return ask


def _sample(values: Sequence[str], count: int) -> list[str]:
    """Return a seeded sample of values without replacement, in order."""
    if len(values) <= count:
        return list(values)
    chosen = np.random.default_rng(0).choice(len(values), count, replace=False)
    return [values[index] for index in sorted(chosen)]


def new_item(shop: Shop) -> list[Row]:
    """Search for one of the new items, as an anonymous and as known users."""
    users = ("", *shop.some_users(3))
    places = []
    for user in users:
        found = _searcher(shop, user, 50)("kombucha")
        places.append(place_of(KOMBUCHA, [item.item_id for item in found]))
    text = f"anonymous: place {shown_places(places[:1])}; as known users: {shown_places(places[1:])}"
    numbers = {"anonymous": places[0], "known": places[1:]}
    return [Row("search_new", "SearchItems `kombucha` for the new Kombucha ginger lemon", text, numbers)]


def types(shop: Shop) -> list[Row]:
    """Search for product types: share of the first ten that have the type."""
    type_of = shop.type_of() if shop.types(10) else {}
    queries = _sample(shop.types(10), TYPES)
    if not queries:
        return []
    users = ("", *shop.some_users(3))
    shares = []
    for user in users:
        ask = _searcher(shop, user)
        right = [[type_of.get(item.item_id) == query for item in ask(query)] for query in queries]
        shares.append(float(np.mean([sum(row) / 10 for row in right])))
    text = f"anonymous {shares[0]:.3f}; as known users {', '.join(f'{s:.3f}' for s in shares[1:])}"
    tried = f"{len(queries)} product types as queries, share of the first ten that have it"
    numbers = {"anonymous": shares[0], "known": shares[1:], "ratio": share(min(shares[1:]), shares[0])}
    return [Row("search_types", tried, text, numbers)]


def titles(shop: Shop) -> list[Row]:
    """Search for exact titles: share of queries with an item of that title first."""
    queries = _sample(sorted(set(shop.titles.values())), TITLES)
    shares = []
    for user in ("", *shop.some_users(3)):
        ask = _searcher(shop, user)
        first = [next((item.title for item in ask(query)), "") == query for query in queries]
        shares.append(share(sum(first), len(queries)))
    text = f"anonymous {shares[0]:.2f}; as known users {', '.join(f'{s:.2f}' for s in shares[1:])}"
    tried = f"{len(queries)} exact titles as queries, an item of that title first"
    return [Row("search_titles", tried, text, {"anonymous": shares[0], "known": shares[1:]})]


def reasons(shop: Shop) -> list[Row]:
    """Count the reasons `Matches` of items without any word of the query."""
    texts = shop.text_of()
    queries = [*_sample(shop.types(10), 39), "totes"]
    (user,) = shop.some_users(1)
    ask = _searcher(shop, user, explain=True)
    matches, wrong, example = 0, 0, ""
    for query in queries:
        for item in ask(query):
            if not any(reason.text.startswith("Matches") for reason in item.reasons):
                continue
            matches += 1
            if not _stems(query) & _stems(texts.get(item.item_id, item.title)):
                wrong += 1
                example = example or f", for example {query!r}: {item.title[:40]!r}"
    text = f"{matches:,} reasons say Matches, {wrong:,} of them on items without a word of the query{example}"
    numbers = {"matches": matches, "without_a_word": wrong}
    return [Row("reasons", f"reasons of {len(queries)} queries as a known user", text, numbers)]


def _stems(text: str) -> set[str]:
    return {word[:_STEM] for word in _WORD.findall(text.lower())}


def intents(shop: Shop) -> list[Row]:
    """Request lists with an intent: one of the new items, and product types."""
    places, strangers = [], 0
    users = shop.some_users(10)
    for user in users:
        query = RecommendQuery(user_id=user, intent="oat milk", page_size=100, request_time=shop.now)
        found = shop.client.recommend(query).items
        places.append(place_of(OAT_DRINK, [item.item_id for item in found]))
        strangers += sum(not _stems("oat milk") & _stems(item.title) for item in found[:10])
    text = (
        f"the oat drink at {shown_places(places)}; {strangers} of the {10 * len(users)} items in the first "
        "ten have neither word"
    )
    numbers = {"places": places, "strangers": strangers}
    rows = [Row("intent_new", f"Recommend with the intent `oat milk` for {len(users)} users", text, numbers)]
    queries = _sample(shop.types(10), INTENTS)
    if queries:
        rows.append(_type_intents(shop, queries))
    return rows


def _type_intents(shop: Shop, queries: Sequence[str]) -> Row:
    type_of = shop.type_of()
    shares = []
    for user in ("", *shop.some_users(3)):
        right = 0.0
        for words in queries:
            query = RecommendQuery(user_id=user, intent=words, page_size=10, request_time=shop.now)
            found = shop.client.recommend(query).items
            right += sum(type_of.get(item.item_id) == words for item in found) / 10
        shares.append(right / len(queries))
    text = f"anonymous {shares[0]:.3f}; as known users {', '.join(f'{s:.3f}' for s in shares[1:])}"
    tried = f"{len(queries)} product types as intents, share of the first ten that have it"
    return Row("intent_types", tried, text, {"anonymous": shares[0], "known": shares[1:]})
