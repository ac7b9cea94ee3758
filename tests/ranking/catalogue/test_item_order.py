"""The order in which items are listed."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.dataset import Catalogue
from ranking.catalogue.item_order import ItemOrder
from ranking.catalogue.live_catalogue import LiveCatalogue, LiveItem, PreparedItemChanges

IDS = st.lists(st.text(min_size=1, max_size=4), unique=True, min_size=1, max_size=12)


def catalogue(ids: list[str]) -> LiveCatalogue:
    return LiveCatalogue(Catalogue(pl.DataFrame({"item_id": ids, "item_text": ids})))


def with_items(state: LiveCatalogue, added: list[str], deleted: list[str]) -> LiveCatalogue:
    items = [LiveItem(item_id, "text", {}) for item_id in added]
    return state.after(PreparedItemChanges(items, deleted, [], np.zeros((0, 0), np.float32)))


@settings(max_examples=100, deadline=None)
@given(IDS, IDS, st.data())
def test_it_is_that_of_the_bytes_whatever_was_added_and_deleted(
    ids: list[str], later: list[str], data: st.DataObject
) -> None:
    before, order = catalogue(ids), ItemOrder()
    gone = data.draw(st.lists(st.sampled_from([*ids, *later])))
    after = with_items(with_items(with_items(before, later[:6], []), [], gone), later[6:], [])
    alive = {*ids, *later[:6]} - set(gone) | set(later[6:])
    by_bytes = sorted(alive, key=lambda item_id: item_id.encode())
    start = data.draw(st.sampled_from(["", "m", *ids, *later]))
    count = data.draw(st.integers(1, 9))
    behind = [i for i in by_bytes if i.encode() > start.encode()][:count]
    for _ in range(2):
        assert [after.ids[row] for row in order.after(after, start, count, None)] == behind
        # the state of before knows nothing of what came later
        expected = sorted((i for i in ids if i.encode() > start.encode()), key=str.encode)[:count]
        assert [before.ids[row] for row in order.after(before, start, count, None)] == expected


def test_only_allowed_rows_are_listed() -> None:
    state = with_items(catalogue(["b", "d", "a"]), ["c"], [])
    allowed = np.array([True, False, False, True])
    assert [state.ids[row] for row in ItemOrder().after(state, "", 9, allowed)] == ["b", "c"]
