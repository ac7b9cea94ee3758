"""Typed configuration of the commands around a published bundle: serve, recommend, export, rollback, demo."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.schema import PrivacyConfig, _at_least, _require


@dataclass(frozen=True)
class TlsConfig:
    """Encryption of the port; files in PEM form."""

    certificate: str | None = None
    """The server's certificate and those between it and its authority; null serves in plain text."""
    key: str | None = None
    """The private key of the certificate."""
    client_ca: str | None = None
    """Authorities of client certificates; set, only clients with such a certificate can connect."""

    def __post_init__(self) -> None:
        """Check that what belongs together is there."""
        encrypted = self.certificate is not None
        _require(encrypted == (self.key is not None), "tls.certificate and tls.key need each other")
        _require(encrypted or self.client_ca is None, "tls.client_ca needs tls.certificate")


@dataclass(frozen=True)
class ServeConfig:
    """Root of serve."""

    artifacts: str = "work/artifacts"
    host: str = "127.0.0.1"
    port: int = 50051
    """0 takes a free port; the chosen one is printed."""
    state: str | None = None
    """SQLite file of user state; null is `<artifacts>/state.sqlite`."""
    threads: int = 0
    max_page_size: int = 500
    max_batch: int = 32
    """Requests scored together."""
    max_queue: int = 512
    """Requests that may wait for the model; more are refused with RESOURCE_EXHAUSTED."""
    max_history: int = 500
    """Most recent events read per user."""
    max_event_batch: int = 1000
    """Most events per RecordEvents call."""
    max_live_items: int = 100000
    """Most items that may be added to a model before a new one is published."""
    max_streams: int = 4
    """BatchRecommend streams at once."""
    item_poll_seconds: float = 0.2
    """How often changes of items by other servers on the same state are looked for."""
    max_future_seconds: float = 3600.0
    """How far ahead of the server's clock an event's time may lie; more is rejected."""
    max_message_bytes: int = 4194304
    """Largest request and response message."""
    log_requests: bool = False
    """Write one line per request to standard error; users appear as hash prefixes."""
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """Must be what `prepare` used: pseudonymised histories are found under pseudonyms only."""
    reload_seconds: float = 2.0
    """How often to look whether another version has become current; 0 stays with the first one."""
    tls: TlsConfig = field(default_factory=TlsConfig)
    keys: str | None = None
    """File of API keys made by create-key; null lets everybody in who reaches the port."""
    admin: bool | None = None
    """Whether UpsertItems, DeleteItems and DeleteUser (without keys: BatchRecommend too) can be called; null:
    with API keys only."""
    reflection: bool = False
    """Whether tools may read the contract from the server."""
    drain_seconds: float = 10.0
    """Time that running requests get after SIGTERM."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(0 <= self.port <= 65535, "port must lie in 0..65535")
        _at_least(1, self, "", "max_page_size")
        _at_least(1, self, "", "max_batch", "max_queue", "max_history", "max_event_batch", "max_live_items")
        _at_least(1, self, "", "max_streams")
        _require(self.max_message_bytes >= 65536, "max_message_bytes must be 65536 or more")
        _require(self.item_poll_seconds > 0, "item_poll_seconds must be positive")
        _at_least(0, self, "", "threads", "max_future_seconds", "drain_seconds", "reload_seconds")


@dataclass(frozen=True)
class RecommendConfig:
    """Root of recommend, the terminal client."""

    address: str = "127.0.0.1:50051"
    user: str | None = None
    items: list[str] = field(default_factory=list)
    """Session context: recent item ids, oldest first."""
    intent: str = ""
    """Session context: what is looked for, in words."""
    k: int = 10
    filter: str = ""
    explain: bool = True
    timeout: float = 5.0
    request_time: str | None = None
    """ISO time to answer for; null is now."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.k >= 1, "k must be 1 or more")
        _require(self.timeout > 0, "timeout must be positive")


@dataclass(frozen=True)
class CreateKeyConfig:
    """Root of create-key."""

    name: str = "shop"
    """Whose key it is; appears in logs."""
    keys: str = "keys.json"
    """File that the key's hash is added to."""
    scopes: list[str] = field(default_factory=lambda: ["read", "events"])
    """`read`, `batch`, `events` and `admin`."""
    requests_per_second: float = 0.0
    """Lasting rate; 0 is unlimited."""
    burst: int = 0
    """Requests that may come at once after a pause; 0 takes twice the rate."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _at_least(0, self, "", "requests_per_second", "burst")


@dataclass(frozen=True)
class ExportConfig:
    """Root of export: a bundle's text encoder in a layout other programs load."""

    artifacts: str = "work/artifacts"
    output: str = "exported"


@dataclass(frozen=True)
class RollbackConfig:
    """Root of rollback."""

    artifacts: str = "work/artifacts"
    version: str | None = None
    """Version to serve; null is the one before the current."""


@dataclass(frozen=True)
class DemoConfig:
    """Root of demo: a server on a finished run, asked for a few of its users."""

    work_dir: str = "work/demo"
    users: list[str] = field(default_factory=list)
    """Who is asked for; empty picks three with a middling history."""
    k: int = 10

    def __post_init__(self) -> None:
        """Check ranges."""
        _at_least(1, self, "", "k")
