"""The rollback step: an earlier version becomes current again, with its collection where Milvus is used."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from conf.engines.milvus import RetrievalConfig
from conf.operating import RollbackConfig
from ranking.bundle.collections import ensure_collection, follow_current
from ranking.bundle.store import roll_back
from ranking.milvus.connection import UnreachableError


def roll_back_engines(
    retrieval: RetrievalConfig,
    store: Path,
    console: Console,
    version: str | None = None,
    action: str = "rollback",
) -> str:
    """Point CURRENT at another version as `roll_back` does, and the alias of a Milvus at its collection.

    A collection that was dropped is loaded again first: servers find it when they look. A Milvus that cannot
    be reached does not keep a shop from leaving a bad model.

    Raises:
        InputError: there is no such version, its files are damaged, or its collection cannot be loaded.

    """

    def prepare(chosen: str) -> None:
        try:
            ensure_collection(retrieval, store, chosen)
        except UnreachableError as error:
            console.print(f"warning: {error}", markup=False, highlight=False, soft_wrap=True)

    if not retrieval.uses_milvus:
        return roll_back(store, version, action)
    chosen = roll_back(store, version, action, prepare)
    follow_current(retrieval, store, console)
    return chosen


def rollback(config: RollbackConfig, console: Console) -> None:
    """Carry out `shelfwise rollback`.

    Raises:
        InputError: there is no such version, or none before the current one.
    """
    version = roll_back_engines(config.retrieval, Path(config.artifacts), console, config.version)
    console.print(f"current is {version}; running servers go over to it", soft_wrap=True)
