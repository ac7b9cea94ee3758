"""Typed configuration of the commands at the terminal: recommend, recommend-batch and inspect."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.checks import at_least, require


@dataclass(frozen=True)
class ClientTlsConfig:
    """Encryption of the connection; files in PEM form."""

    enabled: bool = False
    """Whether the server's port speaks TLS."""
    ca: str | None = None
    """Authorities that the server's certificate may come from; null takes those of the system."""
    certificate: str | None = None
    """The client's own certificate, where the server asks for one."""
    key: str | None = None
    """The private key of the certificate."""

    def __post_init__(self) -> None:
        """Check that what belongs together is there."""
        own = self.certificate is not None
        require(own == (self.key is not None), "tls.certificate and tls.key need each other")
        require(self.enabled or not (own or self.ca), "tls.ca and tls.certificate need tls.enabled=true")


@dataclass(frozen=True)
class ConnectionConfig:
    """Address of a server, and the credentials for it."""

    address: str = "127.0.0.1:50051"
    """The server's `host:port`."""
    api_key_env: str = "SHELFWISE_API_KEY"
    """Environment variable with the API key; where it is empty, none is sent."""
    tls: ClientTlsConfig = field(default_factory=ClientTlsConfig)


@dataclass(frozen=True)
class RecommendConfig(ConnectionConfig):
    """Root of recommend, the terminal client."""

    user: str | None = None
    """Whose list to make; null is an anonymous visitor."""
    items: list[str] = field(default_factory=list)
    """Session context: recent item ids, oldest first."""
    intent: str = ""
    """Session context: what is looked for, in words."""
    k: int = 10
    """Items in the list."""
    filter: str = ""
    """Only items for which this expression is true, as in RecommendRequest.filter."""
    surface: str = ""
    """Where the list would be shown; chooses the server's defaults."""
    explain: bool = True
    """Whether the reasons are shown."""
    timeout: float = 5.0
    """Seconds to wait for the answer."""
    request_time: str | None = None
    """ISO time to answer for; null is now."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "", "k")
        require(self.timeout > 0, "timeout must be positive")


@dataclass(frozen=True)
class RecommendBatchConfig(ConnectionConfig):
    """Root of recommend-batch: the lists of many users in a file."""

    output: str = "lists.jsonl"
    """File with a JSON object per user and line; it appears when it is complete."""
    users: str | None = None
    """File with a user id per line; null takes every user with a stored event."""
    k: int = 10
    """Items per list."""
    filter: str = ""
    """Only items for which this expression is true, as in RecommendRequest.filter."""
    surface: str = "mail"
    """Where the lists are shown; chooses the server's defaults, and goes into the attribution tokens."""
    exclude_seen: bool | None = None
    """Whether items of a user's history are left out; null takes the surface's or the model's setting."""
    diversity: float | None = None
    """0 to 1, as in RecommendRequest; null takes the surface's or the model's setting."""
    novelty: float | None = None
    """0 to 1, as in RecommendRequest; null takes the surface's or the model's setting."""
    explain: bool = False
    """Whether the items have their `reasons`."""
    fields: list[str] = field(default_factory=lambda: ["item_id", "title", "list_position"])
    """Fields of the items, as in RecommendedItem; empty for all."""
    request_time: str | None = None
    """ISO time to answer for; null is the time at which each list is made."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "", "k")


@dataclass(frozen=True)
class InspectConfig:
    """Root of inspect, which looks at files and proposes the command that reads them."""

    files: list[str] = field(default_factory=list)
    """Files to look at; named without a key on the command line."""
    rows: int = 5000
    """Rows of each table to look at."""
    trial: bool = True
    """Whether the proposed settings are tried, where the files are small enough (100 MB)."""
    work_dir: str = "work/shop"
    """Where the proposed command would work."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "", "rows")
