"""Leases on collections, so that retention drops none that a server searches.

A server that is several publications behind, or that serves the model of an experiment's arm, searches a
collection that no publisher would keep. So a server gives the collection that it searches an alias with the
end of the lease in its name, and renews it. Aliases are Milvus's own: a publisher on any machine sees them,
and those of a server that was killed expire. A loader holds one on the collection that it
fills, also once it is complete.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterable
from typing import Any, Final

from conf.engines.milvus import RetrievalConfig
from ranking.milvus.connection import reason

LOG = logging.getLogger(__name__)
LEASE_SECONDS: Final = 3600
"""How long a collection stays after its server was killed."""
RENEW_SECONDS: Final = LEASE_SECONDS / 3


class Lease:
    """The lease of one server or loader on one collection; for one thread at a time."""

    def __init__(self, config: RetrievalConfig, collection: str, seconds: float = LEASE_SECONDS) -> None:
        """Prepare; `renew` takes it.

        Args:
            config: which Milvus.
            collection: its name.
            seconds: how long it holds without being renewed.

        """
        self._config = config
        self._collection = collection
        self._seconds = seconds
        self._token = uuid.uuid4().hex[:12]
        self._alias: str | None = None
        self._renew_at = float("-inf")
        self._failed = False

    def renew(self, client: Any, again: bool = False) -> None:  # noqa: ANN401
        """Take or renew the lease if it is due; a failure is logged once, and tried again later.

        Args:
            client: of Milvus.
            again: whether it is due whatever the time: Milvus may have lost it.

        """
        if not again and time.monotonic() < self._renew_at:
            return
        self._renew_at = time.monotonic() + RENEW_SECONDS
        former = self._alias
        alias = f"{self._config.prefix}_lease_{int(time.time() + self._seconds)}_{self._token}"
        try:
            if alias != former:
                client.create_alias(self._collection, alias, timeout=self._config.connect_seconds)
                self._alias = alias
                if former is not None:
                    client.drop_alias(former, timeout=self._config.connect_seconds)
        except Exception as error:  # no lease is no reason to search nothing
            if not self._failed:
                LOG.warning(
                    "Milvus at %s: collection %s cannot be marked as in use (%s); a publication may drop it",
                    self._config.address,
                    self._collection,
                    reason(error),
                )
            self._failed = True
            return
        self._failed = False

    def release(self, client: Any, seconds: float) -> None:  # noqa: ANN401
        """End the lease, if Milvus answers in time; otherwise it expires.

        Args:
            client: of Milvus.
            seconds: longest wait.

        """
        if self._alias is None:
            return
        try:
            client.drop_alias(self._alias, timeout=seconds)
        except Exception as error:
            LOG.debug("the lease %s expires by itself: %s", self._alias, reason(error))
        self._alias = None


def split_leases(prefix: str, aliases: Iterable[str], now: float) -> tuple[list[str], list[str]]:
    """Return the aliases that are leases which hold, and those which have expired.

    Args:
        prefix: see `RetrievalConfig.prefix`.
        aliases: of a collection.
        now: Unix seconds.

    """
    pattern = re.compile(rf"{re.escape(prefix)}_lease_(\d+)_[0-9a-f]{{12}}")
    found = [(alias, int(match[1])) for alias in aliases if (match := pattern.fullmatch(alias))]
    held = [alias for alias, ends in found if ends > now]
    return held, [alias for alias, ends in found if ends <= now]
