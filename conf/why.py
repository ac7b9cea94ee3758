"""Typed configuration of `shelfwise why`, which explains one item of one list at the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from conf.checks import at_least, check_device, require
from conf.explorer import DEFAULT_STORE
from conf.schema import PrivacyConfig


class OutputFormat(Enum):
    """How an explanation is printed."""

    text = "text"
    json = "json"


@dataclass(frozen=True)
class BoostConfig:
    """Items that are promoted or demoted."""

    filter: str = ""
    """The items, as in RecommendRequest.filter."""
    strength: float = 0.0
    """-1 to 1, as in ListRules."""


@dataclass(frozen=True)
class WhyConfig:
    """Root of why: why an item is in a shopper's list, why it is not, and what would change that."""

    artifacts: str = DEFAULT_STORE
    """The artifact store, as `publish` writes it."""
    user: str | None = None
    """The shopper, with the history that the store has; null is a visitor without events."""
    item: str | None = None
    """Id of the item."""
    k: int = 10
    """Items in the list."""
    filter: str = ""
    """Only items for which this expression is true, as in RecommendRequest.filter."""
    intent: str = ""
    """What is looked for, in words."""
    exclude_seen: bool | None = None
    """Whether items of the history are left out; null takes the bundle's setting."""
    diversity: float | None = None
    """0 to 1, as in RecommendRequest; null takes the bundle's setting."""
    novelty: float | None = None
    """0 to 1, as in RecommendRequest; null takes the bundle's setting."""
    exclude: list[str] = field(default_factory=list)
    """Ids of items that must not appear."""
    caps: dict[str, int] = field(default_factory=dict)
    """Most items with the same value, by attribute: `caps={brand:2}`."""
    pins: dict[str, int] = field(default_factory=dict)
    """Position from 1, by item id."""
    boosts: list[BoostConfig] = field(default_factory=list)
    """Items that are promoted or demoted: `boosts=[{filter:'price < 5',strength:0.3}]`."""
    exploration: float = 0.0
    """Share of the positions that are explored, as in ListRules."""
    seed: int = 0
    """Of exploration."""
    events: dict[str, str] = field(default_factory=dict)
    """Further events of the shopper, now: event kind by item id."""
    without: list[str] = field(default_factory=list)
    """Ids of items whose events are taken out of the history."""
    quotas: dict[str, int] = field(default_factory=dict)
    """Quotas of sources in place of the bundle's, by setting of `candidates`: `quotas={item_to_item:400}`."""
    request_time: str | None = None
    """ISO time to answer for; null is a second after the last event."""
    format: OutputFormat = OutputFormat.text
    """`json` prints one object for programs."""
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """As in `prepare`: with the key, shoppers of a pseudonymised store are found by their own ids."""
    threads: int = 0
    """CPU threads of the model's arithmetic; 0 takes all."""
    device: str = "auto"
    """Where the model's arithmetic runs: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU if any."""

    def __post_init__(self) -> None:
        """Check ranges; the ids, attributes and filters are checked against the bundle."""
        require(self.item != "", "item must not be empty")
        at_least(1, self, "", "k")
        at_least(0, self, "", "threads")
        check_device(self.device)
