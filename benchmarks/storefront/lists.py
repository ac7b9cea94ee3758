"""Trials of lists: exposure of new items, effect of purchases, coherence of probabilities."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence

from benchmarks.storefront.shop import KOMBUCHA, NEW_IDS, NEW_ITEMS, Row, Shop, share
from shelfwise_client import BatchQuery, Boost, Event, ListRules, RecommendQuery, SessionEvent

MUCH = 0.05
"""A large novelty budget."""
SHOPPERS = 200
"""Users that buy one of the new items."""
COUNTED_SECONDS = 1.0
"""Time from the purchases to the requests."""


def _lists(
    shop: Shop, size: int, users: Sequence[str] | None = None, **settings: str | float | ListRules
) -> list[list[str]]:
    """Return the item ids of many users' lists; of all users without `users`."""
    query = BatchQuery(
        user_ids=None if users is None else tuple(users),
        list_size=size,
        fields=("item_id", "title"),
        request_time=shop.now,
        **settings,  # type: ignore[arg-type]
    )
    found = []
    for answer in shop.client.batch_recommend(query):
        shop.titles.update((item.item_id, item.title) for item in answer.items)
        found.append([item.item_id for item in answer.items])
    return found


def seen_in(
    lists: Sequence[Sequence[str]], expected: Iterable[str], top: int
) -> tuple[str, dict[str, float]]:
    """Return the appearances, the best rank, and the number of items that appear, as text and numbers."""
    expected = set(expected)
    places = [place for items in lists for place, item in enumerate(items, start=1) if item in expected]
    different = {item for items in lists for item in items if item in expected}
    inside = sum(any(item in expected for item in items[:top]) for items in lists)
    numbers: dict[str, float] = {
        "lists": len(lists), "appearances": len(places), "best_place": min(places, default=0),
        f"lists_with_one_in_{top}": inside, "items": len(different),
    }  # fmt: skip
    best = f", best place {min(places)}" if places else ""
    text = (
        f"{len(places):,} appearances in {len(lists):,} lists{best}; {inside:,} lists have one in the first "
        f"{top}; {len(different)} of {len(expected)} items appear"
    )
    return text, numbers


def new_items(shop: Shop) -> list[Row]:
    """Request lists after the new items have been upserted."""
    rows = [
        Row("lists_100", "ten new items, 100 items for everybody", *seen_in(_lists(shop, 100), NEW_IDS, 20))
    ]
    some = shop.some_users(300)
    seen = seen_in(_lists(shop, 500, some), NEW_IDS, 20)
    rows.append(Row("lists_500", f"500 items for {len(some)} users", *seen))
    rules = ListRules(exploration=0.1)
    seen = seen_in(_lists(shop, 20, some, rules=rules), NEW_IDS, 20)
    rows.append(Row("exploration", f"exploration.share .1, 20 items for {len(some)} users", *seen))
    seen = seen_in(_lists(shop, 20, some, novelty=MUCH), NEW_IDS, 20)
    rows.append(Row("novelty", f"novelty {MUCH:g}, 20 items for {len(some)} users", *seen))
    words = ", ".join(json.dumps(item.words) for item in NEW_ITEMS)
    boost = Boost(f"{shop.filter_attribute()} IN ({words})", 1.0)
    seen = seen_in(_lists(shop, 20, some, rules=ListRules(boosts=(boost,))), NEW_IDS, 20)
    return [*rows, Row("boost", f"a boost of 1 on them, 20 items for {len(some)} users", *seen)]


def own_category(shop: Shop) -> list[Row]:
    """Request lists of each new item's category."""
    if "product_category" not in shop.attributes:
        return []
    some = shop.some_users(60)
    shown, lists, named = 0, 0, []
    for new in NEW_ITEMS:
        found = _lists(shop, 20, some, filter=f"product_category = {json.dumps(new.category)}")
        having = sum(new.item_id in items for items in found)
        shown, lists = shown + having, lists + len(found)
        named += [new.item_id.removeprefix("new-")] if having else []
    tried = f"lists filtered to a new item's own category, top 20, {len(some)} users each"
    text = f"{shown:,} of {lists:,} lists have the item ({len(named)} of {len(NEW_ITEMS)} items)"
    return [Row("own_category", tried, text, {"lists": lists, "with_item": shown, "items": named})]


def purchases(shop: Shop) -> list[Row]:
    """Record purchases of a new item after a popular one, and find its ranks."""
    popular = shop.client.recommend(RecommendQuery(page_size=1, fields=("item_id",), request_time=shop.now))
    beside = popular.items[0].item_id
    buyers = shop.some_users(min(SHOPPERS, len(shop.users) // 2))
    shop.record([Event(user, item, shop.kind, shop.bought) for user in buyers for item in (beside, KOMBUCHA)])
    time.sleep(COUNTED_SECONDS)
    after = RecommendQuery(page_size=500, fields=("item_id",), request_time=shop.now)
    top = [item.item_id for item in shop.client.recommend(after).items]
    session = RecommendQuery(
        session=(SessionEvent(beside, shop.kind),), page_size=500, fields=("item_id",), request_time=shop.now
    )
    with_it = [item.item_id for item in shop.client.recommend(session).items]
    others = [user for user in shop.users if user not in set(buyers)][:400]
    seen = seen_in(_lists(shop, 100, others), (KOMBUCHA,), 20)
    bought = f"{len(buyers)} shoppers have bought it"
    rows = [
        Row("popular", f"{bought}: place among 500 popular items", *_place(KOMBUCHA, top)),
        Row(
            "bought_with",
            f"{bought}: place in the session of the item it went with",
            *_place(KOMBUCHA, with_it),
        ),
    ]
    return [*rows, Row("others", f"{bought}: 100 items for {len(others)} others", *seen)]


def _place(item: str, listed: Sequence[str]) -> tuple[str, dict[str, float]]:
    place = listed.index(item) + 1 if item in listed else 0
    return (f"place {place}" if place else f"absent from {len(listed)}"), {"place": place}


def probabilities(shop: Shop) -> list[Row]:
    """Compare the probabilities of a click and of a purchase."""
    pairs = []
    for user in shop.some_users(40):
        query = RecommendQuery(user_id=user, page_size=100, request_time=shop.now)
        for item in shop.client.recommend(query).items:
            if item.p_click is not None and item.p_purchase is not None:
                pairs.append((item.p_click, item.p_purchase))
    wrong = sum(click < purchase for click, purchase in pairs)
    text = f"p_click < p_purchase in {wrong:,} of {len(pairs):,}"
    numbers = {"items": len(pairs), "wrong": wrong, "share": share(wrong, len(pairs))}
    return [Row("probabilities", f"{len(pairs):,} recommended items", text, numbers)]
