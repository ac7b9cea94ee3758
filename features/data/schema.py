"""The data contract's vocabulary: column names and file names used everywhere."""

from __future__ import annotations

from typing import Final

ITEM_ID: Final = "item_id"
USER_ID: Final = "user_id"
EVENT: Final = "event"
TIMESTAMP: Final = "timestamp"
ORDER: Final = "order"
PRICE: Final = "price"
CREATED_AT: Final = "created_at"
UPDATED_AT: Final = "updated_at"
"""When a row of the items was written, for `data.duplicates=newest`; an attribute like any other."""
TEXT: Final = "item_text"
"""Rendered item text in items.parquet."""

OPTIONAL_EVENT_COLUMNS: Final = ("value", "quantity", "session_id", "list_position", "event_id")

ITEMS_FILE: Final = "items.parquet"
EVENTS_FILE: Final = "events.parquet"
REJECTS_FILE: Final = "rejects.parquet"
DATASET_FILE: Final = "dataset.json"

MAX_ID_CHARS: Final = 256
"""Longest id of a user or item; the service takes no longer one."""
IMPRESSION: Final = "impression"
OTHER_KINDS: Final = "*"
"""Key of `data.event_weights` that stands for every kind that is not named."""
USUAL_KINDS: Final = ("purchase", "add_to_cart", "click", "view")
"""Kinds that a shop without history may record before its kinds are configured."""
CLICK_KINDS: Final = ("view", "click")
"""Kinds that the ranking head's click task learns from (with every stronger kind)."""
