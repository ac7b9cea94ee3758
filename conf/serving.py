"""Typed configuration of serve and demo."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from conf.checks import at_least, check_device, require
from conf.engines.milvus import RetrievalConfig
from conf.schema import PrivacyConfig


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
        require(encrypted == (self.key is not None), "tls.certificate and tls.key need each other")
        require(encrypted or self.client_ca is None, "tls.client_ca needs tls.certificate")


class LogFormat(Enum):
    """How a log line looks."""

    text = "text"
    json = "json"


class ReloadWithoutRoom(Enum):
    """What becomes of a version that does not fit into memory beside the served one."""

    refuse = "refuse"
    """It is not loaded; the served one goes on."""
    stop_first = "stop_first"
    """The served one is ended first; callers get UNAVAILABLE until the version is loaded."""


@dataclass(frozen=True)
class MetricsConfig:
    """Prometheus metrics, served over HTTP."""

    port: int = 0
    """0 serves none; worker processes take this port and those after it."""
    host: str = "127.0.0.1"
    """Address that metrics are served on."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.port <= 65535, "metrics.port must lie in 0..65535")


@dataclass(frozen=True)
class TracingConfig:
    """OpenTelemetry traces, sent to a collector by OTLP over gRPC."""

    endpoint: str | None = None
    """For example `http://localhost:4317`; https encrypts. Null makes no traces."""
    sample_ratio: float = 0.01
    """Share of the calls that begin a trace here; a caller's decision about its own trace is followed."""

    def __post_init__(self) -> None:
        """Check the address and the ratio."""
        require(
            self.endpoint is None or self.endpoint.startswith(("http://", "https://")),
            "tracing.endpoint must begin with http:// or https://",
        )
        require(0.0 <= self.sample_ratio <= 1.0, "tracing.sample_ratio must lie in 0..1")


@dataclass(frozen=True)
class LimitsConfig:
    """Admission control: bounds of latency and memory under overload."""

    max_concurrent: int = 512
    """Calls that are answered at a time; more are refused."""
    max_queue_seconds: float = 0.5
    """Longest wait for the model; calls that are expected to wait longer are refused."""
    standing_queue_seconds: float = 0.15
    """Target of the wait: expected waits above it for 0.1 s are an overload, in which the newest calls go
    first and wait for the running batch alone."""
    batch_seconds: float = 0.04
    """What a batch of lists should take at most: requests that come meanwhile wait for its end."""
    history_seconds: float = 0.2
    """Longest wait for a stored history and other servers' item changes; then the list is made without."""
    default_deadline_seconds: float = 10.0
    """Deadline of calls that come without one."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "limits.", "max_concurrent")
        for name in ("max_queue_seconds", "batch_seconds", "history_seconds", "default_deadline_seconds"):
            require(getattr(self, name) > 0, f"limits.{name} must be positive")
        require(
            0 < self.standing_queue_seconds <= self.max_queue_seconds,
            "limits.standing_queue_seconds must be positive and at most limits.max_queue_seconds",
        )


@dataclass(frozen=True)
class RedisConfig:
    """How a Redis that holds the state is used; `state` names it."""

    password_env: str = "SHELFWISE_REDIS_PASSWORD"  # noqa: S105 - the variable's name, no password
    """Environment variable with the password; where it is empty, the address has it, or there is none."""
    prefix: str = "shelfwise:"
    """Beginning of every key."""
    max_user_events: int = 10000
    """Events kept per user, the newest ones, impressions and all others counted apart; 0 keeps all."""
    max_feed_events: int = 500000
    """Recorded events that a starting server can still count towards popularity and co-occurrence, the newest
    ones, impressions left out; about this many are kept."""
    max_connections: int = 64
    """Connections per server; more requests wait for one."""
    timeout_seconds: float = 2.0
    """Longest wait for a connection and for an answer."""
    retries: int = 2
    """How often a command that failed for want of a connection or an answer is sent again."""
    erase_seconds: float = 30.0
    """How long DeleteUser waits until Redis has written its files anew."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(bool(self.prefix), "redis.prefix must not be empty")
        at_least(0, self, "redis.", "max_user_events", "retries")
        at_least(1, self, "redis.", "max_connections", "max_feed_events")
        for name in ("timeout_seconds", "erase_seconds"):
            require(getattr(self, name) > 0, f"redis.{name} must be positive")


@dataclass(frozen=True)
class ServeConfig:
    """Root of serve."""

    artifacts: str = "work/artifacts"
    """The artifact store: the folder that `publish` writes."""
    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` is every interface."""
    port: int = 50051
    """0 takes a free port; the chosen one is printed."""
    state: str | None = None
    """Where events and item changes are kept: a SQLite file (null is `<artifacts>/state.sqlite`), or a Redis
    as `redis://host:port/number`, `rediss://` with TLS, or `unix:///socket`."""
    redis: RedisConfig = field(default_factory=RedisConfig)
    threads: int = 1
    """CPU threads of the model's arithmetic; 0 takes all. Lists are small work: more workers help more."""
    list_threads: int = 0
    """Threads that share the lists of a batch; 0 takes two for a single worker where there are two CPUs, and
    one otherwise."""
    device: str = "auto"
    """Where the model's arithmetic runs: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU if any."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """Where the vectors of items are searched; by default in this process."""
    max_page_size: int = 500
    """Most items per page of a list."""
    max_batch: int = 32
    """Requests scored together."""
    max_queue: int = 512
    """Requests that may wait for the model; more are refused with RESOURCE_EXHAUSTED."""
    max_history: int = 500
    """Most recent events read per user."""
    max_event_batch: int = 1000
    """Most events per RecordEvents call."""
    max_live_items: int = 100000
    """Most items that can be added to a model before a new one is published."""
    max_streams: int = 4
    """BatchRecommend streams at once."""
    item_poll_seconds: float = 0.2
    """How often changes of items by other servers on the same state are looked for."""
    event_poll_seconds: float = 0.5
    """How often events recorded by other servers on the same state are looked for, to be counted."""
    max_future_seconds: float = 3600.0
    """How far ahead of the server's clock an event's time may lie; more is rejected."""
    max_message_bytes: int = 4194304
    """Largest request and response message."""
    log_requests: bool = False
    """Write one line per request to standard error; users appear as hash prefixes."""
    log_format: LogFormat = LogFormat.text
    """`text` lines or a JSON object per line."""
    workers: int = 1
    """Processes that share the port."""
    model_timeout_seconds: float = 30.0
    """A model's process that has sent no sign of life for so long, or has not finished a batch of lists, is
    killed and the model loaded anew; 0 waits for ever."""
    memory_check: bool = True
    """Whether a version is loaded only if it is estimated to fit into memory: of the machine, the container,
    and the process's limit."""
    reload_without_room: ReloadWithoutRoom = ReloadWithoutRoom.refuse
    """What becomes of a version that does not fit into memory beside the served one. `refuse`: it is not
    loaded. `stop_first`: once it is verified, the served one is ended and it is loaded; lists fail meanwhile
    as UNAVAILABLE, with a time to retry. If it cannot be loaded, the former one is loaded again."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """Must be what `prepare` used: pseudonymised histories are found under pseudonyms only."""
    reload_seconds: float = 2.0
    """How often to look whether another version has become current; 0 stays with the first one."""
    tls: TlsConfig = field(default_factory=TlsConfig)
    surfaces: str | None = None
    """File of the shop's defaults for the lists of each surface, YAML or JSON; null has none."""
    experiments: str | None = None
    """File of experiments with arms by users or sessions, YAML or JSON, read again when it changes; null has
    none."""
    keys: str | None = None
    """File of API keys made by create-key; null authorises every caller that reaches the port."""
    admin: bool | None = None
    """Whether changes of items and DeleteUser (without keys: BatchRecommend too) can be called; null:
    with API keys only."""
    audit: str | None = None
    """File that changes, erasures and exports of users are appended to, with who called them; `stderr` writes
    them to standard error, null writes none."""
    reflection: bool = False
    """Whether tools may read the contract from the server."""
    drain_seconds: float = 10.0
    """Time that running requests get after SIGTERM."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 <= self.port <= 65535, "port must lie in 0..65535")
        check_device(self.device)
        at_least(1, self, "", "max_page_size")
        at_least(1, self, "", "max_batch", "max_queue", "max_history", "max_event_batch", "max_live_items")
        at_least(1, self, "", "max_streams")
        require(self.max_message_bytes >= 65536, "max_message_bytes must be 65536 or more")
        at_least(1, self, "", "workers")
        require(
            self.metrics.port == 0 or self.metrics.port + self.workers <= 65536,
            "metrics.port: the workers' ports end beyond 65535",
        )
        require(self.item_poll_seconds > 0, "item_poll_seconds must be positive")
        require(self.event_poll_seconds > 0, "event_poll_seconds must be positive")
        at_least(0, self, "", "threads", "list_threads")
        at_least(0, self, "", "max_future_seconds", "drain_seconds", "reload_seconds")
        at_least(0, self, "", "model_timeout_seconds")


class Scene(Enum):
    """What demo shows, in this order."""

    measured = "measured"
    """What fine-tuning gained, and the list beside the best baselines."""
    shoppers = "shoppers"
    """Histories and lists."""
    visitor = "visitor"
    """An anonymous visitor's list before, between and after two clicks."""
    product = "product"
    """A product is added and looked for."""
    search = "search"
    """A search, anonymous and by a known shopper."""
    text = "text"
    """The same shopper's lists by systems that do not read."""
    erasure = "erasure"
    """A shopper is erased."""


@dataclass(frozen=True)
class DemoConfig:
    """Root of demo: a server on a copy of a finished run, and what it answers."""

    work_dir: str = "work/demo"
    """Work directory of the finished run."""
    scenes: list[Scene] = field(default_factory=lambda: list(Scene))
    """What is shown."""
    users: list[str] = field(default_factory=list)
    """Who is shown; empty chooses by rule among shoppers with a middling history."""
    shoppers: int = 3
    """How many are chosen."""
    k: int = 10
    """Length of the lists."""
    product_id: str = "hedgehogs"
    """Id of the product that is added."""
    product: dict[str, Any] = field(default_factory=dict)
    """Its attributes, the title first; empty takes a lunch bag, which fits the gift shop of `make demo`."""
    query: str = "brew a cuppa"
    """What is searched for."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "", "k", "shoppers")
        require(bool(self.scenes), "scenes needs one at least")
        require(bool(self.product_id), "product_id must not be empty")
