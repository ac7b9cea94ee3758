"""Scene: a text search, anonymous and personalised."""

from __future__ import annotations

from collections.abc import Sequence

from serving.cli.story.screens import NEW, Screen, column_rows, marked
from serving.cli.story.shop import Shop
from shelfwise_client import Client, SearchQuery


def show_search(client: Client, shop: Shop, query: str, users: Sequence[str], screen: Screen) -> None:
    """Show the anonymous results beside those of the user whose history changes the order most."""
    found = {
        user: client.search_items(SearchQuery(query, user_id=user, page_size=10)).items for user in users
    }
    anonymous = client.search_items(SearchQuery(query, page_size=10)).items
    order = [item.item_id for item in anonymous]

    def moved(user: str) -> int:
        return sum(item.item_id != other for item, other in zip(found[user], order, strict=False))

    shopper = max(users, key=moved)
    counts = shop.titles_with(query)
    known = {word: count for word, count in counts.items() if count}
    words_text = (
        f"Words of {query!r} in titles: {', '.join(f'{word} in {count}' for word, count in counts.items())}."
    )
    screen.say(
        words_text, "" if known else "No title has any of them; what is found is found by what it means."
    )
    screen.table(
        ("#", "anybody", f"shopper {shopper} ({NEW} not in the list on the left)"),
        column_rows(
            (
                [item.title for item in anonymous],
                [marked(item.item_id, item.title, order) for item in found[shopper]],
            )
        ),
    )
    same = sum(item.item_id in order for item in found[shopper])
    screen.say(
        f"{moved(shopper)} of {len(order)} places differ, {same} of the items are the same: taste decides",
        "between items that fit about equally well.",
    )
