"""Lists for the views: from the loaded bundle or from a server, described in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from explorer.context import ExplorerContext
from explorer.model import LoadedModel
from explorer.problems import PageError
from explorer.server import server_of
from ranking.catalogue.filter_language import FilterError, compile_filter, evaluate
from ranking.catalogue.live_catalogue import LiveCatalogue
from ranking.filtering import filter_requests
from ranking.types import History, Recommendation, Request
from serving.model.item_cards import ItemCards
from shelfwise_client import RecommendedItem, RecommendQuery
from shelfwise_client.v1 import recommendations_pb2 as pb

MAX_K: Final = 100
"""Longest list that a page shows."""
MAX_INTENT_CHARS: Final = 500


@dataclass(frozen=True)
class ListOptions:
    """Options of a list, as the address of a page has them."""

    k: int = 10
    filter: str = ""
    intent: str = ""
    exclude_seen: bool | None = None
    """None takes the bundle's."""
    diversity: float | None = None
    """0 to 1; None takes the bundle's."""
    novelty: float | None = None
    """0 to 1; None takes the bundle's."""
    at: int | None = None
    """Unix seconds that the list is made for; None is a second after the last event, at a server now."""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> ListOptions:
        """Read query parameters; an empty one counts as missing.

        Raises:
            PageError: a value that is none, naming the parameter.

        """
        given = {name: text.strip() for name, text in values.items() if text.strip()}
        seen = given.get("exclude_seen", "")
        if seen not in ("", "yes", "no"):
            raise _wrong("exclude_seen", seen, "yes or no")
        return cls(
            k=_whole("k", given.get("k", "10"), MAX_K),
            filter=given.get("filter", ""),
            intent=given.get("intent", "")[:MAX_INTENT_CHARS],
            exclude_seen=None if not seen else seen == "yes",
            diversity=_share("diversity", given.get("diversity")),
            novelty=_share("novelty", given.get("novelty")),
            at=_time("at", given.get("at")),
        )


@dataclass(frozen=True)
class ShownItem:
    """One item of a list."""

    item: RecommendedItem
    row: int
    """Of the catalogue; -1 where the list is a server's."""
    sources: tuple[str, ...]
    """Every source that proposed it, the credited one first; of a server's list the credited one alone."""


@dataclass(frozen=True)
class ShownList:
    """A list, and what it was made from."""

    items: tuple[ShownItem, ...]
    degradation: str
    """Degradation level, see `ranking.types.Recommendation`."""
    version: str
    """Of the bundle that made it."""


def local_list(model: LoadedModel, history: History, options: ListOptions) -> ShownList:
    """Make a list with the loaded bundle.

    Raises:
        PageError: the filter is invalid.

    """
    request = list_request(model, history, options)
    answer = model.recommender.recommend([request])[0]
    described = _described(model, answer, options.intent)
    proposals = _proposals(model, request)
    shown = []
    for item, words in zip(answer.items, described, strict=True):
        others = [name for name, rows in proposals.items() if item.row in rows and name != item.source]
        shown.append(ShownItem(words, item.row, (item.source, *others)))
    return ShownList(tuple(shown), answer.degradation, model.version)


def list_request(model: LoadedModel, history: History, options: ListOptions) -> Request:
    """Return the request that options stand for; the same list is made by a server with this bundle.

    Raises:
        PageError: the filter is invalid.

    """
    rerank = model.bundle.manifest.get("rerank", {})
    intent = None
    if options.intent:
        intent = model.bundle.encode_queries([options.intent])[0]
    diversity = float(rerank.get("diversity", 0.0)) if options.diversity is None else options.diversity
    return Request(
        history=history,
        now=model.now if options.at is None else options.at,
        k=options.k,
        allowed=filter_mask(model, options.filter),
        exclude_seen=model.bundle.exclude_seen if options.exclude_seen is None else options.exclude_seen,
        diversity=diversity,
        novelty=options.novelty,
        intent=intent,
        query_text=options.intent,
        explain=True,
    )


def filter_mask(model: LoadedModel, expression: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
    """Return the mask of a filter expression, [items]; None without one.

    Raises:
        PageError: the expression is invalid.

    """
    if not expression:
        return None
    frame = model.bundle.catalogue.frame
    try:
        return evaluate(frame, compile_filter(frame.schema, expression))
    except FilterError as error:
        raise PageError(
            400, "The filter is not valid", f"filter: {error} (character {error.column})"
        ) from error


def server_list(context: ExplorerContext, user: str, options: ListOptions) -> ShownList:
    """Ask the server for a list.

    Raises:
        PageError: it does not answer, or refuses.

    """
    query = RecommendQuery(
        user_id=user,
        intent=options.intent,
        page_size=options.k,
        filter=options.filter,
        exclude_seen=options.exclude_seen,
        diversity=options.diversity,
        novelty=options.novelty,
        explain=True,
        request_time=None if options.at is None else datetime.fromtimestamp(options.at, UTC),
    )
    with server_of(context) as client:
        result = client.recommend(query)
    items = tuple(ShownItem(item, -1, (item.source,)) for item in result.items)
    return ShownList(items, result.degradation, result.model_version)


def _described(model: LoadedModel, answer: Recommendation, intent: str) -> list[RecommendedItem]:
    """Return the items with titles and reasons in the words of a server's response."""
    response = pb.RecommendResponse()
    cards = ItemCards(LiveCatalogue(model.bundle.catalogue))
    cards.recommended(response.items, answer, intent, explain=True, fields=None, before=0)
    return [RecommendedItem.of(message) for message in response.items]


def _proposals(model: LoadedModel, request: Request) -> dict[str, set[int]]:
    """Return the rows that each source proposes for a request, by its name."""
    recommender = model.recommender
    batch = recommender.histories([request])
    filtered = filter_requests([request], batch, recommender.texts, recommender.hidden, recommender.items)
    users = recommender.encode(filtered.batch)
    found = recommender.retrieve(filtered.batch, filtered.limits, users, filtered.intents, filtered.pins)
    return {name: set(rows[0].tolist()) - {-1} for name, rows in found.proposals.items()}


def _wrong(name: str, text: str, needed: str) -> PageError:
    return PageError(400, "This address has a wrong value", f"{name}: “{text[:80]}” is not {needed}.")


def _whole(name: str, text: str, most: int) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most:
        return int(text)
    raise _wrong(name, text, f"a whole number from 1 to {most}")


def _share(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0.0 <= value <= 1.0:
        return value
    raise _wrong(name, text, "a number from 0 to 1")


def _time(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise _wrong(name, text, "an ISO time, for example 2011-11-20T12:00") from error
