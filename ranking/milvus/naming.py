"""Names of collections, and the command that loads one."""

from __future__ import annotations

import shlex
from typing import Final

from conf.composition.overrides import override
from conf.engines.milvus import RetrievalConfig

_OF_COLLECTIONS: Final = (
    "token_env", "token_file", "ca", "database", "prefix", "index_type", "index_params", "consistency",
    "write_seconds", "load_seconds", "keep",
)  # fmt: skip
"""Settings beside the address that decide which collection a command loads, how, and what it drops."""
STORE: Final = "STORE"
"""In place of the folder of an artifact store that is not known."""


def collection_name(config: RetrievalConfig, version: str) -> str:
    """Return the name of a version's collection; Milvus allows letters, digits and underscores."""
    return f"{config.prefix}_{version.replace('-', '_')}"


def version_of(config: RetrievalConfig, name: str) -> str:
    """Return the version of a collection that `collection_name` has named."""
    return name.removeprefix(f"{config.prefix}_").replace("_", "-")


def load_command(config: RetrievalConfig, version: str | None, store: object = STORE) -> str:
    """Return the shell command that loads the collection of a version with these settings.

    Args:
        config: which Milvus.
        version: its name; None is the current version, whose collection gets the alias.
        store: the artifact store.

    """
    words = ["shelfwise load-candidates", override("artifacts", str(store))]
    if version is not None:
        words.append(f"version={version}")
    words.append(shlex.quote(f"retrieval.uri={config.uri}"))  # the grammar takes addresses as they are
    plain = RetrievalConfig()
    for name in _OF_COLLECTIONS:
        value = getattr(config, name)
        if value != getattr(plain, name):
            words.append(override(f"retrieval.{name}", getattr(value, "value", value)))
    return " ".join(words)
