"""Attributes that were declared for a catalogue."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from features.data.dataset import Catalogue
from ranking.catalogue.filter_language import AttributeKind
from ranking.catalogue.live_catalogue import LiveCatalogue, LiveItem, PreparedItemChanges

NO_VECTORS = np.zeros((0, 0), np.float32)


@pytest.mark.parametrize("name", ["*", "^.*$", "^item_id$"])
def test_a_name_that_polars_takes_for_several_does_no_harm(name: str) -> None:
    """Servers refuse to declare one; a state may hold one that was declared in an earlier release."""
    frame = pl.DataFrame({"item_id": ["a", "b"], "item_text": ["A", "B"], "brand": ["x", "y"]})
    declared = {name: AttributeKind.string}
    state = LiveCatalogue(Catalogue(frame)).after(
        PreparedItemChanges([], [], [], NO_VECTORS, declared=declared)
    )
    changed = LiveItem("a", "A", {"brand": "z", name: "value"})
    state = state.after(PreparedItemChanges([changed], [], [], NO_VECTORS))
    assert state.changed_values(name)[1].to_list() == ["value"]
    assert state.changed_values("brand")[1].to_list() == ["z"]
