"""The rollback step: an earlier version becomes current again, with its collection where Milvus is used."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from conf.engines.milvus import RetrievalConfig
from conf.errors import InputError
from conf.operating import RollbackConfig
from ranking.bundle.collections import ensured_collection, follow_current
from ranking.bundle.store import roll_back
from ranking.milvus.naming import load_command


def roll_back_engines(
    retrieval: RetrievalConfig,
    store: Path,
    console: Console,
    version: str | None = None,
    action: str = "rollback",
) -> str:
    """Point CURRENT at another version as `roll_back` does, and the alias of a Milvus at its collection.

    A collection that was dropped is loaded again first: servers find it when they look, and no publication
    drops it before its version is current. A Milvus that is away, refuses the token, or cannot load it, does
    not keep a shop from leaving a bad model: servers load the version once its collection is there.

    Raises:
        InputError: there is no such version, or its files are damaged.

    """

    def prepare(chosen: str) -> None:
        try:
            in_use.enter_context(ensured_collection(retrieval, store, chosen))
        except InputError as error:  # the version itself has been verified
            warning = f"warning: {error}; servers need the collection of {chosen} to load it: "
            warning += load_command(retrieval, chosen, store)
            console.print(warning, markup=False, highlight=False, soft_wrap=True)

    if not retrieval.uses_milvus:
        return roll_back(store, version, action)
    with ExitStack() as in_use:
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
