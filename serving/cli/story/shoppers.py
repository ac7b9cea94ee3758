"""Scenes: lists of known users, and how the list of an anonymous visitor changes with clicks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from conf.errors import InputError
from conf.serving import DemoConfig
from serving.cli.story.screens import NEW, ROWS, Screen, column_rows, listed, marked
from serving.cli.story.shop import Shop
from shelfwise_client import (
    BatchQuery,
    Client,
    RecommendedItem,
    RecommendQuery,
    RecommendResult,
    SessionEvent,
)

SAMPLE = 200
"""Users from whose lists the shown ones are chosen."""
FRESH = 3
"""Length of the list without items of the history."""
CLICKED = ROWS
"""Position that the visitor clicks on: the last one shown."""


@dataclass(frozen=True)
class Shopper:
    """A user with the served list."""

    user: str
    items: tuple[RecommendedItem, ...]

    def reasons(self) -> set[str]:
        """Return the kinds of the items' first reasons."""
        return {item.reasons[0].kind for item in self.items if item.reasons}

    def variety(self) -> int:
        """Return the number of distinct first reasons plus sources."""
        return len(self.reasons()) + len({item.source for item in self.items})

    def new_items(self, shop: Shop) -> int:
        """Return the number of items that are not in the user's history."""
        return sum(item.item_id not in shop.bought[self.user] for item in self.items)


@dataclass(frozen=True)
class Chosen:
    """The users of the demonstration."""

    shown: tuple[Shopper, ...]
    among: tuple[Shopper, ...]
    """The sample that they were chosen from; empty where they were configured."""

    @property
    def users(self) -> list[str]:
        """Ids of the shown users."""
        return [shopper.user for shopper in self.shown]


def lists_of(client: Client, shop: Shop, users: Sequence[str], k: int) -> list[Shopper]:
    """Request the lists of users in one stream, with reasons."""
    query = BatchQuery(user_ids=tuple(users), list_size=k, explain=True, request_time=shop.now)
    found = [Shopper(result.user_id, result.items) for result in client.batch_recommend(query)]
    for shopper in found:
        if not shopper.items:
            raise InputError(f"the server returned no items for user {shopper.user}")
    return found


def choose(lists: Sequence[Shopper], shop: Shop, count: int) -> list[Shopper]:
    """Greedily choose users with many distinct sources and first reasons and few items shared with others.

    The score is the number of sources and reasons, minus items shared with users chosen before; new items
    break ties.
    """
    chosen: list[Shopper] = []
    while len(chosen) < min(count, len(lists)):
        shown = {item.item_id for shopper in chosen for item in shopper.items}

        def rank(shopper: Shopper, shown: set[str] = shown) -> tuple[int, int, str]:
            shared = sum(item.item_id in shown for item in shopper.items)
            return shopper.variety() - shared, shopper.new_items(shop), shopper.user

        chosen.append(max((s for s in lists if s not in chosen), key=rank))
    return chosen


def why(item: RecommendedItem) -> str:
    """Return the first reason's text; the source where there is none."""
    return item.reasons[0].text if item.reasons else f"(from {item.source})"


def check_named(shop: Shop, users: Sequence[str]) -> None:
    """Check that users have histories.

    Raises:
        InputError: a user without history.
    """
    unknown = [user for user in users if user not in shop.bought]
    if unknown:
        raise InputError(f"users: '{unknown[0]}' has no stored history")


def choose_shoppers(client: Client, shop: Shop, config: DemoConfig) -> Chosen:
    """Return the configured users, or choose from a sample of users with histories of medium length."""
    users = config.users or shop.sample(shop.middling(), SAMPLE)
    lists = lists_of(client, shop, users, config.k)
    if config.users:
        return Chosen(tuple(lists), ())
    return Chosen(tuple(choose(lists, shop, config.shoppers)), tuple(lists))


def show_shoppers(client: Client, chosen: Chosen, shop: Shop, screen: Screen) -> None:
    """Show histories beside lists, and statistics of the sample that the users were chosen from."""
    if chosen.among:
        items = [item for shopper in chosen.among for item in shopper.items]
        new = sum(shopper.new_items(shop) for shopper in chosen.among)
        reasons = Counter(item.reasons[0].kind for item in items if item.reasons).most_common()
        screen.say(
            f"Chosen by rule from {len(chosen.among)} shoppers with a middling history: the most varied",
            "sources and reasons, and few items in common.",
            f"In all {len(chosen.among)} lists {new / len(items):.0%} of {len(items):,} places are new to",
            f"the shopper; first reasons: {listed(reasons)}.",
        )
    for shopper in chosen.shown:
        history = shop.bought[shopper.user]
        past = [shop.title(item) for item in dict.fromkeys(reversed(history))]
        titles = [marked(item.item_id, item.title, history) for item in shopper.items]
        screen.table(
            ("#", "bought, newest first", f"recommended ({NEW} new to them)", "why", "=found by"),
            column_rows((past, titles, [why(i) for i in shopper.items], [i.source for i in shopper.items])),
            f"shopper {shopper.user}: {len(set(history))} items bought; {shopper.new_items(shop)} of"
            f" {len(shopper.items)} places new",
        )
        query = RecommendQuery(
            user_id=shopper.user, page_size=FRESH, exclude_seen=True, request_time=shop.now
        )
        fresh = client.recommend(query).items
        screen.say(f"New to them only (exclude_seen): {'; '.join(item.title for item in fresh)}.")


def show_visitor(client: Client, shop: Shop, k: int, screen: Screen) -> None:
    """Show an anonymous visitor's list before, between and after two clicks, and count the changes."""
    stored = client.status().event_count
    clicks: list[SessionEvent] = []
    pages: list[RecommendResult] = []
    for _ in range(3):
        query = RecommendQuery(
            session=tuple(clicks), page_size=max(k, CLICKED), explain=True, request_time=shop.now
        )
        pages.append(client.recommend(query))
        position = min(CLICKED, len(pages[-1].items))
        clicks.append(SessionEvent(pages[-1].items[position - 1].item_id))
    clicked = [shop.title(click.item_id) for click in clicks]
    screen.say(f"They click on {clicked[0]!r}, and then, in the new list, on {clicked[1]!r}.")
    columns = []
    for number, page in enumerate(pages):
        before = (
            {item.item_id for item in pages[number - 1].items} if number else {i.item_id for i in page.items}
        )
        columns.append([marked(item.item_id, item.title, before) for item in page.items])
    names = ("nothing known", "after the first click", "after the second click")
    screen.table(("#", *names), column_rows(columns))
    changed = [
        len({item.item_id for item in after.items} - {item.item_id for item in before.items})
        for before, after in zip(pages, pages[1:], strict=False)
    ]
    screen.say(
        f"The clicks come with the request, each on place {CLICKED} of the former list;",
        f"{client.status().event_count - stored} events were stored.",
        f"The first changed {changed[0]} of {len(pages[1].items)} places, the second {changed[1]} of"
        f" {len(pages[2].items)} ({NEW} was not in the list before).",
        f"Answered from: {', then '.join(page.degradation.replace('_', ' ') for page in pages)}.",
    )
    if not all(changed):
        screen.say("A click that changes nothing is a fault or a very small shop.")
