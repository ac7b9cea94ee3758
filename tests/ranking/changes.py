"""Changes of items, planned and applied as serving does."""

from __future__ import annotations

from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.snapshot import LiveVersion
from ranking.live.updates import LiveItems


def change(live: LiveItems, *changes: ItemChange) -> LiveVersion:
    """Prepare and apply changes, as serving does."""
    return live.apply(live.plan(changes))


def item(item_id: str, title: str, brand: str = "Acme", price: float = 9.0) -> ItemChange:
    return ItemChange(item_id, {"title": title, "brand": brand, "price": price})
