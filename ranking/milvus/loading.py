"""Loading of a version into a collection of its own, the alias of the current one, and what is dropped.

A collection is filled under a name that no server and no other loader looks for. When every item is there
and its indexes are built, it gets its name in one step: a name that exists is complete, and a crash leaves
nothing that could be served. Names hold the version, whose hash is of the bundle's content, so a collection
is never changed into another version's.

Publications, rollbacks and `load-candidates` may run at the same time, on several machines. So that none
drops what another fills, a loader holds a lease on its collection; and so that none drops what another has
filled for a version that is not in the store yet, retention leaves what is newer than the store.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from conf.engines.milvus import RetrievalConfig
from features.data import schema
from features.data.dataset import BoolArray, FloatArray, LongArray
from ranking.catalogue.filter_language import AttributeKind
from ranking.milvus.collection import CollectionSpec, check_collection
from ranking.milvus.connection import MilvusError, open_client, reason
from ranking.milvus.fields import (
    FRESH,
    ITEM,
    MAX_BYTES,
    MAX_VALUES,
    AttributeField,
    stored_bytes,
    stored_rows,
)
from ranking.milvus.indexes import METRIC, index_parameters
from ranking.milvus.leases import LEASE_SECONDS, Lease, split_leases
from ranking.milvus.naming import collection_name, load_command, version_of

LOG = logging.getLogger(__name__)
_LOADING: Final = "_loading"
"""In the name of a collection that is being filled, between the version's and the loader's."""
_NO_ALIAS: Final = frozenset({100, 1600})
"""Codes for an alias that is not there: of Milvus Lite, and of Milvus (`ErrAliasNotFound`)."""
_BATCH_BYTES: Final = 8 * 2**20
"""Bytes per insertion, of items that alone have less; Milvus takes 64 MB."""
_POLL_SECONDS: Final = 0.5
"""Pause between two questions for the state of an index."""
_BUILT: Final = ("", "Finished")
_ID_BYTES: Final = 4 * schema.MAX_ID_CHARS


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

    def close(self) -> None:
        """End the connection."""
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

        Args:
            spec: of the collection.
            frame: the bundle's catalogue, [items].
            vectors: of each vector field, [items, dim].
            fresh: [items] whether an item has no events.

        Raises:
            MilvusError: Milvus fails, or the collection is not complete or of another shape.

        """
        if self.has(spec.name):
            check_collection(self._client, self._config, spec)
            self._load_into_memory(spec.name)
            return
        for abandoned, complete in self._own():
            if complete == spec.name and not self._leased(abandoned):
                self._drop(abandoned)  # of a loader that crashed
        name = f"{spec.name}{_LOADING}_{uuid.uuid4().hex[:12]}"
        self._create(name, spec)
        lease = Lease(self._config, name, LEASE_SECONDS + self._config.load_seconds)
        lease.renew(self._client)
        try:
            self._fill(name, spec, frame, vectors, fresh, lease)
        finally:
            lease.release(self._client)
        try:
            self._call("rename_collection", name, spec.name)
        except MilvusError:
            if not self.has(spec.name):
                raise
            self._drop(name)  # another loader was faster
        self._load_into_memory(spec.name)
        check_collection(self._client, self._config, spec)

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
        load_again = load_command(self._config, version_of(self._config, spec.name))
        sizes = 4 * sum(spec.dims.values()) + stored_bytes(frame, spec.attributes)
        for part in _parts(sizes):
            self._call("insert", name, list(_entities(frame[part], spec, vectors, fresh, part)))
            lease.renew(self._client)
        lease.renew(self._client, again=True)
        self._call("flush", name, seconds=self._config.load_seconds)
        self._await_indexes(name, load_again, lease)
        lease.renew(self._client, again=True)
        self._load_into_memory(name)
        [counted] = self._call(
            "query", name, filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        if int(counted["count(*)"]) != len(frame):
            raise MilvusError(
                f"Milvus at {self._config.address}: {counted['count(*)']} of {len(frame)} items have arrived "
                f"in {name}; load again: {load_again}"
            )

    def _await_indexes(self, name: str, load_again: str, lease: Lease) -> None:
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
                    raise MilvusError(
                        f"Milvus at {self._config.address}: the index {index} of {name} is not built after "
                        f"{self._config.load_seconds:g} seconds ({left} rows are left); load again, with a "
                        f"larger retrieval.load_seconds: {load_again}"
                    )
                lease.renew(self._client)
                time.sleep(min(_POLL_SECONDS, self._config.load_seconds))

    def _load_into_memory(self, name: str) -> None:
        """Have Milvus load a collection for searches; waits until it has."""
        self._call("load_collection", name, seconds=self._config.load_seconds)

    def _create(self, name: str, spec: CollectionSpec) -> None:
        from pymilvus import DataType, MilvusClient

        fields = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        fields.add_field(ITEM, DataType.VARCHAR, is_primary=True, max_length=_ID_BYTES)
        fields.add_field(FRESH, DataType.BOOL)
        for field, dim in spec.dims.items():
            fields.add_field(field, DataType.FLOAT_VECTOR, dim=dim)
        for attribute in spec.attributes:
            fields.add_field(attribute.field, nullable=True, **_type(attribute))
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
            schema=fields,
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
        import pymilvus

        try:
            found = self._call("describe_alias", self._config.prefix)
        except MilvusError as error:
            if isinstance(error.__cause__, pymilvus.MilvusException) and error.__cause__.code in _NO_ALIAS:
                return None
            raise  # an alias that cannot be read is not an alias that is missing
        return str(found["collection_name"]) if found.get("collection_name") else None

    def drop_old(self, kept: Iterable[str], newest: str | None = None) -> list[str]:
        """Drop the collections of other versions that nobody searches or fills; return their names.

        Args:
            kept: names that stay: of the current version, and of those a rollback may return to.
            newest: name of the newest version's; what is newer stays, because a publisher is at work on it.
                None where there is no publisher.

        Raises:
            MilvusError: Milvus fails.

        """
        stay, dropped = {*kept, self.current()}, []
        for name, complete in self._own():
            if name in stay or (newest is not None and complete > newest):
                continue
            if not self._leased(name):
                self._drop(name)
                dropped.append(name)
            elif name == complete:
                self.in_use.append(name)
        return dropped

    def _own(self) -> list[tuple[str, str]]:
        """Return the collections of versions, and the name of each once it is complete, in order."""
        pattern = re.compile(
            rf"({re.escape(self._config.prefix)}_\d{{8}}T\d{{6}}Z_[0-9a-f]{{12}})({_LOADING}.*)?"
        )
        found = self._call("list_collections")
        return [(name, match[1]) for name in sorted(found) if (match := pattern.fullmatch(name))]

    def _leased(self, name: str) -> bool:
        """Return whether a server searches a collection, or a loader fills it."""
        aliases = self._call("list_aliases", name)["aliases"]
        return bool(split_leases(self._config.prefix, aliases, time.time())[0])

    def _drop(self, name: str) -> None:
        """Drop a collection, and its leases before: Milvus drops no collection that has aliases."""
        aliases = self._call("list_aliases", name)["aliases"]
        for alias in split_leases(self._config.prefix, aliases, time.time())[1]:
            self._call("drop_alias", alias)
        self._call("drop_collection", name)

    def drop_all(self) -> None:
        """Drop the alias, and every collection of a version that no server searches."""
        if self.current() is not None:
            self._call("drop_alias", self._config.prefix)
        self.drop_old([])

    def collections(self) -> list[str]:
        """Return the names of complete collections of versions, oldest first."""
        return [name for name, complete in self._own() if name == complete]

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


def _parts(sizes: LongArray) -> Iterator[slice]:
    """Yield ranges of items for an insertion each.

    Args:
        sizes: [items] bytes of each.

    """
    start = filled = 0
    for row, size in enumerate(sizes.tolist()):
        if filled and filled + size > _BATCH_BYTES:
            yield slice(start, row)
            start, filled = row, 0
        filled += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def _type(attribute: AttributeField) -> dict[str, Any]:
    """Return the type of an attribute's field as Milvus's schema takes it."""
    from pymilvus import DataType

    if attribute.kind is AttributeKind.string:
        return {"datatype": DataType.VARCHAR, "max_length": MAX_BYTES}
    if attribute.kind is AttributeKind.boolean:
        return {"datatype": DataType.BOOL}
    if attribute.kind is AttributeKind.list:
        if attribute.elements is AttributeKind.string:
            more = {"element_type": DataType.VARCHAR, "max_length": MAX_BYTES}
        else:
            more = {"element_type": DataType.DOUBLE}
        return {"datatype": DataType.ARRAY, "max_capacity": MAX_VALUES, **more}
    whole = attribute.kind is AttributeKind.time or attribute.whole
    return {"datatype": DataType.INT64 if whole else DataType.DOUBLE}


def _entities(
    frame: pl.DataFrame,
    spec: CollectionSpec,
    vectors: Mapping[str, FloatArray],
    fresh: BoolArray,
    part: slice,
) -> Iterable[dict[str, Any]]:
    """Yield the entities of some items."""
    rows = stored_rows(frame, spec.attributes)
    own = {field: np.asarray(vectors[field][part], dtype=np.float32) for field in spec.dims}
    for position, (item_id, values) in enumerate(zip(frame[schema.ITEM_ID], rows, strict=True)):
        yield entity(item_id, values, {f: v[position] for f, v in own.items()}, bool(fresh[part][position]))


def entity(
    item_id: str, values: Mapping[str, Any], vectors: Mapping[str, FloatArray], fresh: bool
) -> dict[str, Any]:
    """Return an item as a collection has it."""
    return {ITEM: item_id, FRESH: fresh, **values, **vectors}


def names_kept(config: RetrievalConfig, versions: Sequence[str], current: str) -> list[str]:
    """Return the collections that stay: the current version's, and those of the newest others."""
    others = [version for version in versions if version != current]
    earlier = others[-config.keep :] if config.keep else []
    return [collection_name(config, version) for version in (*earlier, current)]
