"""Typed configuration of the explorer, the pages that `shelfwise explore` serves, and of `shelfwise why`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from conf.checks import at_least, check_device, require
from conf.clients import ClientTlsConfig, ConnectionConfig
from conf.schema import PrivacyConfig

DEFAULT_STORE = "work/artifacts"
"""Artifact store where neither a store nor a server is named."""


@dataclass(frozen=True)
class ExploreConfig:
    """Root of explore: pages that show a bundle, its lists and its evaluation in a browser."""

    artifacts: str | None = None
    """The artifact store, as `publish` writes it; null takes `work/artifacts`, or none with `server`."""
    server: str | None = None
    """`host:port` of a running server; views that are about serving ask it. Null asks none."""
    api_key_env: str = "SHELFWISE_API_KEY"
    """Environment variable with the server's API key; where it is empty, none is sent."""
    tls: ClientTlsConfig = field(default_factory=ClientTlsConfig)
    evaluation: str | None = None
    """Folder with `metrics.json` and `report.html`; null takes `evaluation` beside the artifact store."""
    host: str = "127.0.0.1"
    """Address to listen on; every other than this machine's own demands a key."""
    port: int = 8321
    """0 takes a free port; the chosen one is printed."""
    hosts: list[str] = field(default_factory=list)
    """Names besides the address itself by which browsers may ask, for example `explorer.example.com`."""
    key_env: str = "SHELFWISE_EXPLORER_KEY"
    """Environment variable with the key of the pages. Where it is empty and a key is needed, one is made and
    printed with the address."""
    open: bool = False
    """Whether a browser is opened."""
    write: bool = False
    """Whether views may record events and change items at `server`."""
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """As in `prepare`: with the key, shoppers of a pseudonymised store are found by their own ids."""
    threads: int = 0
    """CPU threads of the model's arithmetic; 0 takes all."""
    device: str = "auto"
    """Where the model's arithmetic runs: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU if any."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.port <= 65535, "port must lie in 0..65535")
        require(bool(self.host), "host must not be empty")
        require(self.server is None or ":" in self.server, "server must be HOST:PORT")
        require(self.server is not None or not self.write, "write=true needs server=HOST:PORT")
        at_least(0, self, "", "threads")
        check_device(self.device)

    @property
    def store(self) -> str | None:
        """The artifact store to read; None where only a server is asked."""
        return self.artifacts or (DEFAULT_STORE if self.server is None else None)

    @property
    def connection(self) -> ConnectionConfig | None:
        """Address of the server and the credentials for it; None where none is named."""
        if self.server is None:
            return None
        return ConnectionConfig(self.server, self.api_key_env, self.tls)


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
    pins: list[str] = field(default_factory=list)
    """Items at fixed positions, from 1: `pins=[ITEM:1]`."""
    boosts: list[BoostConfig] = field(default_factory=list)
    """Items that are promoted or demoted: `boosts=[{filter:'price < 5',strength:0.3}]`."""
    exploration: float = 0.0
    """Share of the positions that are explored, as in ListRules."""
    seed: int = 0
    """Of exploration."""
    events: list[str] = field(default_factory=list)
    """Further events of the shopper, now: `events=[purchase:ITEM]`."""
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
