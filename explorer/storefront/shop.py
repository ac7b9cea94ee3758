"""The calls of a shop: lists for a visit, what an action changes in them, the shelf, search, and actions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from explorer.storefront.visit import STEP, Action, Ledger, RecordedKind, ShopAddress, Visit
from shelfwise_client import (
    Client,
    Event,
    RecommendedItem,
    RecommendQuery,
    RecommendResult,
    SearchQuery,
    SearchResult,
    SessionEvent,
    SimilarQuery,
)
from shelfwise_client.v1 import recommendations_pb2 as pb

FOR_YOU: Final = 12
"""Items of the list beside the shelf."""
SHELF: Final = 24
SIMILAR: Final = 8
FOUND: Final = 24
COPIED_EVENTS: Final = 300
"""Newest events of a copied history; a session takes 500 events, actions included."""
SURFACE: Final = "storefront"


class ShopError(Exception):
    """An action that the server did not take, in words for the page."""


@dataclass(frozen=True)
class Entry:
    """An item of the list, and how it came to its place."""

    item: RecommendedItem
    before: int | None
    """Its place in the list before the last action; None where it was not in it."""
    change: str
    """`new`, `up`, `down` or `same`, against the list before the last action; empty without one."""

    @property
    def by(self) -> int:
        """Places that it moved; 0 for a new one."""
        return 0 if self.before is None else abs(self.before - self.item.list_position)


@dataclass(frozen=True)
class ForYou:
    """The list of a visit."""

    entries: tuple[Entry, ...]
    left: tuple[RecommendedItem, ...]
    """Items of the former list that are in it no more."""
    degradation: str
    token: str
    """Attribution token."""

    @property
    def changed(self) -> int:
        """How many entries are new or moved."""
        return sum(entry.change not in ("", "same") for entry in self.entries)


def compared(
    after: Sequence[RecommendedItem], before: Sequence[RecommendedItem] | None
) -> tuple[tuple[Entry, ...], tuple[RecommendedItem, ...]]:
    """Return the entries of a list with their changes, and the items that left it.

    Args:
        after: the list.
        before: the list before the last action; None without an action.

    """
    if before is None:
        return tuple(Entry(item, None, "") for item in after), ()
    places = {item.item_id: place for place, item in enumerate(before, start=1)}
    entries = []
    for place, item in enumerate(after, start=1):
        former = places.get(item.item_id)
        change = "new"
        if former is not None:
            change = "up" if former > place else "down" if former < place else "same"
        entries.append(Entry(replace(item, list_position=place), former, change))
    now = {item.item_id for item in after}
    return tuple(entries), tuple(item for item in before if item.item_id not in now)


@dataclass(frozen=True)
class Shop:
    """A server seen by a visitor."""

    client: Client
    ledger: Ledger
    kinds: Mapping[Action, RecordedKind]
    history: Callable[[str], Sequence[SessionEvent]] | None = None
    """Events of a shopper who is copied, oldest first; None where no histories are at hand."""
    start: int | None = None
    """Unix seconds at which the shop's clock stands: the end of its data. None: the server's own clock."""
    writes: bool = True
    """Whether actions are recorded; otherwise they are sent with each request and not stored."""

    def for_you(self, address: ShopAddress) -> ForYou:
        """Return the list of a visit, compared with the one before its last action.

        Both are made now, so that they differ by that action alone: what others did meanwhile, and what the
        model has counted since, is in both.

        Raises:
            ServiceError: the server does not answer.

        """
        visit = address.visit
        result = self._list(visit, len(visit.done), address.intent, FOR_YOU)
        before = None
        if visit.done:
            before = self._list(visit, len(visit.done) - 1, address.intent, FOR_YOU, False).items
        entries, left = compared(result.items, before)
        return ForYou(entries, left, result.degradation, result.attribution_token)

    def shelf(self, expression: str, page: str = "") -> RecommendResult:
        """Return a page of the products that pass a filter, popular ones first."""
        query = RecommendQuery(
            page_size=SHELF, page_token=page, filter=expression, surface=SURFACE, request_time=self._time(0)
        )
        return self.client.recommend(query)

    def search(self, address: ShopAddress, expression: str = "") -> SearchResult:
        """Return what a search finds for a visit."""
        user, session, _ = self._context(address.visit, len(address.visit.done))
        query = SearchQuery(
            address.query,
            user_id=user,
            session=session,
            page_size=FOUND,
            filter=expression,
            explain=True,
            surface=SURFACE,
        )
        return self.client.search_items(query)

    def similar(self, item_id: str) -> Sequence[pb.SimilarItem]:
        """Return the items most like one."""
        query = SimilarQuery(item_id=item_id, page_size=SIMILAR, surface=SURFACE)
        return list(self.client.similar_items(query).items)

    def act(self, visit: Visit, action: Action, item_id: str, token: str = "", position: int = 0) -> Visit:
        """Carry out an action; it is recorded where the shop writes.

        Args:
            visit: before it.
            action: what is done.
            item_id: with which item.
            token: attribution token of the list in which the shopper saw the item; empty for none.
            position: its place in that list; 0 for none.

        Returns:
            The visit after it. It has another id where other actions were recorded under the former one.

        Raises:
            ShopError: the server refuses it, or the visit is too long.
            ServiceError: the server does not answer.

        """
        try:
            after = visit.after(action, item_id)
        except ValueError as error:
            raise ShopError(str(error)) from error
        if not self.writes:
            return after
        first = len(visit.done)
        if not self.ledger.may_continue(visit):
            after, first = replace(after, id=Visit.new().id), 0
        times = self._times(after, first)
        events = []
        for number in range(first, len(after.done)):
            done, last = after.done[number], number + 1 == len(after.done)
            events.append(
                Event(
                    after.user_id,
                    done.item_id,
                    self.kinds[done.action].name,
                    time=datetime.fromtimestamp(times[number], UTC),
                    event_id=after.event_id(number),
                    attribution_token=token if last else "",
                    list_position=position if last and token else 0,
                )
            )
        result = self.client.record_events(events)
        if result.rejects:
            raise ShopError(result.rejects[0].message)
        self.ledger.add(after, times)
        return after

    def recorded(self, visit: Visit) -> bool:
        """Return whether all actions of a visit are recorded at the server by this explorer."""
        times = self.ledger.times(visit)
        return times is not None and len(times) >= len(visit.done)

    def _times(self, visit: Visit, first: int) -> list[int]:
        """Return the times of all actions of a visit, those before `first` as recorded."""
        count = len(visit.done)
        if self.start is not None:
            return [self.start + STEP * (number + 1) for number in range(count)]
        before = (self.ledger.times(visit) or [])[:first]
        # Each in a second of its own, so that the list before an action can be asked for.
        newest = max(int(time.time()), before[-1] + 1 if before else 0)
        return [*before, *(newest - (count - 1 - number) for number in range(first, count))]

    def _time(self, count: int, recorded: Sequence[int] = ()) -> datetime | None:
        """Return the time of a list made after so many actions: that of the next one, which it excludes."""
        if self.start is not None:
            return datetime.fromtimestamp(self.start + STEP * (count + 1), UTC)
        return datetime.fromtimestamp(recorded[count], UTC) if count < len(recorded) else None

    def _context(self, visit: Visit, count: int) -> tuple[str, tuple[SessionEvent, ...], Sequence[int]]:
        """Return user id and session of a list made after the first `count` actions, and recorded times."""
        times = self.ledger.times(visit) or []
        stored = min(len(times), count)
        session = []
        user = visit.user_id if stored else ""
        if visit.shopper and self.history is not None:
            session += list(self.history(visit.shopper))[-COPIED_EVENTS:]
        elif visit.shopper and not stored:
            user = visit.shopper
        for number in range(stored, count):
            done = visit.done[number]
            moment = None
            if self.start is not None:
                moment = datetime.fromtimestamp(self.start + STEP * (number + 1), UTC)
            session.append(SessionEvent(done.item_id, self.kinds[done.action].name, moment))
        return user, tuple(session), times

    def _list(
        self, visit: Visit, count: int, intent: str, size: int, explain: bool = True
    ) -> RecommendResult:
        user, session, times = self._context(visit, count)
        query = RecommendQuery(
            user_id=user,
            session=session,
            intent=intent,
            page_size=size,
            explain=explain,
            surface=SURFACE,
            request_time=self._time(count, times),
        )
        return self.client.recommend(query)
