"""Loading of a version into a collection of its own, the alias of the current one, and what is dropped.

A collection is filled under a name that no server looks for. When every item is there and its indexes are
built, it gets its name in one step: a name that exists is complete, and a crash leaves nothing that could be
served. Names hold the version, whose hash is of the bundle's content, so a collection is never changed into
another version's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from conf.engines.milvus import RetrievalConfig
from features.data import schema
from features.data.dataset import BoolArray, FloatArray
from ranking.catalogue.filter_language import AttributeKind
from ranking.milvus.collection import CollectionSpec, check_collection
from ranking.milvus.connection import MilvusError, open_client, reason
from ranking.milvus.fields import FRESH, ITEM, MAX_BYTES, MAX_VALUES, AttributeField, stored_rows
from ranking.milvus.indexes import METRIC, index_parameters
from ranking.milvus.leases import split_leases
from ranking.milvus.naming import collection_name, load_command, version_of

LOG = logging.getLogger(__name__)
_LOADING: Final = "_loading"
"""End of the name of a collection that is being filled."""
_NO_ALIAS: Final = frozenset({100, 1600})
"""Codes for an alias that is not there: of Milvus Lite, and of Milvus (`ErrAliasNotFound`)."""
_BATCH_BYTES: Final = 8 * 2**20
"""Bytes of vectors per insertion; Milvus takes 64 MB with everything else."""
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
        name = spec.name + _LOADING
        if self.has(name):  # of a loader that crashed
            self._call("drop_collection", name)
        self._create(name, spec)
        row_bytes = 4 * sum(spec.dims.values()) + 256
        step = int(max(_BATCH_BYTES // row_bytes, 1))
        for start in range(0, len(frame), step):
            part = slice(start, min(start + step, len(frame)))
            self._call("insert", name, list(_entities(frame[part], spec, vectors, fresh, part)))
        self._call("flush", name, seconds=self._config.load_seconds)
        self._load_into_memory(name)
        [counted] = self._call(
            "query", name, filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        if int(counted["count(*)"]) != len(frame):
            raise MilvusError(
                f"Milvus at {self._config.address}: {counted['count(*)']} of {len(frame)} items have arrived "
                f"in {name}; load again: {load_command(self._config, version_of(self._config, spec.name))}"
            )
        self._call("rename_collection", name, spec.name)
        self._load_into_memory(spec.name)
        check_collection(self._client, self._config, spec)

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

    def drop_old(self, kept: Iterable[str]) -> list[str]:
        """Drop the collections of other versions that no server searches; return their names.

        Args:
            kept: names that stay: of the current version, and of those a rollback may return to.

        Raises:
            MilvusError: Milvus fails.

        """
        prefix, stay = f"{self._config.prefix}_", {*kept, self.current()}
        own = [name for name in self._call("list_collections") if _of_version(name, prefix)]
        dropped = []
        for name in sorted(set(own) - stay):
            aliases = self._call("list_aliases", name)["aliases"]
            held, expired = split_leases(self._config.prefix, aliases, time.time())
            if held:
                self.in_use.append(name)
                continue
            for alias in expired:  # Milvus drops no collection that has aliases
                self._call("drop_alias", alias)
            self._call("drop_collection", name)
            dropped.append(name)
        return dropped

    def drop_all(self) -> None:
        """Drop the alias, and every collection of a version that no server searches."""
        if self.current() is not None:
            self._call("drop_alias", self._config.prefix)
        self.drop_old([])

    def collections(self) -> list[str]:
        """Return the names of complete collections of versions, oldest first."""
        prefix = f"{self._config.prefix}_"
        found = self._call("list_collections")
        return sorted(n for n in found if _of_version(n, prefix) and not n.endswith(_LOADING))

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


def _of_version(name: str, prefix: str) -> bool:
    """Return whether a collection is one of a version: the prefix, and a version's time and hash."""
    rest = name.removeprefix(prefix).removesuffix(_LOADING)
    time, _, content = rest.partition("_")
    return name.startswith(prefix) and len(time) == 16 and len(content) == 12 and time.endswith("Z")


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
