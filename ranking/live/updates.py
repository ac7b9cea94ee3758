"""A bundle whose items change while it is served.

The bundle itself is immutable; changes are an overlay: new texts are encoded, projected by the item tower and
searched by brute force beside the index; co-purchase factors of items without events are imputed from their
neighbours; prices and attributes are replaced; deleted rows are hidden from every candidate source. Nothing
is rebuilt: a change costs the encoding of its text, one search for its neighbours, and some rows written into
reserved memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl

from features.data.dataset import BoolArray, FloatArray, IntArray
from features.text.item_text import TextTemplate, render_rows
from ranking.bundle.bundle import Bundle
from ranking.catalogue.item_values import patched, typed_values
from ranking.catalogue.live_catalogue import (
    Change,
    Declaration,
    ItemChange,
    LiveCatalogue,
    LiveItem,
    PreparedItemChanges,
)
from ranking.kernels.popularity_order import PopularityOrder
from ranking.live.arrays import AttributeCodes, LiveArrays, log_prices
from ranking.live.events import LiveEvents
from ranking.live.indexes import LiveIndexes
from ranking.live.milvus_indexes import MilvusIndexes
from ranking.live.recorded_events import CountResult, RecordedEvent
from ranking.live.snapshot import LiveVersion, NewestRecommender
from ranking.live.text_cache import TextVectorCache
from ranking.milvus.status import EngineStatus
from ranking.recommender import Recommender
from ranking.retrieval.source_indexes import new_rows, popularity
from ranking.words.item_words import ItemReader, ItemWords
from ranking.words.live_words import LiveWords
from ranking.words.word_index import WordIndex


class LiveItems:
    """Applies changes to a bundle's items, in order."""

    def __init__(self, bundle: Bundle, room: int) -> None:
        """Take over a bundle, which must not be used elsewhere from then on.

        Args:
            bundle: as loaded.
            room: how many items may be added to it.

        """
        recommender = bundle.recommender
        self._room = room
        self._sources = recommender.sources
        self._config, self._click_kinds = recommender.config, recommender.click_kinds
        self._towers, self._ranker = recommender.towers, recommender.ranker
        self._novelty, self._novelty_budget = recommender.novelty, recommender.novelty_budget
        self._base_size = len(bundle.catalogue)
        statistics, popular = recommender.arrays.statistics, recommender.indexes.by_popularity
        self._popular = PopularityOrder(popular, popularity(statistics.recent, statistics.count), room)
        lends: BoolArray = recommender.arrays.statistics.count > 0
        self._template: TextTemplate = bundle.template
        self._reader = ItemReader(self._template, bundle.catalogue.attributes)
        self._words = recommender.texts.words or LiveWords(WordIndex.build(bundle.catalogue, self._template))
        self._chance_similarity = recommender.texts.chance_similarity
        self._kinds = bundle.kinds
        self._codes = AttributeCodes(bundle.catalogue, recommender.arrays.statistics.attributes)
        self._affinity = recommender.affinity
        self._arrays = LiveArrays(
            recommender.arrays, recommender.text_vectors, recommender.factors, self._affinity, room
        )
        self._events = LiveEvents(self._arrays, self._popular, recommender.config.window, room)
        self._indexes: LiveIndexes | MilvusIndexes
        if bundle.collection is None:
            self._indexes = LiveIndexes(
                recommender, bundle.lender_index, self._arrays, self._events, self._affinity, lends
            )
        else:
            fresh = new_rows(recommender.arrays.statistics.count)
            self._indexes = MilvusIndexes(bundle.collection, self._arrays, self._events, lends, fresh)
        catalogue = LiveCatalogue(bundle.catalogue)
        self._newest = NewestRecommender(self._recommender(catalogue))
        self._bundle = replace(bundle, recommender=self._newest.recommender)
        self._texts = TextVectorCache(self._bundle)
        self.current = LiveVersion(self._bundle, catalogue, self._newest)
        """The newest snapshot."""
        self.works = True
        """Whether it can serve requests; not once it has been closed."""

    @property
    def engine(self) -> EngineStatus | None:
        """State of the program that searches vectors; None where this process does."""
        return self._indexes.status()

    def close(self) -> None:
        """End the threads of the indexes, where there are any; memory is freed with the last reference."""
        self.works = False
        self._indexes.close()

    def warm_up(self) -> None:
        """Compile what recorded events need, see `LiveEvents.warm_up`."""
        self._events.warm_up()

    def plan(self, changes: Sequence[Change]) -> PreparedItemChanges:
        """Prepare changes against the current snapshot; the last one of an item counts.

        The slow part of a change, so that requests can be served meanwhile. Any thread may call it, but not
        concurrently, nor before the previous plan has been applied.

        Declarations apply first. Attributes that are neither declared nor the bundle's, or of another type,
        are ignored: they were validated against the bundle that was served when they arrived.
        """
        catalogue = self.current.catalogue
        declared = {c.name: c.kind for c in changes if isinstance(c, Declaration)}
        last = {change.item_id: change for change in changes if isinstance(change, ItemChange)}
        deletes = [item_id for item_id, change in last.items() if change.attributes is None]
        values_of, texts = self._contents(last.values(), catalogue.columns_with(declared))
        upserts: list[LiveItem] = []
        encode: list[int] = []
        room = self._base_size + self._room - catalogue.size
        for item_id, values in values_of.items():
            text = texts[item_id]
            row = catalogue.row(item_id)
            if row is None:
                room -= 1
                if room < 0:
                    continue
            if row is None or catalogue.text(row) != text:
                encode.append(len(upserts))
            upserts.append(LiveItem(item_id, text, values))
        words = self._read(upserts)
        if not encode:
            none = np.zeros((0, 0), dtype=np.float32)
            return PreparedItemChanges(upserts, deletes, encode, none, words=words, declared=declared)
        before = {item_id: change.encoded for item_id, change in last.items()}
        vectors, fresh = self._texts.encoded([upserts[position] for position in encode], before)
        lenders = self._indexes.lenders(vectors, catalogue.size)
        return PreparedItemChanges(upserts, deletes, encode, vectors, lenders, words, fresh, declared)

    def _contents(
        self, changes: Iterable[ItemChange], columns: Mapping[str, pl.DataType]
    ) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
        """Return the items after changes, by id: attribute values typed as the columns, and texts.

        Deleted items are left out, and so are patches of items that the bundle does not have.
        """
        catalogue, template = self.current.catalogue, self._template
        read = {*template.fields, *template.fallback}
        values: dict[str, dict[str, object]] = {}
        texts: dict[str, str] = {}
        for change in changes:
            if change.attributes is None:
                continue
            if not change.partial:
                values[change.item_id] = typed_values(change.attributes, columns)[0]
                continue
            row = catalogue.base.row(change.item_id)
            if row is None:
                continue
            [bundled] = catalogue.bundled([row])
            values[change.item_id] = patched(
                {**dict.fromkeys(catalogue.declared), **bundled}, change.attributes, columns
            )
            if read.isdisjoint(change.attributes):
                texts[change.item_id] = catalogue.base.texts[row]
        rendered = [item_id for item_id in values if item_id not in texts]
        rows = [{**_plain(values[item_id]), "item_id": item_id} for item_id in rendered]
        texts.update(zip(rendered, render_rows(rows, template), strict=True))
        return values, texts

    def apply(self, plan: PreparedItemChanges) -> LiveVersion:
        """Apply prepared changes; for the thread that runs the model, before the next plan is made.

        Args:
            plan: prepared against the current snapshot.

        Returns:
            The new snapshot, which becomes `current`.

        """
        before, vectors = self.current.catalogue, plan.vectors
        rows = before.rows_of(plan.upserts)
        size = max([before.size, *(row + 1 for row in rows)])
        placed = np.array(rows, dtype=np.int32)
        encoded = placed[plan.encode]
        known = encoded[encoded < before.size].tolist()
        touched = [self._arrays.remove_neighbour(row, size) for row in known]
        self._arrays.statistics.add(placed[placed >= before.size])
        if plan.upserts:
            self._arrays.statistics.describe(placed, log_prices(plan.upserts), self._codes.of(plan.upserts))
        if len(encoded):
            self._arrays.write_texts(encoded, vectors, self._bundle.sketch, self._towers, self._base_size)
            self._indexes.write_texts(encoded, size)
        self._words.put((rows[position], words) for position, words in plan.words)
        catalogue = before.after(plan)
        self._indexes.applied(catalogue, plan)
        if len(encoded):
            touched += self._enter_neighbours(encoded, vectors, catalogue)
            self._arrays.write_imputed(encoded, plan.lenders, np.unique(np.concatenate(touched)), size)
            self._indexes.write_factors(encoded, size)
            self._indexes.applied(catalogue, plan)
        self._newest.recommender = self._recommender(catalogue)
        if size > before.size and self._events.has_deferred and self._events.count_deferred(catalogue):
            self._newest.recommender = self._recommender(catalogue)
        self.current = LiveVersion(self._bundle, catalogue, self._newest)
        return self.current

    def _read(self, upserts: Sequence[LiveItem]) -> list[tuple[int, ItemWords]]:
        """Return the positions of items whose words or names change, and the new ones."""
        catalogue, column = self.current.catalogue, self._reader.title
        changed = []
        for position, item in enumerate(upserts):
            row, title = catalogue.row(item.item_id), None if column is None else item.values.get(column)
            same = row is not None and catalogue.text(row) == item.text
            if same and (row is None or column is None or catalogue.value(row, column) == title):
                continue
            changed.append((position, self._reader.item(item.item_id, item.text, title)))
        return changed

    def count_events(self, events: Sequence[RecordedEvent]) -> CountResult:
        """Count events recorded since the bundle's training, each once, in order of arrival.

        For the thread that runs the model. The events and the preceding ones are of kinds that the bundle was
        trained on, or mapped to these. Later lists reflect them; events of unknown items are deferred until
        the items are added.
        """
        catalogue = self.current.catalogue
        counted, promoted = self._events.count(events, catalogue)
        if promoted:
            self._newest.recommender = self._recommender(catalogue)
        return counted

    def _recommender(self, catalogue: LiveCatalogue) -> Recommender:
        arrays = self._arrays.view(catalogue.size)
        indexes = self._indexes.sources(catalogue, self._popular.shown(catalogue.size, catalogue.hidden))
        return Recommender(
            arrays,
            indexes.items,
            self._arrays.text_vectors(catalogue.size),
            self._config,
            self._click_kinds,
            self._towers,
            self._ranker,
            self._arrays.factors(catalogue.size),
            self._affinity,
            text_index=self._indexes.texts(catalogue) or indexes.items,
            indexes=indexes,
            hidden=catalogue.hidden,
            words=self._words,
            chance_similarity=self._chance_similarity,
            kinds=self._kinds,
            novelty=self._novelty,
            novelty_budget=self._novelty_budget,
            untrained=self._events.untrained(catalogue.size),
            sources=self._sources,
        )

    def _enter_neighbours(
        self, rows: IntArray, vectors: FloatArray, catalogue: LiveCatalogue
    ) -> list[IntArray]:
        """Update the text neighbour lists for changed items.

        Returns:
            Rows whose lists may have changed.

        """
        arrays = self._arrays.view(catalogue.size)
        index = self._indexes.neighbours(catalogue)
        found, _ = index.search(vectors, arrays.text_near.ids.shape[1] + 1)
        return [
            self._arrays.write_neighbours(row, near, catalogue.size)
            for row, near in zip(rows.tolist(), found, strict=True)
        ]


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """Return values as the text template takes them: times as ISO text."""
    return {name: str(v) if isinstance(v, date) else v for name, v in values.items()}
