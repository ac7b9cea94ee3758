"""Texts that an encoder has read need not be read again: their vectors are kept under a key of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from features.data.dataset import FloatArray
from ranking.bundle.bundle import TEXT_ENCODER, Bundle
from ranking.catalogue.live_catalogue import LiveItem, TextVector


class KnownTexts:
    """Makes vectors of texts, or takes those that the same encoder has made before."""

    def __init__(self, bundle: Bundle) -> None:
        """Use a bundle's encoder."""
        self._bundle = bundle
        self._encoder = _encoder_key(bundle.manifest)

    def encoded(
        self, items: Sequence[LiveItem], before: Mapping[str, TextVector | None]
    ) -> tuple[FloatArray, dict[str, TextVector]]:
        """Return unit vectors of texts, [items, text dim], and by item those that were not there before.

        Args:
            items: whose texts.
            before: by item, what has been encoded before, if anything.

        """
        width = self._bundle.recommender.text_vectors.shape[1]
        keys = [self._key(item.text) for item in items]
        vectors = np.empty((len(items), width), dtype=np.float32)
        missing = []
        for place, (item, key) in enumerate(zip(items, keys, strict=True)):
            kept = before.get(item.item_id)
            if kept is not None and kept.key == key and len(kept.values) == vectors[place].nbytes:
                vectors[place] = np.frombuffer(kept.values, dtype=np.float32)
            else:
                missing.append(place)
        if missing:
            vectors[missing] = self._bundle.encode_items([items[place].text for place in missing])
        fresh = {
            items[place].item_id: TextVector(key, vectors[place].tobytes())
            for place in missing
            if (key := keys[place]) is not None
        }
        return vectors, fresh

    def _key(self, text: str) -> bytes | None:
        """Return the key of a text's vector; None where it is not known what the encoder is."""
        if self._encoder is None:
            return None
        return hashlib.blake2b(text.encode(), digest_size=16, key=self._encoder).digest()


def _encoder_key(manifest: Mapping[str, Any]) -> bytes | None:
    """Return what is the same for bundles that make the same vector of a text; None if that is not known."""
    every: Mapping[str, Mapping[str, str]] = manifest.get("files", {})
    files = {name: file["sha256"] for name, file in every.items() if name.startswith(f"{TEXT_ENCODER}/")}
    if not files:
        return None
    inputs = [files, manifest.get("max_tokens"), manifest.get("precision")]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).digest()
