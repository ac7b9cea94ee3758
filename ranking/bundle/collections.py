"""The collections of a store's versions in Milvus: loaded before a version becomes current, dropped when old.

The bundle stays the source of truth: a collection holds nothing that cannot be loaded from it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from rich.console import Console

from conf.engines.milvus import LoadCandidatesConfig, RetrievalConfig
from conf.errors import InputError
from encoders.factors.affinity import AFFINITY_FILE, Affinity
from encoders.factors.co_purchase import FACTORS_FILE, Factors
from encoders.towers.towers import TOWERS_FILE
from features.data.dataset import BoolArray, FloatArray
from features.data.statistics import Statistics
from ranking.bundle.bundle import ITEM_VECTORS, STATISTICS, TEXT_VECTORS
from ranking.bundle.catalogue_file import CATALOG
from ranking.bundle.store import (
    MANIFEST,
    POINTER_LOCK,
    VERSIONS,
    current_version,
    locked,
    verify,
    versions,
)
from ranking.milvus.collection import CollectionSpec
from ranking.milvus.fields import (
    AFFINITY_VECTOR,
    FACTOR_VECTOR,
    ITEM_VECTOR,
    MAX_ATTRIBUTES,
    TEXT_VECTOR,
    attribute_fields,
)
from ranking.milvus.loading import CollectionLoader, IncompleteError, names_kept
from ranking.milvus.naming import collection_name, load_command
from ranking.milvus.reporting import attributes_without_field, filter_lines
from ranking.retrieval.source_indexes import new_rows


class LoadedCollection(NamedTuple):
    """A collection that is complete."""

    name: str
    catalogue: pl.DataFrame
    """Of its version."""


def load_collection(
    loader: CollectionLoader, config: RetrievalConfig, folder: Path, version: str
) -> LoadedCollection:
    """Load the files of a version into its collection, unless it is there.

    Vectors are read from mapped files, a few megabytes at a time.

    Args:
        loader: connected.
        config: its settings.
        folder: of the version, verified.
        version: its name; the folder of a version that is being published has another.

    Raises:
        InputError: Milvus fails.

    """
    frame = pl.read_parquet(folder / CATALOG)
    texts: FloatArray = np.asarray(np.load(folder / TEXT_VECTORS, mmap_mode="r"))
    vectors: dict[str, FloatArray] = {ITEM_VECTOR: np.asarray(np.load(folder / ITEM_VECTORS, mmap_mode="r"))}
    if (folder / TOWERS_FILE).is_file():
        vectors[TEXT_VECTOR] = texts
    if (folder / FACTORS_FILE).is_file():
        vectors[FACTOR_VECTOR] = Factors.load(folder / FACTORS_FILE).vectors
    affinity = Affinity.load(folder / AFFINITY_FILE)
    if affinity is not None:
        vectors[AFFINITY_VECTOR] = affinity.units(texts)
    fresh: BoolArray = np.zeros(len(frame), dtype=np.bool_)
    fresh[new_rows(Statistics.load(folder / STATISTICS).count)] = True
    dims = {field: found.shape[1] for field, found in vectors.items() if found.shape[1]}
    spec = CollectionSpec(collection_name(config, version), dims, attribute_fields(frame), len(frame))
    loader.load(spec, frame, vectors, fresh)
    return LoadedCollection(spec.name, frame)


def load_staged(config: RetrievalConfig, folder: Path, manifest: dict[str, Any], console: Console) -> None:
    """Load a version that is about to become current.

    Raises:
        InputError: Milvus fails: the version must not become current then.

    """
    with CollectionLoader(config) as loader:
        try:
            loaded = load_collection(loader, config, folder, manifest["version"])
        except IncompleteError as error:  # the staged version is removed: no other command can load it
            raise InputError(f"{error}; publish again") from error
    _say(console, f"publish: collection {loaded.name} is complete")
    _name_attributes(console, loaded.catalogue)


def follow_current(config: RetrievalConfig, store: Path, console: Console) -> None:
    """Do what `mark_current` does; a Milvus that fails is reported and no more.

    The version is current by then, and servers search its collection by name, not by the alias.
    """
    try:
        mark_current(config, store, console)
    except InputError as error:
        console.print(
            f"warning: the alias {config.prefix} is not changed: {error}; repeat it with "
            f"{load_command(config, None, store)}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def mark_current(config: RetrievalConfig, store: Path, console: Console) -> None:
    """Point the alias at the current version's collection, and drop those of versions that are too old.

    Raises:
        InputError: Milvus fails, or the store has no current version.

    """
    with CollectionLoader(config) as loader:
        current, known = _current_and_known(store)
        name = collection_name(config, current)
        if not loader.has(name):
            load_collection(loader, config, store / VERSIONS / current, current)
        loader.make_current(name)
        kept, newest = names_kept(config, known, current), collection_name(config, known[-1])
        dropped = loader.drop_old(kept, newest)
    console.print(
        f"alias {config.prefix} names {name}"
        + "".join(f"; dropped {old}" for old in dropped)
        + "".join(f"; kept {old}, which a server searches" for old in loader.in_use),
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _current_and_known(store: Path) -> tuple[str, list[str]]:
    """Return the current version and all versions.

    They are read under the pointer's lock, so that no new version is seen before CURRENT names it.
    """
    try:
        with locked(store, POINTER_LOCK):
            return current_version(store), versions(store)
    except OSError:  # a store that this account only reads
        return current_version(store), versions(store)


@contextmanager
def ensured_collection(config: RetrievalConfig, store: Path, version: str) -> Iterator[LoadedCollection]:
    """Load a version of the store into its collection, unless it is there.

    No retention drops it until the end of the block, in which the version may become current.

    Raises:
        InputError: Milvus fails, or the version is damaged.

    """
    folder = store / VERSIONS / version
    if not (folder / MANIFEST).is_file():
        known = ", ".join(versions(store)) or "none"
        raise InputError(f"{store}: no version '{version}' (there are: {known})")
    verify(folder)
    with CollectionLoader(config) as loader:
        yield load_collection(loader, config, folder, version)


def load_candidates(config: LoadCandidatesConfig, console: Console) -> None:
    """Carry out `shelfwise load-candidates`: what `publish` does, for a version that is there already.

    Raises:
        InputError: Milvus fails, or there is no such version.

    """
    store = Path(config.artifacts)
    if not config.retrieval.uses_milvus:
        raise InputError(
            "load-candidates fills a Milvus: add retrieval=milvus retrieval.uri=http://HOST:19530; "
            "FAISS's indexes are in the bundle"
        )
    current = current_version(store)
    version = config.version or current
    try:
        with ensured_collection(config.retrieval, store, version) as loaded:
            _say(console, f"collection {loaded.name} is complete ({len(loaded.catalogue):,} items)")
            _name_attributes(console, loaded.catalogue)
            for line in filter_lines(loaded.catalogue, config.filters):
                _say(console, line)
            if version == current:
                mark_current(config.retrieval, store, console)
    except IncompleteError as error:
        command = load_command(config.retrieval, config.version, store)
        raise InputError(f"{error}; load again: {command}") from error


def _name_attributes(console: Console, catalogue: pl.DataFrame) -> None:
    """Name the attributes whose conditions the server tests in place of Milvus."""
    names = attributes_without_field(catalogue)
    if names:
        _say(
            console,
            f"Milvus has no field for {', '.join(names)} (the first {MAX_ATTRIBUTES} attributes without long "
            "values have one); the server tests conditions on them",
        )


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
