"""Vectors of a catalogue's texts, computed lazily."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from rich.progress import Progress

from conf.encoders import Precision
from encoders.text.compiled_text_encoder import CompiledTextEncoder, FrozenTextEncoder
from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray
from features.data.arrays import mapped_rows
from features.data.dataset import FloatArray, IntArray, LongArray

_ROWS: Final = 1 << 16
"""Vectors written at a time."""


def read_vectors(path: Path) -> FloatArray:
    """Return vectors that `CatalogueVectors.save` wrote, [items, dim], mapped as by `mapped_rows`."""
    vectors: FloatArray = mapped_rows(path)
    return vectors


def text_ids(texts: list[str]) -> IntArray:
    """Number distinct texts, [items]."""
    return np.unique(np.array(texts, dtype=object), return_inverse=True)[1].astype(np.int32)


class CatalogueVectors:
    """An encoder's vectors of items; a text is encoded once for the same weights."""

    def __init__(
        self, encoder: TextEncoder, precision: Precision, texts: list[str], bar: Callable[[], Progress]
    ) -> None:
        """Tokenize the texts.

        Args:
            encoder: on the device where vectors are made.
            precision: of the vectors, bf16 or fp32.
            texts: each item's, without prompt.
            bar: makes a progress bar.

        """
        self._encoder, self._precision, self._bar = encoder, precision, bar
        self._frozen: FrozenTextEncoder | None = None
        prompted = [encoder.prompts.passage + text for text in texts]
        self.tokens = TokenArray.tokenized(encoder.tokenizer, prompted, encoder.max_tokens)
        self._ids = text_ids(texts)
        self._first = np.unique(self._ids, return_index=True)[1]  # an item with each distinct text
        self._vectors: FloatArray = np.empty((len(self._first), encoder.dim), dtype=np.float32)
        self._cached = np.zeros(len(self._first), dtype=np.bool_)

    def of(self, rows: IntArray | LongArray | None = None) -> FloatArray:
        """Return unit vectors of items, [rows, dim], all by default, computing those that are missing."""
        self._compute(rows)
        return self._vectors[self._ids if rows is None else self._ids[rows]]

    def _compute(self, rows: IntArray | LongArray | None) -> None:
        """Compute the vectors of items, all by default, that are missing."""
        ids = self._ids if rows is None else self._ids[rows]
        requested = np.zeros_like(self._cached)
        requested[ids] = True
        missing = np.flatnonzero(requested & ~self._cached)
        if len(missing):
            frozen = self._frozen or CompiledTextEncoder(self._encoder, self._precision)
            tokens = self.tokens.select(self._first[missing])
            with self._bar() as bar:
                task = bar.add_task("embedding the catalogue", total=len(missing))
                self._vectors[missing] = frozen.embed_tokens(tokens, lambda n: bar.advance(task, n))
            self._cached[missing] = True

    def save(self, path: Path) -> None:
        """Write the vectors of all items, [items, dim], as an array to be mapped, a block at a time.

        An array of all items beside the cache would be a second copy of the largest thing there is.
        """
        self._compute(None)
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(self._ids), self._vectors.shape[1])}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(self._ids), _ROWS):
                self._vectors[self._ids[start : start + _ROWS]].tofile(file)

    def take_over(self, vectors: FloatArray, rows: IntArray) -> int:
        """Take vectors of the same encoder for texts that it has encoded before; return of how many items.

        Args:
            vectors: unit vectors, [any, dim].
            rows: the row of each item's text there, -1 for none, [items].

        """
        known = np.flatnonzero(rows >= 0)
        self._vectors[self._ids[known]] = vectors[rows[known]]
        self._cached[self._ids[known]] = True
        return len(known)

    def use(self, frozen: FrozenTextEncoder) -> None:
        """Have all vectors made by another form of the encoder from here on; earlier ones are dropped."""
        self._frozen = frozen
        self.invalidate()

    def invalidate(self) -> None:
        """Drop all vectors: the weights have changed."""
        self._cached[:] = False
