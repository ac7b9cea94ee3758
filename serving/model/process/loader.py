"""Loading of versions into processes of their own, after a check that they fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from conf.errors import InputError
from conf.serving import ServeConfig
from ranking.bundle.host_memory import Room, bytes_needed, check_memory, private_bytes, room
from ranking.bundle.store import VERSIONS, verify, versions
from ranking.milvus.collection import CollectionSpec, check_present
from ranking.milvus.fields import ITEM_VECTOR
from ranking.milvus.naming import collection_name
from serving.core.threads import list_threads
from serving.model.interfaces import LiveModel
from serving.model.process.client import RemoteModel
from serving.model.process.worker import LoadRequest


class Loader:
    """Loads versions of a store; any thread may call it."""

    def __init__(
        self,
        config: ServeConfig,
        start: Callable[[LoadRequest], LiveModel] = RemoteModel,
        free: Callable[[], Room | None] = room,
    ) -> None:
        """Prepare.

        Args:
            config: of the server.
            start: starts the process of a model and loads it there.
            free: reads how much memory is free.
        """
        self._config = config
        self._start = start
        self._free = free
        self._store = Path(config.artifacts)

    def first(self, version: str) -> LiveModel:
        """Return the first model, with which the libraries come into memory.

        It is verified in this process, so that a damaged one is reported before another is started.

        Raises:
            InputError: an invalid version, or one that does not fit into memory.
        """
        manifest = verify(self._store / VERSIONS / version)
        self._check(version, libraries=True)
        return self._load(version, False, manifest)

    def __call__(self, version: str, background: bool) -> LiveModel:
        """Return a later model.

        Args:
            version: which is verified.
            background: whether it is loaded beside the served one, which has priority.

        Raises:
            NoRoomError: it does not fit into memory.
            InputError: an invalid version.
        """
        known = versions(self._store)
        if version not in known:
            newest = f"; the newest is {known[-1]}" if known else ""
            raise InputError(f"{self._store}: no complete version {version}{newest}")
        self._check(version, beside=background)
        return self._load(version, background, None)

    def stop_first(self, version: str, served: LiveModel) -> Callable[[], LiveModel]:
        """Return what loads a version once the served model has ended, after all checks that can precede it.

        Raises:
            NoRoomError: the version will not fit then either.
            InputError: an invalid version, or its collection is missing or Milvus away.
        """
        manifest = verify(self._store / VERSIONS / version)
        retrieval = self._config.retrieval
        if retrieval.uses_milvus:
            width = manifest.get("dims", {}).get("item")
            dims = {ITEM_VECTOR: width} if width else {}
            check_present(retrieval, CollectionSpec(collection_name(retrieval, version), dims, (), 0))
        freed = private_bytes(served.process.pid) if isinstance(served, RemoteModel) else 0
        self._check(version, freed=freed)
        return partial(self._load_alone, version, manifest)

    def _load_alone(self, version: str, manifest: dict[str, Any]) -> LiveModel:
        self._check(version)
        return self._load(version, False, manifest)

    def _load(self, version: str, background: bool, manifest: dict[str, Any] | None) -> LiveModel:
        config = self._config
        return self._start(
            LoadRequest(
                str(self._store), version, manifest, config.max_live_items, config.threads,
                list_threads(config.list_threads, config.workers), background, config.device,
                config.model_timeout_seconds, config.log_format, config.log_requests, config.retrieval,
            )
        )  # fmt: skip

    def _check(self, version: str, beside: bool = False, libraries: bool = False, freed: int = 0) -> None:
        """Raise NoRoomError for a version that does not fit into memory.

        Args:
            version: to load.
            beside: whether another is served, for the message.
            libraries: whether they have to be loaded, too.
            freed: bytes that will be free before it is loaded.
        """
        if not self._config.memory_check:
            return
        advice = "give more memory, or serve fewer workers or a smaller model"
        if beside:
            advice = (
                "the former model goes on; reload_without_room=stop_first, or a restart, changes over with "
                "one model at a time, or give more memory"
            )
        found = self._free()
        if found is not None:
            found = Room(found.free + freed, found.where)
        what = f"model {version}{' beside the one that serves' * beside}"
        needed = bytes_needed(
            self._store / VERSIONS / version, libraries, indexes=not self._config.retrieval.uses_milvus
        )
        check_memory(needed, what, found, advice)
