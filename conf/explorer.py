"""Typed configuration of the explorer, the pages that `shelfwise explore` serves."""

from __future__ import annotations

from dataclasses import dataclass, field

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
