"""Products that are in the catalogue twice, and those that were listed again under a new id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import sparse

from conf.schema import Severity
from features.data.dataset import BoolArray, IntArray, LongArray
from features.text.words import folded
from ranking.lint.findings import Finding, Worth
from ranking.lint.material import Material, day, first_sales, many
from ranking.lint.near_copies import near_copies
from ranking.lint.worth import Yardstick

_LEAST_WORDS = 2
_JACCARD = 0.9
_OVERLAP_DAYS = 7
"""Days by which the old listing may outlive the first sale of the new one."""
_GAP_DAYS = 90
"""Days between the two listings above which they are taken for different products."""
_MOST_COPIES = 2
"""Items with the text of another one above which it names a kind of product, not a product."""
_DAY = 86_400
_NUMBER = re.compile(r"\d")


def equal_texts(texts: list[str]) -> LongArray:
    """Return the row of an earlier item with nearly the same text, or -1, [items].

    Words are compared without case, order and punctuation; of long texts one word in ten may differ, but no
    number: 250 ml and 500 ml are two products.
    """
    columns: dict[str, int] = {}
    indices: list[int] = []
    sizes = [0]
    for text in texts:
        words = sorted(set(folded(text)))
        numbers = [word for word in words if _NUMBER.search(word)]
        # Other numbers make the whole set different: they prefix each word.
        prefix = "|".join(numbers)
        indices += sorted(columns.setdefault(f"{prefix}|{word}", len(columns)) for word in words)
        sizes.append(len(indices))
    ones = np.ones(len(indices), dtype=np.int8)
    shape = (len(texts), max(len(columns), 1))
    sets = sparse.csr_matrix((ones, np.array(indices, dtype=np.int64), np.array(sizes)), shape=shape)
    return near_copies(sets, _LEAST_WORDS, _JACCARD)


def same_products(material: Material) -> Iterator[Finding]:
    """Find items with nearly equal texts: successors of an item that ended, and plain duplicates."""
    original = equal_texts(material.dataset.catalogue.texts)
    copies = np.flatnonzero(original >= 0)
    if not len(copies):
        return
    old, new = original[copies], copies
    succeeded = np.zeros(len(copies), dtype=np.bool_)
    if material.dataset.has_time:
        old, new, succeeded = _successions(material, old, new)
        succeeded &= np.bincount(original[copies])[original[copies]] <= _MOST_COPIES
    if succeeded.any():
        yield _relisted(material, old[succeeded], new[succeeded])
    at = int(copies[0])
    yield Finding(
        check="equal_items",
        severity=Severity.note,
        title=f"{many(len(copies), 'item has', 'items have')} nearly the text of another item",
        count=len(copies),
        total=material.items,
        unit="items",
        example=f"{material.item(at)} and {material.item(int(original[at]))}",
        meaning="A list with the one misses the target where the other was chosen, and the history of a "
        "product is divided.",
        fix="give one product one id (data.parent merges variants), or texts that tell items apart",
        measure=partial(_merged, old=original[copies], new=copies),
        most=Severity.note,
    )


def _successions(
    material: Material, one: LongArray, other: LongArray
) -> tuple[LongArray, LongArray, BoolArray]:
    """Return pairs of equal items as old and new, and which are a relisting across the cut, [pairs]."""
    first = first_sales(material)
    last = np.full(material.items, np.iinfo(np.int64).min)
    np.maximum.at(last, material.events.item, material.events.time)
    later = first[one] > first[other]
    old, new = np.where(later, other, one), np.where(later, one, other)
    sold = (last[old] > np.iinfo(np.int64).min) & (first[new] < np.iinfo(np.int64).max)
    gap = np.zeros(len(old), dtype=np.int64)
    gap[sold] = first[new[sold]] - last[old[sold]]
    follows = sold & (gap >= -_OVERLAP_DAYS * _DAY) & (gap <= _GAP_DAYS * _DAY)
    if material.by_time:
        follows &= first[new] >= material.split.train_time
    return old, new, follows


def _relisted(material: Material, old: LongArray, new: LongArray) -> Finding:
    first = first_sales(material)
    targets = int(np.isin(material.split.test.targets, new).sum())
    at = int(np.argmax(first[new]))
    return Finding(
        check="relisted_items",
        severity=Severity.warning if targets else Severity.note,
        title=f"{many(len(new), 'item is', 'items are')} listed again under a new id as the old one ends; "
        f"test targets among them: {targets:,}",
        count=len(new),
        total=material.items,
        unit="items",
        example=f"{material.item(int(old[at]))} and {material.item(int(new[at]))}, first sold on "
        f"{day(int(first[new[at]]))}",
        meaning="The new id is no new item: a text model finds it by its old text, a model of ids cannot, "
        "and neither comparison is about new products.",
        fix="map the new id to the old one, in items and events",
        measure=partial(_merged, old=old, new=new),
        least=Severity.warning if targets else Severity.note,
        most=Severity.warning,
    )


def _merged(yardstick: Yardstick, old: LongArray, new: LongArray) -> Worth | None:
    """Compare two ids with one, on the queries that have an item of a pair among targets or history."""

    def one_id(material: Material) -> Material:
        rows: IntArray = np.arange(material.items, dtype=np.int32)
        rows[new] = old.astype(np.int32)
        events = material.events
        return material.with_events(replace(events, item=rows[events.item]))

    return yardstick.changed("item_knn, two ids against one id", one_id)
