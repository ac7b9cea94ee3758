"""Where candidates are searched: FAISS in the server's process, or a Milvus that servers share."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from conf.checks import at_least, require
from conf.errors import InputError

_PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SCHEMES: Final = ("http://", "https://", "unix:")


class Engine(Enum):
    """What searches the vectors of items."""

    faiss = "faiss"
    """FAISS, or brute force on a GPU, in the process of the model."""
    milvus = "milvus"
    """Milvus, addressed by `retrieval.uri`."""


class Consistency(Enum):
    """What a search sees of the latest writes; Milvus's levels."""

    strong = "strong"
    """Every write of every server, at the price of a wait for the newest time stamp."""
    session = "session"
    """The writes of the searching server, and those of the others within moments."""
    bounded = "bounded"
    """Writes older than some seconds (5 by default, a setting of Milvus); a server searches its newer ones
    itself."""

    @property
    def level(self) -> str:
        """The level as Milvus spells it."""
        return self.value.capitalize()


@dataclass(frozen=True)
class RetrievalConfig:
    """The engine of the candidate stage; `retrieval=milvus` sets it, what follows is for Milvus."""

    engine: Engine = Engine.faiss
    """Where vectors are searched."""
    uri: str = "http://localhost:19530"
    """Address of Milvus: `http://host:19530`, `https://host:443` with TLS, or a path that ends in `.db`,
    which is Milvus Lite in this process, for trials."""
    token_env: str = "SHELFWISE_MILVUS_TOKEN"  # noqa: S105 - the variable's name, no token
    """Environment variable with the token (`user:password`, or an API key); empty is no authentication."""
    token_file: str | None = None
    """File with the token, in place of the variable."""
    ca: str | None = None
    """Authorities of Milvus's certificate, a file in PEM form; null takes those of the system."""
    database: str | None = None
    """Milvus database; null is its default one."""
    prefix: str = "shelfwise"
    """Beginning of the names of collections, and name of the alias of the current one."""
    index_type: str = "HNSW"
    """Index of every vector field: `HNSW`, `IVF_FLAT`, `IVF_SQ8`, `FLAT` (exact), `AUTOINDEX`, or another
    that the Milvus has for float vectors and inner products."""
    index_params: dict[str, int] = field(default_factory=dict)
    """Its parameters, for example `{M: 30, efConstruction: 360}`; empty takes these for HNSW, and 4 times
    the root of the number of items as `nlist` of an IVF."""
    search_params: dict[str, int] = field(default_factory=dict)
    """Parameters of a search, for example `{ef: 200}` or `{nprobe: 32}`; empty has an `ef` of 1.5 times the
    rows that are fetched, or an `nprobe` of a sixteenth of the lists."""
    consistency: Consistency = Consistency.session
    """What a search sees of the latest writes."""
    timeout_seconds: float = 0.25
    """Longest wait of a batch of lists for Milvus; calls with less time left shorten it. Then the lists are
    made without the sources that search vectors."""
    retry_seconds: float = 1.0
    """After a failed search no list waits for Milvus until a probe in the background, made this often,
    succeeds."""
    connect_seconds: float = 10.0
    """Longest wait for a connection when a model is loaded."""
    write_seconds: float = 30.0
    """Longest wait for a write, and for one step of loading a collection."""
    load_seconds: float = 3600.0
    """Longest wait for the indexes of a new collection."""
    keep: int = 2
    """How many collections of earlier versions stay for a rollback; older ones are dropped."""

    def __post_init__(self) -> None:
        """Check ranges, and that an engine has an address."""
        require(_PREFIX.fullmatch(self.prefix) is not None, "retrieval.prefix: letters, digits and _ only")
        for name in ("timeout_seconds", "retry_seconds", "connect_seconds", "write_seconds", "load_seconds"):
            require(getattr(self, name) > 0, f"retrieval.{name} must be positive")
        at_least(0, self, "retrieval.", "keep")
        uri = self.uri
        require(
            uri.startswith(_SCHEMES) or uri.endswith(".db"),
            "retrieval.uri must begin with http:// or https://, or be a path that ends in .db",
        )
        require(
            "@" not in uri,
            "retrieval.uri: a token in the address would be logged; set SHELFWISE_MILVUS_TOKEN instead",
        )
        require(self.ca is None or uri.startswith("https://"), "retrieval.ca needs retrieval.uri=https://...")

    @property
    def uses_milvus(self) -> bool:
        """Whether vectors are searched by Milvus."""
        return self.engine is Engine.milvus

    @property
    def address(self) -> str:
        """The address without anything secret, for messages."""
        uri = self.uri
        parts = urlsplit(uri)
        return uri if uri.endswith(".db") or not parts.hostname else f"{parts.scheme}://{parts.netloc}"

    def token(self) -> str:
        """Return the token; empty without one.

        Raises:
            InputError: the file cannot be read.

        """
        if self.token_file is None:
            return os.environ.get(self.token_env, "").strip()
        try:
            return Path(self.token_file).read_text().strip()
        except OSError as error:
            raise InputError(
                f"retrieval.token_file: {self.token_file} cannot be read ({error.strerror})"
            ) from error


@dataclass(frozen=True)
class LoadCandidatesConfig:
    """Root of load-candidates: a version's vectors into a Milvus."""

    artifacts: str = "work/artifacts"
    """The artifact store."""
    version: str | None = None
    """Version to load; null is the current one, whose collection gets the alias."""
    filters: list[str] = field(default_factory=list)
    """Filters of the shop's rules; printed is what of each Milvus tests, and what the server."""
    retrieval: RetrievalConfig = field(default_factory=lambda: RetrievalConfig(engine=Engine.milvus))
