"""Trials of changes: items without text, single attributes, kinds of events, sessions without kinds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import grpc

from benchmarks.storefront.shop import KOMBUCHA, NEW_ITEMS, Row, Shop, place_of
from shelfwise_client import Event, Item, RecommendQuery, SearchQuery, ServiceError, SessionEvent
from shelfwise_client.v1 import recommendations_pb2 as pb

_WAIT = 30.0


def without_text(shop: Shop) -> list[Row]:
    """Upsert items without text; search with queries that they must not match."""
    priced = {"price": 1.0} if "price" in shop.attributes else {}
    blank = [Item("blank-1", {}), Item("blank-2", priced)]
    outcome = shop.client.upsert_items(blank)
    ids = {item.item_id for item in blank}
    first, refused = 0, []
    for words in ("item", "."):
        try:
            found = shop.client.search_items(SearchQuery(words, page_size=10, fields=("item_id",))).items
        except ServiceError as error:
            refused.append(f"`{words}` is refused ({error.message})")
        else:
            first += bool(found) and found[0].item_id in ids
    if outcome.upserted_count:
        shop.client.delete_items(sorted(ids))
    what = f"{outcome.upserted_count} of 2 accepted" + (
        f" ({outcome.rejects[0].message})" if outcome.rejects else ""
    )
    text = "; ".join([what, f"one ranks first for {first} of the 2 queries `item` and `.`", *refused])
    numbers = {"accepted": outcome.upserted_count, "first": first}
    return [
        Row("without_text", "an item without attributes, and one with a price alone, upserted", text, numbers)
    ]


def event_kinds(shop: Shop) -> list[Row]:
    """Record event kinds, known to the model or not."""
    user = "storefront-visitor"
    stored: list[str] = []
    refused: list[str] = []
    for kind in ("view", "click", "add_to_cart", "purchase", "wishlist"):
        outcome = shop.client.record_events([Event(user, KOMBUCHA, kind, shop.bought)])
        (stored if outcome.new_count else refused).append(kind)
    text = f"stored: {', '.join(stored) or 'none'}; rejected: {', '.join(refused) or 'none'}"
    return [Row("event_kinds", "kinds of events recorded", text, {"stored": stored, "rejected": refused})]


def session_without_kind(shop: Shop) -> list[Row]:
    """Request lists with a session event without a kind: the item must not come back as bought."""
    came, bought, lists = 0, 0, 0
    query = RecommendQuery(page_size=10, fields=("item_id",), request_time=shop.now)
    for item in shop.client.recommend(query).items:
        session = (SessionEvent(item.item_id),)
        page = RecommendQuery(session=session, page_size=10, explain=True, request_time=shop.now)
        found = shop.client.recommend(page).items
        lists += 1
        came += place_of(item.item_id, [answer.item_id for answer in found]) == 1
        bought += any(
            answer.item_id == item.item_id and any("bought" in r.text.lower() for r in answer.reasons)
            for answer in found
        )
    text = f"it comes back first in {came} of {lists} lists, as bought before in {bought}"
    numbers = {"sessions": lists, "first": came, "as_bought": bought}
    return [Row("session_kind", "a session event without a kind", text, numbers)]


def single_attributes(shop: Shop) -> list[Row]:
    """Read an item back, change one attribute of it, and use an attribute that is new since training."""
    rows = [Row("get_item", "GetItem of a new item", *_read(shop))]
    rows.append(Row("update_item", "UpdateItem of its price alone", *_price(shop)))
    declared = [{"name": "in_stock", "type": pb.Attribute.BOOL}]
    _call(shop, "DeclareAttributes", "DeclareAttributesRequest", attributes=declared)
    new = NEW_ITEMS[0]
    values = dict(new.item(shop.attributes).attributes) | {"in_stock": True}
    rejects = shop.client.upsert_items([Item(new.item_id, values)]).rejects
    text = f"upsert rejected: {rejects[0].message}" if rejects else "upserted"
    if not rejects:
        query = RecommendQuery(filter="in_stock", page_size=10, fields=("item_id",), request_time=shop.now)
        found = [item.item_id for item in shop.client.recommend(query).items]
        text += f"; the filter `in_stock` gives {', '.join(found)}"
    tried = "an attribute that training did not know: in_stock"
    return [*rows, Row("new_attribute", tried, text, {"rejected": bool(rejects)})]


def _call(shop: Shop, method: str, message: str, **fields: object) -> tuple[Any, str]:
    """Call a method that not every version has; return the response, or None and the reason."""
    request, call = getattr(pb, message, None), getattr(shop.stub, method, None)
    if request is None or call is None:
        return None, f"there is no {method}"
    try:
        return call(request(**fields), timeout=_WAIT), ""
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None, f"there is no {method}"
        return None, str(ServiceError.of(error))


def _read(shop: Shop) -> tuple[str, dict[str, Any]]:
    item, fault = _call(shop, "GetItem", "GetItemRequest", item_id=KOMBUCHA)
    if item is None:
        return fault, {"works": False}
    shown = re.sub(r"\s+", " ", str(item)).strip()
    return f"read back: {shown[:160]}", {"works": KOMBUCHA in shown}


def _price(shop: Shop) -> tuple[str, dict[str, Any]]:
    if "price" not in shop.attributes:
        return "the model knows no price", {}
    changed = pb.Item(item_id=KOMBUCHA)
    changed.attributes.update({"price": 1.5})
    mask = {"paths": ["attributes.price"]}
    answer, fault = _call(shop, "UpdateItem", "UpdateItemRequest", item=changed, update_mask=mask)
    if answer is None:
        return fault, {"works": False}
    query = SearchQuery("kombucha", page_size=10, filter="price = 1.5", fields=("item_id",))
    found = [item.item_id for item in shop.client.search_items(query).items]
    if KOMBUCHA in found:
        return "found by its words and its new price", {"works": True}
    return "not found by its words and its new price", {"works": False}


def upsert(shop: Shop) -> Sequence[str]:
    """Upsert the new items; return the messages of rejects."""
    outcome = shop.client.upsert_items([new.item(shop.attributes) for new in NEW_ITEMS])
    return [reject.message for reject in outcome.rejects]
