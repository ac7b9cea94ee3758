"""Click-through rates of two versions, from recorded impressions and clicks with their attribution."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from conf.serving import RedisConfig
from serving.state.contracts.user_state import IMPRESSION, StoredEvent
from serving.stores import open_stores


@dataclass
class ClickSums:
    """Sums over users of x impressions and y clicks of a version's lists."""

    users: int = 0
    x: int = 0
    y: int = 0
    xx: int = 0
    yy: int = 0
    xy: int = 0

    def add(self, impressions: int, clicks: int) -> None:
        """Count a user."""
        self.users += 1
        self.x += impressions
        self.y += clicks
        self.xx += impressions * impressions
        self.yy += clicks * clicks
        self.xy += impressions * clicks

    @property
    def rate(self) -> float:
        """Clicks per impression."""
        return self.y / self.x

    @property
    def variance(self) -> float:
        """Variance of the rate, by the delta method with users as units (Deng et al. 2018).

        A user's impressions are not independent; counting them as if they were makes intervals too narrow.
        """
        n, rate = self.users, self.rate
        if n < 2:
            return float("inf")
        mean_x, mean_y = self.x / n, self.y / n
        var_x = (self.xx - n * mean_x**2) / (n - 1)
        var_y = (self.yy - n * mean_y**2) / (n - 1)
        cov = (self.xy - n * mean_x * mean_y) / (n - 1)
        return max(var_y - 2 * rate * cov + rate**2 * var_x, 0.0) / (n * mean_x**2)  # rounding

    def record(self) -> dict[str, Any]:
        """Return the sums as JSON values, with the rate."""
        return {**asdict(self), "rate": self.rate if self.x else None}


def loss_statistic(old: ClickSums, new: ClickSums, loss: float) -> float:
    """Return the z statistic of "the new rate is at least (1 - loss) of the old one"; low is against it."""
    difference = new.rate - (1 - loss) * old.rate
    error = sqrt(new.variance + (1 - loss) ** 2 * old.variance)
    if error == 0:
        return 0.0 if difference == 0 else float("inf") if difference > 0 else float("-inf")
    return difference / error


def click_sums(
    versions: Sequence[str], click_kinds: Sequence[str], state: str | None, store: Path, redis: RedisConfig
) -> dict[str, ClickSums]:
    """Return the sums of some versions over everything that is stored.

    Args:
        versions: model versions; users without an impression of one are not counted for it.
        click_kinds: kinds of events that count as clicks.
        state: as in serve.
        store: the artifact store.
        redis: settings of Redis.

    Raises:
        InputError: there is no state.
        StateUnavailableError: it does not answer.
    """
    return asyncio.run(_click_sums(versions, frozenset(click_kinds), state, store, redis))


async def _click_sums(
    versions: Sequence[str], click_kinds: frozenset[str], state: str | None, store: Path, redis: RedisConfig
) -> dict[str, ClickSums]:
    sums = {version: ClickSums() for version in versions}
    stores = await open_stores(state, store, redis, create=False)
    try:
        user, own = "", list[StoredEvent]()
        async for events in stores.users.stored(False):
            for event in events:
                if event.user_id != user:
                    _count(own, sums, click_kinds)
                    user, own = event.user_id, []
                if event.exposure.model_version in sums:
                    own.append(event)
        _count(own, sums, click_kinds)
    finally:
        await stores.close()
    return sums


def _count(events: Sequence[StoredEvent], sums: dict[str, ClickSums], click_kinds: frozenset[str]) -> None:
    for version, found in sums.items():
        kinds = [event.kind for event in events if event.exposure.model_version == version]
        shown = kinds.count(IMPRESSION)
        if shown:
            found.add(shown, sum(kind in click_kinds for kind in kinds))
