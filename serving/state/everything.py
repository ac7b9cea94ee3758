"""Everything that is stored of one user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from serving.state.contracts.user_state import MICROS, StoredEvent, UserState
from serving.state.histories import history_of


async def everything_of(state: UserState, histories: Path, user_id: str) -> AsyncIterator[list[StoredEvent]]:
    """Yield a user's events in chunks, oldest first, then those that only the histories file has.

    The file has more where it has not been imported, or where the store keeps fewer events of a user.

    Args:
        state: the store.
        histories: the file; it may be missing.
        user_id: as stored: a pseudonym where ids are pseudonymised.

    Raises:
        StateUnavailableError: the store failed.
        InputError: the file is not a histories table.
    """
    known: set[str] = set()
    recorded: set[tuple[str, str, int]] = set()
    async for events in state.stored_of(user_id):
        known.update(event.event_id for event in events)
        recorded.update((e.item_id, e.kind, e.time_us // MICROS) for e in events if e.recorded)
        yield events
    rest = [
        event
        for event in await asyncio.to_thread(history_of, histories, user_id)
        if event.event_id not in known
        # A training on recorded events hands them over again, to the second; imports skip those, too.
        and (event.item_id, event.kind, event.time_us // MICROS) not in recorded
    ]
    if rest:
        yield rest
