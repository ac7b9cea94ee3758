"""A visit to the shop: who the visitor is and what was done, all of it in the address of the page.

The address says everything, so that it can be shared: whoever opens it sees the same lists. What was done is
recorded at the server once, by the explorer in which it was done; for any other it is sent with each request
as the running session, which is not stored.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, urlencode

from features.data import schema
from features.data.histories import INTEREST
from serving.core.event_kinds import history_codes

PATH: Final = "/storefront"
MOST_ACTIONS: Final = 200
"""Actions of one visit; the address would become too long for some programs."""
STEP: Final = 10
"""Seconds between two actions by the clock of the shop, which stands at the end of its data."""
_VISIT: Final = re.compile(r"[0-9a-f]{8}")
_FILTER: Final = "f."


class Action(Enum):
    """What a shopper does with a product."""

    click = "click"
    cart = "cart"
    buy = "buy"


KIND_NAMES: Final[Mapping[Action, Sequence[str]]] = {
    Action.click: (
        "click", "view", "productclick", "clicks", "views", "viewitem", "productview", "itemview",
        "pageview", "detail", "detailview",
    ),
    Action.cart: (
        "addtocart", "cart", "carts", "addtobasket", "basket", "addtobag", "productadd", "addtowishlist",
        "favourite", "favorite",
    ),
    Action.buy: (
        "purchase", "buy", "order", "orders", "transaction", "purchases", "buys", "sale", "checkout",
    ),
}  # fmt: skip
"""Names of the event kinds of each action, without case and separators."""
_USUAL: Final[Mapping[Action, str]] = {
    Action.click: "click", Action.cart: "add_to_cart", Action.buy: "purchase",
}  # fmt: skip


@dataclass(frozen=True)
class RecordedKind:
    """The event kind that an action is recorded as."""

    name: str
    note: str = ""
    """What the model makes of it, where it was not trained on this kind."""


def kinds_of_actions(known: Sequence[str]) -> dict[Action, RecordedKind]:
    """Return the event kind of every action: one of the model's, else a usual one.

    Args:
        known: kinds of the model, strongest first.

    """
    by_key = {re.sub(r"[\W_]+", "", kind).lower(): kind for kind in reversed(known)}
    codes = history_codes(known)
    kinds: dict[Action, RecordedKind] = {}
    for action, names in KIND_NAMES.items():
        found = next((by_key[name] for name in names if name in by_key), None)
        if found is not None:
            kinds[action] = RecordedKind(found)
            continue
        usual = _USUAL[action]
        code = codes[usual]
        meaning = "a sign of interest" if code == INTEREST else f"“{known[code]}”"
        note = f"the model was not trained on “{usual}” and takes it as {meaning}"
        kinds[action] = RecordedKind(usual, note)
    return kinds


@dataclass(frozen=True)
class Done:
    """One thing that was done."""

    action: Action
    item_id: str


@dataclass(frozen=True)
class Visit:
    """Who the visitor is, and what was done, oldest first."""

    id: str
    """8 hexadecimal digits."""
    shopper: str = ""
    """Whose history the visitor begins with; empty for a new visitor."""
    done: tuple[Done, ...] = ()

    @classmethod
    def new(cls, shopper: str = "") -> Visit:
        """Return a visit without actions."""
        return cls(secrets.token_hex(4), shopper)

    @property
    def user_id(self) -> str:
        """Under which the server stores the visit; different from that of the shopper."""
        return f"storefront-{self.id}"

    def after(self, action: Action, item_id: str) -> Visit:
        """Return the visit after one more action.

        Raises:
            ValueError: there are `MOST_ACTIONS` already.

        """
        if len(self.done) >= MOST_ACTIONS:
            raise ValueError(f"a visit holds {MOST_ACTIONS} actions; begin a new one")
        return replace(self, done=(*self.done, Done(action, item_id)))

    def event_id(self, number: int) -> str:
        """Return the id of an action's event, the same whenever it is sent."""
        return f"{self.user_id}-{number}"


@dataclass(frozen=True)
class ShopAddress:
    """A state of the page."""

    visit: Visit
    item: str = ""
    """The product whose page is open."""
    query: str = ""
    """Of a search."""
    intent: str = ""
    """What the shopper is looking for, beside the list."""
    filters: tuple[tuple[str, str], ...] = ()
    """Names and values of the shelf's filters."""
    page: str = ""
    """Token of a page of the shelf."""

    @classmethod
    def of(cls, query: str) -> ShopAddress:
        """Read the query string of an address; what it does not understand is left out."""
        values: dict[str, list[str]] = {}
        for name, value in parse_qsl(query):
            values.setdefault(name, []).append(value.strip())

        def one(name: str) -> str:
            return values.get(name, [""])[-1]

        given = one("visit")
        visit = Visit(given) if _VISIT.fullmatch(given) else Visit.new()
        done = [found for text in values.get("did", []) if (found := _done(text)) is not None]
        filters = [(n.removeprefix(_FILTER), v[-1]) for n, v in values.items() if n.startswith(_FILTER)]
        return cls(
            replace(visit, shopper=one("as")[: schema.MAX_ID_CHARS], done=tuple(done[:MOST_ACTIONS])),
            one("item")[: schema.MAX_ID_CHARS],
            one("q")[:500],
            one("intent")[:500],
            tuple((name, value) for name, value in sorted(filters) if name and value),
            one("page"),
        )

    @property
    def query_string(self) -> str:
        """The state as the query of an address."""
        visit = self.visit
        pairs = [("visit", visit.id), ("as", visit.shopper)]
        pairs += [("item", self.item), ("q", self.query), ("intent", self.intent)]
        pairs += [(_FILTER + name, value) for name, value in self.filters]
        pairs += [("page", self.page)]
        pairs += [("did", f"{done.action.value}:{done.item_id}") for done in visit.done]
        return urlencode([(name, value) for name, value in pairs if value])

    @property
    def url(self) -> str:
        """The address, without host."""
        return f"{PATH}?{self.query_string}"

    def at(self, **changes: str) -> str:
        """Return the address of another state; a product, a search and the shelf exclude each other."""
        plain = {"item": "", "query": "", "page": ""}
        return replace(self, **{**plain, **changes}).url  # type: ignore[arg-type]

    def with_visit(self, visit: Visit) -> ShopAddress:
        """Return the same page for another visit."""
        return replace(self, visit=visit)


def _done(text: str) -> Done | None:
    action, _, item_id = text.partition(":")
    known = {one.value: one for one in Action}
    if action not in known or not 0 < len(item_id) <= schema.MAX_ID_CHARS:
        return None
    return Done(known[action], item_id)


@dataclass
class Ledger:
    """What this explorer has recorded at its server, by visit."""

    _recorded: dict[str, list[tuple[Done, int]]] = field(default_factory=dict)
    """Actions and their Unix seconds."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def times(self, visit: Visit) -> list[int] | None:
        """Return the times of all actions recorded under a visit's id, where the address belongs to these.

        None where they part: after a step back and another action, say. There may be more or fewer than the
        address has.
        """
        with self._lock:
            recorded = self._recorded.get(visit.id, [])
        if any(one != done for (one, _), done in zip(recorded, visit.done, strict=False)):
            return None
        return [time for _, time in recorded]

    def may_continue(self, visit: Visit) -> bool:
        """Return whether a further action can be recorded under the visit's id: all before it are."""
        with self._lock:
            recorded = self._recorded.get(visit.id, [])
            return tuple(done for done, _ in recorded) == visit.done

    def add(self, visit: Visit, times: Sequence[int]) -> None:
        """Note the times of all actions of a visit."""
        with self._lock:
            self._recorded[visit.id] = list(zip(visit.done, times, strict=True))
