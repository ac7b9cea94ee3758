"""Keeping users who were deleted out of the histories file, whichever server deleted them.

DeleteUser takes the user out of the file of the server that it reaches. Other servers may have a file of
their own, and the next training may still have known the user: both are found by asking the store who was
deleted.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from conf.errors import InputError
from serving.core.poller import Poller
from serving.state.contracts.user_state import StateUnavailableError, UserState
from serving.state.histories import forget_users, users_of

_LOG = logging.getLogger(__name__)
_USERS_AT_A_TIME: Final = 1_000


class HistoriesCleaner:
    """Takes deleted users out of a histories file; create and use it inside a running event loop."""

    def __init__(self, state: UserState, path: Path, seconds: float) -> None:
        """Prepare to clean.

        Args:
            state: knows who was deleted.
            path: the file; it may be missing.
            seconds: time between two looks for new deletions.
        """
        self._state = state
        self._path = path
        self.poller = Poller(self.clean, seconds, f"deleted users may still be in {path.name}")
        """Looks for deletions in the background, once it is started."""
        self._seen = 0
        """What the store's number of deletions was when the file was clean; 0 where nobody was deleted."""

    async def clean(self, another_file: bool = False) -> None:
        """Take everybody out of the file who has been deleted since the last look.

        A failure is only logged: nobody comes back by it, because imports leave deleted users out.

        Args:
            another_file: whether the file has been published since the last look.
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
        users = await asyncio.to_thread(users_of, self._path)
        deleted: set[str] = set()
        for start in range(0, len(users), _USERS_AT_A_TIME):
            deleted |= await self._state.deleted_among(users[start : start + _USERS_AT_A_TIME])
        if deleted:
            await asyncio.to_thread(forget_users, self._path, deleted)
