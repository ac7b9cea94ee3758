"""Cached text vectors, by a hash of text and encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from features.data.dataset import FloatArray
from ranking.bundle.bundle import TEXT_ENCODER, Bundle
from ranking.catalogue.live_catalogue import LiveItem, TextVector


class TextVectorCache:
    """Encodes texts that are not cached for the same encoder."""

    def __init__(self, bundle: Bundle) -> None:
        """Take a bundle's encoder."""
        self._bundle = bundle
        self._encoder = _encoder_key(bundle.manifest)

    def encoded(
        self, items: Sequence[LiveItem], before: Mapping[str, TextVector | None]
    ) -> tuple[FloatArray, dict[str, TextVector]]:
        """Return unit vectors of texts, [items, text dim], and the newly encoded ones by item id.

        Args:
            items: the items with the texts.
            before: cached vectors by item id, if any.

        """
        width = self._bundle.recommender.text_vectors.shape[1]
        keys = [self._key(item.text) for item in items]
        vectors = np.empty((len(items), width), dtype=np.float32)
        missing = []
        for position, (item, key) in enumerate(zip(items, keys, strict=True)):
            cached = before.get(item.item_id)
            if cached is not None and cached.key == key and len(cached.values) == vectors[position].nbytes:
                vectors[position] = np.frombuffer(cached.values, dtype=np.float32)
            else:
                missing.append(position)
        if missing:
            vectors[missing] = self._bundle.encode_items([items[position].text for position in missing])
        fresh = {
            items[position].item_id: TextVector(key, vectors[position].tobytes())
            for position in missing
            if (key := keys[position]) is not None
        }
        return vectors, fresh

    def _key(self, text: str) -> bytes | None:
        """Return the cache key of a text; None for an unidentified encoder."""
        if self._encoder is None:
            return None
        return hashlib.blake2b(text.encode(), digest_size=16, key=self._encoder).digest()


def _encoder_key(manifest: Mapping[str, Any]) -> bytes | None:
    """Return a hash of the encoder's files and settings; None if the manifest does not list them."""
    every: Mapping[str, Mapping[str, str]] = manifest.get("files", {})
    files = {name: file["sha256"] for name, file in every.items() if name.startswith(f"{TEXT_ENCODER}/")}
    if not files:
        return None
    inputs = [files, manifest.get("max_tokens"), manifest.get("precision")]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).digest()
