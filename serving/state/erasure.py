"""Removal of deleted users from the histories file, also of users deleted through other servers.

DeleteUser removes the user from the histories file of the server that handles it. Other servers may have
their own file, and a new training may have started before the deletion: polling the store's deletions covers
both.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from conf.errors import InputError
from serving.core.poller import Poller
from serving.state.contracts.user_state import StateUnavailableError, UserState
from serving.state.histories import remove_users, users_of

_LOG = logging.getLogger(__name__)
_USERS_PER_QUERY: Final = 1_000


class HistoriesCleaner:
    """Removes deleted users from a histories file; create and use it inside a running event loop."""

    def __init__(self, state: UserState, path: Path, seconds: float) -> None:
        """Prepare to clean.

        Args:
            state: stores the deletions.
            path: the file; it may be missing.
            seconds: polling interval.
        """
        self._state = state
        self._path = path
        self.poller = Poller(self.clean, seconds, f"deleted users may still be in {path.name}")
        """Polls for deletions in the background, once started."""
        self._seen = 0
        """The store's deletion number when the file was last clean."""

    async def clean(self, another_file: bool = False) -> None:
        """Remove the users deleted since the last call from the file.

        A failure is only logged: imports skip deleted users anyway.

        Args:
            another_file: whether the file has been replaced since the last call.
        """
        try:
            deletions = await self._state.deletions()
            if deletions != self._seen or (deletions and another_file):
                await self._clean()
                self._seen = deletions
        except (StateUnavailableError, InputError) as error:
            _LOG.warning("deleted users may still be in %s: %s", self._path.name, error)

    async def _clean(self) -> None:
        if not self._path.is_file():
            return
        blocks, deleted = users_of(self._path), set[str]()
        while (users := await asyncio.to_thread(next, blocks, None)) is not None:
            for start in range(0, len(users), _USERS_PER_QUERY):
                deleted |= await self._state.deleted_among(users[start : start + _USERS_PER_QUERY])
        if deleted:
            await asyncio.to_thread(remove_users, self._path, deleted)
