"""FAISS selectors of masks, cached for the lifetime of a mask, because the same filters recur."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray


@dataclass(frozen=True, eq=False)
class Selected:
    """The rows that a mask allows."""

    count: int
    bits: npt.NDArray[np.uint8]
    """[items / 8] packed, lowest bit first."""
    selector: faiss.IDSelector


_CACHE: dict[int, tuple[weakref.ref[BoolArray], Selected]] = {}
"""By the `id` of a mask, which is read-only once it has been searched with."""


def selected(mask: BoolArray) -> Selected:
    """Return the selector of a mask [items], which becomes read-only."""
    cached = _CACHE.get(id(mask))
    if cached is not None and cached[0]() is mask:
        return cached[1]
    mask.flags.writeable = False  # a later change raises
    bitmap = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(bitmap)  # type: ignore[call-arg, arg-type]
    found = Selected(int(np.count_nonzero(mask)), bitmap, selector)
    key = id(mask)
    _CACHE[key] = weakref.ref(mask, lambda gone: _evict(key, gone)), found
    return found


def _evict(key: int, gone: weakref.ref[BoolArray]) -> None:
    cached = _CACHE.get(key)
    if cached is not None and cached[0] is gone:
        del _CACHE[key]
