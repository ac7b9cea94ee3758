"""A product that does not exist yet: added while the server runs, and looked for in lists and search."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.progress import track

from conf.errors import InputError
from conf.serving import DemoConfig
from serving.cli.story.screens import Screen
from serving.cli.story.shop import Shop
from shelfwise_client import BatchQuery, Client, Item, RecommendQuery, SearchQuery, ServiceError, SimilarQuery

LUNCH_BAG = {"title": "Lunch bag sleepy hedgehogs", "price": 1.65}
"""The product that is added where none is configured."""
DEPTH = 100
"""Places of a list that are looked through."""
ALIKE = 20
"""Items most like the product, whose buyers should see it."""
ENOUGH = 3
"""Of those, how many a shopper has bought to be one who should see it."""
NEIGHBOURS = 3
"""Most alike items that are named, and whose own similar items are looked through."""
GROUP = 300
"""Shoppers whose lists are looked through, of those who should see it and of the others."""


@dataclass(frozen=True)
class Found:
    """In how many lists of a group an item stands."""

    lists: int
    first_ten: int
    anywhere: int
    best: tuple[tuple[int, str], ...]
    """Place and user of those lists that have it, best places first."""

    @classmethod
    def of(cls, places: Mapping[str, int | None]) -> Found:
        """Count, from each user's place or None."""
        ranked = sorted((place, user) for user, place in places.items() if place is not None)
        return cls(len(places), sum(place <= 10 for place, _ in ranked), len(ranked), tuple(ranked))


def places_of(
    client: Client, shop: Shop, item: str, users: Sequence[str], screen: Screen
) -> dict[str, int | None]:
    """Return the item's place in each user's list, None where the first `DEPTH` do not have it."""
    query = BatchQuery(
        user_ids=tuple(users), list_size=DEPTH, fields=("item_id", "list_position"), request_time=shop.now
    )
    places: dict[str, int | None] = {}
    stream = client.batch_recommend(query)
    quiet = not screen.console.is_terminal
    told = track(
        stream, "asking for lists", len(users), console=screen.console, transient=True, disable=quiet
    )
    for result in told:
        if result.error is not None:
            raise InputError(f"no list for user {result.user_id}: {result.error.message}")
        places[result.user_id] = next((i.list_position for i in result.items if i.item_id == item), None)
    return places


def buyers_of(shop: Shop, items: Sequence[str]) -> dict[str, int]:
    """Count for each shopper how many of some items they have bought; none are left out."""
    wanted = set(items)
    counts = {user: len(wanted.intersection(history)) for user, history in shop.bought.items()}
    return {user: count for user, count in counts.items() if count}


def add_product(client: Client, item: Item) -> float:
    """Add the product and return the milliseconds that it took.

    Raises:
        InputError: the catalogue has it already, or the server does not take it.
    """
    try:
        client.get_item(item.item_id)
    except ServiceError as error:
        if error.reason != "ITEM_NOT_FOUND":
            raise
    else:
        raise InputError(f"product_id: the catalogue has '{item.item_id}' already; name another")
    begin = time.perf_counter()
    result = client.upsert_items([item])
    spent = (time.perf_counter() - begin) * 1000
    if result.rejects:
        raise InputError(f"product: {result.rejects[0].message}")
    return spent


def _place(item: str, ids: Sequence[str]) -> str:
    """Return where an item stands, in words."""
    return f"place {ids.index(item) + 1}" if item in ids else f"not in the first {len(ids)}"


def _row(name: str, group: Found) -> list[str]:
    def share(count: int) -> str:
        return f"{count} ({count / group.lists:.0%})" if group.lists else "0"

    best = f"place {group.best[0][0]}, shopper {group.best[0][1]}" if group.best else "in none"
    return [name, str(group.lists), share(group.first_ten), share(group.anywhere), best]


def _seen_by(client: Client, config: DemoConfig, shop: Shop, alike: Sequence[str], screen: Screen) -> None:
    """Look through the lists of those who should see the product and of others, and say what was found."""
    counts = buyers_of(shop, alike)
    fitting = [user for user, count in counts.items() if count >= ENOUGH]
    groups = {
        f"bought {ENOUGH} or more of the {len(alike)} most alike": shop.sample(fitting, GROUP),
        "bought none of them": shop.sample(shop.bought.keys() - counts.keys(), GROUP),
    }
    found = {
        name: Found.of(places_of(client, shop, config.product_id, users, screen))
        for name, users in groups.items()
    }
    screen.table(
        ("shoppers who", "=lists", "=in the first 10", f"=in the first {DEPTH}", "=best"),
        [_row(name, group) for name, group in found.items()],
    )
    first, other = found.values()
    if not first.anywhere and not other.anywhere:
        screen.say("It stands in none of these lists today: this model has not learnt to place it.")
        return
    place, user = (first.best or other.best)[0]
    query = RecommendQuery(user_id=user, page_size=DEPTH, explain=True, request_time=shop.now)
    entry = next((i for i in client.recommend(query).items if i.item_id == config.product_id), None)
    reason = entry.reasons[0].text if entry is not None and entry.reasons else "none is given"
    screen.say(
        f"Shopper {user}, who has bought {counts.get(user, 0)} of the most alike, has it on place {place}.",
        f"The reason given: {reason}.",
    )
    rates = [group.anywhere / max(group.lists, 1) for group in (first, other)]
    if rates[0] > rates[1]:
        screen.say("It stands more often where it belongs.")
    else:
        screen.say("It does not stand more often where it belongs: this model does not know better.")


def show_product(client: Client, config: DemoConfig, shop: Shop, screen: Screen) -> None:
    """Add the product, and look for it in similar items, search and lists of those who should see it."""
    product = Item(config.product_id, config.product or LUNCH_BAG)
    title = str(next(iter(product.attributes.values())))
    spent = add_product(client, product)
    begin = time.perf_counter()
    near = client.similar_items(SimilarQuery(item_id=config.product_id, page_size=ALIKE)).items
    searched = client.search_items(SearchQuery(title, page_size=10)).items
    until = (time.perf_counter() - begin) * 1000
    screen.say(
        f"Typed a moment ago: {', '.join(f'{name} {value}' for name, value in product.attributes.items())}.",
        f"Added in {spent:.0f} ms under the id {config.product_id!r};",
        f"{until:.0f} ms later it had been searched for and put beside similar items. Nothing was rebuilt.",
    )
    alike = [item.item_id for item in near]
    screen.say(f"- most alike: {', '.join(f'{i.title} ({i.similarity:.2f})' for i in near[:NEIGHBOURS])}")
    screen.say(f"- in a search for {title!r}: {_place(config.product_id, [i.item_id for i in searched])}")
    for item in alike[:NEIGHBOURS]:
        beside = client.similar_items(SimilarQuery(item_id=item, page_size=DEPTH)).items
        place = _place(config.product_id, [i.item_id for i in beside])
        screen.say(f"- among the items similar to {shop.title(item)!r}: {place}")
    _seen_by(client, config, shop, alike, screen)
