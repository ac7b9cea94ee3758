"""Loading of a version into a collection of its own, the alias of the current one, and what is dropped.

A collection is filled under a name that no server and no other loader looks for. When every item is there
and its indexes are built, it gets its name in one step: a name that exists is complete, and a crash leaves
nothing that could be served. Names hold the version, whose hash is of the bundle's content, so a collection
is never changed into another version's.

Publications, rollbacks and `load-candidates` may run at the same time, on several machines. So that none
drops what another fills, a loader holds a lease on its collection until it is closed; and so that none drops
what another has filled for a version that is not in the store yet, retention leaves what is newer than the
store. What another drops at the same time is gone for both.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import polars as pl

from conf.engines.milvus import RetrievalConfig
from features.data.dataset import BoolArray, FloatArray
from ranking.milvus.collection import CollectionSpec, check_collection
from ranking.milvus.connection import MilvusError, open_client, reason
from ranking.milvus.entities import collection_schema, entities, parts
from ranking.milvus.error_kinds import has_aliases, missing
from ranking.milvus.fields import stored_bytes
from ranking.milvus.indexes import METRIC, index_parameters
from ranking.milvus.leases import LEASE_SECONDS, Lease, split_leases
from ranking.milvus.naming import collection_name

_LOADING: Final = "_loading"
"""In the name of a collection that is being filled, between the version's and the loader's."""
_POLL_SECONDS: Final = 0.5
"""Pause between two questions for the state of an index."""
_BUILT: Final = ("", "Finished")


class IncompleteError(MilvusError):
    """A collection was not filled, or its indexes were not built in time; it can be tried again."""


class CollectionLoader:
    """Loads, marks and drops collections, as a publisher does."""

    def __init__(self, config: RetrievalConfig) -> None:
        """Connect.

        Raises:
            MilvusError: Milvus cannot be reached.

        """
        self._config = config
        self._client = open_client(config)
        self.in_use: list[str] = []
        """Collections that `drop_old` has left because servers search them."""
        self._leases: list[Lease] = []
        """On the collections that it has loaded."""

    def close(self) -> None:
        """End the leases and the connection."""
        self._release()
        self._client.close()

    def __enter__(self) -> CollectionLoader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def has(self, name: str) -> bool:
        """Return whether a collection exists; one with its name is complete."""
        return bool(self._call("has_collection", name))

    def load(
        self,
        spec: CollectionSpec,
        frame: pl.DataFrame,
        vectors: Mapping[str, FloatArray],
        fresh: BoolArray,
    ) -> None:
        """Fill a collection and give it its name; one that has it already is only checked.

        No retention of another process drops it before this loader is closed: a rollback needs it until its
        version is the current one.

        Args:
            spec: of the collection.
            frame: the bundle's catalogue, [items].
            vectors: of each vector field, [items, dim].
            fresh: [items] whether an item has no events.

        Raises:
            MilvusError: Milvus fails, or the collection is not complete or of another shape.

        """
        if self.has(spec.name):
            self._lease(spec.name)
            check_collection(self._client, self._config, spec)
            self._load_into_memory(spec.name)
            return
        for abandoned, complete in self._own():
            if complete == spec.name != abandoned:
                self._drop(abandoned)  # of a loader that crashed
        name = f"{spec.name}{_LOADING}_{uuid.uuid4().hex[:12]}"
        self._create(name, spec)
        lease = self._lease(name)
        try:
            self._fill(name, spec, frame, vectors, fresh, lease)
            self._rename(name, spec.name, lease)
            self._load_into_memory(spec.name)
            check_collection(self._client, self._config, spec)
        except BaseException:
            self._release()
            raise

    def _lease(self, name: str) -> Lease:
        """Return a lease on a collection, which lasts until the loader is closed."""
        lease = Lease(self._config, name, LEASE_SECONDS + self._config.load_seconds)
        self._leases.append(lease)
        lease.renew(self._client)
        return lease

    def _release(self) -> None:
        while self._leases:
            self._leases.pop().release(self._client, self._config.write_seconds)

    def _rename(self, name: str, complete: str, lease: Lease) -> None:
        """Give a collection its name, and with it the lease: aliases follow a collection that is renamed."""
        try:
            self._call("rename_collection", name, complete)
        except MilvusError:
            if not self.has(complete):
                raise
            if self._aliases(name) is None:
                return  # it was renamed, and only the answer is missing
            lease.release(self._client, self._config.write_seconds)
            self._drop(name)  # another loader was faster
            self._lease(complete)

    def _fill(
        self,
        name: str,
        spec: CollectionSpec,
        frame: pl.DataFrame,
        vectors: Mapping[str, FloatArray],
        fresh: BoolArray,
        lease: Lease,
    ) -> None:
        """Insert the items and wait for the indexes."""
        sizes = 4 * sum(spec.dims.values()) + stored_bytes(frame, spec.attributes)
        for part in parts(sizes):
            self._call("insert", name, list(entities(frame[part], spec, vectors, fresh, part)))
            lease.renew(self._client)
        lease.renew(self._client, again=True)
        self._call("flush", name, seconds=self._config.load_seconds)
        self._await_indexes(name, lease)
        lease.renew(self._client, again=True)
        self._load_into_memory(name)
        [counted] = self._call(
            "query", name, filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        if int(counted["count(*)"]) != len(frame):
            raise IncompleteError(
                f"Milvus at {self._config.address}: {counted['count(*)']} of {len(frame)} items have arrived "
                f"in {name}"
            )

    def _await_indexes(self, name: str, lease: Lease) -> None:
        """Wait until every index has all rows; searches of the others compare all vectors.

        Raises:
            MilvusError: one cannot be built, or not in time.

        """
        deadline = time.monotonic() + self._config.load_seconds
        for index in self._call("list_indexes", name):
            while True:
                found = self._call("describe_index", name, index) or {}
                state, left = found.get("state", ""), found.get("pending_index_rows")
                if state == "Failed":
                    raise MilvusError(f"Milvus at {self._config.address}: the index {index} of {name} failed")
                if left == 0 or (left is None and state in _BUILT):  # Milvus Lite may count no rows
                    break
                if time.monotonic() > deadline:
                    raise IncompleteError(
                        f"Milvus at {self._config.address}: the index {index} of {name} is not built after "
                        f"{self._config.load_seconds:g} seconds ({left} rows are left); a larger "
                        "retrieval.load_seconds gives it more time"
                    )
                lease.renew(self._client)
                time.sleep(min(_POLL_SECONDS, self._config.load_seconds))

    def _load_into_memory(self, name: str) -> None:
        """Have Milvus load a collection for searches; waits until it has."""
        self._call("load_collection", name, seconds=self._config.load_seconds)

    def _create(self, name: str, spec: CollectionSpec) -> None:
        from pymilvus import MilvusClient

        indexes = MilvusClient.prepare_index_params()
        for field in spec.dims:
            indexes.add_index(
                field,
                index_type=self._config.index_type,
                metric_type=METRIC,
                params=index_parameters(self._config, spec.items),
            )
        self._call(
            "create_collection",
            name,
            schema=collection_schema(spec),
            index_params=indexes,
            consistency_level=self._config.consistency.level,
        )

    def make_current(self, name: str) -> None:
        """Point the alias at a collection; a search by the alias sees the former or this one, never none.

        Raises:
            MilvusError: Milvus fails, or there is no such collection.

        """
        self._call("create_alias" if self.current() is None else "alter_alias", name, self._config.prefix)

    def current(self) -> str | None:
        """Return the collection that the alias names; None without the alias.

        Raises:
            MilvusError: Milvus fails.

        """
        found = self._call_if_there("describe_alias", self._config.prefix)
        return str(found["collection_name"]) if found and found.get("collection_name") else None

    def drop_old(self, kept: Iterable[str], newest: str | None = None) -> list[str]:
        """Drop the collections of other versions that nobody searches or fills; return their names.

        Those that this loader has loaded are no longer in use for that.

        Args:
            kept: names that stay: of the current version, and of those a rollback may return to.
            newest: name of the newest version's; what is newer stays, because a publisher is at work on it.
                None where there is no publisher.

        Raises:
            MilvusError: Milvus fails.

        """
        self._release()
        stay, dropped = {*kept, self.current()}, []
        for name, complete in self._own():
            if name in stay or (newest is not None and complete > newest):
                continue
            gone = self._drop(name)
            if gone:
                dropped.append(name)
            elif gone is False and name == complete:
                self.in_use.append(name)
        return dropped

    def _own(self) -> list[tuple[str, str]]:
        """Return the collections of versions, and the name of each once it is complete, in order."""
        pattern = re.compile(
            rf"({re.escape(self._config.prefix)}_\d{{8}}T\d{{6}}Z_[0-9a-f]{{12}})({_LOADING}.*)?"
        )
        found = self._call("list_collections")
        return [(name, match[1]) for name in sorted(found) if (match := pattern.fullmatch(name))]

    def _aliases(self, name: str) -> list[str] | None:
        """Return the aliases of a collection; None without the collection, of which Milvus Lite has none."""
        found = self._call_if_there("list_aliases", name)
        return None if found is None else list(found["aliases"])

    def _drop(self, name: str) -> bool | None:
        """Drop a collection that no server searches and no loader fills, and its ended leases before.

        Returns:
            Whether it was dropped; None if it was gone already.

        """
        aliases = self._aliases(name)
        if aliases is None:
            return None
        held, ended = split_leases(self._config.prefix, aliases, time.time())
        if held:
            return False
        for alias in ended:  # Milvus drops no collection that has aliases
            self._call_if_there("drop_alias", alias)
        try:
            self._call_if_there("drop_collection", name)
        except MilvusError as error:
            if not has_aliases(error.__cause__):
                raise
            return False  # a server's, since they were listed
        return True

    def drop_all(self) -> None:
        """Drop the alias, and every collection of a version that no server searches."""
        if self.current() is not None:
            self._call("drop_alias", self._config.prefix)
        self.drop_old([])

    def collections(self) -> list[str]:
        """Return the names of complete collections of versions, oldest first."""
        return [name for name, complete in self._own() if name == complete]

    def _call_if_there(self, method: str, name: str) -> Any:  # noqa: ANN401
        """Return what Milvus says of a collection or an alias; None if there is none of the name."""
        try:
            return self._call(method, name)
        except MilvusError as error:
            if missing(error.__cause__):
                return None
            raise  # what cannot be read is not missing

    def _call(self, method: str, *arguments: object, seconds: float | None = None, **more: object) -> Any:  # noqa: ANN401
        import grpc
        import pymilvus

        try:
            timeout = self._config.write_seconds if seconds is None else seconds
            if method == "list_collections":
                return self._client.list_collections()
            return getattr(self._client, method)(*arguments, timeout=timeout, **more)
        except (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            what = method.replace("_", " ")
            raise MilvusError(f"Milvus at {self._config.address}: {what} failed ({reason(error)})") from error


def names_kept(config: RetrievalConfig, versions: Sequence[str], current: str) -> list[str]:
    """Return the collections that stay: the current version's, and those of the newest others."""
    others = [version for version in versions if version != current]
    earlier = others[-config.keep :] if config.keep else []
    return [collection_name(config, version) for version in (*earlier, current)]
