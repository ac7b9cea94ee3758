"""A shopper's history beside the list that is made from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from explorer.context import ExplorerContext
from explorer.items import ItemCard
from explorer.lists import ListOptions, ShownItem, ShownList, local_list, server_list
from explorer.model import LoadedModel
from explorer.problems import PageError, unknown_shopper
from explorer.rendering import render
from explorer.shoppers import Like, PastEvent
from explorer.view import Page

SHOWN_EVENTS: Final = 60
"""Newest events of a history that are shown; lists are made from more."""
OPEN_EVENTS: Final = 10
"""Of those the ones that are open to see: on a phone the list comes after the history."""
DEGRADATIONS: Final = {
    "none": "personalised with the history",
    "session_only": "no stored history: personalised with the session only",
    "text_only": "answered from the words",
    "popularity": "nothing is known about this shopper: popular items",
    "history_unavailable": "the stored history could not be read",
    "candidates_unavailable": "vectors could not be searched: neighbours and popular items only",
}
_LIKES: Final = {
    Like.random: "anybody", Like.new: "new: few events", Like.loyal: "loyal: many events",
    Like.cold: "cold: a visitor without events",
}  # fmt: skip


@dataclass(frozen=True)
class ShownEvent:
    """An event of the history."""

    event: PastEvent
    card: ItemCard | None
    """None for an item that the catalogue no longer has."""


@dataclass(frozen=True)
class Entry:
    """An item of the list."""

    shown: ShownItem
    card: ItemCard | None
    """None where the list is a server's."""
    seen: bool
    """Whether it is in the history."""


def shopper(request: Request, context: ExplorerContext) -> Response:
    """Show the form, and with a shopper in the address history and list."""
    options = ListOptions.of(request.query_params)
    if context.loader is None:
        return _from_server(request, context, options)
    model = context.model()
    like = _like(request)
    wanted = request.query_params.get("user", "").strip()
    if not wanted and like is None:
        return _page(request, context, options, model=model)
    user, matches = _chosen(request, context, model, wanted, like)
    if user is None and matches:
        return _page(request, context, options, model=model, matches=matches, wanted=wanted)
    events = [] if user is None else model.shoppers.events(user)
    history = model.shoppers.history(user or "")
    made = local_list(model, history, options)
    seen = set(history.items.tolist())
    newest = events[::-1][:SHOWN_EVENTS]
    return _page(
        request,
        context,
        options,
        model=model,
        user=user,
        like=like,
        made=made,
        events=[ShownEvent(e, model.items.card(e.row) if e.row >= 0 else None) for e in newest],
        event_count=len(events),
        entries=[Entry(i, model.items.card(i.row), i.row in seen) for i in made.items],
        now=model.now if options.at is None else options.at,
    )


def _chosen(
    request: Request, context: ExplorerContext, model: LoadedModel, wanted: str, like: Like | None
) -> tuple[str | None, list[str]]:
    """Return the shopper of an address, or else the ids that its text is the beginning of.

    Raises:
        PageError: there is no such shopper.

    """
    if not wanted:
        assert like is not None
        return model.shoppers.draw(like, _seed(request)), []
    user = stored_id(context, model, wanted)
    if model.shoppers.position(user) is not None:
        return user, []
    matches = model.shoppers.beginning_with(wanted)
    if matches:
        return None, matches
    raise unknown_shopper(wanted, model.shoppers.ids, "/shopper?user={}")


def stored_id(context: ExplorerContext, model: LoadedModel, user: str) -> str:
    """Return the id under which a shopper's history is stored, see `LoadedModel.stored_id`."""
    return model.stored_id(user, _pseudonym_key(context))


def _pseudonym_key(context: ExplorerContext) -> str:
    return os.environ.get(context.privacy.key_env, "")


def _from_server(request: Request, context: ExplorerContext, options: ListOptions) -> Response:
    """Show a list from the server; it does not say what is in a history."""
    user = request.query_params.get("user", "").strip()
    like = _like(request)
    if like not in (None, Like.cold):
        raise PageError(
            404,
            "Shoppers are drawn from a bundle",
            "A server does not list its shoppers. Type an id, or start the explorer with artifacts=DIR, too.",
        )
    if not user and like is None:
        return _page(request, context, options)
    made = server_list(context, user, options)
    entries = [Entry(item, None, False) for item in made.items]
    return _page(request, context, options, user=user or None, like=like, made=made, entries=entries)


def _like(request: Request) -> Like | None:
    text = request.query_params.get("like", "")
    if not text:
        return None
    try:
        return Like(text)
    except ValueError:
        known = ", ".join(like.value for like in Like)
        raise PageError(
            400, "This address has a wrong value", f"like: “{text[:80]}” is none of {known}."
        ) from None


def _seed(request: Request) -> int:
    text = request.query_params.get("seed", "0").strip() or "0"
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    raise PageError(400, "This address has a wrong value", f"seed: “{text[:80]}” is not a whole number.")


def _page(
    request: Request,
    context: ExplorerContext,
    options: ListOptions,
    *,
    model: LoadedModel | None = None,
    user: str | None = None,
    like: Like | None = None,
    made: ShownList | None = None,
    events: list[ShownEvent] | None = None,
    event_count: int = 0,
    entries: list[Entry] | None = None,
    matches: list[str] | None = None,
    wanted: str = "",
    now: int = 0,
) -> Response:
    """Render the page in any of its states."""
    kept = {n: v for n, v in request.query_params.items() if n not in ("user", "like", "seed") and v}
    return render(
        request,
        "shopper.html.jinja",
        model=model,
        options=options,
        user=user,
        like=like,
        likes=_LIKES,
        seed=_seed(request),
        made=made,
        said=None if made is None else DEGRADATIONS.get(made.degradation, made.degradation),
        events=events,
        event_count=event_count,
        open_events=OPEN_EVENTS,
        entries=entries or [],
        matches=matches,
        wanted=wanted,
        now=now,
        hashed=model is not None and bool(model.bundle.manifest.get("hash_users")),
        hashed_key=bool(_pseudonym_key(context)),
        kept=urlencode(kept),
        views_by_name={view.name: view for view in request.app.state.views},
    )


PAGES = (Page("", shopper),)
