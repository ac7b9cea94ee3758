"""Items as a collection stores them: its schema, its entities, and how many are inserted at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import polars as pl

from features.data import schema
from features.data.dataset import BoolArray, FloatArray, LongArray
from ranking.catalogue.filter_language import AttributeKind
from ranking.milvus.collection import CollectionSpec
from ranking.milvus.fields import FRESH, ITEM, MAX_BYTES, MAX_VALUES, AttributeField, stored_rows

_BATCH_BYTES: Final = 8 * 2**20
"""Most bytes of an insertion of several items; one larger item is sent alone. Milvus takes 64 MB."""
_ID_BYTES: Final = 4 * schema.MAX_ID_CHARS


def collection_schema(spec: CollectionSpec) -> Any:  # noqa: ANN401 - pymilvus has no types
    """Return the schema of a collection."""
    from pymilvus import DataType, MilvusClient

    fields = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    fields.add_field(ITEM, DataType.VARCHAR, is_primary=True, max_length=_ID_BYTES)
    fields.add_field(FRESH, DataType.BOOL)
    for field, dim in spec.dims.items():
        fields.add_field(field, DataType.FLOAT_VECTOR, dim=dim)
    for attribute in spec.attributes:
        fields.add_field(attribute.field, nullable=True, **_type(attribute))
    return fields


def parts(sizes: LongArray) -> Iterator[slice]:
    """Yield ranges of items for an insertion each.

    Args:
        sizes: [items] bytes of each.

    """
    start = filled = 0
    for row, size in enumerate(sizes.tolist()):
        if filled and filled + size > _BATCH_BYTES:
            yield slice(start, row)
            start, filled = row, 0
        filled += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def _type(attribute: AttributeField) -> dict[str, Any]:
    """Return the type of an attribute's field as Milvus's schema takes it."""
    from pymilvus import DataType

    if attribute.kind is AttributeKind.string:
        return {"datatype": DataType.VARCHAR, "max_length": MAX_BYTES}
    if attribute.kind is AttributeKind.boolean:
        return {"datatype": DataType.BOOL}
    if attribute.kind is AttributeKind.list:
        if attribute.elements is AttributeKind.string:
            more = {"element_type": DataType.VARCHAR, "max_length": MAX_BYTES}
        else:
            more = {"element_type": DataType.DOUBLE}
        return {"datatype": DataType.ARRAY, "max_capacity": MAX_VALUES, **more}
    whole = attribute.kind is AttributeKind.time or attribute.whole
    return {"datatype": DataType.INT64 if whole else DataType.DOUBLE}


def entities(
    frame: pl.DataFrame,
    spec: CollectionSpec,
    vectors: Mapping[str, FloatArray],
    fresh: BoolArray,
    part: slice,
) -> Iterable[dict[str, Any]]:
    """Yield the entities of some items."""
    rows = stored_rows(frame, spec.attributes)
    own = {field: np.asarray(vectors[field][part], dtype=np.float32) for field in spec.dims}
    for position, (item_id, values) in enumerate(zip(frame[schema.ITEM_ID], rows, strict=True)):
        yield entity(item_id, values, {f: v[position] for f, v in own.items()}, bool(fresh[part][position]))


def entity(
    item_id: str, values: Mapping[str, Any], vectors: Mapping[str, FloatArray], fresh: bool
) -> dict[str, Any]:
    """Return an item as a collection has it."""
    return {ITEM: item_id, FRESH: fresh, **values, **vectors}
