"""The collection of one version while it is served: searches, writes, and recovery after an outage.

Searches never wait for a connection. The first one that fails marks the collection as down; until a probe in
the background succeeds, further ones fail at once, so that an outage costs a batch of lists one timeout.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from conf.engines.milvus import RetrievalConfig
from conf.errors import InputError
from features.data.dataset import FloatArray
from ranking.milvus.connection import MilvusError, open_client, reason
from ranking.milvus.error_kinds import refused, timed_out, unfit
from ranking.milvus.expressions import is_one_of, without_values
from ranking.milvus.fields import ITEM, AttributeField
from ranking.milvus.indexes import search_parameters
from ranking.milvus.leases import RENEW_SECONDS, Lease
from ranking.milvus.naming import load_command, version_of
from ranking.retrieval.unavailable import SearchUnavailableError, seconds_left
from ranking.stage_timing import timed

LOG = logging.getLogger(__name__)
MOST_ROWS: Final = 16384
"""Most rows of a search, a limit of Milvus."""
_MOST_REFUSED: Final = 1024
"""Refused filters that are kept; then they are found out anew."""


@dataclass(frozen=True)
class CollectionSpec:
    """What a version's collection is to look like."""

    name: str
    dims: Mapping[str, int]
    """Width of each vector field."""
    attributes: Sequence[AttributeField]
    items: int
    """Items of the bundle."""


@dataclass(frozen=True)
class VectorQuery:
    """A search in one vector field."""

    field: str
    vectors: FloatArray
    """[queries, dim]"""
    k: int
    expression: str
    """Of the rows to search; empty for all."""


Answers = list[list[tuple[Sequence[str], Sequence[float]]]]
"""Ids and scores, best first, for each vector of each search."""


class RefusedError(Exception):
    """Milvus has answered that it does not take an expression, or an item."""


class Collection:
    """Searches and writes one collection; thread-safe."""

    def __init__(self, config: RetrievalConfig, spec: CollectionSpec) -> None:
        """Prepare; `connect` or `keep_connected` makes the connection."""
        self.spec = spec
        self.config = config
        self._client: Any = None
        self._up = False
        self._closed = threading.Event()
        self._down = threading.Event()
        self._keeper: threading.Thread | None = None
        self._lease = Lease(config, spec.name)
        self.failure = "no search has been answered yet"
        """Why the last search or probe failed."""
        self.failed_searches = 0
        """Searches that failed, those included that were not answered in time."""
        self.timeouts = 0
        """Searches that were not answered in time."""
        self.refused: frozenset[str] = frozenset()
        """Filters that this Milvus does not take."""
        self.refused_kinds: tuple[str, ...] = ()
        """The same without values, in order; equal ones once."""

    @property
    def up(self) -> bool:
        """Whether the last search or probe was answered."""
        return self._up

    def connect(self) -> None:
        """Connect, check that the collection is complete and as the version needs it, and search once.

        Raises:
            UnreachableError: Milvus cannot be reached.
            MilvusError: the collection is missing, or of another shape.
            SearchUnavailableError: it does not answer a search.

        """
        client = open_client(self.config)
        try:
            check_collection(client, self.config, self.spec)
            load_released(client, self.config, self.spec.name)
            probe = [
                VectorQuery(field, np.ones((1, dim), dtype=np.float32), 1, "")
                for field, dim in self.spec.dims.items()
            ]
            self._send(client, probe, self.config.timeout_seconds)
            self._lease.renew(client, again=True)
        except BaseException:
            _close(client)
            raise
        former, self._client = self._client, client
        self._down.clear()  # before the first search, whose failure sets it again
        self._up = True
        _close(former)

    def keep_connected(self) -> None:
        """Start the thread that connects again after an outage."""
        if not self._up:
            self._down.set()
        self._keeper = threading.Thread(target=self._reconnect, name="milvus-probe", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """End the connection."""
        self._closed.set()
        self._down.set()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(self.config.connect_seconds + 1)
        if self._up:
            self._lease.release(self._client, self.config.timeout_seconds)
        self._up = False
        _close(self._client)

    def search(self, queries: Sequence[VectorQuery]) -> Answers:
        """Return ids and scores for each vector of each search, best first; all searches run at a time.

        Raises:
            SearchUnavailableError: Milvus did not answer in time, or cannot be reached.
            RefusedError: it has answered that it does not take them. It may be an expression, or anything
                else about the collection: `refuses` tells.

        """
        if not self._up:
            raise SearchUnavailableError(f"Milvus at {self.config.address} is away")
        client, began = self._client, time.perf_counter()
        try:
            with timed("milvus"):
                return self._send(client, queries, seconds_left(self.config.timeout_seconds))
        except SearchUnavailableError as error:
            with timed("milvus_failure"):
                self.failed_searches += 1
                self.timeouts += timed_out(error.__cause__)
                took = f"{error} (after {1000 * (time.perf_counter() - began):.0f} ms)"
                if client is self._client:  # a search of a former connection says nothing about this one
                    self._mark_down(took)
            raise

    def refuses(self, queries: Sequence[VectorQuery], without: Sequence[VectorQuery]) -> bool:
        """Return whether Milvus takes searches without their expressions, but not with them.

        Raises:
            SearchUnavailableError: it takes neither: the expressions are not the cause.

        """
        try:
            self.search(queries)
        except RefusedError as error:
            try:
                self.search(without)
            except RefusedError:
                raise self.unusable(error) from error
            return True
        return False

    def refuse(self, expressions: AbstractSet[str]) -> None:
        """Ask Milvus for some filters no more; without their values in the log."""
        LOG.warning(
            "Milvus at %s does not take %d filters that it was asked for; the masks of such filters are "
            "applied to what it finds without them",
            self.config.address,
            len(expressions),
        )
        former = self.refused if len(self.refused) < _MOST_REFUSED else frozenset()
        self.refused = former.union(expressions)
        self.refused_kinds = tuple(sorted({without_values(made) for made in self.refused}))

    def unusable(self, error: RefusedError) -> SearchUnavailableError:
        """Return the error of a collection that refuses every search, which is down from now on."""
        self.failed_searches += 1
        self._mark_down(f"Milvus at {self.config.address}: {error}")
        return SearchUnavailableError(f"Milvus at {self.config.address}: {error}")

    def _send(
        self,
        client: Any,  # noqa: ANN401
        queries: Sequence[VectorQuery],
        seconds: float,
    ) -> Answers:
        import grpc
        import pymilvus

        sent = []
        try:
            for query in queries:
                sent.append(
                    client.search(
                        self.spec.name,
                        np.ascontiguousarray(query.vectors, dtype=np.float32),
                        filter=query.expression,
                        limit=min(query.k, MOST_ROWS),
                        search_params=search_parameters(self.config, self.spec.items, query.k),
                        anns_field=query.field,
                        consistency_level=self.config.consistency.level,
                        timeout=seconds,
                        _async=True,  # else the client waits for connections and retries beyond the timeout
                    )
                )
            answers = [future.result(timeout=seconds) for future in sent]
        except (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
            for future in sent:
                future.cancel()
            if any(query.expression for query in queries) and refused(error):
                raise RefusedError(reason(error)) from error
            raise SearchUnavailableError(f"Milvus at {self.config.address}: {reason(error)}") from error
        except (ValueError, grpc.FutureCancelledError) as error:  # the connection was replaced meanwhile
            raise SearchUnavailableError(f"Milvus at {self.config.address}: {reason(error)}") from error
        return [[(hits.ids, hits.distances) for hits in answer] for answer in answers]

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write items, whether they are there or not.

        Raises:
            SearchUnavailableError: Milvus did not take them.
            RefusedError: it will not take one of them, whenever it is tried.

        """
        self._write(lambda client, **kw: client.upsert(self.spec.name, list(rows), **kw))

    def delete(self, item_ids: Sequence[str]) -> None:
        """Delete items, those that are not there, too; raises as `upsert`.

        By an expression: of ids pymilvus makes one itself, without escaping what is in them.
        """
        self._write(lambda client, **kw: client.delete(self.spec.name, filter=is_one_of(item_ids), **kw))

    def _write(self, call: Callable[..., object]) -> None:
        import grpc
        import pymilvus

        if not self._up:
            raise SearchUnavailableError(f"Milvus at {self.config.address} is away")
        try:
            call(self._client, timeout=self.config.write_seconds)
        except (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError, ValueError) as error:
            if unfit(error):
                raise RefusedError(reason(error)) from error
            raise SearchUnavailableError(f"Milvus at {self.config.address}: {reason(error)}") from error

    def _mark_down(self, why: str) -> None:
        if self._up:
            self._up = False
            self.failure = why
            LOG.warning("%s; lists are made without vector searches until it answers", why)
            self._down.set()

    def _reconnect(self) -> None:
        """Connect whenever the collection is down, until it is closed; renew the lease meanwhile."""
        logged = ""
        while not self._closed.is_set():
            if not self._down.wait(RENEW_SECONDS):
                self._lease.renew(self._client)
                continue
            if self._closed.wait(self.config.retry_seconds):
                return
            try:
                self.connect()
                LOG.warning("Milvus at %s answers again", self.config.address)
                logged = ""
            except Exception as error:  # whatever it is: without this thread the outage would not end
                known = isinstance(error, (InputError, SearchUnavailableError))
                self.failure = str(error) if known else f"{type(error).__name__}: {error}"
                if self.failure != logged:
                    LOG.warning("%s", self.failure, exc_info=None if known else error)
                logged = self.failure


def check_collection(client: Any, config: RetrievalConfig, spec: CollectionSpec) -> None:  # noqa: ANN401
    """Check that a collection is there and has the fields of its version.

    A collection gets its name when all its items are there, so a name that exists is complete.

    Raises:
        MilvusError: it is missing, of another shape, or does not answer.

    """
    import grpc
    import pymilvus

    try:
        if not client.has_collection(spec.name, timeout=config.connect_seconds):
            raise MilvusError(
                f"Milvus at {config.address} has no collection {spec.name}; load it: "
                f"{load_command(config, version_of(config, spec.name))}"
            )
        found = client.describe_collection(spec.name, timeout=config.connect_seconds)
    except (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise MilvusError(f"Milvus at {config.address}: {reason(error)}") from error
    fields = {field["name"]: field for field in found["fields"]}
    again = f"drop the collection {spec.name} and load it again: "
    again += load_command(config, version_of(config, spec.name))
    for name, dim in spec.dims.items():
        width = fields.get(name, {}).get("params", {}).get("dim")
        if width is None or int(width) != dim:
            raise MilvusError(
                f"Milvus at {config.address}, collection {spec.name}: field {name} has "
                f"{'no vectors' if width is None else f'width {width}'}, the version has {dim}; {again}"
            )
    missing = [name for name in (ITEM, *(a.field for a in spec.attributes)) if name not in fields]
    if missing:
        raise MilvusError(
            f"Milvus at {config.address}, collection {spec.name}: no field {missing[0]}; {again}"
        )


def check_present(config: RetrievalConfig, spec: CollectionSpec) -> None:
    """Do what `check_collection` does, by a connection of its own.

    Raises:
        InputError: it is missing, of another shape, or Milvus cannot be reached.

    """
    client = open_client(config)
    try:
        check_collection(client, config, spec)
    finally:
        _close(client)


def load_released(client: Any, config: RetrievalConfig, name: str) -> None:  # noqa: ANN401
    """Have Milvus load a collection that is not in its memory, as after a restart of Milvus Lite.

    Raises:
        SearchUnavailableError: it cannot.

    """
    import grpc
    import pymilvus
    from pymilvus.client.types import LoadState

    try:
        if client.get_load_state(name, timeout=config.connect_seconds)["state"] != LoadState.Loaded:
            client.load_collection(name, timeout=config.load_seconds)
    except (pymilvus.MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
        raise SearchUnavailableError(f"Milvus at {config.address}: {reason(error)}") from error


def _close(client: Any) -> None:  # noqa: ANN401
    if client is not None:
        client.close()
