"""Contexts sampled from every event of a dataset."""

from __future__ import annotations

from encoders.contexts import ContextSampler
from encoders.text.catalogue_vectors import text_ids
from features.data.dataset import Dataset, IntArray
from tests.synthetic import everything


def sampler_of(
    dataset: Dataset, window: int = 3, texts: IntArray | None = None, piece: int = 4
) -> ContextSampler:
    ids = text_ids(dataset.catalogue.texts) if texts is None else texts
    return ContextSampler(dataset.events, everything(dataset), dataset.kind_weights, ids, window, piece)
