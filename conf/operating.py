"""Typed configuration of the commands of an operator: health, keys, loops, backups, export and rollback."""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.checks import at_least, require
from conf.clients import ConnectionConfig
from conf.engines.milvus import RetrievalConfig
from conf.schema import PrivacyConfig
from conf.serving import RedisConfig


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
        at_least(0, self, "", "requests_per_second", "burst")


@dataclass(frozen=True)
class CompileConfig:
    """Root of compile."""

    target: str | None = None
    """Level of x86-64 (`x86-64-v2`, `x86-64-v3`, `x86-64-v4`) that the code runs on, for an image that is
    built on one machine and runs on others; null compiles for this machine's processor."""

    def __post_init__(self) -> None:
        """Check the name."""
        require(
            self.target in (None, "x86-64-v2", "x86-64-v3", "x86-64-v4"),
            "target must be x86-64-v2, x86-64-v3, x86-64-v4 or null",
        )


@dataclass(frozen=True)
class ExportConfig:
    """Root of export: a bundle's text encoder in a layout other programs load."""

    artifacts: str = "work/artifacts"
    """The artifact store."""
    output: str = "exported"
    """Folder to write the text encoder to."""


@dataclass(frozen=True)
class ExportEventsConfig:
    """Root of export-events: the stored events as a table for the next training."""

    artifacts: str = "work/artifacts"
    """The artifact store."""
    state: str | None = None
    """As in serve; null is `<artifacts>/state.sqlite`."""
    redis: RedisConfig = field(default_factory=RedisConfig)
    output: str = "events.parquet"
    """Parquet file to write."""
    imported: bool = False
    """Whether the events of `histories.parquet`, which the last training had, are written, too."""


@dataclass(frozen=True)
class RollbackConfig:
    """Root of rollback."""

    artifacts: str = "work/artifacts"
    """The artifact store."""
    version: str | None = None
    """Version to serve; null is the one before the current."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """With Milvus the version's collection is loaded, if it was dropped, and gets the alias."""


@dataclass(frozen=True)
class FetchConfig:
    """Root of fetch: the version that `push` has put into an object store, into a store of this machine."""

    remote: str | None = None
    """Where it was pushed: `s3://bucket/path`, `gs://bucket/path`,
    `abfs://container@account.dfs.core.windows.net/path`, `https://host/path`, `file:///path`, or another
    protocol of fsspec. Credentials come from the environment."""
    artifacts: str = "work/artifacts"
    """The artifact store, which `serve` reads."""
    follow_seconds: float = 0.0
    """How often to look for another version, until SIGTERM; 0 fetches once."""
    spread_seconds: float = 0.0
    """Where a followed store has another version: longest of the random waits before it is fetched, so that
    the servers of a fleet load one after the other; 0 does not wait."""
    versions: list[str] = field(default_factory=list)
    """Further versions to have, for arms of experiments that name them."""
    keep: int = 2
    """How many versions stay on this machine, the newest ones; the current one, the one before it and those
    of `versions` stay in any case."""
    parallel: int = 8
    """Parts of 8 MiB that are downloaded at once."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "", "follow_seconds", "spread_seconds")
        at_least(1, self, "", "keep", "parallel")


@dataclass(frozen=True)
class PushConfig:
    """Root of push: the current version of a store into an object store, from which servers fetch it."""

    remote: str | None = None
    """Where to: `s3://bucket/path` and so on, as in fetch; one store pushes to one address."""
    artifacts: str = "work/artifacts"
    """The artifact store."""
    follow_seconds: float = 0.0
    """How often to look for another version, until SIGTERM, after which it looks a last time; 0 pushes
    once."""
    keep: int = 3
    """How many versions stay at the address, the newest ones; those that the store here has stay in any
    case."""
    parallel: int = 4
    """Files that are uploaded at once."""
    replace: bool = False
    """Whether a newer version of another store, or one that a rollback has left, may be made current."""
    overwrite: bool = False
    """Whether files that are there already are uploaded again, after a fetch has found a wrong hash."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "", "follow_seconds")
        at_least(1, self, "", "keep", "parallel")


@dataclass(frozen=True)
class HealthConfig(ConnectionConfig):
    """Root of health, a probe of a running server."""

    service: str = ""
    """Health service: empty for the server as a whole, `shelfwise.v1.State` for the store of events,
    `shelfwise.v1.ModelReload` for the loading of a new version, `shelfwise.v1.Candidates` for vector searches
    by Milvus."""
    timeout: float = 3.0
    """Seconds to wait for the answer."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.timeout > 0, "timeout must be positive")


@dataclass(frozen=True)
class BackupConfig:
    """Root of backup: a copy of the stored events and item changes, while servers run."""

    artifacts: str = "work/artifacts"
    """The artifact store."""
    state: str | None = None
    """As in serve; null is `<artifacts>/state.sqlite`."""
    redis: RedisConfig = field(default_factory=RedisConfig)
    output: str = "backups"
    """Folder of backups; each is a folder of its own there, named by its time."""
    bundle: bool = False
    """Whether the current version and `histories.parquet` are copied, too."""
    keep: int = 0
    """How many backups stay in the folder, the newest ones; 0 keeps all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "", "keep")


@dataclass(frozen=True)
class RestoreConfig:
    """Root of restore: a backup in the place of a store."""

    backup: str | None = None
    """A backup, or a folder of backups, whose newest is taken."""
    artifacts: str = "work/artifacts"
    """The artifact store."""
    state: str | None = None
    """As in serve; null is `<artifacts>/state.sqlite`."""
    redis: RedisConfig = field(default_factory=RedisConfig)
    replace: bool = False
    """Whether a store that is there may be replaced."""
    erasures: str | None = None
    """Audit log of the servers: users that were deleted after the backup are erased again."""


@dataclass(frozen=True)
class ExportUserConfig(ConnectionConfig):
    """Root of export-user: everything that is stored of one user."""

    user: str | None = None
    """Whose events."""
    output: str = "user.jsonl"
    """File to write: JSON Lines (`.jsonl`) or Parquet (`.parquet`)."""
    artifacts: str | None = None
    """The artifact store, where it is read without a server; null asks the server at `address`."""
    state: str | None = None
    """As in serve, where it is read without a server; null is `<artifacts>/state.sqlite`."""
    redis: RedisConfig = field(default_factory=RedisConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """As in serve, where it is read without a server."""
    timeout: float = 600.0
    """Seconds that a server may take."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.timeout > 0, "timeout must be positive")
