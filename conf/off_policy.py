"""Typed configuration of off-policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.checks import at_least


@dataclass(frozen=True)
class OffPolicyConfig:
    """Root of off-policy: what other lists would have earned."""

    events: str = "events.parquet"
    """Recorded events with impressions, as `export-events` writes them."""
    predictions: str | None = None
    """File with the lists to be judged: columns `user_id`, `rank` (from 1) and `item_id`."""
    rewards: list[str] = field(default_factory=list)
    """Event kinds that count as a reward of an impression; empty: every recorded kind but impressions."""
    bootstrap: int = 1000
    """Bootstrap samples of users behind each interval."""
    seed: int = 0
    """Seed of the bootstrap."""
    output: str | None = None
    """JSON file for the figures; null writes none."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "", "bootstrap")
        at_least(0, self, "", "seed")
