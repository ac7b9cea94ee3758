"""The bundle: all files that serving needs, in one verified folder."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file

from conf.engines.milvus import RetrievalConfig
from conf.errors import InputError
from conf.schema import CandidateConfig
from encoders.device import CPU
from encoders.factors.affinity import AFFINITY_FILE, Affinity
from encoders.factors.co_purchase import FACTORS_FILE, Factors
from encoders.text.compiled_text_encoder import FrozenTextEncoder
from encoders.text.int8_text_encoder import frozen_text_encoder
from encoders.text.saved_encoder import load_saved_encoder
from encoders.towers.towers import TOWERS_FILE, Towers
from features.data.arrays import load_arrays, load_rows, mapped_rows
from features.data.dataset import Catalogue, FloatArray
from features.data.statistics import Neighbours, Statistics
from features.text.item_text import TextTemplate
from ranking.assembly import PcaProjection, item_arrays
from ranking.bundle.catalogue_file import CATALOG
from ranking.bundle.indexes import INDEX, index_config, read_indexes, write_indexes
from ranking.bundle.manifest import ManifestView
from ranking.bundle.milvus_searchers import milvus_searchers
from ranking.bundle.store import MANIFEST, VERSIONS, current_version, verify
from ranking.milvus.collection import Collection
from ranking.recommender import Recommender
from ranking.retrieval.index_choice import CatalogueIndex, load_index
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.source_indexes import SourceIndexes
from ranking.scoring.novelty import Novelty
from ranking.scoring.ranker import RANKER_FILE, Ranker
from ranking.words.live_words import LiveWords
from ranking.words.word_index import WORDS, WordIndex

LOG = logging.getLogger(__name__)
ITEM_VECTORS = "item_vectors.npy"
TEXT_VECTORS = "text_vectors.npy"
STATISTICS = "statistics.safetensors"
TEXT_NEIGHBOURS = "text_neighbours.safetensors"
TEXT_ENCODER = "text_encoder"
CONFIG = "config.yaml"
_READERS = 2
"""Threads that read files while the calling one computes: reading and arithmetic release the GIL."""
REQUIRED = (CATALOG, ITEM_VECTORS, TEXT_VECTORS, INDEX, STATISTICS, TEXT_NEIGHBOURS)
"""Required files of a bundle."""
HISTORIES = "histories.parquet"
"""Beside CURRENT, outside the versions: users' recent events, imported by a server's user state."""


@dataclass(frozen=True)
class Bundle(ManifestView):
    """One loaded version."""

    version: str
    manifest: dict[str, Any]
    catalogue: Catalogue
    recommender: Recommender
    text_encoder: FrozenTextEncoder
    sketch: PcaProjection
    """PCA projection of the catalogue's text vectors, also applied to later items."""
    lender_index: CatalogueIndex | None = None
    """Over the affinity vectors, to impute factors of later items; None where exact search is fast."""
    device: torch.device = CPU
    """Device of the text encoder, the towers, the ranking head and the indexes."""
    collection: Collection | None = None
    """Of this version in Milvus, not connected yet; None where this process searches itself."""

    @property
    def text_vectors(self) -> FloatArray:
        """Unit text vectors, [items, text dim]."""
        return self.recommender.text_vectors

    @cached_property
    def template(self) -> TextTemplate:
        """How an item's fields become its text."""
        return TextTemplate.from_info(self.manifest["template"])

    def encode_items(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of item texts, [texts, text dim]."""
        return self.text_encoder.embed(texts, self.text_encoder.prompts.passage)

    def encode_queries(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of free text, [texts, text dim]."""
        return self.text_encoder.embed(texts, self.text_encoder.prompts.query)


def write_bundle(
    folder: Path,
    recommender: Recommender,
    catalogue: Catalogue,
    template: TextTemplate,
    text_encoder: Path,
    config_text: str,
) -> None:
    """Write the files of a version; the store adds the manifest."""
    WordIndex.build(catalogue, template).save(folder / WORDS)
    catalogue.frame.write_parquet(folder / CATALOG)
    np.save(folder / ITEM_VECTORS, recommender.arrays.item_vectors)
    np.save(folder / TEXT_VECTORS, recommender.text_vectors)
    write_indexes(folder, recommender)
    recommender.arrays.statistics.save(folder / STATISTICS)
    near = recommender.arrays.text_near
    save_file({"ids": near.ids, "weights": near.weights}, folder / TEXT_NEIGHBOURS)
    target = folder / TEXT_ENCODER
    for path in sorted(p for p in text_encoder.rglob("*") if p.is_file()):
        copy = target / path.relative_to(text_encoder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    if recommender.factors is not None:
        recommender.factors.save(folder / FACTORS_FILE)
    if recommender.affinity is not None:
        recommender.affinity.save(folder / AFFINITY_FILE)
    if recommender.towers is not None:
        recommender.towers.save(folder)
    if recommender.ranker is not None:
        recommender.ranker.save(folder)
    if recommender.novelty is not None:
        recommender.novelty.save(folder)
    (folder / CONFIG).write_text(config_text)


def load_bundle(
    store: Path,
    version: str | None = None,
    room: int = 0,
    manifest: dict[str, Any] | None = None,
    device: torch.device = CPU,
    retrieval: RetrievalConfig | None = None,
) -> Bundle:
    """Verify and load a version, the current one by default.

    Args:
        store: the artifact store.
        version: its name.
        room: items that may be added later, for which memory is reserved.
        manifest: of a version that is already verified; None verifies it.
        device: where models and indexes run.
        retrieval: the engine that searches; None searches in this process.

    Raises:
        InputError: naming the damaged file.

    """
    version = version or current_version(store)
    folder = store / VERSIONS / version
    manifest = manifest or verify(folder)
    for name in REQUIRED:
        if name not in manifest["files"]:
            raise InputError(f"{folder / MANIFEST}: lists no {name}; roll back or publish again")
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(_READERS, "reading", torch.set_num_threads, (threads,)) as pool:
        reading_statistics = pool.submit(Statistics.load, folder / STATISTICS, room)
        reading_near = pool.submit(load_arrays, folder / TEXT_NEIGHBOURS, room)
        reading_factors = pool.submit(_factors, folder, room)
        reading_towers = pool.submit(_towers, folder, device)
        reading_encoder = pool.submit(_text_encoder, folder, manifest, device)
        catalogue = Catalogue(pl.read_parquet(folder / CATALOG))
        reading_words = pool.submit(_words, folder, catalogue, TextTemplate.from_info(manifest["template"]))
        text_vectors = _vectors(folder / TEXT_VECTORS, room)
        item_vectors = _vectors(folder / ITEM_VECTORS, room)
        affinity = Affinity.load(folder / AFFINITY_FILE)
        ranker = Ranker.load(folder).to(device) if (folder / RANKER_FILE).is_file() else None
        reduce = PcaProjection.fit(text_vectors)
        units = reduce.units(text_vectors, room)
        goes_with = None if affinity is None else affinity.units(text_vectors, room)
        statistics, near = reading_statistics.result(), Neighbours(**reading_near.result())
        factors, towers = reading_factors.result(), reading_towers.result()
        encoder = reading_encoder.result()
    config = CandidateConfig(**manifest["candidates"])
    settings = index_config(manifest["index"])
    milvus = retrieval if retrieval is not None and retrieval.uses_milvus else None
    index = None if milvus else load_index(folder / INDEX, item_vectors, settings, device, room)
    counts = {
        CATALOG: len(catalogue), TEXT_VECTORS: len(text_vectors), ITEM_VECTORS: len(item_vectors),
        STATISTICS: len(statistics.count), TEXT_NEIGHBOURS: len(near.ids),
    }  # fmt: skip
    if index is not None:
        counts[INDEX] = len(index)
    if factors is not None:
        counts[FACTORS_FILE] = len(factors.vectors)
    for name, count in counts.items():
        if count != manifest["counts"]["items"]:
            raise InputError(
                f"{folder / name}: {count} rows, the manifest says {manifest['counts']['items']} items"
            )
    arrays = item_arrays(
        statistics, text_vectors, towers, config, near, item_vectors, factors, units, goes_with
    )
    clicks = np.array(manifest["click_kinds"], dtype=np.bool_)
    lends = affinity is not None and factors is not None
    own_texts = None if towers is None else text_vectors
    collection: Collection | None = None
    lender: CatalogueIndex | None = None
    text: VectorSearcher | None
    if milvus is not None:
        collection, text, indexes = milvus_searchers(milvus, version, catalogue, arrays, own_texts)
    else:
        assert index is not None
        others = read_indexes(folder, arrays, own_texts, lends, device, room)
        indexes = SourceIndexes.build(index, arrays, others.factor, others.new, device, room)
        text, lender = others.text, others.lender
    recommender = Recommender(
        arrays, indexes.items, text_vectors, config, clicks, towers, ranker, factors, affinity, text, indexes,
        words=LiveWords(reading_words.result()),
        kinds=manifest["kinds"],
        novelty=Novelty.load(folder), novelty_budget=manifest.get("rerank", {}).get("novelty", 0.0),
    )  # fmt: skip
    return Bundle(version, manifest, catalogue, recommender, encoder, reduce, lender, device, collection)


def _vectors(path: Path, room: int) -> FloatArray:
    """Return vectors of items, with room for more; memory-mapped where none will be added."""
    if room:
        return load_rows(path, room)
    mapped: FloatArray = mapped_rows(path)
    return mapped


def _factors(folder: Path, room: int) -> Factors | None:
    return Factors.load(folder / FACTORS_FILE, room) if (folder / FACTORS_FILE).is_file() else None


def _towers(folder: Path, device: torch.device) -> Towers | None:
    return Towers.load(folder).to(device) if (folder / TOWERS_FILE).is_file() else None


def _text_encoder(folder: Path, manifest: dict[str, Any], device: torch.device) -> FrozenTextEncoder:
    encoder = load_saved_encoder(folder / TEXT_ENCODER, int(manifest["max_tokens"]))
    for parameter in encoder.parameters():  # memory-mapped: truncating the file would crash the process
        parameter.data = parameter.data.clone()
    return frozen_text_encoder(encoder, folder / TEXT_ENCODER, manifest["precision"], device)


def _words(folder: Path, catalogue: Catalogue, template: TextTemplate) -> WordIndex:
    """Load the lexical index of a bundle; build it for a bundle published without one."""
    if not (folder / WORDS).is_dir():
        LOG.info("%s: published without an index of words; making it", folder.name)
        return WordIndex.build(catalogue, template)
    words = WordIndex.load(folder / WORDS)
    if len(words) != len(catalogue):
        raise InputError(f"{folder / WORDS}: {len(words)} rows, the catalogue has {len(catalogue)} items")
    return words
