"""What FAISS needs of a mask, kept for as long as the mask: the same few filters come again and again."""

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
    """[items / 8], the lowest first."""
    selector: faiss.IDSelector


_KEPT: dict[int, tuple[weakref.ref[BoolArray], Selected]] = {}
"""By the identity of a mask, which is never written to once it has been searched with."""


def selected(mask: BoolArray) -> Selected:
    """Return what a mask [items] allows; the mask must not change any more."""
    kept = _KEPT.get(id(mask))
    if kept is not None and kept[0]() is mask:
        return kept[1]
    mask.flags.writeable = False  # a later change raises
    bitmap = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(bitmap)  # type: ignore[call-arg, arg-type]
    found = Selected(int(np.count_nonzero(mask)), bitmap, selector)
    key = id(mask)
    _KEPT[key] = weakref.ref(mask, lambda gone: _forget(key, gone)), found
    return found


def _forget(key: int, gone: weakref.ref[BoolArray]) -> None:
    kept = _KEPT.get(key)
    if kept is not None and kept[0] is gone:
        del _KEPT[key]
