"""Scene: a new product, added to the running server and looked up in lists and search."""

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
"""The default product."""
DEPTH = 100
"""Length of the inspected lists."""
SIMILAR = 20
"""Items most similar to the product; their buyers are its target group."""
MIN_BOUGHT = 3
"""Similar items that a user of the target group has bought at least."""
NEIGHBOURS = 3
"""Most similar items that are shown, and whose own similar items are inspected."""
GROUP = 300
"""Users whose lists are inspected, of the target group and of the others."""


@dataclass(frozen=True)
class Found:
    """Ranks of an item in the lists of a group of users."""

    lists: int
    first_ten: int
    anywhere: int
    best: tuple[tuple[int, str], ...]
    """Rank and user of the lists that contain it, best ranks first."""

    @classmethod
    def of(cls, ranks: Mapping[str, int | None]) -> Found:
        """Count, from each user's rank or None."""
        ranked = sorted((rank, user) for user, rank in ranks.items() if rank is not None)
        return cls(len(ranks), sum(rank <= 10 for rank, _ in ranked), len(ranked), tuple(ranked))


def ranks_of(
    client: Client, shop: Shop, item: str, users: Sequence[str], screen: Screen
) -> dict[str, int | None]:
    """Return the item's rank in each user's list, None if it is not in the first `DEPTH`."""
    query = BatchQuery(
        user_ids=tuple(users), list_size=DEPTH, fields=("item_id", "list_position"), request_time=shop.now
    )
    ranks: dict[str, int | None] = {}
    stream = client.batch_recommend(query)
    quiet = not screen.console.is_terminal
    results = track(
        stream, "asking for lists", len(users), console=screen.console, transient=True, disable=quiet
    )
    for result in results:
        if result.error is not None:
            raise InputError(f"no list for user {result.user_id}: {result.error.message}")
        ranks[result.user_id] = next((i.list_position for i in result.items if i.item_id == item), None)
    return ranks


def buyers_of(shop: Shop, items: Sequence[str]) -> dict[str, int]:
    """Return user -> number of these items in the user's history, without zeros."""
    chosen = set(items)
    counts = {user: len(chosen.intersection(history)) for user, history in shop.bought.items()}
    return {user: count for user, count in counts.items() if count}


def add_product(client: Client, item: Item) -> float:
    """Add the product and return the milliseconds that it took.

    Raises:
        InputError: it is in the catalogue already, or it cannot be sent, or the server rejects it.
    """
    try:
        client.get_item(item.item_id)
    except ServiceError as error:
        if error.reason != "ITEM_NOT_FOUND":
            raise
    else:
        raise InputError(f"product_id: the catalogue has '{item.item_id}' already; name another")
    begin = time.perf_counter()
    try:
        result = client.upsert_items([item])
    except ValueError as error:
        raise InputError(f"product: {error}") from error
    milliseconds = (time.perf_counter() - begin) * 1000
    if result.rejects:
        raise InputError(f"product: {result.rejects[0].message}")
    return milliseconds


def _rank_text(item: str, ids: Sequence[str]) -> str:
    """Return an item's rank in a list, in words."""
    return f"place {ids.index(item) + 1}" if item in ids else f"not in the first {len(ids)}"


def _row(name: str, group: Found) -> list[str]:
    def share(count: int) -> str:
        return f"{count} ({count / group.lists:.0%})" if group.lists else "0"

    best = f"place {group.best[0][0]}, shopper {group.best[0][1]}" if group.best else "in none"
    return [name, str(group.lists), share(group.first_ten), share(group.anywhere), best]


def _show_audience(
    client: Client, config: DemoConfig, shop: Shop, similar: Sequence[str], screen: Screen
) -> None:
    """Show how often the product is in lists of its target group and of other users."""
    counts = buyers_of(shop, similar)
    target_group = [user for user, count in counts.items() if count >= MIN_BOUGHT]
    groups = {
        f"bought {MIN_BOUGHT} or more of the {len(similar)} most alike": shop.sample(target_group, GROUP),
        "bought none of them": shop.sample(shop.bought.keys() - counts.keys(), GROUP),
    }
    found = {
        name: Found.of(ranks_of(client, shop, config.product_id, users, screen))
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
    rank, user = (first.best or other.best)[0]
    query = RecommendQuery(user_id=user, page_size=DEPTH, explain=True, request_time=shop.now)
    entry = next((i for i in client.recommend(query).items if i.item_id == config.product_id), None)
    reason = entry.reasons[0].text if entry is not None and entry.reasons else "none is given"
    screen.say(
        f"Shopper {user}, who has bought {counts.get(user, 0)} of the most alike, has it on place {rank}.",
        f"The reason given: {reason}.",
    )
    rates = [group.anywhere / max(group.lists, 1) for group in (first, other)]
    if rates[0] > rates[1]:
        screen.say("It stands more often where it belongs.")
    else:
        screen.say("It does not stand more often where it belongs: this model does not know better.")


def show_product(client: Client, config: DemoConfig, shop: Shop, screen: Screen) -> None:
    """Add the product, and look it up in similar items, search and lists of its target group."""
    product = Item(config.product_id, config.product or LUNCH_BAG)
    title = str(next(iter(product.attributes.values())))
    added_ms = add_product(client, product)
    begin = time.perf_counter()
    nearest = client.similar_items(SimilarQuery(item_id=config.product_id, page_size=SIMILAR)).items
    searched = client.search_items(SearchQuery(title, page_size=10)).items
    found_ms = (time.perf_counter() - begin) * 1000
    screen.say(
        f"Typed a moment ago: {', '.join(f'{name} {value}' for name, value in product.attributes.items())}.",
        f"Added in {added_ms:.0f} ms under the id {config.product_id!r};",
        f"{found_ms:.0f} ms later it had been searched for and put beside similar items.",
        "Nothing was rebuilt.",
    )
    similar = [item.item_id for item in nearest]
    named = ", ".join(f"{i.title} ({i.similarity:.2f})" for i in nearest[:NEIGHBOURS])
    screen.say(f"- most alike: {named}")
    rank = _rank_text(config.product_id, [i.item_id for i in searched])
    screen.say(f"- in a search for {title!r}: {rank}")
    for item in similar[:NEIGHBOURS]:
        neighbours = client.similar_items(SimilarQuery(item_id=item, page_size=DEPTH)).items
        rank = _rank_text(config.product_id, [i.item_id for i in neighbours])
        screen.say(f"- among the items similar to {shop.title(item)!r}: {rank}")
    _show_audience(client, config, shop, similar, screen)
