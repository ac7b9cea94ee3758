"""Scene: erasure of a user; stored data and lists before and after."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from conf.errors import InputError
from features.data import schema
from ranking.bundle.bundle import HISTORIES
from serving.cli.story.screens import Screen, column_rows, marked
from serving.cli.story.shop import Shop
from shelfwise_client import Client, RecommendQuery


def stored_rows(artifacts: Path, user: str) -> int:
    """Count a user's rows in a store's histories file."""
    rows = pl.scan_parquet(artifacts / HISTORIES).filter(pl.col(schema.USER_ID) == user)
    return int(rows.select(pl.len()).collect().item())


def show_erasure(client: Client, shop: Shop, artifacts: Path, user: str, k: int, screen: Screen) -> None:
    """Erase a user, and compare lists, counts and files before and after.

    Raises:
        InputError: the erasure was incomplete.
    """

    def recommend(user_id: str) -> tuple[str, list[str], list[str]]:
        page = client.recommend(RecommendQuery(user_id=user_id, page_size=k, request_time=shop.now))
        return page.degradation, [i.item_id for i in page.items], [i.title for i in page.items]

    _, before, before_titles = recommend(user)
    status, rows = client.status(), stored_rows(artifacts, user)
    deleted = client.delete_user(user).deleted_event_count
    degradation, after, after_titles = recommend(user)
    _, anonymous, _ = recommend("")
    left, new_status = stored_rows(artifacts, user), client.status()
    titles = [marked(item, title, before) for item, title in zip(after, after_titles, strict=True)]
    screen.table(
        ("#", f"shopper {user}, before", "the same id, afterwards"), column_rows((before_titles, titles))
    )
    screen.say(
        f"DeleteUser took out {deleted:,} stored events; {rows:,} rows of {HISTORIES} have become {left:,}.",
        f"Shoppers known to the server: {status.user_count:,}, then {new_status.user_count:,};",
        f"events: {status.event_count:,}, then {new_status.event_count:,}.",
    )
    same = after == anonymous
    screen.say(
        f"The list afterwards (answered from: {degradation.replace('_', ' ')}) is",
        "an anonymous visitor's, item by item." if same else "NOT that of an anonymous visitor.",
    )
    if left or new_status.user_count != status.user_count - 1 or degradation == "none":
        raise InputError(f"user {user} was erased, but something of them is left")
