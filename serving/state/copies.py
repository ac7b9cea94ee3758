"""What copies of both kinds of stores have: counts, and erasures that a restored copy has to repeat.

A copy made before an erasure still has the user. An erasure is a keyed hash of the user's id, and the time of
the deletion. The key is the salt of the store, which copies keep; elsewhere the hash means nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Erasures: TypeAlias = Mapping[str, int]
"""Hash of a deleted user, in hex -> time of the deletion, microseconds since 1970."""


@dataclass(frozen=True)
class Counts:
    """What a store holds."""

    users: int
    events: int
    item_changes: int
    deleted_users: int
    state_format: int
    """Format of the state file, or of the data in Redis."""


def erasure_name(user_id: str, salt: bytes) -> str:
    """Return the hash of a user in a store with this salt: 32 hex digits."""
    return hashlib.blake2b(user_id.encode(), key=salt, digest_size=16).hexdigest()


def erasures_since(erasures: Erasures, copied: Erasures) -> Erasures:
    """Return the erasures of a store that are later than those that a copy of it has.

    What the copy has of a user after an erasure that it has, too, the user did as a new one.
    """
    return {user: time_us for user, time_us in erasures.items() if time_us > copied.get(user, -1)}
